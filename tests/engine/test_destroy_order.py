"""Every order in which the graph lets a stack be destroyed, in a small world that refuses the wrong ones.

Not proven: that the world is AWS. What it refuses is what AWS or a controller would; each arrow is cut once to see it.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.engine.order import Destroy, built
from tests.engine.world import ATTACHMENT, Refused
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


def network_addon(recording: Recording) -> list[Resource]:
    return [one for one in recording.of_type("aws:eks/addon:Addon") if one.inputs["addonName"] == "vpc-cni"]


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
    "nodes, their CNI": (NODE_GROUP, network_addon),
    "pools, NAT gateway": (types(NODE_POOL, NODE_CLASS), types("aws:ec2/natGateway:NatGateway")),
    "routes, table": (
        types("aws:ec2/route:Route", "aws:ec2/routeTableAssociation:RouteTableAssociation"),
        types("aws:ec2/routeTable:RouteTable"),
    ),
    "objects, namespace": (types("kubernetes:core/v1:ServiceAccount"), types("kubernetes:core/v1:Namespace")),
}
ARROWS = {name: pair[:2] for name, pair in DESTROY_ORDER.items()} | MORE_ARROWS

REFUSALS = {
    "class, karpenter": r"Release karpenter-controller: nobody would clear the finalizer of pool-fast-class",
    "pool, definitions": r"Release karpenter-crd: its definitions would take along pool-fast-pool",
    "karpenter, definitions": r"Release karpenter-crd: its definitions are watched by karpenter-controller",
    "karpenter, rights": r"pool-fast-class: timed out on its finalizer: .* without the identity of karpenter",
    "karpenter, queue": r"pool-fast-class: timed out on its finalizer: .* without its queue",
    "karpenter, nodes": r"NodeGroup cluster-system: its nodes still run karpenter-controller",
    "karpenter, add-ons": r"pool-fast-class: timed out on its finalizer: .* without vpc-cni, kube-proxy, coredns, eks-",
    "class, entry": r"AccessEntry karpenter-node: shut out before they have drained: nodes of pool-fast-class",
    "ingress, controller": r"controllers-load-balancer-controller: nobody would clear the finalizer of ingress-ingress",
    "balancers, rights": r"ingress-ingress: timed out on its finalizer: .* without the identity of aws-load-balancer",
    "balancers, nodes": r"NodeGroup cluster-system: its nodes still run controllers-load-balancer-controller",
    "scaling, keda": r"Release controllers-keda: nobody would clear the finalizer of fast-autoscaler-engine",
    "keda, nodes": r"NodeGroup cluster-system: its nodes still run controllers-keda",
    "nodes, cluster": r"Cluster cluster: ResourceInUseException: Cluster has nodegroups attached: cluster-system",
    "nodes, network": r"NatGateway .*: the way to EC2 and the cluster's endpoint is cut for cluster-system",
    "cluster, subnets": r"Subnet network-private.*: The subnet has dependencies and cannot be deleted: cluster$",
    "pool, class": r"EC2NodeClass pool-fast-class: nodes are still launched from it by pool-fast-pool",
    "workloads, pools": r"NodePool pool-fast-pool: its nodes still run fast-engine-deployment",
    "load balancer, subnets": r"Subnet network-private.*: DependencyViolation: network interfaces of ingress-ingress",
    "pools, subnets": r"Subnet network-private.*: DependencyViolation: network interfaces of pool-fast-class",
    "volume, its driver": r"Release observability-prometheus: its volume stays: no driver is left to delete it",
    "monitors, their definitions": r"observability-prometheus: its definitions would take along .*-pod-monitor",
    "pools, queue": r"NodePool pool-fast-pool: timed out on its finalizer: .* without its queue",
    "policies, role": r"Role karpenter-controller: DeleteConflict: Cannot delete entity, must detach all policies",
    "attachments, policy": r"Policy karpenter-.*: DeleteConflict: Cannot delete a policy attached to entities: karp",
    "NAT gateway, its address": r"Eip network-nat-.*: InvalidIPAddress.InUse: it belongs to network-nat-",
    "NAT gateway, internet gateway": r"InternetGateway .* has some mapped public addresses: network-nat-",
    "subnets, network": r"Vpc network-vpc: .*The vpc has dependencies and cannot be deleted: network-private-",
    "nodes, subnets": r"Vpc network-vpc: DependencyViolation: network interfaces of cluster-system",
    "cluster, its key": r"Key cluster-secrets: the secrets are unreadable without it of cluster$",
    "nodes, their CNI": r"Addon cluster-vpc-cni: no node is Ready without it: cluster-system",
    "pools, NAT gateway": r"pool-fast-class: timed out on its finalizer: .* without a NAT gateway",
    "routes, table": r"RouteTable .*: The routeTable has dependencies and cannot be deleted: network-",
    "objects, namespace": r"Namespace serving-namespace: it would stay in Terminating with fast-engine-",
}
"""What stands in the way when one arrow is gone and all others are there."""

QUICK = "class, karpenter"
SLOW = pytest.mark.slow
"""Each arrow takes a second, for it walks all resources twice."""


def test_a_stack_is_destroyed_without_a_refusal_and_nothing_is_left(update: Recording) -> None:
    assert Destroy(update).all().things == {}


def test_no_order_that_the_graph_allows_is_refused(update: Recording) -> None:
    assert list(Destroy(update).refusals()) == []


@pytest.mark.parametrize("arrow", [pytest.param(one, marks=() if one == QUICK else SLOW) for one in ARROWS])
def test_without_an_arrow_the_world_refuses_what_it_kept_in_order(prod_update: Recording, arrow: str) -> None:
    first, second = ARROWS[arrow]
    firsts, seconds = first(prod_update), second(prod_update)
    assert firsts
    assert seconds
    told = list(Destroy(prod_update).without(firsts, seconds).refusals())
    assert any(re.search(REFUSALS[arrow], line) for line in told), told


@pytest.mark.parametrize(("account", "policies"), [("karpenter", 6), ("aws-load-balancer-controller", 2)])
def test_a_controller_misses_each_of_its_policies(prod_update: Recording, account: str, policies: int) -> None:
    """Karpenter's template has six; the other controller's rights are split into reading and changing."""
    attached = [one for one in identity(account)(prod_update) if one.type == ATTACHMENT]
    assert len(attached) == policies
    users = prod_update.of_type(NODE_CLASS) if account == "karpenter" else every_ingress(prod_update)
    for one in attached:
        told = list(Destroy(prod_update).without(users, [one]).refusals(of=users))
        assert any(line.endswith(f"works no more without 1 policies of {account}") for line in told), (one.name, told)


def test_a_cluster_is_not_deleted_under_a_node_pool_and_the_error_says_so(prod_update: Recording) -> None:
    pools = prod_update.of_type(NODE_POOL, NODE_CLASS)
    told = "\n".join(Destroy(prod_update).without(pools, CLUSTER(prod_update)).refusals())
    assert "cannot delete aws:eks/cluster:Cluster cluster: left behind in it: pool-fast-class, pool-fast-pool" in told


def test_a_network_is_not_deleted_under_a_load_balancer_and_the_error_says_so(prod_update: Recording) -> None:
    ingresses = every_ingress(prod_update)
    told = "\n".join(Destroy(prod_update).without(ingresses, private_network(prod_update)).refusals())
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
