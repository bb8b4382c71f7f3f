"""Recording rules for the calendar month in money: what it cost so far, and where it ends at the rate of the week."""

from __future__ import annotations

from typing import Any, Final

from components.dashboards.costs import POOL_USD
from components.dashboards.rule import constant, record
from components.tier_queries import number
from planning.plan import Forecast
from planning.rates import StackRates

SPEND: Final = "frugal_llm:stack_usd_per_hour"
"""USD an hour of the whole stack, with the number of the ``month`` as label, so that sums over days end with it."""
SO_FAR: Final = "frugal_llm:month_usd:so_far"
PROJECTED: Final = "frugal_llm:month_usd:projected"
"""Where the calendar month ends when its rest costs as the last seven days did, which have their weekend."""
FORECAST_MONTH: Final = "frugal_llm:forecast_month_usd"
"""The plan's month of 730 hours, by ``bound``."""
BUDGET: Final = "frugal_llm:budget_usd"

_LONGEST_MONTH_DAYS: Final = 31
_STEP_MINUTES: Final = 15

_THIS_MONTH: Final = 'count_values("month", month())'
_HOURS_PASSED: Final = "((day_of_month() - 1) * 24 + hour() + minute() / 60)"
_HOURS_LEFT: Final = f"(days_in_month() * 24 - {_HOURS_PASSED})"


def spend_rule(rates: StackRates) -> dict[str, Any]:
    """Nodes of pools as they are, and everything else (fixed costs, disks, images) as the plan has it."""
    nodes = f"(sum({POOL_USD}) or vector(0))"
    return record(SPEND, f"{_THIS_MONTH} * on () group_left () ({nodes} + {number(rates.other_usd_per_hour)})")


def month_rules(forecast: Forecast, retention_days: int) -> list[dict[str, Any]]:
    """Give the month so far, where it ends, and what it is held against.

    Hours without samples cost nothing here: Prometheus, which watches the stack, ran from its first hour. Where it
    keeps less than a month, hours that it has dropped count as the mean of those that it has.
    """
    seen = f"{SPEND}[{min(_LONGEST_MONTH_DAYS, retention_days)}d:{_STEP_MINUTES}m]"
    so_far = f"sum(sum_over_time({seen}) and on (month) {_THIS_MONTH}) * {_STEP_MINUTES} / 60"
    if retention_days < _LONGEST_MONTH_DAYS:
        mean = f"sum(avg_over_time({seen}) and on (month) {_THIS_MONTH})"
        so_far += f" + {mean} * clamp_min({_HOURS_PASSED} - {retention_days * 24}, 0)"
    week = f"{SPEND}[{min(7, retention_days)}d:{_STEP_MINUTES}m]"
    rate = f"sum(sum_over_time({week})) / sum(count_over_time({week}))"
    total = forecast.total
    bounds = (("low", total.low), ("expected", total.expected), ("high", total.high))
    return [
        *(constant(FORECAST_MONTH, usd, {"bound": bound}) for bound, usd in bounds),
        *([] if forecast.budget_usd is None else [constant(BUDGET, forecast.budget_usd)]),
        record(SO_FAR, so_far),
        record(PROJECTED, f"{SO_FAR} + {rate} * {_HOURS_LEFT}"),
    ]
