"""The forecast as rates, to be held against what Prometheus sees: nodes alone, an hour and per million tokens. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planning.plan import Forecast, TierPlan
from planning.traffic import HOURS_PER_MONTH

#: The lines of the bill that are hours of nodes. What their disks and images cost is in no price of a node.
_OF_NODES = ("nodes", "on-demand floor", "restarts after interruptions")


@dataclass(frozen=True, slots=True)
class TierRate:
    """What a tier's nodes are forecast to cost on the mean hour of the month, USD."""

    tier: str
    pools: tuple[str, ...]
    """Node pools that its pods run on."""
    low_usd_per_hour: float
    """The tier's range over its expected month, taken to be the nodes' too."""
    usd_per_hour: float
    high_usd_per_hour: float
    usd_per_million_tokens: float
    """0 when no tokens are forecast."""
    node_hours: float
    """In a month, the on-demand floor's included."""
    spot_share: float
    """Of the node hours."""

    @property
    def usd_per_month(self) -> float:
        """Of 730 hours."""
        return self.usd_per_hour * HOURS_PER_MONTH


@dataclass(frozen=True, slots=True)
class StackRates:
    """The forecast of a stack in rates."""

    tiers: tuple[TierRate, ...]
    other_usd_per_hour: float
    """What is not hours of tiers' nodes: fixed costs, disks, images."""

    @property
    def pools(self) -> tuple[str, ...]:
        """All pools that tiers run on."""
        return tuple(dict.fromkeys(pool for tier in self.tiers for pool in tier.pools))

    def pool_usd_per_hour(self, pool: str) -> float:
        """Forecast of ``pool``."""
        return sum(_part(tier) for tier in self.of_pool(pool))

    def share(self, tier: TierRate, pool: str) -> float:
        """Forecast share of ``tier`` in the cost of ``pool``; equal shares where none costs anything."""
        whole = self.pool_usd_per_hour(pool)
        return _part(tier) / whole if whole else 1 / len(self.of_pool(pool))

    def spot_share(self, pool: str) -> float:
        """Forecast share of spot in the node hours of ``pool``; 0 where no hours are forecast."""
        members = self.of_pool(pool)
        hours = sum(member.node_hours for member in members)
        return sum(member.spot_share * member.node_hours for member in members) / hours if hours else 0.0

    def of_pool(self, pool: str) -> tuple[TierRate, ...]:
        """Tiers whose pods run on ``pool``."""
        return tuple(tier for tier in self.tiers if pool in tier.pools)


def stack_rates(tiers: Sequence[TierPlan], forecast: Forecast) -> StackRates:
    """Give the rates of tiers that the forecast is of. Raises ``KeyError`` when it lacks one of them."""
    costs = {cost.tier: cost for cost in forecast.tiers}
    rates: list[TierRate] = []
    for tier in tiers:
        cost = costs[tier.name]
        month = sum(
            item.usd
            for item in forecast.items
            if item.tier == tier.name and item.name.removeprefix(f"{tier.name}: ") in _OF_NODES
        )
        hourly = month / HOURS_PER_MONTH
        low, high = (end / cost.expected_usd if cost.expected_usd else 1.0 for end in (cost.low_usd, cost.high_usd))
        rates.append(
            TierRate(
                tier=tier.name,
                pools=_pools(tier),
                low_usd_per_hour=hourly * low,
                usd_per_hour=hourly,
                high_usd_per_hour=hourly * high,
                usd_per_million_tokens=month / cost.million_tokens if cost.million_tokens else 0.0,
                node_hours=cost.replica_hours,
                spot_share=cost.spot_share,
            )
        )
    of_nodes = sum(rate.usd_per_hour for rate in rates)
    return StackRates(tuple(rates), sum(item.usd for item in forecast.items) / HOURS_PER_MONTH - of_nodes)


def _part(tier: TierRate) -> float:
    """USD an hour of one of the tier's pools: the plan does not say how roles on pools of their own divide it."""
    return tier.usd_per_hour / len(tier.pools)


def _pools(tier: TierPlan) -> tuple[str, ...]:
    apart = tier.disaggregation
    roles = (apart.prefill.node_pool, apart.decode.node_pool) if apart else (tier.node_pool,)
    return tuple(dict.fromkeys(roles))
