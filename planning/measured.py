"""Published measurements of the very replica that is planned: where one exists, it beats the formula."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from planning.facts.measurements import Measurement, measured_architectures, vllm_measurements
from planning.speed import CONSTANTS
from planning.speed_evaluation import METHODS, is_burst, is_current, predictions

#: Lengths count as the same within this factor.
_LENGTHS_WITHIN = 2.0

#: 80 % band of measured over planned cost of a replica that was measured at other loads and lengths: so far rows of one
#: replica lie from what the others of it say.
COST_BAND_MEASURED = (0.92, 1.11)

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


def measured_replica(replica: Replica, input_tokens: float, output_tokens: float) -> MeasuredReplica | None:
    """Measurements of a replica under a current vLLM with lengths within a factor of two; None where there are none."""
    near: list[tuple[float, Measurement]] = []
    for row in _by_replica().get(replica, ()):
        if row.input_tokens and row.output_tokens and row.concurrency:
            apart = [
                max(theirs / ours, ours / theirs)
                for theirs, ours in ((row.input_tokens, input_tokens), (row.output_tokens, output_tokens))
            ]
            if max(apart) <= _LENGTHS_WITHIN:
                near.append((apart[0] * apart[1], row))
    judged, _ = predictions([row for _, row in near])
    if not judged:
        return None
    factor = statistics.median(1 + one.error(CONSTANTS.seconds_per_unit(one.engine)) for one in judged)
    nearest = min(near, key=lambda pair: pair[0])[1]
    source = f"{nearest.source.split('@')[0]}, {nearest.engine} {nearest.engine_version}, {nearest.source_date}"
    return MeasuredReplica(factor, len(judged), source)


@cache
def _by_replica() -> Mapping[Replica, tuple[Measurement, ...]]:
    found: dict[Replica, list[Measurement]] = defaultdict(list)
    for row in vllm_measurements():
        architecture, method = measured_architectures().get(row.model), METHODS.get(row.quantization)
        if architecture and method and is_current(row) and not is_burst(row):
            found[architecture.model_id, method, row.gpu, row.gpu_count].append(row)
    return MappingProxyType({replica: tuple(rows) for replica, rows in found.items()})
