"""Every IAM document that the program emits for every stack, before an IAM linter and a rule of our own.

The documents are those of an update with samples for what providers compute. The linter (parliament) knows actions,
their resources and conditions from a copy of AWS' service authorization reference, which is behind in places: what it
does not know is listed. Not proven: that the rights suffice, and that AWS takes the documents.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.harness import Recording

with warnings.catch_warnings():
    # Its regular expressions are no raw strings.
    warnings.simplefilter("ignore")
    import parliament

_SPLIT = (
    "Karpenter's template splits what RunInstances and CreateFleet need over three statements, each with the resources "
    "that its own condition is about; a call needs all of them"
)

#: Statements that allow something on every resource, or on any of a type in any account without a condition, and why.
#: By their Sid, which is unique in the program.
ON_EVERY_RESOURCE = {
    "AllowRegionalReadActions": "Karpenter reads EC2's offers; describing takes no resource. Bound to the region",
    "AllowPricingReadActions": "pricing:GetProducts takes no resource",
    "AllowUnscopedInstanceProfileListAction": "iam:ListInstanceProfiles takes no resource",
    "AllowZonalShiftStatusReadOnly": "scoped by arc-zonal-shift:ResourceIdentifier to the cluster: the service's way",
    "CreateItsServiceLinkedRole": "bound by iam:AWSServiceName to the one role of load balancers",
    "ReadNetworkAndLoadBalancers": "describing takes no resource. Bound to the region",
    "ReadCertificates": "acm:ListCertificates takes no resource. Reads, bound to the region",
    "CreateSecurityGroups": "what is created has no name yet; the VPC is named by no tag. Bound to the region",
    "ChangeOwnSecurityGroups": "bound to groups with this cluster's tag",
    "CreateLoadBalancers": "bound to what is created with this cluster's tag, listeners and rules too",
    "ChangeOwnLoadBalancers": "bound to load balancers with this cluster's tag",
    "ChangeOwnListenersAndRules": "bound to listeners and rules with this cluster's tag",
    "AllowScopedEC2InstanceAccessActions": _SPLIT,
    "AllowSSMReadActions": "parameters of AWS' own, which have no account; below /aws/service",
    "ReadAnyBucket": "of the S3 gateway endpoint, a second fence: ECR keeps layers in buckets of AWS' own accounts",
    "WriteBucketsOfOwnAccount": "of the S3 gateway endpoint, a second fence: bound to buckets of the own account",
}

#: What the linter says of a statement and is wrong or old: (issue, Sid) and why.
KNOWN_FINDINGS = {
    ("RESOURCE_MISMATCH", "AllowScopedEC2InstanceAccessActions"): _SPLIT,
    ("RESOURCE_MISMATCH", "AllowScopedEC2LaunchTemplateAccessActions"): _SPLIT,
    ("RESOURCE_MISMATCH", "AllowScopedEC2InstanceActionsWithTags"): _SPLIT,
    ("RESOURCE_MISMATCH", "AllowSSMReadActions"): "AWS' public parameters have no account in their ARN",
    ("UNKNOWN_ACTION", "ChangeOwnLoadBalancers"): "elasticloadbalancing:ModifyIpPools is newer than the linter's data",
    ("UNKNOWN_CONDITION_FOR_ACTION", "TagNewLoadBalancers"): "so is the condition elasticloadbalancing:CreateAction",
}

#: Who may take a role, and how.
TRUSTED = {
    "ec2.amazonaws.com": ["sts:AssumeRole"],
    "pods.eks.amazonaws.com": ["sts:AssumeRole", "sts:TagSession"],
}


@dataclass(frozen=True)
class Document:
    name: str
    where: str
    content: Mapping[str, Any]

    @property
    def statements(self) -> list[dict[str, Any]]:
        found = self.content["Statement"]
        return found if isinstance(found, list) else [found]


def documents(recording: Recording) -> list[Document]:
    """Every text in the inputs of a resource that is an IAM document, wherever it stands."""
    return [
        Document(f"{one.name} ({one.type.rpartition(':')[2]})", key, content)
        for one in recording.resources
        if one.package in {"aws", "eks"}
        for key, content in _documents(dict(one.inputs))
    ]


def _documents(value: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, str) and '"Statement"' in value:
        yield key, json.loads(value)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _documents(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _documents(item, key)


def findings(document: Document, statement: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What the linter says of one statement: issue, Sid and detail."""
    # A trust policy is about the role that it is of, and names no resource; the linter wants one in every statement.
    about = {} if "Resource" in statement else {"Resource": "arn:aws:iam::111122223333:role/sample"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [{**statement, **about}]})
    for finding in parliament.analyze_policy_string(text).findings:
        yield finding.issue, str(statement.get("Sid", document.name)), str(finding.detail)


def unscoped(statement: Mapping[str, Any]) -> bool:
    """Whether it allows something on every resource, or on any of a type in any account without a condition."""
    resources = listed(statement.get("Resource", [])) if statement["Effect"] == "Allow" else []
    return "*" in resources or ("Condition" not in statement and any(_names_nothing(one) for one in resources))


def _names_nothing(arn: str) -> bool:
    _, _, service, _, account, resource = arn.split(":", 5)
    # S3's ARNs have no account: the bucket's name is of one.
    return resource.startswith("*") if service == "s3" else account in {"", "*"} and "*" in resource


def listed(value: object) -> list[str]:
    return [value] if isinstance(value, str) else list(value)  # pyrefly: ignore[bad-argument-type]


