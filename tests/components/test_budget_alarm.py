"""The budget as the program asks for it. AWS counts by the tag only once the payer account has activated it."""

from __future__ import annotations

import pytest

from components.budget_alarm import BudgetAlarm, BudgetAlarmArgs
from tests.harness import Recording, Resource, component_under_test

ADDRESSES = ("ops@example.com", "finance@example.com")


def alarm(notify: tuple[str, ...]) -> Recording:
    args = BudgetAlarmArgs(monthly_usd=6000, notify=notify, tag_key="frugal-llm:stack", tag_value="dev")
    return component_under_test(lambda opts: BudgetAlarm("budget", args, opts))


@pytest.fixture(scope="module")
def budget() -> Resource:
    (found,) = alarm(ADDRESSES).of_type("aws:budgets/budget:Budget")
    return found


def test_it_limits_the_cost_of_a_month_in_dollars(budget: Resource) -> None:
    assert (budget.inputs["budgetType"], budget.inputs["timeUnit"]) == ("COST", "MONTHLY")
    assert (budget.inputs["limitAmount"], budget.inputs["limitUnit"]) == ("6000.00", "USD")


def test_it_counts_only_what_carries_the_tag_of_the_stack(budget: Resource) -> None:
    # The form of a user-defined tag in AWS Budgets: user:<key>$<value>.
    assert budget.inputs["costFilters"] == [{"name": "TagKeyValue", "values": ["user:frugal-llm:stack$dev"]}]


def test_it_mails_at_80_percent_spent_100_percent_forecast_and_100_percent_spent(budget: Resource) -> None:
    notifications = budget.inputs["notifications"]
    asked = [(each["threshold"], each["thresholdType"], each["notificationType"]) for each in notifications]
    assert asked == [(80, "PERCENTAGE", "ACTUAL"), (100, "PERCENTAGE", "FORECASTED"), (100, "PERCENTAGE", "ACTUAL")]
    for notification in notifications:
        assert notification["comparisonOperator"] == "GREATER_THAN"
        assert notification["subscriberEmailAddresses"] == list(ADDRESSES)


def test_without_addresses_it_asks_for_no_mail_because_aws_refuses_one_to_nobody() -> None:
    (budget,) = alarm(()).of_type("aws:budgets/budget:Budget")
    assert not budget.inputs.get("notifications")
