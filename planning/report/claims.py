"""What the article quotes, beside what this stack saves, and in words from the plan's own figures why they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from planning.facts.article import ARTICLE_HOURS_SAVED_PERCENT, ARTICLE_SAVED_PERCENT
from planning.plan import Plan, SavingStep
from planning.report.figures import money


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure of the article and ours, percent of the bill."""

    name: str
    quoted_percent: float
    ours_percent: float
    why: str


def claims(plan: Plan) -> tuple[Claim, ...]:
    """The article's steps, each with all before it, and its saving of working hours on what runs."""
    forecast = plan.forecast
    steps = {step.lever: step for step in forecast.savings}
    found: list[Claim] = []
    for lever, quoted in ARTICLE_SAVED_PERCENT.items():
        if lever in steps:
            why = _WHY[lever](plan, steps[lever])
            found.append(Claim(f"after {lever}", quoted, steps[lever].cumulative_percent, why))
    asleep = next((step for step in forecast.savings if step.lever.startswith("scale to zero")), None)
    if asleep is not None:
        before = asleep.monthly_usd + asleep.saved_usd - fixed_usd(plan)
        ours = 100 * asleep.saved_usd / before if before else 0.0
        found.append(Claim("working hours, of compute", ARTICLE_HOURS_SAVED_PERCENT, ours, _asleep(plan, asleep)))
    return tuple(found)


def fixed_usd(plan: Plan) -> float:
    """What the month costs with no model node."""
    return sum(item.usd for item in plan.forecast.items if item.category == "fixed")


def _spot(plan: Plan, step: SavingStep) -> str:
    fixed = fixed_usd(plan)
    before = step.monthly_usd + step.saved_usd - fixed
    of_compute = 100 * step.saved_usd / before if before else 0.0
    text = f"spot takes {of_compute:.0f} % off compute"
    shares = [
        100 * offering.spot_usd_per_hour / offering.on_demand_usd_per_hour
        for tier in plan.tiers
        for offering in tier.offerings[:1]
        if offering.spot_usd_per_hour is not None
    ]
    if shares:
        low, high = f"{min(shares):.0f}", f"{max(shares):.0f}"
        text += f": the first choices cost {low if low == high else f'{low} to {high}'} % of on-demand there"
    on_demand = [
        f"{100 * (1 - cost.spot_share):.0f} % of {cost.tier}" for cost in plan.forecast.tiers if cost.spot_share < 0.995
    ]
    if on_demand:
        text += f", on-demand still serves {_listed(on_demand)}"
    return f"{text}; {money(fixed)} of fixed costs never go on spot"


def _quantisation(plan: Plan, step: SavingStep) -> str:
    formats = [
        f"{tier.name} {tier.checkpoint.method} on " + (f"{tier.gpus_per_replica} x {tier.gpu}" if tier.gpu else "CPUs")
        for tier in plan.tiers
    ]
    return f"the step takes {step.saved_percent:.0f} % where the article halves the bill; {_listed(formats)}"


def _limits(_: Plan, step: SavingStep) -> str:
    return (
        f"the article doubles throughput by batching; vLLM batches by default, so the baseline does too, and limits "
        f"tuned to the latency target save {step.saved_percent:.0f} % more"
    )


def _routing(plan: Plan, step: SavingStep) -> str:
    if len(plan.tiers) == 1:
        return "one tier: there is nothing to route"
    used = [f"{100 * cost.utilization:.0f} % of {cost.tier}" for cost in plan.forecast.tiers]
    change = (
        f"saves {step.saved_percent:.0f} % of the month before"
        if step.saved_usd >= 0
        else f"adds {money(-step.saved_usd)}, as every tier keeps nodes of its own"
    )
    return f"routing {change}; of the capacity that is paid for, requests use {_listed(used)}"


def _asleep(plan: Plan, step: SavingStep) -> str:
    kept = [f"{tier.name} keeps {tier.replicas.minimum}" for tier in plan.tiers if tier.replicas.minimum]
    awake = f"{_listed(kept)} around the clock" if kept else "every tier may sleep"
    hours = [f"{cost.tier} {cost.replica_hours:,.0f}" for cost in plan.forecast.tiers]
    return f"{awake}; replica hours a month (always on: 730 each): {_listed(hours)}; saved {money(step.saved_usd)}"


def _listed(parts: list[str], most: int = 4) -> str:
    more = f" and {len(parts) - most} more tiers" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more


_WHY: dict[str, Callable[[Plan, SavingStep], str]] = {
    "spot nodes": _spot,
    "quantisation": _quantisation,
    "engine limits": _limits,
    "tier routing": _routing,
}


def article_rows(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    """Tier, and USD per million tokens at this load, with full replicas, and in the article's routing table."""
    for cost in plan.forecast.tiers:
        quoted = cost.article_usd_per_million_tokens
        yield (
            cost.tier,
            f"{cost.usd_per_million_tokens:.2f}",
            f"{cost.usd_per_million_tokens_saturated:.3f}",
            "" if quoted is None else f"{quoted:.2f}",
        )
