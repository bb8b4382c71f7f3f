"""What the shipped stacks save, and that the steps say so. The claimed percentages are the article's, see
``planning/facts/article.py`` and ``Lever.claimed``; the computed ones are not fitted to them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from planning.plan import Plan, SavingStep
from planning.stack import plan_config
from planning.stackfile import read_stack

ROOT = Path(__file__).resolve().parents[2]


def planned(stack: str, change: Callable[[dict[str, Any]], dict[str, Any]] = dict, **changes: Any) -> Plan:
    """A shipped stack with every tier changed, without its budget."""
    read = read_stack(ROOT / f"Pulumi.{stack}.yaml")
    tiers: Any = read.values["tiers"]
    values = {key: value for key, value in read.values.items() if key != "budget"}
    return plan_config(read.region, {**values, "tiers": [change(tier) for tier in tiers], **changes})[1]


shipped = cache(planned)


def saved(plan: Plan, usd: float) -> float:
    return 1 - usd / plan.forecast.baseline_usd


def step(plan: Plan, lever: str) -> SavingStep:
    (found,) = [step for step in plan.forecast.savings if step.lever == lever]
    return found


# The figures that the product promises -------------------------------------------------------------------------------


def test_prod_with_two_replicas_saves_85_percent_and_75_at_the_high_end() -> None:
    plan = shipped("prod")
    assert [tier.replicas.minimum for tier in plan.tiers] == [2, 2]
    assert 18_000 <= plan.forecast.baseline_usd <= 22_000
    assert saved(plan, plan.forecast.total.expected) >= 0.85
    assert saved(plan, plan.forecast.total.high) >= 0.75


def test_prod_with_one_replica_saves_90_percent() -> None:
    plan = planned("prod", lambda tier: {**tier, "minReplicas": 1})
    assert saved(plan, plan.forecast.total.expected) >= 0.9


def gpu_usd(plan: Plan) -> float:
    """All compute of the tiers on GPUs: instances, restarts, disks and images."""
    tiers = {tier.name for tier in plan.tiers if tier.gpu}
    return sum(item.usd for item in plan.forecast.items if item.tier in tiers)


def test_sleep_and_working_hours_save_70_percent_of_the_gpu_compute_of_dev() -> None:
    # Against a replica of each tier at any hour, on the same spot nodes. 40 of 168 hours are working hours.
    always_on = planned("dev", lambda tier: {**tier, "minReplicas": 1})
    assert gpu_usd(shipped("dev")) <= 0.3 * gpu_usd(always_on)


# The steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_the_steps_lead_from_the_baseline_to_the_expected_month(stack: str) -> None:
    forecast = shipped(stack).forecast
    before = forecast.baseline_usd
    for one in forecast.savings:
        assert one.saved_usd == pytest.approx(before - one.monthly_usd, abs=1e-6)
        assert one.saved_percent == pytest.approx(100 * one.saved_usd / before, abs=1e-6)
        assert one.cumulative_percent == pytest.approx(100 * (1 - one.monthly_usd / forecast.baseline_usd), abs=1e-6)
        before = one.monthly_usd
    assert before == pytest.approx(forecast.total.expected, abs=1e-6)


def test_the_claims_of_the_article_stand_beside_the_steps() -> None:
    claims = {one.lever: one.claimed for one in shipped("prod").forecast.savings}
    assert claims["spot nodes"] == "60 %"
    assert claims["scale to zero, hours"] == "70 %"


def test_a_prefix_hit_rate_and_a_compressed_cache_are_steps_of_their_own() -> None:
    def long_prompts(tier: dict[str, Any]) -> dict[str, Any]:
        traffic = {**tier["traffic"], "requestsPerDay": 300_000, "inputTokens": 4000, "prefixHitRate": 0.8}
        return {**tier, "traffic": traffic, "kvCacheDtype": "fp8", "gpus": ["L40S"], "minReplicas": 1,
                "slo": {"ttftMs": 4000, "tpotMs": 80}, "model": "meta-llama/Llama-3.1-8B-Instruct"}  # fmt: skip

    plan = planned("prod", long_prompts)
    hits, cache_format = step(plan, "prefix caching"), step(plan, "KV compression")
    assert hits.saved_usd > 0
    assert hits.alone_usd is not None
    assert hits.alone_usd > 0
    # Hits save prefill of 80 % of 4,000 tokens; the rest of the work stays, so no more than that share.
    assert hits.saved_percent < 80
    assert cache_format.alone_usd is not None


def test_a_lever_alone_costs_what_the_stack_without_it_costs() -> None:
    plan = shipped("prod")
    without_spot = planned("prod", capacity={"spot": False}).forecast.total.expected
    assert step(plan, "spot nodes").alone_usd == pytest.approx(without_spot - plan.forecast.total.expected, abs=0.01)
    staging = shipped("staging")
    together = planned("staging", lambda tier: {key: value for key, value in tier.items() if key != "disaggregation"})
    # Of compute: the shared store's requests are fixed costs, which no lever moves.
    compute = sum(cost.expected_usd for cost in together.forecast.tiers)
    compute -= sum(cost.expected_usd for cost in staging.forecast.tiers)
    assert step(staging, "disaggregated prefill").alone_usd == pytest.approx(compute, abs=0.01)
