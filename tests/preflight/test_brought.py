"""What is brought along, with answers of the tests' own: that AWS gives them so is not proved."""

from __future__ import annotations

from typing import Any

import pytest

from preflight import questions
from preflight.beside import ask
from preflight.hugging_face import ModelAccess
from preflight.questions import Stack, checks_of
from preflight.rows import NotAnswered, Row, exit_code
from tests.preflight.accounts import (
    PRIVATE,
    PUBLIC,
    Answer,
    GivenAws,
    everything_there,
    route_tables,
    stack_with_all_brought,
    subnets,
)


@pytest.fixture(scope="module")
def bringing() -> Stack:
    return stack_with_all_brought()


@pytest.fixture(autouse=True)
def open_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def access(repository: str, token: str) -> ModelAccess:
        return "open"

    monkeypatch.setattr(questions, "model_access", access)


def failed(stack: Stack, **changed: Answer) -> list[Row]:
    """The rows that are not ok when the account answers these actions otherwise (``ec2_DescribeSubnets``)."""
    answers = everything_there(stack) | {name.replace("_", ":"): answer for name, answer in changed.items()}
    return [row for row in ask(checks_of(stack, GivenAws(answers))) if row.verdict != "ok"]


def test_a_network_roles_and_a_key_that_are_as_the_plan_needs_them_pass(bringing: Stack) -> None:
    rows = ask(checks_of(bringing, GivenAws(everything_there(bringing))))
    assert {row.verdict for row in rows} == {"ok"}
    checked = {row.check for row in rows}
    assert {f"subnet {subnet}" for subnet in (*PRIVATE, *PUBLIC)} <= checked
    assert {
        "free addresses",
        "role: cluster.roleArn",
        "role: cluster.nodeRoleArn",
        "key: cluster.secretsKeyArn",
    } < checked


@pytest.mark.parametrize(
    ("changed", "found", "fix"),
    [
        (None, "not there", "correct network.privateSubnetIds[0]"),
        ({"VpcId": "vpc-1"}, "of vpc-1", "correct network.privateSubnetIds[0] or network.vpcId"),
        ({"AvailabilityZone": "us-east-1c"}, "in us-east-1c",
         "name network.privateSubnetIds[0] in the order of network.zones"),
        ({"CidrBlock": "100.64.0.0/20"}, "its block is 100.64.0.0/20",
         "set network.vpcCidr to the VPC's block that holds the subnets"),
    ],
)  # fmt: skip
def test_a_subnet_that_is_another_than_the_settings_say_fails(
    bringing: Stack, changed: dict[str, Any] | None, found: str, fix: str
) -> None:
    first, *others = subnets()
    there = others if changed is None else [first | changed, *others]
    rows = failed(bringing, ec2_DescribeSubnets={"Subnets": there})
    row = next(row for row in rows if row.check == f"subnet {PRIVATE[0]}")
    assert (row.verdict, row.found, row.fix) == ("fail", found, fix)
    assert row.wanted == "in vpc-0123456789abcdef0, us-east-1a, inside 10.8.0.0/16, with a way out"


def test_a_private_subnet_without_a_way_out_fails(bringing: Stack) -> None:
    public, main = route_tables()

    def found_with(*routes: dict[str, str]) -> str:
        tables = {"RouteTables": [public, main | {"Routes": list(routes)}]}
        rows = failed(bringing, ec2_DescribeRouteTables=tables)
        assert [row.check for row in rows] == [f"subnet {subnet}" for subnet in PRIVATE], "public ones have their own"
        return rows[0].found

    away = {"DestinationCidrBlock": "0.0.0.0/0"}
    assert found_with({"DestinationCidrBlock": "10.8.0.0/16", "GatewayId": "local"}) == "no route to 0.0.0.0/0"
    gone = {**away, "NatGatewayId": "nat-1", "State": "blackhole"}
    assert found_with(gone) == "its route to 0.0.0.0/0 ends in nothing"
    internet = {**away, "GatewayId": "igw-1", "State": "active"}
    assert found_with(internet).endswith("goes to an internet gateway: nodes have no addresses")


