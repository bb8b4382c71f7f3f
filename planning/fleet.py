"""The choice for one tier: of all options, the one whose expected month is cheapest, with the widest pool it allows.

An option's pool is every offering, of any GPU model, on which the option's very pod fits and carries the planned rate
within the target, and whose spot price is below the on-demand price of the option's own cheapest offering.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from planning.cold_start import LEAST_COOLDOWN_S, LOAD_WINDOW_S, LONGEST_COOLDOWN_S, vllm_cold_start
from planning.facts.instances import Offering
from planning.mixing import Kind, Mix, cheapest_mix
from planning.month import ReplicaMonth, ScalingRule, Scatter, replica_month, replicas_for, scatter
from planning.options import Demand, Market, Option, Survey, Way, sustains, sustains_on_cpu
from planning.root_volume import BESIDE_NVME, VolumePrices, root_volume
from planning.spot import Case, PoolPrice, pool_price, spot_usd_per_hour, worth_spot
from planning.traffic import HOURS_PER_MONTH, HOURS_PER_WEEK, Shape


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

    volumes: VolumePrices
    nat_usd_per_gb: float
    """Of 10^9 bytes. The engine's image comes through NAT to every new node."""
    node_idle_s: float
    cooldown_s: float | None
    """As set; None: chosen by ``TierFleet.cooldown_s``."""
    load_window_s: float = LOAD_WINDOW_S
    """Over which the autoscaler averages; infinite: chance moves no replica."""


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
    asleep_usd: float | None = None
    """The month if the tier slept while idle, as its settings allow, where one replica at any hour is cheaper."""

    @property
    def usd(self) -> float:
        """The tier's expected month."""
        return self.nodes_usd + self.floor_usd + self.restarts_usd + self.disks_usd + self.images_usd

    @property
    def usd_per_hour(self) -> float:
        """A node hour with all that comes with it; of a fleet that never runs, the node's price alone."""
        return self.usd / self.month.node_hours if self.month.node_hours else self.price.usd_per_hour


@dataclass(frozen=True, slots=True)
class MixedMonth:
    """A mix of several kinds of replicas and its month."""

    mix: Mix
    usd: float


#: No replica on GPUs starts faster than one without weights.
_LEAST_START_S = vllm_cold_start(0.0).total_s

#: Of fleets that differ by less than this share, the one that loses less quality.
_WORTH_A_LOOK = 0.998

#: Limits are tuned in steps: the engine's defaults may carry this much more after all.
_TUNING_STEP = 1.02

#: A mix that saves less than this share is not worth a word.
_WORTH_SAYING = 0.99


