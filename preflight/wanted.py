"""What a plan and its program want of an account. Pure: no client, no clock."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from offline.recording import Recording
from planning.facts.instances import instance_type
from planning.plan import CapacityType, NodePoolPlan, Plan


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota of Service Quotas."""

    service: str
    code: str
    """Empty: it is not known."""
    name: str
    of_vcpus: bool = False


def _vcpus(code: str, name: str) -> Quota:
    return Quota("ec2", code, name, of_vcpus=True)


#: Limits count vCPUs, apart for each class of families. Names of the spot quotas and their classes: EC2 User Guide,
#: "Spot Instance quotas". Codes of spot P2 to P4 and P5: a copy of AWS' table with links into Service Quotas, and five
#: more public files that agree (read 2026-11-27). The on-demand codes and spot G were read from accounts on 2026-07-27
#: and 2026-09-30 by two public files, that of spot standard stands in five more (names of repositories not recorded).
_ON_DEMAND_P = _vcpus("L-417A185B", "Running On-Demand P instances")
VCPU_QUOTAS: Mapping[str, Mapping[CapacityType, Quota]] = {
    "G and VT": {
        "on-demand": _vcpus("L-DB2E81BA", "Running On-Demand G and VT instances"),
        "spot": _vcpus("L-3819A6DF", "All G and VT Spot Instance Requests"),
    },
    "P2 to P4": {
        "on-demand": _ON_DEMAND_P,
        "spot": _vcpus("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
    },
    "P5": {"on-demand": _ON_DEMAND_P, "spot": _vcpus("L-C4BD4855", "All P5 Spot Instance Requests")},
    # The guide names no spot quota of P6; of two public files one counts it as P5, the other as P2 to P4.
    "P6": {"on-demand": _ON_DEMAND_P, "spot": _vcpus("", "P6 Spot Instance Requests")},
    "standard": {
        "on-demand": _vcpus("L-1216C47A", "Running On-Demand Standard instances"),
        "spot": _vcpus("L-34B43A08", "All Standard Spot Instance Requests"),
    },
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


def vcpu_quota(name: str, capacity: CapacityType) -> Quota | None:
    """The quota that the vCPUs of an instance type count against; None for a type that no plan has."""
    kind = _vcpu_class(name)
    return VCPU_QUOTAS[kind][capacity] if kind else None


def _vcpu_class(name: str) -> str:
    """The key of ``VCPU_QUOTAS``; empty for a type that no plan has."""
    family = re.match(r"([a-z]+)(\d*)", name)
    letters, generation = (family[1], family[2]) if family else ("", "")
    if letters in {"g", "gr", "vt"}:
        return "G and VT"
    if letters == "p":
        return f"P{generation}" if generation in {"5", "6"} else "P2 to P4"
    return "standard" if letters[:1] in set("acdhimrtz") and letters not in {"dl", "hpc", "inf", "mac", "trn"} else ""


def nodes_at_peak(pool: NodePoolPlan) -> int:
    """Most nodes of a pool at once: every node carries one replica's GPUs."""
    if pool.gpu_count:
        return pool.gpu_limit // pool.gpu_count
    return pool.cpu_limit // max(instance_type(name).vcpu for name in pool.instance_types)


def system_nodes_at_peak(plan: Plan) -> int:
    """Most system nodes at once: EKS updates a node group by starting new nodes beside the old.

    It raises the group's size by up to twice its zones, whatever its maximum (EKS User Guide, "Understand each phase of
    node updates", scale up phase; read 2026-11-27).
    """
    system = plan.system_nodes
    return system.count + max(system.maximum - system.count, 2 * len(plan.network.zones))


def all_nodes_at_peak(plan: Plan) -> int:
    """Most nodes of the stack at once, system nodes included."""
    return system_nodes_at_peak(plan) + sum(nodes_at_peak(pool) for pool in plan.node_pools)


def vcpu_quotas(plan: Plan) -> list[QuotaWanted]:
    """VCPUs of every quota at the plan's peak, all nodes of a pool counting against that quota.

    Each pool counts with the first of its types under the quota, which is the cheapest: EC2 buys the others when they
    have more capacity. Spot and on-demand each hold the whole peak, for nothing but the quota stands between them.
    """
    amounts: defaultdict[Quota, int] = defaultdict(int)
    reasons: defaultdict[Quota, list[str]] = defaultdict(list)
    planned: set[Quota] = set()

    def count(quota: Quota, nodes: int, name: str, whose: str) -> None:
        amounts[quota] += nodes * instance_type(name).vcpu
        reasons[quota].append(f"{nodes} x {name} of {whose}")

    for pool in plan.node_pools:
        nodes = nodes_at_peak(pool)
        for capacity in pool.capacity_types:
            for quota, name in _first_under_each_quota(pool.instance_types, capacity).items():
                count(quota, nodes, name, f"pool {pool.name}")
                if name == pool.instance_types[0]:
                    planned.add(quota)
    system = plan.system_nodes
    quota = vcpu_quota(system.instance_type, "on-demand")
    if quota:
        count(quota, system_nodes_at_peak(plan), system.instance_type, "the system nodes while they are updated")
        planned.add(quota)
    return [QuotaWanted(quota, amounts[quota], " + ".join(reasons[quota]), quota in planned) for quota in amounts]


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


def _first_under_each_quota(names: Sequence[str], capacity: CapacityType) -> dict[Quota, str]:
    first: dict[Quota, str] = {}
    for name in names:
        quota = vcpu_quota(name, capacity)
        if quota:
            first.setdefault(quota, name)
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
