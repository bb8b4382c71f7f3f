"""Published measurements of the very replica that is planned: where they exist, they beat the formula."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from planning.facts.measurements import Measurement, measured_architectures, vllm_measurements
from planning.speed import CONSTANTS
from planning.speed_evaluation import METHODS, Prediction, is_burst, is_current, measured_by, predictions

#: Lengths count as the same within this factor.
_LENGTHS_WITHIN = 2.0

#: Fewer rows may be one mislabelled run.
_LEAST_ROWS = 3

Replica = tuple[str, str, str, int]
"""Model, quantisation method, GPU, number of GPUs."""


@dataclass(frozen=True, slots=True)
class MeasuredReplica:
    """What measurements say of a replica that the formula projects."""

    time_factor: float
    """Median of measured over projected time."""
    rows: int
    source: str
    """Of the row with the nearest lengths: who, with what, when."""


def measured_replica(
    replica: Replica, input_tokens: float, output_tokens: float, kv_cache_dtype: str = "auto"
) -> MeasuredReplica | None:
    """Measurements of a replica under a current vLLM with lengths within a factor of two; None where there are too few.
    Those at hand all keep the cache in 16 bit.

    How far they are from the user's own replica is the band of ``planning.speed.COST_BAND``: rows of one source agree
    better with each other than with a second source.
    """
    if kv_cache_dtype != "auto":
        return None
    near: list[tuple[float, Prediction]] = []
    for one in _judged(replica[0], replica[2]).get(replica, ()):
        given, made = one.row.input_tokens, one.row.output_tokens
        if given and made:
            pairs = ((given, input_tokens), (made, output_tokens))
            apart = [max(theirs / ours, ours / theirs) for theirs, ours in pairs]
            if max(apart) <= _LENGTHS_WITHIN:
                near.append((apart[0] * apart[1], one))
    if len(near) < _LEAST_ROWS:
        return None
    factor = statistics.median(1 + one.error(CONSTANTS.seconds_per_unit(one.engine)) for _, one in near)
    row = min(near, key=lambda pair: pair[0])[1].row
    source = f"{row.source.split('@')[0]}, {row.engine} {row.engine_version}, {row.source_date or 'undated'}"
    return MeasuredReplica(factor, len(near), source)


@cache
def _judged(model_id: str, gpu: str) -> Mapping[Replica, tuple[Prediction, ...]]:
    """The sound rows of a model on a GPU by replica. A source with a row that cannot be right has none of them."""
    rows = _rows().get((model_id, gpu), ())
    judged, left_out = predictions(rows)
    wrong = {measured_by(one.row) for one in left_out}
    found: dict[Replica, list[Prediction]] = defaultdict(list)
    for one in judged:
        if measured_by(one.row) not in wrong:
            found[model_id, METHODS[one.row.quantization], gpu, one.row.gpu_count].append(one)
    return MappingProxyType({replica: tuple(group) for replica, group in found.items()})


@cache
def _rows() -> Mapping[tuple[str, str], tuple[Measurement, ...]]:
    found: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
    for row in vllm_measurements():
        architecture = measured_architectures().get(row.model)
        if architecture and row.quantization in METHODS and row.concurrency and is_current(row) and not is_burst(row):
            found[architecture.model_id, row.gpu].append(row)
    return MappingProxyType({key: tuple(rows) for key, rows in found.items()})
