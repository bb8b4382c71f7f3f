"""Recording and alerting rules of the stack, as groups of a PrometheusRule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from components import tier_queries
from components.dashboards.costs import cost_rules
from components.names import KEDA_NAMESPACE, SERVING_NAMESPACE
from planning.plan import TierPlan

TTFT: Final = "frugal_llm:ttft_seconds:p95_5m"
TTFT_SLOW: Final = "frugal_llm:ttft_seconds:p95_1h"
TTFT_TARGET: Final = "frugal_llm:ttft_target_seconds"
TPOT: Final = "frugal_llm:tpot_seconds:p95_5m"
TPOT_SLOW: Final = "frugal_llm:tpot_seconds:p95_1h"
TPOT_TARGET: Final = "frugal_llm:tpot_target_seconds"
QUEUE: Final = "frugal_llm:router_queue"
READY: Final = "frugal_llm:ready_replicas"

_SERVING: Final = f'namespace="{SERVING_NAMESPACE}"'
_ANSWERING: Final = f'{_SERVING},role!="prefill"'
"""A prefill pod answers the router's sidecar, not a client: its times are a part of a decode pod's."""


def rule_groups(tiers: Sequence[TierPlan]) -> list[dict[str, Any]]:
    """Give all groups; what depends on a tier's plan once for each tier."""
    return [
        {"name": "frugal-llm.recording", "rules": [*_recorded(), *_targets(tiers)]},
        {"name": "frugal-llm.cost", "rules": cost_rules(tiers)},
        {"name": "frugal-llm.latency", "rules": _latency_alerts()},
        {"name": "frugal-llm.capacity", "rules": [*_capacity_alerts(), *map(_slow_wake, tiers)]},
        {"name": "frugal-llm.wake-path", "rules": [*_autoscaler_alerts(), *map(_router_unseen, tiers)]},
    ]


def _recorded() -> list[dict[str, Any]]:
    return [
        _record(TTFT, _p95("vllm:time_to_first_token_seconds", "5m")),
        _record(TTFT_SLOW, _p95("vllm:time_to_first_token_seconds", "1h")),
        _record(TPOT, _p95("vllm:request_time_per_output_token_seconds", "5m")),
        _record(TPOT_SLOW, _p95("vllm:request_time_per_output_token_seconds", "1h")),
        _record(QUEUE, f"sum by (tier) ({tier_queries.QUEUED}{{{_SERVING}}})"),
        _record(READY, f"sum by (tier) (llm_d_epp_ready_endpoints{{{_SERVING}}})"),
    ]


def _targets(tiers: Sequence[TierPlan]) -> list[dict[str, Any]]:
    """Record each tier's latency targets, so that alerts and dashboards compare series with series."""
    rules: list[dict[str, Any]] = []
    for tier in tiers:
        for name, milliseconds in ((TTFT_TARGET, tier.ttft_target_ms), (TPOT_TARGET, tier.tpot_target_ms)):
            rules.append(
                {**_record(name, f"vector({tier_queries.number(milliseconds)} / 1000)"), "labels": {"tier": tier.name}}
            )
    return rules


def _latency_alerts() -> list[dict[str, Any]]:
    """Alert when the 95th percentile misses its target now and over the last hour: a trend, not a blip."""
    return [
        _alert(
            "TimeToFirstTokenAboveTarget",
            _above_target(TTFT, TTFT_SLOW, TTFT_TARGET),
            after="5m",
            severity="warning",
            summary="Tier {{ $labels.tier }} takes {{ $value | humanizeDuration }} to the first token (p95)",
            description="Above its target for an hour. More replicas help if the queue is long: raise maxReplicas, or "
            "plan again with the traffic that arrives.",
        ),
        _alert(
            "TimePerOutputTokenAboveTarget",
            _above_target(TPOT, TPOT_SLOW, TPOT_TARGET),
            after="5m",
            severity="warning",
            summary="Tier {{ $labels.tier }} takes {{ $value | humanizeDuration }} per output token (p95)",
            description="Above its target for an hour: too many requests run at once on a replica, or its GPU is "
            "slower than planned.",
        ),
    ]


