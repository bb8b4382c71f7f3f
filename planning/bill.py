"""The compute bill of the whole stack under any set of levers: tiers merged or apart, fleets chosen for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from planning.disaggregation import RoleLoads, role_loads
from planning.facts.checkpoints import Checkpoint
from planning.facts.fixed_prices import BILLED_GB_PER_GB, fixed_price
from planning.facts.models import Architecture
from planning.fleet import EXPECTED, Availability, Fleet, NodeCosts, Policy, TierFleet, Uncertainty
from planning.month import ReplicaMonth, ScalingRule, both
from planning.options import Demand, Market, Option
from planning.root_volume import VolumePrices
from planning.serving import Target, Workload
from planning.traffic import Shape, together
from settings import Capacity, Scaling, TierSettings


@dataclass(frozen=True, slots=True)
class Levers:
    """What lowers the bill; each False is the bill without it."""

    spot: bool = True
    quantization: bool = True
    batching: bool = True
    routing: bool = True
    autoscaling: bool = True
    scale_to_zero: bool = True
    prefix_caching: bool = True
    kv_compression: bool = True
    disaggregation: bool = True

    @classmethod
    def none(cls) -> Levers:
        """The baseline: every lever off."""
        return cls(**{entry.name: False for entry in fields(cls)})


@dataclass(frozen=True, slots=True)
class TierDemand:
    """A tier of the settings with the facts it names."""

    settings: TierSettings
    architecture: Architecture
    checkpoints: tuple[Checkpoint, ...]
    """Every checkpoint that could serve it: the levers look beyond what the settings allow."""
    methods: frozenset[str]
    """Quantisation methods that the settings allow."""
    shape: Shape


@dataclass(frozen=True, slots=True)
class DisaggregatedFleet:
    """The same month with prefill and decode apart."""

    loads: RoleLoads
    prefill: ReplicaMonth
    decode: ReplicaMonth
    fleet: Fleet
    """Both together."""


@dataclass(frozen=True, slots=True, eq=False)
class TierBill:
    """One tier's part of a bill."""

    name: str
    search: TierFleet
    fleet: Fleet
    disaggregated: DisaggregatedFleet | None
    together_usd: float
    """The cheapest month with prefill and decode together."""
    paused: Fleet | None = None
    """The month of the replicas that the tier is paused at; None: it scales."""

    @property
    def paid(self) -> Fleet:
        """What the month pays for: ``fleet``, or its replicas apart, or those that a paused tier is left with."""
        return self.paused or (self.disaggregated.fleet if self.disaggregated else self.fleet)

    @property
    def usd(self) -> float:
        """Expected compute of the month."""
        return self.paid.usd


class Unservable(Exception):
    """No option of a tier meets its target under the given levers."""

    def __init__(self, tier: str, search: TierFleet) -> None:
        super().__init__(tier)
        self.tier = tier
        self.search = search


