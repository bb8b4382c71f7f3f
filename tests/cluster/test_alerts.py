"""Every alert, raised and not raised by Prometheus' own rule engine over made-up series.

That the series look like this on a cluster is not shown here; that their names exist is, in ``test_observability``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from components.dashboards.rules import rule_groups
from planning.plan import PoolMember
from tests.cluster.build import Tools
from tests.cluster.promql import Expected, Groups, check
from tests.components.plans import FAST, FORECAST

# 2 s to the first token, counted from 2.5 s; 60 ms per token, counted from 75 ms. Planned: 90 % spot, 6,000 USD a month
# and 0.5 USD an hour beside the nodes.
TIER = replace(FAST, offerings=(PoolMember("g6.xlarge", "L4", 0.25, 2.0),))
PLANNED = replace(FORECAST, items=tuple(item for item in FORECAST.items if item.tier in (None, "fast")))

ENGINE = 'namespace="llm",tier="fast",pod="fast-engine-1"'
ROUTER = 'namespace="llm",service="fast-router",tier="fast"'
MONITORING = 'namespace="monitoring",pod="prometheus-0"'

QUEUE = f"llm_d_epp_flow_control_queue_size{{{ROUTER}}}"
READY = f"llm_d_epp_ready_endpoints{{{ROUTER}}}"
STALE = f"llm_d_epp_flow_control_stale_endpoints{{{ROUTER}}}"
UP = f"up{{{ROUTER}}}"
WAITING = f"vllm:num_requests_waiting{{{ENGINE}}}"
GENERATED = f"vllm:generation_tokens_total{{{ENGINE}}}"
READY_BY_MODEL = 'kube_deployment_status_replicas_ready{namespace="llm",deployment="front-envoy"}'
BY_MODEL = 'namespace="llm",service="front-envoy"'
KEDA = 'keda_build_info{namespace="keda"}'
KEDA_ERRORS = 'keda_scaler_detail_errors_total{namespace="keda",scaledObject="fast-engine"}'
BUILD = f"prometheus_build_info{{{MONITORING}}}"
FAILURES = f'prometheus_rule_evaluation_failures_total{{{MONITORING},rule_group="frugal-llm.cost"}}'
EARLY = f"prometheus_tsdb_size_retentions_total{{{MONITORING}}}"
VOLUME = 'namespace="monitoring",persistentvolumeclaim="prometheus-0"'


def outcome(name: str) -> str:
    return f'llm_d_epp_flow_control_requests_total{{{ROUTER},outcome="{name}"}}'


def nodes(spot: int, on_demand: int, values: str) -> dict[str, str]:
    """Nodes of the pool, of a type of 0.25 USD an hour on spot and 2 on demand."""
    pool = 'label_karpenter_sh_nodepool="gpu-1",label_node_kubernetes_io_instance_type="g6.xlarge"'
    return {
        f'kube_node_labels{{node="{capacity}-{number}",label_karpenter_sh_capacity_type="{capacity}",{pool}}}': values
        for capacity, count in (("spot", spot), ("on-demand", on_demand))
        for number in range(count)
    }


def requests(under: float, over: float, samples: int, *, objective: str = "ttft") -> dict[str, str]:
    """So many requests under and over the bound from which they are slow, at every sample."""
    histogram, bound = {
        "ttft": ("vllm:time_to_first_token_seconds", "2.5"),
        "tpot": ("vllm:request_time_per_output_token_seconds", "0.075"),
    }[objective]
    steps = {bound: under, "+Inf": under + over}
    return {f'{histogram}_bucket{{{ENGINE},le="{le}"}}': f"0+{step}x{samples}" for le, step in steps.items()}


@dataclass(frozen=True, slots=True)
class Case:
    """What is seen until a moment."""

    why: str
    at: str
    series: Mapping[str, str]
    labels: str = ""
    """Of the alert that is raised, beside its name and severity."""
    interval: str = "30s"


OF_TIER = 'tier="fast"'
OF_TTFT = 'objective="ttft", tier="fast"'

FIRING: dict[str, list[Case]] = {
    "LatencyBudgetBurnsFast": [
        Case("three of four come late for an hour", "1h30m", requests(1, 3, 240), OF_TTFT),
        Case(
            "tokens come late",
            "1h30m",
            requests(1, 3, 240, objective="tpot"),
            'objective="tpot", tier="fast"',
        ),
    ],
    "LatencyBudgetBurns": [Case("every second comes late for six hours", "7h", requests(8, 8, 240), OF_TTFT, "2m")],
    "LatencyAboveTarget": [Case("one in ten comes late for a night", "10h", requests(36, 4, 320), OF_TTFT, "2m")],
    "RouterQueueGrows": [Case("it grows", "30m", {QUEUE: "1+5x80", READY: "1+0x80"}, OF_TIER)],
    "SchedulerStuck": [
        Case(
            "four wait and nothing is generated",
            "15m",
            {WAITING: "4+0x40", GENERATED: "100+0x40"},
            'pod="fast-engine-1", tier="fast"',
        )
    ],
    "RequestsRefused": [
        Case(
            "the queue is full",
            "15m",
            {outcome("RejectedCapacity"): "0+1x40"},
            f'outcome="RejectedCapacity", {OF_TIER}',
        )
    ],
    "ReplicaMetricsStale": [Case("one replica's are", "10m", {STALE: "1+0x40"}, OF_TIER)],
    "WakeTakesLongerThanPlanned": [
        Case("290 s are planned", "15m", {QUEUE: "2+0x40", READY: "0+0x40"}, OF_TIER),
    ],
    "SpotShareBelowPlan": [Case("all is on demand", "5h", nodes(0, 4, "1+0x700"), 'pool="gpu-1"')],
    # 744 hours of January at 4 x 2 + 0.5.
    "MonthAboveBudget": [Case("6,324 are more than 6,000", "8h", nodes(0, 4, "1+0x300"), interval="2m")],
    "AutoscalerDown": [Case("KEDA is not seen", "10m", {UP: "1+0x40"}, 'namespace="keda"')],
    "AutoscalerSeesErrors": [Case("errors come", "10m", {KEDA_ERRORS: "0+1x40"}, 'scaledObject="fast-engine"')],
    "RouterNotScraped": [
        Case("it does not answer", "10m", {UP: "0+0x40"}, OF_TIER),
        Case("it is not there", "10m", {KEDA: "1+0x40"}, OF_TIER),
    ],
    "ModelRouterNotReady": [Case("both are away", "10m", {READY_BY_MODEL: "2+0x10 0+0x40"})],
    "ModelRouterNotScraped": [
        Case("neither answers", "10m", {f'up{{{BY_MODEL},pod="{pod}"}}': "0+0x40" for pod in "ab"}),
        Case("they are not there", "10m", {KEDA: "1+0x40"}),
    ],
    "Watchdog": [Case("rules are evaluated", "5m", {UP: "1+0x40"})],
    "PrometheusWasAway": [Case("for ten minutes of the last hour", "2h", {BUILD: "1+0x180 _x20 1+0x60"})],
    "PrometheusVolumeFills": [
        Case(
            "5 GB of 100 are left",
            "30m",
            {
                f"kubelet_volume_stats_available_bytes{{{VOLUME}}}": "5+0x80",
                f"kubelet_volume_stats_capacity_bytes{{{VOLUME}}}": "100+0x80",
            },
            'namespace="monitoring", persistentvolumeclaim="prometheus-0"',
        )
    ],
    "PrometheusKeepsLessThanAsked": [
        Case("a block went for room", "1h", {EARLY: "0+0x60 1+0x60"}, 'namespace="monitoring", pod="prometheus-0"')
    ],
    "RuleEvaluationFails": [Case("a rule fails", "15m", {FAILURES: "0+1x40"}, 'rule_group="frugal-llm.cost"')],
}

SILENT: dict[str, list[Case]] = {
    "LatencyBudgetBurnsFast": [
        Case("every second comes late, not three of four", "1h30m", requests(2, 2, 240)),
        Case(
            "nine of ten came late for 50 minutes of the hour, none in its last ten",
            "1h30m",
            {
                f'vllm:time_to_first_token_seconds_bucket{{{ENGINE},le="2.5"}}': "0+1x160 160+10x80",
                f'vllm:time_to_first_token_seconds_bucket{{{ENGINE},le="+Inf"}}': "0+10x160 1600+10x80",
            },
        ),
        Case("twelve requests in an hour, all late", "1h30m", requests(0, 0.1, 240)),
    ],
    "LatencyBudgetBurns": [Case("one in five comes late", "7h", requests(16, 4, 240), interval="2m")],
    "LatencyAboveTarget": [Case("one in twenty-five comes late", "10h", requests(96, 4, 320), interval="2m")],
    "RouterQueueGrows": [
        Case("it is long and does not grow", "30m", {QUEUE: "40+0x80", READY: "1+0x80"}),
        Case("it grows before the first replica", "30m", {QUEUE: "1+5x80", READY: "0+0x80"}),
    ],
    "SchedulerStuck": [Case("tokens come", "15m", {WAITING: "4+0x40", GENERATED: "100+50x40"})],
    "RequestsRefused": [
        Case(
            "requests are answered, and clients leave",
            "15m",
            {outcome("Dispatched"): "0+1x40", outcome("EvictedContextCancelled"): "0+1x40"},
        )
    ],
    "ReplicaMetricsStale": [Case("all are fresh", "10m", {STALE: "0+0x40"})],
    "WakeTakesLongerThanPlanned": [
        Case("it is four minutes in", "4m", {QUEUE: "2+0x40", READY: "0+0x40"}),
        Case("a replica is there", "15m", {QUEUE: "2+0x40", READY: "1+0x40"}),
        Case("nothing waits", "15m", {QUEUE: "0+0x40", READY: "0+0x40"}),
    ],
    "SpotShareBelowPlan": [
        Case("three of four nodes are spot", "5h", nodes(3, 1, "1+0x700")),
        Case("one node for three hours says nothing", "3h", nodes(0, 1, "1+0x700")),
    ],
    "MonthAboveBudget": [Case("744 hours at 6.5 are 4,836", "8h", nodes(0, 3, "1+0x300"), interval="2m")],
    "AutoscalerDown": [Case("KEDA is seen", "10m", {KEDA: "1+0x40"})],
    "AutoscalerSeesErrors": [Case("errors were", "10m", {KEDA_ERRORS: "7+0x40"})],
    "ModelRouterNotReady": [
        Case("one is", "10m", {READY_BY_MODEL: "2+0x10 1+0x40"}),
        Case("a roll took both for half a minute", "10m", {READY_BY_MODEL: "2+0x17 0 1+0x40"}),
    ],
    "ModelRouterNotScraped": [
        Case("one of two answers", "10m", {f'up{{{BY_MODEL},pod="{pod}"}}': f"{up}+0x40" for pod, up in ("a0", "b1")}),
    ],
    "RouterNotScraped": [Case("it answers", "10m", {UP: "1+0x40"})],
    "PrometheusWasAway": [
        Case("it was not", "2h", {BUILD: "1+0x240"}),
        Case("it is new", "30m", {BUILD: "1+0x240"}),
    ],
    "PrometheusVolumeFills": [
        Case(
            "a fifth is left, as asked for",
            "30m",
            {
                f"kubelet_volume_stats_available_bytes{{{VOLUME}}}": "20+0x80",
                f"kubelet_volume_stats_capacity_bytes{{{VOLUME}}}": "100+0x80",
            },
        )
    ],
    "PrometheusKeepsLessThanAsked": [Case("that was long ago", "1h", {EARLY: "3+0x200"})],
    "RuleEvaluationFails": [Case("none fails", "15m", {FAILURES: "3+0x40"})],
}


def _cases(table: Mapping[str, list[Case]]) -> list[object]:
    return [pytest.param(name, case, id=f"{name}: {case.why}") for name, cases in table.items() for case in cases]


def _groups(alert: str) -> Groups:
    """All rules; sums over a month take their time, so they run only where they matter."""
    groups = rule_groups([TIER], PLANNED, 35, by_model=True)
    return [group for group in groups if group["name"] != "frugal-llm.month" or alert == "MonthAboveBudget"]


def _severity(alert: str) -> str:
    rules = (rule for group in _groups(alert) for rule in group["rules"])
    return next(rule["labels"]["severity"] for rule in rules if rule.get("alert") == alert)


def test_every_alert_is_here_and_only_the_watchdog_is_never_silent() -> None:
    groups = rule_groups([TIER], PLANNED, 35, by_model=True)
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert FIRING.keys() == alerts
    assert SILENT.keys() == alerts - {"Watchdog"}


@pytest.mark.parametrize(("alert", "case"), _cases(FIRING))
def test_the_alert_is_raised(alert: str, case: Case, tools: Tools, tmp_path: Path) -> None:
    found = f'alertname="{alert}", alertstate="firing"'
    labels = ", ".join(filter(None, [found, case.labels, f'severity="{_severity(alert)}"']))
    raised = Expected(f"ALERTS{{{found}}}", case.at, {f"ALERTS{{{labels}}}": 1})
    check(tools, tmp_path, _groups(alert), case.series, [raised], interval=case.interval)


@pytest.mark.parametrize(("alert", "case"), _cases(SILENT))
def test_the_alert_stays_silent(alert: str, case: Case, tools: Tools, tmp_path: Path) -> None:
    silent = Expected(f'ALERTS{{alertname="{alert}", alertstate="firing"}}', case.at, {})
    check(tools, tmp_path, _groups(alert), case.series, [silent], interval=case.interval)


def test_without_a_budget_none_is_watched() -> None:
    groups = rule_groups([TIER], replace(PLANNED, budget_usd=None), 35)
    assert not [rule for group in groups for rule in group["rules"] if rule.get("alert") == "MonthAboveBudget"]
