"""A stack under a trace instead of its own traffic: the month's forecast, and the deployments that a replay plays."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from planning.bill import TierBill
from planning.facts.instances import Offering, monthly_interruption
from planning.facts.traces import Trace
from planning.fleet import Policy
from planning.replay import Deployment, Offer, month_of, open_looks
from planning.root_volume import root_volume
from planning.spot import capacity_chance, spot_usd_per_hour
from planning.stack import Planned, plan_under
from planning.traffic import HOURS_PER_MONTH, from_trace
from settings import SECRET_KEYS


@dataclass(frozen=True, slots=True)
class TierForecast:
    """A tier's part of the forecast, and the same fleet as a replay takes it."""

    name: str
    usd: float
    node_hours: float
    starts: float
    deployments: tuple[Deployment, ...]
    """One, or with prefill and decode apart one for each."""


@dataclass(frozen=True, slots=True)
class TraceForecast:
    """A stack's month under a trace."""

    tiers: tuple[TierForecast, ...]
    fixed_usd: float

    @property
    def usd(self) -> float:
        """The whole bill."""
        return sum(tier.usd for tier in self.tiers) + self.fixed_usd


def trace_forecast(
    region: object,
    config: Mapping[str, object],
    trace: Trace,
    scale: float = 1.0,
    encrypted: Collection[str] = SECRET_KEYS,
) -> TraceForecast:
    """Plan a stack anew with every tier's traffic in the shape of a trace, ``scale`` times as much of it.

    Raises ``ConfigurationError``; budgets are not looked at.
    """
    planned = plan_under(region, config, encrypted, from_trace(trace), scale)
    tiers = tuple(_tier(part, planned, trace) for part in planned.bill)
    return TraceForecast(tiers, planned.fixed_usd)


def _tier(part: TierBill, planned: Planned, trace: Trace) -> TierForecast:
    apart, load = part.disaggregated, part.fleet.option.load
    if apart:
        both, months = apart.loads, (apart.prefill, apart.decode)
        waiting, decode = both.prefill_concurrency, both.decode
        points = (
            (both.prefill_requests_per_second, waiting, waiting, 1.0),
            (decode.requests_per_second, decode.concurrency, decode.autoscaler_target, 0.0),
        )
    else:
        months = (part.fleet.month,)
        points = ((load.requests_per_second, load.concurrency, load.autoscaler_target, load.prefill_share),)
    deployments = tuple(_deployment(part, planned, trace, *point) for point in points)
    hours, starts = sum(month.node_hours for month in months), sum(month.starts for month in months)
    return TierForecast(part.name, part.usd, hours, starts, deployments)


def _deployment(
    part: TierBill,
    planned: Planned,
    trace: Trace,
    requests_per_second: float,
    concurrency: float,
    target: float,
    prefill: float,
) -> Deployment:
    fleet, search, policy = part.fleet, part.search, planned.policy
    costs, rule = planned.costs, fleet.rule
    disk = costs.volumes.usd_per_hour(root_volume(fleet.pool))
    load = month_of(trace, planned.requests_per_day[part.name], requests_per_second, prefill)
    cheapest = min(offering.on_demand_usd_per_hour for offering in fleet.pool)
    on_demand = Offer(cheapest + disk, 1.0, 0.0, on_demand=True)
    return Deployment(
        load=load,
        is_open=open_looks(planned.working, len(load.requests)),
        requests_per_second=requests_per_second,
        concurrency=concurrency,
        target=target,
        burstiness=search.demand.workload.arrival_cv,
        minimum=rule.minimum,
        working_hours=rule.working_hours,
        maximum=rule.maximum,
        floor=search.availability.on_demand_floor if policy.spot and not part.disaggregated else 0,
        may_sleep=rule.may_sleep,
        cooldown_s=rule.cooldown_s,
        node_idle_s=rule.node_idle_s,
        cold_start=fleet.option.cold_start,
        offers=_offers(fleet.pool, policy, disk, on_demand),
        floor_offer=on_demand,
        image_usd=fleet.option.image_gb * costs.nat_usd_per_gb,
    )


def _offers(pool: tuple[Offering, ...], policy: Policy, disk: float, on_demand: Offer) -> tuple[Offer, ...]:
    """What Karpenter may buy, cheapest first."""
    if not policy.spot:
        return (on_demand,)
    offers: list[Offer] = []
    for offering in pool:
        price = spot_usd_per_hour(offering)
        if price is None:
            continue
        taken_back = monthly_interruption(offering.interruption_class).expected
        hazard = -math.log1p(-taken_back) / HOURS_PER_MONTH
        offers.append(Offer(price + disk, capacity_chance(offering, taken_back), hazard, on_demand=False))
    offers.sort(key=lambda offer: offer.usd_per_hour)
    if policy.on_demand_fallback or not offers:
        return (*offers, on_demand)
    # Where no zone has capacity today, the cheapest is what is waited for.
    return tuple(offers) if any(offer.capacity for offer in offers) else (replace(offers[0], capacity=1.0),)
