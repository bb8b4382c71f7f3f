"""Actions that the program's resources need, and those that the commands themselves call."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from components.names import STACK_TAG
from preflight import leftovers, questions
from preflight.beside import ask
from preflight.permissions import _ACTIONS, actions_of, simulated_principal
from preflight.questions import checks_of
from preflight.rows import NotAnswered
from tests import harness
from tests.preflight.accounts import GivenAws, everything_there, stack_of

ROOT = Path(__file__).resolve().parents[2]
EMULATORS = ROOT / ".venv" / "emulators" / "lib"

#: Actions of Pulumi's provider that CloudFormation's handlers do not call: it reads tags, policies and settings back,
#: keeps security groups' rules apart, and makes attachments of their own.
_READ_BACK = re.compile(r"\w+:(Describe|Get|List|View)\w+")


def test_every_aws_resource_of_every_stack_has_its_actions(stack: str) -> None:
    types = {resource.type for resource in harness.record(stack, preview=True).resources}
    actions, unknown = actions_of(types)
    assert unknown == [], "add them to preflight/permissions.py"
    assert {"ec2:CreateVpc", "ec2:DeleteVpc"} <= set(actions["ec2"])
    assert "eks:CreateCluster" in actions["eks"]


def test_every_action_exists_in_iam() -> None:
    # Found and not imported: its source has escapes that Python warns of.
    parliament = find_spec("parliament")
    assert parliament is not None
    assert parliament.origin is not None
    definition = json.loads(Path(parliament.origin).with_name("iam_definition.json").read_text())
    known = {
        f"{service['prefix']}:{privilege['privilege']}".lower()
        for service in definition
        for privilege in service["privileges"]
    }
    named = {action for actions in _ACTIONS.values() for action in actions.split()} | set(policy_actions())
    # parliament 1.6.4's list is older than these.
    newer = {"eks:DescribeClusterVersions", "ce:ListCostAllocationTags"}
    assert {action for action in named - newer if action.lower() not in known} == set()


def test_a_type_that_is_not_known_is_named() -> None:
    assert actions_of(["aws:ec2/flowLog:FlowLog", "kubernetes:core/v1:Pod"]) == ({}, ["aws:ec2/flowLog:FlowLog"])


def test_a_session_is_simulated_as_its_role() -> None:
    assert simulated_principal("arn:aws:sts::111122223333:assumed-role/deployer/me") == "deployer"
    assert simulated_principal("arn:aws:iam::111122223333:user/me") == ""


def policy_actions() -> list[str]:
    page = (ROOT / "docs" / "preflight.md").read_text()
    (statement,) = json.loads(page.split("```json\n")[1].split("```")[0])["Statement"]
    return statement["Action"]


def test_the_policy_of_the_docs_allows_exactly_what_the_commands_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def access(repository: str, token: str) -> str:
        return "open"

    monkeypatch.setattr(questions, "model_access", access)
    stack = stack_of("prod")
    never_changed = NotAnswered("servicequotas:GetServiceQuota failed (NoSuchResourceException: none)")
    defaults = {"servicequotas:GetAWSDefaultServiceQuota": {"Quota": {"Value": 5.0}}}
    before = GivenAws({**everything_there(stack), "servicequotas:GetServiceQuota": never_changed, **defaults})
    ask(checks_of(stack, before))
    arns = [
        "arn:aws:kms:us-east-1:111122223333:key/abc",
        "arn:aws:elasticloadbalancing:us-east-1:111122223333:loadbalancer/app/k8s-llm/1",
    ]
    empty: dict[str, Any] = {}
    after = GivenAws(
        {
            **{look.action: empty for look in leftovers._EC2},
            "logs:DescribeLogGroups": empty,
            "tag:GetResources": {"ResourceTagMappingList": [{"ResourceARN": arn} for arn in arns]},
            "kms:DescribeKey": {"KeyMetadata": {"KeyState": "Enabled"}},
            "elasticloadbalancing:DescribeLoadBalancers": empty,
        }
    )
    leftovers.read(after, "prod", "us-east-1", datetime.now(UTC))
    assert policy_actions() == sorted(before.asked | after.asked)
    assert STACK_TAG in (ROOT / "docs" / "preflight.md").read_text()


@pytest.mark.slow
def test_cloudformations_handlers_call_the_same_actions_that_change_something() -> None:
    called = cloudformation_actions()
    assert len(called) > 100, "cfn-lint's schemas are not where they were: make .venv/emulators/.installed"
    own = {
        # The provider's own resources, which CloudFormation does inside others.
        "ec2:CreateLaunchTemplateVersion", "ec2:RevokeSecurityGroupIngress",
        "iam:TagPolicy", "iam:UpdateAssumeRolePolicy", "s3:DeleteObjectVersion",
    }  # fmt: skip
    named = {action for actions in _ACTIONS.values() for action in actions.split() if not _READ_BACK.fullmatch(action)}
    assert named - called - own == set()


@cache
def cloudformation_actions() -> frozenset[str]:
    """The permissions of every handler in the schemas that cfn-lint brings along."""
    found: set[str] = set()
    for path in EMULATORS.glob("python3*/site-packages/cfnlint/data/schemas/resources/*.json"):
        for handler in json.loads(path.read_text()).get("handlers", {}).values():
            found.update(handler.get("permissions", ()))
    return frozenset(found)
