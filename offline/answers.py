"""What the providers would answer after an update: ids, ARNs and the other computed properties.

A preview never asks here: before the first ``pulumi up`` every computed property is unknown. After it, the answers are
either samples of the right shape (``vpc-0a1b…``, ``arn:aws:sqs:…``), for tests and scratch clusters, or placeholders
that say what will stand there (``${queue.arn}``), for manifests that a person reads.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any

import pulumi

from offline.recording import Properties, Resource

#: The account number of AWS's own documentation.
ACCOUNT = "111122223333"

# Prefixes of the ids that AWS makes up, from the AWS documentation of each service; 17 hexadecimal digits follow.
_ID_PREFIXES = {
    "EgressOnlyInternetGateway": "eigw",
    "Eip": "eipalloc",
    "FlowLog": "fl",
    "InternetGateway": "igw",
    "LaunchTemplate": "lt",
    "NatGateway": "nat",
    "RouteTable": "rtb",
    "RouteTableAssociation": "rtbassoc",
    "SecurityGroup": "sg",
    "SecurityGroupEgressRule": "sgr",
    "SecurityGroupIngressRule": "sgr",
    "SecurityGroupRule": "sgrule",
    "Subnet": "subnet",
    "Vpc": "vpc",
    "VpcEndpoint": "vpce",
    "FileSystem": "fs",
    "AccessPoint": "fsap",
    "MountTarget": "fsmt",
}
# Services whose ARNs carry no region.
_GLOBAL_SERVICES = {"iam", "s3", "route53", "cloudfront"}
# What stands before the name in an ARN where that is not the resource's own type, by module/type.
_ARN_PREFIXES = {"sqs/queue": "", "s3/bucket": "", "sns/topic": "", "budgets/budget": "budget/"}
# Types whose id is another of their properties.
_ID_PROPERTIES = {"sqs/queue": "url", "iam/policy": "arn", "sns/topic": "arn", "budgets/budget": "name"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The id of a resource and the properties that the provider computes, without the inputs."""

    id: str
    computed: Mapping[str, Any]


@dataclass(slots=True)
class Answers:
    """Answers of the right shape, the same in every run; with ``placeholders``, readable stand-ins instead."""

    placeholders: bool = False
    #: Every placeholder given so far.
    given: set[str] = field(default_factory=set)

    def answer(self, resource: Resource, resource_class: type, region: str) -> Answer:
        """Answer for a created resource: everything its class always has and the inputs do not say.

        ``region`` is where the resource's provider works.
        """
        subject = _Subject(resource.type, resource.name, resource.inputs, region, self)
        computed: dict[str, Any] = {}
        if resource.package in {"aws", "eks"}:
            wanted = {key: kind for key, kind in _always_present(resource_class).items() if key not in resource.inputs}
            computed = {
                key: value for key, kind in wanted.items() if (value := subject.computed(key, kind)) is not None
            }
        for special in (resource.package, resource.type):
            computed |= _SPECIAL[special](subject) if special in _SPECIAL else {}
        return Answer(subject.id(), computed)

    def placeholder(self, name: str, key: str) -> str:
        """Make the stand-in for a computed text."""
        text = f"${{{name}.{key}}}"
        self.given.add(text)
        return text


