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

    services = ("spot", "eks", "eks-nodegroup", "autoscaling", "elasticloadbalancing")
    role = "arn:aws:iam::111122223333:role/ops/deployer"
    return {
        "sts:GetCallerIdentity": {
            "Account": "111122223333",
            "Arn": "arn:aws:sts::111122223333:assumed-role/deployer/me",
        },
        "iam:GetRole": {"Role": {"Arn": role}},
        "iam:SimulatePrincipalPolicy": simulated,
        "iam:ListRoles": {"Roles": [{"Path": f"/aws-service-role/{name}.amazonaws.com/"} for name in services]},
        "servicequotas:GetServiceQuota": {"Quota": {"Value": 1000.0}},
        "ec2:DescribeInstances": {"Reservations": []},
        "ec2:DescribeAddresses": {"Addresses": []},
        "ec2:DescribeSubnets": {"Subnets": []},
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
