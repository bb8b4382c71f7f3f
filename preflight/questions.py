"""The checks of a stack: what each asks of AWS or Hugging Face, and what it makes of the answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

from components.names import STACK_TAG
from offline.recording import Recording
from planning.facts.eks_versions import EksVersion, eks_version
from planning.facts.fixed_prices import fixed_price
from planning.facts.instances import instance_type
from planning.facts.table import UnknownFact
from planning.plan import CapacityType, ExistingVpc, Plan
from preflight import brought, checks
from preflight.aws import Aws, listed, one, tags_of
from preflight.hugging_face import model_access
from preflight.permissions import actions_of, simulated_principal
from preflight.rows import NotAnswered, Row
from preflight.wanted import (
    ELASTIC_IPS,
    NAT_GATEWAYS,
    Quota,
    QuotaWanted,
    all_nodes_at_peak,
    ami_parameters,
    network_quotas,
    vcpu_quota,
    vcpu_quotas,
)
from settings import StackSettings

#: IAM simulates at most this many actions in one request without complaint (its pages hold 100 results).
_SIMULATED_AT_ONCE = 50
#: AWS wants at most ten names in one ``GetParameters``.
_PARAMETERS_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Stack:
    """All that is checked."""

    name: str
    settings: StackSettings
    plan: Plan
    recording: Recording
    today: date
    token: str
    """Of Hugging Face; empty: none."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question, asked beside the others."""

    name: str
    wanted: str
    rows: Callable[[], Sequence[Row]]
    """Raises ``NotAnswered``."""
    of_aws: bool = True
    """It has nothing to say without credentials."""


def checks_of(stack: Stack, aws: Aws) -> list[Check]:
    """Every check of a stack; of AWS only that of the credentials, when nobody is signed in."""
    wanted = [*vcpu_quotas(stack.plan), *network_quotas(stack.plan, stack.recording)]
    found = [
        Check("credentials", "credentials", partial(_identity, stack, aws)),
        Check("permissions", "what up, a second up and destroy call", partial(_permissions, stack, aws)),
        Check("service-linked roles", "those of spot, EKS and ELB", partial(_linked_roles, stack, aws)),
        *(
            Check(f"quota: {each.quota.name}", f"{each.amount:,}: {each.why}", partial(_quota, stack, aws, each))
            for each in wanted
        ),
        Check("offerings", "a type of each pool in each zone", partial(_offerings, stack, aws)),
        Check(
            "EKS version",
            f"{stack.plan.cluster.kubernetes_version} in standard support",
            partial(_eks_version, stack, aws),
            of_aws=False,
        ),
        *_of_what_is_brought(stack, aws),
        Check("add-ons", "the pinned versions", partial(_addons, stack, aws)),
        Check("AMI", stack.settings.capacity.ami_alias, partial(_amis, stack, aws)),
        Check("cost allocation tag", f"{STACK_TAG} activated", partial(_cost_tag, aws)),
        Check("budget alarm", "a budget", partial(_budget, stack), of_aws=False),
    ]
    tiers: defaultdict[str, list[str]] = defaultdict(list)
    for tier in stack.plan.tiers:
        tiers[tier.checkpoint.repository].append(f"tier {tier.name}")
    for repository, names in tiers.items():
        model = partial(_model, stack, repository, names)
        found.append(Check(f"model: {repository}", "readable", model, of_aws=False))
    if _signed_in(aws):
        return found
    return [check for check in found if check.name == "credentials" or not check.of_aws]


def _signed_in(aws: Aws) -> bool:
    try:
        one(aws, "sts:GetCallerIdentity")
    except NotAnswered:
        return False
    return True


def _identity(stack: Stack, aws: Aws) -> list[Row]:
    caller = one(aws, "sts:GetCallerIdentity")
    named = checks.arns_in(stack.settings.model_dump(mode="json", by_alias=True))
    return [checks.identity_row(caller["Account"], caller["Arn"], named)]


def _permissions(stack: Stack, aws: Aws) -> list[Row]:
    by_service, unknown = actions_of({resource.type for resource in stack.recording.resources})
    arn = one(aws, "sts:GetCallerIdentity")["Arn"]
    if arn.endswith(":root"):
        raise NotAnswered("IAM does not simulate the root user; use a role")
    role = simulated_principal(arn)
    if role:
        arn = one(aws, "iam:GetRole", RoleName=role)["Role"]["Arn"]
    actions = [action for needed in by_service.values() for action in needed]
    decisions: dict[str, str] = {}
    for start in range(0, len(actions), _SIMULATED_AT_ONCE):
        names = actions[start : start + _SIMULATED_AT_ONCE]
        results = listed(
            aws, "iam:SimulatePrincipalPolicy", "EvaluationResults", PolicySourceArn=arn, ActionNames=names
        )
        decisions |= {result["EvalActionName"]: result["EvalDecision"] for result in results}
    rows = checks.permission_rows(by_service, decisions)
    if unknown:
        rows.append(Row("permissions", ", ".join(unknown), "which actions they need is not known here", "unknown"))
    return rows


