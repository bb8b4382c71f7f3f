"""The check of chart values itself. That a chart renders with them, and what, is not proven here."""

from __future__ import annotations

from tests.charts.check import unknown_values


def test_keys_of_the_charts_defaults_pass() -> None:
    values = {"replicaCount": 1, "serviceAccount": {"create": True, "name": "controller"}, "vpcId": "vpc-1"}
    assert unknown_values("aws-load-balancer-controller", values) == []


def test_a_misspelled_key_is_named_with_its_place() -> None:
    values = {"replicaCounts": 1, "serviceAccount": {"nam": "controller"}}
    assert unknown_values("aws-load-balancer-controller", values) == [
        "replicaCounts: the chart has no such value",
        "serviceAccount.nam: the chart has no such value",
    ]


def test_below_an_empty_default_everything_passes() -> None:
    assert unknown_values("keda", {"nodeSelector": {"frugal-llm/pool": "system"}}) == []
    assert unknown_values("aws-load-balancer-controller", {"resources": {"requests": {"cpu": "50m"}}}) == []


def test_a_map_where_the_chart_has_a_scalar_is_refused_and_the_other_way_round() -> None:
    assert unknown_values("keda", {"clusterDomain": {"name": "x"}, "rbac": True}) == [
        "clusterDomain: is a map, the chart's default is 'cluster.local'",
        "rbac: is a truth value, the chart's default is a map",
    ]


def test_a_text_for_a_truth_value_is_refused() -> None:
    # "false" is true in a template.
    assert unknown_values("keda", {"rbac": {"create": "false"}}) == [
        "rbac.create: is 'false', the chart's default is a truth value"
    ]


def test_a_chart_of_an_oci_registry_goes_by_its_last_name() -> None:
    oci = "oci://ghcr.io/prometheus-community/charts/kube-prometheus-stack"
    assert unknown_values(oci, {"prometheus": {"prometheusSpec": {"retention": "15d", "retentions": "1d"}}}) == [
        "prometheus.prometheusSpec.retentions: the chart has no such value"
    ]


def test_values_of_a_chart_inside_a_chart_are_known_as_far_as_they_are_set() -> None:
    assert unknown_values("kube-prometheus-stack", {"grafana": {"nodeSelector": {"a": "b"}, "enabled": False}}) == []
    assert unknown_values("kube-prometheus-stack", {"grafana": {"replicas": 2}}) != []


def test_a_chart_without_copied_defaults_is_a_problem_by_itself() -> None:
    assert unknown_values("metrics-server", {}) == ["no default values of a chart 'metrics-server' are here"]
