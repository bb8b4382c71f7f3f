"""From chosen fleets to the plans of tiers and of their NodePools: every number that a component needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from planning.bill import Levers, StackBills, TierBill, TierDemand
from planning.cold_start import vllm_cold_start
from planning.demands import quality_loss
from planning.disaggregation import NON_CACHED_TOKENS
from planning.fixed import router_plan
from planning.fleet import Fleet, Policy
from planning.kv_offload import kv_offload_gib, with_store
from planning.limits import ROLES, Limits, PoolKey, pool_key
from planning.measured import MeasuredReplica
from planning.plan import (
    Alternative,
    CapacityType,
    CheckpointChoice,
    CostItem,
    DisaggregationPlan,
    NodePoolPlan,
    PoolMember,
    ReplicaRange,
    RolePlan,
    RouterPlan,
    ServingPoint,
    TierPlan,
    Timeouts,
)
from planning.root_volume import root_volume
from planning.spot import spot_usd_per_hour
from planning.timeouts import timeouts
from planning.traffic import HOURS_PER_MONTH
from settings import StackSettings, TierSettings

#: Places besides the chosen one that are priced for each tier.
_RUNNER_UPS = 3

_NOT_CHEAPER = "not cheaper by a cent, or as cheap with more loss of quality"

_TOGETHER = "with prefill and decode together, which the settings rule out"


def tier_plans(
    settings: StackSettings, demands: Sequence[TierDemand], bill: Sequence[TierBill], limits: Limits
) -> tuple[tuple[TierPlan, ...], tuple[NodePoolPlan, ...]]:
    """Plans of all tiers, and their pools: tiers with the same list of types and GPUs share one, called after the
    first of them.
    """
    sharing: dict[PoolKey, list[tuple[TierDemand, TierBill]]] = {}
    for demand, part in zip(demands, bill, strict=True):
        sharing.setdefault(pool_key(part), []).append((demand, part))
    pools = {key: _node_pool(settings, members, limits) for key, members in sharing.items()}
    plans = (
        _tier_plan(settings, demand, part, limits, pools[pool_key(part)].name)
        for demand, part in zip(demands, bill, strict=True)
    )
    return tuple(plans), tuple(pools.values())


def tier_router(demand: TierDemand, part: TierBill) -> RouterPlan:
    """The router that a tier's busiest ten minutes need."""
    return router_plan(peak_requests_per_second(demand, part), part.fleet.option.load.concurrency)


def tier_timeouts(settings: StackSettings, demand: TierDemand, part: TierBill) -> Timeouts:
    """The time-outs of a tier, from the cold start of the replica that it got."""
    fleet, option = part.fleet, part.fleet.option
    store = kv_offload_gib(demand.settings, part.search.demand, option, fleet.pool)
    # One that nobody asked for is taken from what the chosen nodes leave, so the choice does not know of it.
    start = vllm_cold_start(option.checkpoint.weights_gb, store) if store else option.cold_start
    return timeouts(start, fleet.rule.cooldown_s, settings.scaling.grace_seconds)


def peak_requests_per_second(demand: TierDemand, part: TierBill) -> float:
    """Requests per second of a tier's busiest ten minutes."""
    return max(part.search.requests_per_hour) * demand.shape.bursts(0.5).peak / 3600


def instance_types(part: TierBill) -> tuple[str, ...]:
    """The types of a tier's pool, cheapest first."""
    return tuple(offering.instance.name for offering in part.fleet.pool)


def served_model_names(tier: TierSettings) -> tuple[str, ...]:
    """What clients may call a tier's model: the tier's name and the model's id."""
    return tier.name, tier.model


def _tier_plan(settings: StackSettings, demand: TierDemand, part: TierBill, limits: Limits, pool: str) -> TierPlan:
    tier, fleet, option = demand.settings, part.fleet, part.fleet.option
    store = kv_offload_gib(tier, part.search.demand, option, fleet.pool)
    replicas = _replica_range(demand, part, limits)
    loss = quality_loss(tier, demand.architecture.params_billion, option.checkpoint)
    return TierPlan(
        name=tier.name,
        model_id=tier.model,
        served_model_names=served_model_names(tier),
        engine="vllm" if option.gpu else "llama.cpp",
        checkpoint=CheckpointChoice(
            repository=option.checkpoint.repository,
            method=option.checkpoint.method,
            weights_gib=option.checkpoint.weights_gb * 1e9 / 2**30,
            gated=demand.architecture.gated and option.checkpoint.repository == tier.model,
            quality_loss_percent=loss.percent,
            quality_loss_source=loss.source,
        ),
        gpu=option.gpu.name if option.gpu else None,
        gpus_per_replica=option.gpus,
        instance_types=instance_types(part),
        offerings=tuple(
            PoolMember(
                offering.instance.name,
                offering.instance.gpu,
                spot_usd_per_hour(offering) if settings.capacity.spot else None,
                offering.on_demand_usd_per_hour,
            )
            for offering in fleet.pool
        ),
        vllm=replace(option.vllm, kv_offload_gib=store) if option.vllm else None,
        llama_cpp=option.llama_cpp,
        serving=_serving_point(part),
        resources=with_store(option.resources, store),
        replicas=replicas,
        timeouts=tier_timeouts(settings, demand, part),
        router=tier_router(demand, part),
        node_pool=pool,
        disaggregation=_disaggregation(demand, part, limits, pool),
        scale_to_zero=fleet.rule.may_sleep,
        ttft_target_ms=tier.slo.ttft_ms,
        tpot_target_ms=tier.slo.tpot_ms,
    )


