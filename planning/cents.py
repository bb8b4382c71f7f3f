"""The bill in whole cents: what is printed adds up to what is printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planning.plan import CostItem, Forecast

#: What floating point may take off a whole number of cents.
_NOISE_CENTS = 1e-6


@dataclass(frozen=True, slots=True)
class BillInCents:
    """A month's bill, rounded so that items make up their tier, and tiers with fixed costs the total. Cents."""

    total: int
    by_tier: dict[str, int]
    fixed: int
    items: tuple[int, ...]
    """In the order of the forecast's items."""

    @property
    def compute(self) -> int:
        """All tiers together."""
        return self.total - self.fixed


def to_cents(usd: float) -> int:
    """The nearest whole cents."""
    return round(usd * 100)


def bill_in_cents(forecast: Forecast) -> BillInCents:
    """Round the expected total, share it out to tiers and fixed costs, and each of these to its items.

    Raises ``ValueError`` when the items do not add up to the total.
    """
    groups: dict[str | None, list[int]] = {}
    for position, item in enumerate(forecast.items):
        groups.setdefault(_group(item), []).append(position)
    total = to_cents(forecast.total.expected)
    sums = [sum(forecast.items[position].usd for position in group) for group in groups.values()]
    shares = dict(zip(groups, shared_out(sums, total), strict=True))
    items = [0] * len(forecast.items)
    for name, positions in groups.items():
        amounts = [forecast.items[position].usd for position in positions]
        for position, cents in zip(positions, shared_out(amounts, shares[name]), strict=True):
            items[position] = cents
    by_tier = {name: cents for name, cents in shares.items() if name is not None}
    return BillInCents(total, by_tier, shares.get(None, 0), tuple(items))


def _group(item: CostItem) -> str | None:
    """The item's tier; None: fixed."""
    return None if item.category == "fixed" else item.tier


def shared_out(usd: Sequence[float], total_cents: int) -> tuple[int, ...]:
    """Round amounts so that they add up to a total: down, and up where most was cut off (largest remainder).

    Raises ``ValueError`` when the amounts are more than a cent each away from the total.
    """
    exact = [100 * amount for amount in usd]
    cents = [math.floor(amount + _NOISE_CENTS) for amount in exact]
    left = total_cents - sum(cents)
    if not 0 <= left <= len(cents):
        raise ValueError(f"amounts add up to {sum(usd):,.4f} USD, not to {total_cents / 100:,.2f}")
    for position in sorted(range(len(cents)), key=lambda position: cents[position] - exact[position])[:left]:
        cents[position] += 1
    return tuple(cents)
