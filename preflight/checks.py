"""What the answers mean for the plan: small functions from an answer and what is wanted to rows. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date

from planning.facts.eks_versions import EksVersion
from planning.plan import Plan
from preflight.hugging_face import ModelAccess
from preflight.rows import Row
from preflight.wanted import AmiParameter, QuotaWanted, newest_alias

#: A month of 730 hours, as everywhere in the plan.
_HOURS = 730


def identity_row(account: str, arn: str, named: Mapping[str, str]) -> Row:
    """The account of the credentials against those of the ARNs in the settings, by setting."""
    others = {setting: value for setting, value in named.items() if account_of(value) != account}
    wanted = f"account {account_of(next(iter(named.values())))}" if named else "credentials of any account"
    if others:
        accounts = ", ".join(f"{setting} ({account_of(value)})" for setting, value in others.items())
        fix = f"sign in to that account, or correct {accounts}"
        return Row("credentials", wanted, f"{arn} of account {account}", "fail", fix)
    return Row("credentials", wanted, f"{arn} of account {account}", "ok")


def account_of(arn: str) -> str:
    """The account of an ARN; empty when it has none."""
    return (arn.split(":") + [""] * 5)[4]


def arns_in(value: object, path: str = "") -> dict[str, str]:
    """Every ARN with an account in settings dumped to plain values, by where it stands."""
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in arns_in(item, f"{path}.{key}".lstrip(".")).items()}
    if isinstance(value, (list, tuple)):
        return {k: v for index, item in enumerate(value) for k, v in arns_in(item, f"{path}[{index}]").items()}
    return {path: value} if isinstance(value, str) and re.match(r"arn:aws[a-z-]*:[^:]+:[^:]*:\d{12}:", value) else {}


def permission_rows(actions: Mapping[str, Sequence[str]], decisions: Mapping[str, str]) -> list[Row]:
    """Simulated decisions by action, for the actions that the program's resources need, by service."""
    rows: list[Row] = []
    allowed: list[str] = []
    for service, needed in actions.items():
        refused = [action for action in needed if decisions.get(action) != "allowed"]
        if not refused:
            allowed.append(f"{service} ({len(needed)})")
            continue
        fix = "allow them to the role that runs pulumi up; a resource or condition in a policy may do so unseen here"
        found = f"not allowed: {', '.join(refused)}"
        rows.append(Row(f"permissions: {service}", f"{len(needed)} actions on *", found, "fail", fix))
    if allowed:
        count = sum(len(needed) for needed in actions.values()) - sum(
            len(actions[row.check.rpartition(" ")[2]]) for row in rows
        )
        rows.append(Row("permissions", f"{count} actions on *", f"allowed: {', '.join(allowed)}", "ok"))
    return rows


_SPOT = "spot.amazonaws.com"
#: The first request of one who may ``iam:CreateServiceLinkedRole`` makes theirs. Karpenter's role may not.
_MADE_ON_USE = (
    "eks.amazonaws.com",
    "eks-nodegroup.amazonaws.com",
    "autoscaling.amazonaws.com",
    "elasticloadbalancing.amazonaws.com",
)


def linked_role_rows(there: Collection[str], *, spot: bool) -> list[Row]:
    """Service-linked roles, by the services whose role is ``there``; without spot's no spot instance starts."""
    rows: list[Row] = []
    if spot:
        check, wanted = "service-linked role of spot", _SPOT
        if _SPOT in there:
            rows.append(Row(check, wanted, "there", "ok"))
        else:
            command = f"aws iam create-service-linked-role --aws-service-name {_SPOT}"
            rows.append(Row(check, wanted, "not there", "fail", "make it, once for the account", command))
    check, wanted = "service-linked roles made on use", ", ".join(_MADE_ON_USE)
    missing = [service for service in _MADE_ON_USE if service not in there]
    if missing:
        fix = "nothing, if the caller may iam:CreateServiceLinkedRole; else have them made"
        rows.append(Row(check, wanted, f"not there: {', '.join(missing)}", "warn", fix))
    else:
        rows.append(Row(check, wanted, "there", "ok"))
    return rows


