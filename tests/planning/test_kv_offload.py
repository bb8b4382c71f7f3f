"""The KV store in host memory: free where nodes have memory to spare, and paid for where it is asked for.

Not proven here: how many prompts it answers, and that pinning it takes as long on every node as on the one measured.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from planning.facts.instances import instance_type
from planning.facts.models import model
from planning.kv_offload import keeps_whole_context
from planning.options import DAEMON_MEMORY_GIB
from planning.plan import Plan
from planning.stack import plan_config
from planning.stackfile import read_stack

ROOT = Path(__file__).resolve().parents[2]


def planned(hits: float = 0.0, **changes: Any) -> Plan:
    """The prod stack's larger tier, whose one GPU of 96 GB stands in a node of 64 GiB."""
    read = read_stack(ROOT / "Pulumi.prod.yaml")
    values = copy.deepcopy(dict(read.values))
    tiers: Any = values["tiers"]
    tier = {**tiers[1], **changes}
    tier["traffic"] = {**tier["traffic"], "prefixHitRate": hits}
    return plan_config(read.region, {**values, "tiers": [tier], "routing": {}, "budget": {}}, read.encrypted)[1]


def store_gib(plan: Plan) -> float:
    limits = plan.tiers[0].vllm
    assert limits is not None
    return limits.kv_offload_gib


def least_memory_gib(plan: Plan) -> float:
    return min(instance_type(name).allocatable_memory_gib for name in plan.tiers[0].instance_types)


def test_where_prompts_come_again_memory_that_the_nodes_have_anyway_holds_their_cache() -> None:
    free, none = planned(hits=0.3), planned(hits=0.3, kvOffloadGib=0)
    assert store_gib(free) > 30
    assert free.forecast.total.expected == none.forecast.total.expected
    assert free.tiers[0].instance_types == none.tiers[0].instance_types


def test_the_pod_asks_for_the_stores_memory_and_still_fits_the_smallest_node() -> None:
    free, none = planned(hits=0.3).tiers[0].resources, planned(hits=0.3, kvOffloadGib=0).tiers[0].resources
    store = store_gib(planned(hits=0.3))
    assert free.memory_gib == none.memory_gib + store
    assert free.shm_gib == none.shm_gib + store
    assert free.memory_gib + DAEMON_MEMORY_GIB <= least_memory_gib(planned(hits=0.3))


def test_where_no_prompt_comes_again_there_is_no_store() -> None:
    assert store_gib(planned()) == 0


def test_a_store_smaller_than_the_gpus_own_cache_is_not_worth_a_start() -> None:
    """vLLM copies every block to it, so it would know nothing that the GPUs have forgotten."""
    small = planned(hits=0.3, model="meta-llama/Llama-3.1-8B-Instruct", gpus=["RTX-PRO-6000"])
    least = least_memory_gib(small)
    assert least > 50
    assert store_gib(small) == 0, "the small model leaves most of 96 GB to the GPU's own cache"


def test_a_store_that_is_asked_for_takes_the_nodes_that_have_room_and_the_plan_says_what_that_costs() -> None:
    asked, free = planned(kvOffloadGib=100), planned()
    assert store_gib(asked) == 100
    assert least_memory_gib(asked) >= asked.tiers[0].resources.memory_gib + DAEMON_MEMORY_GIB
    assert asked.forecast.total.expected > free.forecast.total.expected
    (said,) = [text for text in asked.advice if "kvOffloadGib 100" in text]
    assert f"instead of {free.forecast.tiers[0].expected_usd:,.0f}" in said


def test_what_a_store_costs_is_a_step_of_its_own_and_not_part_of_another_lever() -> None:
    asked, free = planned(kvOffloadGib=100).forecast, planned().forecast
    step = next(one for one in asked.savings if one.lever == "prefix caching")
    assert step.saved_usd == pytest.approx(free.total.expected - asked.total.expected)
    spot, without = (next(one for one in each.savings if one.lever == "spot nodes") for each in (asked, free))
    assert spot.monthly_usd == pytest.approx(without.monthly_usd)


def test_a_store_that_fits_the_planned_nodes_anyway_costs_nothing_and_nothing_is_said() -> None:
    asked, free = planned(kvOffloadGib=20), planned()
    # But for the seconds longer that an interruption's start takes.
    assert asked.forecast.total.expected == pytest.approx(free.forecast.total.expected, abs=0.01)
    assert not any("kvOffloadGib" in text for text in asked.advice)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", True),
        ("Qwen/Qwen3-32B", True),
        ("openai/gpt-oss-120b", False),  # half of its layers keep a window of 128 tokens
    ],
)
def test_models_whose_layers_forget_get_no_store_unasked(name: str, whole: bool) -> None:
    assert keeps_whole_context(model(name)) is whole


def test_a_store_delays_the_planned_start_by_what_vllm_takes_to_pin_it() -> None:
    # 55.4 s for 512 GiB, vllm-project/vllm pull request 51081; time-outs are whole seconds.
    none, large = (planned(kvOffloadGib=gib, gpus=["L40S"]).tiers[0] for gib in (0, 512))
    assert none.checkpoint == large.checkpoint
    assert large.timeouts.cold_start_s - none.timeouts.cold_start_s == pytest.approx(55.4, abs=1)
    free, off = planned(hits=0.3), planned(hits=0.3, kvOffloadGib=0)
    taken = free.tiers[0].timeouts.cold_start_s - off.tiers[0].timeouts.cold_start_s
    assert taken == pytest.approx(store_gib(free) * 55.4 / 512, abs=1), "also one that nobody asked for"


def test_a_shared_store_behind_the_hosts_delays_no_start() -> None:
    stores = [
        {"enabled": True, "insist": True, "sharedStore": store, **({"sharedClaim": "kv"} if store == "file" else {})}
        for store in ("none", "s3", "file")
    ]
    starts = [planned(disaggregation=store).tiers[0].timeouts.cold_start_s for store in stores]
    assert len(set(starts)) == 1
    together = planned(kvOffloadGib=0).tiers[0].timeouts.cold_start_s
    assert starts[0] - together == pytest.approx(32 * 55.4 / 512, abs=1), "their 32 GiB of host memory do"
