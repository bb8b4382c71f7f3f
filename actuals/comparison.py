"""Forecast and actual cost of each pool's and each tier's nodes over the same hours. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from actuals.prometheus import Seen
from planning.plan import Plan
from planning.rates import StackRates, stack_rates
from planning.traffic import HOURS_PER_MONTH


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
    forecast_spot_share: float
    spot_share: float | None
    """Of its node hours; None: it had none."""


@dataclass(frozen=True, slots=True)
class TierActuals:
    """One tier, USD."""

    tier: str
    forecast_usd: float
    """Of as many hours as were seen."""
    actual_usd: float
    forecast_month_usd: float
    month_at_this_rate_usd: float
    forecast_million_tokens: float
    """Of as many hours as were seen."""
    million_tokens: float
    forecast_usd_per_million_tokens: float
    usd_per_million_tokens: float | None
    """None: it had no token."""


def compare(plan: Plan, seen: Seen) -> tuple[PoolActuals, ...]:
    """Hold what the pools have cost against the plan's; other pools are of another plan."""
    rates = stack_rates(plan.tiers, plan.forecast)
    return tuple(_pool(name, rates, seen) for name in dict.fromkeys((*rates.pools, *seen.pool_usd)))


def _pool(name: str, rates: StackRates, seen: Seen) -> PoolActuals:
    hourly = rates.pool_usd_per_hour(name)
    actual = seen.pool_usd.get(name, 0.0)
    return PoolActuals(
        pool=name,
        tiers=tuple(tier.tier for tier in rates.of_pool(name)),
        forecast_usd=hourly * seen.hours,
        actual_usd=actual,
        forecast_month_usd=hourly * HOURS_PER_MONTH,
        month_at_this_rate_usd=actual / seen.hours * HOURS_PER_MONTH,
        forecast_spot_share=rates.spot_share(name),
        spot_share=seen.spot_share.get(name),
    )


def compare_tiers(plan: Plan, seen: Seen) -> tuple[TierActuals, ...]:
    """Hold what each tier's part of the nodes has cost, and its tokens, against its forecast."""
    months = {cost.tier: cost.million_tokens for cost in plan.forecast.tiers}
    rows: list[TierActuals] = []
    for rate in stack_rates(plan.tiers, plan.forecast).tiers:
        usd, tokens = seen.tier_usd.get(rate.tier, 0.0), seen.million_tokens.get(rate.tier, 0.0)
        rows.append(
            TierActuals(
                tier=rate.tier,
                forecast_usd=rate.usd_per_hour * seen.hours,
                actual_usd=usd,
                forecast_month_usd=rate.usd_per_month,
                month_at_this_rate_usd=usd / seen.hours * HOURS_PER_MONTH,
                forecast_million_tokens=months[rate.tier] * seen.hours / HOURS_PER_MONTH,
                million_tokens=tokens,
                forecast_usd_per_million_tokens=rate.usd_per_million_tokens,
                usd_per_million_tokens=usd / tokens if tokens else None,
            )
        )
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class StackActuals:
    """The whole stack, USD; what is not nodes of pools (fixed costs, disks, images) as forecast."""

    so_far_usd: float
    """Of the hours that were seen."""
    month_at_this_rate_usd: float
    """Of 730 hours."""
    forecast_month_usd: float
    budget_usd: float | None


def compare_stack(plan: Plan, seen: Seen) -> StackActuals:
    """Hold all pools together, and what is planned beside them, against the forecast and the budget."""
    other = stack_rates(plan.tiers, plan.forecast).other_usd_per_hour
    so_far = sum(seen.pool_usd.values()) + other * seen.hours
    return StackActuals(
        so_far_usd=so_far,
        month_at_this_rate_usd=so_far / seen.hours * HOURS_PER_MONTH,
        forecast_month_usd=plan.forecast.total.expected,
        budget_usd=plan.forecast.budget_usd,
    )
