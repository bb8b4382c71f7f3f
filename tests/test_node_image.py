"""Every stack on either operating system: what its GPU nodes need to offer their GPUs, and to say how busy they are.

Not proven: that the images boot with the user data, nor what their own device plugin does.
"""

from __future__ import annotations

import functools
import tomllib
from typing import Any

import pytest
import yaml

from tests.harness import Recording, helm_releases, kubernetes_objects, record_with

ALIASES = {"al2023": "al2023@v20260714", "bottlerocket": "bottlerocket@v1.62.1"}
GPU_LABEL = "nvidia.com/gpu.present"


@pytest.fixture(params=ALIASES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@functools.cache
def recorded(stack: str, family: str) -> Recording:
    return record_with(stack, capacity={"amiAlias": ALIASES[family]})


@pytest.fixture
def recording(stack: str, family: str) -> Recording:
    return recorded(stack, family)


def specs(recording: Recording, kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"] for one in kubernetes_objects(recording, kind)}


def test_a_stack_renders_right_on_either_operating_system(recording: Recording, family: str) -> None:
    classes, pools = specs(recording, "EC2NodeClass"), specs(recording, "NodePool")
    assert classes
    assert classes.keys() == pools.keys()
    charts = {one.chart.rpartition("/")[2]: one.values for one in helm_releases(recording)}
    assert ("nvidia-device-plugin" in charts) == (family == "al2023"), "Bottlerocket has one of its own"
    for name, node_class in classes.items():
        labels = pools[name]["template"]["metadata"]["labels"]
        gpus = "nvidia.com/gpu" in pools[name]["limits"]
        assert (GPU_LABEL in labels) == (gpus and family == "al2023"), "the chart goes where the label is"
        assert node_class["amiSelectorTerms"] == [{"alias": ALIASES[family]}]
        user_data = node_class["userData"]
        data_volume = node_class["blockDeviceMappings"][-1]
        if family == "al2023":
            assert yaml.safe_load(user_data)["spec"]["featureGates"] == {"FastImagePull": True}
            assert data_volume["deviceName"] == "/dev/xvda"
        else:
            assert tomllib.loads(user_data)["settings"]["container-runtime"] == {"snapshotter": "soci"}
            assert data_volume["deviceName"] == "/dev/xvdb"
        assert int(data_volume["ebs"]["volumeSize"].removesuffix("Gi")) >= 60 or "instanceStorePolicy" in node_class, (
            "the engine's image has 25 GB unpacked: it needs a volume, or the local NVMe"
        )


def test_gpu_metrics_come_from_the_gpu_nodes_of_either_operating_system(recording: Recording) -> None:
    (exporter,) = (one.values for one in helm_releases(recording) if one.chart.rpartition("/")[2] == "dcgm-exporter")
    # Karpenter puts it on every node whose instance type has NVIDIA GPUs; it is no label of the pool.
    assert exporter["nodeSelector"] == {"karpenter.k8s.aws/instance-gpu-manufacturer": "nvidia"}
    taints = [spec["template"]["spec"]["taints"] for spec in specs(recording, "NodePool").values()]
    tolerated = {one["key"] for one in exporter["tolerations"]}
    assert all(taint["key"] in tolerated for each in taints for taint in each if taint["key"].startswith("nvidia"))


def test_the_operating_system_changes_the_nodes_and_nothing_else(stack: str) -> None:
    sides = [recorded(stack, each) for each in ALIASES]
    changed = {one.type for side, other in (sides, sides[::-1]) for one in side.resources if one not in other.resources}
    assert changed == {
        "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass",
        "kubernetes:karpenter.sh/v1:NodePool",
        "kubernetes:apps/v1:Deployment",  # its pods select the image
        "kubernetes:helm.sh/v3:Release",  # the device plugin
    }
