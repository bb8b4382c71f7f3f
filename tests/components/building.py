"""Sample parts of a plan for the components of network, cluster and nodes."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from planning.plan import ClusterPlan, NetworkPlan, NodePoolPlan, SystemNodesPlan

REGION = "us-east-2"
ZONES = ("us-east-2a", "us-east-2b", "us-east-2c")
CLUSTER = "frugal-llm-dev"
TAGS = {"frugal-llm:stack": "dev"}

NETWORK = NetworkPlan(
    vpc_cidr="10.42.0.0/16",
    zones=ZONES,
    public_cidrs=("10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24"),
    private_cidrs=("10.42.64.0/18", "10.42.128.0/18", "10.42.192.0/18"),
    nat_gateways=1,
    interface_endpoints=(),
)
CLUSTER_PLAN = ClusterPlan(
    kubernetes_version="1.36",
    addon_versions={
        "vpc-cni": "v1.22.4-eksbuild.3",
        "kube-proxy": "v1.36.0-eksbuild.21",
        "coredns": "v1.14.3-eksbuild.16",
        "eks-pod-identity-agent": "v1.3.10-eksbuild.3",
        "aws-ebs-csi-driver": "v1.64.0-eksbuild.1",
        "metrics-server": "v0.9.0-eksbuild.11",
    },
    service_cidr="172.20.0.0/16",
)
SYSTEM_NODES = SystemNodesPlan(instance_type="m7g.large", cpu_architecture="arm64", count=2, maximum=4, volume_gib=40)
GPU_POOL = NodePoolPlan(
    name="gpu-1",
    instance_types=("g6.xlarge", "g5.xlarge", "g6e.xlarge"),
    capacity_types=("spot", "on-demand"),
    cpu_architectures=("amd64",),
    gpu_count=1,
    gpu_limit=8,
    cpu_limit=64,
    consolidate_after_s=300,
    root_volume_gib=60,
    root_volume_mib_per_second=125,
    local_nvme=True,
)
CPU_POOL = NodePoolPlan(
    name="cpu",
    instance_types=("c8g.4xlarge", "c7g.4xlarge"),
    capacity_types=("spot",),
    cpu_architectures=("arm64",),
    gpu_count=0,
    gpu_limit=0,
    cpu_limit=96,
    consolidate_after_s=600,
    root_volume_gib=80,
    root_volume_mib_per_second=600,
    local_nvme=False,
)


def stand_in(name: str, opts: pulumi.ResourceOptions, *, after: Sequence[pulumi.Resource] = ()) -> aws.sqs.Queue:
    """Make a resource that stands for some other: one to depend on, or one that depends on ``after``."""
    after_all = pulumi.ResourceOptions(depends_on=list(after))
    return aws.sqs.Queue(name, opts=pulumi.ResourceOptions.merge(opts, after_all))
