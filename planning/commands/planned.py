"""A stack file planned as of now: the edge at which commands meet the clock and, where a stack asks for it, AWS."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import import_module

from planning.details import Details
from planning.plan import Plan
from planning.price_dates import LivePrices
from planning.stack import detailed_plan, plan_config
from planning.stackfile import StackFile
from settings import StackSettings


def planned(stack: StackFile) -> tuple[StackSettings, Plan]:
    """Plan a stack file from today on, at live prices when it asks for them. Raises ``ConfigurationError``."""
    now = datetime.now(UTC)
    return plan_config(stack.region, stack.values, stack.encrypted, now.date(), _live(stack, now))


def planned_in_detail(stack: StackFile) -> tuple[Plan, Details]:
    """The same plan, with what the report's page shows beside it."""
    now = datetime.now(UTC)
    return detailed_plan(stack.region, stack.values, stack.encrypted, now.date(), _live(stack, now))


def _live(stack: StackFile, now: datetime) -> LivePrices | None:
    # By name, as the command of that room: no module of the planner imports it.
    return import_module("prices.live").live_prices(stack.region, stack.values, now)
