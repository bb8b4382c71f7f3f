"""Which quantisation is chosen, and how much quality the settings let it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from planning.plan import Plan
from planning.stack import plan_config
from planning.stackfile import read_stack
from problems import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"
LOOSE = {"ttftMs": 60000, "tpotMs": 200}
TRICKLE = {"requestsPerDay": 50, "inputTokens": 300, "outputTokens": 100}


def planned(**tier: Any) -> Plan:
    values = {
        "name": "only",
        "model": LLAMA_8B,
        "slo": {"ttftMs": 1000, "tpotMs": 80},
        "traffic": {"requestsPerDay": 20000, "inputTokens": 900, "outputTokens": 150},
        **tier,
    }
    return plan_config("us-east-1", {"tiers": [values]})[1]


def refused(**tier: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        planned(**tier)
    return str(raised.value)


@pytest.mark.parametrize("percent", [0.0, 0.5, 1.0, 3.0])
def test_auto_never_loses_more_than_accepted(percent: float) -> None:
    assert planned(maxQualityLossPercent=percent).tiers[0].checkpoint.quality_loss_percent <= percent


def test_by_default_4_bit_of_an_8b_may_be_chosen_and_nothing_above_three_percent() -> None:
    busy = {"requestsPerDay": 400000, "inputTokens": 900, "outputTokens": 150}
    plan = planned(gpus=["T4"], traffic=busy)
    shown = " ".join([plan.tiers[0].checkpoint.method, *(other.description for other in plan.alternatives)])
    assert "w4a16" in shown
    assert "awq" not in shown  # 3.2 % on models of this size


def test_a_method_asked_for_by_name_is_taken_unless_a_limit_is_set() -> None:
    assert planned(quantization="awq").tiers[0].checkpoint.method == "awq"
    message = refused(quantization="awq", maxQualityLossPercent=1)
    assert "frugal-llm:tiers[0].maxQualityLossPercent is 1" in message
    assert "awq of meta-llama/Llama-3.1-8B-Instruct is expected to lose 3.2 %, 2.2 points more" in message
    assert "choose quantization fp16 or fp8" in message
    assert "or accept 3.2" in message


def test_the_loss_of_an_fp8_cache_counts_too() -> None:
    message = refused(quantization="fp16", kvCacheDtype="fp8", maxQualityLossPercent=0, gpus=["L40S"])
    assert "fp16 with a fp8 KV cache" in message
    assert "leave kvCacheDtype out" in message


@pytest.mark.parametrize("percent", [-1, 101, "much", True])
def test_a_limit_is_a_percentage(percent: object) -> None:
    assert "frugal-llm:tiers[0].maxQualityLossPercent" in refused(maxQualityLossPercent=percent)


def test_auto_takes_a_cpu_for_a_small_tier_that_can_wait_and_says_how_thin_its_speed_is_known() -> None:
    plan = planned(slo=LOOSE, traffic=TRICKLE)
    assert plan.tiers[0].engine == "llama.cpp"
    (warning,) = (warning for warning in plan.warnings if "speed on CPUs is thinly measured" in warning)
    # SOURCES.md: every published run has one sequence; the bandwidth's fit has one model.
    assert "runs of one sequence" in warning
    assert "one model (Llama-3.1-8B on Graviton4)" in warning


@pytest.mark.parametrize(
    "needs",
    [
        {"gpus": ["T4"]},
        {"kvCacheDtype": "fp8"},
        {"kvOffloadGib": 8},
        {"disaggregation": {"enabled": True, "insist": True}},
    ],
)
def test_auto_stays_on_gpus_where_the_tier_asks_for_what_only_they_have(needs: dict[str, Any]) -> None:
    assert planned(slo=LOOSE, traffic=TRICKLE, **needs).tiers[0].engine == "vllm"


def test_a_cpu_is_no_candidate_for_a_target_it_cannot_meet() -> None:
    assert planned(slo={"ttftMs": 500, "tpotMs": 30}, traffic=TRICKLE).tiers[0].engine == "vllm"


def test_the_shipped_stacks_choose_no_cpu_that_they_did_not_ask_for() -> None:
    for stack in ("dev", "staging", "prod"):
        read = read_stack(ROOT / f"Pulumi.{stack}.yaml")
        settings, plan = plan_config(read.region, read.values, read.encrypted)
        for tier, chosen in zip(settings.tiers, plan.tiers, strict=True):
            assert (chosen.engine == "llama.cpp") is (tier.quantization == "gguf")
