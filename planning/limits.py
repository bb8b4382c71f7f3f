"""How far the stack may grow: the most replicas and nodes, of all tiers together, that its budget pays for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from planning.bill import StackBills, TierBill, TierDemand
from planning.facts.instances import Offering
from planning.root_volume import VolumePrices, root_volume
from planning.traffic import HOURS_PER_MONTH
from problems import NAMESPACE
from settings import Budget

#: A rolling change of a Deployment starts a new pod before it stops the old one (maxSurge 1, maxUnavailable 0), and so
#: does the replacement of a node. Several of a pool take turns: each leaves an empty node to the next.
SURGE_NODES = 1

#: The pods of a tier, or of one role of it where prefill and decode are apart.
Pods = tuple[str, str]
TOGETHER, ROLES = "", ("prefill", "decode")

#: Tiers with the same types and GPUs share a pool.
PoolKey = tuple[tuple[str, ...], int]


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that may run at once, and what it would cost."""

    replicas: dict[Pods, int]
    """Most replicas of each tier's pods."""
    worst_usd: float
    """A month with all of them and each pool's surge node, every hour, at the worst price; fixed costs included."""

    def of(self, tier: str, role: str = TOGETHER) -> int:
        """Most replicas of a tier's pods."""
        return self.replicas[tier, role]

    def nodes(self, tiers: Iterable[str]) -> int:
        """Most nodes of the pool that these tiers share."""
        names = set(tiers)
        return sum(count for (tier, _), count in self.replicas.items() if tier in names) + SURGE_NODES

    def warning(self, budget: Budget) -> str | None:
        """What to know where the budget does not bind: the planned peaks are kept all the same."""
        if budget.monthly_usd is None or self.worst_usd <= budget.monthly_usd:
            return None
        return (
            f"the limits keep each tier's planned peak, which {NAMESPACE}:budget.monthlyUsd {budget.monthly_usd:,.0f} "
            f"does not pay for at the worst price: everything at its limit all month, at the dearest on-demand price, "
            f"would be {self.worst_usd:,.0f} USD, {self.worst_usd - budget.monthly_usd:,.0f} more"
        )


@dataclass(frozen=True, slots=True)
class _Claim:
    """What some pods need and what they would take."""

    pods: Pods
    pool: PoolKey
    least: int
    """The planned peak, which they keep whatever it costs."""
    most: int
    """The peak of slow replicas in a busy week."""
    node_usd: float
    """A month of one node at the worst price."""


def pool_key(part: TierBill) -> PoolKey:
    """The types of a tier's pool, cheapest first, and the GPUs of a node."""
    return tuple(offering.instance.name for offering in part.fleet.pool), part.fleet.option.gpus


def limits(
    budget: Budget, demands: Sequence[TierDemand], bills: StackBills, bill: Sequence[TierBill], fixed_usd: float
) -> Limits:
    """Share the budget among tiers and pools.

    First come the fixed costs, every tier's planned peak (or its ``maxReplicas``) and one surge node a pool, all at the
    worst price for 730 hours. What the budget leaves beyond that pays for the bad case, replicas that are slow in a
    busy week: every tier gets the same share of what it would take, and the rest goes to the first tiers. So running at
    all limits for a month never costs more than the budget unless the planned peaks alone do; then
    :meth:`Limits.warning` says so. What is fixed only while traffic is as planned (data, requests) is not limited.
    """
    claims = [claim for demand, part in zip(demands, bill, strict=True) for claim in _claims(demand, part, bills)]
    surge = {claim.pool: SURGE_NODES * claim.node_usd for claim in claims}
    kept_usd = fixed_usd + sum(surge.values()) + sum(claim.least * claim.node_usd for claim in claims)
    left = math.inf if budget.monthly_usd is None else max(0.0, budget.monthly_usd - kept_usd)
    wished = sum((claim.most - claim.least) * claim.node_usd for claim in claims)
    share = min(1.0, left / wished) if wished else 0.0
    granted = {claim.pods: math.floor(share * (claim.most - claim.least)) for claim in claims}
    left -= sum(granted[claim.pods] * claim.node_usd for claim in claims)
    for claim in claims:
        if claim.least + granted[claim.pods] < claim.most and claim.node_usd <= left:
            granted[claim.pods] += 1
            left -= claim.node_usd
    more = sum(granted[claim.pods] * claim.node_usd for claim in claims)
    return Limits({claim.pods: claim.least + granted[claim.pods] for claim in claims}, kept_usd + more)


def worst_usd_per_hour(pool: Sequence[Offering]) -> float:
    """The most that a node of a pool may cost: the dearest on-demand price, when nothing else is to be had.

    Karpenter limits CPU pools by vCPUs, in which several small nodes may be had for a large one: there it is the
    largest node's vCPUs at the dearest price of one.
    """
    if pool[0].instance.gpu is not None:
        return max(offering.on_demand_usd_per_hour for offering in pool)
    per_vcpu = max(offering.on_demand_usd_per_hour / offering.instance.vcpu for offering in pool)
    return per_vcpu * max(offering.instance.vcpu for offering in pool)


def _claims(demand: TierDemand, part: TierBill, bills: StackBills) -> list[_Claim]:
    rule, fleet = part.fleet.rule, part.fleet
    kept = max(1, rule.minimum, rule.working_hours, demand.settings.paused_replicas or 0)
    volume = VolumePrices.of(bills.region).usd_per_hour(root_volume(fleet.pool))
    node_usd = (worst_usd_per_hour(fleet.pool) + volume) * HOURS_PER_MONTH

    def claim(role: str, peak: int, bad_case: int) -> _Claim:
        least = max(kept, peak)
        most = max(least, bad_case)
        if demand.settings.max_replicas is not None:
            least = most = max(demand.settings.max_replicas, rule.minimum, 1)
        return _Claim((part.name, role), pool_key(part), least, most, node_usd)

    apart = part.disaggregated
    if apart is not None:
        # How much each role slows down in the bad case is not known: one replica more.
        peaks = (apart.prefill.peak_replicas, apart.decode.peak_replicas)
        return [claim(role, peak, max(kept, peak) + 1) for role, peak in zip(ROLES, peaks, strict=True)]
    return [claim(TOGETHER, fleet.month.peak_replicas, rule.maximum or 1)]
