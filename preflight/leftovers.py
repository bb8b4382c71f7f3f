"""What a destroyed stack left behind: everything of it that AWS still has, with what it costs a month.

Found by the stack's cost tag, and by the tags that Kubernetes' controllers, Karpenter and EKS put on what they make for
the cluster, which a destroy may miss. Read-only: nothing is deleted, for what is shared may carry these tags too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich.table import Table
from rich.text import Text

from components.names import PROJECT, STACK_TAG
from planning.facts.fixed_prices import fixed_price
from planning.facts.instances import offerings
from planning.facts.table import UnknownFact
from preflight.aws import Aws, listed, one, tags_of
from preflight.rows import NotAnswered
from preflight.table import console_for_tables

_HOURS = 730
_BYTES_PER_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Thing:
    """Something of the stack that is still there."""

    kind: str
    id: str
    state: str
    """Its state and since when, as far as AWS says."""
    usd_per_month: float | None
    """None: it costs by use or size, or its price is not known."""


@dataclass(frozen=True, slots=True)
class Left:
    """What is left, and what could not be looked at."""

    things: tuple[Thing, ...]
    not_looked_at: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose things are looked for."""

    stack: str
    cluster: str

    @property
    def tags(self) -> Mapping[str, str | None]:
        """Tags that mark a thing as the stack's; None: any value.

        From the sources of: this program; Kubernetes' cloud provider and Karpenter (``kubernetes.io/cluster/…`` and
        ``eks:eks-cluster-name``, aws/karpenter-provider-aws v1.14.1 ``pkg/utils``); the load balancer controller; the
        VPC CNI's network interfaces; EKS' managed node groups.
        """
        return {
            STACK_TAG: self.stack,
            f"kubernetes.io/cluster/{self.cluster}": None,
            "eks:eks-cluster-name": self.cluster,
            "eks:cluster-name": self.cluster,
            "aws:eks:cluster-name": self.cluster,
            "elbv2.k8s.aws/cluster": self.cluster,
            "cluster.k8s.amazonaws.com/name": self.cluster,
            "karpenter.sh/discovery": self.cluster,
        }

    def owns(self, tags: Mapping[str, str]) -> bool:
        """Say whether a thing with these tags is the stack's."""
        return any(key in tags and value in {None, tags[key]} for key, value in self.tags.items())


def read(aws: Aws, stack: str, region: str, now: datetime) -> Left:
    """Look for everything of a stack in its region; ``now`` gives ages."""
    owner = Owner(stack, f"{PROJECT}-{stack}")
    things: dict[str, Thing] = {}
    not_looked_at: list[str] = []
    looks: list[Callable[[], Iterable[Thing]]] = [
        *(partial(_of_ec2, aws, owner, look, region, now) for look in _EC2),
        partial(_log_groups, aws, owner, region),
        partial(_tagged, aws, owner, region, now),
    ]
    for look in looks:
        try:
            for thing in look():
                things.setdefault(thing.id, thing)
        except NotAnswered as error:
            not_looked_at.append(str(error))
    dearest_first = sorted(things.values(), key=lambda thing: (-(thing.usd_per_month or 0), thing.kind, thing.id))
    return Left(tuple(dearest_first), tuple(not_looked_at))


@dataclass(frozen=True, slots=True)
class _Look:
    """How EC2 lists a kind of thing."""

    kind: str
    action: str
    key: str
    id: str
    filters: str = "Filters"
    gone: tuple[str, ...] = ()
    """States in which it is billed no more."""


_EC2 = (
    _Look("instance", "ec2:DescribeInstances", "Reservations", "InstanceId", gone=("terminated", "shutting-down")),
    _Look("volume", "ec2:DescribeVolumes", "Volumes", "VolumeId", gone=("deleting", "deleted")),
    _Look("network interface", "ec2:DescribeNetworkInterfaces", "NetworkInterfaces", "NetworkInterfaceId"),
    _Look(
        "NAT gateway", "ec2:DescribeNatGateways", "NatGateways", "NatGatewayId", "Filter", gone=("deleted", "deleting")
    ),
    _Look("elastic IP", "ec2:DescribeAddresses", "Addresses", "AllocationId"),
    _Look("VPC endpoint", "ec2:DescribeVpcEndpoints", "VpcEndpoints", "VpcEndpointId", gone=("deleted", "deleting")),
)
#: What the tagging API calls these kinds: EC2 itself says more of them, and the tagging API still lists what is gone.
_SEEN_BY_EC2 = frozenset(
    {"ec2:instance", "ec2:volume", "ec2:network-interface", "ec2:natgateway", "ec2:elastic-ip", "ec2:vpc-endpoint"}
)
_KINDS = {
    "s3:": "bucket",
    "kms:key": "KMS key",
    "logs:log-group": "log group",
    "eks:cluster": "EKS cluster",
    "sqs:": "queue",
    "elasticloadbalancing:loadbalancer": "load balancer",
}
#: These cost nothing by being there.
_FREE = frozenset(
    {
        "ec2:dhcp-options", "ec2:fleet", "ec2:internet-gateway", "ec2:launch-template", "ec2:network-acl",
        "ec2:route-table", "ec2:security-group", "ec2:security-group-rule", "ec2:subnet", "ec2:vpc",
        "eks:access-entry", "eks:addon", "eks:nodegroup", "eks:podidentityassociation",
        "elasticloadbalancing:listener", "elasticloadbalancing:listener-rule", "elasticloadbalancing:targetgroup",
        "events:rule", "iam:instance-profile", "iam:policy", "iam:role", "sqs:",
    }
)  # fmt: skip


