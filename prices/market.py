"""What was read of a region's market, and what follows from it. Pure: no client, no clock, no file."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date

from planning.facts.instances import Offering, instance_types, offerings
from planning.fixed import SYSTEM_FAMILIES

#: A zone whose spot price is at least this share of on-demand has no capacity to spare.
_AT_ON_DEMAND = 0.97

SOURCE = "od:AWS Price List API; spot:EC2 spot price history"


class PriceError(Exception):
    """Prices that could not be read, or that cannot be: what is wrong and what to do, in one message."""


@dataclass(frozen=True, slots=True)
class Market:
    """Prices of one region on one day, USD an hour."""

    region: str
    day: date
    zones: Mapping[str, frozenset[str]]
    """By instance type, the zones that offer it; Local Zones left out. A type that is not in it is not offered."""
    on_demand: Mapping[str, float]
    spot: Mapping[str, Mapping[str, float]]
    """By instance type, then zone. A type that is not in it has no spot price."""
    fixed: Mapping[str, float]
    """By item of ``fixed_prices``, those that the Price List gives without doubt."""


@dataclass(frozen=True, slots=True)
class SpotRange:
    """A type's spot price over the zones."""

    median: float
    lowest: float
    highest: float
    zones: int
    zones_at_on_demand_price: int | None
    """None: there is no on-demand price to compare with."""


def spot_range(market: Market, instance_type: str) -> SpotRange | None:
    """The spot price of a type over its zones; None when it has none."""
    prices = list(market.spot.get(instance_type, {}).values())
    if not prices:
        return None
    on_demand = market.on_demand.get(instance_type)
    full = None if on_demand is None else sum(price >= _AT_ON_DEMAND * on_demand for price in prices)
    return SpotRange(statistics.median(prices), min(prices), max(prices), len(prices), full)


def require_complete(market: Market, sold: Iterable[str]) -> None:
    """Raise ``PriceError`` for a market that no plan can be made of.

    ``sold``: types that have an on-demand price somewhere, so that none here is a hole and not a fact.
    """
    missing = [name for name in sold if name in market.zones and name not in market.on_demand]
    if missing:
        named = ", ".join(sorted(missing))
        raise PriceError(
            f"the Price List has no on-demand price in {market.region} for {named}, which EC2 offers there"
        )
    if not any(name.split(".")[0] in SYSTEM_FAMILIES for name in market.on_demand):
        families = ", ".join(SYSTEM_FAMILIES)
        raise PriceError(f"{market.region} has no price of {families}, which the system nodes run on")


def live_offerings(market: Market) -> tuple[Offering, ...]:
    """The snapshot's offerings of the region with the market's prices in place of theirs.

    A type that is not offered or has no on-demand price drops out; a known one that is new in the region comes in.
    """
    known = {offering.instance.name: offering for offering in offerings(market.region)}
    result: list[Offering] = []
    for name, instance in instance_types().items():
        on_demand = market.on_demand.get(name)
        if name not in market.zones or on_demand is None:
            continue
        spot = spot_range(market, name)
        priced = Offering(
            instance=instance,
            region=market.region,
            on_demand_usd_per_hour=on_demand,
            spot_usd_per_hour=spot.median if spot else None,
            spot_min_usd_per_hour=spot.lowest if spot else None,
            spot_max_usd_per_hour=spot.highest if spot else None,
            zones=spot.zones if spot else None,
            zones_at_on_demand_price=spot.zones_at_on_demand_price if spot else None,
            interruption_class=None,
            spot_savings_percent=None,
            source=SOURCE,
            as_of=market.day,
        )
        before = known.get(name)
        if before:
            priced = replace(
                priced,
                interruption_class=before.interruption_class,
                spot_savings_percent=before.spot_savings_percent,
            )
        result.append(priced)
    return tuple(result)
