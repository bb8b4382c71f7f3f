"""What a node of a pool costs an hour: the mix of spot offerings that EC2 picks from, and the on-demand fallback.

EC2's price-capacity-optimised choice takes the cheapest offering among those with capacity to spare. An offering is
taken to have capacity with the probability that it is not interrupted within a month (Spot Advisor's class), times the
share of zones whose spot price is below on-demand. Offerings in the order of price then give the mix: the first is
taken as often as it has capacity, the second as often as the first has none, and so on; on-demand serves the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from planning.facts.instances import Offering, monthly_interruption
from planning.traffic import HOURS_PER_MONTH

Case = Literal["low", "expected", "high"]


@dataclass(frozen=True, slots=True)
class MixShare:
    """A part of a pool's node hours."""

    instance_type: str
    capacity_type: Literal["spot", "on-demand"]
    share: float
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class PoolPrice:
    """A node hour of a pool."""

    usd_per_hour: float
    """Expected over the mix."""
    mix: tuple[MixShare, ...]
    interruptions_per_hour: float
    """Expected spot interruptions of one node in an hour."""
    on_demand_usd_per_hour: float
    """Cheapest on-demand offering of the pool: what a floor replica pays."""
    worst_usd_per_hour: float
    """Dearest on-demand price of the pool: what a limit must assume."""

    @property
    def spot_share(self) -> float:
        """Share of node hours on spot."""
        return sum(part.share for part in self.mix if part.capacity_type == "spot")


#: The pessimistic case for spot: half of on-demand, even where every zone is cheaper today. Discounts of new families
#: do not last: g6.xlarge in us-east-1 went from 0.105 (August 2024) to 0.362 (July 2026).
PESSIMISTIC_SHARE_OF_ON_DEMAND = 0.5


def spot_usd_per_hour(offering: Offering, case: Case = "expected") -> float | None:
    """The spot price of an offering in its cheapest, median or (pessimistic) dearest zone; None when it has none.

    CPU types without a price read take on-demand less the Spot Advisor's saving.
    """
    price = {
        "low": offering.spot_min_usd_per_hour,
        "expected": offering.spot_usd_per_hour,
        "high": offering.spot_max_usd_per_hour,
    }[case]
    if price is None and offering.instance.gpu is None and offering.spot_savings_percent is not None:
        price = offering.on_demand_usd_per_hour * (1 - offering.spot_savings_percent / 100)
    if price is not None and case == "high":
        return max(price, PESSIMISTIC_SHARE_OF_ON_DEMAND * offering.on_demand_usd_per_hour)
    return price


def pool_price(
    offerings: Sequence[Offering],
    *,
    spot: bool,
    on_demand_fallback: bool,
    price_case: Case = "expected",
    interruption_case: Case = "expected",
) -> PoolPrice:
    """Price a node hour of a pool that may launch any of ``offerings``.

    ``price_case`` picks the zone's spot price, ``interruption_case`` the end of the interruption class.
    """
    cheapest = min(offerings, key=lambda offering: offering.on_demand_usd_per_hour)
    mix: list[MixShare] = []
    interruptions, left = 0.0, 1.0
    for price, offering in _by_price(offerings, price_case) if spot else ():
        monthly = getattr(monthly_interruption(offering.interruption_class), interruption_case)
        share = left * capacity_chance(offering, monthly)
        left -= share
        mix.append(MixShare(offering.instance.name, "spot", share, price))
        interruptions += share * -math.log(1 - monthly) / HOURS_PER_MONTH
    if mix and not on_demand_fallback:
        # Without a fallback nothing else can be bought: what runs, runs on spot, and the rest waits.
        # Where no zone has capacity today, the cheapest is waited for.
        whole = 1 - left or 1.0
        weights = [part.share / whole if left < 1 else float(position == 0) for position, part in enumerate(mix)]
        mix = [
            MixShare(part.instance_type, "spot", weight, part.usd_per_hour)
            for part, weight in zip(mix, weights, strict=True)
        ]
        left = 0.0
    if left > 0:
        mix.append(MixShare(cheapest.instance.name, "on-demand", left, cheapest.on_demand_usd_per_hour))
    return PoolPrice(
        usd_per_hour=sum(part.share * part.usd_per_hour for part in mix),
        mix=tuple(mix),
        interruptions_per_hour=interruptions,
        on_demand_usd_per_hour=cheapest.on_demand_usd_per_hour,
        worst_usd_per_hour=max(offering.on_demand_usd_per_hour for offering in offerings),
    )


def worth_spot(offerings: Iterable[Offering], on_demand_usd_per_hour: float) -> tuple[Offering, ...]:
    """The offerings whose spot price is below an on-demand price, cheapest first."""
    return tuple(offering for price, offering in _by_price(offerings, "expected") if price < on_demand_usd_per_hour)


def _by_price(offerings: Iterable[Offering], case: Case) -> list[tuple[float, Offering]]:
    priced = [(price, offering) for offering in offerings if (price := spot_usd_per_hour(offering, case)) is not None]
    return sorted(priced, key=lambda pair: (pair[0], pair[1].instance.name))


def capacity_chance(offering: Offering, monthly_interruption_share: float) -> float:
    """Probability that an offering has capacity: not to be taken back within a month, times the share of zones whose
    spot price is below that of on-demand.
    """
    zones, full = offering.zones, offering.zones_at_on_demand_price
    open_zones = 1 - full / zones if zones and full else 1.0
    return (1 - monthly_interruption_share) * open_zones
