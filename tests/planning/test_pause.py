"""A paused tier in the plan: what it costs, and that a pause changes nothing else."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planning.plan import Plan
from planning.stack import plan_config
from planning.stackfile import read_stack
from problems import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
HOURS = 730


def planned(stack: str, paused: dict[str, int], **of_the_first: Any) -> Plan:
    read = read_stack(ROOT / f"Pulumi.{stack}.yaml")
    values = copy.deepcopy(dict(read.values))
    given: Any = values["tiers"]
    tiers = [{**tier} for tier in given]
    tiers[0] |= of_the_first
    for tier in tiers:
        if tier["name"] in paused:
            tier["pausedReplicas"] = paused[tier["name"]]
    return plan_config(read.region, {**values, "tiers": tiers}, read.encrypted)[1]


def warning(plan: Plan, tier: str) -> str:
    (found,) = [text for text in plan.warnings if text.startswith(f"tier {tier}: paused")]
    return found


def test_a_stopped_tier_costs_nothing_and_leaves_the_saving_of_the_others() -> None:
    scaling, stopped = planned("prod", {}), planned("prod", {"quality": 0})
    fast, quality = stopped.forecast.tiers
    assert (quality.expected_usd, quality.low_usd, quality.high_usd, quality.replica_hours) == (0, 0, 0, 0)
    assert fast.expected_usd == pytest.approx(scaling.forecast.tiers[0].expected_usd)
    assert stopped.forecast.baseline_usd < scaling.forecast.baseline_usd / 2, "what is not served is not saved"
    assert "at every hour, 0 USD, and while it scales 1,655" in warning(stopped, "quality")
    assert "its requests wait 720 s in the router and are refused then" in warning(stopped, "quality")


def test_a_tier_paused_at_three_pays_three_nodes_at_every_hour() -> None:
    quality = planned("prod", {"quality": 3}).forecast.tiers[1]
    assert quality.replica_hours == 3 * HOURS
    two = planned("prod", {"quality": 2}).forecast.tiers[1]
    assert quality.expected_usd == pytest.approx(1.5 * two.expected_usd)


def test_a_pause_at_more_replicas_than_were_planned_has_nodes_for_them() -> None:
    plan = planned("prod", {"quality": 5})
    assert planned("prod", {}).tier("quality").replicas.maximum == 2
    assert plan.tier("quality").replicas.maximum == 5
    (pool,) = [pool for pool in plan.node_pools if pool.name == plan.tier("quality").node_pool]
    assert pool.gpu_limit == 5 + 1, "and one for a rolling change"


def test_the_floor_of_a_paused_tier_runs_on_demand_and_counts_among_its_replicas() -> None:
    plan = planned("staging", {"fast": 1})
    assert plan.tier("fast").replicas.on_demand_floor == 1
    items = [item for item in plan.forecast.items if item.tier == "fast"]
    assert [item.name for item in items] == ["fast: on-demand floor", "fast: node disks"]
    assert items[0].basis.startswith("730 hours")


def test_with_prefill_and_decode_apart_each_role_has_the_paused_replicas() -> None:
    quality = planned("staging", {"quality": 1}).forecast.tiers[1]
    assert quality.replica_hours == 2 * HOURS


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_a_pause_leaves_checkpoint_gpus_limits_and_time_outs_as_they_were(stack: str) -> None:
    scaling = planned(stack, {})
    paused = planned(stack, {tier.name: 0 for tier in scaling.tiers})
    assert [replace(tier, replicas=replace(tier.replicas, paused=None)) for tier in paused.tiers] == list(scaling.tiers)
    assert paused.node_pools == scaling.node_pools


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"onDemandFloor": 1, "pausedReplicas": 0}, "pausedReplicas is 0: is below onDemandFloor 1"),
        ({"maxReplicas": 2, "pausedReplicas": 3}, "pausedReplicas is 3: is above maxReplicas 2"),
    ],
)
def test_a_pause_below_the_floor_or_above_the_maximum_is_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        planned("prod", {}, **changes)


def test_a_pause_that_breaks_the_budget_is_what_the_way_out_names() -> None:
    read = read_stack(ROOT / "Pulumi.prod.yaml")
    tiers: Any = read.values["tiers"]
    values = {**read.values, "budget": {"monthlyUsd": 4000}}

    def refused(replicas: int) -> str:
        given = [{**tier, "pausedReplicas": replicas} if tier["name"] == "quality" else tier for tier in tiers]
        with pytest.raises(ConfigurationError) as raised:
            plan_config(read.region, {**values, "tiers": given}, read.encrypted)
        return str(raised.value)

    message = refused(20)
    found = re.search(r"giving up paused replicas: frugal-llm:tiers\[1\].pausedReplicas: (\d+)", message)
    assert found
    most = int(found[1])
    paused = [{**tier, "pausedReplicas": most} if tier["name"] == "quality" else tier for tier in tiers]
    assert plan_config(read.region, {**values, "tiers": paused}, read.encrypted)
    assert "frugal-llm:budget.monthlyUsd" in refused(most + 1)
    assert "giving up the pause (the tier scales with its load again): frugal-llm:tiers[1].paused" in message
