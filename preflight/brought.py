"""What is brought along, against what the plan needs of it: subnets and their routes, roles, a key. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from planning.network import addresses_of
from planning.plan import ClusterPlan, NetworkPlan
from preflight.rows import Row

_ANYWHERE = "0.0.0.0/0"
_USABLE_KEY = {"KeyState": "Enabled", "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT"}


@dataclass(frozen=True, slots=True)
class SubnetWanted:
    """A subnet that the settings name."""

    subnet_id: str
    setting: str
    zone: str
    public: bool


@dataclass(frozen=True, slots=True)
class RoleWanted:
    """A role that the settings name."""

    arn: str
    setting: str
    service: str
    """Who assumes it."""

    @property
    def name(self) -> str:
        """As IAM is asked for it: without its path."""
        return self.arn.rpartition("/")[2]


def subnets_wanted(network: NetworkPlan) -> list[SubnetWanted]:
    """The subnets of a VPC that is there; none for the stack's own."""
    if network.existing is None:
        return []
    kinds = (
        ("network.privateSubnetIds", network.existing.private_subnet_ids, False),
        ("network.publicSubnetIds", network.existing.public_subnet_ids, True),
    )
    return [
        SubnetWanted(subnet, f"{setting}[{index}]", network.zones[index], public)
        for setting, subnets, public in kinds
        for index, subnet in enumerate(subnets)
    ]


def roles_wanted(cluster: ClusterPlan) -> list[RoleWanted]:
    """The roles that are brought along."""
    given = (
        (cluster.role_arn, "cluster.roleArn", "eks.amazonaws.com"),
        (cluster.node_role_arn, "cluster.nodeRoleArn", "ec2.amazonaws.com"),
    )
    return [RoleWanted(arn, setting, service) for arn, setting, service in given if arn]


def subnet_row(
    wanted: SubnetWanted,
    network: NetworkPlan,
    subnet: Mapping[str, Any] | None,
    route_tables: Sequence[Mapping[str, Any]],
) -> Row:
    """A subnet as EC2 describes it (None: it is not there) and its way out, by the VPC's route tables."""
    vpc_id = network.existing.vpc_id if network.existing else ""
    check = f"subnet {wanted.subnet_id}"
    way_out = "an internet gateway" if wanted.public else "a way out"
    asked = f"in {vpc_id}, {wanted.zone}, inside {network.vpc_cidr}, with {way_out}"
    if subnet is None:
        return Row(check, asked, "not there", "fail", f"correct {wanted.setting}")
    faults = dict(_faults(wanted, vpc_id, network.vpc_cidr, subnet, route_tables))
    if faults:
        return Row(check, asked, "; ".join(faults), "fail", "; ".join(dict.fromkeys(faults.values())))
    return Row(check, asked, f"{subnet['CidrBlock']} in {subnet['AvailabilityZone']}", "ok")


def _faults(
    wanted: SubnetWanted,
    vpc_id: str,
    vpc_cidr: str,
    subnet: Mapping[str, Any],
    route_tables: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, str]]:
    """What is wrong, and the way out."""
    if subnet["VpcId"] != vpc_id:
        yield f"of {subnet['VpcId']}", f"correct {wanted.setting} or network.vpcId"
        return
    if subnet["AvailabilityZone"] != wanted.zone:
        yield f"in {subnet['AvailabilityZone']}", f"name {wanted.setting} in the order of network.zones"
    if not IPv4Network(subnet["CidrBlock"]).subnet_of(IPv4Network(vpc_cidr)):
        yield f"its block is {subnet['CidrBlock']}", "set network.vpcCidr to the VPC's block that holds the subnets"
    route = _default_route(wanted.subnet_id, route_tables)
    if route is None:
        yield f"no route to {_ANYWHERE}", f"route {_ANYWHERE} of {wanted.subnet_id}'s table to a gateway"
    elif route.get("State") == "blackhole":
        yield f"its route to {_ANYWHERE} ends in nothing", f"mend the route to {_ANYWHERE}: its target is gone"
    elif route.get("GatewayId", "").startswith("igw-") != wanted.public:
        found = (
            "goes to no internet gateway" if wanted.public else "goes to an internet gateway: nodes have no addresses"
        )
        fix = "route it to an internet gateway" if wanted.public else "route it to a NAT or transit gateway"
        yield f"its route to {_ANYWHERE} {found}", fix


def _default_route(subnet_id: str, route_tables: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The route to everywhere of a subnet's own table, or of the VPC's main table where it has none of its own."""

    def table(key: str, value: object) -> Mapping[str, Any] | None:
        return next((t for t in route_tables if any(a.get(key) == value for a in t.get("Associations", ()))), None)

    found = table("SubnetId", subnet_id) or table("Main", True) or {}
    return next((route for route in found.get("Routes", ()) if route.get("DestinationCidrBlock") == _ANYWHERE), None)


def addresses_row(nodes: int, subnets: Sequence[Mapping[str, Any]]) -> Row:
    """Free addresses of the private subnets, against what ``nodes`` more take."""
    needed = addresses_of(nodes)
    free = sum(subnet["AvailableIpAddressCount"] for subnet in subnets)
    check, wanted = "free addresses", f"{needed:,} in the private subnets, for {nodes} nodes more"
    if free >= needed:
        return Row(check, wanted, f"{free:,}", "ok")
    fix = "bring larger subnets, or let the stack grow less: tiers[].maxReplicas, budget.monthlyUsd"
    return Row(check, wanted, f"{free:,}", "fail", fix)


def role_row(wanted: RoleWanted, role: Mapping[str, Any] | None) -> Row:
    """A role as IAM gives it; None: it is not there."""
    check, asked = f"role: {wanted.setting}", f"{wanted.arn}, assumed by {wanted.service}"
    if role is None:
        return Row(check, asked, "not there", "fail", f"make it, or correct {wanted.setting}")
    if role["Arn"] != wanted.arn:
        return Row(check, asked, f"it is {role['Arn']}", "fail", f"correct {wanted.setting}")
    if wanted.service not in json.dumps(role["AssumeRolePolicyDocument"]):
        fix = f"let {wanted.service} assume it, in its trust policy"
        return Row(check, asked, f"its trust policy does not name {wanted.service}", "fail", fix)
    return Row(check, asked, "there", "ok")


def key_row(arn: str, key: Mapping[str, Any] | None) -> Row:
    """The key of Kubernetes secrets as KMS describes it; None: it is not there.

    EKS takes a symmetric key that encrypts and decrypts (EKS User Guide, "Encrypt Kubernetes secrets with KMS").
    """
    check, wanted = "key: cluster.secretsKeyArn", f"{arn}, enabled and symmetric"
    if key is None:
        return Row(check, wanted, "not there", "fail", "make it, or correct cluster.secretsKeyArn")
    # Nothing but the id is sure to be in KMS' answer: what it leaves out is as CreateKey makes it by default.
    state, spec, usage = (key.get(name, default) for name, default in _USABLE_KEY.items())
    found = f"{state}, {spec}, {usage}"
    if state != _USABLE_KEY["KeyState"]:
        fix = "enable it, or name another: a cluster whose key is gone cannot be restored"
        return Row(check, wanted, found, "fail", fix)
    if (spec, usage) != (_USABLE_KEY["KeySpec"], _USABLE_KEY["KeyUsage"]):
        return Row(check, wanted, found, "fail", "name a key of spec SYMMETRIC_DEFAULT and usage ENCRYPT_DECRYPT")
    return Row(check, wanted, found, "ok")
