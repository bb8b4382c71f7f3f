"""Blocks, zones and a VPC of one's own, by the rules of AWS' documentation. That AWS takes a plan is not proven here.

Which zones have which GPUs is not in the facts, so nothing here can say that a zone lacks one.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from planning.network import address_problem, network_plan, network_problems, service_cidr
from planning.stack import plan_config
from problems import ConfigurationError
from settings import Network
from tests.test_settings import tier

REGION = "us-east-1"
OWN_VPC: dict[str, Any] = {
    "vpcId": "vpc-0123456789abcdef0",
    "vpcCidr": "10.8.0.0/16",
    "zones": ["us-east-1a", "us-east-1b"],
    "privateSubnetIds": ["subnet-0000000a", "subnet-0000000b"],
}


def problems(**settings: Any) -> list[str]:
    return [str(problem) for problem in network_problems(REGION, Network.model_validate(settings), 2)]


def test_a_quarter_of_the_vpc_is_for_the_pods_of_each_zone_and_no_two_subnets_overlap() -> None:
    plan = network_plan(REGION, Network(vpcCidr="10.42.0.0/20"))
    blocks = [ipaddress.IPv4Network(block) for block in (*plan.private_cidrs, *plan.public_cidrs)]
    assert [block.prefixlen for block in blocks] == [22, 22, 22, 26, 26, 26]
    vpc = ipaddress.IPv4Network(plan.vpc_cidr)
    assert all(block.subnet_of(vpc) for block in blocks)
    assert not any(one.overlaps(other) for one in blocks for other in blocks if one is not other)
    assert all(block.prefixlen <= 27 for block in blocks), "AWS puts no load balancer in less than a /27"


@pytest.mark.parametrize(
    ("vpc", "services"),
    [
        ("10.42.0.0/16", "172.20.0.0/16"),
        ("172.20.16.0/20", "10.100.0.0/16"),
        ("10.100.0.0/16", "172.20.0.0/16"),
    ],
)
def test_services_take_the_one_of_eks_two_blocks_that_the_vpc_does_not(vpc: str, services: str) -> None:
    assert service_cidr(vpc) == services
    assert not ipaddress.IPv4Network(vpc).overlaps(ipaddress.IPv4Network(services))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"vpcCidr": "10.0.0.0/8"},
            "frugal-llm:network.vpcCidr is '10.0.0.0/8': must be a /16 to /20: AWS allows no VPC above /16, and pods "
            "take their addresses from it; the nearest that works is 10.0.0.0/16",
        ),
        ({"vpcCidr": "10.42.7.0/24"}, "the nearest that works is 10.42.0.0/20"),
        (
            {"vpcCidr": "172.17.32.0/24"},
            "must be a /16 to /20: AWS allows no VPC above /16, and pods take their addresses "
            "from it; the nearest that works is 10.42.0.0/16",
        ),
        ({"vpcCidr": "172.17.32.0/20"}, "is '172.17.32.0/20': overlaps 172.17.0.0/16, the bridge of Docker"),
        ({"zones": ["us-east-1a"]}, "need 2 different zones"),
        ({"zones": ["eu-west-1a", "us-east-1b"]}, "network.zones[0] is 'eu-west-1a': is no zone of us-east-1"),
        (
            {"privateSubnetIds": ["subnet-0000000a"]},
            "are subnets of a VPC of your own; name it: frugal-llm:network.vpcId",
        ),
        ({**OWN_VPC, "vpcCidr": "10.8.0.0/27"}, "must be a /16 to /26"),
        ({**OWN_VPC, "privateSubnetIds": ["subnet-0000000a"]}, "2 zones need as many different subnets, one in each"),
        ({**OWN_VPC, "privateSubnetIds": ["subnet-0000000a"] * 2}, "2 zones need as many different subnets"),
        ({**OWN_VPC, "publicSubnetIds": OWN_VPC["privateSubnetIds"]}, "'subnet-0000000a': is both private and public"),
        ({**OWN_VPC, "natGateways": "single"}, "network.natGateways: says nothing with vpcId"),
        ({**OWN_VPC, "privateEndpoints": True}, "network.privateEndpoints: says nothing with vpcId"),
        (
            {
                **OWN_VPC,
                "ingressScheme": "internet-facing",
                "certificateArn": "arn:aws:acm:us-east-1:111122223333:certificate/1234",
            },
            "network.publicSubnetIds: is missing: an internet-facing load balancer stands in public subnets",
        ),
    ],
)
def test_what_aws_or_the_cluster_would_refuse_is_said_with_its_limit_and_way_out(
    settings: dict[str, Any], expected: str
) -> None:
    assert any(expected in problem for problem in problems(**settings)), problems(**settings)


def test_everything_that_a_vpc_of_ones_own_lacks_is_said_at_once() -> None:
    found = problems(vpcId=OWN_VPC["vpcId"])
    assert [line.split(": ")[0] for line in found] == [
        "frugal-llm:network.vpcCidr",
        "frugal-llm:network.zones",
        "frugal-llm:network.privateSubnetIds",
    ]
    assert problems(**OWN_VPC) == []
    assert problems() == []


def test_a_vpc_of_ones_own_is_not_cut_and_gets_no_gateway_or_endpoint() -> None:
    plan = network_plan(REGION, Network.model_validate(OWN_VPC))
    assert (plan.public_cidrs, plan.private_cidrs, plan.nat_gateways, plan.interface_endpoints) == ((), (), 0, ())
    assert plan.existing is not None
    assert plan.existing.private_subnet_ids == ("subnet-0000000a", "subnet-0000000b")


def test_a_vpc_holds_as_many_nodes_as_its_private_subnets_have_addresses_for_two_interfaces_each() -> None:
    # Three /22 of 1,024 addresses, five of each kept by AWS: 3,057, and 100 for each node.
    small = network_plan(REGION, Network(vpcCidr="10.42.0.0/20"))
    assert address_problem(small, 30) is None
    found = address_problem(small, 31)
    assert found is not None
    assert (found.path, found.way_out) == ("frugal-llm:network.vpcCidr", "choose a /19")
    assert "hold 3,057 addresses; 31 nodes, which the stack may grow to, take up to 3,100" in found.limit
    largest = address_problem(network_plan(REGION, Network(vpcCidr="10.42.0.0/16")), 492)
    assert largest is not None
    assert "no block of a VPC is larger than a /16" in largest.way_out


def test_a_vpc_that_is_there_holds_at_most_what_its_block_does_less_five_addresses_a_subnet() -> None:
    def problem(vpc_cidr: str, nodes: int) -> str | None:
        found = address_problem(network_plan(REGION, Network.model_validate({**OWN_VPC, "vpcCidr": vpc_cidr})), nodes)
        return str(found) if found else None

    # 1,024 - 2 subnets x 5 = 1,014: ten nodes of 100, which are 1,000, but not eleven.
    assert problem("10.8.0.0/22", 10) is None
    assert problem("10.8.0.0/22", 11) == (
        "frugal-llm:network.vpcCidr is '10.8.0.0/22': the private subnets can hold at most 1,014 addresses; 11 nodes, "
        "which the stack may grow to, take up to 1,100; bring subnets of a /21"
    )


def test_a_plan_that_does_not_fit_the_vpc_that_is_there_is_refused_before_the_first_resource() -> None:
    network = {**OWN_VPC, "vpcCidr": "10.8.0.0/26"}
    with pytest.raises(ConfigurationError, match=r"'10\.8\.0\.0/26': the private subnets can hold at most 54 "):
        plan_config(REGION, {"tiers": [tier()], "network": network})


def test_a_plan_whose_nodes_do_not_fit_its_vpc_is_refused_before_the_first_resource() -> None:
    config = {"tiers": [tier(minReplicas=40)], "network": {"vpcCidr": "10.42.0.0/20"}}
    with pytest.raises(
        ConfigurationError, match=r"network\.vpcCidr is '10\.42\.0\.0/20': the private subnets hold 3,057"
    ):
        plan_config(REGION, config)
    assert plan_config(REGION, {**config, "network": {"vpcCidr": "10.42.0.0/18"}})
