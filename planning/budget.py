"""A month over its budget: the changes of the settings that would fit, each planned, the least intrusive first.

Nothing here is estimated. Each change is the stack planned anew with other settings (:mod:`planning.variants`). The
order is that of what people give up: nothing but habits, comfort at night, availability, quality, latency, and last the
small model or the region.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from planning.demands import DEFAULT_MAX_QUALITY_LOSS_PERCENT, quality_loss
from planning.facts.checkpoints import checkpoints
from planning.facts.instances import regions
from planning.facts.models import models
from planning.variants import Month, Variants
from problems import NAMESPACE, Problem
from settings import Settings, StackSettings, TierSettings, Traffic, WorkingHours

#: Changes that are named.
_ENOUGH = 3

#: Tiers planned in one search, so that a preview that fails does so within about two seconds (10 ms each).
_MOST_WORK = 130

#: Dearest tiers that are looked at for a change of one tier.
_MOST_TIERS = 8

#: What saves less is not worth a change, USD a month.
_WORTH_USD = 1.0

#: Factors on a latency target that are tried, and how near the nearest that fits is found.
_LOOSER = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0)
_NEAR = 1.02


#: New values by the path of their setting, as a stack file has them.
Edits = dict[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """Settings changed together, and the month with them."""

    edits: Edits
    """New values by path."""
    gives_up: tuple[str, ...]
    """What it costs the users, in words."""
    settings: StackSettings
    month: Month


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of change: tried on the whole stack, or on single tiers and as many of them as it takes."""

    gives_up: str
    stack: Callable[[StackSettings], tuple[StackSettings, Edits] | None] | None = None
    tier: Callable[[StackSettings, TierSettings], dict[str, Any] | None] | None = None
    """The fields to change and their new values; None where it changes nothing."""


@dataclass(frozen=True, slots=True)
class Search:
    """What was found for a month over its budget."""

    changes: tuple[Change, ...]
    """Those that fit: single ones, or else one combination."""
    smallest: Change | None
    """Where nothing fits: the cheapest combination found."""


def over_budget(settings: StackSettings, month: Month, variants: Variants) -> Problem | None:
    """The problem of a month over its budget with what would fit; None when it is within, or there is no budget."""
    limit, figure, fixed = settings.budget.monthly_usd, month.figure, month.fixed.usd
    if limit is None or figure <= limit:
        return None
    found = _Searcher(settings, month, variants, limit).search()
    compare = settings.budget.compare
    what = f"the cheapest plan is projected at {figure:,.0f} USD a month ({compare}), {figure - limit:,.0f} over it; "
    if fixed > limit:
        items = sorted(month.fixed.items, key=lambda item: -item.usd)
        listed = ", ".join(f"{item.name} {item.usd:,.2f}" for item in items if item.usd >= _WORTH_USD)
        what += f"fixed costs alone, without a single model node, are {fixed:,.0f} USD: {listed}"
    else:
        what += f"{fixed:,.0f} of it are fixed costs"
    lines: list[str] = []
    if found.changes:
        lines.append(
            "each of these fits, as planned, the least change first:" if len(found.changes) > 1 else "this fits:"
        )
        lines += [line for change in found.changes for line in _lines(change)]
        lines.append(f"or raise the budget to {math.ceil(figure):,}")
    elif found.smallest:
        lines += ["nothing that was tried fits; the smallest bill found:", *_lines(found.smallest)]
        cheapest = math.ceil(found.smallest.month.figure)
        lines.append(f"raise the budget to {cheapest:,} with that, or to {math.ceil(figure):,} without")
    else:
        lines.append(f"no change that was tried lowers the bill: raise the budget to {math.ceil(figure):,}")
    return Problem(f"{NAMESPACE}:budget.monthlyUsd", limit, what, "\n    ".join(lines))


def _lines(change: Change) -> list[str]:
    gives_up = " and ".join(change.gives_up) or "nothing"
    head = f"- {change.month.figure:,.0f} USD a month, giving up {gives_up}: "
    edits = [f"{path}: {value}" for path, value in change.edits.items()]
    return [head + edits[0]] if len(edits) == 1 else [head.rstrip(), *(f"    {edit}" for edit in edits)]