class TierFleet:
    """The search for one tier, which remembers what does not change between levers."""

    def __init__(
        self,
        demand: Demand,
        availability: Availability,
        shape: Shape,
        requests_per_day: float,
        working: Sequence[float],
        market: Market,
        costs: NodeCosts,
    ) -> None:
        self.demand = demand
        self.availability = availability
        self.requests_per_hour = tuple(requests_per_day / 24 * weight for weight in shape.weights)
        self.shape = shape
        self._working = tuple(working)
        self.market = market
        self._costs = costs
        self._pools: dict[tuple[Option, int], tuple[tuple[Offering, ...], Offering]] = {}
        self._months: dict[tuple[ScalingRule, float], ReplicaMonth] = {}
        self._chosen: dict[tuple[Policy, frozenset[str] | None], Fleet | None] = {}
        self._fleets: dict[tuple[Option, Policy, Uncertainty, bool | None], Fleet] = {}
        self._idle_hours: dict[tuple[int, float], float] = {}
        self._mean_requests_per_second = requests_per_day / 86400
        # Whatever share of the load follows the prompts, no hour has less than the lower of prompts and answers.
        lower = max(map(min, shape.prompts, shape.answers))
        self._least_peak_requests_per_second = self._mean_requests_per_second * lower
        self._loads: dict[float, tuple[float, ...]] = {}

    def scatter(self, requests_per_second: float, stay_s: float) -> Scatter:
        """What random arrivals leave in the load of replicas that are full at a rate."""
        return scatter(self.demand.workload.arrival_cv, stay_s, self._costs.load_window_s, requests_per_second)

    def load_per_hour(self, prefill_share: float) -> tuple[float, ...]:
        """The load of every hour in requests of mean length, where so much of a replica's time goes to prompts."""
        if self.shape.prompts is self.shape.answers is self.shape.weights:
            return self.requests_per_hour
        if prefill_share not in self._loads:
            mean = self._mean_requests_per_second * 3600
            self._loads[prefill_share] = tuple(
                mean * (prefill_share * prompts + (1 - prefill_share) * answers)
                for prompts, answers in zip(self.shape.prompts, self.shape.answers, strict=True)
            )
        return self._loads[prefill_share]

    def peak_requests_per_second(self, rule: ScalingRule) -> float:
        """The busiest load window of the busiest hour, in requests of mean length."""
        return max(self.load_per_hour(rule.prefill_share)) * rule.bursts.peak / 3600

    @cached_property
    def survey(self) -> Survey:
        """The ways to serve the demand."""
        return self.market.survey(self.demand)

    def choose(self, policy: Policy, methods: frozenset[str] | None = None) -> Fleet | None:
        """The cheapest fleet under a policy, among the given quantisation methods (None: all); None when none works."""
        key = (policy, methods)
        if key not in self._chosen:
            self._chosen[key] = self._cheapest(policy, methods)
        return self._chosen[key]

    def _cheapest(self, policy: Policy, methods: frozenset[str] | None) -> Fleet | None:
        """Best first: a way is worked out, and then priced, only while its bound from below is below the best fleet.

        A way that loses no less quality must have room for a saving worth having. A fleet that starts on a slower GPU
        than it is tuned for is that one's, described worse: it is taken only where there is no other.
        """
        number = itertools.count()
        waiting: list[tuple[float, float, int, Way, bool, Option | None]] = []

        def wait(bound: float, way: Way, *, tuned: bool, option: Option | None = None) -> None:
            heapq.heappush(waiting, (bound, way.quality_loss_percent, next(number), way, tuned, option))

        for way in self.survey.ways:
            if methods is None or way.checkpoint.method in methods:
                wait(self.least_usd(way, way.most_requests_per_second, policy), way, tuned=policy.tuned)
        best: Fleet | None = None
        borrowed: Fleet | None = None
        while waiting:
            bound, loss, _, way, tuned, option = heapq.heappop(waiting)
            if best and bound > best.usd:
                break
            if best and loss >= best.option.quality_loss_percent and bound > best.usd * _WORTH_A_LOOK:
                continue
            if option is None:
                found = self.survey.look(way, tuned=tuned)
                if isinstance(found, Option):
                    least = self.least_usd(way, found.load.requests_per_second, policy)
                    wait(max(bound, least), way, tuned=tuned, option=found)
                continue
            fleet = self.fleet(option, policy)
            if fleet.pool[0] in option.offerings or fleet.pool[0].instance.gpu in way.as_fast:
                best = fleet if best is None else min(best, fleet, key=_order)
            else:
                borrowed = fleet if borrowed is None else min(borrowed, fleet, key=_order)
            if tuned and way.gpu is not None:
                # The engine's defaults carry no more, but admit more than tuned limits: the pool may be wider.
                most = option.load.requests_per_second * _TUNING_STEP
                wait(self.least_usd(way, most, policy), way, tuned=False)
        return best or borrowed

    def rivals(self, choice: Fleet, policy: Policy, methods: frozenset[str], places: int) -> list[Fleet]:
        """What else could have been chosen, cheapest first: whatever is about as cheap where the choice runs, and the
        most promising way on each of the next cheapest places, so many of them.
        """
        own = choice.option.place
        about_the_same = choice.usd * 1.005
        ways = [
            (self.least_usd(way, way.most_requests_per_second, policy), way.quality_loss_percent, position, way)
            for position, way in enumerate(self.survey.ways)
            if way.checkpoint.method in methods
        ]
        rivals: list[Fleet] = []
        seen = {own}
        for least, _, _, way in sorted(ways, key=lambda entry: entry[:3]):
            if least > about_the_same if way.place == own else way.place in seen or len(seen) > places:
                continue
            option = self.survey.look(way, tuned=policy.tuned)
            if not isinstance(option, Option):
                continue
            fleet = self.fleet(option, policy)
            # One that starts on another GPU's nodes is that GPU's rival.
            if fleet.pool[0] in option.offerings:
                seen.add(way.place)
                rivals.append(fleet)
        return sorted(rivals, key=_order)

    def mix(self, choice: Fleet, policy: Policy, methods: frozenset[str] | None = None) -> MixedMonth | None:
        """The replicas of several kinds that carry the peak for least (Mélange's program), where they make the month
        at least one per cent cheaper than ``choice``: in every hour as few of them as carry it.

        Kinds are priced only when the program would use them: until then each stands at its bounds, with the least
        price and the largest rate that it could have.
        """
        rule = choice.rule
        peak = self.peak_requests_per_second(rule)
        kept = max(1, rule.minimum, rule.working_hours)
        limit = _WORTH_SAYING * choice.usd_per_hour * max(kept, choice.month.peak_replicas)
        ways = {way.label: way for way in self.survey.ways if methods is None or way.checkpoint.method in methods}
        kinds = {
            label: Kind(label, way.most_requests_per_second, way.least_usd_per_hour)
            for label, way in ways.items()
            if math.isfinite(way.most_requests_per_second)
        }
        known: set[str] = set()
        while True:
            mix = cheapest_mix(tuple(kinds.values()), peak, at_least=kept, below_usd_per_hour=limit)
            if mix is None:
                return None
            unknown = {kind.name for kind, _ in mix.replicas} - known
            if not unknown:
                break
            for label in unknown:
                option = self.survey.look(ways[label], tuned=policy.tuned)
                del kinds[label]
                if isinstance(option, Option):
                    kinds[label] = self.kind(self.fleet(option, policy))
            known |= unknown
        usd = self._mixed_usd(mix, choice)
        return MixedMonth(mix, usd) if len(mix.replicas) > 1 and usd < _WORTH_SAYING * choice.usd else None

    def _mixed_usd(self, mix: Mix, choice: Fleet) -> float:
        """The month of a mix whose replicas sleep and wake at no cost, awake as long as those of ``choice``."""
        rule, parts = choice.rule, mix.parts()
        usd = 0.0
        loads = self.load_per_hour(rule.prefill_share)
        for hour, (rate, held) in enumerate(zip(loads, choice.month.by_hour, strict=True)):
            keep = rule.working_hours if self._working[hour % HOURS_PER_WEEK] else rule.minimum
            load = rate * rule.bursts.peak / 3600 * (1 - 1e-9)
            awake = next(part for part in parts if part.requests_per_second >= load and part.size >= max(1, keep))
            usd += awake.usd_per_hour * min(1.0, held)
        return usd * HOURS_PER_MONTH / len(self.requests_per_hour)

    def fleet(
        self, option: Option, policy: Policy, case: Uncertainty = EXPECTED, *, sleeps: bool | None = None
    ) -> Fleet:
        """The month of one option under a policy, in one case of what is uncertain.

        ``sleeps``: whether a tier that may sleep does; None: whatever is cheaper.
        """
        key = (option, policy, case, sleeps)
        if key not in self._fleets:
            self._fleets[key] = self._new_fleet(option, policy, case, sleeps=sleeps)
        return self._fleets[key]

    def _new_fleet(self, option: Option, policy: Policy, case: Uncertainty, *, sleeps: bool | None) -> Fleet:
        rule = self._rule(option, policy, case.cost_factor)
        if not rule.may_sleep:
            return self._awake(option, policy, case, rule)
        awake_rule = replace(rule, minimum=1, working_hours=max(1, rule.working_hours), may_sleep=False)
        if sleeps is False:
            return self._awake(option, policy, case, awake_rule)
        asleep = self._priced(option, policy, case, rule)
        open_share = sum(self._working) / len(self._working)
        if rule.working_hours == 0 and open_share < 1:
            # One replica in working hours may cost less than its many starts.
            kept = open_share * HOURS_PER_MONTH * asleep.price.usd_per_hour
            by_day = self._priced(option, policy, case, replace(rule, working_hours=1)) if kept < asleep.usd else asleep
            asleep = min(asleep, by_day, key=lambda fleet: fleet.usd)
        if sleeps or asleep.usd <= HOURS_PER_MONTH * asleep.price.usd_per_hour:
            return asleep
        awake = self._awake(option, policy, case, awake_rule)
        return replace(awake, asleep_usd=asleep.usd) if awake.usd < asleep.usd else asleep

    def _awake(self, option: Option, policy: Policy, case: Uncertainty, rule: ScalingRule) -> Fleet:
        """The month of a tier that never sleeps: the peak's replicas at any hour, where chance makes scaling dearer."""
        scaled = self._priced(option, policy, case, rule)
        peak = scaled.month.peak_replicas
        if scaled.month.node_hours <= peak * HOURS_PER_MONTH * (1 + 1e-9):
            return scaled
        held = replace(rule, minimum=peak, working_hours=peak, maximum=peak, follows_load=False)
        return min(scaled, self._priced(option, policy, case, held), key=lambda fleet: fleet.usd)

    def _priced(self, option: Option, policy: Policy, case: Uncertainty, rule: ScalingRule) -> Fleet:
        pool = self.pool(option, policy, rule)
        # What an idle node costs decides how long it is worth keeping.
        rule = replace(rule, cooldown_s=self.cooldown_s(option, _first_usd_per_hour(pool, policy)))
        month = self.month(rule, case.traffic_factor)
        price = pool_price(
            pool,
            spot=policy.spot,
            on_demand_fallback=policy.on_demand_fallback,
            price_case=case.price,
            interruption_case=case.interruptions,
        )
        floor_hours = self.availability.on_demand_floor * HOURS_PER_MONTH if policy.spot else 0.0
        return self._fleet(option, pool, price, rule, month, floor_hours)

    def under(self, fleet: Fleet, month: ReplicaMonth) -> Fleet:
        """The same replicas in another month, none of them on a floor."""
        return self._fleet(fleet.option, fleet.pool, fleet.price, fleet.rule, month, 0.0)

    def held(self, fleet: Fleet, replicas: int) -> Fleet:
        """The same kind of replicas, so many of them at every hour whatever the load."""
        hours = float(replicas * HOURS_PER_MONTH)
        by_hour = (float(replicas),) * len(fleet.month.by_hour)
        month = ReplicaMonth(hours, 0.0, replicas, fleet.month.needed_replicas, by_hour)
        floor_hours = min(fleet.floor_hours, hours)
        return self._fleet(fleet.option, fleet.pool, fleet.price, fleet.rule, month, floor_hours)

    def _fleet(
        self,
        option: Option,
        pool: tuple[Offering, ...],
        price: PoolPrice,
        rule: ScalingRule,
        month: ReplicaMonth,
        floor_hours: float,
    ) -> Fleet:
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
            disks_usd=(month.node_hours + restart_hours) * self._costs.volumes.usd_per_hour(root_volume(pool)),
            images_usd=(month.starts + interruptions) * option.image_gb * self._costs.nat_usd_per_gb,
        )

    def pool(self, option: Option, policy: Policy, rule: ScalingRule) -> tuple[Offering, ...]:
        """The offerings that the option's NodePool may launch, cheapest first."""
        own = sorted(option.offerings, key=lambda offering: offering.on_demand_usd_per_hour)
        if not policy.spot:
            return (own[0],)
        needed = self._needed(rule)
        key = (option, round(needed * 1e6))
        if key not in self._pools:
            members = list(own)
            if option.gpu is not None:
                for gpu, _ in self.market.of_size(option.gpus):
                    allowed = not self.demand.gpus or gpu.name in self.demand.gpus
                    # What costs more than the own on-demand price is not worth judging.
                    cheap = self.market.least_price(gpu.name, option.gpus) < own[0].on_demand_usd_per_hour
                    if gpu is not option.gpu and allowed and cheap and sustains(option, self.demand, gpu, needed):
                        members += self.market.hosts(gpu, option.resources, self.demand.host_memory_gib)
            else:
                members += [
                    offer for offer in self.market.cpu if sustains_on_cpu(option, self.demand, offer.instance, needed)
                ]
            members = list({member.instance.name: member for member in members}.values())
            # The on-demand fallback and floor buy the cheapest on-demand type, which must be in the list.
            fallback = min(members, key=lambda offering: offering.on_demand_usd_per_hour)
            self._pools[key] = worth_spot(members, fallback.on_demand_usd_per_hour), fallback
        pool, fallback = self._pools[key]
        return (
            pool
            if fallback in pool or (pool and not (policy.on_demand_fallback or rule.minimum))
            else (*pool, fallback)
        )

    def _needed(self, rule: ScalingRule) -> float:
        """What every member of a pool carries: while the minimum carries the peak, its share of that is enough."""
        return min(rule.requests_per_second_per_replica, self.peak_requests_per_second(rule) / max(1, rule.minimum))

    def kind(self, fleet: Fleet) -> Kind:
        """A fleet's replica as a mix may count on it: at the price of its pool, with the rate of any node in it."""
        option = fleet.option
        own = all(member in option.offerings for member in fleet.pool)
        # Without requests any node carries them all.
        rate = option.load.requests_per_second if own else self._needed(fleet.rule) or option.load.requests_per_second
        return Kind(option.label, rate, fleet.usd_per_hour)

    def _rule(self, option: Option, policy: Policy, cost_factor: float) -> ScalingRule:
        kept = self.availability
        start = option.cold_start.total_s
        least = kept.minimum if policy.scale_to_zero else max(1, kept.minimum)
        may_sleep = least == 0
        load = option.load
        # To a tenth, so that options share their hours: it moves an hour's load by a per cent or two at most.
        prefill_share = round(load.prefill_share, 1)
        rule = ScalingRule(
            requests_per_second_per_replica=load.requests_per_second,
            minimum=least,
            working_hours=max(least, kept.working_hours),
            follows_load=policy.autoscaling,
            may_sleep=may_sleep,
            cold_start_s=start,
            cooldown_s=LEAST_COOLDOWN_S,
            node_idle_s=self._costs.node_idle_s,
            maximum=kept.maximum,
            bursts=self.shape.bursts(prefill_share),
            prefill_share=prefill_share,
            scatter=self.scatter(load.requests_per_second / cost_factor, load.stay_s),
        )
        if kept.maximum is None:
            rule = replace(rule, maximum=max(1, rule.working_hours, self._bad_case(rule, option)))
        return replace(rule, requests_per_second_per_replica=load.requests_per_second / cost_factor)

    def _bad_case(self, rule: ScalingRule, option: Option) -> int:
        """Replicas for the peak of slow replicas in a busy week: the autoscaler's limit."""
        slow = replace(rule, requests_per_second_per_replica=rule.requests_per_second_per_replica / option.cost_band[1])
        return replicas_for(max(self.load_per_hour(rule.prefill_share)) * self.shape.week_to_week, slow)

    def cooldown_s(self, option: Option, usd_per_hour: float) -> float:
        """Idle time before the last replica goes: as set, or where staying up has cost as much as the next wake-up
        will.

        That break-even never costs more than twice the best choice in hindsight (the ski-rental bound). At least ten
        minutes and one and a half cold starts, so that a tier does not flap; at most an hour.
        """
        if self._costs.cooldown_s is not None:
            return self._costs.cooldown_s
        start_s = option.cold_start.total_s
        break_even_s = (
            start_s + self._costs.node_idle_s + 3600 * option.image_gb * self._costs.nat_usd_per_gb / usd_per_hour
        )
        return float(math.ceil(min(LONGEST_COOLDOWN_S, max(LEAST_COOLDOWN_S, 1.5 * start_s, break_even_s))))

    def month(self, rule: ScalingRule, traffic_factor: float) -> ReplicaMonth:
        """The hours of a rule on this tier's traffic."""
        key = (rule, traffic_factor)
        if key not in self._months:
            requests, loads = self.requests_per_hour, self.load_per_hour(rule.prefill_share)
            if rule.maximum and self.availability.maximum is None and traffic_factor > self.shape.week_to_week:
                # Planned for so much traffic, the limit would be another.
                rule = replace(rule, maximum=math.ceil(rule.maximum * traffic_factor))
            if traffic_factor != 1:
                requests, loads = ([value * traffic_factor for value in series] for series in (requests, loads))
            self._months[key] = replica_month(requests, loads, self._working, rule)
        return self._months[key]

    def least_usd(self, way: Way, requests_per_second: float, policy: Policy) -> float:
        """A bound from below on the month of a way: the node hours it surely needs when a replica carries no more than
        ``requests_per_second``, at the lowest price that its pool may hold.
        """
        least = way.on_demand_usd_per_hour
        if policy.spot:
            least = way.pool_usd_per_hour if policy.on_demand_fallback else way.least_usd_per_hour
        kept = self.availability
        minimum = kept.minimum if policy.scale_to_zero else max(1, kept.minimum)
        replicas = self._mean_requests_per_second / requests_per_second
        if not policy.autoscaling and minimum:
            replicas = max(replicas, self._least_peak_requests_per_second / requests_per_second)
        if kept.maximum is not None:
            replicas = min(replicas, kept.maximum)
        hours = max(replicas * HOURS_PER_MONTH, self._least_hours(minimum, _LEAST_START_S if way.gpu else 0.0))
        return hours * (least + self._costs.volumes.usd_per_hour(BESIDE_NVME))

    def _least_hours(self, minimum: int, start_s: float) -> float:
        """Node hours of replicas that carry any load, start as fast as this and go as soon as any rule lets them."""
        key = (minimum, start_s)
        if key not in self._idle_hours:
            cooldown_s = self._costs.cooldown_s
            ideal = ScalingRule(
                requests_per_second_per_replica=math.inf,
                minimum=minimum,
                working_hours=max(minimum, self.availability.working_hours),
                follows_load=True,
                may_sleep=minimum == 0,
                cold_start_s=start_s,
                cooldown_s=max(LEAST_COOLDOWN_S, 1.5 * start_s) if cooldown_s is None else cooldown_s,
                node_idle_s=self._costs.node_idle_s,
            )
            hours = replica_month(self.requests_per_hour, self.requests_per_hour, self._working, ideal).node_hours
            # A tier that may sleep stays awake where that is cheaper.
            self._idle_hours[key] = hours if minimum else min(hours, HOURS_PER_MONTH)
        return self._idle_hours[key]


def _first_usd_per_hour(pool: Sequence[Offering], policy: Policy) -> float:
    """What the pool's cheapest node costs."""
    spot = spot_usd_per_hour(pool[0]) if policy.spot else None
    return pool[0].on_demand_usd_per_hour if spot is None else spot


def _order(fleet: Fleet) -> tuple[float, float, float]:
    """By price to the cent, then by quality loss; fleets that never run, by what an hour would cost if they did."""
    usd = round(fleet.usd, 2)
    return usd, 0.0 if usd else fleet.price.usd_per_hour, fleet.option.quality_loss_percent
