"""Every time-out on the way of a request and of a pod: from one planned cold start, and in the order that must hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planning.cold_start import LEAST_COOLDOWN_S, LONGEST_COOLDOWN_S, ColdStart
from planning.plan import ModelRouterPlan, ModelRouterTimeouts, TierPlan, Timeouts
from problems import NAMESPACE, Problem
from settings import StackSettings

#: Spot gives two minutes; the rest stays for Karpenter's own taint and eviction.
SPOT_GRACE_S = 110
PRE_STOP_S = 15
DRAIN_MARGIN_S = 5

#: Envoy's ext_proc time-out must outlast every hold, and the load balancer must outlast Envoy.
ENVOY_MARGIN_S = 100
ALB_MARGIN_S = 100
LEAST_HOLD_S = 300

#: Half of the load balancer's: Envoys that route by model stand between it and the tiers' Envoys.
MODEL_ROUTER_MARGIN_S = ALB_MARGIN_S // 2

#: Silence before a connection between two Envoys is probed, between probes, and how many fail before it ends.
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 10, 5, 3

#: Most that an Application Load Balancer takes (ELB user guide, "Connection idle timeout", read 2026-11).
LONGEST_ALB_IDLE_S = 4000

ROUTER_QUEUE_S = 60
POLLING_INTERVAL_S = 5


def timeouts(cold_start: ColdStart, cooldown_s: float, grace_s: int = SPOT_GRACE_S) -> Timeouts:
    """Every time-out of a tier, each longer than what it has to outlast; ``timeout_problems`` says where that fails.

    ``grace_s`` is the time to stop, all in all, seconds; of it all but preStop and a margin is for running answers.
    """
    total = math.ceil(cold_start.total_s)
    # A hold covers a start that takes twice the plan, in whole minutes.
    hold = max(LEAST_HOLD_S, math.ceil(2 * total / 60) * 60)
    envoy = hold + ENVOY_MARGIN_S
    return Timeouts(
        cold_start_s=total,
        startup_probe_s=math.ceil(3 * cold_start.engine_s / 10) * 10 + LEAST_HOLD_S,
        progress_deadline_s=hold + math.ceil(3 * cold_start.engine_s) + LEAST_HOLD_S,
        router_queue_s=ROUTER_QUEUE_S,
        router_hold_s=hold,
        envoy_message_s=envoy,
        alb_idle_s=envoy + ALB_MARGIN_S,
        client_s=envoy + ALB_MARGIN_S,
        polling_interval_s=POLLING_INTERVAL_S,
        cooldown_s=math.ceil(cooldown_s),
        pre_stop_s=PRE_STOP_S,
        shutdown_s=grace_s - PRE_STOP_S - DRAIN_MARGIN_S,
        grace_s=grace_s,
    )


def model_router_timeouts(tiers: Sequence[Timeouts]) -> ModelRouterTimeouts:
    """Time-outs of the Envoys that route by model before all ``tiers``.

    Their drain is for answers that an engine may still finish. It does not cover a hold (docs/changes.md says why).
    """
    return ModelRouterTimeouts(
        idle_s=max(times.envoy_message_s for times in tiers) + MODEL_ROUTER_MARGIN_S,
        # A connection stays with the pod that it was made to, and a router's pod that goes takes requests for preStop
        # more: before that every connection is one to its successor.
        connection_s=min(times.pre_stop_s for times in tiers) // 2,
        keepalive_idle_s=KEEPALIVE_IDLE_S,
        keepalive_interval_s=KEEPALIVE_INTERVAL_S,
        keepalive_probes=KEEPALIVE_PROBES,
        drain_s=max(times.pre_stop_s + times.shutdown_s for times in tiers),
        grace_s=max(times.grace_s for times in tiers),
    )


@dataclass(frozen=True, slots=True)
class Timeout:
    """One line of the table."""

    name: str
    seconds: int
    setting: str
    """The field that it becomes."""
    follows_from: str


def timeout_table(times: Timeouts) -> tuple[Timeout, ...]:
    """Every time-out of a tier, on the way from the client to the engine and then of the pod."""
    return (
        Timeout("client", times.client_s, "the client's own, at least", "ALB idle"),
        Timeout(
            "ALB idle",
            times.alb_idle_s,
            "idle_timeout.timeout_seconds, the longest of all tiers'",
            f"Envoy + {ALB_MARGIN_S} s",
        ),
        Timeout(
            "Envoy",
            times.envoy_message_s,
            "route idle_timeout, ext_proc message_timeout",
            f"router hold + {ENVOY_MARGIN_S} s",
        ),
        Timeout(
            "router hold",
            times.router_hold_s,
            "noEndpointRequestTTL",
            f"2 cold starts in whole minutes, at least {LEAST_HOLD_S} s",
        ),
        Timeout("router queue", times.router_queue_s, "defaultRequestTTL", "fixed"),
        Timeout("cold start", times.cold_start_s, "", "node + image + engine start with weights, as planned"),
        Timeout("polling", times.polling_interval_s, "pollingInterval", "fixed"),
        Timeout(
            "cooldown",
            times.cooldown_s,
            "cooldownPeriod of tiers that sleep, stabilizationWindowSeconds",
            "scaling.idleCooldownMinutes, else until staying up costs a start: 1.5 cold starts and "
            f"{LEAST_COOLDOWN_S} s at least, {LONGEST_COOLDOWN_S:,} s at most",
        ),
        Timeout("startup probe", times.startup_probe_s, "startupProbe", f"3 engine starts in tens + {LEAST_HOLD_S} s"),
        Timeout(
            "progress deadline",
            times.progress_deadline_s,
            "progressDeadlineSeconds",
            f"router hold + 3 engine starts + {LEAST_HOLD_S} s",
        ),
        Timeout("preStop", times.pre_stop_s, "lifecycle.preStop.sleep", "fixed: the router stops sending first"),
        Timeout("shutdown", times.shutdown_s, "--shutdown-timeout", f"grace - preStop - {DRAIN_MARGIN_S} s"),
        Timeout(
            "grace",
            times.grace_s,
            "terminationGracePeriodSeconds",
            "scaling.graceSeconds; its default is spot's two minutes less 10 s for Karpenter",
        ),
    )


def model_router_table(times: ModelRouterTimeouts) -> tuple[Timeout, ...]:
    """Every time-out of the Envoys that route by model."""
    return (
        Timeout("idle", times.idle_s, "route idle_timeout", f"the longest Envoy of a tier + {MODEL_ROUTER_MARGIN_S} s"),
        Timeout("connection", times.connection_s, "max_connection_duration", "half of the shortest preStop of a tier"),
        Timeout(
            "lost router",
            times.lost_router_s,
            f"tcp_keepalive: after {times.keepalive_idle_s} s, {times.keepalive_probes} probes "
            f"{times.keepalive_interval_s} s apart",
            "fixed",
        ),
        Timeout("drain", times.drain_s, "lifecycle.preStop.sleep", "the longest preStop + shutdown of a tier"),
        Timeout("grace", times.grace_s, "terminationGracePeriodSeconds", "the longest grace of a tier"),
    )


@dataclass(frozen=True, slots=True)
class Order:
    """Two time-outs of which one must outlast the other."""

    longer: str
    longer_s: int
    shorter: str
    shorter_s: int
    why: str
    """What breaks where they are the other way round."""
    equal_is_enough: bool = False

    @property
    def holds(self) -> bool:
        """The one does outlast the other."""
        return self.longer_s >= self.shorter_s if self.equal_is_enough else self.longer_s > self.shorter_s

    @property
    def sign(self) -> str:
        """What stands between the longer and the shorter."""
        return ">=" if self.equal_is_enough else ">"

    def __str__(self) -> str:
        """Give both names with their seconds."""
        return f"{self.longer} {self.longer_s:,} s {self.sign} {self.shorter} {self.shorter_s:,} s"


def timeout_order(times: Timeouts, *, spot: bool) -> tuple[Order, ...]:
    """What must outlast what; each is checked in every plan."""
    cold_start = ("cold start", times.cold_start_s)
    hold, alb = ("router hold", times.router_hold_s), ("ALB idle", times.alb_idle_s)
    envoy, probe = ("Envoy", times.envoy_message_s), ("startup probe", times.startup_probe_s)
    grace = ("grace", times.grace_s)
    order = (
        Order("client", times.client_s, *alb, "the client gives up what is still held for it", equal_is_enough=True),
        Order("AWS' most for ALB idle", LONGEST_ALB_IDLE_S, *alb, "AWS refuses it", equal_is_enough=True),
        Order(*alb, *envoy, "the load balancer cuts a held request with 504 before the router can answer"),
        Order(*envoy, *hold, "Envoy gives up before the router's own answer with Retry-After"),
        Order(*hold, *cold_start, "no request that wakes a sleeping tier is ever answered"),
        Order(*hold, "router queue", times.router_queue_s, "a request waits less for a start than for a busy replica"),
        Order(*hold, "polling", times.polling_interval_s, "a request is gone before the scaler has seen it"),
        Order(*probe, *cold_start, "the kubelet kills an engine that is still loading"),
        Order("progress deadline", times.progress_deadline_s, *probe, "a rollout fails while its pod may still start"),
        Order(
            "cooldown", times.cooldown_s, *cold_start, "a replica is stopped sooner than started", equal_is_enough=True
        ),
        Order(*grace, "preStop + shutdown", times.pre_stop_s + times.shutdown_s, "running generations are killed"),
    )
    within_spot = Order(
        "spot's notice less 10 s", SPOT_GRACE_S, *grace, "EC2 takes the node from under it", equal_is_enough=True
    )
    return (*order, within_spot) if spot else order


def model_router_order(times: ModelRouterTimeouts, tiers: Sequence[Timeouts]) -> tuple[Order, ...]:
    """What the Envoys that route by model must outlast, and what must outlast them, with ``tiers`` behind them."""
    idle, drain = ("idle", times.idle_s), ("drain", times.drain_s)
    return (
        Order(
            "ALB idle",
            max(tier.alb_idle_s for tier in tiers),
            *idle,
            "the load balancer cuts a request with 504 before they can answer",
        ),
        Order(
            *idle,
            "a tier's Envoy",
            max(tier.envoy_message_s for tier in tiers),
            "they give up before the tier's own answer with Retry-After",
        ),
        Order(*idle, "lost router", times.lost_router_s, "only silence ends the wait for a lost router"),
        Order(
            "a tier's preStop",
            min(tier.pre_stop_s for tier in tiers),
            "connection",
            times.connection_s,
            "a request goes to a router that has ended",
        ),
        Order(
            *drain,
            "a tier's preStop + shutdown",
            max(tier.pre_stop_s + tier.shutdown_s for tier in tiers),
            "answers that an engine may still finish are cut",
            equal_is_enough=True,
        ),
        Order("grace", times.grace_s, *drain, "they are killed before their drain is over"),
    )


def timeout_problems(settings: StackSettings, tiers: Mapping[int, TierPlan]) -> list[Problem]:
    """Every broken order of every tier, which are given by their positions in the settings, with what mends it."""
    broken = [
        (order, position, tier)
        for position, tier in tiers.items()
        for order in timeout_order(tier.timeouts, spot=settings.capacity.spot)
        if not order.holds
    ]
    # A setting of the whole stack is told of once, with what the tier that asks most of it needs.
    broken.sort(key=lambda one: one[0].shorter_s)
    problems = [_problem(settings, position, tier, order) for order, position, tier in broken]
    last = {problem.path: problem for problem in problems}
    return [problem for problem in problems if _OF_A_TIER in problem.path or last[problem.path] is problem]


_OF_A_TIER = ":tiers["


def model_router_problems(model_router: ModelRouterPlan, tiers: Sequence[TierPlan]) -> list[Problem]:
    """Every broken order of the Envoys that route by model, with what mends it."""
    return [
        Problem(
            f"{NAMESPACE}:routing.byModelField",
            True,
            f"{order} does not hold: {order.why}",
            "leave it out; clients then choose a tier by the header",
        )
        for order in model_router_order(model_router.timeouts, [tier.timeouts for tier in tiers])
        if not order.holds
    ]


def _problem(settings: StackSettings, position: int, tier: TierPlan, order: Order) -> Problem:
    broken = f"{order} does not hold for tier {tier.name}: {order.why}"
    if order.longer == "cooldown":
        path, value = f"{NAMESPACE}:scaling.idleCooldownMinutes", settings.scaling.idle_cooldown_minutes
        return Problem(path, value, broken, f"set {math.ceil(order.shorter_s / 60)} or more, or leave it out")
    if order.shorter == "grace":
        path, value = f"{NAMESPACE}:scaling.graceSeconds", settings.scaling.grace_seconds
        way_out = f"set {SPOT_GRACE_S} or less, or buy on-demand only (capacity.spot: false)"
        return Problem(path, value, broken, way_out)
    # Everything else follows from the cold start alone, and that from the weights and the KV store that is pinned.
    way_out = "choose a quantization or a model with smaller weights, which start sooner"
    if tier.disaggregation or (tier.vllm and tier.vllm.kv_offload_gib):
        way_out += f", or a smaller {'disaggregation.kvStoreGib' if tier.disaggregation else 'kvOffloadGib'}"
    return Problem(f"{NAMESPACE}:tiers[{position}].model", tier.model_id, broken, way_out)
