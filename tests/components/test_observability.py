"""Prometheus, rules and dashboard as they are asked for.

Metric names are held against a list with sources. That the chart renders with these values, and that Grafana draws the
dashboard, is not proven here; that Prometheus takes the rules and answers the dashboard is, in ``tests/cluster``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pulumi
import pytest

from components import versions
from components.dashboards import costs, month, objectives, rules, watching
from components.dashboards.costs import cost_rules
from components.dashboards.overview import MODEL_ROUTER_PANELS, PANELS, dashboard
from components.dashboards.rules import rule_groups
from components.names import MONITORING_NAMESPACE, PROMETHEUS_RELEASE, PROMETHEUS_URL
from components.observability import Observability, ObservabilityArgs
from planning.plan import PoolMember
from planning.rates import stack_rates
from tests.charts.check import unknown_values
from tests.components.building import stand_in
from tests.components.known_metrics import EXISTING, REMOVED_FROM_VLLM
from tests.components.plans import FAST, FORECAST, TIERS
from tests.harness import (
    HelmRelease,
    Recording,
    component_under_test,
    destroy_reachability,
    helm_releases,
    kubernetes_objects,
)
from tests.schemas.checker import problems


def observability(*, preview: bool = False, **changes: Any) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> Mapping[str, Any]:
        values: dict[str, Any] = {
            "tiers": TIERS,
            "forecast": FORECAST,
            "grafana": True,
            "retention_days": 15,
            "storage_gib": 50,
            "storage_class": "gp3",
            "system_ready": [stand_in("system", opts)],
        }
        made = Observability("monitoring", ObservabilityArgs(**(values | changes)), opts)
        return {"url": made.prometheus_url}

    return component_under_test(factory, preview=preview)


@pytest.fixture(scope="module")
def whole() -> Recording:
    return observability()


def release(recording: Recording) -> HelmRelease:
    (found,) = helm_releases(recording)
    return found


def prometheus(recording: Recording) -> dict[str, Any]:
    return release(recording).values["prometheus"]["prometheusSpec"]


# The release ---------------------------------------------------------------------------------------------------------


def test_prometheus_answers_where_the_autoscaler_asks(whole: Recording) -> None:
    """The chart's own arithmetic, from its ``_helpers.tpl``: release and chart name, cut to 26 characters."""
    found = release(whole)
    assert (found.name, found.namespace) == (PROMETHEUS_RELEASE, MONITORING_NAMESPACE)
    assert "fullnameOverride" not in found.values
    assert "nameOverride" not in found.values
    chart = found.chart.rsplit("/", 1)[-1]
    assert chart not in found.name
    fullname = f"{found.name}-{chart}"[:26].removesuffix("-")
    assert f"http://{fullname}-prometheus.{found.namespace}:9090" == PROMETHEUS_URL == whole.outputs["url"]


def test_the_chart_is_released_at_its_pinned_version(whole: Recording) -> None:
    chart = versions.KUBE_PROMETHEUS_STACK
    assert (release(whole).chart, release(whole).version, release(whole).repo) == (chart.chart, chart.version, "")


@pytest.mark.parametrize("grafana", [True, False])
def test_every_value_is_one_that_the_chart_has(grafana: bool) -> None:
    found = release(observability(grafana=grafana))
    assert unknown_values(found.chart, found.values) == []


def test_monitors_of_every_namespace_and_label_are_taken(whole: Recording) -> None:
    taken = {key for key, value in prometheus(whole).items() if key.endswith("NilUsesHelmValues") and value is False}
    assert {
        "serviceMonitorSelectorNilUsesHelmValues",
        "podMonitorSelectorNilUsesHelmValues",
        "ruleSelectorNilUsesHelmValues",
    } <= taken


def test_samples_outlive_the_pod_and_not_the_stack(whole: Recording) -> None:
    spec = prometheus(whole)
    assert spec["storageSpec"]["volumeClaimTemplate"]["spec"] == {
        "storageClassName": "gp3",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "50Gi"}},
    }
    assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete", "else the volume is paid for ever"
    assert spec["retention"] == "15d"


def test_prometheus_drops_samples_before_its_volume_is_full(whole: Recording) -> None:
    assert prometheus(whole)["retentionSize"] == "40960MiB", "a full volume stops it, and with it every wake-up"


def test_everything_runs_on_system_nodes_with_requests(whole: Recording) -> None:
    values = release(whole).values
    for part in (values["grafana"], values["kube-state-metrics"], values["prometheusOperator"], prometheus(whole)):
        assert part["nodeSelector"] == {"frugal-llm/pool": "system"}
        assert {"cpu", "memory"} <= part["resources"]["requests"].keys()


