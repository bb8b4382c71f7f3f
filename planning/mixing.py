"""Replicas of several kinds for one load: the integer program of Mélange (arXiv 2404.14527).

Minimise the sum of ``usd_per_hour[k] * n[k]`` over whole numbers ``n[k]``, such that the sum of ``rate[k] * n[k]``
covers the load and the sum of ``n[k]`` the least number of replicas. Mélange's slices of the load are taken as fine as
can be, which only makes its program cheaper.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

#: More replicas than these are left to a solver: trying them all takes longer than importing one.
_MOST_TRIED = 8


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of replica, profiled."""

    name: str
    requests_per_second: float
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class Mix:
    """Whole numbers of replicas of each kind."""

    replicas: tuple[tuple[Kind, int], ...]

    @property
    def requests_per_second(self) -> float:
        """What they carry together."""
        return sum(count * kind.requests_per_second for kind, count in self.replicas)

    @property
    def usd_per_hour(self) -> float:
        """What they cost together."""
        return sum(count * kind.usd_per_hour for kind, count in self.replicas)

    @property
    def size(self) -> int:
        """How many they are."""
        return sum(count for _, count in self.replicas)

    def __str__(self) -> str:
        """Name the replicas."""
        return " + ".join(f"{count} x ({kind.name})" for kind, count in self.replicas)

    def parts(self) -> list[Mix]:
        """Every mix that is left when some of the replicas sleep, the cheapest first."""
        counts = itertools.product(*(range(count + 1) for _, count in self.replicas))
        kinds = [kind for kind, _ in self.replicas]
        mixes = [Mix(tuple(zip(kinds, some, strict=True))) for some in counts]
        return sorted(mixes, key=lambda mix: mix.usd_per_hour)


def cheapest_mix(
    kinds: Sequence[Kind], requests_per_second: float, *, at_least: int, below_usd_per_hour: float
) -> Mix | None:
    """The cheapest mix of at least so many replicas that carries a load; None when none costs less than the limit."""
    useful: list[Kind] = []
    for kind in sorted(kinds, key=lambda kind: (kind.usd_per_hour, -kind.requests_per_second)):
        # What costs more than another and carries no more is never used.
        if not useful or kind.requests_per_second > useful[-1].requests_per_second:
            useful.append(kind)
    useful.sort(key=lambda kind: kind.usd_per_hour / kind.requests_per_second)
    load = requests_per_second * (1 - 1e-9)
    if not useful or load * useful[0].usd_per_hour / useful[0].requests_per_second >= below_usd_per_hour:
        return None
    if max(at_least, load / max(kind.requests_per_second for kind in useful)) > _MOST_TRIED:
        mix = _solved(useful, load, at_least)
        return mix if mix.usd_per_hour < below_usd_per_hour else None
    return _tried(useful, load, at_least, below_usd_per_hour)


def _tried(kinds: list[Kind], load: float, at_least: int, below_usd_per_hour: float) -> Mix | None:
    """Branch and bound; ``kinds`` by price of a unit of rate."""
    cheapest = [min(kind.usd_per_hour for kind in kinds[first:]) for first in range(len(kinds))]
    best: Mix | None = None
    least = below_usd_per_hour

    def search(first: int, load: float, missing: int, usd: float, taken: tuple[tuple[Kind, int], ...]) -> None:
        nonlocal best, least
        if load <= 0 and missing <= 0:
            if usd < least:
                best, least = Mix(taken), usd
            return
        if first == len(kinds):
            return
        kind = kinds[first]
        unit = kind.usd_per_hour / kind.requests_per_second
        if usd + max(load * unit, missing * cheapest[first]) >= least:
            return
        for count in range(max(math.ceil(load / kind.requests_per_second), missing, 0), -1, -1):
            more = ((kind, count),) if count else ()
            left = load - count * kind.requests_per_second
            search(first + 1, left, missing - count, usd + count * kind.usd_per_hour, taken + more)

    search(0, load, at_least, 0.0, ())
    return best


def _solved(kinds: list[Kind], load: float, at_least: int) -> Mix:
    from scipy.optimize import LinearConstraint, milp  # noqa: PLC0415 (slow to import, and few stacks need it)

    rates = [kind.requests_per_second for kind in kinds]
    covered = LinearConstraint([rates, [1.0] * len(kinds)], lb=[load, at_least])
    found = milp([kind.usd_per_hour for kind in kinds], constraints=covered, integrality=[1] * len(kinds))
    counts = [round(count) for count in found.x]
    return Mix(tuple((kind, count) for kind, count in zip(kinds, counts, strict=True) if count))
