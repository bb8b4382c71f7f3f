"""The price of a pool against hand-made offerings and the snapshot's own figures."""

import math
from dataclasses import replace

import pytest

from planning.facts.instances import Offering, offerings
from planning.spot import PESSIMISTIC_SHARE_OF_ON_DEMAND, pool_price, spot_usd_per_hour, worth_spot


def offering(name: str, region: str = "us-east-1") -> Offering:
    return next(entry for entry in offerings(region) if entry.instance.name == name)


def test_the_mix_takes_the_cheapest_as_often_as_it_has_capacity_and_on_demand_last() -> None:
    one = replace(offering("g6.xlarge"), interruption_class=">20%", zones=5, zones_at_on_demand_price=0)
    two = replace(offering("g5.xlarge"), interruption_class="<5%", zones=4, zones_at_on_demand_price=1)
    price = pool_price([two, one], spot=True, on_demand_fallback=True)
    # >20 % counts as 30 %; <5 % as 2.5 %, with a quarter of its zones full.
    shares = [0.7, 0.3 * 0.975 * 0.75, 1 - 0.7 - 0.3 * 0.975 * 0.75]
    assert [part.instance_type for part in price.mix] == ["g6.xlarge", "g5.xlarge", "g6.xlarge"]
    assert [part.capacity_type for part in price.mix] == ["spot", "spot", "on-demand"]
    assert [part.share for part in price.mix] == pytest.approx(shares)
    # g6.xlarge: 0.3618 spot, 0.8048 on-demand; g5.xlarge: 0.4423 spot (price files of July 2026).
    assert price.usd_per_hour == pytest.approx(shares[0] * 0.3618 + shares[1] * 0.4423 + shares[2] * 0.8048)
    assert price.spot_share == pytest.approx(shares[0] + shares[1])


def test_without_spot_every_hour_costs_the_cheapest_on_demand_price() -> None:
    price = pool_price([offering("g5.xlarge"), offering("g6.xlarge")], spot=False, on_demand_fallback=True)
    assert price.usd_per_hour == 0.8048
    assert price.interruptions_per_hour == 0


def test_without_fallback_all_that_runs_runs_on_spot() -> None:
    price = pool_price([offering("g6.xlarge")], spot=True, on_demand_fallback=False)
    assert price.spot_share == pytest.approx(1)
    assert price.usd_per_hour == pytest.approx(0.3618)


def test_interruptions_in_an_hour_compound_to_the_class_in_a_month() -> None:
    only = replace(offering("g6.xlarge"), interruption_class=">20%", zones=None, zones_at_on_demand_price=None)
    price = pool_price([only], spot=True, on_demand_fallback=False)
    undisturbed_month = math.exp(-price.interruptions_per_hour * 730 / 0.7)
    assert undisturbed_month == pytest.approx(1 - 0.3)


def test_a_type_without_a_class_counts_as_the_worst() -> None:
    unknown = replace(offering("g6.xlarge"), interruption_class=None)
    worst = replace(offering("g6.xlarge"), interruption_class=">20%")
    args = {"spot": True, "on_demand_fallback": True}
    assert pool_price([unknown], **args).usd_per_hour == pool_price([worst], **args).usd_per_hour


def test_a_cpu_type_without_a_spot_price_takes_the_advisors_saving_and_a_gpu_type_does_not() -> None:
    cpu = offering("c7g.4xlarge")
    assert cpu.spot_usd_per_hour is None
    assert cpu.spot_savings_percent is not None
    assert spot_usd_per_hour(cpu) == pytest.approx(0.58 * (1 - cpu.spot_savings_percent / 100))
    assert spot_usd_per_hour(offering("g5.8xlarge")) is None


def test_the_pessimistic_price_is_at_least_half_of_on_demand() -> None:
    # g7e.2xlarge: every zone far below half of 3.36312, a discount that new families do not keep.
    assert spot_usd_per_hour(offering("g7e.2xlarge"), "high") == pytest.approx(PESSIMISTIC_SHARE_OF_ON_DEMAND * 3.36312)


def test_only_spot_below_the_plans_on_demand_price_is_worth_it() -> None:
    pool = worth_spot(offerings("us-east-1"), 0.5)
    assert all((spot_usd_per_hour(entry) or 0) < 0.5 for entry in pool)
    prices = [spot_usd_per_hour(entry) or 0 for entry in pool]
    assert prices == sorted(prices)