@dataclass(slots=True)
class StackBills:
    """Computes bills and remembers what they share: each search over checkpoints and GPUs is done once."""

    tiers: tuple[TierDemand, ...]
    market: Market
    working: tuple[float, ...]
    capacity: Capacity
    scaling: Scaling
    region: str
    _searches: dict[object, TierFleet] = field(default_factory=dict[object, TierFleet])

    def bill(self, levers: Levers) -> tuple[TierBill, ...]:
        """The cheapest fleet of every tier under the levers. Raises ``Unservable``."""
        return tuple(self._tier_bill(name, tiers, levers) for name, tiers in self._groups(levers))

    def tier_bill(self, tier: TierDemand, levers: Levers) -> TierBill:
        """The cheapest fleet of one tier. Raises ``Unservable``."""
        return self._tier_bill(tier.settings.name, (tier,), levers)

    def search(self, tier: TierDemand) -> TierFleet:
        """The search of one tier with every lever on."""
        return self._search((tier,), Levers())

    def serves(self, tier: TierDemand) -> bool:
        """Whether anything that the settings allow meets a tier's target."""
        survey = self._new_search((tier,), Levers(), apart=tier.settings.disaggregation.enabled).survey
        ways = (way for way in survey.ways if way.checkpoint.method in tier.methods)
        return any(isinstance(survey.look(way), Option) for way in ways)

    def policy(self, levers: Levers) -> Policy:
        """What the settings allow and the levers leave."""
        return Policy(
            spot=levers.spot and self.capacity.spot,
            on_demand_fallback=self.capacity.on_demand_fallback,
            autoscaling=levers.autoscaling,
            scale_to_zero=levers.scale_to_zero and self.scaling.scale_to_zero,
            tuned=levers.batching,
        )

    def in_case(self, bill: TierBill, levers: Levers, case: Uncertainty) -> float:
        """The month of a chosen fleet, USD, in one case of what is uncertain; the choice stays."""
        fleet = bill.search.fleet(bill.fleet.option, self.policy(levers), case, sleeps=bill.fleet.rule.may_sleep)
        apart = self._disaggregated(bill.search, fleet, case) if bill.disaggregated else None
        scaled = apart.fleet if apart else fleet
        return bill.search.held(scaled, bill.paused.month.peak_replicas).usd if bill.paused else scaled.usd

    def _groups(self, levers: Levers) -> list[tuple[str, tuple[TierDemand, ...]]]:
        if levers.routing or len(self.tiers) == 1:
            return [(tier.settings.name, (tier,)) for tier in self.tiers]
        # A paused tier serves what its own replicas do, and leaves no request to another.
        paused = tuple(tier for tier in self.tiers if tier.settings.paused_replicas is not None)
        scaled = tuple(tier for tier in self.tiers if tier.settings.paused_replicas is None)
        merged = [(largest_tier(scaled).settings.name, scaled)] if scaled else []
        return [*merged, *((tier.settings.name, (tier,)) for tier in paused)]

    def _tier_bill(self, name: str, tiers: tuple[TierDemand, ...], levers: Levers) -> TierBill:
        bill = self._scaled_bill(name, tiers, levers)
        replicas = tiers[0].settings.paused_replicas
        if replicas is None:
            return bill
        # What runs is chosen as if it scaled, so that a pause changes nothing else.
        both = 2 * replicas if bill.disaggregated else replicas
        return replace(bill, paused=bill.search.held(bill.paid, both))

    def _scaled_bill(self, name: str, tiers: tuple[TierDemand, ...], levers: Levers) -> TierBill:
        search = self._search(tiers, levers)
        policy = self.policy(levers)
        tier = largest_tier(tiers)
        methods = tier.methods if levers.quantization else unquantised(tier.checkpoints)
        if levers.disaggregation and len(tiers) == 1 and tier.settings.disaggregation.enabled:
            return self._cheapest_apart(name, tiers, levers, methods)
        fleet = search.choose(policy, methods)
        if fleet is None:
            raise Unservable(name, search)
        return TierBill(name, search, fleet, None, fleet.usd)

    def _cheapest_apart(
        self, name: str, tiers: tuple[TierDemand, ...], levers: Levers, methods: frozenset[str]
    ) -> TierBill:
        """The fleet that is cheapest with prefill and decode apart, which may be another than together."""
        search, policy = self._search(tiers, levers), self.policy(levers)
        together = self._search(tiers, replace(levers, disaggregation=False)).choose(policy, methods)
        best: TierBill | None = None
        for option in dict.fromkeys((*search.survey.options(tuned=policy.tuned), *search.survey.options(tuned=False))):
            if together is None or option.checkpoint.method not in methods:
                continue
            fleet = search.fleet(option, policy)
            apart = self._disaggregated(search, fleet, EXPECTED)
            if apart and (best is None or apart.fleet.usd < best.usd):
                best = TierBill(name, search, fleet, apart, together.usd)
        if best is None:
            raise Unservable(name, search)
        return best

    def _search(self, tiers: tuple[TierDemand, ...], levers: Levers) -> TierFleet:
        apart = levers.disaggregation and len(tiers) == 1 and tiers[0].settings.disaggregation.enabled
        key = (tuple(tier.settings.name for tier in tiers), levers.prefix_caching, levers.kv_compression, apart)
        if key not in self._searches:
            self._searches[key] = self._new_search(tiers, levers, apart=apart)
        return self._searches[key]

    def _new_search(self, tiers: tuple[TierDemand, ...], levers: Levers, *, apart: bool) -> TierFleet:
        tier = largest_tier(tiers)
        settings = tier.settings
        traffic = [member.settings.traffic for member in tiers]
        requests = sum(part.mean_requests_per_day for part in traffic)

        def mean(values: Sequence[float]) -> float:
            weights = [part.mean_requests_per_day / requests if requests else 1 / len(traffic) for part in traffic]
            return sum(weight * value for weight, value in zip(weights, values, strict=True))

        demand = Demand(
            architecture=tier.architecture,
            checkpoints=tier.checkpoints,
            workload=Workload(
                input_tokens=mean([part.input_tokens for part in traffic]),
                output_tokens=mean([part.output_tokens for part in traffic]),
                prefix_hit_rate=mean([part.prefix_hit_rate for part in traffic]) if levers.prefix_caching else 0.0,
                arrival_cv=mean([part.burstiness for part in traffic]),
                input_cv=mean([part.input_tokens_cv for part in traffic]),
                output_cv=mean([part.output_tokens_cv for part in traffic]),
            ),
            target=Target(settings.slo.ttft_ms, settings.slo.tpot_ms),
            max_model_len=max(member.settings.max_model_len for member in tiers)
            if len(tiers) > 1
            else settings.max_model_len,
            kv_cache_dtype=settings.kv_cache_dtype if levers.kv_compression else "auto",
            gpus=settings.gpus,
            host_memory_gib=_host_memory_gib(settings, levers, apart=apart),
        )
        return TierFleet(
            demand,
            Availability(
                settings.min_replicas,
                settings.working_hours_replicas if not all(self.working) else 0,
                settings.on_demand_floor,
                settings.max_replicas if len(tiers) == 1 else None,
            ),
            together([(member.shape, member.settings.traffic) for member in tiers]) if len(tiers) > 1 else tier.shape,
            requests,
            self.working,
            self.market,
            self.node_costs(),
        )

    def node_costs(self) -> NodeCosts:
        """What the nodes of every tier cost beside their instances, and how long they are kept."""
        minutes = self.scaling.idle_cooldown_minutes
        return NodeCosts(
            volumes=VolumePrices.of(self.region),
            nat_usd_per_gb=fixed_price(self.region, "nat_gateway_data").usd * BILLED_GB_PER_GB,
            node_idle_s=self.scaling.node_idle_minutes * 60,
            cooldown_s=None if minutes is None else minutes * 60,
        )

    def _disaggregated(self, search: TierFleet, fleet: Fleet, case: Uncertainty) -> DisaggregatedFleet | None:
        """The chosen pods split by role, on the same pool; None when a role cannot meet its part of the target."""
        network = min(offering.instance.network_baseline_mbps or 1000 for offering in fleet.pool)
        loads = role_loads(fleet.option, search.demand, network)
        if loads is None:
            return None

        def month(requests_per_second: float, concurrency: float, prefill_share: float) -> ReplicaMonth:
            rule: ScalingRule = replace(
                fleet.rule,
                requests_per_second_per_replica=requests_per_second / case.cost_factor,
                prefill_share=prefill_share,
                bursts=search.shape.bursts(prefill_share),
                scatter=search.scatter(requests_per_second / case.cost_factor, concurrency / requests_per_second),
                maximum=None,
            )
            return search.month(rule, case.traffic_factor)

        prefill = month(loads.prefill_requests_per_second, loads.prefill_concurrency, 1.0)
        decode = month(loads.decode.requests_per_second, loads.decode.concurrency, 0.0)
        return DisaggregatedFleet(loads, prefill, decode, search.under(fleet, both(prefill, decode)))


