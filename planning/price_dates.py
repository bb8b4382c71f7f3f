"""How old the prices of a plan are, and how much of the bill rests on the old ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from planning.bill import TierBill
from planning.facts.instances import Offering

OLD_DAYS = 90
"""A plan says so when a price it used is older."""


@dataclass(frozen=True, slots=True)
class PriceUse:
    """A price that a plan used, and the part of the month that rests on it."""

    name: str
    """As in the price files: an item of ``fixed_prices.csv``, or an instance type and how it is bought."""
    as_of: date | None
    """None: its source has no date, which counts as older than any date."""
    usd: float


@dataclass(frozen=True, slots=True)
class LivePrices:
    """Instance prices of a region that were read for one plan, in place of the snapshot's."""

    offerings: tuple[Offering, ...]
    """Empty: they could not be read."""
    warning: str
    """Why not; empty when they were."""


def compute_prices(bill: Sequence[TierBill]) -> tuple[PriceUse, ...]:
    """The instance prices of a bill. A tier's disks and images, a few per cent, are counted with its nodes."""
    uses: list[PriceUse] = []
    for part in bill:
        as_of = {offering.instance.name: offering.as_of for offering in part.fleet.pool}
        mix = part.fleet.price.mix
        whole = sum(share.share * share.usd_per_hour for share in mix)
        for share in mix:
            usd = part.usd * share.share * share.usd_per_hour / whole if whole else 0.0
            uses.append(PriceUse(f"{share.instance_type} {share.capacity_type}", as_of[share.instance_type], usd))
    return tuple(uses)


def oldest_date(uses: Sequence[PriceUse]) -> str:
    """ISO date of the oldest price; ``undated`` when one has no date, because it may be older than any."""
    dates = [use.as_of for use in uses]
    known = [day for day in dates if day is not None]
    return min(known).isoformat() if known and len(known) == len(dates) else "undated"


def age_warning(uses: Sequence[PriceUse], region: str, today: date) -> str | None:
    """The line on prices that are over ``OLD_DAYS`` old on ``today``; None when none is."""
    old = [use for use in uses if use.as_of is None or (today - use.as_of).days > OLD_DAYS]
    if not old:
        return None
    whole = sum(use.usd for use in uses)
    undated = sorted({use.name for use in old if use.as_of is None})
    dated = min(((use.as_of, use.name) for use in old if use.as_of is not None), default=None)
    oldest: list[str] = []
    if undated:
        oldest.append(f"{', '.join(undated)} without a date")
    if dated:
        oldest.append(f"{dated[1]} of {dated[0].isoformat()}, {(today - dated[0]).days:,} days ago")
    share = f"{sum(use.usd for use in old) / whole:.0%} of the month rests" if whole else "the plan rests"
    return (
        f"{share} on prices over {OLD_DAYS} days old, the oldest: {'; then '.join(oldest)}; "
        f"python -m planning prices refresh --region {region} reads today's"
    )
