"""How far the month may be off: every uncertainty alone, then all of them together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from planning.bill import Levers, StackBills, TierBill, TierDemand
from planning.facts.article import article_usd_per_million_tokens
from planning.facts.fixed_prices import fixed_price
from planning.facts.instances import DERIVED_ON_DEMAND_ERROR
from planning.fixed import FixedCosts
from planning.fleet import Uncertainty
from planning.plan import CostRange, Driver, TierCost
from planning.traffic import DAYS_PER_MONTH

CaseOf = Callable[[TierBill, TierDemand], tuple[Uncertainty, Uncertainty]]


def _speed(bill: TierBill, _: TierDemand) -> tuple[Uncertainty, Uncertainty]:
    low, high = bill.fleet.option.cost_band
    return Uncertainty(cost_factor=low), Uncertainty(cost_factor=high)


def _traffic(_: TierBill, tier: TierDemand) -> tuple[Uncertainty, Uncertainty]:
    factor = tier.shape.week_to_week
    return Uncertainty(traffic_factor=1 / factor), Uncertainty(traffic_factor=factor)


def _prices(_: TierBill, __: TierDemand) -> tuple[Uncertainty, Uncertainty]:
    return Uncertainty(price="low"), Uncertainty(price="high")


def _interruptions(_: TierBill, __: TierDemand) -> tuple[Uncertainty, Uncertainty]:
    return Uncertainty(interruptions="low"), Uncertainty(interruptions="high")


_DRIVERS: tuple[tuple[str, CaseOf, str], ...] = (
    ("spot price", _prices, "cheapest zone; dearest zone or half of on-demand, whichever is more"),
    ("speed of a replica", _speed, "80 % band of measured over projected cost"),
    ("interruptions", _interruptions, "ends of the Spot Advisor's class: more interruptions, more on-demand"),
    ("traffic", _traffic, "ratio of two weeks of the trace"),
)


def month_range(bills: StackBills, bill: Sequence[TierBill], fixed: FixedCosts) -> tuple[CostRange, tuple[Driver, ...]]:
    """The month's range and what drives it, in order.

    Drivers are independent, so their effects add as squares: not the sum of all worsts. Tiers share each driver's luck.
    """
    expected = sum(part.usd for part in bill) + fixed.usd
    drivers: list[Driver] = []
    for name, case_of, why in _DRIVERS:
        low, high = _effect(bills, bill, case_of)
        drivers.append(Driver(name, low, high, why))
    less, more = _derived_prices(bills.region, bill)
    if less + fixed.less_usd or more + fixed.more_usd:
        why = "80 % band of prices that were read over what the ratio of their stand-in gives"
        drivers.append(Driver("prices not read in this region", less + fixed.less_usd, more + fixed.more_usd, why))
    drivers.sort(key=lambda driver: driver.low_usd - driver.high_usd)
    down = math.sqrt(sum(driver.low_usd**2 for driver in drivers))
    up = math.sqrt(sum(driver.high_usd**2 for driver in drivers))
    return CostRange(max(fixed.usd + fixed.less_usd, expected - down), expected, expected + up), tuple(drivers)


def _derived_prices(region: str, bill: Sequence[TierBill]) -> tuple[float, float]:
    """Change of the compute month, USD, at both ends of the bands of prices that were derived for the region."""
    disk, image = (fixed_price(region, item).band for item in ("ebs_gp3_storage", "nat_gateway_data"))
    less = more = 0.0
    for part in bill:
        fleet = part.paid
        derived = {offering.instance.name for offering in fleet.pool if offering.derived}
        mix = fleet.price.mix
        whole = sum(share.share * share.usd_per_hour for share in mix)
        on_derived = sum(
            share.share * share.usd_per_hour
            for share in mix
            if share.capacity_type == "on-demand" and share.instance_type in derived
        )
        nodes = fleet.nodes_usd * on_derived / whole if whole else 0.0
        less += fleet.disks_usd * (disk[0] - 1) + fleet.images_usd * (image[0] - 1) - nodes * DERIVED_ON_DEMAND_ERROR
        more += fleet.disks_usd * (disk[1] - 1) + fleet.images_usd * (image[1] - 1) + nodes * DERIVED_ON_DEMAND_ERROR
    return less, more


def _effect(bills: StackBills, bill: Sequence[TierBill], case_of: CaseOf) -> tuple[float, float]:
    """Change of the month at both ends of a driver, USD: low is not above 0, high not below."""
    low = high = 0.0
    for part, tier in zip(bill, bills.tiers, strict=True):
        better, worse = case_of(part, tier)
        ends = [bills.in_case(part, Levers(), case) - part.usd for case in (better, worse)]
        low += min(0.0, *ends)
        high += max(0.0, *ends)
    return low, high


def tier_costs(demands: Sequence[TierDemand], bills: StackBills, bill: Sequence[TierBill]) -> tuple[TierCost, ...]:
    """Each tier's compute with its own range, per million tokens at the stack's load and at saturation."""
    result: list[TierCost] = []
    for part, demand in zip(bill, demands, strict=True):
        fleet, traffic = part.paid, demand.settings.traffic
        requests = traffic.mean_requests_per_day * DAYS_PER_MONTH
        per_request = traffic.input_tokens + traffic.output_tokens
        hours = fleet.month.node_hours
        # Prefill and decode replicas work on the same requests, so a pair carries what its slower half does.
        rate = fleet.option.load.requests_per_second
        if part.disaggregated:
            loads = part.disaggregated.loads
            rate = 1 / (1 / loads.prefill_requests_per_second + 1 / loads.decode.requests_per_second)
        # Where a maximum holds replicas back, what does not fit is never served.
        served = min(requests, hours * 3600 * rate)
        million = served * per_request / 1e6
        saturated_million_per_hour = rate * 3600 * per_request / 1e6
        effects = [_effect(_only(bills, demand), [part], case_of) for _, case_of, _ in _DRIVERS]
        result.append(
            TierCost(
                tier=part.name,
                expected_usd=part.usd,
                low_usd=max(0.0, part.usd - math.sqrt(sum(low**2 for low, _ in effects))),
                high_usd=part.usd + math.sqrt(sum(high**2 for _, high in effects)),
                usd_per_million_tokens=part.usd / million if million else 0.0,
                usd_per_million_tokens_saturated=fleet.price.usd_per_hour / saturated_million_per_hour,
                million_tokens=million,
                replica_hours=hours,
                spot_share=fleet.price.spot_share * (1 - fleet.floor_hours / hours) if hours else 0.0,
                utilization=served / (hours * 3600 * rate) if hours else 0.0,
                article_usd_per_million_tokens=article_usd_per_million_tokens(demand.architecture.params_billion),
            )
        )
    return tuple(result)


def _only(bills: StackBills, tier: TierDemand) -> StackBills:
    return StackBills((tier,), bills.market, bills.working, bills.capacity, bills.scaling, bills.region)