def speed_source(measured: MeasuredReplica | None) -> str:
    """What a replica's speed rests on, in words."""
    if measured is None:
        return "projected by the speed formula"
    return f"projected from {measured.rows} measurements of this replica ({measured.source})"


def _serving_point(part: TierBill) -> ServingPoint:
    option, demand = part.fleet.option, part.search.demand
    load = option.load
    low, high = option.cost_band
    return ServingPoint(
        ttft_ms=load.ttft_p95_ms,
        tpot_ms=load.tpot_p95_ms,
        requests_per_second=load.requests_per_second,
        concurrency=load.concurrency,
        autoscaler_target=load.autoscaler_target,
        output_tokens_per_second=load.requests_per_second * demand.workload.output_tokens,
        source=f"{speed_source(option.measured)}; cost {100 * (low - 1):+.0f} % to {100 * (high - 1):+.0f} %",
    )


def _replica_range(demand: TierDemand, part: TierBill, limits: Limits, role: str = "") -> ReplicaRange:
    rule = part.fleet.rule
    roles = (role,) if role or not part.disaggregated else ROLES
    maximum = max(limits.of(part.name, one) for one in roles)
    return ReplicaRange(
        minimum=rule.minimum,
        maximum=maximum,
        on_demand_floor=0 if role else demand.settings.on_demand_floor,
        working_hours=min(rule.working_hours, maximum),
        paused=demand.settings.paused_replicas,
    )


def _node_pool(settings: StackSettings, members: Sequence[tuple[TierDemand, TierBill]], limits: Limits) -> NodePoolPlan:
    option, pool = members[0][1].fleet.option, members[0][1].fleet.pool
    nodes = limits.nodes(part.name for _, part in members)
    capacity: tuple[CapacityType, ...] = ("on-demand",)
    if settings.capacity.spot:
        floor = any(demand.settings.on_demand_floor for demand, _ in members)
        capacity = ("spot", "on-demand") if settings.capacity.on_demand_fallback or floor else ("spot",)
    return NodePoolPlan(
        name=members[0][1].name,
        instance_types=instance_types(members[0][1]),
        capacity_types=capacity,
        cpu_architectures=tuple(sorted({offering.instance.arch for offering in pool})),
        gpu_count=option.gpus,
        gpu_limit=nodes * option.gpus,
        cpu_limit=nodes * max(offering.instance.vcpu for offering in pool),
        consolidate_after_s=round(settings.scaling.node_idle_minutes * 60),
        root_volume_gib=root_volume(pool).gib,
        root_volume_mib_per_second=root_volume(pool).mib_per_second,
        local_nvme=all(offering.instance.local_nvme_gb > 0 for offering in pool),
    )


def _disaggregation(demand: TierDemand, part: TierBill, limits: Limits, pool: str) -> DisaggregationPlan | None:
    apart, engine = part.disaggregated, part.fleet.option.vllm
    if apart is None or engine is None:
        return None
    wanted = demand.settings.disaggregation
    loads = apart.loads
    together = part.together_usd
    pays = apart.fleet.usd < together
    verdict = f"prefill and decode apart cost {apart.fleet.usd:,.0f} USD a month, together {together:,.0f}: " + (
        "it pays" if pays else "it does not pay at this load"
    )

    def role(name: Literal["prefill", "decode"], concurrency: float) -> RolePlan:
        return RolePlan(
            role=name,
            limits=engine,
            replicas=_replica_range(demand, part, limits, name),
            concurrency_target=concurrency,
            node_pool=pool,
        )

    return DisaggregationPlan(
        prefill=role("prefill", loads.prefill_concurrency),
        decode=role("decode", loads.decode.autoscaler_target),
        kv_store_gib=wanted.kv_store_gib,
        shared_store=wanted.shared_store,
        shared_claim=wanted.shared_claim,
        efa_interfaces=min(offering.instance.efa_interfaces for offering in part.fleet.pool) if wanted.efa else 0,
        non_cached_tokens=NON_CACHED_TOKENS,
        pays=pays,
        verdict=verdict if pays or not wanted.insist else f"{verdict}, and is on because the settings insist",
    )


