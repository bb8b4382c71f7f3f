"""The choice for one tier: of all options, the one whose expected month is cheapest, with the widest pool it allows.

An option's pool is every offering, of any GPU model, on which the option's very pod fits and carries the planned rate
within the target, and whose spot price is below the on-demand price of the option's own cheapest offering.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from planning.cold_start import LEAST_COOLDOWN_S, LONGEST_COOLDOWN_S
from planning.facts.instances import Offering
from planning.month import ReplicaMonth, ScalingRule, replica_month, replicas_for
from planning.options import Demand, Market, Miss, Option, hosts_pod, survey, sustains
from planning.spot import Case, PoolPrice, pool_price, worth_spot
from planning.traffic import HOURS_PER_MONTH, Shape


@dataclass(frozen=True, slots=True)
class Availability:
    """How many replicas a tier must keep, and on what."""

    minimum: int
    working_hours: int
    on_demand_floor: int
    maximum: int | None = None
    """Most replicas that the settings allow; None: as many as the load takes."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the month may use: each False is a lever switched off."""

    spot: bool = True
    on_demand_fallback: bool = True
    autoscaling: bool = True
    scale_to_zero: bool = True
    """Sleep while idle, and keep the working hours' replicas in working hours only."""
    tuned: bool = True
    """Limits of the engine chosen for the target instead of its defaults."""


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """One case of the month: every field at its expectation unless it is the one looked at."""

    cost_factor: float = 1.0
    """Measured over predicted cost of a replica's work: above 1 the replicas are slower than planned."""
    traffic_factor: float = 1.0
    price: Case = "expected"
    interruptions: Case = "expected"


EXPECTED = Uncertainty()


@dataclass(frozen=True, slots=True)
class NodeCosts:
    """What a node costs beside its instance price."""

    disk_usd_per_hour: float
    nat_usd_per_gb: float
    """The engine's image comes through NAT to every new node."""
    node_idle_s: float
    cooldown_s: float | None
    """As set; None: chosen by ``TierFleet.cooldown_s``."""


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """A tier's choice and its month."""

    option: Option
    pool: tuple[Offering, ...]
    price: PoolPrice
    month: ReplicaMonth
    floor_hours: float
    rule: ScalingRule
    nodes_usd: float
    """Instance hours on the mix."""
    floor_usd: float
    """Instance hours of the on-demand floor."""
    restarts_usd: float
    """Instance hours of replacements that start while nothing serves, after spot interruptions."""
    disks_usd: float
    images_usd: float

    @property
    def usd(self) -> float:
        """The tier's expected month."""
        return self.nodes_usd + self.floor_usd + self.restarts_usd + self.disks_usd + self.images_usd