def test_alerts_go_to_the_alertmanager_that_is_named_and_else_nowhere() -> None:
    assert "additionalAlertManagerConfigs" not in prometheus(observability())
    assert prometheus(observability())["externalLabels"] == {"stack": "test"}, "whose alerts they are"
    sent = observability(alertmanager_url="https://alerts.example.com:9093/team")
    assert prometheus(sent)["additionalAlertManagerConfigs"] == [
        {
            "scheme": "https",
            "path_prefix": "/team",
            "static_configs": [{"targets": ["alerts.example.com:9093"]}],
            "api_version": "v2",
        }
    ]
    assert unknown_values(release(sent).chart, release(sent).values) == []


def test_there_is_one_watchdog_and_it_is_ours(whole: Recording) -> None:
    assert release(whole).values["defaultRules"]["disabled"] == {"Watchdog": True}
    assert len(alerts()["Watchdog"]) == 1


def test_alerts_that_count_samples_know_how_far_apart_they_are(whole: Recording) -> None:
    assert prometheus(whole)["evaluationInterval"] == f"{objectives.RULE_INTERVAL_S}s"
    assert prometheus(whole)["scrapeInterval"] == f"{watching.SCRAPE_INTERVAL_S}s"


def test_nothing_is_watched_that_eks_does_not_show(whole: Recording) -> None:
    values = release(whole).values
    for part in ("alertmanager", "kubeControllerManager", "kubeEtcd", "kubeProxy", "kubeScheduler", "nodeExporter"):
        assert values[part] == {"enabled": False}, part
    assert values["defaultRules"]["rules"]["etcd"] is False


def test_grafana_is_a_choice_and_prometheus_is_not() -> None:
    without = observability(grafana=False)
    assert release(without).values["grafana"] == {"enabled": False}
    assert kubernetes_objects(without, "ConfigMap") == []
    assert len(helm_releases(without)) == 1


def test_rules_come_after_their_definition_and_the_namespace_goes_last(whole: Recording) -> None:
    assert destroy_reachability(whole, "monitoring-rules", release(whole).resource)
    assert destroy_reachability(whole, release(whole).resource, "monitoring-namespace")
    assert destroy_reachability(whole, release(whole).resource, "system")


def test_the_api_server_would_take_every_object(whole: Recording) -> None:
    for one in kubernetes_objects(whole):
        assert problems(one) == [], one["kind"]


# Rules ---------------------------------------------------------------------------------------------------------------


def alerts() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for group in rule_groups(TIERS, FORECAST, 35, by_model=True):
        for rule in group["rules"]:
            if "alert" in rule:
                found.setdefault(rule["alert"], []).append(rule)
    return found


def test_these_alerts_exist() -> None:
    assert sorted(alerts()) == [
        "AutoscalerDown",
        "AutoscalerSeesErrors",
        "LatencyAboveTarget",
        "LatencyBudgetBurns",
        "LatencyBudgetBurnsFast",
        "ModelRouterNotReady",
        "ModelRouterNotScraped",
        "MonthAboveBudget",
        "PrometheusKeepsLessThanAsked",
        "PrometheusVolumeFills",
        "PrometheusWasAway",
        "ReplicaMetricsStale",
        "RequestsRefused",
        "RouterNotScraped",
        "RouterQueueGrows",
        "RuleEvaluationFails",
        "SchedulerStuck",
        "SpotShareBelowPlan",
        "WakeTakesLongerThanPlanned",
        "Watchdog",
    ]


def test_every_alert_says_how_bad_it_is_and_what_to_look_at() -> None:
    for name, found in alerts().items():
        for rule in found:
            assert rule["labels"]["severity"] in {"warning", "critical"} or name == "Watchdog"
            assert rule["annotations"].keys() == {"summary", "description"}, name
            assert re.fullmatch(r"\d+[smh]", rule["for"]), name


def recorded(name: str) -> dict[tuple[str, ...], str]:
    """Expressions of a series, by its labels' values."""
    return {
        tuple(rule.get("labels", {}).values()): rule["expr"]
        for group in rule_groups(TIERS, FORECAST, 35)
        for rule in group["rules"]
        if rule.get("record") == name
    }


def test_each_tiers_targets_are_recorded_in_seconds() -> None:
    assert recorded(rules.TTFT_TARGET) == {(tier.name,): "vector(2)" for tier in TIERS}
    assert recorded(rules.TPOT_TARGET) == {(tier.name,): "vector(0.06)" for tier in TIERS}


