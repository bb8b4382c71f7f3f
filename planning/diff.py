"""What changes between two stacks: money, tiers, bill items, settings, and which setting moves how much money."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from planning.plan import CostItem, CostRange, Plan
from planning.variants import Variants
from problems import NAMESPACE
from settings import StackSettings

#: More changed settings than this are applied tier by tier, section by section.
_MOST_STEPS = 12

#: A bill item is worth a line from a cent and a per cent on.
_LEAST_USD, _LEAST_SHARE = 0.01, 0.01


@dataclass(frozen=True, slots=True)
class TierFacts:
    """One tier of one of the two stacks."""

    checkpoint: str
    hardware: str
    replicas: str
    """At least and at most."""
    ttft_ms: float
    tpot_ms: float
    usd: float
    """Expected compute of a month."""
    usd_per_million_tokens: float
    capacity_requests_per_second: float
    """With all replicas that it may have, within the latency target."""


@dataclass(frozen=True, slots=True)
class TierChange:
    """A tier before and after; None where it is not there."""

    name: str
    before: TierFacts | None
    after: TierFacts | None

    @property
    def kind(self) -> str:
        """``added``, ``removed``, ``changed`` or ``same``."""
        if self.before is None or self.after is None:
            return "added" if self.before is None else "removed"
        return "same" if self.before == self.after else "changed"


@dataclass(frozen=True, slots=True)
class ItemChange:
    """A line of the bill, USD a month; 0 where there is none."""

    name: str
    before_usd: float
    after_usd: float


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting that differs; None where it does not stand, which for a setting with a default is its default."""

    path: str
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class Step:
    """Changed settings, applied upon those of the steps before."""

    names: tuple[str, ...]
    """The setting, or the tier or section whose changed settings these are; several where none can be planned alone."""
    paths: tuple[str, ...]
    usd: float
    """What they add to the month."""
    month_usd: float
    """The expected month with them."""


@dataclass(frozen=True, slots=True)
class StackDiff:
    """Everything that two stacks differ in."""

    before: CostRange
    after: CostRange
    saved_percent: tuple[float, float]
    """Of the baseline, before and after."""
    tiers: tuple[TierChange, ...]
    items: tuple[ItemChange, ...]
    settings: tuple[SettingChange, ...]
    why: tuple[Step, ...]
    """The steps add up to the change of the expected month."""
    new_warnings: tuple[str, ...]
    gone_warnings: tuple[str, ...]
    over_budget_usd: float = 0.0
    """What the second stack's month is over its budget by; 0 when it is within, or there is none."""
    hard_budget: bool = True
    """Over its budget, the second stack's preview fails."""

    @property
    def usd(self) -> float:
        """What the change adds to the expected month."""
        return self.after.expected - self.before.expected


def stack_diff(before: tuple[StackSettings, Plan], after: tuple[StackSettings, Plan], variants: Variants) -> StackDiff:
    """Compare two planned stacks."""
    (old_settings, old), (new_settings, new) = before, after
    changes = _setting_changes(old_settings, new_settings)
    return StackDiff(
        before=old.forecast.total,
        after=new.forecast.total,
        saved_percent=(_saved_percent(old), _saved_percent(new)),
        tiers=_tier_changes(old, new),
        items=tuple(_item_changes(old.forecast.items, new.forecast.items)),
        settings=changes,
        why=_why(old_settings, new_settings, changes, (old.forecast.total, new.forecast.total), variants),
        new_warnings=_beyond(new.warnings, old.warnings),
        gone_warnings=_beyond(old.warnings, new.warnings),
        over_budget_usd=new.forecast.over_budget_usd,
        hard_budget=new_settings.budget.when_exceeded == "fail",
    )


def _saved_percent(plan: Plan) -> float:
    return 100 * (1 - plan.forecast.total.expected / plan.forecast.baseline_usd)


# Tiers, items, warnings --------------------------------------------------------------------------------------------


def _tier_changes(old: Plan, new: Plan) -> tuple[TierChange, ...]:
    before, after = _tier_facts(old), _tier_facts(new)
    return tuple(TierChange(name, before.get(name), after.get(name)) for name in {**before, **after})


def _tier_facts(plan: Plan) -> dict[str, TierFacts]:
    costs = {cost.tier: cost for cost in plan.forecast.tiers}
    return {
        tier.name: TierFacts(
            checkpoint=tier.checkpoint.repository,
            hardware=f"{tier.gpus_per_replica} x {tier.gpu}" if tier.gpu else f"CPU {tier.instance_types[0]}",
            replicas=f"{tier.replicas.minimum}-{tier.replicas.maximum}"
            + (" apart" if tier.disaggregation else "")
            + ("" if tier.replicas.paused is None else f", paused at {tier.replicas.paused}"),
            ttft_ms=round(tier.serving.ttft_ms, 1),
            tpot_ms=round(tier.serving.tpot_ms, 1),
            usd=round(costs[tier.name].expected_usd, 2),
            usd_per_million_tokens=round(costs[tier.name].usd_per_million_tokens, 4),
            capacity_requests_per_second=round(tier.serving.requests_per_second * tier.replicas.maximum, 2),
        )
        for tier in plan.tiers
    }


