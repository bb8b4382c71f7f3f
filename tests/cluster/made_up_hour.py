"""An hour of a stack that nobody runs: every series that rules and dashboard read, as if Prometheus had scraped it.

Rates are steady, so that what a panel must show can be said beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from components.names import ROLE_LABEL, TIER_LABEL, router_service
from planning.plan import Plan, TierPlan

SECONDS: Final = 3600
SCRAPE_S: Final = 15

REQUESTS_PER_SECOND: Final = 2.0
REFUSED_PER_SECOND: Final = 0.05
INPUT_TOKENS, OUTPUT_TOKENS = 900, 150
HIT_SHARE: Final = 0.25
SLOW_SHARE: Final = 0.02
QUEUE, RUNNING, WAITING = 3, 8, 1


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a pool, and the tier whose pod is on it; None: it idles."""

    name: str
    pool: str
    instance_type: str
    capacity: str
    tier: str | None


def open_metrics(plan: Plan, nodes: list[Node], begins: int) -> str:
    """Give the hour as OpenMetrics text, one sample of each series every 15 s."""
    lines = [
        f"{series} {at_zero + per_second * offset:.6f} {begins + offset}"
        for series, (at_zero, per_second) in _series(plan, nodes).items()
        for offset in range(0, SECONDS + 1, SCRAPE_S)
    ]
    # Samples of a series, and series of a name, must stand together.
    return "\n".join(sorted(lines, key=lambda line: line.partition("{")[0])) + "\n# EOF\n"


Series = Mapping[str, tuple[float, float]]
"""By name and labels: value at the first moment, and what it grows by in a second."""


def _series(plan: Plan, nodes: list[Node]) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {
        'keda_build_info{namespace="keda"}': (1, 0),
        'prometheus_build_info{namespace="monitoring"}': (1, 0),
        'DCGM_FI_DEV_GPU_UTIL{modelName="NVIDIA L4",gpu="0"}': (60, 0),
    }
    found |= _model_router([tier.name for tier in plan.tiers])
    for tier in plan.tiers:
        found |= _router(tier)
        pods = [node for node in nodes if node.tier == tier.name]
        found |= _deployment(tier, len(pods))
        for number, node in enumerate(pods):
            found |= _pod(tier, node, f"{tier.name}-{number}", 1 / len(pods))
    for node in nodes:
        found |= _node(node)
    return found


def _router(tier: TierPlan) -> Series:
    labels = f'namespace="llm",service="{router_service(tier.name)}",tier="{tier.name}"'
    outcomes = {"Dispatched": REQUESTS_PER_SECOND, "RejectedCapacity": REFUSED_PER_SECOND}
    outcomes |= {"EvictedNoEndpoints": REFUSED_PER_SECOND, "EvictedContextCancelled": REFUSED_PER_SECOND}
    outcomes |= {"EvictedOther": REFUSED_PER_SECOND}
    return {
        f"up{{{labels}}}": (1, 0),
        f"llm_d_epp_flow_control_queue_size{{{labels}}}": (QUEUE, 0),
        f"llm_d_epp_ready_endpoints{{{labels}}}": (1, 0),
        f"llm_d_epp_flow_control_stale_endpoints{{{labels}}}": (0, 0),
        f"llm_d_epp_request_running{{{labels}}}": (RUNNING, 0),
        f"llm_d_epp_request_total{{{labels}}}": (0, REQUESTS_PER_SECOND),
        f'llm_d_epp_request_error_total{{{labels},error_code="Internal"}}': (0, REFUSED_PER_SECOND),
        **{
            f'llm_d_epp_flow_control_requests_total{{{labels},outcome="{outcome}"}}': (0, rate)
            for outcome, rate in outcomes.items()
        },
        **_histogram("llm_d_epp_request_ttft_seconds", f'{labels},streaming="true"', 0.5, REQUESTS_PER_SECOND),
    }


def _model_router(tiers: list[str]) -> Series:
    """One of the two Envoys that route by model, with the requests of all tiers."""
    labels = 'namespace="llm",service="front-envoy",pod="front-envoy-1"'
    of_requests = f'{labels},envoy_http_conn_manager_prefix="requests"'
    return {
        f"up{{{labels}}}": (1, 0),
        f"envoy_http_downstream_rq_active{{{of_requests}}}": (RUNNING, 0),
        f'envoy_http_downstream_rq_xx{{{of_requests},envoy_response_code_class="2"}}': (
            0,
            REQUESTS_PER_SECOND * len(tiers),
        ),
        f"envoy_overload_envoy_resource_monitors_fixed_heap_pressure{{{labels}}}": (40, 0),
        **{
            f'envoy_cluster_upstream_rq_total{{{labels},envoy_cluster_name="{tier}"}}': (0, REQUESTS_PER_SECOND)
            for tier in (*tiers, "@envoy-admin")
        },
    }


