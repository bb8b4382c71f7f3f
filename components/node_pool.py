"""A Karpenter node pool for serving pods, with GPUs or without, and its EC2 node class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_kubernetes as k8s

from components.names import CAPACITY_LABEL, GPU_RESOURCE, NODE_IMAGE_LABEL, POOL_LABEL
from planning.facts.node_images import Family, NodeImage
from planning.plan import NetworkPlan, NodePoolPlan

_SLOW_DELETE: Final = pulumi.CustomTimeouts(delete="30m")
"""Deleting a pool drains its nodes and waits for their instances; a GPU node takes longer than the usual 10 minutes."""

_WAIT_READY: Final = {"pulumi.com/waitFor": "condition=Ready"}
"""A role, image, subnet or group that Karpenter cannot resolve fails the deployment, not the first request."""

_PARALLEL_PULL: Final[Mapping[Family, str]] = {
    "al2023": """\
apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  featureGates:
    FastImagePull: true
""",
    "bottlerocket": """\
[settings.container-runtime]
snapshotter = "soci"

[settings.container-runtime-plugins.soci-snapshotter]
pull-mode = "parallel-pull-unpack"
""",
}
"""User data that pulls and unpacks layers in parallel: the engine's image has some 10 GB and is most of a cold start.
With ``instanceStorePolicy`` the snapshotter's directory is on the local NVMe too, on both (AWS' guide to SOCI)."""


@dataclass(frozen=True, kw_only=True)
class ServingNodePoolArgs:
    """What a node pool is built from."""

    pool: NodePoolPlan
    network: NetworkPlan
    cluster_name: str
    node_role_name: pulumi.Input[str]
    """``Karpenter.node_role_name``."""
    image: NodeImage
    """Pinned: a moving alias would replace every node on each release of the image."""
    image_label: str
    """``Plan.node_image_label``, as the engines select it."""
    tags: Mapping[str, str]
    """For instances and volumes: Karpenter makes them, no provider's default tags reach them."""


class ServingNodePool(pulumi.ComponentResource):
    """One NodePool over all instance types of the plan, spot and on-demand, so that Karpenter compares their prices.

    Pass ``opts`` with ``depends_on`` Karpenter's controller and CRDs: on destroy the pool then goes first, and the
    controller is there to terminate its instances. Workloads depend on this component in turn.
    """

    pool_name: str
    """Value of ``POOL_LABEL`` on the nodes."""
    node_class: k8s.apiextensions.CustomResource
    node_pool: k8s.apiextensions.CustomResource

    def __init__(self, name: str, args: ServingNodePoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:nodes:ServingNodePool", name, {}, opts)
        metadata = k8s.meta.v1.ObjectMetaArgs(name=args.pool.name, annotations=_WAIT_READY)
        self.pool_name = args.pool.name
        self.node_class = k8s.apiextensions.CustomResource(
            f"{name}-class",
            api_version="karpenter.k8s.aws/v1",
            kind="EC2NodeClass",
            metadata=metadata,
            spec=_node_class_spec(args),
            opts=pulumi.ResourceOptions(parent=self, custom_timeouts=_SLOW_DELETE),
        )
        self.node_pool = k8s.apiextensions.CustomResource(
            f"{name}-pool",
            api_version="karpenter.sh/v1",
            kind="NodePool",
            metadata=metadata,
            spec=_node_pool_spec(args),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.node_class], custom_timeouts=_SLOW_DELETE),
        )
        self.register_outputs({"pool_name": self.pool_name})


