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
from tests.preflight.accounts import GivenAws, everything_there, stack_of, stack_with_all_brought

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


@pytest.mark.parametrize(
    ("type_token", "action"),
    [
        ("eks:index:Cluster", "eks:UpdateClusterVersion"),
        ("aws:eks/nodeGroup:NodeGroup", "eks:UpdateNodegroupVersion"),
        ("aws:eks/addon:Addon", "eks:UpdateAddon"),
        ("aws:ec2/launchTemplate:LaunchTemplate", "ec2:ModifyLaunchTemplate"),
        ("aws:ec2/launchTemplate:LaunchTemplate", "ec2:CreateLaunchTemplateVersion"),
        ("aws:ec2/route:Route", "ec2:ReplaceRoute"),
        ("aws:iam/policy:Policy", "iam:CreatePolicyVersion"),
        ("aws:iam/policy:Policy", "iam:DeletePolicyVersion"),
    ],
)
def test_what_only_a_second_up_calls_is_asked_for_at_the_first(type_token: str, action: str) -> None:
    """An upgrade half done for want of a permission is worse than a stack that was never made."""
    actions, _ = actions_of([type_token])
    assert action in actions[action.partition(":")[0]]


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
    bringing = stack_with_all_brought()
    brought = GivenAws(everything_there(bringing))
    ask(checks_of(bringing, brought))
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
    assert policy_actions() == sorted(before.asked | brought.asked | after.asked)
    assert STACK_TAG in (ROOT / "docs" / "preflight.md").read_text()


@pytest.mark.slow
def test_cloudformations_handlers_call_the_same_actions_that_change_something() -> None:
    called = cloudformation_actions()
    assert len(called) > 100, "cfn-lint's schemas are not where they were: make .venv/emulators/.installed"
    own = {
        # The provider's own resources, which CloudFormation does inside others, and its own ways to change them.
        "ec2:CreateLaunchTemplateVersion", "ec2:ModifyLaunchTemplate", "ec2:ModifySecurityGroupRules",
        "ec2:ReplaceRouteTableAssociation", "ec2:RevokeSecurityGroupIngress",
        "iam:TagPolicy", "iam:UntagPolicy", "iam:UpdateAssumeRolePolicy", "s3:DeleteObjectVersion",
    }  # fmt: skip
    named = {action for actions in _ACTIONS.values() for action in actions.split() if not _READ_BACK.fullmatch(action)}
    assert named - called - own == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("type_token", "of_cloudformation"),
    [
        ("aws:budgets/budget:Budget", "AWS::Budgets::Budget"),
        ("aws:ec2/launchTemplate:LaunchTemplate", "AWS::EC2::LaunchTemplate"),
        ("aws:ec2/route:Route", "AWS::EC2::Route"),
        ("aws:eks/accessEntry:AccessEntry", "AWS::EKS::AccessEntry"),
        ("aws:eks/addon:Addon", "AWS::EKS::Addon"),
        ("aws:eks/nodeGroup:NodeGroup", "AWS::EKS::Nodegroup"),
        ("aws:eks/podIdentityAssociation:PodIdentityAssociation", "AWS::EKS::PodIdentityAssociation"),
        ("aws:kms/alias:Alias", "AWS::KMS::Alias"),
        ("aws:sqs/queue:Queue", "AWS::SQS::Queue"),
        ("eks:index:Cluster", "AWS::EKS::Cluster"),
    ],
)
def test_what_cloudformation_calls_to_update_a_resource_is_asked_for(type_token: str, of_cloudformation: str) -> None:
    actions, _ = actions_of([type_token])
    asked = {action for needed in actions.values() for action in needed}
    # A certificate authority is none of the program's, and an entry's policies are resources of their own.
    not_used = {"eks:ActivateCertificateAuthority", "eks:AssociateAccessPolicy", "eks:DisassociateAccessPolicy"}
    called = {action for action in handlers()[of_cloudformation]["update"] if not _READ_BACK.fullmatch(action)}
    assert called - asked - not_used == set()


def cloudformation_actions() -> frozenset[str]:
    """The permissions of every handler."""
    return frozenset(action for kinds in handlers().values() for actions in kinds.values() for action in actions)


@cache
def handlers() -> dict[str, dict[str, list[str]]]:
    """Permissions by type and handler, in the schemas that cfn-lint brings along."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in EMULATORS.glob("python3*/site-packages/cfnlint/data/schemas/resources/*.json"):
        schema = json.loads(path.read_text())
        kinds = schema.get("handlers", {}).items()
        found.setdefault(schema["typeName"], {}).update({kind: each.get("permissions", []) for kind, each in kinds})
    return found
