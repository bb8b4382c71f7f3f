"""What a plan and its program want of an account. Pure: no client, no clock."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from offline.recording import Recording
from planning.facts.instances import instance_type
from planning.plan import CapacityType, NodePoolPlan, Plan

VcpuClass = Literal["G and VT", "P", "standard"]


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota of Service Quotas."""

    service: str
    code: str
    name: str


#: Limits count vCPUs, apart for each class of families. Two public files read the on-demand codes and spot G from
#: accounts on 2026-07-27 and 2026-09-30; for spot P and standard five more agree (names of repositories not recorded).
VCPU_QUOTAS: Mapping[tuple[VcpuClass, CapacityType], Quota] = {
    ("G and VT", "on-demand"): Quota("ec2", "L-DB2E81BA", "Running On-Demand G and VT instances"),
    ("P", "on-demand"): Quota("ec2", "L-417A185B", "Running On-Demand P instances"),
    ("standard", "on-demand"): Quota("ec2", "L-1216C47A", "Running On-Demand Standard instances"),
    ("G and VT", "spot"): Quota("ec2", "L-3819A6DF", "All G and VT Spot Instance Requests"),
    ("P", "spot"): Quota("ec2", "L-7212CCBC", "All P Spot Instance Requests"),
    ("standard", "spot"): Quota("ec2", "L-34B43A08", "All Standard Spot Instance Requests"),
}
#: tedilabs/terraform-aws-account, modules/service-quota-requests/locals.tf, and cortexlabs/cortex (read 2026-11-26).
VPCS = Quota("vpc", "L-F678F1CE", "VPCs per Region")
ELASTIC_IPS = Quota("ec2", "L-0263D0A3", "EC2-VPC Elastic IPs")
NAT_GATEWAYS = Quota("vpc", "L-FE5A380F", "NAT gateways per Availability Zone")


@dataclass(frozen=True, slots=True)
class QuotaWanted:
    """How much of a quota the stack takes at its peak."""

    quota: Quota
    amount: int
    """vCPUs, or a number of things."""
    why: str
    planned: bool = True
    """False: the plan is priced on other types, these only widen the choice."""
    kind: tuple[VcpuClass, CapacityType] | None = None
    """Of a vCPU quota."""


def vcpu_class(name: str) -> VcpuClass | None:
    """The class of families whose vCPUs an instance type counts in; None for one that no plan has."""
    family = re.match(r"[a-z]+", name)
    letters = family[0] if family else ""
    if letters in {"g", "gr", "vt"}:
        return "G and VT"
    if letters == "p":
        return "P"
    return "standard" if letters[:1] in set("acdhimrtz") and letters not in {"dl", "hpc", "inf", "mac", "trn"} else None


def nodes_at_peak(pool: NodePoolPlan) -> int:
    """Most nodes of a pool at once: every node carries one replica's GPUs."""
    if pool.gpu_count:
        return pool.gpu_limit // pool.gpu_count
    return pool.cpu_limit // max(instance_type(name).vcpu for name in pool.instance_types)


def vcpu_quotas(plan: Plan) -> list[QuotaWanted]:
    """VCPUs of every class and capacity type at the plan's peak, all nodes of a pool being of that class.

    Each pool counts with the first of its types in the class, which is the cheapest: EC2 buys the others when they have
    more capacity. Spot and on-demand each hold the whole peak, for nothing but the quota stands between them.
    """
    amounts: defaultdict[tuple[VcpuClass, CapacityType], int] = defaultdict(int)
    reasons: defaultdict[tuple[VcpuClass, CapacityType], list[str]] = defaultdict(list)
    planned: set[tuple[VcpuClass, CapacityType]] = set()
    for pool in plan.node_pools:
        nodes = nodes_at_peak(pool)
        for kind, name in _first_of_each_class(pool.instance_types).items():
            for capacity in pool.capacity_types:
                amounts[kind, capacity] += nodes * instance_type(name).vcpu
                reasons[kind, capacity].append(f"{nodes} x {name} of pool {pool.name}")
                if name == pool.instance_types[0]:
                    planned.add((kind, capacity))
    system = plan.system_nodes
    kind = vcpu_class(system.instance_type)
    if kind:
        amounts[kind, "on-demand"] += system.maximum * instance_type(system.instance_type).vcpu
        reasons[kind, "on-demand"].append(f"{system.maximum} x {system.instance_type} of the system nodes")
        planned.add((kind, "on-demand"))
    return [
        QuotaWanted(VCPU_QUOTAS[key], amounts[key], " + ".join(reasons[key]), key in planned, key)
        for key in VCPU_QUOTAS
        if key in amounts
    ]


