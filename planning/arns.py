"""ARNs of a stack against its region, its account and each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from problems import NAMESPACE, Problem
from settings import StackSettings


def partition(region: str) -> str:
    """The ARN partition that ``region`` belongs to."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


@dataclass(frozen=True, slots=True)
class _Arn:
    path: str
    text: str
    own_account: bool = True
    """AWS takes it from the stack's own account only, or this program does."""

    @property
    def partition(self) -> str:
        return self.text.split(":")[1]

    @property
    def region(self) -> str:
        """Empty for IAM, which has none."""
        return self.text.split(":")[3]

    @property
    def account(self) -> str:
        return self.text.split(":")[4]


def arn_problems(settings: StackSettings) -> list[Problem]:
    """ARNs of another partition or region, and those of another account where it must be the stack's.

    A role is passed on within one account, and a load balancer takes certificates and web ACLs of its own account. EKS
    would take another account's key, which this program does not: that account's key policy could cut a running cluster
    off from its secrets. Administrators may be of any account: EKS says so of entries of type STANDARD. The stack's
    account is ``access.accountId``, else that of the first ARN; whether the credentials are of it, AWS says.
    """
    arns = list(_arns(settings))
    own = next(((arn.account, arn.path) for arn in arns if arn.own_account), None)
    if settings.access.account_id is not None:
        own = settings.access.account_id, f"{NAMESPACE}:access.accountId"
    problems: list[Problem] = []
    for arn in arns:
        wanted = partition(settings.region)
        if arn.partition != wanted:
            limit = f"is of partition {arn.partition}, {settings.region} is in {wanted}"
            problems.append(Problem(arn.path, arn.text, limit, f"write arn:{wanted}:…"))
        elif arn.region not in ("", settings.region):
            limit = f"is of {arn.region}, the stack is in {settings.region}"
            problems.append(Problem(arn.path, arn.text, limit, f"give one of {settings.region}, or change aws:region"))
        if arn.own_account and own is not None and arn.account != own[0]:
            limit = f"is of account {arn.account}, {own[1]} says {own[0]}"
            problems.append(Problem(arn.path, arn.text, limit, f"give one of account {own[0]}"))
    return problems


def _arns(settings: StackSettings) -> Iterator[_Arn]:
    named = (
        ("cluster.roleArn", settings.cluster.role_arn),
        ("cluster.nodeRoleArn", settings.cluster.node_role_arn),
        ("cluster.secretsKeyArn", settings.cluster.secrets_key_arn),
        ("network.certificateArn", settings.network.certificate_arn),
        ("network.webAclArn", settings.network.web_acl_arn),
    )
    for name, arn in named:
        if arn is not None:
            yield _Arn(f"{NAMESPACE}:{name}", arn)
    for position, arn in enumerate(settings.access.admin_role_arns):
        yield _Arn(f"{NAMESPACE}:access.adminRoleArns[{position}]", arn, own_account=False)