def _linked_roles(stack: Stack, aws: Aws) -> list[Row]:
    # Listed by path, and not got by name: a role that is not there is then no error.
    roles = listed(aws, "iam:ListRoles", "Roles", PathPrefix="/aws-service-role/")
    there = {role["Path"].split("/")[2] for role in roles}
    return checks.linked_role_rows(there, spot=stack.settings.capacity.spot)


def _quota(stack: Stack, aws: Aws, wanted: QuotaWanted) -> list[Row]:
    if not wanted.quota.code:
        raise NotAnswered(f"which quota {wanted.quota.name} count against is not known here; look in Service Quotas")
    named = {"ServiceCode": wanted.quota.service, "QuotaCode": wanted.quota.code}
    try:
        answer = one(aws, "servicequotas:GetServiceQuota", **named)
    except NotAnswered as error:
        if "NoSuchResourceException" not in str(error):
            raise
        # Never changed in this account, so that AWS' default holds.
        answer = one(aws, "servicequotas:GetAWSDefaultServiceQuota", **named)
    try:
        in_use = _in_use(stack, aws, wanted)
    except NotAnswered:
        in_use = None
    return [checks.quota_row(wanted, answer["Quota"]["Value"], in_use, stack.plan.region)]


def _in_use(stack: Stack, aws: Aws, wanted: QuotaWanted) -> float:
    """What of a quota is taken by others than this stack."""

    def others(action: str, key: str) -> Iterator[Mapping[str, Any]]:
        return (entry for entry in listed(aws, action, key) if tags_of(entry).get(STACK_TAG) != stack.name)

    if wanted.quota.of_vcpus:
        return vcpus_in_use(aws, stack.name).get(wanted.quota, 0)
    if wanted.quota == ELASTIC_IPS:
        return len(list(others("ec2:DescribeAddresses", "Addresses")))
    if wanted.quota == NAT_GATEWAYS:
        zones = {subnet["SubnetId"]: subnet["AvailabilityZone"] for subnet in others("ec2:DescribeSubnets", "Subnets")}
        each: defaultdict[str, int] = defaultdict(int)
        for gateway in others("ec2:DescribeNatGateways", "NatGateways"):
            if gateway["State"] in {"pending", "available", "deleting"}:
                each[zones.get(gateway.get("SubnetId", ""), "")] += 1
        return max((each[zone] for zone in stack.plan.network.zones), default=0)
    return len(list(others("ec2:DescribeVpcs", "Vpcs")))


def vcpus_in_use(aws: Aws, stack_name: str) -> dict[Quota, int]:
    """VCPUs of running instances of others, by what they count against."""
    used: defaultdict[Quota, int] = defaultdict(int)
    for instance in _running(aws):
        capacity: CapacityType = "spot" if instance.get("InstanceLifecycle") == "spot" else "on-demand"
        quota = vcpu_quota(instance["InstanceType"], capacity)
        if quota and tags_of(instance).get(STACK_TAG) != stack_name:
            used[quota] += _vcpus(instance)
    return dict(used)


def _running(aws: Aws) -> Iterator[Mapping[str, Any]]:
    states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    for reservation in listed(aws, "ec2:DescribeInstances", "Reservations", Filters=states):
        yield from reservation["Instances"]


def _vcpus(instance: Mapping[str, Any]) -> int:
    """Quotas count the type's vCPUs, also when an instance starts with fewer."""
    try:
        return instance_type(instance["InstanceType"]).vcpu
    except UnknownFact:
        options = instance.get("CpuOptions", {})
        return int(options.get("CoreCount", 1)) * int(options.get("ThreadsPerCore", 2))


def _offerings(stack: Stack, aws: Aws) -> list[Row]:
    types = sorted({name for pool in stack.plan.node_pools for name in pool.instance_types})
    found = listed(
        aws,
        "ec2:DescribeInstanceTypeOfferings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": [*types, stack.plan.system_nodes.instance_type]}],
    )
    offered: defaultdict[str, set[str]] = defaultdict(set)
    for offering in found:
        offered[offering["InstanceType"]].add(offering["Location"])
    return checks.offering_rows(stack.plan, offered)


def _eks_version(stack: Stack, aws: Aws) -> list[Row]:
    version = stack.plan.cluster.kubernetes_version
    usd_per_hour = fixed_price(stack.plan.region, "eks_control_plane_standard").usd
    try:
        found = listed(aws, "eks:DescribeClusterVersions", "clusterVersions", includeAll=True)
    except NotAnswered as error:
        # The calendar kept here stands in, and the row says so.
        source = f"by the calendar kept here: {error}"
        return [checks.eks_version_row(version, eks_version(version), (), stack.today, usd_per_hour, source)]
    offered = {entry["clusterVersion"]: entry for entry in found if entry.get("versionStatus") != "UNSUPPORTED"}
    mine = offered.get(version)
    support = (
        EksVersion(
            version=version,
            released=mine["releaseDate"].date() if "releaseDate" in mine else stack.today,
            end_of_standard_support=mine["endOfStandardSupportDate"].date(),
            end_of_extended_support=mine["endOfExtendedSupportDate"].date(),
            source="eks:DescribeClusterVersions",
        )
        if mine
        else None
    )
    return [checks.eks_version_row(version, support, offered, stack.today, usd_per_hour, "as EKS says")]