def _of_ec2(aws: Aws, owner: Owner, look: _Look, region: str, now: datetime) -> Iterator[Thing]:
    tagged = [{"Name": "tag-key", "Values": list(owner.tags)}]
    for entry in _entries(listed(aws, look.action, look.key, **{look.filters: tagged})):
        state = _state(entry)
        if owner.owns(_all_tags(entry)) and state not in look.gone:
            name = str(entry.get(look.id, ""))
            since = _since(entry, now)
            yield Thing(look.kind, name, ", ".join(filter(None, (state, since))), _ec2_usd(look.kind, entry, region))


def _entries(found: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for entry in found:
        yield from entry.get("Instances", [entry])


def _all_tags(entry: Mapping[str, Any]) -> dict[str, str]:
    """Network interfaces call their tags ``TagSet``."""
    return tags_of(entry) | tags_of({"Tags": entry.get("TagSet")})


def _state(entry: Mapping[str, Any]) -> str:
    state = entry.get("State") or entry.get("Status") or ("" if entry.get("AssociationId") else "not attached")
    return str(state["Name"] if isinstance(state, Mapping) else state)


def _since(entry: Mapping[str, Any], now: datetime) -> str:
    for key in ("LaunchTime", "CreateTime", "CreationTimestamp", "CreatedTime"):
        moment = entry.get(key)
        if isinstance(moment, datetime):
            hours = (now - moment.astimezone(UTC)).total_seconds() / 3600
            return f"{hours / 24:.0f} days old" if hours >= 48 else f"{max(hours, 0):.0f} hours old"
    return ""


def _ec2_usd(kind: str, entry: Mapping[str, Any], region: str) -> float | None:
    match kind:
        case "instance":
            return None if _state(entry) == "stopped" else _instance_usd(entry, region)
        case "volume":
            storage = _fixed_usd(region, "ebs_gp3_storage")
            return entry["Size"] * storage if entry.get("VolumeType") == "gp3" and storage is not None else None
        case "network interface":
            return 0.0
        case "NAT gateway":
            return _hourly(region, "nat_gateway")
        case "elastic IP":
            return _hourly(region, "public_ipv4")
        case _:
            hourly = _hourly(region, "vpc_interface_endpoint")
            if entry.get("VpcEndpointType") == "Gateway":
                return 0.0
            return None if hourly is None else hourly * len(entry.get("SubnetIds", ()))


def _instance_usd(entry: Mapping[str, Any], region: str) -> float | None:
    try:
        priced = {offering.instance.name: offering for offering in offerings(region)}.get(entry["InstanceType"])
    except UnknownFact:
        return None
    if priced is None:
        return None
    spot = entry.get("InstanceLifecycle") == "spot"
    hourly = priced.spot_usd_per_hour if spot else priced.on_demand_usd_per_hour
    return None if hourly is None else hourly * _HOURS


def _fixed_usd(region: str, item: str) -> float | None:
    try:
        return fixed_price(region, item).usd
    except UnknownFact:  # a region without prices here
        return None


def _hourly(region: str, item: str) -> float | None:
    usd = _fixed_usd(region, item)
    return None if usd is None else usd * _HOURS


def _log_groups(aws: Aws, owner: Owner, region: str) -> Iterator[Thing]:
    """The control plane's logs by name: EKS makes the group again, without tags, when it writes after the destroy."""
    prefix = f"/aws/eks/{owner.cluster}/"
    for group in listed(aws, "logs:DescribeLogGroups", "logGroups", logGroupNamePrefix=prefix):
        gib = group.get("storedBytes", 0) / _BYTES_PER_GIB
        usd = _fixed_usd(region, "cloudwatch_logs_storage")
        yield Thing("log group", group["logGroupName"], f"{gib:.2f} GiB", None if usd is None else gib * usd)


def _tagged(aws: Aws, owner: Owner, region: str, now: datetime) -> Iterator[Thing]:
    arns: dict[str, None] = {}
    for key, value in owner.tags.items():
        wanted = {"Key": key} if value is None else {"Key": key, "Values": [value]}
        for found in listed(aws, "tag:GetResources", "ResourceTagMappingList", TagFilters=[wanted]):
            arns[found["ResourceARN"]] = None
    balancers: Mapping[str, Mapping[str, Any]] = {}
    if any(":loadbalancer/" in arn for arn in arns):
        found = listed(aws, "elasticloadbalancing:DescribeLoadBalancers", "LoadBalancers")
        balancers = {balancer["LoadBalancerArn"]: balancer for balancer in found}
    for arn in arns:
        kind, name = _kind_and_name(arn)
        if kind in _SEEN_BY_EC2:
            continue
        if kind == "elasticloadbalancing:loadbalancer":
            if arn in balancers:
                yield _balancer(balancers[arn], region, now)
        elif kind == "kms:key":
            yield from _key(aws, name, region)
        else:
            yield Thing(_KINDS.get(kind, kind.replace(":", " ").strip()), name, "", _tagged_usd(kind, region))


def _kind_and_name(arn: str) -> tuple[str, str]:
    """``eks:cluster`` and ``frugal-llm-dev`` of ``arn:aws:eks:us-east-1:123456789012:cluster/frugal-llm-dev``."""
    service, resource = arn.split(":", 5)[2], arn.split(":", 5)[5]
    if service in {"s3", "sqs"}:
        return f"{service}:", resource
    if service == "logs":
        return "logs:log-group", resource.removeprefix("log-group:").removesuffix(":*")
    kind, _, name = resource.partition("/")
    return f"{service}:{kind}", name or resource


def _balancer(balancer: Mapping[str, Any], region: str, now: datetime) -> Thing:
    state = ", ".join(filter(None, (balancer.get("State", {}).get("Code", ""), _since(balancer, now))))
    item = "alb" if balancer.get("Type") == "application" else "nlb"
    return Thing("load balancer", balancer["LoadBalancerName"], state, _hourly(region, item))


def _key(aws: Aws, name: str, region: str) -> Iterator[Thing]:
    """A key that waits for its deletion is billed no more (AWS KMS' pricing page)."""
    state = one(aws, "kms:DescribeKey", KeyId=name)["KeyMetadata"]["KeyState"]
    if state not in {"PendingDeletion", "PendingReplicaDeletion"}:
        yield Thing("KMS key", name, state, _fixed_usd(region, "kms_key"))


def _tagged_usd(kind: str, region: str) -> float | None:
    if kind == "eks:cluster":
        return _hourly(region, "eks_control_plane_standard")
    return 0.0 if kind in _FREE else None


def as_data(left: Left) -> dict[str, object]:
    """The things as ``--json`` prints them."""
    return {
        "things": [asdict(thing) for thing in left.things],
        "usd_per_month": sum(thing.usd_per_month or 0 for thing in left.things),
        "not_looked_at": left.not_looked_at,
    }


def show(left: Left, stack: str, region: str) -> None:
    """Print what is left as a table, and its sum."""
    console = console_for_tables()
    if left.things:
        table = Table(title=f"Left of stack {stack} in {region}", title_justify="left")
        for heading in ("what", "id", "age or state"):
            table.add_column(heading, overflow="fold")
        table.add_column("USD/month", justify="right", no_wrap=True)
        for thing in left.things:
            usd = "by use" if thing.usd_per_month is None else f"{thing.usd_per_month:,.2f}"
            table.add_row(*map(Text, (thing.kind, thing.id, thing.state, usd)))
        console.print(table)
    total = sum(thing.usd_per_month or 0 for thing in left.things)
    count = len(left.things)
    if count:
        said = f"{count} left, ${total:,.2f} a month and what is billed by use"
    elif left.not_looked_at:
        said = "nothing was found, but not everything could be looked at,"
    else:
        said = "nothing is left"
    console.print(Text(f"{said} of stack {stack} in {region}"))
    for reason in dict.fromkeys(left.not_looked_at):
        console.print(Text(f"not looked at: {reason}"))


def exit_code(left: Left) -> int:
    """0: nothing is left; 1: something is; 2: something could not be looked at."""
    return 1 if left.things else 2 * bool(left.not_looked_at)
