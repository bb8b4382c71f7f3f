"""IAM: policy documents as data files beside this module, and the roles that several components share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

import pulumi
import pulumi_aws as aws

from planning.arns import partition

_DIRECTORY: Final = Path(__file__).parent

EC2: Final = ("ec2.amazonaws.com", ("sts:AssumeRole",))
"""Trust of nodes."""
POD_IDENTITY: Final = ("pods.eks.amazonaws.com", ("sts:AssumeRole", "sts:TagSession"))
"""Trust of pods: the Pod Identity agent tags the session with cluster, namespace and service account."""

NODE_POLICIES: Final = (
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonEC2ContainerRegistryPullOnly",
    "AmazonSSMManagedInstanceCore",
)
"""What Karpenter's own CloudFormation gives to a node; the last is the only way to log in, there are no SSH keys."""


@dataclass(frozen=True, slots=True)
class AttachedRole:
    """A role together with its attachments: who needs the permissions depends on ``attachments``, not on the role."""

    role: aws.iam.Role
    attachments: tuple[aws.iam.RolePolicyAttachment, ...]


@dataclass(frozen=True, slots=True)
class NodeRole:
    """The role of nodes: the stack's own, or one that is there and has its policies."""

    arn: pulumi.Output[str]
    name: pulumi.Output[str]
    attachments: tuple[aws.iam.RolePolicyAttachment, ...]


def node_role(name: str, given_arn: str | None, region: str, opts: pulumi.ResourceOptions) -> NodeRole:
    """Give the role of ``given_arn``, or create one with the policies of a node."""
    if given_arn is not None:
        return NodeRole(pulumi.Output.from_input(given_arn), pulumi.Output.from_input(role_name(given_arn)), ())
    made = attached_role(name, EC2, NODE_POLICIES, region, opts)
    return NodeRole(made.role.arn, made.role.name, made.attachments)


def role_name(arn: str) -> str:
    """Give the name in a role's ARN, without its path."""
    return arn.rsplit("/", 1)[-1]


def account_id(arn: pulumi.Output[str]) -> pulumi.Output[str]:
    """Give the account in ``arn``, without asking AWS who calls. A text that only stands for an ARN stands for both."""
    return arn.apply(lambda text: text.split(":")[4] if text.startswith("arn:") else text)


def titles(file: str) -> tuple[str, ...]:
    """Name the policies of a data file."""
    return tuple(json.loads((_DIRECTORY / file).read_text()))


def documents(file: str, **values: str) -> dict[str, str]:
    """Read the policies of a data file by name, as compact JSON with ``${placeholder}`` replaced by ``values``.

    KeyError when a placeholder has no value.
    """
    filled = Template((_DIRECTORY / file).read_text()).substitute(values)
    return {name: json.dumps(document, separators=(",", ":")) for name, document in json.loads(filled).items()}


def document(file: str) -> str:
    """Read one policy as it stands; its ``${aws:…}`` are IAM's own variables."""
    return json.dumps(json.loads((_DIRECTORY / file).read_text()), separators=(",", ":"))


def trust(principal: tuple[str, tuple[str, ...]]) -> str:
    """Give the trust policy for ``EC2`` or ``POD_IDENTITY``."""
    service, actions = principal
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": list(actions)}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def attached_role(
    name: str,
    principal: tuple[str, tuple[str, ...]],
    managed_policies: Sequence[str],
    region: str,
    opts: pulumi.ResourceOptions,
) -> AttachedRole:
    """Create a role for ``principal`` with AWS-managed policies, given by name with their path."""
    role = aws.iam.Role(name, assume_role_policy=trust(principal), opts=opts)
    return AttachedRole(
        role,
        tuple(
            aws.iam.RolePolicyAttachment(
                f"{name}-{policy.rsplit('/', 1)[-1]}",
                role=role.name,
                policy_arn=f"arn:{partition(region)}:iam::aws:policy/{policy}",
                opts=opts,
            )
            for policy in managed_policies
        ),
    )
