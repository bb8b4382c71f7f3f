"""What the providers do with a changed input: update in place, or replace, and then which of the two goes first.

Sources. Kubernetes: pulumi/pulumi-kubernetes@9497796 (2026-07-01), `provider/pkg/provider/diff.go` (the fields) and
`provider.go`, `Diff` (a fixed name is deleted first), `helm_release.go` (a release is never). AWS: `ForceNew` and
`RequiresReplace` of hashicorp/terraform-provider-aws, `internal/service`: EKS and NAT gateways read on 2026-11-26, the
rest recalled, not verified. Given names, which are deleted first: pulumi-terraform-bridge, recalled. The component
`eks.Cluster`: how pulumi/pulumi-eks@d3bdb2e, `nodejs/eks/cluster/cluster.ts` (read on 2026-11-27) fills its cluster.

Not proven: what an API server refuses to change although the provider tries (a StorageClass's reclaim policy, say).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from offline.recording import PropertyPath

_EVERY_OBJECT: Final = ("metadata.name", "metadata.namespace")
_KUBERNETES: Final[Mapping[str, tuple[str, ...]]] = {
    "apps/v1:Deployment": ("spec.selector",),
    "apps/v1:DaemonSet": ("spec.selector",),
    "apps/v1:StatefulSet": (
        "spec.podManagementPolicy",
        "spec.revisionHistoryLimit",
        "spec.selector",
        "spec.serviceName",
        "spec.volumeClaimTemplates",
    ),
    "batch/v1:Job": ("spec.completions", "spec.parallelism", "spec.selector", "spec.template"),
    # Unless the provider is told that they may change; the program's does not say so.
    "core/v1:ConfigMap": ("binaryData", "data"),
    "core/v1:Secret": ("type", "stringData", "data"),
    "core/v1:PersistentVolumeClaim": (
        "spec.accessModes",
        "spec.selector",
        "spec.storageClassName",
        "spec.volumeName",
    ),
    "core/v1:Service": ("spec.clusterIP",),
    "rbac.authorization.k8s.io/v1:RoleBinding": ("roleRef",),
    "storage.k8s.io/v1:StorageClass": ("parameters", "provisioner"),
}
_HELM_RELEASE: Final = "kubernetes:helm.sh/v3:Release"

EKS_CLUSTER: Final = "eks:index:Cluster"
_REPLACING_THE_CLUSTER: Final = ("kubernetesServiceIpAddressRange", "name", "serviceRole")
"""They become ``service_ipv4_cidr``, ``name`` and ``role_arn``, which are ``ForceNew``."""

#: Inputs that the provider reports as updated and does not: EKS cannot change a cluster's key, so `cluster.go` calls it
#: only for a cluster that has none (hashicorp/terraform-provider-aws issue 34883, of 2023-12-12, and the source).
NOT_APPLIED: Final[Mapping[str, tuple[str, ...]]] = {EKS_CLUSTER: ("encryptionConfigKeyArn",)}

#: Inputs whose update the cloud refuses: a cluster stays in its VPC, and takes subnets of no other (recalled).
REFUSED: Final[Mapping[str, tuple[str, ...]]] = {EKS_CLUSTER: ("vpcId",)}

#: For each AWS type of the program, its inputs that replace it; all others are updated.
AWS: Final[Mapping[str, tuple[str, ...]]] = {
    "budgets/budget:Budget": ("name",),
    "cloudwatch/eventRule:EventRule": ("name",),
    "cloudwatch/eventTarget:EventTarget": ("rule", "targetId"),
    "cloudwatch/logGroup:LogGroup": ("name",),
    "ec2/defaultSecurityGroup:DefaultSecurityGroup": ("vpcId",),
    "ec2/eip:Eip": ("domain",),
    "ec2/internetGateway:InternetGateway": (),
    "ec2/launchTemplate:LaunchTemplate": ("name",),
    "ec2/natGateway:NatGateway": ("allocationId", "connectivityType", "subnetId"),
    "ec2/route:Route": ("destinationCidrBlock", "routeTableId"),
    "ec2/routeTable:RouteTable": ("vpcId",),
    "ec2/routeTableAssociation:RouteTableAssociation": ("subnetId",),
    "ec2/subnet:Subnet": ("availabilityZone", "cidrBlock", "vpcId"),
    "ec2/tag:Tag": ("key", "resourceId"),
    "ec2/vpc:Vpc": ("cidrBlock",),
    "ec2/vpcEndpoint:VpcEndpoint": ("serviceName", "vpcEndpointType", "vpcId"),
    "eks/accessEntry:AccessEntry": ("clusterName", "principalArn", "type"),
    "eks/accessPolicyAssociation:AccessPolicyAssociation": ("accessScope", "clusterName", "policyArn", "principalArn"),
    "eks/addon:Addon": ("addonName", "clusterName"),
    "eks/cluster:Cluster": (
        "bootstrapSelfManagedAddons",
        "kubernetesNetworkConfig.serviceIpv4Cidr",
        "name",
        "roleArn",
    ),
    "eks/nodeGroup:NodeGroup": (
        "amiType",
        "capacityType",
        "clusterName",
        "instanceTypes",
        "launchTemplate.id",
        "nodeRoleArn",
        "subnetIds",
    ),
    "eks/podIdentityAssociation:PodIdentityAssociation": ("clusterName", "namespace", "serviceAccount"),
    "iam/policy:Policy": ("description", "name", "path"),
    "iam/role:Role": ("name", "path"),
    "iam/rolePolicy:RolePolicy": ("name", "role"),
    "iam/rolePolicyAttachment:RolePolicyAttachment": ("policyArn", "role"),
    "kms/key:Key": (),
    "s3/bucket:Bucket": ("bucket",),
    "s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": ("bucket",),
    "s3/bucketPolicy:BucketPolicy": ("bucket",),
    "s3/bucketPublicAccessBlock:BucketPublicAccessBlock": ("bucket",),
    "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": ("bucket",),
    "s3/bucketVersioning:BucketVersioning": ("bucket",),
    "sqs/queue:Queue": ("name",),
    "sqs/queuePolicy:QueuePolicy": ("queueUrl",),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """What a change of inputs does to a resource that exists."""

    changed: tuple[PropertyPath, ...]
    replacing: tuple[PropertyPath, ...]
    """Those of the changed inputs that cannot be updated."""
    refused: bool
    """The update fails."""
    applied: bool
    """The update reaches the cloud, at least a part of it."""
    delete_first: bool
    """The new one can only be made when the old one is gone: its name is given."""


def difference(
    type_: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    moved: tuple[PropertyPath, ...] = (),
) -> Difference:
    """Give what the provider of a type makes of a change; ``moved`` are paths whose new value is not known yet."""
    changed = tuple(dict.fromkeys([*_differing(dict(old), dict(new), ()), *moved]))
    fixed = fields_that_replace(type_)
    replacing = tuple(path for path in changed if any(_covers(field, path) for field in fixed))
    refused = any(_covers(field, path) for field in REFUSED.get(type_, ()) for path in changed)
    applied = not all(any(_covers(field, path) for field in NOT_APPLIED.get(type_, ())) for path in changed)
    delete_first = bool(replacing) and _keeps_its_name(type_, old, new, replacing)
    return Difference(changed, replacing, refused, applied, delete_first)


def fields_that_replace(type_: str) -> tuple[str, ...]:
    """Give the inputs of a type that replace it, as dotted paths. Raises KeyError for an AWS type without an entry."""
    package, _, name = type_.partition(":")
    if type_ == _HELM_RELEASE:
        return ("name", "namespace")
    if package == "kubernetes":
        return (*_EVERY_OBJECT, *_KUBERNETES.get(name, ()))
    if type_ == EKS_CLUSTER:
        return _REPLACING_THE_CLUSTER
    return AWS[name] if package == "aws" else ()


def physical_name(type_: str, inputs: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Give what no two objects of a cluster or account may share; None when Pulumi draws the name."""
    if type_.startswith("kubernetes:") and type_ != _HELM_RELEASE:
        metadata = inputs.get("metadata") or {}
        # An object is known by group and kind: versions are views of it.
        group, kind = type_.removeprefix("kubernetes:").rpartition("/")[0], type_.rpartition(":")[2]
        return (group, kind, metadata.get("namespace") or "", metadata["name"]) if metadata.get("name") else None
    keys = {
        _HELM_RELEASE: ("namespace", "name"),
        EKS_CLUSTER: ("name",),
        "aws:eks/cluster:Cluster": ("name",),
        "aws:eks/podIdentityAssociation:PodIdentityAssociation": ("clusterName", "namespace", "serviceAccount"),
        "aws:eks/accessEntry:AccessEntry": ("clusterName", "principalArn"),
        "aws:eks/addon:Addon": ("clusterName", "addonName"),
        "aws:sqs/queue:Queue": ("name",),
        "aws:cloudwatch/logGroup:LogGroup": ("name",),
    }.get(type_)
    return (type_, *(str(inputs.get(key)) for key in keys)) if keys else None


def _keeps_its_name(
    type_: str, old: Mapping[str, Any], new: Mapping[str, Any], replacing: tuple[PropertyPath, ...]
) -> bool:
    if type_ == _HELM_RELEASE:
        return False
    name = physical_name(type_, new)
    return name is not None and name == physical_name(type_, old) and not _renamed(type_, replacing)


def _renamed(type_: str, replacing: tuple[PropertyPath, ...]) -> bool:
    return type_.startswith("kubernetes:") and any(path[:1] == ("metadata",) for path in replacing)


def _covers(field: str, path: PropertyPath) -> bool:
    """Say whether a change at ``path`` touches ``field``: inside it, or with it inside."""
    parts = tuple(field.split("."))
    names = tuple(part for part in path if isinstance(part, str))
    return names[: len(parts)] == parts or parts[: len(names)] == names


def _differing(old: Any, new: Any, path: PropertyPath) -> Iterator[PropertyPath]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if key in old and key in new:
                yield from _differing(old[key], new[key], (*path, key))
            else:
                yield (*path, key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differing(before, after, (*path, index))
    else:
        yield path
