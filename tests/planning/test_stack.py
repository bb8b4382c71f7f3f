"""The plan of whole stacks: the shipped ones, broken ones, and what must hold for any."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from planning.facts.instances import instance_type
from planning.outputs import alternatives, plan_outputs
from planning.plan import Plan
from planning.stack import plan_config
from planning.stackfile import read_stack
from problems import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
STACKS = ("dev", "staging", "prod")


def config(stack: str) -> tuple[str | None, dict[str, Any]]:
    read = read_stack(ROOT / f"Pulumi.{stack}.yaml")
    return read.region, copy.deepcopy(dict(read.values))


def planned(stack: str, region: str | None = None, **changes: Any) -> Plan:
    own_region, values = config(stack)
    return plan_config(region or own_region, {**values, **changes})[1]


def problems(region: str = "us-east-1", **changes: Any) -> str:
    _, values = config("prod")
    with pytest.raises(ConfigurationError) as raised:
        plan_config(region, {**values, **changes})
    return str(raised.value)


def tiers(stack: str, **changes: Any) -> list[dict[str, Any]]:
    return [{**tier, **changes} for tier in config(stack)[1]["tiers"]]


@pytest.fixture(scope="module", params=STACKS)
def plan(request: pytest.FixtureRequest) -> Plan:
    return planned(request.param)


def test_prod_is_a_bill_of_about_twenty_thousand_that_shrinks_below_a_fifth() -> None:
    forecast = planned("prod").forecast
    assert 18_000 <= forecast.baseline_usd <= 22_000
    assert forecast.total.expected <= 0.2 * forecast.baseline_usd
    assert {what_if.name for what_if in forecast.what_ifs} == {"one replica at least", "TPOT 50 ms"}


def test_prod_keeps_two_replicas_of_each_tier_in_plan_and_baseline() -> None:
    plan = planned("prod")
    assert [tier.replicas.minimum for tier in plan.tiers] == [2, 2]
    assert "2 x" in plan.forecast.baseline_description or "3 x" in plan.forecast.baseline_description


def test_the_steps_of_the_waterfall_add_up(plan: Plan) -> None:
    forecast = plan.forecast
    saved = sum(step.saved_usd for step in forecast.savings)
    assert saved == pytest.approx(forecast.baseline_usd - forecast.total.expected, abs=0.01)
    assert forecast.savings[-1].monthly_usd == pytest.approx(forecast.total.expected)
    assert [step.lever for step in forecast.savings][:6] == [
        "spot nodes",
        "quantisation",
        "engine limits",
        "tier routing",
        "autoscaling 1 to N",
        "scale to zero, hours",
    ]


def test_right_sizing_saves_nothing_again_and_says_what_the_articles_gpus_would_cost(plan: Plan) -> None:
    steps = plan.forecast.savings
    step = steps[6]
    assert step.lever == "right-sizing"
    assert (step.saved_usd, step.monthly_usd) == (0, steps[5].monthly_usd)
    assert step.alone_usd is not None
    assert step.alone_usd > 0


def test_right_sizing_alone_is_the_month_planned_on_an_l4_and_on_40_gb_a100s() -> None:
    _, values = config("prod")
    small, large = values["tiers"]
    articles = [{**small, "gpus": ["L4"]}, {**large, "gpus": ["A100-40GB"]}]
    forecast = planned("prod").forecast
    on_them = planned("prod", tiers=articles, budget={}).forecast
    compute = sum(tier.expected_usd for tier in on_them.tiers) - sum(tier.expected_usd for tier in forecast.tiers)
    assert forecast.savings[6].alone_usd == pytest.approx(compute, abs=0.01)


def test_the_items_of_the_bill_add_up_to_the_expected_month(plan: Plan) -> None:
    assert sum(item.usd for item in plan.forecast.items) == pytest.approx(plan.forecast.total.expected, abs=0.01)


def test_the_range_holds_the_expectation_and_is_no_sum_of_all_worsts(plan: Plan) -> None:
    total, drivers = plan.forecast.total, plan.forecast.drivers
    assert total.low <= total.expected <= total.high
    assert total.high - total.expected <= sum(driver.high_usd for driver in drivers) + 0.01
    spread = [driver.high_usd - driver.low_usd for driver in drivers]
    assert spread == sorted(spread, reverse=True)


def test_a_million_tokens_are_those_of_prompts_and_answers() -> None:
    cost = planned("prod").forecast.tiers[0]
    # 36,000 requests a day of 900 + 150 tokens, in 730 hours.
    assert cost.million_tokens == pytest.approx(36_000 * 1050 * 730 / 24 / 1e6)
    assert cost.usd_per_million_tokens == pytest.approx(cost.expected_usd / cost.million_tokens)


def test_the_ranked_choices_name_the_pool_with_prices_and_the_reason_of_each_loser(plan: Plan) -> None:
    choices = alternatives(plan)
    for tier in plan.tiers:
        types = choices[tier.name]["instanceTypes"]
        assert [entry["instanceType"] for entry in types] == list(tier.instance_types)
        spots = [entry["spotUsdPerHour"] for entry in types if entry["spotUsdPerHour"] is not None]
        assert spots == sorted(spots)
        lost = choices[tier.name]["notChosen"]
        assert all(entry["reason"] for entry in lost)
        assert any(entry["monthlyUsd"] is not None for entry in lost)
        assert any(entry["monthlyUsd"] is None for entry in lost)


def test_a_floor_that_is_never_built_is_refused() -> None:
    tier = {**tiers("prod")[0], "onDemandFloor": 1, "disaggregation": {"enabled": True}}
    assert "onDemandFloor is 1: needs prefill and decode together: apart they have no floor" in problems(
        tiers=[tier], routing={}
    )


def test_every_tier_meets_its_target_on_every_type_of_its_pool(plan: Plan) -> None:
    for tier in plan.tiers:
        assert tier.serving.ttft_ms <= tier.ttft_target_ms
        assert tier.serving.tpot_ms <= tier.tpot_target_ms
        pool = next(pool for pool in plan.node_pools if pool.name == tier.node_pool)
        assert pool.instance_types == tier.instance_types
        assert pool.gpu_count == tier.gpus_per_replica
        assert not any(name.startswith(("g6f", "gr6f", "g7.")) for name in pool.instance_types)


def test_only_the_quantised_checkpoint_that_exists_is_planned() -> None:
    for stack in STACKS:
        for tier in planned(stack).tiers:
            assert "TheBloke/Llama-3.1" not in tier.checkpoint.repository
            assert tier.checkpoint.repository.count("/") == 1


def test_a_p4d_is_never_taken_for_an_80_gb_a100() -> None:
    fp16_70b = tiers("prod", quantization="fp16", gpus=["A100-80GB"])[1:]
    types = planned("prod", tiers=fp16_70b, routing={}, budget={}).tiers[0].instance_types
    assert types == ("p4de.24xlarge",)


def test_a_replica_of_one_gpu_never_lands_on_a_node_of_four(plan: Plan) -> None:
    for pool in plan.node_pools:
        if pool.gpu_count == 1:
            assert not any(name.endswith(("12xlarge", "24xlarge", "48xlarge")) for name in pool.instance_types)


def test_a_disaggregated_tier_that_does_not_pay_says_so() -> None:
    plan = planned("staging")
    apart = plan.tier("quality").disaggregation
    assert apart is not None
    assert not apart.pays
    assert any(
        "does not pay at this load, and is on because the settings insist" in warning for warning in plan.warnings
    )
    assert plan.forecast.savings[-1].lever == "disaggregated prefill"


def test_prefill_and_decode_apart_are_refused_where_together_is_cheaper_unless_the_settings_insist() -> None:
    tier = {**tiers("prod")[0], "disaggregation": {"enabled": True}}
    refusal = problems(tiers=[tier], routing={})
    figures = re.search(r"apart cost ([\d,]+) USD a month, together ([\d,]+): it does not pay at this load", refusal)
    assert figures
    apart_usd, together_usd = (float(figure.replace(",", "")) for figure in figures.groups())
    assert apart_usd > together_usd
    assert "frugal-llm:tiers[0].disaggregation.enabled is true" in refusal
    assert "insist: true" in refusal
    insisting = {**tier, "disaggregation": {"enabled": True, "insist": True}}
    assert planned("prod", tiers=[insisting], routing={}).forecast.tiers[0].expected_usd == pytest.approx(
        apart_usd, abs=1
    )


def test_prefill_and_decode_apart_need_no_insistence_where_that_is_cheaper() -> None:
    # Long prompts at a rate that keeps many replicas of both roles busy, and a TPOT that prefills would break.
    tier = {
        "name": "long",
        "model": "meta-llama/Llama-3.1-70B-Instruct",
        "slo": {"ttftMs": 6000, "tpotMs": 40},
        "traffic": {"requestsPerDay": 1_000_000, "inputTokens": 6000, "outputTokens": 300},
        "gpus": ["H100"],
        "disaggregation": {"enabled": True},
    }
    plan = planned("prod", tiers=[tier], routing={}, budget={})
    apart = plan.tiers[0].disaggregation
    assert apart is not None
    assert apart.pays
    assert apart.verdict.endswith("it pays")
    # Its one type, p5.48xlarge, has 32 adapters; of staging's types some have none.
    assert apart.efa_interfaces == 32
    assert plan.uses_efa
    assert any("in one zone, which EFA does not leave" in warning for warning in plan.warnings)
    over_tcp = planned(
        "prod", tiers=[{**tier, "disaggregation": {"enabled": True, "efa": False}}], routing={}, budget={}
    )
    assert not over_tcp.uses_efa
    assert not planned("staging").uses_efa


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tiers": tiers("prod", model="meta-llama/Llama-3.1-8b")}, "did you mean meta-llama/Llama-3.1-8B-Instruct"),
        (
            {"tiers": tiers("prod", quantization="nvfp4")},
            "no nvfp4 checkpoint of meta-llama/Llama-3.1-8B-Instruct is known",
        ),
        ({"tiers": tiers("prod", slo={"ttftMs": 1, "tpotMs": 80})}, "the nearest target that works is {ttftMs:"),
        ({"tiers": tiers("prod", gpus=["L5"])}, "frugal-llm:tiers[0].gpus[0] is 'L5': no such GPU; did you mean L4"),
        ({"tiers": tiers("prod", maxModelLen=200_000)}, "was trained for 131072 tokens"),
        ({"region": "us-east1"}, "aws:region is 'us-east1': no prices of this region; did you mean us-east-1"),
        (
            {"region": "eu-west-1", "tiers": tiers("prod", gpus=["L4"])},
            "is not offered in this region; it has A100-40GB",
        ),
        ({"budget": {"monthlyUsd": 700}}, "frugal-llm:budget.monthlyUsd is 700: the cheapest plan is projected at"),
        ({"capacity": {"excludedInstanceTypes": ["g6.xxlarge"]}}, "no such instance type; did you mean g6.xlarge"),
        ({"network": {"zones": ["us-east-1a", "eu-west-1b"]}}, "is no zone of us-east-1"),
        ({"network": {"zones": [f"us-east-1{letter}" for letter in "abcd"]}}, "at most 3 different zones"),
        ({"network": {"zones": ["us-east-1a", "us-east-1a", "us-east-1b"]}}, "name each zone once"),
    ],
)
def test_a_name_or_wish_that_cannot_be_met_ends_with_the_way_out(changes: dict[str, Any], expected: str) -> None:
    assert expected in problems(**changes)


EVERYTHING_WRONG: dict[str, Any] = {
    "buget": {"monthlyUsd": 100},
    "apiKey": "sk-123",
    "network": {"certificateArn": "arn:aws:acm:eu-west-1:111122223333:certificate/0123abcd"},
    "schedule": {"workingHours": {"start": "0 8 31 2 *", "end": "0 18 * * 1-5"}},
    "scaling": {"idleCooldownMinutes": 2, "graceSeconds": 300},
}


def paths(region: str | None, values: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        plan_config(region, values, encrypted=frozenset())
    return [problem.path.removeprefix("frugal-llm:") for problem in raised.value.problems]


@pytest.mark.parametrize("second", [{}, {"quantisation": "fp8", "onDemandFloor": 9}])
def test_what_is_wrong_in_settings_names_and_plan_comes_in_one_message(second: dict[str, Any]) -> None:
    fast = {**tiers("prod")[0], "maxModelLen": 200_000}
    other = {**tiers("prod")[0], "name": "other", "maxModelLen": 200_000, **second}
    found = paths("us-east-1", {**EVERYTHING_WRONG, "tiers": [fast, other]})
    assert found == [
        "apiKey",
        "buget",
        "network.certificateArn",
        "scaling.graceSeconds",
        "scaling.idleCooldownMinutes",
        "schedule.workingHours.start",
        "tiers[0].maxModelLen",
        "tiers[1].maxModelLen",
        *(["tiers[1].onDemandFloor", "tiers[1].quantisation"] if second else []),
    ]


def test_names_in_a_tier_are_looked_up_although_no_tier_is_sound() -> None:
    broken = {**tiers("prod")[0], "slo": {"ttftMs": "soon"}, "gpus": ["L5"], "maxModelLen": 200_000}
    assert paths("us-east-1", {"tiers": [broken]}) == [
        "tiers[0].gpus[0]",
        "tiers[0].maxModelLen",
        "tiers[0].slo.tpotMs",
        "tiers[0].slo.ttftMs",
    ]


def test_nothing_is_concluded_from_a_default_that_stands_for_a_broken_setting() -> None:
    apart = {**tiers("prod")[1], "disaggregation": {"enabled": True}}
    assert paths("us-east-1", {"tiers": [apart], "routing": {}}) == ["tiers[0].disaggregation.enabled"]
    # On-demand it may pay, and take its time to stop.
    unsure = {"tiers": [apart], "capacity": {"spot": "off"}, "scaling": {"graceSeconds": 300}}
    assert paths("us-east-1", unsure) == ["capacity.spot"]


KEY_ARN = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OWN_VPC: dict[str, Any] = {
    "vpcId": "vpc-0123456789abcdef0",
    "vpcCidr": "10.0.0.0/16",
    "zones": ["us-east-1a", "us-east-1b"],
    "privateSubnetIds": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
}
IN_ZONES: dict[str, Any] = {"cluster": {"secretsKeyArn": KEY_ARN}, "network": {"zones": ["us-east-1a", "us-east-1b"]}}
BATCHES = {
    "requestsPerDay": 1000,
    "inputTokens": 900,
    "outputTokens": 150,
    "profile": "batch-window",
    "peakOverMean": 4,
}
ON_DEMAND_ONLY = {"scaling": {"graceSeconds": 300}}


@pytest.mark.parametrize(
    ("region", "changes", "expected"),
    [
        ("us-east-1", {**ON_DEMAND_ONLY, "capcity": {"spot": False}}, ["capcity"]),
        ("us-east-1", {**ON_DEMAND_ONLY, "capacity": ["spot"]}, ["capacity"]),
        (
            "us-east-1",
            {**ON_DEMAND_ONLY, "capacity": {"spot": False, "excludedInstanceTypes": [5, 6]}},
            ["capacity.excludedInstanceTypes[0]", "capacity.excludedInstanceTypes[1]"],
        ),
        ("us-east-1", {"network": {**OWN_VPC, "zones": "us-east-1a"}}, ["network.zones"]),
        ("us-east-1", {"network": {**OWN_VPC, "vpcCidr": "10.0.0.0.0/16"}}, ["network.vpcCidr"]),
        (
            "us-east-1",
            {"cluster": {"kubernetesVersion": 1.34}, "capacity": {"amiAlias": "al2023@v20250519"}},
            ["cluster.kubernetesVersion"],
        ),
        (None, IN_ZONES, ["aws:region"]),
        ("us-east1", IN_ZONES, ["aws:region"]),
        (
            "us-east-1",
            {"tiers": [{**tiers("prod")[0], "model": "me/mine", "architecture": 5}], "routing": {}},
            ["tiers[0].architecture"],
        ),
        (
            "us-east-1",
            {
                "schedule": {"workingHours": {"start": "8 am"}},
                "tiers": [{**tiers("prod")[0], "traffic": BATCHES}],
                "routing": {},
            },
            ["schedule.workingHours.start"],
        ),
    ],
)
def test_a_mistake_is_told_without_what_only_seems_to_follow_from_it(
    region: str | None, changes: dict[str, Any], expected: list[str]
) -> None:
    assert paths(region, {**config("prod")[1], **changes}) == expected


@pytest.mark.parametrize("none", [{}, {"tiers": []}, {"tiers": 5}])
def test_a_stack_without_tiers_is_told_so_and_nothing_else(none: dict[str, Any]) -> None:
    assert paths("us-east-1", none) == ["tiers"]


def test_zones_are_looked_at_beside_another_mistake_of_the_network() -> None:
    network = {"oidc": {"issuer": "x"}, "ingressScheme": "internet-facing", "zones": ["us-east-1a", "us-east-1a"]}
    found = paths("us-east-1", {**config("prod")[1], "network": network})
    assert {"network.ingressScheme", "network.zones", "network.oidc.issuer"} <= set(found)


def test_a_budget_is_held_against_the_stack_beside_a_setting_that_does_not_exist() -> None:
    region, values = config("prod")
    assert paths(region, {**values, "budget": {"monthlyUsd": 700}, "foo": 1}) == ["budget.monthlyUsd", "foo"]


def test_a_budget_is_held_against_the_stack_beside_problems_that_do_not_change_its_bill() -> None:
    region, values = config("prod")
    over = {**values, "budget": {"monthlyUsd": 700}, "network": EVERYTHING_WRONG["network"]}
    assert paths(region, over) == ["budget.monthlyUsd", "network.certificateArn"]
    # With a tier left out the bill is another.
    assert paths(region, {**over, "tiers": [*over["tiers"], {"name": "x"}]})[0] == "network.certificateArn"


def test_a_gguf_tier_with_prefill_and_decode_apart_is_told_which_checkpoints_can() -> None:
    tier = {**tiers("prod")[0], "quantization": "gguf", "disaggregation": {"enabled": True}}
    message = problems(tiers=[tier], routing={})
    assert "frugal-llm:tiers[0].disaggregation.enabled is true: GGUF is run by llama.cpp" in message
    assert "leave disaggregation out, or choose quantization auto or" in message
    for method in ("awq", "fp16", "fp8"):
        assert re.search(rf"auto or .*\b{method}\b", message)


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"gpus": ["L4"], "kvOffloadGib": 900}, "kvOffloadGib"),
        (
            {"gpus": ["L4"], "disaggregation": {"enabled": True, "insist": True, "kvStoreGib": 900}},
            "disaggregation.kvStoreGib",
        ),
    ],
)
def test_a_kv_store_beyond_every_node_is_told_the_largest_that_fits(change: dict[str, Any], setting: str) -> None:
    tier = {**tiers("prod")[0], "minReplicas": 1, **change}
    found = re.search(rf"tiers\[0\]\.{setting} is 900: .*; at most (\d+) fits", problems(tiers=[tier], routing={}))
    assert found
    most = int(found[1])

    def with_store(gib: int) -> list[dict[str, Any]]:
        if setting == "kvOffloadGib":
            return [{**tier, "kvOffloadGib": gib}]
        return [{**tier, "disaggregation": {"enabled": True, "insist": True, "kvStoreGib": gib}}]

    assert planned("prod", tiers=with_store(most), routing={}, budget={})
    assert f"at most {most} fits" in problems(tiers=with_store(most + 1), routing={}, budget={})


@pytest.mark.parametrize(
    ("model", "slo"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", {"ttftMs": 1000, "tpotMs": 5}),
        ("meta-llama/Llama-3.1-70B-Instruct", {"ttftMs": 20, "tpotMs": 5}),
        ("meta-llama/Llama-3.1-8B-Instruct", {"ttftMs": 1, "tpotMs": 80}),
        ("Qwen/Qwen3-235B-A22B", {"ttftMs": 1000, "tpotMs": 1}),
    ],
)
@pytest.mark.parametrize("burstiness", [1, 8])
def test_the_suggested_target_really_works(model: str, slo: dict[str, float], burstiness: float) -> None:
    tier = tiers("prod")[0]
    tier = {**tier, "model": model, "slo": slo, "traffic": {**tier["traffic"], "burstiness": burstiness}}
    message = problems(tiers=[tier], routing={})
    found = re.search(r"nearest target that works is \{ttftMs: ([\d.]+), tpotMs: ([\d.]+)\}", message)
    assert found
    suggested = {"ttftMs": float(found[1]), "tpotMs": float(found[2])}
    plan = planned("prod", tiers=[{**tier, "slo": suggested}], routing={}, budget={})
    assert plan.tiers[0].serving.tpot_ms <= suggested["tpotMs"]


def test_a_target_that_only_prefix_hits_meet_has_a_baseline_with_them() -> None:
    traffic = {"requestsPerDay": 1000, "inputTokens": 4000, "outputTokens": 150, "prefixHitRate": 0.9}
    tier = {**tiers("prod")[0], "model": "Qwen/Qwen3-32B", "gpus": ["L40S"], "traffic": traffic}
    plan = planned("prod", tiers=[{**tier, "slo": {"ttftMs": 250, "tpotMs": 60}}], routing={}, budget={})
    assert any("without prefix_caching" in warning for warning in plan.warnings)


def test_without_fallback_a_region_whose_spot_is_full_is_planned_all_the_same() -> None:
    capacity = {"onDemandFallback": False}
    tier = {**tiers("prod")[0], "minReplicas": 0, "slo": {"ttftMs": 2000, "tpotMs": 100}}
    plan = planned("prod", region="ap-southeast-1", tiers=[tier], capacity=capacity, routing={}, budget={})
    assert plan.forecast.total.expected > 0


def test_replicas_beyond_the_maximum_are_neither_priced_nor_promised() -> None:
    traffic = {"requestsPerDay": 2_000_000, "inputTokens": 900, "outputTokens": 150}
    busy = {**tiers("prod")[0], "traffic": traffic, "minReplicas": 1}
    free = planned("prod", tiers=[busy], routing={}, budget={})
    held = planned("prod", tiers=[{**busy, "maxReplicas": 1}], routing={}, budget={})
    assert held.forecast.tiers[0].expected_usd < free.forecast.tiers[0].expected_usd
    assert any("maxReplicas 1 is below" in warning for warning in held.warnings)


def test_a_tier_that_sleeps_at_night_starts_every_working_day() -> None:
    items = {item.name: item.basis for item in planned("dev").forecast.items}
    # 5 mornings in each of 730 / 168 weeks.
    assert items["fast: images through NAT"].startswith("21.7 starts")


def test_nodes_of_a_disaggregated_tier_have_room_for_its_kv_store() -> None:
    tier = {**tiers("prod")[0], "minReplicas": 0, "disaggregation": {"enabled": True, "insist": True, "kvStoreGib": 32}}
    plan = planned("prod", tiers=[tier], routing={}, budget={}).tiers[0]
    least = min(instance_type(name).allocatable_memory_gib for name in plan.instance_types)
    assert least >= plan.resources.memory_gib + 32


def test_every_instance_type_stands_once_in_its_pool(plan: Plan) -> None:
    for pool in plan.node_pools:
        assert len(set(pool.instance_types)) == len(pool.instance_types)


def test_a_warned_budget_plans_all_the_same() -> None:
    plan = planned("prod", budget={"monthlyUsd": 700, "whenExceeded": "warn"})
    assert any("over budget" in warning for warning in plan.warnings)


def test_mistakes_of_settings_and_of_names_come_in_one_message() -> None:
    message = problems(tiers=[*tiers("prod", model="nobody/nothing")[:1], {"name": "Bad Name"}], buget={})
    for expected in ("nobody/nothing", "tiers[1].name", "tiers[1].model: is missing", "buget", "5 problems"):
        assert expected in message or expected == "5 problems"


def test_an_idle_dev_stack_costs_its_fixed_costs() -> None:
    idle = [{**tier, "traffic": {**tier["traffic"], "requestsPerDay": 0}} for tier in tiers("dev")]
    forecast = planned("dev", tiers=idle).forecast
    assert {item.category for item in forecast.items} == {"fixed"}
    assert {"EKS control plane", "system nodes", "NAT gateways", "load balancer"} <= {
        item.name for item in forecast.items
    }
    fixed = sum(item.usd for item in forecast.items if item.category == "fixed")
    assert forecast.total.expected == pytest.approx(fixed)


def test_pools_follow_the_cpu_type_of_a_gguf_tier() -> None:
    plan = planned("dev")
    tier = plan.tier("batch")
    pool = next(pool for pool in plan.node_pools if pool.name == tier.node_pool)
    assert tier.engine == "llama.cpp"
    assert tier.gpu is None
    assert pool.gpu_count == 0
    assert pool.cpu_limit > 0


def test_outputs_carry_the_names_of_the_contract(plan: Plan) -> None:
    outputs = plan_outputs(plan)
    assert set(outputs) == {"projectedMonthlyCost", "projectedCostByTier", "projectedSavings", "plan", "warnings"}
    assert {"low", "expected", "high", "baseline", "currency", "pricesAsOf", "priceSource"} <= set(
        outputs["projectedMonthlyCost"]
    )
    step = {"lever", "monthlyUsd", "savedUsd", "savedPercent", "cumulativePercent", "aloneUsd"}
    assert all(set(saving) == step for saving in outputs["projectedSavings"])
    for tier in plan.tiers:
        assert {"expected", "perMillionTokens"} <= set(outputs["projectedCostByTier"][tier.name])
        assert outputs["plan"][tier.name]["instanceTypes"] == list(tier.instance_types)


@settings(max_examples=8, deadline=None)
@given(st.integers(1_000, 300_000), st.floats(1.1, 4))
def test_more_traffic_never_costs_less(requests_per_day: int, factor: float) -> None:
    def expected(requests: float) -> float:
        tier = config("prod")[1]["tiers"][0]
        changed = {**tier, "traffic": {**tier["traffic"], "requestsPerDay": requests}}
        return planned("prod", tiers=[changed], routing={}, budget={}).forecast.total.expected

    assert expected(requests_per_day) <= expected(requests_per_day * factor) + 0.01


@settings(max_examples=6, deadline=None)
@given(st.sampled_from(["us-east-1", "us-east-2", "us-west-2", "eu-central-1", "eu-west-1", "ap-northeast-1"]))
def test_a_stack_in_any_region_adds_up(region: str) -> None:
    forecast = planned("prod", region=region, tiers=tiers("prod")[:1], routing={}, budget={}).forecast
    assert sum(item.usd for item in forecast.items) == pytest.approx(forecast.total.expected, abs=0.01)
    assert forecast.total.low <= forecast.total.expected <= forecast.total.high
    assert forecast.total.expected <= forecast.baseline_usd


def test_a_tier_names_a_model_outside_the_catalogue_by_its_config_json(tmp_path: Path) -> None:
    architecture = {
        "model_type": "qwen2",
        "num_hidden_layers": 28,
        "hidden_size": 3584,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
    }
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "config.json").write_text(json.dumps(architecture))
    text = (ROOT / "Pulumi.dev.yaml").read_text()
    given = yaml.safe_load(text)
    tier = given["config"]["frugal-llm:tiers"][0]
    tier |= {"model": "own/qwen-7b", "architecture": "models/config.json", "quantization": "auto"}
    (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump(given))
    read = read_stack(tmp_path / "Pulumi.dev.yaml")
    plan = plan_config(read.region, dict(read.values))[1]
    assert plan.tiers[0].checkpoint.repository == "own/qwen-7b"
    (tmp_path / "models" / "config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"architecture.*names no model_type"):
        plan_config(read.region, dict(read.values))


def test_a_tiers_traffic_follows_a_trace_beside_the_stack_file(tmp_path: Path) -> None:
    given = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())
    given["config"]["frugal-llm:tiers"][0]["traffic"]["profile"] = "./traces/week.csv"
    (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump(given))
    (tmp_path / "traces").mkdir()
    shipped = ROOT / "planning" / "facts" / "data" / "traces" / "servegen_m_large_10min.csv"
    (tmp_path / "traces" / "week.csv").write_bytes(shipped.read_bytes())
    read = read_stack(tmp_path / "Pulumi.dev.yaml")
    mine = plan_config(read.region, dict(read.values))[1]
    given["config"]["frugal-llm:tiers"][0]["traffic"]["profile"] = shipped.stem
    (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump(given))
    read = read_stack(tmp_path / "Pulumi.dev.yaml")
    assert mine.forecast.total == plan_config(read.region, dict(read.values))[1].forecast.total


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", r"mine\.csv': 4 problems: line 1: a time column is missing: one of minute.* 1 more; mend"),
        (b"\x89PNG\xff", r"is not text in UTF-8"),
        (
            "hour,requests,input_tokens,output_tokens\n0,0,0,0\n",
            r"1 problem: line 1: no requests in any of its 1 steps",
        ),
        ("hour,requests,input_tokens,output_tokens\n" + "0,-1,1,1\n" * 9, r"17 problems: line 2: .*; 14 more; mend"),
        (None, r"cannot be read: No such file or directory; name a CSV file"),
        (Path, r"cannot be read: is no file; name a CSV file"),
    ],
)
def test_a_bad_trace_is_one_problem_of_each_tier_that_names_it(
    content: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.csv"
    if content is Path:
        file.mkdir()
    elif content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    given = tiers("prod")
    for tier in given:
        tier["traffic"] = {**tier["traffic"], "profile": "./mine.csv"}
    text = problems(tiers=given)
    assert len(text.splitlines()) == 1 + len(given)
    for position, line in enumerate(text.splitlines()[1:]):
        assert f"tiers[{position}].traffic.profile" in line
        assert re.search(says, line)


def test_an_unknown_profile_is_told_the_short_names_and_that_files_can_be_named() -> None:
    given = tiers("prod")
    given[0]["traffic"] = {**given[0]["traffic"], "profile": "servegen_m_lrge"}
    assert "did you mean servegen_m_large" in problems(tiers=given)
    given[0]["traffic"] = {**given[0]["traffic"], "profile": "x"}
    assert "servegen_m_small; or name the path of a trace file, as ./week.csv" in problems(tiers=given)


def test_a_config_json_for_a_model_of_the_catalogue_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    mine = [{**tiers("prod")[0], "architecture": str(tmp_path / "config.json")}]
    with pytest.raises(ConfigurationError, match=r"architecture.*is in the catalogue.*leave it out"):
        planned("prod", tiers=mine, routing={})


def test_a_cache_format_that_no_gpu_allowed_can_keep_is_named_as_the_way_out() -> None:
    mine = [{**tiers("prod")[0], "gpus": ["T4"], "kvCacheDtype": "fp8"}]
    with pytest.raises(ConfigurationError, match="set kvCacheDtype: auto"):
        planned("prod", tiers=mine, routing={})


@pytest.mark.parametrize("burstiness", [1, 4, 8])
def test_the_nearest_target_that_is_proposed_can_be_planned(burstiness: float) -> None:
    traffic = {"requestsPerDay": 40_000, "inputTokens": 900, "outputTokens": 150, "burstiness": burstiness}
    mine = {"name": "only", "model": "meta-llama/Llama-3.1-8B-Instruct", "gpus": ["L4"], "traffic": traffic}
    try:
        planned("prod", tiers=[{**mine, "slo": {"ttftMs": 40, "tpotMs": 10}}], routing={}, budget={})
    except ConfigurationError as error:
        nearest = re.search(r"ttftMs: (\d+), tpotMs: (\d+)", str(error))
        assert nearest is not None
        slo = {"ttftMs": int(nearest[1]), "tpotMs": int(nearest[2])}
        assert planned("prod", tiers=[{**mine, "slo": slo}], routing={}, budget={}).tiers[0].gpu == "L4"
    else:
        pytest.fail("no L4 reads 900 tokens in 40 ms")
