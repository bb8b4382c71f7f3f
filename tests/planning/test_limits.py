"""The most nodes a stack may have, against its budget. That Karpenter and KEDA keep to it is not proven here."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from planning.facts.instances import instance_type, offerings
from planning.plan import Plan
from planning.stack import plan_config
from planning.stackfile import read_stack

ROOT = Path(__file__).resolve().parents[2]
NOT_PAID_FOR = "does not pay for at the worst price"

HOURS = 730


def planned(stack: str, *, busy: float = 1, budget: dict[str, Any] | None = None, **changes: Any) -> Plan:
    """A shipped stack with so many times the requests."""
    read = read_stack(ROOT / f"Pulumi.{stack}.yaml")
    values = copy.deepcopy(dict(read.values))
    tiers: Any = values["tiers"]
    for tier in tiers:
        tier["traffic"]["requestsPerDay"] *= busy
    wanted = {"whenExceeded": "warn", **(budget or {})}
    return plan_config(read.region, {**values, "budget": wanted, **changes})[1]


def dearest_month(plan: Plan) -> float:
    """Every pool at its limits for 730 hours, whichever nodes in them cost most on demand, and the fixed costs."""
    prices = {each.instance.name: each.on_demand_usd_per_hour for each in offerings(plan.region)}
    per_hour = 0.0
    for pool in plan.node_pools:
        if pool.gpu_count:
            per_hour += pool.gpu_limit // pool.gpu_count * max(prices[name] for name in pool.instance_types)
        else:
            per_hour += max(pool.cpu_limit // instance_type(name).vcpu * prices[name] for name in pool.instance_types)
    return per_hour * HOURS + sum(item.usd for item in plan.forecast.items if item.category == "fixed")


def maxima(plan: Plan) -> list[int]:
    return [tier.replicas.maximum for tier in plan.tiers]


@pytest.mark.parametrize(
    ("stack", "busy", "usd"),
    [
        ("dev", 1, 800),
        ("dev", 1, 20_000),
        ("dev", 300, 20_000),
        ("staging", 1, 3_000),
        ("staging", 1, 20_000),
        ("prod", 1, 5_000),
        ("prod", 1, 15_000),
        ("prod", 30, 60_000),
        ("prod", 30, 150_000),
    ],
)
def test_a_month_at_all_limits_at_the_worst_price_is_within_the_budget_or_it_is_said(
    stack: str, busy: float, usd: float
) -> None:
    plan = planned(stack, busy=busy, budget={"monthlyUsd": usd})
    said = [warning for warning in plan.warnings if NOT_PAID_FOR in warning]
    if dearest_month(plan) <= usd:
        return
    (warning,) = said
    figure = float(warning.split("would be ")[1].split(" USD")[0].replace(",", ""))
    # The warning counts the nodes' disks too.
    assert dearest_month(plan) <= figure <= 1.02 * dearest_month(plan)


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_the_planned_peak_is_kept_whatever_the_budget(stack: str) -> None:
    least, middle, free = (
        planned(stack, busy=30, budget=budget) for budget in ({"monthlyUsd": 1}, {"monthlyUsd": 50_000}, None)
    )
    for few, some, many in zip(maxima(least), maxima(middle), maxima(free), strict=True):
        assert few <= some <= many
    assert maxima(least) == maxima(planned(stack, busy=30, budget={"monthlyUsd": 2}))


def test_two_tiers_share_what_one_budget_leaves_for_the_bad_case() -> None:
    # Each tier alone may have its whole bad case; both together may not.
    free, tight = planned("prod", busy=30), planned("prod", busy=30, budget={"monthlyUsd": 1})
    assert all(many > few for many, few in zip(maxima(free), maxima(tight), strict=True))
    usd = (dearest_month(free) + dearest_month(tight)) / 2
    shared = planned("prod", busy=30, budget={"monthlyUsd": usd})
    assert dearest_month(shared) <= usd
    assert not any(NOT_PAID_FOR in warning for warning in shared.warnings)
    assert sum(maxima(tight)) < sum(maxima(shared)) < sum(maxima(free))


def test_most_replicas_that_the_settings_name_stay_and_count() -> None:
    read = read_stack(ROOT / "Pulumi.prod.yaml")
    tiers: Any = copy.deepcopy(read.values["tiers"])
    tiers[0]["maxReplicas"] = 40
    plan = planned("prod", budget={"monthlyUsd": 5_000}, tiers=tiers)
    assert plan.tiers[0].replicas.maximum == 40
    # 40 replicas on nodes of at most 1.21 USD an hour (g6.2xlarge, on demand) are some 35,000 USD.
    (warning,) = [warning for warning in plan.warnings if NOT_PAID_FOR in warning]
    assert "would be 4" in warning


def test_a_pool_has_room_for_one_node_more_than_its_replicas_so_that_a_change_can_roll() -> None:
    plan = planned("prod")
    for tier, pool in zip(plan.tiers, plan.node_pools, strict=True):
        assert pool.gpu_limit == (tier.replicas.maximum + 1) * tier.gpus_per_replica


def test_both_roles_of_a_disaggregated_tier_find_nodes() -> None:
    plan = planned("staging")
    apart = plan.tier("quality").disaggregation
    assert apart is not None
    (pool,) = [pool for pool in plan.node_pools if pool.name == "quality"]
    replicas = apart.prefill.replicas.maximum + apart.decode.replicas.maximum
    assert pool.gpu_limit == (replicas + 1) * pool.gpu_count


def test_tiers_that_share_a_pool_share_its_one_surge_node() -> None:
    read = read_stack(ROOT / "Pulumi.prod.yaml")
    tiers: Any = read.values["tiers"]
    plan = planned("prod", tiers=[tiers[0], {**tiers[0], "name": "twin"}])
    (pool,) = plan.node_pools
    assert pool.gpu_limit == sum(maxima(plan)) + 1