def network_quotas(plan: Plan, recording: Recording) -> list[QuotaWanted]:
    """VPCs, elastic IPs and NAT gateways of the program; a network that is brought along takes none of them."""

    def counted(type_token: str) -> int:
        return len(recording.of_type(type_token))

    gateways = counted("aws:ec2/natGateway:NatGateway")
    wanted = [
        QuotaWanted(VPCS, counted("aws:ec2/vpc:Vpc"), "the stack's own"),
        QuotaWanted(ELASTIC_IPS, counted("aws:ec2/eip:Eip"), "one for each NAT gateway"),
        QuotaWanted(NAT_GATEWAYS, -(-gateways // len(plan.network.zones)), f"{gateways} over the zones"),
    ]
    return [one for one in wanted if one.amount]


def _first_of_each_class(names: Sequence[str]) -> dict[VcpuClass, str]:
    first: dict[VcpuClass, str] = {}
    for name in names:
        kind = vcpu_class(name)
        if kind:
            first.setdefault(kind, name)
    return first


@dataclass(frozen=True, slots=True)
class AmiParameter:
    """A public SSM parameter that Karpenter resolves an AMI alias by."""

    variant: str
    """``nvidia x86_64``, ``standard arm64`` and so on."""
    pinned: str
    newest: str
    """The parameter whose value names the newest version."""


def ami_parameters(plan: Plan, alias: str) -> list[AmiParameter]:
    """The parameters that the plan's pools need of an alias such as ``al2023@v20260903``.

    Paths: aws/karpenter-provider-aws v1.14.1, ``pkg/providers/amifamily/{al2023,bottlerocket}.go`` (2026-08-20). The
    newest: ``recommended/release_version`` is ``1.34.6-20260420``, ``latest/image_version`` is ``1.55.0-d93bb1b1``.
    """
    family, _, version = alias.partition("@")
    needed = {
        (bool(pool.gpu_count), "arm64" if cpu == "arm64" else "x86_64")
        for pool in plan.node_pools
        for cpu in pool.cpu_architectures
    }
    return list(_parameters(family, version, plan.cluster.kubernetes_version, sorted(needed)))


def _parameters(
    family: str, version: str, kubernetes_version: str, needed: Sequence[tuple[bool, str]]
) -> Iterator[AmiParameter]:
    for gpu, architecture in needed:
        variant = "nvidia" if gpu else "standard"
        if family == "al2023":
            place = f"/aws/service/eks/optimized-ami/{kubernetes_version}/amazon-linux-2023/{architecture}/{variant}"
            image = f"amazon-eks-node-al2023-{architecture}-{variant}-{kubernetes_version}-{version}"
            newest = f"{place}/recommended/release_version"
        else:
            suffix = "-nvidia" if gpu else ""
            place = f"/aws/service/bottlerocket/aws-k8s-{kubernetes_version}{suffix}/{architecture}"
            image = version.lstrip("v")
            newest = f"{place}/latest/image_version"
        yield AmiParameter(f"{variant} {architecture}", f"{place}/{image}/image_id", newest)


def newest_alias(family: str, value: str) -> str:
    """The alias of the newest version, from the value of :attr:`AmiParameter.newest`."""
    before, _, after = value.partition("-")
    return f"al2023@v{after}" if family == "al2023" else f"bottlerocket@{before}"
