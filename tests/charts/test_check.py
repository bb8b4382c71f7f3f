"""The check of chart values itself. That a chart renders with them, and what, is not proven here."""

from __future__ import annotations

import re
from pathlib import Path

from components import versions
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


def test_the_default_values_here_are_of_the_pinned_charts_but_for_the_two_that_the_sources_name() -> None:
    sources = (Path(__file__).parent / "SOURCES.md").read_text(encoding="utf-8")
    copied = {
        name: version
        for names, version in re.findall(r"^\| ([a-z0-9, -]+) \| (v?[\d.]+) \|", sources, re.MULTILINE)
        for name in names.split(", ")
    }
    charts = [chart for chart in vars(versions).values() if isinstance(chart, versions.Chart)]
    pinned = {chart.chart.rpartition("/")[2]: chart.version for chart in charts}
    assert copied.keys() == pinned.keys()
    newer = {name: version for name, version in pinned.items() if version != copied[name]}
    assert newer == {"keda": "2.21.0", "kube-prometheus-stack": "91.8.2"}
    assert "KEDA 2.21.0, kube-prometheus-stack 91.8.2" in sources


def test_the_load_balancer_controller_runs_on_the_policy_and_crds_of_its_own_version() -> None:
    # A later version calls what its own policy allows; this one is narrowed from v3.5.0's.
    tests = Path(__file__).parents[1]
    crds = (tests / "schemas" / "SOURCES.md").read_text(encoding="utf-8")
    program = (tests.parent / "components" / "controllers.py").read_text(encoding="utf-8")
    of_crds = re.search(r"^\| elbv2.*\| v([\d.]+),", crds, re.MULTILINE)
    of_policy = re.search(r"controller's own policy, v([\d.]+),", program)
    assert of_crds is not None
    assert of_policy is not None
    assert of_crds[1] == of_policy[1] == versions.AWS_LOAD_BALANCER_CONTROLLER.version
