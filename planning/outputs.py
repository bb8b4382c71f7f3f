"""The plan as plain data: the stack outputs, and what ``--json`` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from planning.cents import bill_in_cents, to_cents
from planning.plan import Plan, TierPlan

CURRENCY = "USD"


class MonthlyCost(TypedDict):
    """Projected cost of a month of 730 hours, USD."""

    low: float
    expected: float
    high: float
    baseline: float
    currency: str
    pricesAsOf: str
    priceSource: str


class CostByTier(TypedDict):
    """Projected compute of one tier; fixed costs belong to no tier."""

    expected: float
    low: float
    high: float
    perMillionTokens: float
    perMillionTokensSaturated: float
    millionTokens: float
    replicaHours: float
    spotShare: float
    utilization: float
    apiUsd: float | None
    breakEvenRequestsPerDay: float | None


class Saving(TypedDict):
    """One step from the baseline to the expected month."""

    lever: str
    monthlyUsd: float
    savedUsd: float
    savedPercent: float
    cumulativePercent: float
    aloneUsd: float | None


class TierOutput(TypedDict):
    """What one tier is planned to run on, and at which load and latency."""

    checkpoint: str
    quantization: str
    qualityLossPercent: float
    engine: str
    gpu: str | None
    gpusPerReplica: int
    instanceTypes: list[str]
    maxNumSeqs: int
    maxNumBatchedTokens: int | None
    maxModelLen: int
    kvOffloadGib: float
    ttftMs: float
    tpotMs: float
    clientTimeoutSeconds: int
    speedSource: str
    requestsPerSecondPerReplica: float
    minReplicas: int
    maxReplicas: int
    pausedReplicas: int | None


class PlanOutputs(TypedDict):
    """The outputs of a stack that follow from the plan."""

    projectedMonthlyCost: MonthlyCost
    projectedCostByTier: dict[str, CostByTier]
    projectedSavings: list[Saving]
    plan: dict[str, TierOutput]
    warnings: list[str]


def plan_outputs(plan: Plan) -> PlanOutputs:
    """The plan in the names of the stack outputs. Money to the cent, times to the tenth of a millisecond."""
    forecast = plan.forecast
    bill = bill_in_cents(forecast)
    return PlanOutputs(
        projectedMonthlyCost=MonthlyCost(
            low=round(forecast.total.low, 2),
            expected=bill.total / 100,
            high=round(forecast.total.high, 2),
            baseline=round(forecast.baseline_usd, 2),
            currency=CURRENCY,
            pricesAsOf=forecast.prices_as_of,
            priceSource=forecast.price_source,
        ),
        projectedCostByTier={
            cost.tier: CostByTier(
                expected=bill.by_tier.get(cost.tier, 0) / 100,
                low=round(cost.low_usd, 2),
                high=round(cost.high_usd, 2),
                perMillionTokens=round(cost.usd_per_million_tokens, 4),
                perMillionTokensSaturated=round(cost.usd_per_million_tokens_saturated, 4),
                millionTokens=round(cost.million_tokens, 3),
                replicaHours=round(cost.replica_hours, 1),
                spotShare=round(cost.spot_share, 4),
                utilization=round(cost.utilization, 4),
                apiUsd=None if cost.api_usd is None else round(cost.api_usd, 2),
                breakEvenRequestsPerDay=cost.break_even_requests_per_day and round(cost.break_even_requests_per_day),
            )
            for cost in forecast.tiers
        },
        projectedSavings=list(_savings(plan)),
        plan={tier.name: _tier(tier) for tier in plan.tiers},
        warnings=[*plan.warnings, *plan.advice],
    )


def _savings(plan: Plan) -> Iterator[Saving]:
    """The steps in whole cents: each saving is the difference of the months around it, so that they add up."""
    before = to_cents(plan.forecast.baseline_usd)
    for step in plan.forecast.savings:
        after = to_cents(step.monthly_usd)
        yield Saving(
            lever=step.lever,
            monthlyUsd=after / 100,
            savedUsd=(before - after) / 100,
            savedPercent=round(step.saved_percent, 2),
            cumulativePercent=round(step.cumulative_percent, 2),
            aloneUsd=None if step.alone_usd is None else round(step.alone_usd, 2),
        )
        before = after


class Item(TypedDict):
    """One line of the bill. Rounded so that all of them add up to the expected month."""

    name: str
    category: str
    tier: str | None
    usd: float
    basis: str


class RangeDriver(TypedDict):
    """One uncertainty, and what it alone changes the month by."""

    name: str
    lowUsd: float
    highUsd: float
    why: str


class OtherRequirement(TypedDict):
    """The month under another requirement."""

    name: str
    expected: float
    baseline: float
    savedPercent: float


class BudgetUse(TypedDict):
    """The budget of a month, and the share of it that the compared figure of the projected month takes."""

    monthlyUsd: float
    compare: str
    usedPercent: float


class BillDetails(TypedDict):
    """What stands behind the projected month."""

    region: str
    budget: BudgetUse | None
    items: list[Item]
    drivers: list[RangeDriver]
    whatIfs: list[OtherRequirement]


def bill_details(plan: Plan) -> BillDetails:
    """The bill item by item, what moves it, and other requirements: what ``--json`` prints beside the outputs."""
    forecast = plan.forecast
    used = forecast.budget_used_percent
    return BillDetails(
        region=plan.region,
        budget=None
        if forecast.budget_usd is None or used is None
        else BudgetUse(monthlyUsd=forecast.budget_usd, compare=forecast.budget_compare, usedPercent=round(used, 2)),
        items=[
            Item(name=item.name, category=item.category, tier=item.tier, usd=cents / 100, basis=item.basis)
            for item, cents in zip(forecast.items, bill_in_cents(forecast).items, strict=True)
        ],
        drivers=[
            RangeDriver(
                name=driver.name, lowUsd=round(driver.low_usd, 2), highUsd=round(driver.high_usd, 2), why=driver.why
            )
            for driver in forecast.drivers
        ],
        whatIfs=[
            OtherRequirement(
                name=what_if.name,
                expected=round(what_if.expected_usd, 2),
                baseline=round(what_if.baseline_usd, 2),
                savedPercent=round(what_if.saved_percent, 2),
            )
            for what_if in forecast.what_ifs
        ],
    )


class InstanceTypeChoice(TypedDict):
    """An instance type of a tier's pool, and its prices of an hour."""

    instanceType: str
    gpu: str | None
    spotUsdPerHour: float | None
    onDemandUsdPerHour: float


