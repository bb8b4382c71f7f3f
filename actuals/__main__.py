"""The month so far against the forecast: ``python -m actuals STACK --prometheus URL``.

Nodes and their hours are real, prices are the plan's. Exit codes: 0, compared; 2, there is nothing to compare.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from actuals.comparison import PoolActuals, compare
from actuals.prometheus import NoFigures, seen
from planning.commands.common import as_json
from planning.commands.planned import planned
from planning.facts.table import InvalidTable
from planning.report.terminal import plain_table
from planning.stackfile import StackFileError, read_stack, stack_path
from settings import ConfigurationError

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
    rows, passed_hours = compare(plan, found.hours, found.usd), (now - begins).total_seconds() / 3600
    if options.json:
        data = {"hoursSeen": found.hours, "hoursPassed": passed_hours, "pools": [asdict(row) for row in rows]}
        print(as_json(data), end="")
    else:
        print(_table(rows, f"{begins:%B %Y}: nodes in the {found.hours:,.0f} of {passed_hours:,.0f} h that were seen"))
    return 0


def _table(rows: Sequence[PoolActuals], headline: str) -> str:
    columns = [("pool", "left"), ("tiers", "left"), ("forecast", "right"), ("actual", "right"), ("", "right")]
    columns += [("month at this rate", "right"), ("month planned", "right")]
    cells = [
        (
            row.pool,
            ", ".join(row.tiers) or "not in the plan",
            f"${row.forecast_usd:,.2f}",
            f"${row.actual_usd:,.2f}",
            f"{100 * (row.actual_usd / row.forecast_usd - 1):+.0f} %" if row.forecast_usd else "",
            f"${row.month_at_this_rate_usd:,.0f}",
            f"${row.forecast_month_usd:,.0f}",
        )
        for row in rows
    ]
    note = (
        "Real nodes and hours at the plan's prices; disks, NAT and fixed costs are in neither. The forecast\n"
        "counts every hour of the month alike, so the first days of a month say little."
    )
    return plain_table(headline, columns, cells, color=sys.stdout.isatty()) + f"\n{note}"


if __name__ == "__main__":
    sys.exit(main())
