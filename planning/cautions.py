"""What a person should know before they trust the plan: one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from planning.bill import Levers, TierBill
from planning.facts.node_images import DRIVER_FLOOR
from planning.model_router import shared_models
from planning.plan import Plan, TierPlan
from planning.savings import NEEDED_FIRST
from problems import Problem
from settings import StackSettings

_FEW_OFFERINGS = 3
_WORTH_SAYING_USD = 5.0


def stack_warnings(
    settings: StackSettings,
    bill: Sequence[TierBill],
    plan: Plan,
    *,
    baseline: Levers,
    over: Problem | None,
    today: Sequence[str],
) -> tuple[str, ...]:
    """All warnings of a plan, the weightiest first. ``today``: those that follow from the calendar."""
    lines: list[str] = []
    if over is not None:
        lines.append(f"over budget: {over}")
    needed = [name for name in NEEDED_FIRST if getattr(baseline, name)]
    if needed:
        lines.append(f"nothing here meets the targets without {' and '.join(needed)}, so the baseline has it too")
    for tier, part in zip(plan.tiers, bill, strict=True):
        lines += _tier_warnings(settings, tier, part)
    # What costs more than it saves only because a person paused a tier, or asked for a KV store, is said as that.
    if all(part.paused is None for part in bill):
        lines += [
            f"without {step.lever} the month would be {-step.alone_usd:,.0f} USD cheaper"
            for step in plan.forecast.savings
            if step.alone_usd is not None and step.alone_usd < -_WORTH_SAYING_USD
            if step.lever != "prefix caching" or not any(tier.kv_offload_gib for tier in settings.tiers)
        ]
    if (
        settings.network.ingress_scheme == "internet-facing"
        and not plan.network.oidc
        and not settings.network.web_acl_arn
    ):
        lines.append(
            "the load balancer faces the internet without network.oidc or network.webAclArn: without the secret apiKey "
            "anyone can use the GPUs, and with it a wrong key still wakes a sleeping tier"
        )
    if (
        any(pool.gpu_count for pool in plan.node_pools)
        and plan.node_image.driver(plan.cluster.kubernetes_version) is None
    ):
        lines.append(
            f"capacity.amiAlias {settings.capacity.ami_alias}: its NVIDIA driver is not known here, and vLLM's image "
            f"needs {DRIVER_FLOOR} or newer"
        )
    if not settings.network.api_endpoint_cidrs:
        lines.append(
            "the Kubernetes API is private: run pulumi up from inside the VPC (VPN, peering), or set "
            "network.apiEndpointCidrs for the first run"
        )
    if plan.network.existing is not None:
        lines.append(
            f"the network is {plan.network.existing.vpc_id}: the hours of its gateways and endpoints are not in this "
            "bill; without an S3 gateway endpoint in its private route tables every cold start pays NAT for its weights"
        )
    substituted = sorted({item.name for item in plan.forecast.items if "derived" in item.basis})
    if substituted:
        lines.append(f"prices not read for {plan.region} and derived from us-east-1: {', '.join(substituted)}")
    if settings.routing.by_model_field:
        lines += shared_models(settings)
        if settings.network.oidc is not None:
            status = 401 if settings.network.oidc.on_unauthenticated == "deny" else 302
            lines.append(
                "routing.byModelField with network.oidc: a program that can set no header has no cookie of a sign-in "
                f"either, so the load balancer answers it {status} and the two Envoys see signed-in browsers only; "
                "leave one of them out, and let programs in by the secret apiKey"
            )
    lines += today
    if settings.capacity.spot:
        lines.append("interruption classes are of June 2025, the newest copy of the Spot Advisor that was found")
    return tuple(lines)


def _tier_warnings(settings: StackSettings, tier: TierPlan, part: TierBill) -> Iterator[str]:
    spot = settings.capacity.spot
    if part.paused is not None:
        yield _pause(tier, part)
    if spot and len(tier.instance_types) < _FEW_OFFERINGS:
        yield (
            f"tier {tier.name}: only {len(tier.instance_types)} instance type(s) carry it "
            f"({', '.join(tier.instance_types)}): spot may run out, expect on-demand hours"
        )
    if spot and part.fleet.price.spot_share == 0:
        yield f"tier {tier.name}: no spot price is known for its types; priced on-demand"
    if tier.gpus_per_replica > 1 and part.fleet.option.gpu and part.fleet.option.gpu.nvlink != "yes":
        yield f"tier {tier.name}: {tier.gpus_per_replica} GPUs over PCIe are poorly measured; its range is wide"
    if part.fleet.asleep_usd is not None:
        yield (
            f"tier {tier.name}: one replica is kept at any hour, though minReplicas 0 lets it sleep: its traffic would "
            f"wake it so often that sleeping costs {part.fleet.asleep_usd - part.fleet.usd:,.2f} USD a month more"
        )
    if tier.engine == "llama.cpp":
        yield (
            f"tier {tier.name}: speed on CPUs is thinly measured: it rests on runs of one sequence at a time, its "
            "bandwidth on one model (Llama-3.1-8B on Graviton4); batches and other processors are projected"
        )
    if tier.checkpoint.gated:
        yield f"tier {tier.name}: {tier.checkpoint.repository} is gated, set the secret huggingFaceToken"
    if tier.disaggregation is not None and not tier.disaggregation.pays:
        yield f"tier {tier.name}: {tier.disaggregation.verdict}"
    if tier.disaggregation is not None and tier.disaggregation.efa_interfaces:
        yield (
            f"tier {tier.name}: all its replicas run in one zone, which EFA does not leave: spot is bought there only, "
            "and the loss of the zone is an outage of one cold start; disaggregation.efa: false spreads them"
        )
    if tier.disaggregation is not None and tier.disaggregation.shared_claim is not None:
        yield (
            f"tier {tier.name}: the claim {tier.disaggregation.shared_claim} must be there before its pods, which wait "
            "for it; what it stores is not in this bill"
        )
    if part.paused is None and part.disaggregated is None and tier.replicas.maximum < part.fleet.month.needed_replicas:
        yield (
            f"tier {tier.name}: maxReplicas {tier.replicas.maximum} is below the {part.fleet.month.needed_replicas} "
            "that the busiest hour needs; requests will wait longer than the target"
            + _never_served(part, part.fleet.month.peak_replicas)
        )
    if tier.replicas.minimum == 1 and tier.replicas.on_demand_floor == 0 and spot:
        yield f"tier {tier.name}: a single spot replica; an interruption is an outage of one cold start"


def _pause(tier: TierPlan, part: TierBill) -> str:
    """What a paused tier costs and does."""
    scaled = part.disaggregated.fleet if part.disaggregated else part.fleet
    each = " of each role" if part.disaggregated else ""
    paused = tier.replicas.paused or 0
    consequence = ""
    if not paused:
        consequence = f"; its requests wait {tier.timeouts.router_hold_s:,} s in the router and are refused then"
    elif part.disaggregated is None and paused < part.fleet.month.needed_replicas:
        consequence = (
            f"; the busiest hour needs {part.fleet.month.needed_replicas}, so requests will wait longer than the target"
            + _never_served(part, paused)
        )
    return (
        f"tier {tier.name}: paused at {tier.replicas.paused} replicas{each}, whatever the load: the month counts them "
        f"at every hour, {part.usd:,.0f} USD, and while it scales {scaled.usd:,.0f}; the baseline has as many"
        + consequence
    )


def _never_served(part: TierBill, replicas: int) -> str:
    """What a tier cannot serve at all because so many replicas carry less than even the mean load."""
    asked = sum(part.search.requests_per_hour) / len(part.search.requests_per_hour) / 3600
    carried = replicas * part.fleet.option.load.requests_per_second
    return f", and {100 * (1 - carried / asked):.0f} % will never be served within it" if asked > carried else ""