def test_slow_is_counted_from_the_first_bound_that_vllm_counts_at_or_above_the_target() -> None:
    bounds = [objectives.TTFT.slow_from_s(target) for target in (2000, 1000, 1000.1, 5)]
    assert bounds == [2.5, 1.0, 2.5, 0.005]
    assert [objectives.TPOT.slow_from_s(target) for target in (50, 60, 80_000)] == [0.05, 0.075, 80.0]
    assert objectives.TPOT.slow_from_s(80_001) is None, "beyond its last bound vLLM counts nothing"
    assert recorded(objectives.SLOW_FROM)["fast", "ttft"] == "vector(2.5)"
    assert 'le="2.5"' in recorded(objectives.SLOW)["fast", "ttft"]


def test_bounds_are_written_as_vllms_client_writes_them() -> None:
    whole = replace(FAST, ttft_target_ms=1000, tpot_target_ms=1000)
    text = str(objectives.objective_rules([whole]))
    assert 'le="1.0"' in text
    assert 'le="1"' not in text


def test_a_tier_of_llama_cpp_and_a_target_beyond_all_bounds_have_no_objective() -> None:
    assert {key for key in recorded(objectives.SLOW) if key[0] == "small"} == set()
    endless = objectives.objective_rules([replace(FAST, tpot_target_ms=99_000)])
    assert {rule["labels"]["objective"] for rule in endless if "labels" in rule} == {"ttft"}


def test_every_burn_rate_can_be_reached_and_is_the_workbooks() -> None:
    """SRE Workbook, chapter 5: 2 % of a month's budget in an hour, 5 % in six, 10 % in three days."""
    assert [burn.rate for burn in objectives.BURNS] == [14.4, 6, 1]
    spent = [burn.rate * hours / (30 * 24) for burn, hours in zip(objectives.BURNS, (1, 6, 72), strict=True)]
    assert spent == pytest.approx([0.02, 0.05, 0.1])
    assert all(burn.slow_share < 1 for burn in objectives.BURNS), "more than all requests cannot be slow"


def test_the_forecast_is_recorded_by_tier_in_usd_an_hour_and_per_million_tokens() -> None:
    """146 USD a month of nodes are 0.2 an hour, and 0.1 for each of 1,460 million tokens."""
    usd = recorded(costs.FORECAST_USD)
    assert [usd["fast", bound] for bound in ("low", "expected", "high")] == [
        "vector(0.16)",
        "vector(0.2)",
        "vector(0.3)",
    ]
    assert recorded(costs.FORECAST_PER_MILLION)[("fast",)] == "vector(0.1)"
    assert recorded(costs.FORECAST_SPOT)[("gpu-1",)] == "vector(0.9)"


def test_tiers_of_a_pool_share_its_forecast() -> None:
    """2 and 4 USD an hour on the pool of four GPUs."""
    assert recorded(costs.FORECAST_SHARE) == {
        ("gpu-4", "quality"): "vector(0.333333)",
        ("gpu-1", "fast"): "vector(1)",
        ("cpu", "small"): "vector(1)",
        ("gpu-4", "split"): "vector(0.666667)",
    }


def test_the_budget_is_watched_only_where_there_is_one() -> None:
    without = rule_groups(TIERS, replace(FORECAST, budget_usd=None), 35)
    names = {rule.get("alert", rule.get("record")) for group in without for rule in group["rules"]}
    assert names & {"MonthAboveBudget", month.BUDGET} == set()
    assert recorded(month.BUDGET) == {(): "vector(6000)"}


def test_a_wake_is_late_when_it_takes_longer_than_its_own_tiers_plan() -> None:
    late = {rule["labels"]["tier"]: rule["for"] for rule in alerts()["WakeTakesLongerThanPlanned"]}
    assert late == {tier.name: f"{tier.timeouts.cold_start_s}s" for tier in TIERS}


def test_a_router_that_prometheus_does_not_see_is_told_for_each_tier() -> None:
    unseen = {rule["labels"]["tier"]: rule["expr"] for rule in alerts()["RouterNotScraped"]}
    assert unseen.keys() == {tier.name for tier in TIERS}
    assert unseen["fast"] == 'absent(up{namespace="llm",service="fast-router"} == 1)'


# Metrics -------------------------------------------------------------------------------------------------------------

_SCRAPED = re.compile(
    r"^(vllm:|llamacpp:|llm_d_epp_|envoy_(?!cluster_name|http_conn|response_code)|keda_|kube_|kubelet_|prometheus_|DCGM_)|^up$"
)


def expressions() -> Iterator[str]:
    for group in rule_groups(TIERS, FORECAST, 35, by_model=True):
        yield from (rule["expr"] for rule in group["rules"])
    for panel in (*PANELS, *MODEL_ROUTER_PANELS):
        yield from (query.expression for query in panel.queries)