def test_every_role_policy_and_endpoint_has_its_documents_before_the_linter(update: Recording) -> None:
    found = {document.name for document in documents(update)}
    kinds = (
        "aws:iam/role:Role",
        "aws:iam/policy:Policy",
        "aws:iam/rolePolicy:RolePolicy",
        "aws:sqs/queuePolicy:QueuePolicy",
    )
    with_documents = update.of_type(*kinds, "aws:s3/bucketPolicy:BucketPolicy", "aws:ec2/vpcEndpoint:VpcEndpoint")
    assert {f"{one.name} ({one.type.rpartition(':')[2]})" for one in with_documents} == found
    assert len(found) >= 18


def test_the_linter_finds_nothing_that_is_not_explained(update: Recording) -> None:
    explained = set(KNOWN_FINDINGS) | {("RESOURCE_STAR", sid) for sid in ON_EVERY_RESOURCE}
    unexplained = {
        (document.name, *finding)
        for document in documents(update)
        for statement in document.statements
        for finding in findings(document, statement)
        if finding[:2] not in explained
    }
    assert unexplained == set()


def test_the_linter_finds_nothing_in_the_rights_on_a_web_acl() -> None:
    from components import iam

    arn = "arn:aws:wafv2:us-east-1:111122223333:regional/webacl/llm/1234abcd"
    texts = iam.documents("web_acl.json", web_acl_arn=arn, partition="aws", region="us-east-1")
    (document,) = [Document(name, "policy", json.loads(text)) for name, text in texts.items()]
    assert [finding for one in document.statements for finding in findings(document, one)] == []
    # It takes no resource; WAF wants a right of its own beside it.
    everywhere = [one["Action"] for one in document.statements if one["Resource"] == "*"]
    assert everywhere == [["elasticloadbalancing:SetWebAcl"]]


def test_no_statement_allows_an_action_by_wildcard_or_everything_but_some(update: Recording) -> None:
    for document in documents(update):
        for statement in document.statements:
            assert not {"NotAction", "NotResource", "NotPrincipal"} & statement.keys(), document.name
            if statement["Effect"] == "Allow":
                assert not [one for one in listed(statement["Action"]) if "*" in one], document.name


def test_what_is_allowed_on_every_resource_is_in_the_table_with_its_reason(update: Recording) -> None:
    for document in documents(update):
        for statement in document.statements:
            assert statement.get("Sid") in ON_EVERY_RESOURCE or not unscoped(statement), document.name


def test_sids_are_unique_so_that_a_reason_is_of_one_statement(update: Recording) -> None:
    sids = [one["Sid"] for document in documents(update) for one in document.statements if "Sid" in one]
    assert len(sids) == len(set(sids))


def test_anybody_is_a_principal_only_where_he_is_refused_or_of_the_gateway_endpoint(update: Recording) -> None:
    for document in documents(update):
        for statement in document.statements:
            if statement.get("Principal") == "*" and statement["Effect"] == "Allow":
                assert document.name == "network-s3 (VpcEndpoint)", "it allows no more than what the caller's role does"


def test_roles_are_taken_by_nodes_and_by_pods_over_pod_identity_only(update: Recording) -> None:
    for document in documents(update):
        if document.where == "assumeRolePolicy":
            (statement,) = document.statements
            assert statement["Action"] == TRUSTED[statement["Principal"]["Service"]], document.name


def test_every_explanation_is_of_something_that_is_there(prod_update: Recording) -> None:
    of_prod = [(document, one) for document in documents(prod_update) for one in document.statements]
    everywhere = {one.get("Sid") for _, one in of_prod if unscoped(one)}
    assert everywhere == set(ON_EVERY_RESOURCE)
    said = {finding[:2] for document, one in of_prod for finding in findings(document, one)}
    assert set(KNOWN_FINDINGS) <= said


@pytest.mark.parametrize(
    ("statement", "issue"),
    [
        ({"Effect": "Allow", "Action": "s3:GetObjekt", "Resource": "arn:aws:s3:::b/*"}, "UNKNOWN_ACTION"),
        ({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b"}, "RESOURCE_MISMATCH"),
        ({"Effect": "Allow", "Action": "sqs:ReceiveMessage", "Resource": "*"}, "RESOURCE_STAR"),
        ({"Effect": "Alow", "Action": "sqs:ReceiveMessage", "Resource": "*"}, "MALFORMED"),
    ],
)
def test_the_linter_would_notice_a_mistake(statement: dict[str, str], issue: str) -> None:
    sample = Document("sample", "policy", {"Statement": [statement]})
    assert issue in {found for found, _, _ in findings(sample, statement)}


@pytest.mark.parametrize(
    ("resource", "condition", "expected"),
    [
        ("*", {"StringEquals": {"aws:RequestedRegion": "us-east-1"}}, True),
        ("arn:aws:elasticloadbalancing:us-east-1:*:targetgroup/*/*", None, True),
        ("arn:aws:elasticloadbalancing:us-east-1:*:targetgroup/*/*", {"Null": {"aws:ResourceTag/a": "false"}}, False),
        ("arn:aws:ec2:us-east-1::image/*", None, True),
        ("arn:aws:s3:::*/weights", None, True),
        ("arn:aws:s3:::bucket/*", None, False),
        ("arn:aws:eks:us-east-1:111122223333:cluster/*", None, False),
    ],
)
def test_a_pattern_of_any_account_without_a_condition_is_as_wide_as_a_star(
    resource: str, condition: object, expected: bool
) -> None:
    statement = {"Effect": "Allow", "Action": "sample", "Resource": resource}
    assert unscoped({**statement, "Condition": condition} if condition else statement) is expected
