"""PromQL over the series of a tier, for the autoscaler, the alerts and the dashboard alike. Pure.

Series of a router carry the labels ``namespace`` and ``service`` of its Service, series of an engine pod ``tier`` and,
when the tier is disaggregated, ``role``. The endpoint picker's own ``inference_pool`` is empty without an InferencePool
and its ``model_name`` is whatever a client wrote, so neither tells tiers apart.
"""

from __future__ import annotations

from components.names import MODEL_ROUTER, SERVING_NAMESPACE, router_service
from planning.cold_start import AUTOSCALER_LOOK_S, LOAD_WINDOW_S

QUEUED = "llm_d_epp_flow_control_queue_size"
"""Requests that the router holds. There is no series before the first request."""
RUNNING = "llm_d_epp_request_running"
"""Requests that the router has sent to a replica and that are not answered yet. None before the first one."""


def of_router(tier: str) -> str:
    """Label matcher of the tier's router."""
    return f'namespace="{SERVING_NAMESPACE}",service="{router_service(tier)}"'


OF_MODEL_ROUTER = f'namespace="{SERVING_NAMESPACE}",service="{MODEL_ROUTER}"'
"""Label matcher of the Envoys that route by model."""


def of_engine(tier: str, role: str | None = None) -> str:
    """Label matcher of the tier's engine pods, all or those of a role."""
    return f'namespace="{SERVING_NAMESPACE}",tier="{tier}"' + (f',role="{role}"' if role else "")


def zero_if_none(vector: str) -> str:
    """Give ``vector``, which has no labels, or 0 when it has no element."""
    return f"({vector} or vector(0))"


def while_router_is_seen(tier: str, vector: str) -> str:
    """Give ``vector`` only while Prometheus reaches the tier's router, and nothing otherwise.

    A router that is not scraped has no queue either: read as zero, its silence would put a serving tier to sleep.
    """
    return f"{vector} and (max(up{{{of_router(tier)}}}) == 1)"


def queued(tier: str) -> str:
    """Requests that the tier's router holds."""
    return while_router_is_seen(tier, zero_if_none(f"sum({QUEUED}{{{of_router(tier)}}})"))


def running(tier: str, *, with_queue: bool = False) -> str:
    """Requests on the tier's replicas, as its router counts them, and with ``with_queue`` those behind them.

    On average over the load window, but 0 as soon as nothing runs: the average must not keep an idle tier awake.
    """
    return while_router_is_seen(tier, _mean_load(tier, with_queue))


def running_beyond(tier: str, replicas: int, concurrency: float, *, with_queue: bool = False) -> str:
    """Give ``running`` beyond what ``replicas`` that are always there take at ``concurrency`` each."""
    beyond = f"clamp_min({_mean_load(tier, with_queue)} - {replicas} * {number(concurrency)}, 0)"
    return while_router_is_seen(tier, beyond)


def _mean_load(tier: str, with_queue: bool) -> str:
    load = _load(tier, with_queue)
    return f"{_mean(tier, load)} * ({load} > bool 0)"


def _mean(tier: str, vector: str) -> str:
    # The autoscaler looks every 15 s and keeps the most it saw until its window is over. A momentary count would keep
    # a replica more than the load takes: 4.5 replicas' worth of requests is now and then that of six. Of the window's
    # moments only those count in which the router was seen: an outage read as no load would take loaded replicas away.
    seen = while_router_is_seen(tier, f"({vector})")
    return f"avg_over_time(({seen})[{LOAD_WINDOW_S}s:{AUTOSCALER_LOOK_S}s])"


def _load(tier: str, with_queue: bool) -> str:
    on_replicas = f"sum({RUNNING}{{{of_router(tier)}}})"
    if not with_queue:
        return zero_if_none(on_replicas)
    # While nothing runs, the queue waits for a cold start: how much piled up then says nothing about the load.
    behind_them = f"(sum({QUEUED}{{{of_router(tier)}}}) and ({on_replicas} > 0))"
    return f"({zero_if_none(on_replicas)} + {zero_if_none(behind_them)})"


def is_running(tier: str) -> str:
    """1 while any request of the tier is on a replica, else 0."""
    return while_router_is_seen(tier, f"({zero_if_none(f'sum({RUNNING}{{{of_router(tier)}}})')} > bool 0)")


def engine_load(tier: str, role: str) -> str:
    """Requests that run or wait in vLLM's pods of a role on average over the load window, by their own count; 0 when
    there are no such pods.
    """
    pods = of_engine(tier, role)
    running_there = zero_if_none(f"sum(vllm:num_requests_running{{{pods}}})")
    waiting_there = zero_if_none(f"sum(vllm:num_requests_waiting{{{pods}}})")
    return _mean(tier, f"{running_there} + {waiting_there}")


def is_up(tier: str, role: str) -> str:
    """1 while any pod of a role serves, else 0."""
    return f"{zero_if_none(f'sum(up{{{of_engine(tier, role)}}})')} > bool 0"


def number(value: float) -> str:
    """Write a number without exponent and without needless zeros."""
    return f"{value:.6f}".rstrip("0").rstrip(".")
