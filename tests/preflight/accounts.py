"""An account whose answers a test gives, by IAM action, and records of what was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

from components.names import STACK_TAG
from planning.stack import plan_config
from planning.stackfile import read_stack, stack_path
from preflight.questions import Stack
from preflight.rows import NotAnswered
from tests import harness

Answer = Mapping[str, Any] | NotAnswered | Callable[[Mapping[str, Any]], Mapping[str, Any]]

#: A day within standard support of the Kubernetes version that is pinned.
TODAY = date(2026, 11, 26)


VPC = "vpc-0123456789abcdef0"
ZONES = ["us-east-1a", "us-east-1b", "us-east-1c"]
PRIVATE = ["subnet-0000000a", "subnet-0000000b", "subnet-0000000c"]
PUBLIC = ["subnet-0000001a", "subnet-0000001b", "subnet-0000001c"]


class GivenAws:
    """AWS as a test says it answers."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers
        self.asked: set[str] = set()

    def pages(self, action: str, **arguments: object) -> Iterator[Mapping[str, Any]]:
        self.asked.add(action)
        answer = self._answers[action]
        if isinstance(answer, NotAnswered):
            raise answer
        yield answer(arguments) if callable(answer) else answer


def stack_of(name: str, token: str = "", **values: object) -> Stack:
    """The stack, with ``values`` in place of its own."""
    file = read_stack(stack_path(name))
    settings, plan = plan_config(file.region, {**file.values, **values}, file.encrypted)
    recording = harness.record_with(name, preview=True, **values) if values else harness.record(name, preview=True)
    return Stack(name, settings, plan, recording, TODAY, token)


def stack_with_all_brought() -> Stack:
    """Production in a network, with roles and with a key that are there."""
    network: dict[str, object] = {
        "vpcId": VPC,
        "vpcCidr": "10.8.0.0/16",
        "zones": ZONES,
        "privateSubnetIds": PRIVATE,
        "publicSubnetIds": PUBLIC,
    }
    cluster = {
        "roleArn": "arn:aws:iam::111122223333:role/ops/control-plane",
        "nodeRoleArn": "arn:aws:iam::111122223333:role/nodes",
        "secretsKeyArn": "arn:aws:kms:us-east-1:111122223333:key/1234abcd",
    }
    return stack_of("prod", network=network, cluster=cluster)


def subnets() -> list[dict[str, Any]]:
    """The subnets of that network, as EC2 describes them: a /20 each."""
    return [
        {
            "SubnetId": subnet,
            "VpcId": VPC,
            "AvailabilityZone": ZONES[index % len(ZONES)],
            "CidrBlock": f"10.8.{16 * index}.0/20",
            "AvailableIpAddressCount": 4091,
        }
        for index, subnet in enumerate((*PRIVATE, *PUBLIC))
    ]


def route_tables() -> list[dict[str, Any]]:
    """Its routes: public subnets have a table of their own, private ones the VPC's main table."""

    def route(target: str, gateway: str) -> list[dict[str, str]]:
        return [{"DestinationCidrBlock": "0.0.0.0/0", target: gateway, "State": "active"}]

    own = [{"Main": False, "SubnetId": subnet} for subnet in PUBLIC]
    return [
        {"Associations": own, "Routes": route("GatewayId", "igw-0123456789abcdef0")},
        {"Associations": [{"Main": True}], "Routes": route("NatGatewayId", "nat-0123456789abcdef0")},
    ]


def everything_there(stack: Stack) -> dict[str, Answer]:
    """Answers of an account in which the stack can be made."""

    def parameters(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"Parameters": [{"Name": name, "Value": _value(name)} for name in arguments["Names"]]}

    def simulated(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        decisions = [{"EvalActionName": name, "EvalDecision": "allowed"} for name in arguments["ActionNames"]]
        return {"EvaluationResults": decisions}

    def offered(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        types = arguments["Filters"][0]["Values"]
        return {
            "InstanceTypeOfferings": [
                {"InstanceType": name, "Location": zone} for name in types for zone in stack.plan.network.zones
            ]
        }

    def addons(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        version = stack.plan.cluster.addon_versions[arguments["addonName"]]
        return addon_versions(arguments["addonName"], version, arguments["kubernetesVersion"])

    def role(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        cluster = stack.plan.cluster
        brought = {cluster.role_arn: "eks.amazonaws.com", cluster.node_role_arn: "ec2.amazonaws.com"}
        deployer = {"arn:aws:iam::111122223333:role/ops/deployer": ""}
        arns = {arn.rpartition("/")[2]: (arn, service) for arn, service in (brought | deployer).items() if arn}
        arn, service = arns[arguments["RoleName"]]
        trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}]}
        return {"Role": {"Arn": arn, "AssumeRolePolicyDocument": trust}}

    services = ("spot", "eks", "eks-nodegroup", "autoscaling", "elasticloadbalancing")
    return {
        "sts:GetCallerIdentity": {
            "Account": "111122223333",
            "Arn": "arn:aws:sts::111122223333:assumed-role/deployer/me",
        },
        "iam:GetRole": role,
        "kms:DescribeKey": {
            "KeyMetadata": {"KeyState": "Enabled", "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT"}
        },
        "iam:SimulatePrincipalPolicy": simulated,
        "iam:ListRoles": {"Roles": [{"Path": f"/aws-service-role/{name}.amazonaws.com/"} for name in services]},
        "servicequotas:GetServiceQuota": {"Quota": {"Value": 1000.0}},
        "ec2:DescribeInstances": {"Reservations": []},
        "ec2:DescribeAddresses": {"Addresses": []},
        "ec2:DescribeSubnets": {"Subnets": subnets()},
        "ec2:DescribeRouteTables": {"RouteTables": route_tables()},
        "ec2:DescribeNatGateways": {"NatGateways": []},
        "ec2:DescribeVpcs": {"Vpcs": []},
        "ec2:DescribeInstanceTypeOfferings": offered,
        "eks:DescribeClusterVersions": {
            "clusterVersions": [
                {
                    "clusterVersion": version,
                    "endOfStandardSupportDate": datetime(*end, tzinfo=UTC),
                    "endOfExtendedSupportDate": datetime(end[0] + 1, *end[1:], tzinfo=UTC),
                }
                for version, end in (("1.36", (2027, 8, 2)), ("1.35", (2027, 3, 27)))
            ]
        },
        "eks:DescribeAddonVersions": addons,
        "ssm:GetParameters": parameters,
        "ce:ListCostAllocationTags": {"CostAllocationTags": [{"TagKey": STACK_TAG, "Status": "Active"}]},
    }


def addon_versions(name: str, version: str, kubernetes: str) -> Mapping[str, Any]:
    """EKS' answer of one version, the default."""
    fits = [{"clusterVersion": kubernetes, "defaultVersion": True}]
    return {"addons": [{"addonName": name, "addonVersions": [{"addonVersion": version, "compatibilities": fits}]}]}


def _value(name: str) -> str:
    return "1.36.4-20261110" if name.endswith("release_version") else "ami-0123456789abcdef0"
