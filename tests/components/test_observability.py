"""Prometheus, rules and dashboard as they are asked for.

Metric names are held against a list with sources. That the chart renders with these values, and that Grafana draws the
dashboard, is not proven here; that Prometheus takes the rules is, where promtool is on PATH.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components import versions
from components.dashboards import rules
from components.dashboards.costs import POOL_USD, PRICE, cost_rules
from components.dashboards.overview import PANELS, dashboard
from components.dashboards.rules import rule_groups
from components.names import MONITORING_NAMESPACE, PROMETHEUS_RELEASE, PROMETHEUS_URL
from components.observability import Observability, ObservabilityArgs
from planning.plan import PoolMember
from tests.charts.check import unknown_values
from tests.components.building import stand_in
from tests.components.known_metrics import EXISTING, REMOVED_FROM_VLLM
from tests.components.plans import FAST, TIERS
from tests.harness import (
    HelmRelease,
    Recording,
    component_under_test,
    destroy_reachability,
    helm_releases,
    kubernetes_objects,
)
from tests.schemas.checker import problems

PROMTOOL = shutil.which("promtool")


def observability(*, preview: bool = False, **changes: Any) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> Mapping[str, Any]:
        values: dict[str, Any] = {
            "tiers": TIERS,
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
    for group in rule_groups(TIERS):
        for rule in group["rules"]:
            if "alert" in rule:
                found.setdefault(rule["alert"], []).append(rule)
    return found


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on PATH (Debian's package prometheus brings it)")
def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": rule_groups(TIERS)}))
    run = subprocess.run([str(PROMTOOL), "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_these_alerts_exist() -> None:
    assert sorted(alerts()) == [
        "AutoscalerDown",
        "AutoscalerSeesErrors",
        "ReplicaMetricsStale",
        "RequestsRefused",
        "RouterNotScraped",
        "RouterQueueGrows",
        "SchedulerStuck",
        "TimePerOutputTokenAboveTarget",
        "TimeToFirstTokenAboveTarget",
        "WakeTakesLongerThanPlanned",
    ]


def test_every_alert_says_how_bad_it_is_and_what_to_look_at() -> None:
    for name, found in alerts().items():
        for rule in found:
            assert rule["labels"]["severity"] in {"warning", "critical"}, name
            assert rule["annotations"].keys() == {"summary", "description"}, name
            assert re.fullmatch(r"\d+[sm]", rule["for"]), name


def test_each_tiers_targets_are_recorded_in_seconds() -> None:
    recorded = {
        (rule["record"], rule["labels"]["tier"]): rule["expr"]
        for group in rule_groups(TIERS)
        for rule in group["rules"]
        if "record" in rule and "tier" in rule.get("labels", {})
    }
    assert recorded[rules.TTFT_TARGET, "fast"] == "vector(2000 / 1000)"
    assert recorded[rules.TPOT_TARGET, "fast"] == "vector(60 / 1000)"
    assert len(recorded) == 2 * len(TIERS)


def test_a_wake_is_late_when_it_takes_longer_than_its_own_tiers_plan() -> None:
    late = {rule["labels"]["tier"]: rule["for"] for rule in alerts()["WakeTakesLongerThanPlanned"]}
    assert late == {tier.name: f"{tier.timeouts.cold_start_s}s" for tier in TIERS}


def test_a_router_that_prometheus_does_not_see_is_told_for_each_tier() -> None:
    unseen = {rule["labels"]["tier"]: rule["expr"] for rule in alerts()["RouterNotScraped"]}
    assert unseen.keys() == {tier.name for tier in TIERS}
    assert unseen["fast"] == 'absent(up{namespace="llm",service="fast-router"} == 1)'


ENGINE = 'namespace="llm",tier="fast",pod="fast-engine-1"'
ROUTER = 'namespace="llm",service="fast-router",tier="fast"'
FIRING: dict[str, tuple[list[tuple[str, str]], str, dict[str, str]]] = {
    "SchedulerStuck": (
        [
            (f"vllm:num_requests_waiting{{{ENGINE}}}", "4+0x40"),
            (f"vllm:generation_tokens_total{{{ENGINE}}}", "100+0x40"),
        ],
        "15m",
        {"tier": "fast", "pod": "fast-engine-1", "severity": "critical"},
    ),
    "WakeTakesLongerThanPlanned": (
        [
            (f"llm_d_epp_flow_control_queue_size{{{ROUTER}}}", "2+0x40"),
            (f"llm_d_epp_ready_endpoints{{{ROUTER}}}", "0+0x40"),
        ],
        "15m",
        {"tier": "fast", "severity": "critical"},
    ),
    "RouterQueueGrows": (
        [
            (f"llm_d_epp_flow_control_queue_size{{{ROUTER}}}", "1+5x80"),
            (f"llm_d_epp_ready_endpoints{{{ROUTER}}}", "1+0x80"),
        ],
        "30m",
        {"tier": "fast", "severity": "warning"},
    ),
    "TimeToFirstTokenAboveTarget": (
        [
            (f'vllm:time_to_first_token_seconds_bucket{{{ENGINE},le="{le}"}}', f"0+{step}x240")
            for le, step in (("2.5", 1), ("5", 60), ("+Inf", 60))
        ],
        "90m",
        {"tier": "fast", "severity": "warning"},
    ),
}


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on PATH (Debian's package prometheus brings it)")
@pytest.mark.parametrize("alert", FIRING)
def test_the_alert_fires(alert: str, tmp_path: Path) -> None:
    series, at, labels = FIRING[alert]
    groups = [{**group, "interval": "30s"} for group in rule_groups([FAST])]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    test = {
        "interval": "30s",
        "input_series": [{"series": name, "values": values} for name, values in series],
        # The alert's own series: annotations with values are not compared.
        "promql_expr_test": [
            {
                "expr": f'count by ({",".join(labels)}) (ALERTS{{alertname="{alert}",alertstate="firing"}})',
                "eval_time": at,
                "exp_samples": [
                    {"labels": "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}", "value": 1}
                ],
            }
        ],
    }
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "30s", "tests": [test]}))
    run = subprocess.run([str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


# Metrics -------------------------------------------------------------------------------------------------------------

_SCRAPED = re.compile(r"^(vllm:|llamacpp:|llm_d_epp_|keda_|kube_|DCGM_)|^up$")


def expressions() -> Iterator[str]:
    for group in rule_groups(TIERS):
        yield from (rule["expr"] for rule in group["rules"])
    for panel in PANELS:
        yield from (query.expression for query in panel.queries)


def names() -> set[str]:
    words = {word for text in expressions() for word in re.findall(r"[a-zA-Z_][\w:]*", text)}
    return {word for word in words if _SCRAPED.match(word) or word in REMOVED_FROM_VLLM}


def test_every_metric_in_rules_and_dashboard_exists() -> None:
    assert len(names()) > 20, "the names were found"
    assert sorted(names() - EXISTING) == []


def test_every_recorded_series_that_is_used_is_recorded() -> None:
    recorded = {rule["record"] for group in rule_groups(TIERS) for rule in group["rules"] if "record" in rule}
    used = {word for text in expressions() for word in re.findall(r"frugal_llm:[\w:]+", text)}
    # Prices are of a tier's offerings, which the samples here leave out.
    assert used == recorded | {PRICE}


# Cost ----------------------------------------------------------------------------------------------------------------

# Prices whose sums are exact whatever their order, in which Prometheus does not promise to add.
OFFERED = replace(
    FAST, offerings=(PoolMember("g6.xlarge", "L4", 0.25, 0.75), PoolMember("g6e.xlarge", "L40S", None, 2.0))
)


def test_every_type_of_a_pool_has_its_prices_once_and_an_unknown_spot_price_is_no_price() -> None:
    prices = [rule for rule in cost_rules([OFFERED, replace(OFFERED, name="other")]) if rule["record"] == PRICE]
    assert [(*rule["labels"].values(), rule["expr"]) for rule in prices] == [
        ("g6.xlarge", "on-demand", "vector(0.75)"),
        ("g6.xlarge", "spot", "vector(0.25)"),
        ("g6e.xlarge", "on-demand", "vector(2)"),
    ]


def test_kube_state_metrics_shows_the_labels_that_cost_is_counted_by(whole: Recording) -> None:
    (shown,) = release(whole).values["kube-state-metrics"]["metricLabelsAllowlist"]
    labels = {
        "label_" + re.sub(r"[^a-zA-Z0-9]", "_", label) for label in shown.removeprefix("nodes=[").rstrip("]").split(",")
    }
    used = {word for rule in cost_rules([OFFERED]) for word in re.findall(r"label_\w+_\w+", str(rule))}
    assert used - {"label_replace"} == labels


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on PATH (Debian's package prometheus brings it)")
def test_a_pool_costs_what_its_nodes_cost_at_the_plans_prices(tmp_path: Path) -> None:
    def node(name: str, instance_type: str, capacity: str, pool: str) -> dict[str, str]:
        labels = {
            "node": name,
            "label_node_kubernetes_io_instance_type": instance_type,
            "label_karpenter_sh_capacity_type": capacity,
            "label_karpenter_sh_nodepool": pool,
        }
        text = ",".join(f'{key}="{value}"' for key, value in labels.items() if value)
        return {"series": f"kube_node_labels{{{text}}}", "values": "1+0x20"}

    nodes = [
        node("a", "g6.xlarge", "spot", "fast"),
        node("b", "g6.xlarge", "spot", "fast"),
        node("c", "g6e.xlarge", "on-demand", "fast"),
        node("d", "g6.xlarge", "on-demand", "other"),
        node("system", "m7g.large", "", ""),
    ]
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "cost", "interval": "30s", "rules": cost_rules([OFFERED])}]})
    )
    # Two at 0.25 and one at 2; the system node is no pool's.
    samples = [
        {"labels": f'{POOL_USD}{{pool="fast"}}', "value": 2.5},
        {"labels": f'{POOL_USD}{{pool="other"}}', "value": 0.75},
    ]
    test = {
        "interval": "30s",
        "input_series": nodes,
        "promql_expr_test": [{"expr": POOL_USD, "eval_time": "5m", "exp_samples": samples}],
    }
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "30s", "tests": [test]}))
    run = subprocess.run([str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


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
        "Refused and failed",
        "Held in the router",
        "Time to first token, engine",
        "Time per output token, engine",
        "Time to first token, router",
        "Replicas",
        "Running",
        "Waiting in replicas",
        "Output tokens",
        "Input tokens",
        "Prefix cache hits",
        "KV cache in use",
        "Preemptions",
        "Cost of nodes",
        "GPU",
    ]


def test_panels_stand_side_by_side_and_never_on_each_other() -> None:
    places = [panel["gridPos"] for panel in json.loads(dashboard())["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    corners = {(place["x"], place["y"]) for place in places}
    assert len(corners) == len(places)
    assert len({panel["id"] for panel in json.loads(dashboard())["panels"]}) == len(places)
