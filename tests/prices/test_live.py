"""Live prices of a plan: opt-in, and never a reason for it to fail. AWS is stubbed: what it answers is not proved."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from planning.facts.instances import Offering, offerings
from planning.plan import Plan
from planning.price_dates import LivePrices
from planning.stack import plan_config
from planning.stackfile import read_stack
from prices.aws import Clients
from prices.live import live_prices
from prices.market import Market, PriceError, live_offerings
from tests.prices.test_refresh import on_demand, spot

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
STACK = read_stack(Path(__file__).resolve().parents[2] / "Pulumi.dev.yaml")
REGION = "us-east-2"


class Pages:
    """A client whose every operation has one page."""

    def __init__(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        self._answers = answers

    def get_paginator(self, operation_name: str) -> Any:
        answer = self._answers[operation_name]

        class Paginator:
            def paginate(self, **_: object) -> Iterable[Mapping[str, Any]]:
                return [answer]

        return Paginator()


def clients_at(factor: float, *, without: str = "") -> Clients:
    """AWS with the snapshot's prices of the region times ``factor``; ``without``: a type that has no price."""
    known = offerings(REGION)
    zones = ("us-east-2a", "us-east-2b", "us-east-2c")

    def prices(offering: Offering) -> list[dict[str, Any]]:
        usd = offering.spot_usd_per_hour
        name = offering.instance.name
        return [] if usd is None else [spot(name, zone, f"{usd * factor:.6f}") for zone in zones]

    ec2 = Pages(
        {
            "describe_instance_type_offerings": {
                "InstanceTypeOfferings": [
                    {"InstanceType": one.instance.name, "Location": zone} for one in known for zone in zones
                ]
            },
            "describe_spot_price_history": {"SpotPriceHistory": [entry for one in known for entry in prices(one)]},
        }
    )
    listed = [
        on_demand(one.instance.name, f"{one.on_demand_usd_per_hour * factor:.10f}")
        for one in known
        if one.instance.name != without
    ]
    return Clients(ec2, Pages({"get_products": {"PriceList": listed}}))


def config(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(dict(STACK.values)), "budget": {}, **changes}


def live(of: Clients | Exception) -> LivePrices | None:
    def made(region: str) -> Clients:
        assert region == REGION
        if isinstance(of, Exception):
            raise of
        return of

    return live_prices(REGION, config(prices={"live": True}), NOW, made)


def planned(prices: LivePrices | None) -> Plan:
    return plan_config(REGION, config(), STACK.encrypted, NOW.date(), prices)[1]


def test_a_stack_that_does_not_ask_reads_nothing() -> None:
    def never(region: str) -> Clients:
        raise AssertionError(region)

    assert live_prices(REGION, config(), NOW, never) is None
    assert live_prices(None, {"tiers": "broken"}, NOW, never) is None


def test_live_prices_take_the_place_of_the_snapshots() -> None:
    read = live(clients_at(2.0))
    assert read is not None
    assert read.warning == ""
    before = {one.instance.name: one for one in offerings(REGION)}
    assert {one.instance.name for one in read.offerings} == set(before)
    for one in read.offerings:
        old = before[one.instance.name]
        assert one.on_demand_usd_per_hour == pytest.approx(2 * old.on_demand_usd_per_hour)
        assert one.interruption_class == old.interruption_class
        assert (one.as_of, one.derived) == (NOW.date(), False)


def test_the_plan_pays_the_live_prices_and_says_where_they_come_from() -> None:
    snapshot, doubled = planned(None).forecast, planned(live(clients_at(2.0))).forecast
    nodes = {
        name: sum(item.usd for item in forecast.items if item.name == "system nodes")
        for name, forecast in (("snapshot", snapshot), ("doubled", doubled))
    }
    assert nodes["doubled"] == pytest.approx(2 * nodes["snapshot"], abs=0.02)
    assert doubled.total.expected > 1.3 * snapshot.total.expected
    assert doubled.price_source.startswith("instances: AWS Price List and spot history")
    assert snapshot.price_source.startswith("snapshot")


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (PriceError("no AWS credentials (none found)"), "no AWS credentials"),
        (TimeoutError("slow"), "TimeoutError('slow')"),
        (ModuleNotFoundError("No module named 'boto3'"), "boto3"),
    ],
)
def test_whatever_fails_the_snapshot_stands_and_the_plan_warns(failure: Exception, why: str) -> None:
    read = live(failure)
    assert read is not None
    plan = planned(read)
    assert plan.forecast.total == planned(None).forecast.total
    (warning,) = (line for line in plan.warnings if "live prices" in line)
    assert warning.startswith("live prices could not be read, the snapshot's are used: ")
    assert why in warning


def test_a_hole_in_the_price_list_falls_back_as_a_whole() -> None:
    read = live(clients_at(1.0, without="g6.xlarge"))
    assert read is not None
    assert read.offerings == ()
    assert "no on-demand price in us-east-2 for g6.xlarge" in read.warning


def test_an_answer_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.0, 20.0, 21.0])
    monkeypatch.setattr("prices.live.time.monotonic", lambda: next(moments))
    read = live(clients_at(1.0))
    assert read is not None
    assert "AWS took over 15 s" in read.warning


def test_a_type_that_the_region_does_not_offer_drops_out_and_is_not_invented() -> None:
    market = Market(
        region="eu-west-1",
        day=NOW.date(),
        zones={"m7i.large": frozenset({"eu-west-1a"})},
        on_demand={"m7i.large": 0.11, "g6.xlarge": 0.9},
        spot={},
        fixed={},
    )
    assert [one.instance.name for one in live_offerings(market)] == ["m7i.large"]
