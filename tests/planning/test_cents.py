"""Rounding of the bill: every printed sum is the sum of what is printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.cents import bill_in_cents, shared_out, to_cents
from planning.outputs import bill_details, plan_outputs
from tests.planning.test_stack import planned

AMOUNTS = st.lists(st.floats(0, 1e6), min_size=1, max_size=60)


@given(AMOUNTS)
def test_rounded_amounts_add_up_and_none_is_a_cent_off(amounts: list[float]) -> None:
    shares = shared_out(amounts, to_cents(sum(amounts)))
    assert sum(shares) == to_cents(sum(amounts))
    assert all(abs(cents - 100 * usd) < 1 + 1e-5 for cents, usd in zip(shares, amounts, strict=True))


def test_the_cent_left_over_goes_to_the_amount_that_lost_most() -> None:
    assert shared_out([0.334, 0.333, 0.333], 100) == (34, 33, 33)


def test_amounts_that_are_not_the_total_are_refused() -> None:
    with pytest.raises(ValueError, match=r"add up to 1\.0000 USD, not to 2\.00"):
        shared_out([0.5, 0.5], 200)


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_items_add_up_to_the_cent_in_every_group_and_in_data(stack: str) -> None:
    plan = planned(stack)
    bill, outputs, details = bill_in_cents(plan.forecast), plan_outputs(plan), bill_details(plan)
    assert sum(bill.items) == bill.total == sum(bill.by_tier.values()) + bill.fixed
    assert sum(to_cents(item["usd"]) for item in details["items"]) == to_cents(
        outputs["projectedMonthlyCost"]["expected"]
    )
    for name, cost in outputs["projectedCostByTier"].items():
        own = [to_cents(item["usd"]) for item in details["items"] if item["tier"] == name]
        assert sum(own) == to_cents(cost["expected"])
    month = outputs["projectedMonthlyCost"]
    saved = sum(to_cents(step["savedUsd"]) for step in outputs["projectedSavings"])
    assert saved == to_cents(month["baseline"]) - to_cents(month["expected"])
    assert details["region"] == plan.region
    assert [driver["name"] for driver in details["drivers"]] == [driver.name for driver in plan.forecast.drivers]
    assert {what_if["name"] for what_if in details["whatIfs"]} == {what_if.name for what_if in plan.forecast.what_ifs}
