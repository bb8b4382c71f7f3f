"""The Grafana dashboard of the stack: what is asked, how fast it is answered, by how many replicas, for how much."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from components import tier_queries
from components.dashboards import objectives
from components.dashboards.costs import (
    FORECAST_PER_MILLION,
    FORECAST_SPOT,
    FORECAST_USD,
    PER_MILLION,
    PER_MILLION_WINDOWS,
    POOL_USD,
    SPOT_SHARE,
    TIER_USD,
)
from components.dashboards.month import BUDGET, FORECAST_MONTH, PROJECTED, SO_FAR
from components.dashboards.objectives import BUDGET_LEFT, SLOW_FROM, SLOW_SHARE, Objective
from components.dashboards.rules import QUEUE, READY, TPOT, TPOT_TARGET, TTFT, TTFT_TARGET
from components.names import SERVING_NAMESPACE

DASHBOARD_FILE: Final = "frugal-llm-overview.json"

_DATA_SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
"""Uid of the data source that the chart makes."""
_TIERS: Final = f'namespace="{SERVING_NAMESPACE}",tier=~"$tier"'
_PANEL_HEIGHT: Final = 8
_COLUMNS: Final = 3
_PANEL_WIDTH: Final = 24 // _COLUMNS
"""Grafana's grid has 24 columns."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query and what its series are called."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph over time."""

    title: str
    unit: str
    """Grafana's name of the unit."""
    queries: tuple[Query, ...]
    description: str = ""
    least: float | None = 0
    """Where the axis begins; None: where the figures do."""


def dashboard(*, by_model: bool = False) -> str:
    """Give the dashboard as JSON; ``by_model``: there are Envoys that route by model."""
    panels = (*PANELS, *MODEL_ROUTER_PANELS) if by_model else PANELS
    document = {
        "uid": "frugal-llm-overview",
        "title": "frugal-llm: tiers",
        "tags": ["frugal-llm"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_tier_variable()]},
        "panels": [_drawn(panel, number) for number, panel in enumerate(panels)],
    }
    return json.dumps(document, indent=1)


def _by_tier(metric: str, window: str = "5m") -> str:
    return f"sum by (tier) (rate({metric}{{{_TIERS}}}[{window}]))"


def _recorded(name: str) -> str:
    return f'{name}{{tier=~"$tier"}}'


def _objective(name: str, objective: Objective) -> str:
    return f'{name}{{tier=~"$tier",objective="{objective.name}"}}'


def _bound(bound: str) -> str:
    return f'{FORECAST_USD}{{tier=~"$tier",bound="{bound}"}}'


_REFUSALS: Final = {
    "429": "EvictedTTL|RejectedCapacity",
    "503": "EvictedNoEndpoints|RejectedNoEndpoints",
    "left": "EvictedContextCancelled",
    "other": "EvictedOther|RejectedOther",
}
"""What a client gets for each outcome of the router's queue (docs/clients.md)."""


def _refused(outcomes: str) -> str:
    metric = "llm_d_epp_flow_control_requests_total"
    return f'sum by (tier) (rate({metric}{{{_TIERS},outcome=~"{outcomes}"}}[5m]))'


