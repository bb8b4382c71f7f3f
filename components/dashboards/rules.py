"""Recording and alerting rules of the stack, as groups of a PrometheusRule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from components import tier_queries
from components.dashboards.costs import FORECAST_SPOT, POOL_NODES, SPOT_SHARE, cost_rules
from components.dashboards.month import BUDGET, PROJECTED, month_rules, spend_rule
from components.dashboards.objectives import (
    ANSWERING,
    RULE_INTERVAL_S,
    budget_left_rule,
    objective_alerts,
    objective_rules,
)
from components.dashboards.rule import alert, constant, record
from components.dashboards.watching import watching_alerts
from components.names import KEDA_NAMESPACE, MODEL_ROUTER, SERVING_NAMESPACE
from planning.plan import Forecast, TierPlan
from planning.rates import stack_rates

TTFT: Final = "frugal_llm:ttft_seconds:p95_5m"
TTFT_TARGET: Final = "frugal_llm:ttft_target_seconds"
TPOT: Final = "frugal_llm:tpot_seconds:p95_5m"
TPOT_TARGET: Final = "frugal_llm:tpot_target_seconds"
QUEUE: Final = "frugal_llm:router_queue"
READY: Final = "frugal_llm:ready_replicas"

SPOT_MARGIN: Final = 0.2
"""Points of spot share below plan that are told: where on-demand is 2.5 times spot's price, nodes then cost 17 to 30 %
more."""
SPOT_NODE_HOURS: Final = 6
"""Node hours of a day below which its spot share says nothing: the node of a tier that woke twice is all or none."""

_SERVING: Final = f'namespace="{SERVING_NAMESPACE}"'


def rule_groups(
    tiers: Sequence[TierPlan], forecast: Forecast, retention_days: int, *, by_model: bool = False
) -> list[dict[str, Any]]:
    """Give all groups; what depends on a tier's plan once for each tier.

    ``by_model``: there are Envoys that route by model.
    Raises ``KeyError`` when the forecast is not of these tiers.
    """
    rates = stack_rates(tiers, forecast)
    # One that is paused at nothing is not expected to wake.
    awakened = [tier for tier in tiers if tier.replicas.paused != 0]
    month = [*month_rules(forecast, retention_days), budget_left_rule(retention_days)]
    money = [_spot_alert(), *([] if forecast.budget_usd is None else [_budget_alert(forecast.budget_usd)])]
    return [
        {"name": "frugal-llm.recording", "rules": [*_recorded(), *_targets(tiers)]},
        {"name": "frugal-llm.cost", "rules": [*cost_rules(tiers, rates), spend_rule(rates)]},
        # Sums over a month, which nothing needs every half minute.
        {"name": "frugal-llm.month", "interval": "2m", "rules": month},
        {"name": "frugal-llm.objectives", "rules": objective_rules(tiers)},
        {"name": "frugal-llm.latency", "rules": objective_alerts()},
        {"name": "frugal-llm.capacity", "rules": [*_capacity_alerts(), *map(_slow_wake, awakened)]},
        {"name": "frugal-llm.money", "rules": money},
        {"name": "frugal-llm.wake-path", "rules": [*_autoscaler_alerts(), *map(_router_unseen, tiers)]},
        *([{"name": "frugal-llm.by-model", "rules": _model_router_alerts()}] if by_model else []),
        {"name": "frugal-llm.prometheus", "rules": watching_alerts()},
    ]


def _recorded() -> list[dict[str, Any]]:
    return [
        record(TTFT, _p95("vllm:time_to_first_token_seconds")),
        record(TPOT, _p95("vllm:request_time_per_output_token_seconds")),
        record(QUEUE, f"sum by (tier) ({tier_queries.QUEUED}{{{_SERVING}}})"),
        record(READY, f"max by (tier) (llm_d_epp_ready_endpoints{{{_SERVING}}})"),
    ]


def _targets(tiers: Sequence[TierPlan]) -> list[dict[str, Any]]:
    """Record each tier's latency targets, in seconds."""
    return [
        constant(name, milliseconds / 1000, {"tier": tier.name})
        for tier in tiers
        for name, milliseconds in ((TTFT_TARGET, tier.ttft_target_ms), (TPOT_TARGET, tier.tpot_target_ms))
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
        alert(
            "RouterQueueGrows",
            f"{QUEUE} > 0 and deriv({QUEUE}[10m]) > 0 and on (tier) {READY} > 0",
            after="10m",
            severity="warning",
            summary="Requests pile up in front of tier {{ $labels.tier }}: {{ $value }} wait",
            description="They arrive faster than its replicas answer. Look whether the autoscaler is at its maximum or "
            "whether nodes are not to be had.",
        ),
        alert(
            "SchedulerStuck",
            stuck,
            after="5m",
            severity="critical",
            summary="{{ $labels.pod }} has waiting requests and generates nothing",
            description="vLLM can stop admitting requests while /health stays 200 (vllm-project/vllm#53130). Delete "
            "the pod.",
        ),
        alert(
            "RequestsRefused",
            refused,
            after="5m",
            severity="warning",
            summary="The router of tier {{ $labels.tier }} refuses requests: {{ $labels.outcome }}",
            description="RejectedCapacity: its queue is full. EvictedTTL: replicas are too slow. EvictedNoEndpoints: "
            "the tier did not wake in time.",
        ),
        alert(
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
    return alert(
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
        alert(
            "AutoscalerDown",
            f'absent(keda_build_info{{namespace="{KEDA_NAMESPACE}"}})',
            after="5m",
            severity="critical",
            summary="KEDA does not run: sleeping tiers do not wake, and no tier grows",
            description="Look at the pods of its namespace.",
        ),
        alert(
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
    return alert(
        "RouterNotScraped",
        _none_is_scraped(tier_queries.of_router(tier.name)),
        after="2m",
        severity="critical",
        summary=f"Prometheus does not see the router of tier {tier.name}",
        description="Without its metrics the tier neither wakes nor grows.",
        labels={"tier": tier.name},
    )


def _model_router_alerts() -> list[dict[str, Any]]:
    """One of the two that is away serves as before, and the chart's own alerts tell of it."""
    deployment = f'{_SERVING},deployment="{MODEL_ROUTER}"'
    return [
        alert(
            "ModelRouterNotReady",
            f"sum(kube_deployment_status_replicas_ready{{{deployment}}}) == 0",
            after="1m",
            severity="critical",
            summary="None of the Envoys of routing.byModelField is ready",
            description="Requests without the routing header reach no tier; those with it do. Look at the pods "
            "front-envoy in the namespace llm: memory, their nodes, the load balancer's readiness gate.",
        ),
        alert(
            "ModelRouterNotScraped",
            _none_is_scraped(tier_queries.OF_MODEL_ROUTER),
            after="2m",
            severity="critical",
            summary="Prometheus does not see the Envoys of routing.byModelField",
            description="Ready ones serve, and only their panels are empty. Look at the pods front-envoy in the "
            "namespace llm.",
        ),
    ]


def _none_is_scraped(matcher: str) -> str:
    return f"absent(up{{{matcher}}} == 1)"


def _spot_alert() -> dict[str, Any]:
    hours = f"sum by (pool) (sum_over_time({POOL_NODES}[1d])) * {RULE_INTERVAL_S} / 3600 >= {SPOT_NODE_HOURS}"
    return alert(
        "SpotShareBelowPlan",
        f"{SPOT_SHARE} < on (pool) {FORECAST_SPOT} - {SPOT_MARGIN} and on (pool) {hours}",
        after="1h",
        severity="warning",
        summary="Pool {{ $labels.pool }} ran {{ $value | humanizePercentage }} of the last day's node hours on spot",
        description=f"The forecast has over {100 * SPOT_MARGIN:.0f} points more: its nodes cost what on-demand costs. "
        "Spot of these types is scarce: allow more instance types or zones, or plan again with today's prices.",
    )


def _budget_alert(budget_usd: float) -> dict[str, Any]:
    return alert(
        "MonthAboveBudget",
        f"{PROJECTED} > on () {BUDGET}",
        after="1h",
        severity="warning",
        summary="The month ends at {{ $value | humanize }} USD at the rate of the last seven days",
        description=f"Budget: {budget_usd:,.0f} USD (budget.monthlyUsd), fixed costs included. "
        "`make actuals` says which tier is over its forecast; fewer replicas (maxReplicas) bound it.",
    )


def _p95(histogram: str) -> str:
    buckets = f"rate({histogram}_bucket{{{ANSWERING}}}[5m])"
    return f"histogram_quantile(0.95, sum by (tier, le) ({buckets}))"
