"""Forecast and actual cost of each pool's nodes over the same hours. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planning.plan import Plan
from planning.traffic import HOURS_PER_MONTH

#: The lines of the bill that are hours of nodes; their disks and images are in no price of a node.
_OF_NODES = ("nodes", "on-demand floor", "restarts after interruptions")


@dataclass(frozen=True, slots=True)
class PoolActuals:
    """One pool, USD."""

    pool: str
    tiers: tuple[str, ...]
    forecast_usd: float
    """Of as many hours as were seen, as if all hours of the month were alike."""
    actual_usd: float
    forecast_month_usd: float
    month_at_this_rate_usd: float
    """The actual rate for 730 hours."""


def compare(plan: Plan, hours: float, usd: Mapping[str, float]) -> tuple[PoolActuals, ...]:
    """Hold ``usd``, the cost by pool in so many ``hours``, against the plan's pools; others are of another plan."""
    months = {
        tier.name: sum(
            item.usd
            for item in plan.forecast.items
            if item.tier == tier.name and item.name.removeprefix(f"{tier.name}: ") in _OF_NODES
        )
        for tier in plan.tiers
    }
    rows: list[PoolActuals] = []
    for name in dict.fromkeys((*(pool.name for pool in plan.node_pools), *usd)):
        tiers = tuple(tier.name for tier in plan.tiers if tier.node_pool == name)
        month, actual = sum(months[tier] for tier in tiers), usd.get(name, 0.0)
        so_far = month * hours / HOURS_PER_MONTH
        rows.append(PoolActuals(name, tiers, so_far, actual, month, actual / hours * HOURS_PER_MONTH))
    return tuple(rows)