class _Searcher:
    def __init__(self, settings: StackSettings, month: Month, variants: Variants, limit: float) -> None:
        self._settings, self._variants, self._limit = settings, variants, limit
        self._unchanged = Change({}, (), settings, month)
        self._ranged = settings.budget.compare == "high"
        self._end = variants.work + _MOST_WORK

    def search(self) -> Search:
        found: list[Change] = []
        for change in self._single():
            if any(_in_vain(change, known) for known in found):
                continue
            found.append(change)
            if len(found) == _ENOUGH:
                break
        if found:
            return Search(tuple(found), None)
        self._end = self._variants.work + _MOST_WORK
        combined = self._combined()
        if combined is None or self._fits(combined.month):
            return Search((combined,) if combined else (), None)
        return Search((), combined)

    def _single(self) -> Iterator[Change]:
        fewer = self._fewer_paused()
        if fewer:
            yield fewer
        for kind in _KINDS:
            change = self._of_kind(kind)
            if change:
                yield change
            if self._spent:
                return
        for find in (self._quality, self._latency, partial(self._of_kind, _MERGED)):
            change = find()
            if change:
                yield change
        moved = self._elsewhere(self._unchanged)
        if moved and self._fits(moved.month):
            yield moved

    @property
    def _spent(self) -> bool:
        return self._variants.work >= self._end

    def _fits(self, month: Month) -> bool:
        return month.figure <= self._limit

    def _planned(self, edited: tuple[StackSettings, Edits] | None, *gives_up: str) -> Change | None:
        if edited is None or self._spent:
            return None
        month = self._variants.month(edited[0], ranged=self._ranged)
        return Change(edited[1], tuple(filter(None, gives_up)), edited[0], month) if month else None

    def _of_kind(self, kind: _Kind) -> Change | None:
        """The smallest change of a kind that fits: of the stack, of the tier that saves most by it, or of more."""
        if kind.stack is not None:
            change = self._planned(kind.stack(self._settings), kind.gives_up)
            return change if change and self._fits(change.month) else None
        saving = self._tiers_that_save(self._unchanged, kind)
        for count in range(1, len(saving) + 1):
            change = self._planned(_on_tiers(self._settings, saving[:count], kind), kind.gives_up)
            if change and self._fits(change.month):
                return change
        return None

    def _tiers_that_save(self, before: Change, kind: _Kind) -> list[int]:
        """Positions of the tiers whose change of a kind lowers the bill, by how much it does."""
        savings: list[tuple[float, int]] = []
        for position in _dearest(before):
            change = self._planned(_on_tiers(before.settings, [position], kind), kind.gives_up)
            if change and (saved := before.month.figure - change.month.figure) >= _WORTH_USD:
                savings.append((-saved, position))
        return [position for _, position in sorted(savings)]

    def _fewer_paused(self) -> Change | None:
        """The most replicas at which the dearest tier that is paused can be paused."""
        paused = [one for one in _dearest(self._unchanged) if self._settings.tiers[one].paused_replicas]
        if not paused:
            return None
        tier = self._settings.tiers[paused[0]]

        def at(replicas: int) -> Change | None:
            pause = _Kind("paused replicas", tier=lambda *_: {"paused_replicas": replicas})
            change = self._planned(_on_tiers(self._settings, paused[:1], pause), pause.gives_up)
            return change if change and self._fits(change.month) else None

        counts = range(tier.on_demand_floor, tier.paused_replicas or 0)
        most = bisect.bisect_left(counts, True, key=lambda replicas: at(replicas) is None)
        return at(counts[most - 1]) if most else None

    def _quality(self) -> Change | None:
        """The least loss of quality that fits, of one tier or of all."""
        levels = sorted({loss for tier in self._settings.tiers for loss in _losses_beyond(tier)})
        for level in levels:
            change = self._of_kind(_quality_kind(level))
            if change:
                return change
        return None

    def _latency(self) -> Change | None:
        """The nearest latency target that fits: of the tier that costs most by it, or of all."""
        dearest = _dearest(self._unchanged)
        for positions in (*([one] for one in dearest[:2]), dearest):
            change = self._nearest_latency(positions)
            if change:
                return change
        return None

    def _nearest_latency(self, positions: Sequence[int]) -> Change | None:
        def at(ttft: float, tpot: float) -> Change | None:
            change = self._planned(_on_tiers(self._settings, positions, _latency_kind(ttft, tpot)), _SLOWER)
            return change if change and self._fits(change.month) else None

        nearest = at(_LOOSER[-1], _LOOSER[-1])
        if nearest is None:
            return None
        low = 1.0
        for factor in _LOOSER:
            change = at(factor, factor)
            if change:
                high, nearest = factor, change
                break
            low = factor
        else:
            return nearest
        while high / low > _NEAR:
            middle = math.sqrt(low * high)
            change = at(middle, middle)
            low, high, nearest = (low, middle, change) if change else (middle, high, nearest)
        # Mostly one of the two is what binds.
        return at(1.0, high) or at(high, 1.0) or nearest

    def _elsewhere(self, before: Change) -> Change | None:
        """The cheapest region for a change, on the same continent if one of them fits."""
        here = self._settings.region
        near = here.partition("-")[0]
        cheapest: Change | None = None
        for same in (True, False):
            for region in regions():
                if region == here or (region.partition("-")[0] == near) is not same:
                    continue
                network = before.settings.network.model_copy(update={"zones": ()})
                moved = before.settings.model_copy(update={"region": region, "network": network})
                change = self._planned((moved, {**before.edits, "aws:region": region}), *before.gives_up, "the region")
                if change and (cheapest is None or change.month.figure < cheapest.month.figure):
                    cheapest = change
            if cheapest and self._fits(cheapest.month):
                break
        return cheapest

    def _combined(self) -> Change | None:
        """Changes one upon the other until they fit, without those that turn out not to be needed; where nothing fits,
        all that lower the bill.
        """
        kinds: list[_Kind] = []
        best = self._unchanged
        levels = [_latency_kind(factor, factor) for factor in (1.5, 2.0, 3.0)]
        for kind in (*_KINDS, _quality_kind(_MOST_LOSS_PERCENT), *levels):
            change = self._with(kind, best)
            if change and best.month.figure - change.month.figure >= _WORTH_USD:
                kinds.append(kind)
                best = change
                if self._fits(best.month):
                    break
        if self._fits(best.month):
            for kind in kinds[-2::-1]:
                fewer = self._all_of([one for one in kinds if one is not kind])
                if fewer and self._fits(fewer.month):
                    kinds.remove(kind)
                    best = fewer
            return best
        moved = self._elsewhere(best)
        if moved and best.month.figure - moved.month.figure >= _WORTH_USD:
            best = moved
        return best if best.edits else None

    def _with(self, kind: _Kind, before: Change) -> Change | None:
        """A kind of change upon others: of the whole stack, or of every tier where it saves."""
        if kind.stack is not None:
            edited = kind.stack(before.settings)
        else:
            edited = _on_tiers(before.settings, self._tiers_that_save(before, kind), kind)
        if edited is None:
            return None
        settings, edits = edited
        return self._planned((settings, {**before.edits, **edits}), *dict.fromkeys((*before.gives_up, kind.gives_up)))

    def _all_of(self, kinds: Sequence[_Kind]) -> Change | None:
        change: Change | None = self._unchanged
        for kind in kinds:
            if change is not None:
                change = self._with(kind, change)
        return change


