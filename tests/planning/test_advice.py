"""Advice that says no. Thresholds come from published figures; amounts are checked against plans made another way."""

from __future__ import annotations

import re
from typing import Any

import pytest

from planning.advice import speculative_gain
from planning.facts.checkpoints import checkpoints
from planning.facts.gpus import gpu
from planning.facts.models import model
from planning.outputs import plan_outputs
from planning.plan import Plan
from planning.speed import ReplicaSpeed, gpu_speed
from planning.stack import plan_config
from problems import ConfigurationError

LLAMA_70B = "meta-llama/Llama-3.1-70B-Instruct"


def planned(requests_per_day: float = 200_000, **tier: Any) -> Plan:
    values = {
        "name": "only",
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "slo": {"ttftMs": 1000, "tpotMs": 80},
        "traffic": {"requestsPerDay": requests_per_day, "inputTokens": 900, "outputTokens": 150},
        **tier,
    }
    return plan_config("us-east-1", {"tiers": [values]})[1]


def said(plan: Plan, words: str) -> str:
    return next((line for line in plan.advice if words in line), "")


def amounts(line: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", line)]


def test_advice_is_among_the_warnings_of_the_outputs() -> None:
    plan = planned(gpus=["H100"])
    assert plan.advice
    assert set(plan.advice) <= set(plan_outputs(plan)["warnings"])


def replica(model_id: str, name: str, gpus: int) -> ReplicaSpeed:
    weights = next(one for one in checkpoints(model_id) if one.method in {"fp16", "mxfp4"})
    return gpu_speed(model(model_id), weights, gpu(name), gpus)


def test_speculative_decoding_gains_at_one_request_and_loses_at_many() -> None:
    # vLLM blog 2024-10, 70B on 4 H100 with a draft model: 1.5 times faster at QPS 1, 1.4 to 1.8 times slower at high
    # QPS. The blog states no running requests, so this proves only that its range lies within the engine's limits.
    speed = replica(LLAMA_70B, "H100", 4)
    assert speculative_gain(speed, 1, 500) == pytest.approx(1.5)
    gains = [speculative_gain(speed, 2**power, 500) for power in range(9)]
    assert gains == sorted(gains, reverse=True)
    assert any(1 / 1.8 <= gain <= 1 / 1.4 for gain in gains)


@pytest.mark.parametrize(
    ("model_id", "name", "gpus"),
    [
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "A100-80GB", 2),
        ("Qwen/Qwen3-30B-A3B", "H100", 1),
        ("openai/gpt-oss-120b", "H100", 1),
    ],
)
def test_drafts_of_a_mixture_of_experts_read_more_experts_and_never_gain_more_than_was_published(
    model_id: str, name: str, gpus: int
) -> None:
    """Alone, six tokens read up to six times the experts of one. No published figure of a sparse model is met."""
    speed = replica(model_id, name, gpus)
    gains = [speculative_gain(speed, running, 500) for running in range(1, 513)]
    assert max(gains) <= 1.5
    assert gains[0] < speculative_gain(replica("meta-llama/Llama-3.1-8B-Instruct", name, gpus), 1, 500)


def test_a_tier_planned_beyond_that_point_is_told_so_with_its_own_concurrency() -> None:
    busy = planned(gpus=["H100"])
    line = said(busy, "no speculative decoding")
    assert f"at the {busy.tiers[0].serving.concurrency:.0f} requests" in line
    strict = planned(gpus=["T4"], slo={"ttftMs": 2000, "tpotMs": 45})
    assert strict.tiers[0].serving.concurrency < 5
    assert not said(strict, "speculative")


def test_an_fp8_cache_is_refused_to_an_a10g_with_the_price_of_a_gpu_that_can() -> None:
    plan = planned(gpus=["A10G", "L40S", "RTX-PRO-6000", "H100"])
    assert plan.tiers[0].gpu == "A10G"
    line = said(plan, "no fp8 KV cache")
    able = planned(gpus=["L40S", "RTX-PRO-6000", "H100"]).forecast.tiers[0].expected_usd
    assert f"{able:,.0f} USD a month instead of {plan.forecast.tiers[0].expected_usd:,.0f}" in line
    assert "needs compute capability 8.9, the A10G has 8.6" in line
    assert not said(planned(gpus=["L40S"]), "fp8 KV cache")


def test_an_fp8_cache_that_saves_nothing_is_called_so_with_both_months() -> None:
    plan = planned(requests_per_day=2000, kvCacheDtype="fp8", minReplicas=1)
    without = planned(requests_per_day=2000, minReplicas=1).forecast.tiers[0].expected_usd
    line = said(plan, "the fp8 KV cache saves nothing")
    assert f"{without:,.0f} USD" in line
    assert f"instead of {plan.forecast.tiers[0].expected_usd:,.0f}" in line


