"""A small AWS and Kubernetes: what exists, and what may not be made yet or deleted now.

It knows resources by type and inputs, as providers do, and refuses with the error that AWS gives or, where AWS would
let it happen, with what it would break: a finalizer that nobody clears, instances that nobody stops. Messages are
recalled from AWS' API references, not recorded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.change.replacement import physical_name

CLUSTER: Final = "aws:eks/cluster:Cluster"
REMOTE_CLUSTER: Final = "eks:index:Cluster"
NODE_GROUP: Final = "aws:eks/nodeGroup:NodeGroup"
ADDON: Final = "aws:eks/addon:Addon"
ASSOCIATION: Final = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
ATTACHMENT: Final = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
ACCESS_ENTRY: Final = "aws:eks/accessEntry:AccessEntry"
RELEASE: Final = "kubernetes:helm.sh/v3:Release"
NAMESPACE: Final = "kubernetes:core/v1:Namespace"
NODE_POOL: Final = "kubernetes:karpenter.sh/v1:NodePool"
NODE_CLASS: Final = "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass"
SCALED_OBJECT: Final = "kubernetes:keda.sh/v1alpha1:ScaledObject"
INGRESS: Final = "kubernetes:networking.k8s.io/v1:Ingress"
WORKLOADS: Final = ("kubernetes:apps/v1:Deployment", "kubernetes:batch/v1:Job")

#: The chart that defines the kinds of an API group.
_DEFINED_BY: Final = {
    "karpenter.sh": "karpenter-crd",
    "karpenter.k8s.aws": "karpenter-crd",
    "keda.sh": "keda",
    "monitoring.coreos.com": "kube-prometheus-stack",
}
#: The controller that clears the finalizer of a kind, by its chart, and the account by which it has rights in AWS.
_CLEARED_BY: Final = {
    NODE_POOL: ("karpenter", "karpenter"),
    NODE_CLASS: ("karpenter", "karpenter"),
    SCALED_OBJECT: ("keda", None),
    INGRESS: ("aws-load-balancer-controller", "aws-load-balancer-controller"),
}
_CORE_ADDONS: Final = ("vpc-cni", "kube-proxy", "coredns", "eks-pod-identity-agent")
_WITHOUT_PODS: Final = ("karpenter-crd",)
_PROMETHEUS: Final = "kube-prometheus-stack"


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that exists."""

    urn: str
    type: str
    id: str
    inputs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Logical name, for messages."""
        return self.urn.rpartition("::")[2]

    @property
    def chart(self) -> str:
        """Name of a release's chart, without its repository."""
        return str(self.inputs.get("chart", "")).rpartition("/")[2]

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata of a Kubernetes object."""
        return self.inputs.get("metadata") or {}

    @property
    def group(self) -> str:
        """API group of a Kubernetes object."""
        return self.type.removeprefix("kubernetes:").rpartition("/")[0]


class Refused(Exception):
    """The world does not let it happen."""


class World:
    """What exists. Not safe for threads: callers take turns."""

    def __init__(self, whole: Iterable[Thing] = ()) -> None:
        """``whole``: everything of a stack, of which the world holds a part."""
        self.things: dict[str, Thing] = {}
        """By URN and id: a replaced resource exists twice for a while."""
        self._policies: defaultdict[object, set[str]] = defaultdict(set)
        """The attachments that a role has when its stack is complete, by role."""
        for thing in whole:
            self._remember(thing)

    def create(self, thing: Thing) -> None:
        """Make something. Raises ``Refused`` when what it needs is not there."""
        if thing.type.startswith("kubernetes:"):
            self._reach_cluster(thing)
            chart = _DEFINED_BY.get(thing.group)
            if chart and not self._releases(chart):
                raise Refused(f"no matches for kind {thing.type.rpartition(':')[2]}: {chart} is not installed")
            space = thing.inputs.get("namespace") if thing.type == RELEASE else thing.metadata.get("namespace")
            if space and not self._namespace(str(space)):
                raise Refused(f'namespaces "{space}" not found')
        for key, kind in (("vpcId", "aws:ec2/vpc:Vpc"), ("subnetId", "aws:ec2/subnet:Subnet")):
            wanted = thing.inputs.get(key)
            if (
                thing.type.startswith("aws:")
                and wanted
                and not self._having(kind, lambda one, id_=wanted: one.id == id_)
            ):
                raise Refused(f"Invalid{key[0].upper()}{key[1:]}.NotFound: {wanted}")
        name = physical_name(thing.type, thing.inputs)
        if name is not None and any(physical_name(one.type, one.inputs) == name for one in self._all(thing.type)):
            raise Refused(f"AlreadyExists: {'/'.join(name)}")
        self.put(thing)

    def put(self, thing: Thing) -> None:
        """Have something there, whatever it needs."""
        self._remember(thing)
        self.things[_key(thing.urn, thing.id)] = thing

    def _remember(self, thing: Thing) -> None:
        if thing.type == ATTACHMENT:
            self._policies[thing.inputs.get("role")].add(thing.urn)

    def update(self, urn: str, id_: str, inputs: Mapping[str, Any]) -> None:
        """Change something's inputs. Raises ``Refused`` when it is not there."""
        found = self.things.get(_key(urn, id_))
        if found is None:
            raise Refused(f"{urn} ({id_}) not found")
        self.things[_key(urn, id_)] = Thing(urn, found.type, id_, inputs)

    def delete(self, urn: str, id_: str) -> None:
        """Delete something. Raises ``Refused`` with why it may not go yet."""
        thing = self.things.get(_key(urn, id_))
        if thing is None:
            raise Refused(f"{urn} ({id_}) not found")
        reasons = list(self._reasons_against(thing))
        if reasons:
            raise Refused(f"cannot delete {thing.type} {thing.name}: {'; '.join(reasons)}")
        del self.things[_key(urn, id_)]
        if thing.type == "aws:iam/role:Role":
            for role in (thing.id, _name(thing)):
                self._policies.pop(role, None)

    # What stands against a deletion -----------------------------------------------------------------------------

    def _reasons_against(self, thing: Thing) -> Iterator[str]:
        if thing.type.startswith("kubernetes:"):
            self._reach_cluster(thing)
            yield from self._kubernetes(thing)
        else:
            yield from self._network(thing)
            yield from self._account(thing)

    def _kubernetes(self, thing: Thing) -> Iterator[str]:
        if thing.type in _CLEARED_BY:
            chart, account = _CLEARED_BY[thing.type]
            missing = self._missing(chart, account)
            if missing:
                yield f"timed out on its finalizer: {chart} works no more without {', '.join(missing)}"
        if thing.type == NODE_CLASS:
            pools = [one for one in self._all(NODE_POOL) if _class_of(one) == thing.metadata.get("name")]
            yield from _left("nodes are still launched from it by", pools)
        if thing.type == NODE_POOL:
            users = [
                one for kind in WORKLOADS for one in self._all(kind) if _pool_of(one) == thing.metadata.get("name")
            ]
            yield from _left("its nodes still run", users)
        if thing.type == RELEASE:
            kinds = [kind for kind, (chart, _) in _CLEARED_BY.items() if chart == thing.chart]
            yield from _left("nobody would clear the finalizer of", self._all(*kinds))
            groups = {group for group, chart in _DEFINED_BY.items() if chart == thing.chart}
            yield from _left(
                "its definitions would take along",
                [one for one in self._of_kubernetes() if one.group in groups and one.type not in kinds],
            )
            if thing.chart == "karpenter-crd":
                yield from _left("its definitions are watched by", self._releases("karpenter"))
            if thing.chart == _PROMETHEUS:
                drivers = self._having(ADDON, lambda one: one.inputs.get("addonName") == "aws-ebs-csi-driver")
                if not drivers or not self._having(NODE_GROUP, lambda _: True):
                    yield "its volume stays: no driver is left to delete it"
        if thing.type == NAMESPACE:
            inside = [
                one for one in self._of_kubernetes() if one.metadata.get("namespace") == thing.metadata.get("name")
            ]
            yield from _left("it would stay in Terminating with", inside)

    def _account(self, thing: Thing) -> Iterator[str]:
        match thing.type.partition(":")[2]:
            case "eks/cluster:Cluster":
                yield from _left("ResourceInUseException: Cluster has nodegroups attached:", self._all(NODE_GROUP))
                yield from _left("left behind in it:", self._of_kubernetes())
            case "eks/nodeGroup:NodeGroup":
                yield from _left(
                    "its nodes still run", [one for one in self._releases() if one.chart not in _WITHOUT_PODS]
                )
            case "eks/addon:Addon" if thing.inputs.get("addonName") == "vpc-cni":
                yield from _left("no node is Ready without it:", self._all(NODE_GROUP))
            case "iam/role:Role":
                users = [
                    one
                    for one in self.things.values()
                    if one.type.startswith("aws:iam/rolePolicy") and one.inputs.get("role") in {thing.id, _name(thing)}
                ]
                yield from _left("DeleteConflict: Cannot delete entity, must detach all policies first:", users)
            case "iam/policy:Policy":
                users = [one for one in self.things.values() if one.inputs.get("policyArn") == thing.id]
                yield from _left("DeleteConflict: Cannot delete a policy attached to entities:", users)
            case "s3/bucket:Bucket" if not thing.inputs.get("forceDestroy"):
                yield "BucketNotEmpty: The bucket you tried to delete is not empty"
            case "kms/key:Key":
                yield from _left("the secrets are unreadable without it of", self._all(CLUSTER))
            case "eks/accessEntry:AccessEntry" if str(thing.inputs.get("type", "")).startswith("EC2"):
                yield from _left("shut out before they have drained: nodes of", self._all(NODE_POOL, NODE_CLASS))
            case _:
                pass

    def _network(self, thing: Thing) -> Iterator[str]:
        match thing.type.partition(":")[2]:
            case "ec2/vpc:Vpc":
                inside = [one for one in self.things.values() if one.inputs.get("vpcId") == thing.id]
                yield from _left("DependencyViolation: The vpc has dependencies and cannot be deleted:", inside)
                yield from _left("DependencyViolation: network interfaces of", self._all(CLUSTER, INGRESS, *_MACHINES))
            case "ec2/subnet:Subnet":
                inside = [one for one in self.things.values() if thing.id in _subnets(one)]
                yield from _left("DependencyViolation: The subnet has dependencies and cannot be deleted:", inside)
                yield from _left(
                    "DependencyViolation: network interfaces of", self._all(INGRESS, NODE_POOL, NODE_CLASS)
                )
            case "ec2/internetGateway:InternetGateway":
                yield from _left(
                    "DependencyViolation: the network has some mapped public addresses:",
                    self._all("aws:ec2/natGateway:NatGateway"),
                )
            case "ec2/eip:Eip":
                users = [
                    one for one in self._all("aws:ec2/natGateway:NatGateway") if one.inputs["allocationId"] == thing.id
                ]
                yield from _left("InvalidIPAddress.InUse: it belongs to", users)
            case "ec2/routeTable:RouteTable":
                users = [one for one in self.things.values() if one.inputs.get("routeTableId") == thing.id]
                yield from _left("DependencyViolation: The routeTable has dependencies and cannot be deleted:", users)
            case "ec2/natGateway:NatGateway" | "ec2/route:Route" | "ec2/routeTableAssociation:RouteTableAssociation":
                yield from _left("the way to EC2 and the cluster's endpoint is cut for", self._all(*_MACHINES))
            case _:
                pass

    def _missing(self, chart: str, account: str | None) -> list[str]:
        """List what a controller lacks to do its work."""
        addons = {one.inputs.get("addonName") for one in self._all(ADDON)}
        missing = [addon for addon in _CORE_ADDONS if addon not in addons]
        missing += [] if self._releases(chart) else ["its release"]
        missing += [] if self._all(NODE_GROUP) else ["the system nodes"]
        missing += [] if self._all("aws:ec2/natGateway:NatGateway") else ["a NAT gateway"]
        if chart == "karpenter":
            missing += [] if self._all("aws:sqs/queue:Queue") else ["its queue"]
        if account is not None:
            missing += self._rights_missing(account)
        return missing

    def _rights_missing(self, account: str) -> list[str]:
        associations = self._having(ASSOCIATION, lambda one: one.inputs.get("serviceAccount") == account)
        if not associations:
            return [f"the identity of {account}"]
        arn = str(associations[0].inputs.get("roleArn"))
        roles = [one for one in self._all("aws:iam/role:Role") if arn.endswith(f"/{_name(one)}")]
        if not roles:
            return [f"the role of {account}"]
        wanted = self._policies[roles[0].id] | self._policies[_name(roles[0])]
        missing = wanted - {one.urn for one in self._all(ATTACHMENT)}
        return [f"{len(missing)} policies of {account}"] if missing else []

    def _reach_cluster(self, thing: Thing) -> None:
        if not self._all(CLUSTER, REMOTE_CLUSTER):
            raise Refused(f"{thing.type} {thing.name}: Unable to connect to the server: the cluster is gone")

    def _all(self, *types: str) -> list[Thing]:
        return [one for one in self.things.values() if one.type in types]

    def _having(self, type_: str, condition: Callable[[Thing], bool]) -> list[Thing]:
        return [one for one in self._all(type_) if condition(one)]

    def _releases(self, chart: str | None = None) -> list[Thing]:
        return [one for one in self._all(RELEASE) if chart in {None, one.chart}]

    def _namespace(self, name: str) -> bool:
        given = {one.metadata.get("name") for one in self._all(NAMESPACE)} | {"default", "kube-system"}
        return name in given

    def _of_kubernetes(self) -> list[Thing]:
        return [one for one in self.things.values() if one.type.startswith("kubernetes:")]


_MACHINES: Final = (NODE_GROUP, NODE_POOL, NODE_CLASS)


def _key(urn: str, id_: str) -> str:
    return f"{urn} {id_}"


def _left(why: str, things: Collection[Thing]) -> Iterator[str]:
    if things:
        yield f"{why} {', '.join(sorted(one.name for one in things)[:5])}"


def _class_of(pool: Thing) -> object:
    return pool.inputs["spec"]["template"]["spec"]["nodeClassRef"]["name"]


def _pool_of(workload: Thing) -> object:
    return (workload.inputs["spec"]["template"]["spec"].get("nodeSelector") or {}).get("frugal-llm/pool")


def _name(thing: Thing) -> str:
    return str(thing.inputs.get("name") or thing.id)


def _subnets(thing: Thing) -> set[str]:
    if thing.type == "aws:ec2/routeTableAssociation:RouteTableAssociation":
        return set()  # goes with either of the two
    inputs = thing.inputs
    listed = [*(inputs.get("subnetIds") or []), *((inputs.get("vpcConfig") or {}).get("subnetIds") or [])]
    return {text for text in (inputs.get("subnetId"), *listed) if isinstance(text, str)}
