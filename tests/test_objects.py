"""Every object that the program emits, against the schema of its kind, and every Helm value against its chart.

It does not prove that an API server accepts them: rules in CEL and admission by webhooks are not run.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from components import versions
from components.names import POOL_LABEL
from offline.recording import Recording
from planning.facts.instances import instance_type
from planning.system_pods import DAEMONS, GPU_NODE_PODS
from tests.charts.check import unknown_values
from tests.harness import helm_releases, kubernetes_objects, record, record_with
from tests.schemas.checker import problems


def test_every_object_matches_the_schema_of_its_kind_without_an_unknown_field(
    preview: Recording, update: Recording
) -> None:
    for recording in (preview, update):
        objects = kubernetes_objects(recording)
        assert len(objects) > 40
        found = [f"{one['kind']} {one['metadata'].get('name')}: {text}" for one in objects for text in problems(one)]
        assert found == []


@pytest.fixture(scope="module", params=[True, False], ids=["preview", "update"])
def by_model(request: pytest.FixtureRequest) -> Recording:
    """Give the staging stack, which has everything else, with the model field too."""
    return record_with("staging", preview=request.param, routing={"defaultTier": "fast", "byModelField": True})


def test_the_model_field_adds_one_deployment_that_takes_what_has_no_header(by_model: Recording) -> None:
    objects = kubernetes_objects(by_model)
    assert [f"{one['kind']}: {text}" for one in objects for text in problems(one)] == []
    without = kubernetes_objects(record("staging", preview=True))
    added = Counter(one["kind"] for one in objects) - Counter(one["kind"] for one in without)
    assert added == {
        "Deployment": 1,
        "Service": 1,
        "ConfigMap": 1,
        "PodDisruptionBudget": 1,
        "NetworkPolicy": 2,
        "ServiceMonitor": 1,
    }
    (ingress,) = (one for one in objects if one["kind"] == "Ingress")
    action = json.loads(ingress["metadata"]["annotations"]["alb.ingress.kubernetes.io/actions.default-tier"])
    assert action["forwardConfig"]["targetGroups"] == [{"serviceName": "front-envoy", "servicePort": 80}]
    services = {one["metadata"]["name"] for one in objects if one["kind"] == "Service"}
    bootstrap = next(
        one["data"]["envoy.yaml"] for one in objects if "front-envoy" in str(one.get("metadata")) and "data" in one
    )
    called = set(re.findall(r"address: (\S+)\.llm\.svc\.cluster\.local", bootstrap))
    assert len(called) > 1
    assert called <= services


def test_every_helm_value_exists_in_its_chart(update: Recording) -> None:
    releases = helm_releases(update)
    assert len(releases) == 7
    for release in releases:
        assert unknown_values(release.chart, release.values) == [], release.chart


def test_a_pod_and_the_nodes_daemons_fit_every_type_of_its_pool(preview: Recording) -> None:
    """Requests of the rendered Deployment, the daemons' and DCGM's, against Karpenter's own allocatable figures."""
    daemons_cores = (DAEMONS.cpu_millicores + sum(pod.cpu_millicores for pod in GPU_NODE_PODS.values())) / 1000
    daemons_gib = (DAEMONS.memory_mib + sum(pod.memory_mib for pod in GPU_NODE_PODS.values())) / 1024
    pools = {
        pool["metadata"]["name"]: next(
            entry["values"]
            for entry in pool["spec"]["template"]["spec"]["requirements"]
            if entry["key"] == "node.kubernetes.io/instance-type"
        )
        for pool in kubernetes_objects(preview, "NodePool")
    }
    checked = 0
    for deployment in kubernetes_objects(preview, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        pool = pod.get("nodeSelector", {}).get(POOL_LABEL)
        sidecars = [one for one in pod.get("initContainers", ()) if one.get("restartPolicy") == "Always"]
        requests = [one["resources"]["requests"] for one in (*pod["containers"], *sidecars)]
        for name in pools.get(pool, ()):
            checked += 1
            node = instance_type(name)
            assert sum(_cores(one["cpu"]) for one in requests) + daemons_cores <= node.allocatable_cpu, name
            assert sum(_gib(one["memory"]) for one in requests) + daemons_gib <= node.allocatable_memory_gib, name
    assert checked > 5


def _cores(quantity: str) -> float:
    return float(quantity.removesuffix("m")) / 1000 if quantity.endswith("m") else float(quantity)


def _gib(quantity: str) -> float:
    return float(quantity.removesuffix("Mi")) / 1024 if quantity.endswith("Mi") else float(quantity.removesuffix("Gi"))


def test_every_release_is_pinned_and_no_image_is_latest(preview: Recording) -> None:
    for release in helm_releases(preview):
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", release.version), release.chart
    images = sorted(set(_images(kubernetes_objects(preview))))
    known = {value.reference for value in vars(versions).values() if isinstance(value, versions.Image)}
    assert images
    assert set(images) <= known
    assert not any(image.endswith(":latest") or ":" not in image for image in images)


def test_every_pod_may_run_in_a_restricted_namespace(preview: Recording) -> None:
    pods = [spec for one in kubernetes_objects(preview) if (spec := _pod_spec(one))]
    assert len(pods) >= 6
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["enableServiceLinks"] is False
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
            assert context["readOnlyRootFilesystem"] is True


def test_no_pool_is_of_a_removed_api_or_pinned_to_one_generation_of_requirement(preview: Recording) -> None:
    pools = kubernetes_objects(preview, "NodePool")
    assert pools
    for pool in pools:
        assert pool["apiVersion"] == "karpenter.sh/v1"
        requirements = {entry["key"]: entry for entry in pool["spec"]["template"]["spec"]["requirements"]}
        assert "nvidia.com/gpu" not in requirements
        if "karpenter.k8s.aws/instance-gpu-count" in requirements:
            assert requirements["karpenter.k8s.aws/instance-gpu-count"]["operator"] == "In"
            assert "nvidia.com/gpu" in pool["spec"]["limits"]
        assert pool["spec"]["disruption"]["consolidationPolicy"] == "WhenEmpty"


def test_nothing_asks_for_the_slow_kernel_and_nothing_waits_on_a_metric_that_is_absent_at_zero(
    preview: Recording,
) -> None:
    for one in kubernetes_objects(preview):
        pod = _pod_spec(one)
        for container in pod["containers"] if pod else ():
            if container["image"] == versions.VLLM.reference:
                assert not any(str(argument).startswith("--quantization") for argument in container["args"])
    for scaled in kubernetes_objects(preview, "ScaledObject"):
        queries = [
            trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"] if trigger["type"] == "prometheus"
        ]
        # vLLM's own series may add to the load of replicas that are up; something else must wake them.
        assert any("vllm:" not in query for query in queries)
        for query in queries:
            assert "or vector(0)" in query
            assert "rate(" not in query


def test_the_load_balancer_waits_longer_than_a_cold_start(preview: Recording) -> None:
    (ingress,) = kubernetes_objects(preview, "Ingress")
    attributes = ingress["metadata"]["annotations"]["alb.ingress.kubernetes.io/load-balancer-attributes"]
    idle = re.search(r"idle_timeout\.timeout_seconds=(\d+)", attributes)
    assert idle
    # Six minutes is the cold start that 60 s of default idle time-out famously cut.
    assert int(idle.group(1)) > 360


def test_root_volumes_hold_the_engines_image(preview: Recording) -> None:
    for node_class in kubernetes_objects(preview, "EC2NodeClass"):
        sizes = [entry["ebs"]["volumeSize"] for entry in node_class["spec"]["blockDeviceMappings"]]
        # Where local NVMe holds the images, the volume holds the system alone: EKS's own default is 20.
        on_nvme = node_class["spec"].get("instanceStorePolicy") == "RAID0"
        assert max(int(size.removesuffix("Gi")) for size in sizes) >= (30 if on_nvme else 60)


@pytest.mark.parametrize("kind", ["Secret", "Namespace"])
def test_serving_runs_in_its_own_restricted_namespace(preview: Recording, kind: str) -> None:
    if kind == "Namespace":
        labels = {
            one["metadata"]["name"]: one["metadata"].get("labels", {}) for one in kubernetes_objects(preview, kind)
        }
        assert labels["llm"]["pod-security.kubernetes.io/enforce"] == "restricted"
    else:
        # None is given in the shipped stacks, so none is made.
        assert kubernetes_objects(preview, kind) == []


def _pod_spec(one: dict[str, Any]) -> dict[str, Any] | None:
    if one["kind"] in {"Deployment", "Job", "DaemonSet", "StatefulSet"}:
        return one["spec"]["template"]["spec"]
    return None


def _images(objects: list[dict[str, Any]]) -> Iterator[str]:
    for one in objects:
        pod = _pod_spec(one)
        for container in (*pod["containers"], *pod.get("initContainers", ())) if pod else ():
            yield container["image"]
