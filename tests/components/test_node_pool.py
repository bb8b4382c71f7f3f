"""Node pools as the program asks for them. What Karpenter buys for them is not proven here."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pulumi
import pytest
import yaml

from components.node_pool import ServingNodePool, ServingNodePoolArgs
from planning.facts.node_images import NodeImage
from planning.plan import ExistingVpc, NetworkPlan, NodePoolPlan
from tests.components.building import CLUSTER, CPU_POOL, GPU_POOL, NETWORK, TAGS, ZONES, stand_in
from tests.harness import Recording, Resource, component_under_test

AL2023 = "al2023@v20260714"
BOTTLEROCKET = "bottlerocket@v1.62.1"
NODE_CLASS = "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass"
NODE_POOL = "kubernetes:karpenter.sh/v1:NodePool"


def pool(plan: NodePoolPlan, alias: str = AL2023, network: NetworkPlan = NETWORK) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> ServingNodePool:
        controller = stand_in("controller", opts)
        args = ServingNodePoolArgs(
            pool=plan,
            network=network,
            cluster_name=CLUSTER,
            node_role_name="nodes",
            image=NodeImage.of(alias),
            image_label=NodeImage.of(alias).label("1.36"),
            tags=TAGS,
        )
        after = pulumi.ResourceOptions(depends_on=[controller])
        return ServingNodePool(plan.name, args, pulumi.ResourceOptions.merge(opts, after))

    return component_under_test(factory)


@pytest.fixture(scope="module")
def gpu() -> Recording:
    return pool(GPU_POOL)


@pytest.fixture(scope="module")
def cpu() -> Recording:
    return pool(CPU_POOL)


def node_class(recording: Recording) -> dict[str, Any]:
    return only(recording, NODE_CLASS).inputs["spec"]


def node_pool(recording: Recording) -> dict[str, Any]:
    return only(recording, NODE_POOL).inputs["spec"]


def only(recording: Recording, kind: str) -> Resource:
    (found,) = recording.of_type(kind)
    return found


def requirements(recording: Recording) -> dict[str, tuple[str, list[str]]]:
    listed = node_pool(recording)["template"]["spec"]["requirements"]
    assert len({each["key"] for each in listed}) == len(listed)
    return {each["key"]: (each["operator"], each["values"]) for each in listed}


def test_one_pool_holds_all_types_and_both_ways_to_buy_so_that_prices_are_compared(gpu: Recording) -> None:
    assert len(gpu.of_type(NODE_POOL)) == len(gpu.of_type(NODE_CLASS)) == 1
    assert requirements(gpu) == {
        "kubernetes.io/arch": ("In", ["amd64"]),
        "kubernetes.io/os": ("In", ["linux"]),
        "topology.kubernetes.io/zone": ("In", list(ZONES)),
        "karpenter.sh/capacity-type": ("In", ["spot", "on-demand"]),
        "node.kubernetes.io/instance-type": ("In", ["g6.xlarge", "g5.xlarge", "g6e.xlarge"]),
        "frugal-llm/capacity": ("In", ["elastic", "floor"]),
        "karpenter.k8s.aws/instance-gpu-count": ("In", ["1"]),
    }
    assert "weight" not in node_pool(gpu)


def test_a_node_has_the_gpus_of_one_replica_so_fractions_and_half_empty_nodes_are_out(gpu: Recording) -> None:
    assert requirements(gpu)["karpenter.k8s.aws/instance-gpu-count"] == ("In", ["1"])
    four = pool(replace(GPU_POOL, gpu_count=4, instance_types=("g6e.12xlarge",)))
    assert requirements(four)["karpenter.k8s.aws/instance-gpu-count"] == ("In", ["4"])


@pytest.mark.parametrize("recording", ["gpu", "cpu"])
def test_the_api_is_v1_and_no_requirement_is_the_label_that_nodes_never_have(
    recording: str, request: pytest.FixtureRequest
) -> None:
    made: Recording = request.getfixturevalue(recording)
    assert only(made, NODE_POOL).inputs["apiVersion"] == "karpenter.sh/v1"
    assert only(made, NODE_CLASS).inputs["apiVersion"] == "karpenter.k8s.aws/v1"
    assert "nvidia.com/gpu" not in requirements(made), "nvidia.com/gpu is a resource, not a label"


def test_only_pods_that_tolerate_gpus_land_on_gpu_nodes(gpu: Recording) -> None:
    assert node_pool(gpu)["template"]["spec"]["taints"] == [
        {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}
    ]


def test_only_pods_of_the_pool_land_on_its_cpu_nodes(cpu: Recording) -> None:
    assert node_pool(cpu)["template"]["spec"]["taints"] == [
        {"key": "frugal-llm/pool", "value": "cpu", "effect": "NoSchedule"}
    ]


def test_pods_find_their_pool_and_the_device_plugin_its_gpus_by_label(gpu: Recording, cpu: Recording) -> None:
    assert node_pool(gpu)["template"]["metadata"]["labels"] == {
        "frugal-llm/pool": "gpu-1",
        "frugal-llm/node-image": "al2023-v20260714-1.36",
        "nvidia.com/gpu.present": "true",
    }
    assert node_pool(cpu)["template"]["metadata"]["labels"] == {
        "frugal-llm/pool": "cpu",
        "frugal-llm/node-image": "al2023-v20260714-1.36",
    }


def test_the_budget_bounds_gpus_and_processors(gpu: Recording) -> None:
    assert node_pool(gpu)["limits"] == {"cpu": "64", "nvidia.com/gpu": "8"}


def test_a_cpu_pool_asks_for_no_gpu_and_has_no_limit_of_gpus(cpu: Recording) -> None:
    assert node_pool(cpu)["limits"] == {"cpu": "96"}
    assert "karpenter.k8s.aws/instance-gpu-count" not in requirements(cpu)
    assert requirements(cpu)["kubernetes.io/arch"] == ("In", ["arm64"])


def test_nodes_in_use_are_never_moved_to_save_money_and_empty_ones_go_all_at_once(gpu: Recording) -> None:
    assert node_pool(gpu)["disruption"] == {
        "consolidationPolicy": "WhenEmpty",
        "consolidateAfter": "300s",
        "budgets": [{"nodes": "100%", "reasons": ["Empty"]}, {"nodes": "1", "reasons": ["Drifted"]}],
    }


def test_nodes_do_not_expire_under_their_replicas_and_a_drain_ends(gpu: Recording) -> None:
    spec = node_pool(gpu)["template"]["spec"]
    assert spec["expireAfter"] == "Never", "expiry ignores the budgets"
    assert spec["terminationGracePeriod"] == "10m"


def test_the_image_is_pinned(gpu: Recording) -> None:
    assert node_class(gpu)["amiSelectorTerms"] == [{"alias": AL2023}]


def test_nodes_are_found_by_the_tag_of_the_cluster(gpu: Recording) -> None:
    terms = [{"tags": {"karpenter.sh/discovery": CLUSTER}}]
    assert node_class(gpu)["subnetSelectorTerms"] == terms
    assert node_class(gpu)["securityGroupSelectorTerms"] == terms
    assert node_class(gpu)["role"] == "nodes"


def test_subnets_of_a_vpc_that_is_there_are_named_so_that_two_stacks_can_share_them() -> None:
    # A tag has one value per subnet: a second stack's tag would take the first one's nodes their subnets.
    existing = ExistingVpc("vpc-0123456789abcdef0", ("subnet-0000000a", "subnet-0000000b"), ())
    found = node_class(pool(GPU_POOL, network=NetworkPlan("10.8.0.0/16", ZONES[:2], (), (), 0, (), existing)))
    assert found["subnetSelectorTerms"] == [{"id": "subnet-0000000a"}, {"id": "subnet-0000000b"}]
    assert found["securityGroupSelectorTerms"] == [{"tags": {"karpenter.sh/discovery": CLUSTER}}], "EKS' own group"


def test_pods_cannot_take_the_credentials_of_the_node(gpu: Recording) -> None:
    assert node_class(gpu)["metadataOptions"] == {
        "httpEndpoint": "enabled",
        "httpTokens": "required",
        "httpPutResponseHopLimit": 1,
    }


def test_with_local_nvme_images_and_caches_are_on_it_and_the_root_volume_is_the_cheap_one(gpu: Recording) -> None:
    assert node_class(gpu)["instanceStorePolicy"] == "RAID0"
    assert node_class(gpu)["blockDeviceMappings"] == [{"deviceName": "/dev/xvda", "ebs": volume("60Gi", 125)}]


def test_without_local_nvme_the_root_volume_is_fast_enough_to_unpack_an_image(cpu: Recording) -> None:
    assert "instanceStorePolicy" not in node_class(cpu)
    assert node_class(cpu)["blockDeviceMappings"] == [{"deviceName": "/dev/xvda", "ebs": volume("80Gi", 600)}]


def volume(size: str, throughput: int) -> dict[str, Any]:
    return {
        "volumeSize": size,
        "volumeType": "gp3",
        "iops": 3000,
        "throughput": throughput,
        "encrypted": True,
        "deleteOnTermination": True,
    }


def test_al2023_unpacks_image_layers_in_parallel(gpu: Recording) -> None:
    configuration = yaml.safe_load(node_class(gpu)["userData"])
    assert (configuration["apiVersion"], configuration["kind"]) == ("node.eks.aws/v1alpha1", "NodeConfig")
    assert configuration["spec"] == {"featureGates": {"FastImagePull": True}}


def test_bottlerocket_has_its_two_volumes_its_own_device_plugin_and_no_node_config() -> None:
    recording = pool(GPU_POOL, BOTTLEROCKET)
    assert node_class(recording)["amiSelectorTerms"] == [{"alias": BOTTLEROCKET}]
    assert node_class(recording)["blockDeviceMappings"] == [
        {"deviceName": "/dev/xvda", "ebs": volume("4Gi", 125)},
        {"deviceName": "/dev/xvdb", "ebs": volume("60Gi", 125)},
    ]
    assert node_class(recording)["instanceStorePolicy"] == "RAID0"
    assert node_pool(recording)["template"]["metadata"]["labels"] == {
        "frugal-llm/pool": "gpu-1",
        "frugal-llm/node-image": "bottlerocket-v1.62.1-1.36",
    }, "the label would draw a second device plugin, which offers every GPU twice"


def test_bottlerocket_unpacks_image_layers_in_parallel_from_the_release_that_can() -> None:
    """Not proven: that Bottlerocket accepts the settings; an unknown key would keep it from booting."""
    user_data = tomllib.loads(node_class(pool(GPU_POOL, "bottlerocket@v1.45.0"))["userData"])
    assert user_data["settings"] == {
        "container-runtime": {"snapshotter": "soci"},
        "container-runtime-plugins": {"soci-snapshotter": {"pull-mode": "parallel-pull-unpack"}},
    }
    assert "userData" not in node_class(pool(GPU_POOL, "bottlerocket@v1.44.0")), "an older one does not know the keys"


def test_instances_carry_the_tag_that_the_bill_is_split_by_and_a_name(gpu: Recording) -> None:
    assert node_class(gpu)["tags"] == {"frugal-llm:stack": "dev", "Name": f"{CLUSTER}-gpu-1"}


def test_a_node_class_that_karpenter_cannot_resolve_fails_the_deployment(gpu: Recording) -> None:
    for kind in (NODE_CLASS, NODE_POOL):
        annotations = only(gpu, kind).inputs["metadata"]["annotations"]
        assert annotations == {"pulumi.com/waitFor": "condition=Ready"}, "and nothing that skips waiting on delete"


def test_the_pool_goes_before_its_class_and_both_before_the_controller(gpu: Recording) -> None:
    assert gpu.destroyed_before(only(gpu, NODE_POOL), only(gpu, NODE_CLASS))
    assert gpu.destroyed_before(only(gpu, NODE_CLASS), gpu.named("controller"))
    for kind in (NODE_POOL, NODE_CLASS):
        assert only(gpu, kind).timeouts.delete == "30m", "draining GPU nodes takes longer than the usual 10 minutes"
        assert only(gpu, kind).deleted_with == "", "a deletion that is skipped leaves instances running"
        assert not only(gpu, kind).retain_on_delete


def test_the_pool_refers_to_its_class_by_name(gpu: Recording) -> None:
    reference = node_pool(gpu)["template"]["spec"]["nodeClassRef"]
    assert reference == {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpu-1"}
    assert only(gpu, NODE_CLASS).inputs["metadata"]["name"] == "gpu-1"
    assert only(gpu, NODE_POOL).inputs["metadata"]["name"] == "gpu-1"