def _item_changes(before: Sequence[CostItem], after: Sequence[CostItem]) -> Iterator[ItemChange]:
    old, new = ({item.name: item.usd for item in items} for items in (before, after))
    for name in {**old, **new}:
        change = ItemChange(name, old.get(name, 0.0), new.get(name, 0.0))
        least = max(_LEAST_USD, _LEAST_SHARE * max(change.before_usd, change.after_usd))
        if abs(change.after_usd - change.before_usd) >= least:
            yield change


def _beyond(warnings: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The warnings that are not among the known ones, whatever their figures."""
    same = {_without_figures(warning) for warning in known}
    return tuple(warning for warning in warnings if _without_figures(warning) not in same)


def _without_figures(warning: str) -> str:
    return re.sub(r"[\d.,]*\d", "#", warning)


# Settings, and why -------------------------------------------------------------------------------------------------


def _setting_changes(old: StackSettings, new: StackSettings) -> tuple[SettingChange, ...]:
    before, after = _document(old), _document(new)
    tiers = before.pop("tiers"), after.pop("tiers")
    changes = [*_differences("", before, after)]
    for name in {**tiers[0], **tiers[1]}:
        if name in tiers[0] and name in tiers[1]:
            changes += _differences(_tier_path(name), tiers[0][name], tiers[1][name])
        else:
            changes.append(SettingChange(_tier_path(name), _given(old, name), _given(new, name)))
    return tuple(changes)


def _given(settings: StackSettings, tier: str) -> object:
    """A tier as its stack file has it, without defaults; None where there is none."""
    found = [one for one in settings.tiers if one.name == tier]
    return found[0].model_dump(by_alias=True, mode="json", exclude_unset=True) if found else None


def _differences(path: str, before: Any, after: Any) -> Iterator[SettingChange]:
    """What differs, setting by setting; a section or tier that is there on one side only is one change."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            inner = f"{path}.{key}" if path else _TOP.get(key, f"{NAMESPACE}:{key}")
            yield from _differences(inner, before.get(key), after.get(key))
    elif before != after:
        yield SettingChange(path, before, after)


def _document(settings: StackSettings) -> dict[str, Any]:
    """The settings as a stack file has them, with their defaults; tiers go by their names."""
    document = settings.model_dump(by_alias=True, mode="json")
    document["tiers"] = {tier["name"]: tier for tier in document["tiers"]}
    return document


_TOP = {"region": "aws:region"}


def _tier_path(name: str) -> str:
    return f"{NAMESPACE}:tiers[{name}]"


def _why(
    old: StackSettings,
    new: StackSettings,
    changes: Sequence[SettingChange],
    totals: tuple[CostRange, CostRange],
    variants: Variants,
) -> tuple[Step, ...]:
    """Go from one stack to the other setting by setting. Those that cannot be planned on their own go with the next."""
    paths = [change.path for change in changes]
    groups = [(path, (path,)) for path in paths]
    if len(paths) > _MOST_STEPS:
        sections = itertools.groupby(paths, lambda path: path.partition(".")[0])
        groups = [(section, tuple(members)) for section, members in sections]
    steps: list[Step] = []
    waiting: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    applied: set[str] = set()
    month_usd = totals[0].expected
    for position, (name, group) in enumerate(groups):
        waiting, names = waiting + group, (*names, name)
        applied |= set(group)
        if position == len(groups) - 1:
            after: float | None = totals[1].expected
        else:
            after = _month_usd(old, new, applied, variants)
        if after is not None:
            steps.append(Step(names, waiting, after - month_usd, after))
            waiting, names, month_usd = (), (), after
    return tuple(steps)


def _month_usd(old: StackSettings, new: StackSettings, applied: set[str], variants: Variants) -> float | None:
    """The expected month of the old stack with some of the new one's settings; None when it cannot be planned."""
    before, after = _document(old), _document(new)
    tiers = {
        name: _mixed(_tier_path(name), before["tiers"].get(name), after["tiers"].get(name), applied)
        for name in {**before["tiers"], **after["tiers"]}
    }
    mixed = {
        key: _mixed(_TOP.get(key, f"{NAMESPACE}:{key}"), before[key], after[key], applied)
        for key in before
        if key != "tiers"
    }
    try:
        settings = StackSettings.model_validate({**mixed, "tiers": [tier for tier in tiers.values() if tier]})
    except ValidationError:
        return None
    month = variants.month(settings, ranged=False)
    return month.usd if month else None


def _mixed(path: str, before: Any, after: Any, applied: set[str]) -> Any:
    """The old value, with what is applied of the new one."""
    if path in applied:
        return after
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return before
    return {key: _mixed(f"{path}.{key}", before.get(key), after.get(key), applied) for key in {**before, **after}}
