"""The network as the program asks for it. That AWS takes it, and that packets flow, is not proven here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pulumi
import pytest

from components.network import Network, NetworkArgs
from planning.plan import ExistingVpc, NetworkPlan
from tests.components.building import CLUSTER, NETWORK, REGION, ZONES, stand_in
from tests.harness import Recording, Resource, component_under_test

SUBNET = "aws:ec2/subnet:Subnet"
ROUTE = "aws:ec2/route:Route"
ASSOCIATION = "aws:ec2/routeTableAssociation:RouteTableAssociation"
ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"


def network(plan: NetworkPlan) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> dict[str, pulumi.Output[Sequence[str]]]:
        made = Network("network", NetworkArgs(plan=plan, region=REGION, cluster_name=CLUSTER), opts)
        stand_in("node", opts, after=made.ready)
        return {"public": made.public_subnet_ids, "private": made.private_subnet_ids}

    return component_under_test(factory, region=REGION)


@pytest.fixture(scope="module")
def single() -> Recording:
    return network(NETWORK)


@pytest.fixture(scope="module")
def per_zone() -> Recording:
    return network(replace(NETWORK, nat_gateways=3, interface_endpoints=("ecr.api", "ecr.dkr")))


def subnets(recording: Recording, kind: str) -> list[Resource]:
    return [recording.named(f"network-{kind}-{zone}", SUBNET) for zone in ZONES]


def test_the_vpc_resolves_private_names_as_interface_and_api_endpoints_need(single: Recording) -> None:
    (vpc,) = single.of_type("aws:ec2/vpc:Vpc")
    assert vpc.inputs["cidrBlock"] == "10.42.0.0/16"
    assert (vpc.inputs["enableDnsHostnames"], vpc.inputs["enableDnsSupport"]) == (True, True)


def test_each_zone_has_one_public_and_one_private_subnet_of_the_plan(single: Recording) -> None:
    assert len(single.of_type(SUBNET)) == 6
    for kind, cidrs in (("public", NETWORK.public_cidrs), ("private", NETWORK.private_cidrs)):
        for zone, cidr, subnet in zip(ZONES, cidrs, subnets(single, kind), strict=True):
            assert (subnet.inputs["availabilityZone"], subnet.inputs["cidrBlock"]) == (zone, cidr)
            assert subnet.inputs["mapPublicIpOnLaunch"] is False, "nothing gets a public address by accident"


def test_load_balancers_find_both_kinds_of_subnets_and_karpenter_only_the_private_ones(single: Recording) -> None:
    for subnet in subnets(single, "public"):
        assert subnet.inputs["tags"]["kubernetes.io/role/elb"] == "1"
        assert "karpenter.sh/discovery" not in subnet.inputs["tags"]
    for subnet in subnets(single, "private"):
        assert subnet.inputs["tags"]["kubernetes.io/role/internal-elb"] == "1"
        assert subnet.inputs["tags"]["karpenter.sh/discovery"] == CLUSTER


def test_with_a_single_gateway_all_zones_leave_through_the_first_one(single: Recording) -> None:
    (nat,) = single.of_type("aws:ec2/natGateway:NatGateway")
    (address,) = single.of_type("aws:ec2/eip:Eip")
    assert nat.inputs["subnetId"] == subnets(single, "public")[0].id
    assert nat.inputs["allocationId"] == address.id
    for zone in ZONES:
        assert single.named(f"network-private-{zone}-nat", ROUTE).inputs["natGatewayId"] == nat.id


def test_with_a_gateway_per_zone_no_zone_depends_on_another(per_zone: Recording) -> None:
    assert len(per_zone.of_type("aws:ec2/natGateway:NatGateway")) == len(per_zone.of_type("aws:ec2/eip:Eip")) == 3
    for zone, public in zip(ZONES, subnets(per_zone, "public"), strict=True):
        nat = per_zone.named(f"network-nat-{zone}", "aws:ec2/natGateway:NatGateway")
        assert nat.inputs["subnetId"] == public.id
        assert per_zone.named(f"network-private-{zone}-nat", ROUTE).inputs["natGatewayId"] == nat.id


def test_private_subnets_have_a_table_each_so_that_more_gateways_move_no_subnet(single: Recording) -> None:
    assert len(single.of_type("aws:ec2/routeTable:RouteTable")) == 4
    for zone, subnet in zip(ZONES, subnets(single, "private"), strict=True):
        table = single.named(f"network-private-{zone}", "aws:ec2/routeTable:RouteTable")
        association = single.named(f"network-private-{zone}", ASSOCIATION)
        assert (association.inputs["routeTableId"], association.inputs["subnetId"]) == (table.id, subnet.id)
        assert single.named(f"network-private-{zone}-nat", ROUTE).inputs["routeTableId"] == table.id


def test_public_subnets_lead_to_the_internet_gateway(single: Recording) -> None:
    (gateway,) = single.of_type("aws:ec2/internetGateway:InternetGateway")
    table = single.named("network-public", "aws:ec2/routeTable:RouteTable")
    route = single.named("network-public-internet", ROUTE)
    assert (route.inputs["routeTableId"], route.inputs["gatewayId"]) == (table.id, gateway.id)
    assert route.inputs["destinationCidrBlock"] == "0.0.0.0/0"
    for zone, subnet in zip(ZONES, subnets(single, "public"), strict=True):
        association = single.named(f"network-public-{zone}", ASSOCIATION)
        assert (association.inputs["routeTableId"], association.inputs["subnetId"]) == (table.id, subnet.id)


def test_the_default_security_group_lets_nobody_talk(single: Recording) -> None:
    (group,) = single.of_type("aws:ec2/defaultSecurityGroup:DefaultSecurityGroup")
    assert "ingress" not in group.inputs
    assert "egress" not in group.inputs


def test_s3_is_reached_past_the_nat_gateway_from_every_subnet(single: Recording) -> None:
    (endpoint,) = single.of_type(ENDPOINT)
    assert endpoint.inputs["vpcEndpointType"] == "Gateway"
    assert endpoint.inputs["serviceName"] == "com.amazonaws.us-east-2.s3"
    tables = {table.id for table in single.of_type("aws:ec2/routeTable:RouteTable")}
    assert set(endpoint.inputs["routeTableIds"]) == tables


def test_the_s3_endpoint_lets_data_out_only_to_buckets_of_the_own_account(single: Recording) -> None:
    (endpoint,) = single.of_type(ENDPOINT)
    read, write = json.loads(endpoint.inputs["policy"])["Statement"]
    assert "Condition" not in read
    assert not {"s3:PutObject", "s3:DeleteObject"} & set(read["Action"])
    assert write["Condition"] == {"StringEquals": {"aws:ResourceAccount": "${aws:PrincipalAccount}"}}
    assert "s3:PutObject" in write["Action"]
    assert all("*" not in action for statement in (read, write) for action in statement["Action"])


def test_interface_endpoints_are_those_of_the_plan_and_take_only_https_from_inside(per_zone: Recording) -> None:
    (group,) = per_zone.of_type("aws:ec2/securityGroup:SecurityGroup")
    (rule,) = per_zone.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    assert rule.inputs["securityGroupId"] == group.id
    assert (rule.inputs["fromPort"], rule.inputs["toPort"], rule.inputs["ipProtocol"]) == (443, 443, "tcp")
    assert rule.inputs["cidrIpv4"] == "10.42.0.0/16"
    endpoints = [found for found in per_zone.of_type(ENDPOINT) if found.inputs["vpcEndpointType"] == "Interface"]
    services = {endpoint.inputs["serviceName"] for endpoint in endpoints}
    assert services == {"com.amazonaws.us-east-2.ecr.api", "com.amazonaws.us-east-2.ecr.dkr"}
    for endpoint in endpoints:
        assert endpoint.inputs["privateDnsEnabled"] is True
        assert endpoint.inputs["subnetIds"] == [subnet.id for subnet in subnets(per_zone, "private")]
        assert endpoint.inputs["securityGroupIds"] == [group.id]


def test_without_interface_endpoints_there_is_no_security_group_for_them(single: Recording) -> None:
    assert single.of_type("aws:ec2/securityGroup:SecurityGroup") == []


def test_the_way_out_outlives_the_nodes(single: Recording) -> None:
    node = single.named("node")
    for kind in (ROUTE, ASSOCIATION, "aws:ec2/natGateway:NatGateway", "aws:ec2/eip:Eip", ENDPOINT):
        for resource in single.of_type(kind):
            assert single.destroyed_before(node, resource), f"{resource.name} goes while nodes still need it"


def test_addresses_and_gateways_leave_before_the_internet_gateway_is_detached(single: Recording) -> None:
    (gateway,) = single.of_type("aws:ec2/internetGateway:InternetGateway")
    for kind in ("aws:ec2/natGateway:NatGateway", "aws:ec2/eip:Eip"):
        (resource,) = single.of_type(kind)
        assert single.destroyed_before(resource, gateway)


EXISTING = ExistingVpc(
    "vpc-0123456789abcdef0", ("subnet-0000000a", "subnet-0000000b"), ("subnet-0000001a", "subnet-0000001b")
)


def test_of_a_vpc_that_is_there_only_the_tags_are_made_by_which_others_find_its_subnets() -> None:
    recording = network(NetworkPlan("10.8.0.0/16", ZONES[:2], (), (), 0, (), EXISTING))
    tags = recording.of_type("aws:ec2/tag:Tag")
    made = {one.type for one in recording.resources if one.package == "aws"}
    assert made == {"aws:ec2/tag:Tag", "aws:sqs/queue:Queue"}, "the queue stands in for a node"
    assert sorted((tag.inputs["resourceId"], tag.inputs["key"], tag.inputs["value"]) for tag in tags) == [
        ("subnet-0000000a", "kubernetes.io/role/internal-elb", "1"),
        ("subnet-0000000b", "kubernetes.io/role/internal-elb", "1"),
        ("subnet-0000001a", "kubernetes.io/role/elb", "1"),
        ("subnet-0000001b", "kubernetes.io/role/elb", "1"),
    ]
    assert recording.outputs["private"] == list(EXISTING.private_subnet_ids)
    assert recording.outputs["public"] == list(EXISTING.public_subnet_ids)


def test_tags_that_other_clusters_of_the_vpc_need_stay_on_destroy() -> None:
    recording = network(NetworkPlan("10.8.0.0/16", ZONES[:2], (), (), 0, (), EXISTING))
    assert {tag.retain_on_delete for tag in recording.of_type("aws:ec2/tag:Tag")} == {True}


def test_without_public_subnets_a_vpc_that_is_there_has_only_private_tags() -> None:
    private = replace(EXISTING, public_subnet_ids=())
    recording = network(NetworkPlan("10.8.0.0/16", ZONES[:2], (), (), 0, (), private))
    assert len(recording.of_type("aws:ec2/tag:Tag")) == 2


def test_everything_is_a_child_named_after_the_network(single: Recording) -> None:
    (component,) = single.of_type("frugal-llm:network:Network")
    children = single.children(component)
    assert {child.name.startswith("network-") for child in children} == {True}
    assert single.duplicate_urns == []


def test_it_gives_the_subnets_in_the_order_of_the_zones(single: Recording) -> None:
    for kind in ("public", "private"):
        assert single.outputs[kind] == [subnet.id for subnet in subnets(single, kind)]