def _host_memory_gib(settings: TierSettings, levers: Levers, *, apart: bool) -> float:
    """What a replica's KV store takes of its node; one that nobody asked for takes only what is left over."""
    if apart:
        return settings.disaggregation.kv_store_gib
    return (settings.kv_offload_gib or 0.0) if levers.prefix_caching else 0.0


def largest_tier(tiers: Sequence[TierDemand]) -> TierDemand:
    """The tier of the largest model; of equals, the one with the stricter target. Tiers that nobody asks come last."""
    return max(
        tiers,
        key=lambda tier: (
            tier.settings.traffic.requests_per_day > 0,
            tier.architecture.params_billion,
            -tier.settings.slo.tpot_ms,
        ),
    )


def unquantised(checkpoints: Sequence[Checkpoint]) -> frozenset[str]:
    """The 16-bit method, or for models released quantised their own."""
    if any(checkpoint.method == "fp16" for checkpoint in checkpoints):
        return frozenset({"fp16"})
    own = {checkpoint.method for checkpoint in checkpoints if checkpoint.repository == checkpoint.base_model_id}
    return frozenset(own)


def methods_of(checkpoints: Sequence[Checkpoint]) -> Mapping[str, tuple[Checkpoint, ...]]:
    """Checkpoints by method, all GGUF files under ``gguf``."""
    result: dict[str, tuple[Checkpoint, ...]] = {}
    for checkpoint in checkpoints:
        method = "gguf" if checkpoint.method.startswith("gguf") else checkpoint.method
        result[method] = (*result.get(method, ()), checkpoint)
    return result