def names() -> set[str]:
    words = {word for text in expressions() for word in re.findall(r"[a-zA-Z_][\w:]*", text)}
    return {word for word in words if _SCRAPED.match(word) or word in REMOVED_FROM_VLLM}


def test_every_metric_in_rules_and_dashboard_exists() -> None:
    assert len(names()) > 20, "the names were found"
    assert sorted(names() - EXISTING) == []


def test_every_recorded_series_is_used_and_every_used_one_recorded() -> None:
    groups = rule_groups(TIERS, FORECAST, 35)
    names = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    used = {word for text in expressions() for word in re.findall(r"frugal_llm:[\w:]+", text)}
    # Prices are of a tier's offerings, which the samples here leave out.
    assert used == names | {costs.PRICE}


# Cost ----------------------------------------------------------------------------------------------------------------

RATES = stack_rates([FAST], FORECAST)
OFFERED = replace(
    FAST, offerings=(PoolMember("g6.xlarge", "L4", 0.25, 0.75), PoolMember("g6e.xlarge", "L40S", None, 2.0))
)


def test_every_type_of_a_pool_has_its_prices_once_and_an_unknown_spot_price_is_no_price() -> None:
    rules = cost_rules([OFFERED, replace(OFFERED, name="other")], RATES)
    prices = [rule for rule in rules if rule["record"] == costs.PRICE]
    assert [(*rule["labels"].values(), rule["expr"]) for rule in prices] == [
        ("g6.xlarge", "on-demand", "vector(0.75)"),
        ("g6.xlarge", "spot", "vector(0.25)"),
        ("g6e.xlarge", "on-demand", "vector(2)"),
    ]


def test_kube_state_metrics_shows_the_labels_that_cost_is_counted_by(whole: Recording) -> None:
    allowed = release(whole).values["kube-state-metrics"]["metricLabelsAllowlist"]
    assert [entry.partition("=")[0] for entry in allowed] == ["nodes", "pods"]
    shown = [label for entry in allowed for label in entry.partition("=")[2].strip("[]").split(",")]
    labels = {"label_" + re.sub(r"[^a-zA-Z0-9]", "_", label) for label in shown}
    used = {word for rule in cost_rules([OFFERED], RATES) for word in re.findall(r"label_\w+_\w+", str(rule))}
    assert used - {"label_replace"} == labels


# Dashboard -----------------------------------------------------------------------------------------------------------


def test_the_dashboard_is_found_by_grafanas_sidecar(whole: Recording) -> None:
    (found,) = kubernetes_objects(whole, "ConfigMap")
    assert found["metadata"]["labels"] == {"grafana_dashboard": "1"}
    (text,) = found["data"].values()
    assert text == dashboard()


def test_the_dashboard_shows_what_decides_about_money_and_latency() -> None:
    titles = [panel["title"] for panel in json.loads(dashboard())["panels"]]
    assert titles == [
        "Requests",
        "Refused and failed, by status",
        "Held in the router",
        "Time to first token, engine",
        "Time per output token, engine",
        "Slow requests",
        "Slow requests left",
        "Time to first token, router",
        "Replicas",
        "Running",
        "Waiting in replicas",
        "Output tokens",
        "Input tokens",
        "Prefix cache hits",
        "KV cache in use",
        "Preemptions",
        "Cost by tier",
        "Cost by tier, mean of a day",
        "Cost of a million tokens",
        "Cost by pool",
        "Month",
        "Spot",
        "GPU",
    ]
    assert all(panel.description for panel in (*PANELS, *MODEL_ROUTER_PANELS))


def test_the_envoys_that_route_by_model_are_watched_and_shown_only_where_there_are_some() -> None:
    names: dict[bool, set[str]] = {}
    titles: dict[bool, set[str]] = {}
    for by_model in (False, True):
        made = observability(by_model=by_model)
        (rule,) = kubernetes_objects(made, "PrometheusRule")
        names[by_model] = {one["alert"] for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one}
        (config,) = kubernetes_objects(made, "ConfigMap")
        (text,) = config["data"].values()
        titles[by_model] = {panel["title"] for panel in json.loads(text)["panels"]}
    assert names[True] - names[False] == {"ModelRouterNotReady", "ModelRouterNotScraped"}
    assert titles[True] - titles[False] == {panel.title for panel in MODEL_ROUTER_PANELS}
    assert names[False] < names[True]
    assert titles[False] < titles[True]


def test_panels_stand_side_by_side_and_never_on_each_other() -> None:
    panels = json.loads(dashboard(by_model=True))["panels"]
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    corners = {(place["x"], place["y"]) for place in places}
    assert len(corners) == len(places)
    assert len({panel["id"] for panel in panels}) == len(places)
