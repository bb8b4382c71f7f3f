"""Every order in which the graph lets a stack be destroyed, in a small world that refuses the wrong ones.

Not proven: that the world is AWS. What it refuses is what AWS or a controller would; each arrow is cut once to see it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.engine.order import Destroy, built
from tests.engine.world import Refused
from tests.harness import Recording, Resource
from tests.test_program import (
    CLUSTER,
    DESTROY_ORDER,
    NETWORK,
    NODE_CLASS,
    NODE_GROUP,
    NODE_POOL,
    QUEUE,
    Chosen,
    core_addons,
    every_ingress,
    identity,
    private_network,
    release,
    types,
)

PROMETHEUS = release("kube-prometheus-stack")


def volume_driver(recording: Recording) -> list[Resource]:
    addons = recording.of_type("aws:eks/addon:Addon")
    return [one for one in addons if one.inputs["addonName"] == "aws-ebs-csi-driver"]


MORE_ARROWS: dict[str, tuple[Chosen, Chosen]] = {
    "pool, class": (types(NODE_POOL), types(NODE_CLASS)),
    "workloads, pools": (types("kubernetes:apps/v1:Deployment"), types(NODE_POOL)),
    "load balancer, subnets": (every_ingress, private_network),
    "pools, subnets": (types(NODE_POOL, NODE_CLASS), private_network),
    "volume, its driver": (PROMETHEUS, volume_driver),
    "monitors, their definitions": (
        types("kubernetes:monitoring.coreos.com/v1:PodMonitor", "kubernetes:monitoring.coreos.com/v1:ServiceMonitor"),
        PROMETHEUS,
    ),
    "pools, queue": (types(NODE_POOL, NODE_CLASS), QUEUE),
    "policies, role": (types("aws:iam/rolePolicyAttachment:RolePolicyAttachment"), types("aws:iam/role:Role")),
    "attachments, policy": (types("aws:iam/rolePolicyAttachment:RolePolicyAttachment"), types("aws:iam/policy:Policy")),
    "NAT gateway, its address": (types("aws:ec2/natGateway:NatGateway"), types("aws:ec2/eip:Eip")),
    "NAT gateway, internet gateway": (
        types("aws:ec2/natGateway:NatGateway"),
        types("aws:ec2/internetGateway:InternetGateway"),
    ),
    "subnets, network": (types("aws:ec2/subnet:Subnet"), types("aws:ec2/vpc:Vpc")),
    "nodes, subnets": (NODE_GROUP, private_network),
    "cluster, its key": (CLUSTER, types("aws:kms/key:Key")),
}
ARROWS = {name: pair[:2] for name, pair in DESTROY_ORDER.items()} | MORE_ARROWS


def test_a_stack_is_destroyed_without_a_refusal_and_nothing_is_left(update: Recording) -> None:
    assert Destroy.of(update).all().things == {}


def test_no_order_that_the_graph_allows_is_refused(update: Recording) -> None:
    assert list(Destroy.of(update).refusals()) == []


@pytest.mark.parametrize("arrow", ARROWS)
def test_without_an_arrow_the_world_refuses(prod_update: Recording, arrow: str) -> None:
    first, second = ARROWS[arrow]
    firsts, seconds = first(prod_update), second(prod_update)
    assert firsts
    assert seconds
    told = list(Destroy.of(prod_update).without(firsts, seconds).refusals())
    assert told, f"{arrow}: the model would not notice"


def test_a_cluster_is_not_deleted_under_a_node_pool_and_the_error_says_so(prod_update: Recording) -> None:
    pools = prod_update.of_type(NODE_POOL, NODE_CLASS)
    told = "\n".join(Destroy.of(prod_update).without(pools, CLUSTER(prod_update)).refusals())
    assert "cannot delete aws:eks/cluster:Cluster cluster: left behind in it: pool-fast-class, pool-fast-pool" in told


def test_a_network_is_not_deleted_under_a_load_balancer_and_the_error_says_so(prod_update: Recording) -> None:
    ingresses = every_ingress(prod_update)
    told = "\n".join(Destroy.of(prod_update).without(ingresses, private_network(prod_update)).refusals())
    assert "cannot delete aws:ec2/vpc:Vpc network-vpc: DependencyViolation: network interfaces of ingress" in told


def test_the_world_refuses_what_is_made_before_what_it_needs(prod_update: Recording) -> None:
    pools = prod_update.of_type(NODE_POOL)
    others = [one for one in prod_update.resources if one not in pools]
    with pytest.raises(Refused, match="the cluster is gone"):
        built(replace(prod_update, resources=(*pools, *others)))
    releases = release("karpenter-crd")(prod_update)
    others = [one for one in prod_update.resources if one not in releases]
    with pytest.raises(Refused, match="no matches for kind EC2NodeClass: karpenter-crd is not installed"):
        built(replace(prod_update, resources=tuple(others)))


def test_everything_that_the_arrows_name_is_there(prod_update: Recording) -> None:
    for chosen in (core_addons, identity("karpenter"), NETWORK):
        assert chosen(prod_update)