def quota_row(wanted: QuotaWanted, value: float, in_use: float | None, region: str) -> Row:
    """A quota less what others use of it (None: not known) against the plan's peak."""
    unit = " vCPUs" if wanted.quota.of_vcpus else ""
    free = value - (in_use or 0)
    found = f"{free:g} free: {value:g} less {in_use:g} in use" if in_use else f"{value:g}, none in use"
    if in_use is None:
        found = f"{value:g}; what is in use is not known"
    check = f"quota: {wanted.quota.name}"
    asked = f"{wanted.amount:,}{unit}: {wanted.why}"
    if free >= wanted.amount:
        return Row(check, asked, found, "ok")
    needed = wanted.amount + (in_use or 0)
    command = (
        f"aws service-quotas request-service-quota-increase --service-code {wanted.quota.service} "
        f"--quota-code {wanted.quota.code} --desired-value {needed:g} --region {region}"
    )
    if not wanted.planned:
        fix = f"nothing: the plan's own types do without, its choice is narrower; or ask AWS for {needed:g}"
        return Row(check, asked, found, "warn", fix, command)
    fix = f"ask AWS for {needed:g}, which takes hours to days"
    if wanted.quota.of_vcpus:
        fix += "; or let the stack grow less: tiers[].maxReplicas, budget.monthlyUsd"
    return Row(check, asked, found, "fail", fix, command)


def offering_rows(plan: Plan, offered: Mapping[str, Collection[str]]) -> list[Row]:
    """Zones that offer each type, against the plan's pools and zones: each needs one type in each zone."""
    zones = plan.network.zones
    pools = {f"pool {pool.name}": pool.instance_types for pool in plan.node_pools}
    rows = [_offering_row(name, types, zones, offered) for name, types in pools.items()]
    return [*rows, _offering_row("system nodes", (plan.system_nodes.instance_type,), zones, offered)]


def _offering_row(name: str, types: Sequence[str], zones: Sequence[str], offered: Mapping[str, Collection[str]]) -> Row:
    here = {zone: [one for one in types if zone in offered.get(one, ())] for zone in zones}
    full = [zone for zone in zones if len(here[zone]) == len(types)]
    parts = [f"all in {', '.join(full)}"] if full else []
    parts += [f"{zone}: {', '.join(here[zone]) or 'none'}" for zone in zones if zone not in full]
    wanted = (
        f"one of {len(types)} types in each of {', '.join(zones)}" if len(types) > 1 else f"{types[0]} in each zone"
    )
    check = f"offerings: {name}"
    without = [zone for zone in zones if not here[zone]]
    if not without:
        return Row(check, wanted, "; ".join(parts), "ok")
    others = sorted({zone for one in types for zone in offered.get(one, ())})
    if others:
        fix = f"set network.zones to zones of {', '.join(others)}"
    else:
        fix = f"another aws:region: none of {', '.join(types)} is offered in this one"
    return Row(check, wanted, "; ".join(parts), "fail", fix)


def eks_version_row(
    version: str,
    support: EksVersion | None,
    offered: Collection[str],
    today: date,
    usd_per_hour: float,
    source: str,
) -> Row:
    """The support window of a Kubernetes version, and what its control plane costs in standard support.

    ``support`` None: it is not among those ``offered``. The cluster's upgrade policy is STANDARD: where standard
    support ends EKS raises the control plane by itself, without the program, and never charges for extended support.
    """
    price = f"${usd_per_hour:.2f}/h, ${usd_per_hour * _HOURS:,.0f} a month"
    check, wanted = "EKS version", f"{version} in standard support ({price})"
    newer = "raise cluster.kubernetesVersion"
    if support is None:
        others = ", ".join(sorted(offered)) or "none"
        return Row(check, wanted, f"{version} is not offered; offered are {others} ({source})", "fail", newer)
    end = support.end_of_standard_support
    if today >= end:
        found = f"standard support ended on {end}, so EKS upgrades the control plane by itself ({source})"
        return Row(check, wanted, found, "fail", newer)
    return Row(check, wanted, f"standard support to {end} ({source})", "ok")