def compute_items(bill: Sequence[TierBill]) -> tuple[CostItem, ...]:
    """The lines of the bill that belong to tiers. They add up to the tiers' expected months."""
    items: list[CostItem] = []
    for part in bill:
        fleet, price, volume = part.paid, part.paid.price, root_volume(part.paid.pool)
        mix = ", ".join(
            f"{100 * share.share:.0f} % {share.instance_type} {share.capacity_type} at {share.usd_per_hour:.3f}"
            for share in price.mix
            if share.share >= 0.005
        )
        dates = [offering.as_of for offering in fleet.pool if offering.as_of]
        dated = f"oldest price {min(dates).isoformat()}" if dates else "undated"
        nodes = f"{fleet.month.node_hours - fleet.floor_hours:,.0f} hours at {price.usd_per_hour:.3f}: {mix} ({dated})"
        floor = f"{fleet.floor_hours:,.0f} hours at {price.on_demand_usd_per_hour:.3f} ({dated})"
        lines = (
            ("nodes", fleet.nodes_usd, nodes),
            ("on-demand floor", fleet.floor_usd, floor),
            (
                "restarts after interruptions",
                fleet.restarts_usd,
                f"{1000 * price.interruptions_per_hour:.2f} interruptions in 1,000 node hours",
            ),
            ("node disks", fleet.disks_usd, f"{volume.gib} GiB gp3 at {volume.mib_per_second} MiB/s a node"),
            ("images through NAT", fleet.images_usd, f"{fleet.month.starts:,.1f} starts and the interruptions"),
        )
        items += [
            CostItem(f"{part.name}: {name}", "compute", part.name, usd, basis) for name, usd, basis in lines if usd > 0
        ]
    return tuple(items)


def alternatives(bills: StackBills, bill: Sequence[TierBill], demands: Sequence[TierDemand]) -> tuple[Alternative, ...]:
    """For every tier what was not chosen, each with its reason: the next cheapest, a mix of several kinds where it
    would be cheaper, and what was cheap enough to be looked at and does not serve.
    """
    policy = bills.policy(Levers())
    result: list[Alternative] = []
    for part, demand in zip(bill, demands, strict=True):
        result += _mix(part, demand, policy)
        result += _runner_ups(part, demand, policy)
        result += _misses(part, demand)
    return tuple(result)


def _mix(part: TierBill, demand: TierDemand, policy: Policy) -> Iterator[Alternative]:
    held_back = part.fleet.month.needed_replicas > part.fleet.month.peak_replicas
    mixed = None if part.disaggregated or held_back else part.search.mix(part.fleet, policy, demand.methods)
    if mixed:
        saved = part.fleet.usd - mixed.usd
        reason = (
            f"mixing kinds of replicas could save up to ${saved:,.0f} ({100 * saved / part.fleet.usd:.0f} %), if they "
            "slept and woke at no cost; a tier runs one kind of pod"
        )
        yield Alternative(part.name, str(mixed.mix), mixed.usd, reason)


def _runner_ups(part: TierBill, demand: TierDemand, policy: Policy) -> Iterator[Alternative]:
    """The next cheapest, one for every place; and what costs about as much where the choice runs."""
    chosen = part.fleet
    same: list[str] = []
    for fleet in part.search.rivals(chosen, policy, demand.methods, _RUNNER_UPS):
        method = fleet.option.checkpoint.method
        if fleet.option.place != chosen.option.place:
            yield Alternative(part.name, fleet.option.label, fleet.usd, why_not(fleet, part))
        elif method != chosen.option.checkpoint.method:
            same.append(method)
    if same:
        yield Alternative(part.name, f"{', '.join(same)} on the same nodes", chosen.usd, _NOT_CHEAPER)


def why_not(fleet: Fleet, part: TierBill) -> str:
    """Why a tier runs on its own fleet and not on this one."""
    if part.disaggregated:
        return _TOGETHER
    chosen = part.fleet
    more = fleet.usd - chosen.usd
    if round(more, 2) <= 0:
        return _NOT_CHEAPER
    percent = f" ({100 * more / chosen.usd:+.0f} %)" if chosen.usd else ""
    hours, price = fleet.month.node_hours / HOURS_PER_MONTH, fleet.price.usd_per_hour
    own_hours = chosen.month.node_hours / HOURS_PER_MONTH
    dearer = f"${more:,.0f}" if more >= 1 else f"${more:,.2f}"
    return f"{dearer} dearer{percent}: {hours:.1f} nodes at {price:.2f}, not {own_hours:.1f} at " + (
        f"{chosen.price.usd_per_hour:.2f}"
    )


def _misses(part: TierBill, demand: TierDemand) -> Iterator[Alternative]:
    """What does not serve, nearest first: too slow, then what does not fit or run."""
    misses = [miss for miss in part.search.survey.looked_at_misses if miss.label.split(" ")[0] in demand.methods]
    misses.sort(key=lambda miss: (miss.ttft_ms is None, (miss.ttft_ms or 0) + (miss.tpot_ms or 0)))
    return (Alternative(part.name, miss.label, None, miss.reason) for miss in misses)
