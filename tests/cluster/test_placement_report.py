"""The comparison of a node with the plan, and the market that Karpenter is shown, by themselves."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from planning.plan import Plan
from planning.stack import plan_config
from planning.stackfile import read_stack, stack_path
from tests import harness
from tests.cluster.aws_stub import Market, aws_answer
from tests.cluster.placement import Launched, Placement, Planned, report


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Give the plan of the dev stack."""
    file = read_stack(stack_path("dev", harness.ROOT))
    return plan_config(file.region, file.values)[1]


@pytest.fixture
def planned(plan: Plan) -> Planned:
    """Give where the tier ``fast`` may run."""
    return Planned("dev", "fast-engine", plan.tier("fast"), ("spot", "on-demand"), plan.network.zones)


CHEAPEST = Launched("fast-1", "g4dn.xlarge", "t4", 1, "spot", "us-east-2b", 0.1439)


def test_a_node_as_planned_raises_no_objection(planned: Planned) -> None:
    assert planned.objections(CHEAPEST) == []


@pytest.mark.parametrize(
    ("launched", "objection"),
    [
        (replace(CHEAPEST, instance_type="g4dn.12xlarge", gpu_count=4), "is none of the plan's types"),
        (replace(CHEAPEST, gpu_count=4), "it has 4 GPUs, a replica 1"),
        (replace(CHEAPEST, gpu_name="l4"), "its GPU is l4, the plan's T4, labelled t4"),
        (replace(CHEAPEST, capacity_type="reserved"), "it is reserved, planned is spot or on-demand"),
        (replace(CHEAPEST, zone="us-east-2d"), "it is in us-east-2d"),
    ],
)
def test_a_node_that_is_not_as_planned_is_found_with_the_reason(
    planned: Planned, launched: Launched, objection: str
) -> None:
    (reason,) = planned.objections(launched)
    assert objection in reason


def test_the_floor_may_not_run_on_spot(planned: Planned) -> None:
    floor = replace(planned, workload="fast-floor", capacity_types=("on-demand",))
    assert floor.objections(CHEAPEST) == ["it is spot, planned is on-demand"]
    assert floor.cheapest[1] == pytest.approx(0.526)  # g4dn.xlarge on demand, AWS Price List 2026-07-20


def test_the_report_holds_what_was_launched_against_the_plans_price_of_it(planned: Planned) -> None:
    dearer = replace(CHEAPEST, usd_per_hour=0.1439 * 1.1)
    heading, rule, row = report([(*Placement(planned, dearer).row, "1")]).splitlines()
    assert len(heading) == len(rule) == len(row)
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "dev/fast-engine",
        "1 x T4, g4dn.xlarge spot",
        "0.1439",
        "g4dn.xlarge",
        "spot",
        "us-east-2b",
        "0.1583",
        "0.1439",
        "+10.0 %",
        "1",
    ]


def test_the_market_asks_what_the_plan_pays_within_the_spread_of_the_zones(plan: Plan) -> None:
    market = Market(plan.region, plan.network.zones)
    for tier in plan.tiers:
        for offering in tier.offerings:
            zones = [market.spot[offering.instance_type, zone] for zone in plan.network.zones]
            assert offering.spot_usd_per_hour is not None
            assert min(zones) <= offering.spot_usd_per_hour <= max(zones)
            assert market.on_demand[offering.instance_type] == offering.on_demand_usd_per_hour


def test_a_market_without_spot_still_has_a_history_without_which_karpenter_does_not_start(plan: Plan) -> None:
    market = Market(plan.region, plan.network.zones)
    market.spot.clear()
    answer = aws_answer("", b"Action=DescribeSpotPriceHistory&Version=2016-11-15", market, {})
    assert answer is not None
    assert answer[1].count(b"<item>") == 1
    assert market.usd_per_hour("g4dn.xlarge", "spot", "us-east-2a") is None


def test_an_alias_gives_an_image_of_its_architecture(plan: Plan) -> None:
    market, images = Market(plan.region, plan.network.zones), dict[str, str]()
    name = "/aws/service/eks/optimized-ami/1.36/amazon-linux-2023/arm64/standard/recommended/image_id"
    found = aws_answer("AmazonSSM.GetParameter", json.dumps({"Name": name}).encode(), market, images)
    assert found is not None
    image = json.loads(found[1])["Parameter"]["Value"]
    described = aws_answer("", f"Action=DescribeImages&Filter.1.Value.1={image}".encode(), market, images)
    assert described is not None
    assert b"<architecture>arm64</architecture>" in described[1]


def test_what_moto_has_is_left_to_it(plan: Plan) -> None:
    market = Market(plan.region, plan.network.zones)
    assert aws_answer("", b"Action=DescribeSubnets&Version=2016-11-15", market, {}) is None
    assert aws_answer("AmazonSQS.ReceiveMessage", b"{}", market, {}) is None
