"""The objects around the Envoys that route by model, as the program asks for them. What these do: see the test of
their configuration."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest
import yaml

from components import versions
from components.model_router import ModelRouter, ModelRouterArgs
from components.model_router_config import envoy_bootstrap
from tests.components.building import stand_in
from tests.components.plans import BY_MODEL, MODEL_ROUTER
from tests.components.serving import object_of, pod_of, pods_that_can_write_to_their_image, restricted_violations
from tests.harness import Recording, component_under_test, destroy_reachability, kubernetes_objects
from tests.schemas.checker import problems

NAME = "front-envoy"
LABELS = {
    "app.kubernetes.io/name": "front-envoy",
    "app.kubernetes.io/component": "front-envoy",
    "app.kubernetes.io/part-of": "frugal-llm",
}


def model_router(*, preview: bool = False) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> None:
        served = [stand_in("tier", opts)]
        args = ModelRouterArgs(
            plan=MODEL_ROUTER,
            tiers=BY_MODEL,
            namespace="llm",
            vpc_cidr="10.42.0.0/16",
            served=served,
            prometheus=stand_in("prometheus", opts),
        )
        ModelRouter(NAME, args, opts)

    return component_under_test(factory, preview=preview)


@pytest.fixture(scope="module")
def made() -> Recording:
    return model_router()


def spec(recording: Recording) -> dict[str, Any]:
    return object_of(recording, "Deployment", NAME)["spec"]


def container(recording: Recording) -> dict[str, Any]:
    (found,) = pod_of(recording, NAME)["containers"]
    return found


def test_it_consists_of_these_objects_which_the_api_server_would_take(made: Recording) -> None:
    objects = kubernetes_objects(made)
    assert sorted(one["kind"] for one in objects) == [
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "ServiceMonitor",
    ]
    assert [text for one in objects for text in problems(one)] == []


def test_the_pod_passes_the_namespaces_restricted_standard(made: Recording) -> None:
    assert restricted_violations(pod_of(made, NAME)) == []
    assert pods_that_can_write_to_their_image(made) == []
    assert pod_of(made, NAME)["automountServiceAccountToken"] is False


def test_two_run_apart_on_system_nodes_and_one_at_a_time_may_go(made: Recording) -> None:
    assert spec(made)["replicas"] == 2
    pod = pod_of(made, NAME)
    assert pod["nodeSelector"] == {"frugal-llm/pool": "system"}
    assert pod["priorityClassName"] == "frugal-llm-serving"
    spread = {one["topologyKey"]: one["labelSelector"]["matchLabels"] for one in pod["topologySpreadConstraints"]}
    assert spread == {"topology.kubernetes.io/zone": LABELS, "kubernetes.io/hostname": LABELS}
    assert object_of(made, "PodDisruptionBudget", NAME)["spec"] == {
        "maxUnavailable": 1,
        "selector": {"matchLabels": LABELS},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


def test_a_roll_takes_one_after_the_other_and_needs_no_room_for_a_third(made: Recording) -> None:
    assert spec(made)["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
    }


def test_answers_may_end_before_envoy_hears_of_its_end(made: Recording) -> None:
    times = MODEL_ROUTER.timeouts
    assert container(made)["lifecycle"]["preStop"]["sleep"]["seconds"] == times.drain_s
    assert pod_of(made, NAME)["terminationGracePeriodSeconds"] == times.grace_s > times.drain_s


def test_the_container_is_envoy_with_its_configuration_and_the_planned_resources(made: Recording) -> None:
    envoy = container(made)
    assert envoy["image"] == versions.ENVOY.reference
    assert envoy["args"][-2:] == ["--concurrency", "1"]
    assert envoy["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "ready"}
    assert envoy["resources"] == {
        "requests": {"cpu": "150m", "memory": "176Mi"},
        "limits": {"memory": "176Mi"},
    }
    (config,) = kubernetes_objects(made, "ConfigMap")
    assert config["data"] == {"envoy.yaml": envoy_bootstrap(MODEL_ROUTER, BY_MODEL)}
    assert config["immutable"] is True
    (volume,) = pod_of(made, NAME)["volumes"]
    assert volume["configMap"]["name"] == config["metadata"]["name"], "a new text rolls the pods"


def test_the_load_balancer_and_prometheus_may_reach_it_and_it_may_reach_the_routers_only(made: Recording) -> None:
    policy = object_of(made, "NetworkPolicy", NAME)["spec"]
    assert policy["podSelector"] == {"matchLabels": LABELS}
    assert policy["ingress"] == [
        {
            "from": [{"ipBlock": {"cidr": "10.42.0.0/16"}}],
            "ports": [{"protocol": "TCP", "port": 8081}, {"protocol": "TCP", "port": 19001}],
        },
        {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "ports": [{"protocol": "TCP", "port": 19002}],
        },
    ]
    routers = {"app.kubernetes.io/component": "router", "app.kubernetes.io/part-of": "frugal-llm"}
    to_routers = [{"protocol": "TCP", "port": 8081}]
    assert policy["egress"] == [{"to": [{"podSelector": {"matchLabels": routers}}], "ports": to_routers}]
    other_end = object_of(made, "NetworkPolicy", "front-envoy-to-routers")["spec"]
    assert other_end == {
        "podSelector": {"matchLabels": routers},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": LABELS}}], "ports": to_routers}],
    }


def test_the_service_sends_to_its_pods(made: Recording) -> None:
    service = object_of(made, "Service", NAME)["spec"]
    assert service["selector"] == LABELS
    assert service["ports"] == [
        {"name": "http", "port": 80, "targetPort": 8081},
        {"name": "metrics", "port": 19002, "targetPort": 19002},
    ]


def test_prometheus_finds_its_metrics_where_envoy_shows_them(made: Recording) -> None:
    monitor = object_of(made, "ServiceMonitor", NAME)
    assert monitor["metadata"]["labels"] == {**LABELS, "release": "prometheus"}
    assert monitor["spec"]["selector"] == {"matchLabels": LABELS}
    (where,) = monitor["spec"]["endpoints"]
    assert where == {"port": "metrics", "path": "/stats/prometheus", "params": {"usedonly": [""]}}
    service = object_of(made, "Service", NAME)
    assert service["metadata"]["labels"] == LABELS
    (target,) = (one["targetPort"] for one in service["spec"]["ports"] if one["name"] == where["port"])
    bootstrap = yaml.safe_load(envoy_bootstrap(MODEL_ROUTER, BY_MODEL))
    listeners = {one["name"]: one["address"]["socket_address"] for one in bootstrap["static_resources"]["listeners"]}
    assert listeners["metrics"] == {"address": "0.0.0.0", "port_value": target}
    assert destroy_reachability(made, "front-envoy-service-monitor", "prometheus")


def test_it_starts_after_the_tiers_that_it_looks_up_and_goes_before_them(made: Recording) -> None:
    for first in ("front-envoy-deployment", "front-envoy-service"):
        assert destroy_reachability(made, first, "tier")
    assert destroy_reachability(made, "front-envoy-deployment", "front-envoy-network-policy")


def test_a_first_preview_shows_the_same_objects(made: Recording) -> None:
    kinds = [[one["kind"] for one in kubernetes_objects(one)] for one in (model_router(preview=True), made)]
    assert kinds[0] == kinds[1]
