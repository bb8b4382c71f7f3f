"""The month so far against the forecast: ``python -m actuals STACK --prometheus URL``.

Nodes and their hours are real, prices are the plan's. Exit codes: 0, compared; 2, there is nothing to compare.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from actuals.comparison import (
    PoolActuals,
    StackActuals,
    TierActuals,
    compare,
    compare_stack,
    compare_tiers,
)
from actuals.prometheus import NoFigures, seen
from planning.commands.common import as_json
from planning.commands.planned import planned
from planning.facts.table import InvalidTable
from planning.report.terminal import plain_table
from planning.stackfile import StackFileError, read_stack, stack_path
from problems import ConfigurationError

_WRONG = 2


def main(arguments: Sequence[str] | None = None, now: datetime | None = None) -> int:
    """Compare, print and give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m actuals", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stack", metavar="STACK", help="a stack's name, or a path to a stack file")
    parser.add_argument("--prometheus", required=True, metavar="URL", help="for example http://localhost:9090")
    parser.add_argument("--json", action="store_true", help="data instead of a table")
    options = parser.parse_args(arguments)
    now = now or datetime.now(UTC)
    begins = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    try:
        _, plan = planned(read_stack(stack_path(options.stack)))
        found = seen(options.prometheus, begins, now)
    except (ConfigurationError, InvalidTable, StackFileError, NoFigures) as error:
        print(error, file=sys.stderr)
        return _WRONG
    passed_hours = (now - begins).total_seconds() / 3600
    pools, tiers, stack = compare(plan, found), compare_tiers(plan, found), compare_stack(plan, found)
    if options.json:
        data = {"hoursSeen": found.hours, "hoursPassed": passed_hours, "stack": asdict(stack)}
        print(as_json(data | {"tiers": list(map(asdict, tiers)), "pools": list(map(asdict, pools))}), end="")
    else:
        headline = f"{begins:%B %Y}: nodes in the {found.hours:,.0f} of {passed_hours:,.0f} h that were seen"
        print(f"{_tiers(tiers, headline)}\n\n{_pools(pools)}\n\n{_summary(stack)}\n{_NOTE}")
    return 0


_RIGHT: tuple[tuple[str, str], ...] = (("forecast", "right"), ("actual", "right"), ("", "right"))

_NOTE = """\
Real nodes and hours at the plan's prices, shared among tiers by what their pods requested. The forecast counts
every hour of the month alike, so the first days of a month say little."""


def _tiers(rows: Sequence[TierActuals], headline: str) -> str:
    columns = [("tier", "left"), *_RIGHT, ("month at this rate", "right"), ("planned", "right")]
    columns += [("million tokens", "right"), ("planned", "right"), ("$/million", "right"), ("planned", "right")]
    cells = [
        (
            row.tier,
            *_held_against(row.forecast_usd, row.actual_usd),
            f"${row.month_at_this_rate_usd:,.0f}",
            f"${row.forecast_month_usd:,.0f}",
            f"{row.million_tokens:,.1f}",
            f"{row.forecast_million_tokens:,.1f}",
            "" if row.usd_per_million_tokens is None else f"${row.usd_per_million_tokens:,.2f}",
            f"${row.forecast_usd_per_million_tokens:,.2f}",
        )
        for row in rows
    ]
    return plain_table(headline, columns, cells, color=sys.stdout.isatty())


def _pools(rows: Sequence[PoolActuals]) -> str:
    columns = [("pool", "left"), ("tiers", "left"), *_RIGHT, ("spot", "right"), ("planned", "right")]
    cells = [
        (
            row.pool,
            ", ".join(row.tiers) or "not in the plan",
            *_held_against(row.forecast_usd, row.actual_usd),
            "" if row.spot_share is None else f"{100 * row.spot_share:.0f} %",
            f"{100 * row.forecast_spot_share:.0f} %" if row.tiers else "",
        )
        for row in rows
    ]
    return plain_table("By pool", columns, cells, color=sys.stdout.isatty())


def _held_against(forecast_usd: float, actual_usd: float) -> tuple[str, str, str]:
    off = f"{100 * (actual_usd / forecast_usd - 1):+.0f} %" if forecast_usd else ""
    return f"${forecast_usd:,.2f}", f"${actual_usd:,.2f}", off


def _summary(stack: StackActuals) -> str:
    budget = "" if stack.budget_usd is None else f", budget ${stack.budget_usd:,.0f}"
    return (
        f"With fixed costs, disks and images as planned: ${stack.so_far_usd:,.2f} in these hours, "
        f"${stack.month_at_this_rate_usd:,.0f} a month at this rate;\n"
        f"forecast ${stack.forecast_month_usd:,.0f}{budget}."
    )


if __name__ == "__main__":
    sys.exit(main())