PANELS: Final = (
    Panel(
        "Requests",
        "reqps",
        (Query(_by_tier("llm_d_epp_request_total"), "{{tier}}"),),
        "Sent to a replica, per second.",
    ),
    Panel(
        "Refused and failed, by status",
        "reqps",
        (
            *(Query(_refused(outcomes), f"{{{{tier}}}} {status}") for status, outcomes in _REFUSALS.items()),
            Query(
                f"sum by (tier, error_code) (rate(llm_d_epp_request_error_total{{{_TIERS}}}[5m]))",
                "{{tier}} {{error_code}}",
            ),
        ),
        "Per second. 429: full for a minute, or the queue is. 503: no replica came up in time, or too many waited for "
        "one. Left: the client went away while it waited. The rest are errors by the router's own names.",
    ),
    Panel(
        "Held in the router",
        "short",
        (Query(_recorded(QUEUE), "{{tier}}"),),
        "Requests that wait for a replica: the first of them wakes a sleeping tier.",
    ),
    Panel(
        "Time to first token, engine",
        "s",
        (
            Query(_recorded(TTFT), "{{tier}} p95"),
            Query(_recorded(TTFT_TARGET), "{{tier}} target"),
            Query(_objective(SLOW_FROM, objectives.TTFT), "{{tier}} counts as slow"),
        ),
        "From a replica's receipt of a request. Slow is counted from the first bound of vLLM's histogram at or above "
        "the target. Tiers of llama.cpp do not report it.",
    ),
    Panel(
        "Time per output token, engine",
        "s",
        (
            Query(_recorded(TPOT), "{{tier}} p95"),
            Query(_recorded(TPOT_TARGET), "{{tier}} target"),
            Query(_objective(SLOW_FROM, objectives.TPOT), "{{tier}} counts as slow"),
        ),
        "Time between the tokens of an answer, its mean over the answer.",
    ),
    Panel(
        "Slow requests",
        "percentunit",
        (
            Query(_recorded(f"{SLOW_SHARE}:5m"), "{{tier}} {{objective}} 5 min"),
            Query(_recorded(f"{SLOW_SHARE}:6h"), "{{tier}} {{objective}} 6 h"),
        ),
        "Share over the bound. 5 % may be; alerts come at 72 % (1 h), 30 % (6 h) and 5 % (3 days).",
    ),
    Panel(
        "Slow requests left",
        "percentunit",
        (Query(_recorded(BUDGET_LEFT), "{{tier}} {{objective}}"),),
        "Of the 5 % of the last 30 days (or of what Prometheus keeps) that may be slow. Below 0 there were too many.",
        least=None,
    ),
    Panel(
        "Time to first token, router",
        "s",
        (
            Query(
                "histogram_quantile(0.95, sum by (tier, le) "
                f'(rate(llm_d_epp_request_ttft_seconds_bucket{{{_TIERS},streaming="true"}}[5m])))',
                "{{tier}} p95",
            ),
        ),
        "What a client of a stream sees, waiting for a cold start included.",
    ),
    Panel(
        "Replicas",
        "short",
        (
            Query(_recorded(READY), "{{tier}} ready"),
            Query(f'kube_deployment_spec_replicas{{namespace="{SERVING_NAMESPACE}"}}', "{{deployment}} wanted"),
        ),
        "Ready ones as the router sees them, and what the autoscaler asks for.",
    ),
    Panel(
        "Running",
        "short",
        (
            Query(f"sum by (tier) ({tier_queries.RUNNING}{{{_TIERS}}})", "{{tier}} by the router"),
            Query(f"sum by (tier) (vllm:num_requests_running{{{_TIERS}}})", "{{tier}} in vLLM"),
            Query(f"sum by (tier) (llamacpp:requests_processing{{{_TIERS}}})", "{{tier}} in llama.cpp"),
        ),
        "Requests that replicas work on. The autoscaler follows the router's count.",
    ),
    Panel(
        "Waiting in replicas",
        "short",
        (
            Query(f"sum by (tier) (vllm:num_requests_waiting{{{_TIERS}}})", "{{tier}} in vLLM"),
            Query(f"sum by (tier) (llamacpp:requests_deferred{{{_TIERS}}})", "{{tier}} in llama.cpp"),
        ),
        "A long queue here and none in the router: a replica takes more than it answers in time.",
    ),
    Panel(
        "Output tokens",
        "short",
        (
            Query(_by_tier("vllm:generation_tokens_total"), "{{tier}} vLLM"),
            Query(_by_tier("llamacpp:tokens_predicted_total"), "{{tier}} llama.cpp"),
        ),
        "Per second.",
    ),
    Panel(
        "Input tokens",
        "short",
        (
            Query(_by_tier("vllm:prompt_tokens_total"), "{{tier}} vLLM"),
            Query(_by_tier("llamacpp:prompt_tokens_total"), "{{tier}} llama.cpp"),
        ),
        "Per second.",
    ),
    Panel(
        "Prefix cache hits",
        "percentunit",
        (
            Query(
                _by_tier("vllm:prefix_cache_hits_total", "15m")
                + " / "
                + _by_tier("vllm:prefix_cache_queries_total", "15m"),
                "{{tier}}",
            ),
        ),
        "Share of input tokens that were not computed again: what prefixHitRate in the configuration should say.",
    ),
    Panel(
        "KV cache in use",
        "percentunit",
        (Query(f"max by (tier) (vllm:kv_cache_usage_perc{{{_TIERS}}})", "{{tier}} fullest replica"),),
        "At 100 % requests wait or are thrown out: see preemptions.",
    ),
    Panel(
        "Preemptions",
        "short",
        (Query(_by_tier("vllm:num_preemptions_total"), "{{tier}}"),),
        "Requests thrown out of a full KV cache and computed again, per second. Should be none.",
    ),
    Panel(
        "Cost by tier",
        "currencyUSD",
        (
            Query(f"sum by (tier) ({_recorded(TIER_USD)})", "{{tier}}"),
            Query(_bound("expected"), "{{tier}} forecast"),
        ),
        "USD an hour of each tier's nodes, at the plan's prices, beside the mean hour of its forecast. A node is split "
        "by what the pods on it request, an empty one as the rest of its pool.",
    ),
    Panel(
        "Cost by tier, mean of a day",
        "currencyUSD",
        (
            Query(f"sum by (tier) (avg_over_time({_recorded(TIER_USD)}[1d]))", "{{tier}}"),
            *(Query(_bound(bound), f"{{{{tier}}}} forecast, {bound}") for bound in ("low", "expected", "high")),
        ),
        "Forecast against actual: USD an hour over the last 24 hours, which have their night as the forecast has.",
    ),
    Panel(
        "Cost of a million tokens",
        "currencyUSD",
        (
            *(
                Query(_recorded(f"{PER_MILLION}:{window}"), f"{{{{tier}}}} last {window}")
                for window in PER_MILLION_WINDOWS
            ),
            Query(_recorded(FORECAST_PER_MILLION), "{{tier}} forecast"),
        ),
        "USD of nodes for a million input and output tokens. llama.cpp does not count input tokens that it had cached.",
    ),
    Panel(
        "Cost by pool",
        "currencyUSD",
        (Query(POOL_USD, "{{pool}}"),),
        "USD an hour of each pool's nodes, at the plan's prices. Whatever tier is chosen: tiers may share a pool.",
    ),
    Panel(
        "Month",
        "currencyUSD",
        (
            Query(SO_FAR, "so far"),
            Query(PROJECTED, "at its end"),
            Query(BUDGET, "budget"),
            Query(FORECAST_MONTH, "forecast, {{bound}}"),
        ),
        "Of the whole stack: nodes as they are; fixed costs, disks and images as planned. Its end: the rest at the "
        "rate of the last seven days. The forecast is of 730 hours.",
    ),
    Panel(
        "Spot",
        "percentunit",
        (
            Query(SPOT_SHARE, "{{pool}} last day"),
            Query(FORECAST_SPOT, "{{pool}} forecast"),
        ),
        "Share of spot in a pool's node hours.",
    ),
    Panel(
        "GPU",
        "percent",
        (Query("avg by (modelName) (DCGM_FI_DEV_GPU_UTIL)", "{{modelName}} busy"),),
        "Share of time in which any kernel ran: high also when the GPU waits for its memory.",
    ),
)

