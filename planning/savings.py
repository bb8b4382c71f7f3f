"""The waterfall: the same month with levers switched on one after the other, and each switched off alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planning.bill import Levers, StackBills, TierDemand, Unservable
from planning.plan import SavingStep


@dataclass(frozen=True, slots=True)
class Lever:
    """One lever in the order of the waterfall."""

    field: str
    label: str
    claimed: str
    """What people quote for it, from the article this project answers."""


#: The first six are always shown, in the article's order; the others only when the stack uses them.
LEVERS = (
    Lever("spot", "spot nodes", "60 %"),
    Lever("quantization", "quantisation", "50 %"),
    Lever("batching", "engine limits", "2x"),
    Lever("routing", "tier routing", "30 %"),
    Lever("autoscaling", "autoscaling 1 to N", ""),
    Lever("scale_to_zero", "scale to zero, hours", "70 %"),
)
OTHER_LEVERS = (
    Lever("prefix_caching", "prefix caching", ""),
    Lever("kv_compression", "KV compression", ""),
    Lever("disaggregation", "disaggregated prefill", ""),
)

RIGHT_SIZING = "right-sizing"

#: The article's GPUs as far as they are known here: an L4 for small models, p4d (A100 of 40 GB) for the others.
_ARTICLE_GPU_OF_SMALL_MODELS, _ARTICLE_GPU = "L4", "A100-40GB"
_SMALL_MODEL_BILLION = 13.1


#: What a baseline may need before anything serves the targets at all.
NEEDED_FIRST = ("prefix_caching", "kv_compression", "quantization", "batching", "routing")


def baseline_levers(bills: StackBills) -> Levers:
    """Every lever off; where nothing serves that, as few of them on as it takes, in the order of the article.

    A target that no 16-bit fleet meets needs quantisation in the baseline too, and so on.
    """
    levers = Levers.none()
    for lever in NEEDED_FIRST:
        try:
            bills.bill(levers)
        except Unservable:
            levers = replace(levers, **{lever: True})
        else:
            break
    return levers


def waterfall(
    bills: StackBills, fixed_usd: float, baseline: Levers, baseline_usd: float, expected_usd: float
) -> tuple[SavingStep, ...]:
    """Steps from the baseline to the expected month; their savings add up to the difference.

    ``alone_usd`` of a step is the month with only this lever off, minus the expected month. These do not add up: levers
    overlap. It is None where nothing meets the target without the lever.
    """
    steps: list[SavingStep] = []
    levers, before = baseline, baseline_usd
    used = [lever for lever in OTHER_LEVERS if _in_use(bills, lever.field)]
    unused = {lever.field: True for lever in OTHER_LEVERS if lever not in used}
    order = (*LEVERS, *used)
    for position, lever in enumerate(order):
        if position == len(LEVERS):
            steps.append(_right_sizing(bills, fixed_usd, baseline_usd, before, expected_usd))
        levers = replace(levers, **{lever.field: True})
        last = position == len(order) - 1
        after = expected_usd if last else _total(bills, replace(levers, **unused)) + fixed_usd
        try:
            alone = _total(bills, replace(Levers(), **{lever.field: False})) + fixed_usd - expected_usd
        except Unservable:
            alone = None
        steps.append(
            SavingStep(
                lever=lever.label,
                monthly_usd=after,
                saved_usd=before - after,
                saved_percent=100 * (before - after) / before,
                cumulative_percent=100 * (baseline_usd - after) / baseline_usd,
                alone_usd=alone,
                claimed=lever.claimed,
            )
        )
        before = after
    if not used:
        steps.append(_right_sizing(bills, fixed_usd, baseline_usd, before, expected_usd))
    return tuple(steps)


def _right_sizing(
    bills: StackBills, fixed_usd: float, baseline_usd: float, before: float, expected_usd: float
) -> SavingStep:
    """No saving, because the baseline has the right GPUs already; alone, what the article's GPUs would cost more."""
    article = replace(bills, tiers=tuple(_on_article_gpu(tier) for tier in bills.tiers), _searches={})
    try:
        alone = _total(article, Levers()) + fixed_usd - expected_usd
    except Unservable:
        alone = None
    cumulative = 100 * (baseline_usd - before) / baseline_usd
    return SavingStep(RIGHT_SIZING, before, 0.0, 0.0, cumulative, alone, "")


def _on_article_gpu(tier: TierDemand) -> TierDemand:
    """The tier as if only the article's GPU for a model of its size existed; one that asks for CPUs stays there."""
    if tier.settings.quantization == "gguf":
        return tier
    gpu = _ARTICLE_GPU_OF_SMALL_MODELS if tier.architecture.params_billion <= _SMALL_MODEL_BILLION else _ARTICLE_GPU
    methods = frozenset(method for method in tier.methods if not method.startswith("gguf"))
    return replace(tier, methods=methods, settings=tier.settings.model_copy(update={"gpus": (gpu,)}))


def _total(bills: StackBills, levers: Levers) -> float:
    return sum(bill.usd for bill in bills.bill(levers))


def _in_use(bills: StackBills, field: str) -> bool:
    for tier in bills.tiers:
        settings = tier.settings
        used = {
            "prefix_caching": settings.traffic.prefix_hit_rate > 0 or bool(settings.kv_offload_gib),
            "kv_compression": settings.kv_cache_dtype != "auto",
            "disaggregation": settings.disaggregation.enabled,
        }
        if used[field]:
            return True
    return False