class TierFleet:
    """The search for one tier, which remembers what does not change between levers."""

    def __init__(
        self,
        demand: Demand,
        availability: Availability,
        requests_per_hour: Sequence[float],
        shape: Shape,
        working: Sequence[bool],
        market: Market,
        costs: NodeCosts,
    ) -> None:
        self.demand = demand
        self.availability = availability
        self.requests_per_hour = tuple(requests_per_hour)
        self._shape = shape
        self._working = tuple(working)
        self._market = market
        self._costs = costs
        self._pools: dict[tuple[Option, int], tuple[Offering, ...]] = {}
        self._months: dict[tuple[ScalingRule, float], ReplicaMonth] = {}

    @cached_property
    def tuned(self) -> tuple[list[Option], list[Miss]]:
        """Options and misses with the engine's limits chosen for the target."""
        return survey(self.demand, self._market, tuned=True)

    @cached_property
    def untuned(self) -> tuple[list[Option], list[Miss]]:
        """Options and misses with the engine's default limits."""
        return survey(self.demand, self._market, tuned=False)

    def options(self, policy: Policy) -> list[Option]:
        """All options under a policy. Tuning may keep the defaults, so it never has fewer choices."""
        return [*self.tuned[0], *self.untuned[0]] if policy.tuned else self.untuned[0]

    def choose(self, policy: Policy, methods: frozenset[str] | None = None) -> Fleet | None:
        """The cheapest fleet under a policy, among the given quantisation methods (None: all); None when none works."""
        best: Fleet | None = None
        bounded = sorted(
            (
                (self._least_usd(option, policy), position, option)
                for position, option in enumerate(self.options(policy))
                if methods is None or option.checkpoint.method in methods
            ),
            key=lambda entry: entry[:2],
        )
        for least, _, option in bounded:
            if best is not None and _is_own(best) and least > best.usd:
                break
            fleet = self.fleet(option, policy)
            if best is None or _order(fleet) < _order(best):
                best = fleet
        return best

    def ranked(self, policy: Policy) -> list[Fleet]:
        """The best fleet of every checkpoint and GPU, cheapest first: the choice and its runner-ups."""
        fleets = sorted((self.fleet(option, policy) for option in self.options(policy)), key=_order)
        seen: set[tuple[str, str]] = set()
        result: list[Fleet] = []
        for fleet in fleets:
            gpu = fleet.option.gpu.name if fleet.option.gpu else fleet.option.offerings[0].instance.family
            if (fleet.option.checkpoint.method, gpu) not in seen:
                seen.add((fleet.option.checkpoint.method, gpu))
                result.append(fleet)
        return result

    def fleet(self, option: Option, policy: Policy, case: Uncertainty = EXPECTED) -> Fleet:
        """The month of one option under a policy, in one case of what is uncertain."""
        rule = self._rule(option, policy, case.cost_factor)
        month = self.month(rule, case.traffic_factor)
        pool = self.pool(option, policy, rule)
        price = pool_price(
            pool,
            spot=policy.spot,
            on_demand_fallback=policy.on_demand_fallback,
            price_case=case.price,
            interruption_case=case.interruptions,
        )
        floor_hours = self.availability.on_demand_floor * HOURS_PER_MONTH if policy.spot else 0.0
        hours = max(0.0, month.node_hours - floor_hours)
        interruptions = hours * price.interruptions_per_hour
        restart_hours = interruptions * option.cold_start.total_s / 3600
        return Fleet(
            option=option,
            pool=pool,
            price=price,
            month=month,
            floor_hours=floor_hours,
            rule=rule,
            nodes_usd=hours * price.usd_per_hour,
            floor_usd=floor_hours * price.on_demand_usd_per_hour,
            restarts_usd=restart_hours * price.usd_per_hour,
            disks_usd=(month.node_hours + restart_hours) * self._costs.disk_usd_per_hour,
            images_usd=(month.starts + interruptions) * option.image_gb * self._costs.nat_usd_per_gb,
        )

    def pool(self, option: Option, policy: Policy, rule: ScalingRule) -> tuple[Offering, ...]:
        """The offerings that the option's NodePool may launch, cheapest first."""
        own = sorted(option.offerings, key=lambda offering: offering.on_demand_usd_per_hour)
        if not policy.spot:
            return (own[0],)
        kept = max(1, rule.minimum)
        peak = max(self.requests_per_hour) * rule.peak_within_hour / 3600
        # While the minimum carries the peak, a member need only carry its share of it.
        needed = min(rule.requests_per_second_per_replica, peak / kept)
        key = (option, round(needed * 1e6))
        if key not in self._pools:
            members = list(own)
            if option.gpu is not None:
                for gpu, offered in self._market.of_size(option.gpus):
                    allowed = not self.demand.gpus or gpu.name in self.demand.gpus
                    if gpu is not option.gpu and allowed and sustains(option, self.demand, gpu, needed):
                        members += [
                            offer
                            for offer in offered
                            if hosts_pod(offer.instance, option.resources, self.demand.host_memory_gib)
                        ]
            else:
                members += self._same_pod_on_cpu(option, needed)
            members = list({member.instance.name: member for member in members}.values())
            self._pools[key] = worth_spot(members, own[0].on_demand_usd_per_hour) or (own[0],)
        pool = self._pools[key]
        # The on-demand fallback and floor buy the cheapest on-demand type, which must be in the list.
        return pool if own[0] in pool or not (policy.on_demand_fallback or rule.minimum) else (*pool, own[0])

    def _same_pod_on_cpu(self, option: Option, needed: float) -> list[Offering]:
        """CPU types where the option's own threads, slots and memory fit, and that carry the rate by themselves."""
        return [
            other.offerings[0]
            for other in self.tuned[0]
            if other is not option
            and other.checkpoint is option.checkpoint
            and other.gpu is None
            and other.resources.cpu_cores >= option.resources.cpu_cores
            and other.offerings[0].instance.allocatable_memory_gib >= option.resources.memory_gib + 1
            and other.load.requests_per_second >= needed
        ]

    def _rule(self, option: Option, policy: Policy, cost_factor: float) -> ScalingRule:
        kept = self.availability
        start = option.cold_start.total_s
        in_hours = max(kept.minimum, kept.working_hours)
        least = kept.minimum if policy.scale_to_zero else max(1, in_hours)
        may_sleep = least == 0
        return ScalingRule(
            requests_per_second_per_replica=option.load.requests_per_second / cost_factor,
            peak_within_hour=self._shape.peak_within_hour,
            minimum=least,
            working_hours=max(least, in_hours),
            follows_load=policy.autoscaling,
            may_sleep=may_sleep,
            cold_start_s=start,
            cooldown_s=self.cooldown_s(option),
            node_idle_s=self._costs.node_idle_s,
            maximum=kept.maximum,
        )

    def cooldown_s(self, option: Option) -> float:
        """Idle time before the last replica goes: as set, or where staying up has cost as much as the next wake-up
        will.

        That break-even never costs more than twice the best choice in hindsight (the ski-rental bound). At least ten
        minutes and one and a half cold starts, so that a tier does not flap; at most an hour.
        """
        if self._costs.cooldown_s is not None:
            return self._costs.cooldown_s
        cheapest = min(offer.spot_usd_per_hour or offer.on_demand_usd_per_hour for offer in option.offerings)
        start_s = option.cold_start.total_s
        break_even_s = (
            start_s + self._costs.node_idle_s + 3600 * option.image_gb * self._costs.nat_usd_per_gb / cheapest
        )
        return float(math.ceil(min(LONGEST_COOLDOWN_S, max(LEAST_COOLDOWN_S, 1.5 * start_s, break_even_s))))

    def month(self, rule: ScalingRule, traffic_factor: float) -> ReplicaMonth:
        """The hours of a rule on this tier's traffic."""
        key = (rule, traffic_factor)
        if key not in self._months:
            rates = [rate * traffic_factor for rate in self.requests_per_hour]
            self._months[key] = replica_month(rates, self._working, rule)
        return self._months[key]

    def _least_usd(self, option: Option, policy: Policy) -> float:
        """A bound from below on the option's month: the replicas it surely needs, at the cheapest price of any
        member.
        """
        if option.gpu is None:
            return 0.0
        prices = [offer.on_demand_usd_per_hour for offer in option.offerings]
        if policy.spot:
            same_size = (offer for _, offers in self._market.of_size(option.gpus) for offer in offers)
            prices += [offer.spot_usd_per_hour for offer in same_size if offer.spot_usd_per_hour]
        rule = self._rule(option, policy, 1.0)
        mean = sum(self.requests_per_hour) / len(self.requests_per_hour) / 3600
        replicas = max(float(rule.minimum), mean / rule.requests_per_second_per_replica)
        if not policy.autoscaling and not rule.may_sleep:
            replicas = max(replicas, replicas_for(max(self.requests_per_hour), rule))
        return replicas * HOURS_PER_MONTH * min(prices)


def _is_own(fleet: Fleet) -> bool:
    """Whether the pool's cheapest member is what the option was tuned for."""
    return fleet.pool[0] in fleet.option.offerings


def _order(fleet: Fleet) -> tuple[bool, float, float]:
    """Tuned for what will run first; then by price to the cent, then by quality loss.

    A fleet that would mostly run on another option's GPU is that option, described worse.
    """
    return not _is_own(fleet), round(fleet.usd, 2), fleet.option.quality_loss_percent