def test_4_bit_on_an_h100_that_has_room_for_8_bit_is_slower_when_busy() -> None:
    # GPUStack, Qwen3-8B on H100: FP8 +27 % tokens a second, INT4 weight-only +2 % at most.
    line = said(planned(gpus=["H100"], quantization="w4a16"), "no w4a16 on the H100")
    eight_bit, four_bit = (value for value in amounts(line) if value > 1000)
    assert eight_bit > 1.2 * four_bit
    assert not said(planned(gpus=["H100"], quantization="fp8"), "has room for")


def test_4_bit_that_makes_the_model_fit_is_not_spoken_against() -> None:
    slow = {"ttftMs": 4000, "tpotMs": 200}
    plan = planned(requests_per_day=1000, model=LLAMA_70B, gpus=["L40S"], quantization="w4a16", slo=slow)
    assert plan.tiers[0].gpus_per_replica == 1
    assert not said(plan, "has room for")


def test_an_api_bills_prompts_and_answers_at_their_own_prices() -> None:
    cost = planned(apiUsdPerMillionTokens={"input": 1, "output": 3}).forecast.tiers[0]
    a_month = 365 / 12 * 200_000
    assert cost.api_usd == pytest.approx(a_month * (900 * 1 + 150 * 3) / 1e6)


def test_a_dearer_api_is_no_warning_and_its_break_even_lies_below_todays_traffic() -> None:
    plan = planned(apiUsdPerMillionTokens={"input": 1, "output": 3})
    even = plan.forecast.tiers[0].break_even_requests_per_day
    assert even is not None
    assert even < 200_000
    assert not said(plan, "the API is cheaper")


def test_from_the_break_even_on_self_hosting_costs_no_more_than_the_api() -> None:
    even = planned(apiUsdPerMillionTokens={"input": 1, "output": 3}).forecast.tiers[0].break_even_requests_per_day
    assert even is not None
    at_even = planned(requests_per_day=even, apiUsdPerMillionTokens={"input": 1, "output": 3}).forecast
    # The break-even is that of the planned fleet; the one planned for that traffic may be another and cheaper one.
    assert at_even.tiers[0].api_usd is not None
    assert at_even.total.expected < 1.02 * at_even.tiers[0].api_usd


def test_a_cheaper_api_is_said_with_both_months_and_the_break_even() -> None:
    plan = planned(apiUsdPerMillionTokens={"input": 0.06, "output": 0.1})
    line = said(plan, "the API is cheaper")
    cost = plan.forecast.tiers[0]
    assert cost.api_usd is not None
    assert cost.break_even_requests_per_day is not None
    assert f"{cost.api_usd:,.0f} USD a month at the prices given, {plan.forecast.total.expected:,.0f} here" in line
    assert f"pays from {cost.break_even_requests_per_day:,.0f} requests a day" in line
    output = plan_outputs(plan)["projectedCostByTier"]["only"]
    assert (output["apiUsd"], output["breakEvenRequestsPerDay"]) == (
        round(cost.api_usd, 2),
        round(cost.break_even_requests_per_day),
    )


def test_an_api_below_the_price_of_a_full_replica_never_lets_you_win() -> None:
    plan = planned(apiUsdPerMillionTokens={"input": 0.001, "output": 0.001})
    assert plan.forecast.tiers[0].break_even_requests_per_day is None
    assert "never pays" in said(plan, "the API is cheaper")


def test_without_prices_or_without_traffic_nothing_is_compared() -> None:
    for plan in (planned(), planned(requests_per_day=0, apiUsdPerMillionTokens={"input": 1, "output": 3})):
        assert plan.forecast.tiers[0].api_usd is None
        assert plan_outputs(plan)["projectedCostByTier"]["only"]["breakEvenRequestsPerDay"] is None


@pytest.mark.parametrize("price", [{"input": -1, "output": 1}, {"input": 1}, 0.5])
def test_prices_are_two_and_not_negative(price: object) -> None:
    with pytest.raises(ConfigurationError, match="apiUsdPerMillionTokens"):
        planned(apiUsdPerMillionTokens=price)


def test_a_quality_limit_that_costs_money_says_how_much() -> None:
    plan = planned(maxQualityLossPercent=0)
    assert "int8 on 1 x T4" in said(plan, "the accepted quality loss rules out")
    assert not said(planned(), "the accepted quality loss")