def _capacity_alerts() -> list[dict[str, Any]]:
    stuck = (
        f"sum by (tier, pod) (vllm:num_requests_waiting{{{_SERVING}}}) > 0 and on (tier, pod) "
        f"sum by (tier, pod) (rate(vllm:generation_tokens_total{{{_SERVING}}}[5m])) == 0"
    )
    refused = (
        "sum by (tier, outcome) (rate(llm_d_epp_flow_control_requests_total"
        f'{{{_SERVING},outcome=~"Rejected.*|EvictedTTL|EvictedNoEndpoints|EvictedOther"}}[5m])) > 0'
    )
    return [
        _alert(
            "RouterQueueGrows",
            f"{QUEUE} > 0 and deriv({QUEUE}[10m]) > 0 and on (tier) {READY} > 0",
            after="10m",
            severity="warning",
            summary="Requests pile up in front of tier {{ $labels.tier }}: {{ $value }} wait",
            description="They arrive faster than its replicas answer. Look whether the autoscaler is at its maximum or "
            "whether nodes are not to be had.",
        ),
        _alert(
            "SchedulerStuck",
            stuck,
            after="5m",
            severity="critical",
            summary="{{ $labels.pod }} has waiting requests and generates nothing",
            description="vLLM can stop admitting requests while /health stays 200 (vllm-project/vllm#53130). Delete "
            "the pod.",
        ),
        _alert(
            "RequestsRefused",
            refused,
            after="5m",
            severity="warning",
            summary="The router of tier {{ $labels.tier }} refuses requests: {{ $labels.outcome }}",
            description="RejectedCapacity: its queue is full. EvictedTTL: replicas are too slow. EvictedNoEndpoints: "
            "the tier did not wake in time.",
        ),
        _alert(
            "ReplicaMetricsStale",
            f"max by (tier) (llm_d_epp_flow_control_stale_endpoints{{{_SERVING}}}) > 0",
            after="5m",
            severity="warning",
            summary="The router of tier {{ $labels.tier }} cannot read the metrics of a replica",
            description="It counts such a replica as full. When all are stale it sends nothing at all.",
        ),
    ]


def _slow_wake(tier: TierPlan) -> dict[str, Any]:
    of_tier = f'tier="{tier.name}"'
    return _alert(
        "WakeTakesLongerThanPlanned",
        f"{QUEUE}{{{of_tier}}} > 0 and on (tier) {READY}{{{of_tier}}} == 0",
        after=f"{tier.timeouts.cold_start_s}s",
        severity="critical",
        summary="Tier {{ $labels.tier }} does not wake: {{ $value }} requests are held and no replica is ready",
        description=f"Planned: {tier.timeouts.cold_start_s} s. Held requests fail after "
        f"{tier.timeouts.router_hold_s} s. Look at the pods' events: no capacity, image, weights.",
        labels={"tier": tier.name},
    )


def _autoscaler_alerts() -> list[dict[str, Any]]:
    return [
        _alert(
            "AutoscalerDown",
            f'absent(keda_build_info{{namespace="{KEDA_NAMESPACE}"}})',
            after="5m",
            severity="critical",
            summary="KEDA does not run: sleeping tiers do not wake, and no tier grows",
            description="Look at the pods of its namespace.",
        ),
        _alert(
            "AutoscalerSeesErrors",
            "sum by (scaledObject) (rate(keda_scaler_detail_errors_total[5m])) > 0",
            after="5m",
            severity="critical",
            summary="KEDA cannot read what scales {{ $labels.scaledObject }}",
            description="Its replicas stay as they are: asleep, when it slept. Look at Prometheus and at the router's "
            "metrics.",
        ),
    ]


def _router_unseen(tier: TierPlan) -> dict[str, Any]:
    return _alert(
        "RouterNotScraped",
        f"absent(up{{{tier_queries.of_router(tier.name)}}} == 1)",
        after="2m",
        severity="critical",
        summary=f"Prometheus does not see the router of tier {tier.name}",
        description="Without its metrics the tier neither wakes nor grows.",
        labels={"tier": tier.name},
    )


def _p95(histogram: str, window: str) -> str:
    buckets = f"rate({histogram}_bucket{{{_ANSWERING}}}[{window}])"
    return f"histogram_quantile(0.95, sum by (tier, le) ({buckets}))"


def _above_target(now: str, slow: str, target: str) -> str:
    return f"{now} > on (tier) {target} and on (tier) ({slow} > on (tier) {target})"


def _record(name: str, expression: str) -> dict[str, Any]:
    return {"record": name, "expr": expression}


def _alert(
    name: str,
    expression: str,
    *,
    after: str,
    severity: str,
    summary: str,
    description: str,
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expression,
        "for": after,
        "labels": {"severity": severity, **(labels or {})},
        "annotations": {"summary": summary, "description": description},
    }