def addon_rows(kubernetes: str, pinned: Mapping[str, str], offered: Mapping[str, Mapping[str, bool]]) -> list[Row]:
    """The pinned versions of the add-ons, against those that EKS offers for the Kubernetes version.

    ``offered``: by add-on, its versions, and whether each is the default for that Kubernetes version.
    """
    rows: list[Row] = []
    for name, version in pinned.items():
        versions = offered.get(name, {})
        if version in versions:
            continue
        default = next((each for each, is_default in versions.items() if is_default), "")
        found = f"not offered for {kubernetes}; the default is {default or 'not known'}"
        fix = f"pin {default or 'one that is offered'} in planning/facts/data/eks_addons.csv, with its source"
        rows.append(Row(f"add-on: {name}", version, found, "fail", fix))
    good = [f"{name} {version}" for name, version in pinned.items() if version in offered.get(name, {})]
    if good:
        rows.append(Row("add-ons", f"offered for Kubernetes {kubernetes}", f"offered: {', '.join(good)}", "ok"))
    return rows


def ami_rows(alias: str, wanted: Sequence[AmiParameter], values: Mapping[str, str]) -> list[Row]:
    """Values of the public parameters by name, against those that Karpenter will ask for."""
    family = alias.partition("@")[0]
    rows: list[Row] = []
    for one in wanted:
        newest = newest_alias(family, values[one.newest]) if one.newest in values else "not known"
        check = f"AMI: {one.variant}"
        if one.pinned in values:
            note = "the newest" if newest == alias else f"newest is {newest}"
            rows.append(Row(check, alias, f"{values[one.pinned]}; {note}", "ok"))
        else:
            fix = f"set capacity.amiAlias to {newest}" if one.newest in values else "correct capacity.amiAlias"
            rows.append(Row(check, alias, f"no parameter {one.pinned}; newest is {newest}", "fail", fix))
    return rows


def model_row(repository: str, access: ModelAccess, tiers: Sequence[str]) -> Row:
    """What the token opens of a checkpoint."""
    check, wanted = f"model: {repository}", f"readable, for {', '.join(tiers)}"
    page = f"https://huggingface.co/{repository}"
    match access:
        case "open":
            return Row(check, wanted, "open to everybody", "ok")
        case "accepted":
            return Row(check, wanted, "gated, and the token's owner is admitted", "ok")
        case "refused":
            return Row(
                check, wanted, "gated, and the token's owner is not admitted", "fail", f"ask for access at {page}"
            )
        case "token missing":
            fix = (
                f"HF_TOKEN=… make preflight, and pulumi config set --secret huggingFaceToken; ask for access at {page}"
            )
            return Row(check, wanted, "gated, and HF_TOKEN is not set", "unknown", fix)
        case "token invalid":
            return Row(check, wanted, "HF_TOKEN is not accepted", "fail", "make one at huggingface.co/settings/tokens")
        case "not found":
            found = "not there, or not for this token"
            return Row(check, wanted, found, "fail", f"look at {page}; set quantization to another checkpoint")


def cost_tag_row(tag: str, *, active: bool) -> Row:
    """Whether the tag that the stack's budget filters by is activated for cost allocation."""
    check, wanted = "cost allocation tag", f"{tag} activated"
    if active:
        return Row(check, wanted, "active", "ok")
    fix = "activate it in the payer account after the first up; until then the AWS budget counts nothing"
    command = f"aws ce update-cost-allocation-tags-status --cost-allocation-tags-status TagKey={tag},Status=Active"
    return Row(check, wanted, "not active", "warn", fix, command)


def budget_row(monthly_usd: float | None, notify: Sequence[str]) -> Row:
    """Whether somebody is told when the month gets dear."""
    check, wanted = "budget alarm", "a budget, and somebody it mails"
    if monthly_usd is None:
        return Row(check, wanted, "no budget", "warn", "set budget.monthlyUsd and budget.notify")
    if not notify:
        return Row(check, wanted, f"${monthly_usd:,.0f} a month, mails nobody", "warn", "set budget.notify")
    return Row(check, wanted, f"${monthly_usd:,.0f} a month, mails {', '.join(notify)}", "ok")
