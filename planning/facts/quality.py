"""How much a quantised model loses against its 16-bit original: published evaluations, and one rule to read them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from planning.facts.checkpoints import Checkpoint
from planning.facts.table import DATA, Row, read_table

KV_CACHE_PREFIX = "kv-"
"""Methods of the file that quantise the KV cache: the prefix, then vLLM's ``--kv-cache-dtype``."""

_NEAR_IN_SIZE = 2.0
"""Models within this factor in parameters count as of one size: 7B, 8B and 14B, but not 8B and 32B."""

_FEWEST_RESULTS = 5
"""A benchmark scatters by 1 to 2 points, so fewer results tell losses of a percent from none by luck alone."""

#: Methods of one kind from most bits to fewest; those in one place have as many.
_LADDERS = (
    (("fp8",), ("int8", "gptq8"), ("w4a16", "awq", "gptq", "nvfp4", "mxfp4")),
    tuple(
        (f"gguf-{name}",)
        for name in ("q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "iq4_xs", "q3_k_m", "q2_k")
    ),
    (
        ("kv-fp8", "kv-int8_per_token_head"),
        ("kv-turboquant_k8v4",),
        ("kv-int4_per_token_head", "kv-turboquant_4bit_nc"),
        ("kv-turboquant_3bit_nc",),
    ),
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One published result of a quantised model on one benchmark."""

    model: str
    params_billion: float
    method: str
    """As in ``Checkpoint``; ``kv-fp8`` and its like quantise the KV cache alone."""
    benchmark: str
    recovery_percent: float
    """Score in percent of the 16-bit model's; above 100 is noise of the benchmark."""
    source: str
    source_date: str

    @property
    def long_context(self) -> bool:
        """Whether the benchmark retrieves from long prompts, where a KV cache's errors add up."""
        return self.benchmark.endswith("long context")


@dataclass(frozen=True, slots=True)
class QualityLoss:
    """What a quantised model is expected to lose."""

    percent: float
    """Of the 16-bit model's benchmark scores."""
    source: str
    """The published results that the figure is the median of."""

    def __add__(self, other: QualityLoss) -> QualityLoss:
        """Both losses together: of weights and KV cache."""
        parts = [part.source for part in (self, other) if part.percent > 0]
        return QualityLoss(self.percent + other.percent, "; ".join(parts) or self.source)


@cache
def evaluations() -> Mapping[str, tuple[Evaluation, ...]]:
    """The results of ``data/quality_loss.csv`` by method."""
    by_method: dict[str, list[Evaluation]] = {}
    for row in read_table(DATA / "quality_loss.csv", _COLUMNS, _evaluation):
        by_method.setdefault(row.method, []).append(row)
    return MappingProxyType({method: tuple(rows) for method, rows in by_method.items()})


@cache
def method_loss(params_billion: float, method: str) -> QualityLoss:
    """The loss of a method on a model of a size: the median over the published results of models near in size.

    Near is within a factor of two in parameters. Where that gives fewer than five results, the next smaller models
    count too, because smaller models lose more (arXiv 2411.02355; Qwen2 from 0.5B to 72B), else the next larger ones;
    where all sizes give fewer, all methods of the same kind and bits do. A gain is noise and counts as no loss. Fewer
    bits never lose less than more bits of the same kind: the running maximum along ``_LADDERS``. A method without any
    result takes the largest loss of all methods at that size.

    Long-context retrieval is left out of the median and told beside it: a KV cache loses more there.
    """
    if method in {"fp16", *(KV_CACHE_PREFIX + dtype for dtype in ("auto", "float16", "bfloat16"))}:
        return QualityLoss(0.0, "the reference")
    known = evaluations()
    if method not in known:
        on_cache = method.startswith(KV_CACHE_PREFIX)
        alike = [other for other in known if other.startswith(KV_CACHE_PREFIX) == on_cache]
        worst = max((method_loss(params_billion, other) for other in alike), key=lambda loss: loss.percent)
        return QualityLoss(worst.percent, f"nobody published {method}: the worst of all methods")
    same_bits, more_bits = _place(method)
    rows = _near(params_billion, [row for row in known[method] if not row.long_context])
    what = method
    if len(rows) < _FEWEST_RESULTS and len(same_bits) > 1:
        what = " and ".join(same_bits)
        rows = _near(params_billion, [row for one in same_bits for row in known[one] if not row.long_context])
    percent = max(0.0, 100 - statistics.median(row.recovery_percent for row in rows))
    own = QualityLoss(round(percent, 1), f"{what}: {_told(rows)}{_long_context(known[method])}")
    floor = max((method_loss(params_billion, one) for one in more_bits), key=lambda loss: loss.percent, default=own)
    if own.percent >= floor.percent:
        return own
    return QualityLoss(floor.percent, f"{method} counts no better than {floor.source}")


def _place(method: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The published methods with as many bits as ``method``, itself included, and those with next more."""
    for ladder in _LADDERS:
        published = [tuple(one for one in step if one in evaluations()) for step in ladder]
        for more, same in zip([(), *published], published, strict=False):
            if method in same:
                return same, more
    return (method,), ()


def _told(rows: Sequence[Evaluation]) -> str:
    models = sorted({row.model.rpartition("/")[2] for row in rows})
    years = sorted({row.source_date[:4] for row in rows})
    what = f"median of {len(rows)} results" if len(rows) > 1 else "one result"
    when = years[0] if len(years) == 1 else f"{years[0]} to {years[-1]}"
    return f"{what} published {when} on {', '.join(models)}"


def _long_context(rows: Sequence[Evaluation]) -> str:
    lost = [100 - row.recovery_percent for row in rows if row.long_context]
    return f"; long-context retrieval lost {min(lost):.1f} to {max(lost):.1f} %" if lost else ""


def checkpoint_loss(params_billion: float, checkpoint: Checkpoint) -> QualityLoss:
    """The loss of a checkpoint; none where the model was released in this very format."""
    if checkpoint.repository == checkpoint.base_model_id:
        return QualityLoss(0.0, "released in this format")
    return method_loss(params_billion, checkpoint.method)


def kv_cache_loss(params_billion: float, kv_cache_dtype: str) -> QualityLoss:
    """The loss of a KV cache data type; the variants of fp8 (``fp8_e4m3``) count as fp8."""
    dtype = "fp8" if kv_cache_dtype.startswith("fp8") else kv_cache_dtype
    return method_loss(params_billion, KV_CACHE_PREFIX + dtype)


def _near(params_billion: float, rows: Sequence[Evaluation]) -> list[Evaluation]:
    """Those near in size, and more by ``_FEWEST_RESULTS``: of the next smaller size each, then of the next larger."""
    factor = {row.params_billion: row.params_billion / params_billion for row in rows}
    near = [size for size in factor if 1 / _NEAR_IN_SIZE <= factor[size] <= _NEAR_IN_SIZE]
    smaller = sorted((size for size in factor if factor[size] < 1 / _NEAR_IN_SIZE), reverse=True)
    larger = sorted(size for size in factor if factor[size] > _NEAR_IN_SIZE)
    found = [row for row in rows if row.params_billion in near]
    for size in (*smaller, *larger):
        if len(found) >= _FEWEST_RESULTS:
            break
        found += [row for row in rows if row.params_billion == size]
    return found


_COLUMNS = (
    "model",
    "params_billion",
    "method",
    "benchmark",
    "score_16_bit",
    "score",
    "recovery_percent",
    "source",
    "source_date",
    "notes",
)


def _evaluation(row: Row) -> Evaluation:
    return Evaluation(
        model=row.name("model"),
        params_billion=row.number("params_billion"),
        method=row.name("method"),
        benchmark=row.name("benchmark"),
        recovery_percent=row.number("recovery_percent"),
        source=row.name("source"),
        source_date=row.name("source_date"),
    )
