"""The forecast in rates: nothing of the month is lost on the way, and a pool's tiers are its whole."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from planning.plan import Plan
from planning.rates import stack_rates
from planning.stack import plan_config
from planning.stackfile import read_stack, stack_path
from tests.components.plans import FAST, FORECAST, QUALITY, SPLIT, TIERS
from tests.harness import ROOT


@functools.cache
def plan(stack: str) -> Plan:
    file = read_stack(stack_path(stack, ROOT))
    return plan_config(file.region, file.values, file.encrypted)[1]


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_nodes_and_everything_else_are_the_expected_month(stack: str) -> None:
    made = plan(stack)
    rates = stack_rates(made.tiers, made.forecast)
    nodes = sum(rate.usd_per_hour for rate in rates.tiers)
    assert 730 * (nodes + rates.other_usd_per_hour) == pytest.approx(made.forecast.total.expected)
    assert sum(rates.pool_usd_per_hour(pool) for pool in rates.pools) == pytest.approx(nodes)
    assert set(rates.pools) == {pool.name for pool in made.node_pools}


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_a_tiers_nodes_are_less_than_its_month_and_within_its_range(stack: str) -> None:
    made = plan(stack)
    costs = {cost.tier: cost for cost in made.forecast.tiers}
    for rate in stack_rates(made.tiers, made.forecast).tiers:
        assert 0 < rate.usd_per_month < costs[rate.tier].expected_usd, "disks and images are not in it"
        assert rate.low_usd_per_hour <= rate.usd_per_hour <= rate.high_usd_per_hour
        assert rate.usd_per_million_tokens < costs[rate.tier].usd_per_million_tokens


def test_tiers_of_a_pool_share_it_by_what_they_are_forecast_to_cost() -> None:
    rates = stack_rates(TIERS, FORECAST)
    quality, split = (next(rate for rate in rates.tiers if rate.tier == name) for name in ("quality", "split"))
    assert rates.share(quality, "gpu-4") == pytest.approx(1 / 3)
    assert rates.share(split, "gpu-4") == pytest.approx(2 / 3)
    assert rates.spot_share("gpu-4") == pytest.approx((0.4 + 0.8) / 2), "of as many node hours each"


def test_roles_on_pools_of_their_own_cost_each_pool_half_a_tier() -> None:
    apart = SPLIT.disaggregation
    assert apart is not None
    moved = replace(SPLIT, disaggregation=replace(apart, prefill=replace(apart.prefill, node_pool="gpu-8")))
    rates = stack_rates([moved], FORECAST)
    assert rates.pools == ("gpu-8", "gpu-4")
    assert [rates.pool_usd_per_hour(pool) for pool in rates.pools] == pytest.approx([2.0, 2.0])


def test_a_tier_without_traffic_has_no_price_of_tokens_and_still_a_share() -> None:
    free = tuple(replace(cost, million_tokens=0.0, replica_hours=0.0) for cost in FORECAST.tiers)
    rates = stack_rates([FAST, replace(FAST, name="quality")], replace(FORECAST, tiers=free, items=()))
    assert {rate.usd_per_million_tokens for rate in rates.tiers} == {0.0}
    assert {rates.share(rate, "gpu-1") for rate in rates.tiers} == {0.5}
    assert rates.spot_share("gpu-1") == 0


def test_a_forecast_of_other_tiers_is_refused() -> None:
    with pytest.raises(KeyError, match="stray"):
        stack_rates([replace(QUALITY, name="stray")], FORECAST)