def _deployment(tier: TierPlan, replicas: int) -> Series:
    return {f'kube_deployment_spec_replicas{{namespace="llm",deployment="{tier.name}-engine"}}': (replicas, 0)}


def _pod(tier: TierPlan, node: Node, name: str, share: float) -> Series:
    identity = f'namespace="llm",pod="{name}"'
    tier_label, role_label = (label.translate(str.maketrans("./-", "___")) for label in (TIER_LABEL, ROLE_LABEL))
    requested = "kube_pod_container_resource_requests"
    requests = {"cpu": tier.resources.cpu_cores, "nvidia_com_gpu": tier.resources.gpus}
    of_engine = f'{identity},tier="{tier.name}"'
    engine = _vllm(of_engine, share) if tier.engine == "vllm" else _llama_cpp(of_engine, share)
    return {
        f'kube_pod_labels{{{identity},label_{tier_label}="{tier.name}",label_{role_label}=""}}': (1, 0),
        f'kube_pod_status_phase{{{identity},phase="Running"}}': (1, 0),
        **{
            f'{requested}{{{identity},container="engine",node="{node.name}",resource="{resource}"}}': (amount, 0)
            for resource, amount in requests.items()
            if amount
        },
        **engine,
    }


def _vllm(labels: str, share: float) -> Series:
    rate = REQUESTS_PER_SECOND * share
    return {
        f"vllm:num_requests_running{{{labels}}}": (RUNNING * share, 0),
        f"vllm:num_requests_waiting{{{labels}}}": (WAITING * share, 0),
        f"vllm:kv_cache_usage_perc{{{labels}}}": (0.5, 0),
        f"vllm:prefix_cache_queries_total{{{labels}}}": (0, rate * INPUT_TOKENS),
        f"vllm:prefix_cache_hits_total{{{labels}}}": (0, rate * INPUT_TOKENS * HIT_SHARE),
        f"vllm:num_preemptions_total{{{labels}}}": (0, 0),
        f"vllm:prompt_tokens_total{{{labels}}}": (0, rate * INPUT_TOKENS),
        f"vllm:generation_tokens_total{{{labels}}}": (0, rate * OUTPUT_TOKENS),
        **_histogram("vllm:time_to_first_token_seconds", labels, 0.25, rate),
        **_histogram("vllm:request_time_per_output_token_seconds", labels, 0.025, rate),
    }


def _llama_cpp(labels: str, share: float) -> Series:
    rate = REQUESTS_PER_SECOND * share
    return {
        f"llamacpp:requests_processing{{{labels}}}": (RUNNING * share, 0),
        f"llamacpp:requests_deferred{{{labels}}}": (WAITING * share, 0),
        f"llamacpp:prompt_tokens_total{{{labels}}}": (0, rate * INPUT_TOKENS),
        f"llamacpp:tokens_predicted_total{{{labels}}}": (0, rate * OUTPUT_TOKENS),
    }


def _histogram(name: str, labels: str, fast_s: float, rate: float) -> Series:
    """All but a few under ``fast_s``, and those beyond every bound; bounds as vLLM has them around usual targets."""
    bounds = sorted({fast_s, *(bound for bound in (0.05, 0.075, 0.1, 0.5, 1.0, 2.5, 5.0) if bound >= fast_s)})
    buckets = {str(bound): rate * (1 - SLOW_SHARE) for bound in bounds} | {"+Inf": rate}
    return {f'{name}_bucket{{{labels},le="{bound}"}}': (0, grows) for bound, grows in buckets.items()}


def _node(node: Node) -> Series:
    labels = {
        "node": node.name,
        "label_node_kubernetes_io_instance_type": node.instance_type,
        "label_karpenter_sh_capacity_type": node.capacity,
        "label_karpenter_sh_nodepool": node.pool,
    }
    text = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {f"kube_node_labels{{{text}}}": (1, 0)}


def names(plan: Plan, nodes: list[Node]) -> Iterator[str]:
    """Give the names of all series."""
    yield from (series.partition("{")[0] for series in _series(plan, nodes))
