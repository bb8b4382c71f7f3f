"""The router's objects as the program asks for them. That Envoy and picker run and hold requests is not proven here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pytest
import yaml

from components import versions
from components.router_config import envoy_bootstrap, picker_config
from components.tier_router import TierRouter, TierRouterArgs
from planning.plan import TierPlan
from tests.components.building import stand_in
from tests.components.plans import FAST, SPLIT, TIERS
from tests.components.serving import object_of, pod_of, pods_that_can_write_to_their_image, restricted_violations
from tests.harness import Recording, component_under_test, destroy_reachability, duplicate_urns, kubernetes_objects
from tests.schemas.checker import problems

LABELS = {
    "app.kubernetes.io/name": "fast-router",
    "app.kubernetes.io/component": "router",
    "app.kubernetes.io/part-of": "frugal-llm",
}


def router(tier: TierPlan, *, preview: bool = False) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> Mapping[str, Any]:
        args = TierRouterArgs(
            tier=tier, namespace="llm", vpc_cidr="10.42.0.0/16", prometheus=stand_in("prometheus", opts)
        )
        made = TierRouter(f"{tier.name}-router", args, opts)
        return {"service": made.service_name}

    return component_under_test(factory, preview=preview)


@pytest.fixture(scope="module")
def fast() -> Recording:
    return router(FAST)


def container(recording: Recording, name: str) -> dict[str, Any]:
    pod = pod_of(recording, "fast-router")
    (found,) = [one for one in [*pod["initContainers"], *pod["containers"]] if one["name"] == name]
    return found


def test_it_consists_of_these_objects(fast: Recording) -> None:
    assert [
        (one["kind"], one["metadata"]["name"].rsplit("-", 1)[0]) for one in kubernetes_objects(fast, "ConfigMap")
    ] == [
        ("ConfigMap", "fast-router-envoy"),
        ("ConfigMap", "fast-router-picker"),
    ]
    kinds = sorted(one["kind"] for one in kubernetes_objects(fast) if one["metadata"]["name"] == "fast-router")
    assert kinds == [
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
    ]
    assert duplicate_urns(fast) == []


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_the_api_server_would_take_every_object(tier: TierPlan) -> None:
    found = {one["kind"]: problems(one) for one in kubernetes_objects(router(tier))}
    assert {kind: complaints for kind, complaints in found.items() if complaints} == {}


def test_the_pod_passes_the_namespaces_restricted_standard(fast: Recording) -> None:
    assert restricted_violations(pod_of(fast, "fast-router")) == []
    assert pods_that_can_write_to_their_image(fast) == []


def test_there_is_one_replica_and_never_a_second_beside_it(fast: Recording) -> None:
    spec = object_of(fast, "Deployment", "fast-router")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_it_runs_on_system_nodes_and_so_never_on_spot(fast: Recording) -> None:
    assert pod_of(fast, "fast-router")["nodeSelector"] == {"frugal-llm/pool": "system"}
    assert "tolerations" not in pod_of(fast, "fast-router")


def test_envoy_outlives_the_picker(fast: Recording) -> None:
    pod = pod_of(fast, "fast-router")
    assert [one["name"] for one in pod["initContainers"]] == ["envoy"]
    assert container(fast, "envoy")["restartPolicy"] == "Always", "a sidecar: stopped after the picker has ended"
    assert [one["name"] for one in pod["containers"]] == ["picker"]


def test_new_requests_are_kept_away_before_the_picker_hears_of_its_end(fast: Recording) -> None:
    assert container(fast, "picker")["lifecycle"] == {"preStop": {"sleep": {"seconds": FAST.timeouts.pre_stop_s}}}
    assert pod_of(fast, "fast-router")["terminationGracePeriodSeconds"] == FAST.timeouts.grace_s


def test_the_pods_do_not_match_the_pickers_own_selector(fast: Recording) -> None:
    template = object_of(fast, "Deployment", "fast-router")["spec"]["template"]
    assert template["metadata"]["labels"] == LABELS, "with llm-d.ai/tier the picker would send requests to itself"


def test_a_change_of_configuration_rolls_the_pod(fast: Recording) -> None:
    named_by_kubernetes = {}
    for one in kubernetes_objects(fast, "ConfigMap"):
        part = one["metadata"]["name"].rsplit("-", 1)[0]
        resource = fast.named(part)
        assert "name" not in resource.inputs["metadata"], "named by Pulumi: a new text is a new object and a new name"
        assert one["immutable"] is True
        named_by_kubernetes[part.removeprefix("fast-router-")] = one["metadata"]["name"]
    volumes = {one["name"]: one["configMap"]["name"] for one in pod_of(fast, "fast-router")["volumes"]}
    assert volumes == named_by_kubernetes


def test_the_containers_get_the_rendered_configuration(fast: Recording) -> None:
    data = {key: text for one in kubernetes_objects(fast, "ConfigMap") for key, text in one["data"].items()}
    assert data == {"envoy.yaml": envoy_bootstrap(FAST), "picker.yaml": picker_config(FAST)}
    assert container(fast, "envoy")["args"][:2] == ["--config-path", "/etc/envoy/envoy.yaml"]
    assert "--config-file=/etc/picker/picker.yaml" in container(fast, "picker")["args"]
    mounts = {one["name"]: one["volumeMounts"] for one in [container(fast, "envoy"), container(fast, "picker")]}
    assert mounts == {
        "envoy": [{"name": "envoy", "mountPath": "/etc/envoy", "readOnly": True}],
        "picker": [{"name": "picker", "mountPath": "/etc/picker", "readOnly": True}],
    }


def test_images_are_pinned(fast: Recording) -> None:
    images = {name: container(fast, name)["image"] for name in ("envoy", "picker")}
    assert images == {"envoy": versions.ENVOY.reference, "picker": versions.ENDPOINT_PICKER.reference}
    assert not any(image.endswith((":latest", ":main")) for image in images.values())


def test_the_picker_knows_its_name_and_namespace(fast: Recording) -> None:
    fields = {one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in container(fast, "picker")["env"]}
    assert fields == {"NAMESPACE": "metadata.namespace", "POD_NAME": "metadata.name"}


def test_the_pod_is_ready_while_the_tier_sleeps(fast: Recording) -> None:
    picker, envoy = container(fast, "picker"), container(fast, "envoy")
    assert picker["readinessProbe"]["grpc"] == {"port": 9003, "service": "readiness"}
    assert envoy["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "ready"}


def test_resources_are_the_plans_and_memory_is_limited(fast: Recording) -> None:
    assert container(fast, "picker")["resources"] == {
        "requests": {"cpu": "300m", "memory": "512Mi"},
        "limits": {"memory": "512Mi"},
    }
    assert container(fast, "envoy")["resources"] == {
        "requests": {"cpu": "200m", "memory": "256Mi"},
        "limits": {"memory": "256Mi"},
    }


def test_the_picker_may_look_at_pods_of_its_namespace_and_nothing_else(fast: Recording) -> None:
    assert object_of(fast, "Role", "fast-router")["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    ]
    binding = object_of(fast, "RoleBinding", "fast-router")
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "fast-router"}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "fast-router", "namespace": "llm"}]
    assert pod_of(fast, "fast-router")["serviceAccountName"] == "fast-router"


def test_the_load_balancer_and_prometheus_may_reach_it(fast: Recording) -> None:
    policy = object_of(fast, "NetworkPolicy", "fast-router")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"] == {"matchLabels": LABELS}
    assert policy["ingress"] == [
        {
            "from": [{"ipBlock": {"cidr": "10.42.0.0/16"}}],
            "ports": [{"protocol": "TCP", "port": 8081}, {"protocol": "TCP", "port": 19001}],
        },
        {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "ports": [{"protocol": "TCP", "port": 9090}],
        },
    ]


def test_it_may_reach_its_engines_and_the_kubernetes_api_and_nothing_else() -> None:
    engines, api = object_of(router(SPLIT), "NetworkPolicy", "split-router")["spec"]["egress"]
    assert engines == {
        "to": [{"podSelector": {"matchLabels": {"llm-d.ai/tier": "split"}}}],
        "ports": [{"protocol": "TCP", "port": 8000}],
    }
    assert api["ports"] == [{"protocol": "TCP", "port": 443}]
    blocks = [one["ipBlock"]["cidr"] for one in api["to"]]
    assert blocks == ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "10.42.0.0/16"], "private ones and the VPC's"


def test_the_service_has_the_name_that_the_load_balancer_and_the_autoscaler_look_for(fast: Recording) -> None:
    assert fast.outputs["service"] == "fast-router"
    spec = object_of(fast, "Service", "fast-router")["spec"]
    assert spec["selector"] == LABELS
    assert spec["ports"] == [
        {"name": "http", "port": 80, "targetPort": 8081},
        {"name": "metrics", "port": 9090, "targetPort": 9090},
    ]


def test_it_is_scraped_as_often_as_the_autoscaler_looks(fast: Recording) -> None:
    spec = object_of(fast, "ServiceMonitor", "fast-router")["spec"]
    assert spec == {
        "selector": {"matchLabels": LABELS},
        "endpoints": [
            {
                "port": "metrics",
                "path": "/metrics",
                "interval": f"{FAST.timeouts.polling_interval_s}s",
                "relabelings": [{"action": "replace", "targetLabel": "tier", "replacement": "fast"}],
            }
        ],
    }


def test_its_only_replica_is_not_evicted_but_a_broken_one_is(fast: Recording) -> None:
    assert object_of(fast, "PodDisruptionBudget", "fast-router")["spec"] == {
        "minAvailable": 1,
        "selector": {"matchLabels": LABELS},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


def test_what_prometheus_defines_waits_for_prometheus_and_goes_before_it(fast: Recording) -> None:
    assert destroy_reachability(fast, "fast-router-service-monitor", "prometheus")


def test_the_picker_starts_with_its_rights_and_behind_its_walls(fast: Recording) -> None:
    for part in ("fast-router-role-binding", "fast-router-network-policy", "fast-router-role"):
        assert destroy_reachability(fast, "fast-router-deployment", part)


def test_a_first_preview_shows_the_same_objects() -> None:
    kinds = [[one["kind"] for one in kubernetes_objects(router(FAST, preview=preview))] for preview in (True, False)]
    assert kinds[0] == kinds[1]


def test_the_bootstrap_in_the_config_map_is_yaml_without_anchors(fast: Recording) -> None:
    (text,) = [
        one["data"]["envoy.yaml"] for one in kubernetes_objects(fast, "ConfigMap") if "envoy.yaml" in one["data"]
    ]
    assert yaml.safe_load(text)
    assert "&id" not in text