def _of_what_is_brought(stack: Stack, aws: Aws) -> Iterator[Check]:
    network, cluster = stack.plan.network, stack.plan.cluster
    if network.existing is not None:
        wanted = f"those of {network.existing.vpc_id} as the plan needs them"
        yield Check("subnets", wanted, partial(_subnets, stack, aws, network.existing))
    for role in brought.roles_wanted(cluster):
        yield Check(f"role: {role.setting}", role.arn, partial(_role, aws, role))
    if cluster.secrets_key_arn is not None:
        yield Check("key: cluster.secretsKeyArn", cluster.secrets_key_arn, partial(_key, aws, cluster.secrets_key_arn))


def _subnets(stack: Stack, aws: Aws, existing: ExistingVpc) -> list[Row]:
    network = stack.plan.network
    wanted = brought.subnets_wanted(network)

    def matching(name: str, values: Sequence[str]) -> list[Mapping[str, object]]:
        return [{"Name": name, "Values": list(values)}]

    # Filtered, and not got by id: a subnet that is not there is then no error.
    by_id = matching("subnet-id", [one.subnet_id for one in wanted])
    found = {one["SubnetId"]: one for one in listed(aws, "ec2:DescribeSubnets", "Subnets", Filters=by_id)}
    of_vpc = matching("vpc-id", [existing.vpc_id])
    tables = listed(aws, "ec2:DescribeRouteTables", "RouteTables", Filters=of_vpc)
    rows = [brought.subnet_row(one, network, found.get(one.subnet_id), tables) for one in wanted]
    own = sum(tags_of(instance).get(STACK_TAG) == stack.name for instance in _running(aws))
    private = [found[subnet] for subnet in existing.private_subnet_ids if subnet in found]
    return [*rows, brought.addresses_row(max(0, all_nodes_at_peak(stack.plan) - own), private)]


def _role(aws: Aws, wanted: brought.RoleWanted) -> list[Row]:
    answer = _if_there("NoSuchEntity", aws, "iam:GetRole", RoleName=wanted.name)
    return [brought.role_row(wanted, answer and answer["Role"])]


def _key(aws: Aws, arn: str) -> list[Row]:
    answer = _if_there("NotFoundException", aws, "kms:DescribeKey", KeyId=arn)
    return [brought.key_row(arn, answer and answer["KeyMetadata"])]


def _if_there(error_code: str, aws: Aws, action: str, **arguments: object) -> Mapping[str, Any] | None:
    """The answer; None where AWS says with this code that there is none. Raises ``NotAnswered``."""
    try:
        return one(aws, action, **arguments)
    except NotAnswered as error:
        if error_code not in str(error):
            raise
        return None


def _addons(stack: Stack, aws: Aws) -> list[Row]:
    cluster = stack.plan.cluster
    offered: defaultdict[str, dict[str, bool]] = defaultdict(dict)
    for name in cluster.addon_versions:
        asked = {"addonName": name, "kubernetesVersion": cluster.kubernetes_version}
        for addon in listed(aws, "eks:DescribeAddonVersions", "addons", **asked):
            for version in addon["addonVersions"]:
                for fit in version["compatibilities"]:
                    if fit["clusterVersion"] == cluster.kubernetes_version:
                        offered[addon["addonName"]][version["addonVersion"]] = bool(fit.get("defaultVersion"))
    return checks.addon_rows(cluster.kubernetes_version, cluster.addon_versions, offered)


def _amis(stack: Stack, aws: Aws) -> list[Row]:
    alias = stack.settings.capacity.ami_alias
    wanted = ami_parameters(stack.plan, alias)
    names = [name for each in wanted for name in (each.pinned, each.newest)]
    values: dict[str, str] = {}
    for start in range(0, len(names), _PARAMETERS_AT_ONCE):
        answer = one(aws, "ssm:GetParameters", Names=names[start : start + _PARAMETERS_AT_ONCE])
        values |= {parameter["Name"]: parameter["Value"] for parameter in answer["Parameters"]}
    return checks.ami_rows(alias, wanted, values)


def _cost_tag(aws: Aws) -> list[Row]:
    tags = one(aws, "ce:ListCostAllocationTags", TagKeys=[STACK_TAG]).get("CostAllocationTags", ())
    return [checks.cost_tag_row(STACK_TAG, active=any(tag["Status"] == "Active" for tag in tags))]


def _budget(stack: Stack) -> list[Row]:
    budget = stack.settings.budget
    return [checks.budget_row(budget.monthly_usd, budget.notify)]


def _model(stack: Stack, repository: str, tiers: Sequence[str]) -> list[Row]:
    return [checks.model_row(repository, model_access(repository, stack.token), tiers)]