def _dearest(change: Change) -> list[int]:
    """Positions of the dearest tiers, as many as are looked at one by one."""
    order = sorted(range(len(change.settings.tiers)), key=lambda position: -change.month.tiers[position].usd)
    return order[:_MOST_TIERS]


def _in_vain(change: Change, known: Change) -> bool:
    """Whether a change goes further on the same settings than a known one, and saves nothing by it."""
    same = change.edits.keys() & known.edits.keys()
    return bool(same) and change.month.figure > known.month.figure - _WORTH_USD


def _on_tiers(settings: StackSettings, positions: Sequence[int], kind: _Kind) -> tuple[StackSettings, Edits] | None:
    """The settings with some tiers changed, and the edits; None where nothing changes."""
    tiers, edits = list(settings.tiers), Edits()
    for position in positions:
        update = kind.tier(settings, tiers[position]) if kind.tier else None
        if update is not None:
            edits |= _edits(f"{NAMESPACE}:tiers[{position}]", tiers[position], update)
            tiers[position] = tiers[position].model_copy(update=update)
    return (settings.model_copy(update={"tiers": tuple(tiers)}), edits) if edits else None


def _edits(path: str, section: Settings, update: dict[str, Any]) -> Edits:
    """The fields of a section that an update changes, those of sections within it one by one."""
    edits: Edits = {}
    for field, value in update.items():
        old, name = getattr(section, field), f"{path}.{type(section).model_fields[field].alias}"
        if isinstance(value, Settings) and isinstance(old, Settings):
            edits |= _edits(name, old, {field: getattr(value, field) for field in type(value).model_fields})
        elif value != old:
            edits[name] = _yaml(value)
    return edits