@dataclass(frozen=True, slots=True)
class _Subject:
    """A resource about to be answered for."""

    type: str
    name: str
    inputs: Properties
    region: str
    answers: Answers

    @property
    def module(self) -> str:
        """``sqs/queue`` of ``aws:sqs/queue:Queue``."""
        return self.type.split(":")[1]

    @property
    def short_type(self) -> str:
        return self.type.rpartition(":")[2]

    def digits(self, salt: str, count: int) -> str:
        return hashlib.sha256(f"{self.type}|{self.name}|{salt}".encode()).hexdigest()[:count]

    def text(self, key: str, sample: str) -> str:
        return self.answers.placeholder(self.name, key) if self.answers.placeholders else sample

    def id(self) -> str:
        if self.type.startswith("kubernetes:"):
            metadata = self.inputs.at("metadata", default={})
            return "/".join(part for part in (metadata.get("namespace"), self.object_name()) if part)
        if self.type.startswith("aws:") and self.module in _ID_PROPERTIES:
            key = _ID_PROPERTIES[self.module]
            return self.inputs.get(key) or self.computed(key, str)
        if self.type.startswith("pulumi:providers:"):
            return self.digits("id", 32)
        prefix = _ID_PREFIXES.get(self.short_type)
        sample = f"{prefix}-{self.digits('id', 17)}" if prefix else self.physical_name()
        return self.text("id", sample)

    def physical_name(self) -> str:
        given = self.inputs.get("name") or self.inputs.get("bucket") or self.inputs.get("clusterName")
        return given if isinstance(given, str) else f"{self.name}-{self.digits('name', 7)}"

    def object_name(self) -> str:
        """Name a Kubernetes object: as given, else what autonaming makes of the logical name."""
        given = self.inputs.at("metadata", "name")
        if isinstance(given, str):
            return given
        return self.name if self.answers.placeholders else f"{self.name}-{self.digits('name', 8)}"

    def arn(self) -> str:
        service, _, kind = self.module.partition("/")
        region = "" if service in _GLOBAL_SERVICES else self.region
        account = "" if service == "s3" else ACCOUNT
        prefix = _ARN_PREFIXES.get(self.module, f"{kind}/")
        return f"arn:aws:{service}:{region}:{account}:{prefix}{self.physical_name()}"

    def computed(self, key: str, kind: object) -> Any:
        """Give a computed scalar; mappings, lists and nested objects are left to :data:`_SPECIAL`."""
        if kind is bool:
            return False
        if kind in {int, float}:
            return 0
        return self.text(key, self._sample(key)) if kind is str else None

    def _sample(self, key: str) -> str:
        lowered = key.lower()
        if key == "arn":
            return self.arn()
        if key in {"name", "bucket"}:
            return self.physical_name()
        if key == "region":
            return self.region
        if lowered in {"accountid", "ownerid", "registryid"}:
            return ACCOUNT
        if lowered.endswith("arn"):
            return f"arn:aws:{self.module.partition('/')[0]}:{self.region}:{ACCOUNT}:{key}/{self.name}"
        if self.module == "sqs/queue" and key == "url":
            return f"https://sqs.{self.region}.amazonaws.com/{ACCOUNT}/{self.physical_name()}"
        if lowered.endswith(("url", "endpoint")):
            return f"https://{self.digits(key, 32)}.example.amazonaws.com"
        prefixes = {"securitygroupid": "sg", "subnetid": "subnet", "vpcid": "vpc", "routetableid": "rtb"}
        prefix = next((prefix for ending, prefix in prefixes.items() if lowered.endswith(ending)), None)
        return f"{prefix}-{self.digits(key, 17)}" if prefix else f"{key}-{self.digits(key, 17)}"


def _always_present(resource_class: type) -> dict[str, object]:
    """Map the output properties of an SDK class that are never absent to their types (text, number, …)."""
    present: dict[str, object] = {}
    for _, member in inspect.getmembers_static(resource_class, lambda member: isinstance(member, property)):
        key = getattr(member.fget, "_pulumi_name", None)
        hint = getattr(member.fget, "__annotations__", {}).get("return")
        arguments = typing.get_args(hint)
        if key and arguments and typing.get_origin(hint) is pulumi.Output and not _optional(arguments[0]):
            present[key] = arguments[0]
    return present


def _optional(hint: object) -> bool:
    return typing.get_origin(hint) in {typing.Union, UnionType} and type(None) in typing.get_args(hint)


def _kubernetes(subject: _Subject) -> dict[str, Any]:
    """Every object comes back with its name; nothing else of the cluster's own additions is imitated."""
    metadata = subject.inputs.at("metadata", default=None)
    if metadata is None and "kind" not in subject.inputs:
        return {}
    return {"metadata": {**(metadata or {}), "name": subject.object_name()}}


def _load_balanced(subject: _Subject) -> dict[str, Any]:
    if subject.short_type == "Service" and subject.inputs.at("spec", "type") != "LoadBalancer":
        return {}
    host = subject.text("hostname", f"k8s-{subject.digits('host', 16)}.{subject.region}.elb.amazonaws.com")
    return {"status": {"loadBalancer": {"ingress": [{"hostname": host}]}}}


def _release(subject: _Subject) -> dict[str, Any]:
    name = subject.inputs.get("name") or (
        subject.name if subject.answers.placeholders else f"{subject.name}-{subject.digits('name', 8)}"
    )
    namespace = subject.inputs.get("namespace") or "default"
    return {"name": name, "status": {"name": name, "namespace": namespace, "status": "deployed", "revision": 1}}


