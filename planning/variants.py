"""The month of a stack under other settings, planned as its own is. What two variants share is planned once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planning.arns import arn_problems
from planning.bill import Levers, StackBills, TierBill, TierDemand, Unservable
from planning.demands import capacity_problems, region_problems, tier_demand, usable_offerings
from planning.facts.instances import Offering
from planning.fixed import FixedCosts
from planning.network import network_problems
from planning.options import Market
from planning.plan import CostRange
from planning.ranges import month_range
from problems import NAMESPACE
from settings import Capacity, StackSettings, TierSettings, open_hours

FixedCostsOf = Callable[[StackSettings, Sequence[TierDemand], Sequence[TierBill], Market], FixedCosts]


@dataclass(frozen=True, slots=True)
class Month:
    """What a variant would cost, USD."""

    tiers: tuple[TierBill, ...]
    fixed: FixedCosts
    total: CostRange | None
    """Left out where only the expectation is asked for: the range takes longer than the month."""

    @property
    def usd(self) -> float:
        """Expected."""
        return sum(part.usd for part in self.tiers) + self.fixed.usd

    @property
    def figure(self) -> float:
        """The high end where the range was asked for, else the expectation."""
        return self.total.high if self.total else self.usd


class Variants:
    """Plans variants of a stack, each tier once for every setting that it depends on."""

    def __init__(self, fixed_costs: FixedCostsOf, live: Sequence[Offering] = ()) -> None:
        """``live``: prices of one region that stand in place of the snapshot's."""
        self._fixed_costs, self._live = fixed_costs, tuple(live)
        self._markets: dict[tuple[str, Capacity, str], Market] = {}
        self._tiers: dict[object, tuple[TierDemand, TierBill] | None] = {}
        self.work = 0
        """Tiers planned so far; one with prefill and decode apart takes as long as thirty."""

    def remember(self, settings: StackSettings, demands: Sequence[TierDemand], bill: Sequence[TierBill]) -> None:
        """Take over the tiers of a stack that is planned already."""
        for each in zip(demands, bill, strict=True):
            self._tiers[_key(settings, each[0].settings)] = each

    def month(self, settings: StackSettings, *, ranged: bool) -> Month | None:
        """The month of a variant; None when it cannot be planned or nothing meets a target."""
        zones = max([2, *(min(tier.min_replicas, 3) for tier in settings.tiers)])
        if (
            region_problems(settings.region)
            or capacity_problems(settings.capacity)
            or network_problems(settings.region, settings.network, zones)
            or arn_problems(settings)
        ):
            return None
        planned = [self._tier(settings, tier) for tier in settings.tiers]
        known = [each for each in planned if each is not None]
        if len(known) < len(planned):
            return None
        demands, bill = [demand for demand, _ in known], tuple(part for _, part in known)
        fixed = self._fixed_costs(settings, demands, bill, self._market(settings))
        total = month_range(self._bills(settings, demands), bill, fixed)[0] if ranged else None
        return Month(bill, fixed, total)

    def _tier(self, settings: StackSettings, tier: TierSettings) -> tuple[TierDemand, TierBill] | None:
        key = _key(settings, tier)
        if key not in self._tiers:
            self.work += 30 if tier.disaggregation.enabled else 1
            self._tiers[key] = self._planned(settings, tier)
        return self._tiers[key]

    def _planned(self, settings: StackSettings, tier: TierSettings) -> tuple[TierDemand, TierBill] | None:
        working = open_hours(settings.schedule.working_hours)
        demand, wrong = tier_demand(tier, f"{NAMESPACE}:tiers", working, self._market(settings).offerings)
        if demand is None or wrong:
            return None
        try:
            return demand, self._bills(settings, [demand]).tier_bill(demand, Levers())
        except Unservable:
            return None

    def _bills(self, settings: StackSettings, demands: Sequence[TierDemand]) -> StackBills:
        return StackBills(
            tiers=tuple(demands),
            market=self._market(settings),
            working=open_hours(settings.schedule.working_hours),
            capacity=settings.capacity,
            scaling=settings.scaling,
            region=settings.region,
        )

    def _market(self, settings: StackSettings) -> Market:
        key = (settings.region, settings.capacity, settings.cluster.kubernetes_version)
        if key not in self._markets:
            live = [offering for offering in self._live if offering.region == settings.region]
            self._markets[key] = Market(usable_offerings(*key, live))
        return self._markets[key]


def _key(settings: StackSettings, tier: TierSettings) -> object:
    """Everything that a tier's part of the month depends on."""
    return tier, settings.region, settings.capacity, settings.scaling, settings.schedule
