"""ARNs against the stack's region and account. Whether they exist, and what their policies say, is not known here."""

from __future__ import annotations

from typing import Any

import pytest

from planning.arns import arn_problems, partition
from planning.stack import plan_config
from problems import ConfigurationError, Problem
from reading import read
from tests.test_settings import tier

REGION = "us-east-1"
ROLE = "arn:aws:iam::111122223333:role/eks/control-plane"
KEY = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
CERTIFICATE = "arn:aws:acm:us-east-1:111122223333:certificate/1234"


def found(**config: Any) -> list[Problem]:
    settings = read(REGION, {"tiers": [tier()], **config}).settings
    assert settings is not None
    return arn_problems(settings)


def test_arns_of_one_account_partition_and_region_are_fine() -> None:
    cluster = {"roleArn": ROLE, "nodeRoleArn": ROLE, "secretsKeyArn": KEY}
    assert found(cluster=cluster, network={"certificateArn": CERTIFICATE}, access={"accountId": "111122223333"}) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"cluster": {"roleArn": ROLE, "secretsKeyArn": KEY.replace("111122223333", "444455556666")}},
            "frugal-llm:cluster.secretsKeyArn is 'arn:aws:kms:us-east-1:444455556666:key/1234abcd-12ab-34cd-56ef-123456"
            "7890ab': is of account 444455556666, frugal-llm:cluster.roleArn says 111122223333; give one of account "
            "111122223333",
        ),
        (
            {"cluster": {"roleArn": ROLE}, "access": {"accountId": "444455556666"}},
            "is of account 111122223333, frugal-llm:access.accountId says 444455556666",
        ),
        (
            {"cluster": {"nodeRoleArn": ROLE}, "network": {"certificateArn": CERTIFICATE.replace("1111", "9999")}},
            "frugal-llm:network.certificateArn",
        ),
        (
            {"cluster": {"secretsKeyArn": KEY.replace("us-east-1", "eu-west-1")}},
            "is of eu-west-1, the stack is in us-east-1; give one of us-east-1, or change aws:region",
        ),
        (
            {"network": {"certificateArn": CERTIFICATE.replace("us-east-1", "us-west-2")}},
            "is of us-west-2, the stack is in us-east-1",
        ),
        (
            {"cluster": {"roleArn": ROLE.replace("arn:aws:", "arn:aws-cn:")}},
            "is of partition aws-cn, us-east-1 is in aws; write arn:aws:…",
        ),
    ],
)
def test_an_arn_of_another_account_region_or_partition_is_found_with_its_way_out(
    config: dict[str, Any], expected: str
) -> None:
    (problem,) = found(**config)
    assert expected in str(problem)


def test_a_web_acl_of_another_region_or_account_is_found() -> None:
    here = "arn:aws:wafv2:us-east-1:111122223333:regional/webacl/llm/1234abcd"
    assert found(network={"webAclArn": here}, access={"accountId": "111122223333"}) == []
    (region,) = found(network={"webAclArn": here.replace("us-east-1", "eu-west-1")})
    assert "frugal-llm:network.webAclArn" in str(region)
    assert "is of eu-west-1, the stack is in us-east-1" in str(region)
    (account,) = found(network={"webAclArn": here}, access={"accountId": "999922223333"})
    assert "is of account 111122223333" in str(account)


def test_administrators_may_be_of_other_accounts() -> None:
    # "If the type is STANDARD, the ARN can be in the same, or different, AWS account" (EKS user guide, access entries).
    admins = ["arn:aws:iam::444455556666:role/Admin", "arn:aws:iam::777788889999:user/eve"]
    assert found(cluster={"roleArn": ROLE}, access={"adminRoleArns": admins, "accountId": "111122223333"}) == []


@pytest.mark.parametrize(
    ("section", "key", "arn", "expected"),
    [
        ("cluster", "roleArn", "arn:aws:iam::111122223333:user/eve", "is the ARN of user in iam, not of an IAM role"),
        (
            "cluster",
            "nodeRoleArn",
            "arn:aws:sts::111122223333:assumed-role/nodes/i-1",
            "is the ARN of assumed-role in sts, not of an IAM role",
        ),
        (
            "cluster",
            "secretsKeyArn",
            "arn:aws:kms:us-east-1:111122223333:alias/eks",
            "is the ARN of alias in kms, not of a KMS key; for example arn:aws:kms:",
        ),
        ("cluster", "secretsKeyArn", "alias/eks", "is no ARN of a KMS key"),
        (
            "network",
            "webAclArn",
            "arn:aws:wafv2:us-east-1:111122223333:global/webacl/llm/1",
            "is the ARN of global in wafv2, not of a regional web ACL of WAF v2",
        ),
        ("cluster", "roleArn", "eks-control-plane", "is no ARN of an IAM role; for example arn:aws:iam:"),
    ],
)
def test_an_arn_of_another_form_is_told_what_it_is_of(section: str, key: str, arn: str, expected: str) -> None:
    (problem,) = read(REGION, {"tiers": [tier()], section: {key: arn}}).problems
    assert problem.path == f"frugal-llm:{section}.{key}"
    assert expected in problem.limit


@pytest.mark.parametrize(
    ("region", "expected"), [("us-east-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_each_region_is_in_its_partition(region: str, expected: str) -> None:
    assert partition(region) == expected


def test_wrong_arns_blocks_and_versions_come_together_before_anything_is_planned() -> None:
    config = {
        "tiers": [tier()],
        "cluster": {
            "kubernetesVersion": "1.33",
            "roleArn": ROLE,
            "secretsKeyArn": KEY.replace("us-east-1", "eu-west-1"),
        },
        "network": {"vpcCidr": "172.17.0.0/16"},
    }
    with pytest.raises(ConfigurationError) as raised:
        plan_config(REGION, config)
    assert {problem.path for problem in raised.value.problems} == {
        "frugal-llm:cluster.kubernetesVersion",
        "frugal-llm:cluster.secretsKeyArn",
        "frugal-llm:network.vpcCidr",
    }