def test_a_public_subnet_behind_nat_fails(bringing: Stack) -> None:
    _, main = route_tables()
    rows = failed(bringing, ec2_DescribeRouteTables={"RouteTables": [main]})
    assert [row.check for row in rows] == [f"subnet {subnet}" for subnet in PUBLIC]
    assert rows[0].fix == "route it to an internet gateway"


def test_subnets_with_too_few_free_addresses_fail_and_nodes_that_run_need_no_more(bringing: Stack) -> None:
    # Three nodes of each GPU pool at their limits, and 2 system nodes with 6 more during an update: 14, of 100 each.
    crowded = {"Subnets": [subnet | {"AvailableIpAddressCount": 400} for subnet in subnets()]}
    (row,) = failed(bringing, ec2_DescribeSubnets=crowded)
    assert (row.check, row.verdict, row.found) == ("free addresses", "fail", "1,200")
    assert row.wanted == "1,400 in the private subnets, for 14 nodes more"
    own = {"InstanceType": "g4dn.xlarge", "Tags": [{"Key": "frugal-llm:stack", "Value": "prod"}]}
    running = {"Reservations": [{"Instances": [own, own]}]}
    assert failed(bringing, ec2_DescribeSubnets=crowded, ec2_DescribeInstances=running) == []


def test_a_role_that_is_not_there_or_not_for_nodes_fails(bringing: Stack) -> None:
    there = everything_there(bringing)["iam:GetRole"]
    assert callable(there)

    def answered(asked: Any) -> Any:
        if asked["RoleName"] == "control-plane":
            raise NotAnswered("iam:GetRole failed (NoSuchEntity: The role with name control-plane cannot be found.)")
        given = dict(there(asked)["Role"])
        if asked["RoleName"] == "nodes":
            given["AssumeRolePolicyDocument"] = {"Statement": [{"Principal": {"Service": "lambda.amazonaws.com"}}]}
        return {"Role": given}

    control_plane, nodes = failed(bringing, iam_GetRole=answered)
    assert (control_plane.check, control_plane.verdict, control_plane.found) == (
        "role: cluster.roleArn", "fail", "not there",
    )  # fmt: skip
    assert (nodes.check, nodes.found) == (
        "role: cluster.nodeRoleArn",
        "its trust policy does not name ec2.amazonaws.com",
    )


def test_a_key_that_cannot_encrypt_secrets_fails(bringing: Stack) -> None:
    def row_of(answer: Answer) -> Row:
        (row,) = failed(bringing, kms_DescribeKey=answer)
        assert row.check == "key: cluster.secretsKeyArn"
        return row

    usable = {"KeyState": "Enabled", "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT"}
    dying = row_of({"KeyMetadata": usable | {"KeyState": "PendingDeletion"}})
    assert (dying.verdict, dying.found) == ("fail", "PendingDeletion, SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT")
    signing = row_of({"KeyMetadata": usable | {"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"}})
    assert signing.fix == "name a key of spec SYMMETRIC_DEFAULT and usage ENCRYPT_DECRYPT"
    gone = row_of(NotAnswered("kms:DescribeKey failed (NotFoundException: Key does not exist)"))
    assert (gone.verdict, gone.found) == ("fail", "not there")


def test_what_may_not_be_looked_at_is_unknown_and_fails_nothing(bringing: Stack) -> None:
    for action in ("ec2:DescribeRouteTables", "kms:DescribeKey"):
        rows = failed(bringing, **{action: NotAnswered(f"the AWS credentials lack the permission {action}")})
        assert [row.verdict for row in rows] == ["unknown"]
        assert action in rows[0].found
        assert exit_code(rows) == 0