def _node_class_spec(args: ServingNodePoolArgs) -> dict[str, Any]:
    discovery = [{"tags": {"karpenter.sh/discovery": args.cluster_name}}]
    spec: dict[str, Any] = {
        "amiSelectorTerms": [{"alias": args.image.alias}],
        "role": args.node_role_name,
        "subnetSelectorTerms": _subnets(args.network) or discovery,
        "securityGroupSelectorTerms": discovery,
        # One hop ends at the node: pods cannot take the node's credentials.
        "metadataOptions": {"httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1},
        "blockDeviceMappings": _volumes(args),
        "tags": {**args.tags, "Name": f"{args.cluster_name}-{args.pool.name}"},
    }
    if args.pool.local_nvme:
        spec["instanceStorePolicy"] = "RAID0"
    if args.image.pulls_in_parallel:
        spec["userData"] = _PARALLEL_PULL[args.image.family]
    return spec


def _subnets(network: NetworkPlan) -> list[dict[str, Any]]:
    """Name the private subnets of a VPC that is there: of a tag, stacks that share one could have only one value."""
    return [{"id": subnet} for subnet in network.existing.private_subnet_ids] if network.existing else []


def _volumes(args: ServingNodePoolArgs) -> list[dict[str, Any]]:
    data = _volume(f"{args.pool.root_volume_gib}Gi", args.pool.root_volume_mib_per_second)
    if args.image.family == "al2023":
        return [{"deviceName": "/dev/xvda", "ebs": data}]
    # Bottlerocket keeps its read-only system apart from the volume for images and pods.
    return [{"deviceName": "/dev/xvda", "ebs": _volume("4Gi", 125)}, {"deviceName": "/dev/xvdb", "ebs": data}]


def _volume(size: str, throughput: int) -> dict[str, Any]:
    return {
        "volumeSize": size,
        "volumeType": "gp3",
        "iops": 3000,
        "throughput": throughput,
        "encrypted": True,
        "deleteOnTermination": True,
    }


def _node_pool_spec(args: ServingNodePoolArgs) -> dict[str, Any]:
    pool = args.pool
    gpus = pool.gpu_count > 0
    requirements = [
        _one_of("kubernetes.io/arch", pool.cpu_architectures),
        _one_of("kubernetes.io/os", ("linux",)),
        _one_of("topology.kubernetes.io/zone", args.network.zones),
        _one_of("karpenter.sh/capacity-type", pool.capacity_types),
        _one_of("node.kubernetes.io/instance-type", pool.instance_types),
        _one_of(CAPACITY_LABEL, ("elastic", "floor")),
    ]
    if gpus:
        # A node has the GPUs of one replica: never two replicas on a larger node that empties late, and never a type
        # whose GPU is a fraction, which counts 0 and offers no GPU to pods.
        requirements.append(_one_of("karpenter.k8s.aws/instance-gpu-count", (str(pool.gpu_count),)))
    labels = {POOL_LABEL: pool.name, NODE_IMAGE_LABEL: args.image_label}
    if gpus and not args.image.brings_device_plugin:
        # The device plugin's chart goes where it finds this.
        labels[f"{GPU_RESOURCE}.present"] = "true"
    return {
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": pool.name},
                "requirements": requirements,
                # Nothing but the engine's pods may keep these nodes from being empty.
                "taints": [
                    {"key": GPU_RESOURCE, "value": "true", "effect": "NoSchedule"}
                    if gpus
                    else {"key": POOL_LABEL, "value": pool.name, "effect": "NoSchedule"}
                ],
                # Expiry ignores budgets and kills a serving replica; with a pinned image the next node is the same.
                "expireAfter": "Never",
                # Above any pod's grace; bounds how long one pod can hold up a drain, and so a destroy.
                "terminationGracePeriod": "10m",
            },
        },
        "limits": {"cpu": str(pool.cpu_limit), **({GPU_RESOURCE: str(pool.gpu_limit)} if gpus else {})},
        "disruption": {
            # Consolidating nodes in use would kill replicas to save cents: on-demand back to spot, large to small.
            "consolidationPolicy": "WhenEmpty",
            "consolidateAfter": f"{pool.consolidate_after_s}s",
            # Empty nodes go all at once: each costs money and serves nobody. Nodes that drift for another reason than
            # their image go one by one, the next one there before.
            "budgets": [{"nodes": "100%", "reasons": ["Empty"]}, {"nodes": "1", "reasons": ["Drifted"]}],
        },
    }


def _one_of(key: str, values: tuple[str, ...]) -> dict[str, Any]:
    return {"key": key, "operator": "In", "values": list(values)}