def _yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple):
        return "[" + ", ".join(_yaml(one) for one in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


# Kinds of changes --------------------------------------------------------------------------------------------------

_SLOWER = "fast answers"
_MOST_LOSS_PERCENT = 10.0


def _in_section(section: str, field: str, value: Any, settings: StackSettings) -> tuple[StackSettings, Edits] | None:
    part: Settings = getattr(settings, section)
    edits = _edits(f"{NAMESPACE}:{section}", part, {field: value})
    return (settings.model_copy(update={section: part.model_copy(update={field: value})}), edits) if edits else None


def _set(section: str, field: str, value: Any, gives_up: str) -> _Kind:
    return _Kind(gives_up, stack=partial(_in_section, section, field, value))


def _together(_: StackSettings, tier: TierSettings) -> dict[str, Any] | None:
    off = tier.disaggregation.model_copy(update={"enabled": False})
    return {"disaggregation": off} if tier.disaggregation.enabled else None


def _any_gpu(_: StackSettings, tier: TierSettings) -> dict[str, Any] | None:
    return {"gpus": ()} if tier.gpus else None


def _any_checkpoint(_: StackSettings, tier: TierSettings) -> dict[str, Any] | None:
    return {"quantization": "auto"} if tier.quantization not in {"auto", "gguf"} else None


def _asleep_in_the_morning(settings: StackSettings, tier: TierSettings) -> dict[str, Any] | None:
    kept = settings.schedule.working_hours is not None and tier.working_hours_replicas and not tier.min_replicas
    return {"working_hours_replicas": 0} if kept else None


def _in_working_hours(settings: StackSettings, tier: TierSettings) -> dict[str, Any] | None:
    if settings.schedule.working_hours is None or not tier.min_replicas:
        return None
    return {"min_replicas": 0, "working_hours_replicas": tier.min_replicas, "on_demand_floor": 0}


def _with_working_hours(settings: StackSettings) -> tuple[StackSettings, Edits] | None:
    """Working hours for all tiers that are kept at any hour, where the stack has none."""
    if settings.schedule.working_hours is not None:
        return None
    hours = WorkingHours()
    schedule = settings.schedule.model_copy(update={"working_hours": hours})
    changed = settings.model_copy(update={"schedule": schedule})
    everywhere = _on_tiers(changed, range(len(settings.tiers)), _Kind("", tier=_in_working_hours))
    if everywhere is None:
        return None
    shown = f'{{start: "{hours.start}", end: "{hours.end}"}}'
    return everywhere[0], {f"{NAMESPACE}:schedule.workingHours": shown, **everywhere[1]}


def _one_replica(settings: StackSettings, tier: TierSettings) -> dict[str, Any] | None:
    if max(tier.min_replicas, _in_hours(settings, tier)) < 2:
        return None
    fields = ("min_replicas", "working_hours_replicas", "on_demand_floor")
    return {field: min(1, getattr(tier, field)) for field in fields}


def _in_hours(settings: StackSettings, tier: TierSettings) -> int:
    return tier.working_hours_replicas if settings.schedule.working_hours else 0


def _no_floor(_: StackSettings, tier: TierSettings) -> dict[str, Any] | None:
    return {"on_demand_floor": 0} if tier.on_demand_floor else None


def _asleep_when_idle(settings: StackSettings, tier: TierSettings) -> dict[str, Any] | None:
    if not max(tier.min_replicas, _in_hours(settings, tier)):
        return None
    return {"min_replicas": 0, "working_hours_replicas": 0, "on_demand_floor": 0}


def _small_cache(_: StackSettings, tier: TierSettings) -> dict[str, Any] | None:
    return {"kv_cache_dtype": "fp8"} if tier.kv_cache_dtype == "auto" and tier.quantization != "gguf" else None


def _quality_kind(percent: float) -> _Kind:
    def accept(_: StackSettings, tier: TierSettings) -> dict[str, Any] | None:
        if tier.quantization != "auto" or _most_loss(tier) >= percent:
            return None
        return {"max_quality_loss_percent": percent}

    return _Kind("some quality", tier=accept)


def _most_loss(tier: TierSettings) -> float:
    limit = tier.max_quality_loss_percent
    return DEFAULT_MAX_QUALITY_LOSS_PERCENT if limit is None else limit


def _losses_beyond(tier: TierSettings) -> Iterator[float]:
    """What the checkpoints lose that the tier's limit refuses, percent, to the next tenth."""
    if tier.quantization == "auto" and tier.model in models():
        size = models()[tier.model].params_billion
        for checkpoint in checkpoints(tier.model):
            loss = math.ceil(10 * quality_loss(tier, size, checkpoint).percent) / 10
            if _most_loss(tier) < loss <= _MOST_LOSS_PERCENT and checkpoint.verified:
                yield loss


def _latency_kind(ttft_factor: float, tpot_factor: float) -> _Kind:
    def looser(_: StackSettings, tier: TierSettings) -> dict[str, Any]:
        ttft, tpot = _rounded_up(tier.slo.ttft_ms, ttft_factor), _rounded_up(tier.slo.tpot_ms, tpot_factor)
        return {"slo": tier.slo.model_copy(update={"ttft_ms": ttft, "tpot_ms": tpot})}

    return _Kind(_SLOWER, tier=looser)


def _rounded_up(value: float, factor: float) -> float:
    """A multiple of a value, up to the next of three digits; the value itself at factor 1."""
    if factor == 1:
        return value
    step = 10.0 ** (math.floor(math.log10(value * factor)) - 2)
    return math.ceil(round(value * factor / step, 6)) * step


def _merged(settings: StackSettings) -> tuple[StackSettings, Edits] | None:
    """All requests on the tier of the largest model."""
    on_gpu = [tier for tier in settings.tiers if tier.quantization != "gguf" and tier.model in models()]
    if len(settings.tiers) < 2 or len(on_gpu) < len(settings.tiers):
        return None
    largest = max(on_gpu, key=lambda tier: models()[tier.model].params_billion)
    requests = sum(tier.traffic.requests_per_day for tier in on_gpu)
    if not requests:
        return None

    def mean(of: Callable[[Traffic], float]) -> int:
        return math.ceil(sum(tier.traffic.requests_per_day * of(tier.traffic) for tier in on_gpu) / requests)

    traffic = largest.traffic.model_copy(
        update={
            "requests_per_day": requests,
            "input_tokens": mean(lambda traffic: traffic.input_tokens),
            "output_tokens": mean(lambda traffic: traffic.output_tokens),
        }
    )
    length = max(tier.max_model_len for tier in on_gpu)
    whole = largest.model_copy(update={"traffic": traffic, "max_model_len": length})
    routing = settings.routing.model_copy(update={"default_tier": largest.name})
    changed = settings.model_copy(update={"tiers": (whole,), "routing": routing})
    return changed, {f"{NAMESPACE}:tiers": f"only {largest.name}, with all {requests:,.0f} requests a day"}


def _unpaused(_: StackSettings, tier: TierSettings) -> dict[str, Any] | None:
    return None if tier.paused_replicas is None else {"paused_replicas": None}


#: From what costs the users nothing to what they notice.
_KINDS = (
    _Kind("the pause (the tier scales with its load again)", tier=_unpaused),
    _set("capacity", "spot", True, "nodes that are never interrupted"),
    _set("capacity", "on_demand_fallback", True, ""),
    _set("scaling", "scale_to_zero", True, "kept replicas (the first answer after sleep waits for a start)"),
    _set("scaling", "idle_cooldown_minutes", None, ""),
    _Kind("", tier=_together),
    _set("capacity", "excluded_instance_types", (), "the exclusion of instance types"),
    _Kind("the choice of GPUs", tier=_any_gpu),
    _Kind("the choice of the checkpoint", tier=_any_checkpoint),
    _set("network", "nat_gateways", "single", "the way out of all zones when one is lost"),
    _Kind("the morning's replica (the first answer waits for a start)", tier=_asleep_in_the_morning),
    _Kind("replicas outside working hours (the first answer waits for a start)", tier=_in_working_hours),
    _Kind("replicas outside working hours (the first answer waits for a start)", stack=_with_working_hours),
    _Kind("the replica that is never interrupted", tier=_no_floor),
    _Kind("the second replica (an interruption is an outage of one start)", tier=_one_replica),
    _Kind("kept replicas (the first answer after sleep waits for a start)", tier=_asleep_when_idle),
    _Kind("precision of the KV cache", tier=_small_cache),
)
_MERGED = _Kind("the small model's speed", stack=_merged)
