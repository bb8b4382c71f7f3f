"""What counts as left, with answers of the tests' own; against an emulator see ``test_against_emulators``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from components.names import STACK_TAG
from preflight import leftovers
from preflight.leftovers import Left, Owner, exit_code, read
from preflight.rows import NotAnswered
from tests.preflight.accounts import Answer, GivenAws

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
OURS = [{"Key": STACK_TAG, "Value": "prod"}]


def left(**answers: Answer) -> Left:
    nothing: dict[str, Answer] = {look.action: {} for look in leftovers._EC2}
    nothing |= {"logs:DescribeLogGroups": {}, "tag:GetResources": {"ResourceTagMappingList": []}}
    given = nothing | {name.replace("_", ":"): answer for name, answer in answers.items()}
    return read(GivenAws(given), "prod", "us-east-1", NOW)


def tagged(*arns: str) -> Mapping[str, Any]:
    return {"ResourceTagMappingList": [{"ResourceARN": arn} for arn in arns]}


def test_a_nat_gateway_left_has_its_age_and_price() -> None:
    gateway = {"NatGatewayId": "nat-1", "State": "available", "CreateTime": NOW - timedelta(days=3), "Tags": OURS}
    # 0.045 USD an hour in us-east-1 (AWS' price list), 730 hours.
    (thing,) = left(ec2_DescribeNatGateways={"NatGateways": [gateway]}).things
    assert (thing.id, thing.state) == ("nat-1", "available, 3 days old")
    assert thing.usd_per_month == pytest.approx(32.85)


def test_what_ec2_calls_gone_and_what_is_anothers_is_not_left() -> None:
    gateways = [
        {"NatGatewayId": "nat-1", "State": "deleted", "Tags": OURS},
        {"NatGatewayId": "nat-2", "State": "available", "Tags": [{"Key": STACK_TAG, "Value": "dev"}]},
        {"NatGatewayId": "nat-3", "State": "available", "Tags": [{"Key": "karpenter.sh/discovery", "Value": "x"}]},
    ]
    found = left(ec2_DescribeNatGateways={"NatGateways": gateways})
    assert (found.things, exit_code(found)) == ((), 0)


def test_things_of_the_clusters_controllers_are_found_without_our_tag() -> None:
    owner = Owner("prod", "frugal-llm-prod")
    assert owner.owns({"kubernetes.io/cluster/frugal-llm-prod": "owned"})
    assert owner.owns({"elbv2.k8s.aws/cluster": "frugal-llm-prod"})
    assert not owner.owns({"kubernetes.io/cluster/frugal-llm-dev": "owned", "elbv2.k8s.aws/cluster": "other"})
    interface = {"NetworkInterfaceId": "eni-1", "Status": "available", "TagSet": [
        {"Key": "cluster.k8s.amazonaws.com/name", "Value": "frugal-llm-prod"}]}  # fmt: skip
    (thing,) = left(ec2_DescribeNetworkInterfaces={"NetworkInterfaces": [interface]}).things
    assert (thing.id, thing.state, thing.usd_per_month) == ("eni-1", "available", 0)


def test_the_tagging_api_gives_the_rest_dearest_first_and_the_free_is_free() -> None:
    account = "us-east-1:111122223333"
    balancer = f"arn:aws:elasticloadbalancing:{account}:loadbalancer/app/k8s-llm/1"
    found = left(
        tag_GetResources=tagged(
            f"arn:aws:eks:{account}:cluster/frugal-llm-prod",
            "arn:aws:s3:::weights",
            f"arn:aws:kms:{account}:key/alive",
            f"arn:aws:ec2:{account}:vpc/vpc-1",
            f"arn:aws:ec2:{account}:instance/i-terminated",
            f"arn:aws:elasticloadbalancing:{account}:loadbalancer/net/gone/2",
            balancer,
        ),
        kms_DescribeKey={"KeyMetadata": {"KeyState": "Enabled"}},
        elasticloadbalancing_DescribeLoadBalancers={
            "LoadBalancers": [{"LoadBalancerArn": balancer, "LoadBalancerName": "k8s-llm", "Type": "application"}]
        },
    )
    assert [(thing.kind, thing.usd_per_month) for thing in found.things] == [
        ("EKS cluster", pytest.approx(73)),  # 0.10 USD an hour
        ("load balancer", pytest.approx(16.425)),  # 0.0225 USD an hour
        ("KMS key", pytest.approx(1)),
        ("bucket", None),
        ("ec2 vpc", 0),
    ]
    assert exit_code(found) == 1


def test_what_could_not_be_looked_at_is_told_and_is_no_all_clear(capsys: pytest.CaptureFixture[str]) -> None:
    found = left(ec2_DescribeVolumes=NotAnswered("the AWS credentials lack the permission ec2:DescribeVolumes"))
    assert exit_code(found) == 2
    leftovers.show(found, "prod", "us-east-1")
    said = capsys.readouterr().out
    assert "not looked at: the AWS credentials lack the permission ec2:DescribeVolumes" in said
    assert "nothing is left" not in said