_BY_MODEL: Final = tier_queries.OF_MODEL_ROUTER
_TO_TIERS: Final = 'envoy_cluster_name=~"$tier",envoy_cluster_name!~"@.*"'
"""The page of the metrics itself is a cluster too, and "all tiers" is any name."""
_OF_REQUESTS: Final = f'{_BY_MODEL},envoy_http_conn_manager_prefix="requests"'

MODEL_ROUTER_PANELS: Final = (
    Panel(
        "By model field: requests",
        "reqps",
        (
            Query(
                f"sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_rq_total{{{_BY_MODEL},{_TO_TIERS}}}[5m]))",
                "{{envoy_cluster_name}}",
            ),
            Query(
                f"sum by (envoy_response_code_class) (rate(envoy_http_downstream_rq_xx{{{_OF_REQUESTS}}}[5m]))",
                "answered {{envoy_response_code_class}}xx",
            ),
        ),
        "Sent to a tier's router by the two Envoys of routing.byModelField, and what they answered, by status: 4xx "
        "with their own 404 and 413, 5xx with their own 503.",
    ),
    Panel(
        "By model field: open",
        "short",
        (Query(f"sum by (pod) (envoy_http_downstream_rq_active{{{_OF_REQUESTS}}})", "{{pod}}"),),
        "Requests whose body comes, that a tier's router holds, or that are being answered. Those of a pod that is "
        "replaced have its drain to end.",
    ),
    Panel(
        "By model field: memory",
        "percent",
        (
            Query(
                f"max by (pod) (envoy_overload_envoy_resource_monitors_fixed_heap_pressure{{{_BY_MODEL}}})", "{{pod}}"
            ),
        ),
        "Of what Envoy may take for bodies. From 95 % it answers 503 until some are gone.",
    ),
)
"""Only where ``routing.byModelField`` is on."""


def _tier_variable() -> dict[str, Any]:
    query = f"label_values({TTFT_TARGET}, tier)"
    return {
        "name": "tier",
        "label": "Tier",
        "type": "query",
        "datasource": _DATA_SOURCE,
        "query": {"query": query, "refId": "tiers"},
        "definition": query,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
        "sort": 1,
    }


def _drawn(panel: Panel, number: int) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.least is not None:
        defaults["min"] = panel.least
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATA_SOURCE,
        "gridPos": {
            "x": column * _PANEL_WIDTH,
            "y": row * _PANEL_HEIGHT,
            "w": _PANEL_WIDTH,
            "h": _PANEL_HEIGHT,
        },
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query.expression, "legendFormat": query.legend}
            for index, query in enumerate(panel.queries)
        ],
    }