class NotChosen(TypedDict):
    """What a tier could have run on, and why it does not."""

    description: str
    monthlyUsd: float | None
    reason: str


class TierAlternatives(TypedDict):
    """The ranked choices of a tier: what its pod may run on, cheapest first, and what was not chosen."""

    instanceTypes: list[InstanceTypeChoice]
    notChosen: list[NotChosen]


def alternatives(plan: Plan) -> dict[str, TierAlternatives]:
    """The ranked choices of every tier: what ``--json`` prints beside the outputs."""
    return {
        tier.name: TierAlternatives(
            instanceTypes=[
                InstanceTypeChoice(
                    instanceType=offering.instance_type,
                    gpu=offering.gpu,
                    spotUsdPerHour=offering.spot_usd_per_hour,
                    onDemandUsdPerHour=offering.on_demand_usd_per_hour,
                )
                for offering in tier.offerings
            ],
            notChosen=[
                NotChosen(
                    description=other.description,
                    monthlyUsd=None if other.monthly_usd is None else round(other.monthly_usd, 2),
                    reason=other.reason,
                )
                for other in plan.alternatives
                if other.tier == tier.name
            ],
        )
        for tier in plan.tiers
    }


def _tier(tier: TierPlan) -> TierOutput:
    vllm, llama_cpp = tier.vllm, tier.llama_cpp
    slots = llama_cpp.parallel_slots if llama_cpp else 0
    return TierOutput(
        checkpoint=tier.checkpoint.repository,
        quantization=tier.checkpoint.method,
        qualityLossPercent=round(tier.checkpoint.quality_loss_percent, 2),
        engine=tier.engine,
        gpu=tier.gpu,
        gpusPerReplica=tier.gpus_per_replica,
        instanceTypes=list(tier.instance_types),
        maxNumSeqs=vllm.max_num_seqs if vllm else slots,
        maxNumBatchedTokens=vllm.max_num_batched_tokens if vllm else None,
        maxModelLen=vllm.max_model_len if vllm else (llama_cpp.context_tokens // slots if llama_cpp else 0),
        kvOffloadGib=vllm.kv_offload_gib if vllm else 0.0,
        ttftMs=round(tier.serving.ttft_ms, 1),
        tpotMs=round(tier.serving.tpot_ms, 1),
        clientTimeoutSeconds=tier.timeouts.client_s,
        speedSource=tier.serving.source,
        requestsPerSecondPerReplica=round(tier.serving.requests_per_second, 4),
        minReplicas=tier.replicas.minimum,
        maxReplicas=tier.replicas.maximum,
        pausedReplicas=tier.replicas.paused,
    )
