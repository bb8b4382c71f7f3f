"""How much a quantised model loses against its 16-bit original: published evaluations, and one rule to read them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from planning.facts.checkpoints import Checkpoint
from planning.facts.table import DATA, Row, read_table

KV_CACHE_PREFIX = "kv-"
"""Methods of the file that quantise the KV cache: the prefix, then vLLM's ``--kv-cache-dtype``."""

_NEAR_IN_SIZE = 2.0
"""Models within this factor in parameters count as of one size: 7B, 8B and 14B, but not 8B and 32B."""


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

    Near is within a factor of two in parameters. Where nobody published such a model, the nearest smaller one counts,
    because smaller models lose more (arXiv 2411.02355; Qwen2 from 0.5B to 72B), else the nearest larger one. A gain
    is noise and counts as no loss. A method without any result takes the largest loss of all methods at that size.
    """
    if method in {"fp16", KV_CACHE_PREFIX + "auto"}:
        return QualityLoss(0.0, "the reference")
    known = evaluations()
    if method not in known:
        on_cache = method.startswith(KV_CACHE_PREFIX)
        alike = [other for other in known if other.startswith(KV_CACHE_PREFIX) == on_cache]
        worst = max((method_loss(params_billion, other) for other in alike), key=lambda loss: loss.percent)
        return QualityLoss(worst.percent, f"nobody published {method}: the worst of all methods")
    rows = _near(params_billion, known[method])
    percent = max(0.0, 100 - statistics.median(row.recovery_percent for row in rows))
    models = sorted({row.model.rpartition("/")[2] for row in rows})
    years = sorted({row.source_date[:4] for row in rows})
    what = f"median of {len(rows)} results" if len(rows) > 1 else "one result"
    when = years[0] if len(years) == 1 else f"{years[0]} to {years[-1]}"
    return QualityLoss(round(percent, 1), f"{method}: {what} published {when} on {', '.join(models)}")


def checkpoint_loss(params_billion: float, checkpoint: Checkpoint) -> QualityLoss:
    """The loss of a checkpoint; none where the model was released in this very format."""
    if checkpoint.repository == checkpoint.base_model_id:
        return QualityLoss(0.0, "released in this format")
    return method_loss(params_billion, checkpoint.method)


def kv_cache_loss(params_billion: float, kv_cache_dtype: str) -> QualityLoss:
    """The loss of a KV cache data type; the variants of fp8 (``fp8_e4m3``) count as fp8."""
    dtype = "fp8" if kv_cache_dtype.startswith("fp8") else kv_cache_dtype
    return method_loss(params_billion, KV_CACHE_PREFIX + dtype)


def _near(params_billion: float, rows: tuple[Evaluation, ...]) -> list[Evaluation]:
    near = [
        row
        for row in rows
        if max(row.params_billion / params_billion, params_billion / row.params_billion) <= _NEAR_IN_SIZE
    ]
    if near:
        return near
    sizes = {row.params_billion for row in rows}
    smaller = [size for size in sizes if size < params_billion]
    return _near(max(smaller) if smaller else min(sizes), rows)


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