def _eks_component(subject: _Subject) -> dict[str, Any]:
    """The scalar outputs of ``eks.Cluster``; those that are whole resources stay absent, as its children are unseen."""
    name = subject.physical_name()
    digits = subject.digits("oidc", 32).upper()
    host = f"{digits}.gr7.{subject.region}.eks.amazonaws.com"
    issuer = f"oidc.eks.{subject.region}.amazonaws.com/id/{digits}"
    arguments = ["eks", "get-token", "--cluster-name", name]
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "aws", "args": arguments}}
    server = {"server": subject.text("endpoint", f"https://{host}"), "certificate-authority-data": "LS0tLS1CRUdJTg=="}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": server}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
        "users": [{"name": name, "user": user}],
    }
    return {
        # What the component's documentation says of a cluster without default node group, Fargate and auto mode.
        **dict.fromkeys(
            ("autoModeNodeRoleName", "defaultNodeGroupAsgName", "fargateProfileId", "fargateProfileStatus"), ""
        ),
        "kubeconfig": kubeconfig,
        "kubeconfigJson": json.dumps(kubeconfig),
        "oidcIssuer": subject.text("oidcIssuer", issuer),
        "oidcProviderUrl": subject.text("oidcProviderUrl", f"https://{issuer}"),
        "oidcProviderArn": subject.text("oidcProviderArn", f"arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer}"),
    }


def _eks_cluster(subject: _Subject) -> dict[str, Any]:
    component = _eks_component(subject)
    cluster = component["kubeconfig"]["clusters"][0]["cluster"]
    return {
        "endpoint": cluster["server"],
        "certificateAuthority": {"data": cluster["certificate-authority-data"]},
        "identities": [{"oidcs": [{"issuer": component["oidcProviderUrl"]}]}],
    }


# Computed properties that are not plain scalars, or that the program may take apart; by type token or package.
_SPECIAL: Mapping[str, Callable[[_Subject], dict[str, Any]]] = {
    "kubernetes": _kubernetes,
    "kubernetes:core/v1:Service": _load_balanced,
    "kubernetes:networking.k8s.io/v1:Ingress": _load_balanced,
    "kubernetes:helm.sh/v3:Release": _release,
    "aws:eks/cluster:Cluster": _eks_cluster,
    "eks:index:Cluster": _eks_component,
}


Function = Callable[[Mapping[str, Any], str], Mapping[str, Any]]


def _zones(_: Mapping[str, Any], region: str) -> dict[str, Any]:
    names = [f"{region}{letter}" for letter in "abc"]
    return {"id": region, "names": names, "zoneIds": [f"{region}-az{number}" for number in (1, 2, 3)], "region": region}


def _policy_document(arguments: Mapping[str, Any], _: str) -> dict[str, Any]:
    """Render the JSON of an IAM policy from its statements, as the provider does without asking AWS."""
    statements = []
    for given in arguments.get("statements", []):
        principals: dict[str, list[str]] = {}
        for principal in given.get("principals", []):
            principals.setdefault(principal["type"], []).extend(principal["identifiers"])
        conditions: dict[str, dict[str, Any]] = {}
        for condition in given.get("conditions", []):
            conditions.setdefault(condition["test"], {})[condition["variable"]] = condition["values"]
        statement = {
            "Sid": given.get("sid"),
            "Effect": given.get("effect", "Allow"),
            "Action": given.get("actions"),
            "Resource": given.get("resources"),
            "Principal": principals or None,
            "Condition": conditions or None,
        }
        statements.append({key: value for key, value in statement.items() if value is not None})
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return {"id": "0", "json": document, "minifiedJson": document}


#: The provider functions that can be answered without an account. Any other call raises: an invented answer would make
#: the preview lie.
FUNCTIONS: Mapping[str, Function] = {
    "aws:index/getCallerIdentity:getCallerIdentity": lambda _, __: {
        "accountId": ACCOUNT,
        "arn": f"arn:aws:iam::{ACCOUNT}:user/offline",
        "id": ACCOUNT,
        "userId": "AIDACKCEVSQ6C2EXAMPLE",
    },
    "aws:index/getRegion:getRegion": lambda _, region: {"id": region, "name": region, "region": region},
    "aws:index/getPartition:getPartition": lambda _, __: {
        "dnsSuffix": "amazonaws.com",
        "id": "aws",
        "partition": "aws",
        "reverseDnsPrefix": "com.amazonaws",
    },
    "aws:index/getAvailabilityZones:getAvailabilityZones": _zones,
    "aws:iam/getPolicyDocument:getPolicyDocument": _policy_document,
}
