"""``timeouts``: every time-out of a stack file's tiers, what each follows from, and what must outlast what."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from planning.commands.common import as_json
from planning.commands.planned import planned
from planning.plan import TierPlan
from planning.stackfile import read_stack
from planning.timeouts import timeout_order, timeout_table


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    command.add_argument("stackfile", type=Path, metavar="STACKFILE")


def run(arguments: argparse.Namespace) -> str:
    """Return what the command prints. A stack whose time-outs are out of order has no plan, as ``plan`` would say."""
    settings, plan = planned(read_stack(arguments.stackfile))
    spot = settings.capacity.spot
    if arguments.json:
        return as_json({tier.name: _as_data(tier, spot=spot) for tier in plan.tiers})
    return "\n".join(_as_table(tier, spot=spot) for tier in plan.tiers)


def _as_data(tier: TierPlan, *, spot: bool) -> dict[str, object]:
    return {
        "timeouts": [
            {"name": line.name, "seconds": line.seconds, "setting": line.setting, "followsFrom": line.follows_from}
            for line in timeout_table(tier.timeouts)
        ],
        "order": [
            {"relation": str(order), "holds": order.holds, "else": order.why}
            for order in timeout_order(tier.timeouts, spot=spot)
        ],
    }


def _as_table(tier: TierPlan, *, spot: bool) -> str:
    from planning.report.terminal import plain_table  # noqa: PLC0415 (rich is slow to import, and data needs none of it)

    color = sys.stdout.isatty()
    lines = plain_table(
        f"Time-outs of tier {tier.name}",
        [("time-out", "left"), ("seconds", "right"), ("becomes", "left"), ("follows from", "left")],
        [(line.name, f"{line.seconds:,}", line.setting, line.follows_from) for line in timeout_table(tier.timeouts)],
        color=color,
    )
    order = plain_table(
        "What must outlast what",
        [("", "left"), ("else", "left")],
        [(str(order), order.why) for order in timeout_order(tier.timeouts, spot=spot)],
        color=color,
    )
    return f"{lines}\n{order}"
