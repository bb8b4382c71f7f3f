"""``timeouts``: every time-out of a stack file, what each follows from, and what must outlast what."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planning.commands.common import as_json
from planning.commands.planned import planned
from planning.plan import Plan
from planning.stackfile import read_stack
from planning.timeouts import Order, Timeout, model_router_order, model_router_table, timeout_order, timeout_table

_BY_MODEL = "routing.byModelField"
"""What the Envoys of this setting stand under; no tier can have the name."""

_SIDE_BY_SIDE = 3


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    command.add_argument("stackfile", type=Path, metavar="STACKFILE")


@dataclass(frozen=True, slots=True)
class _Part:
    """A tier, or the Envoys that route by model."""

    name: str
    timeouts: tuple[Timeout, ...]
    order: tuple[Order, ...]


def run(arguments: argparse.Namespace) -> str:
    """Return what the command prints. A stack whose time-outs are out of order has no plan, as ``plan`` would say."""
    settings, plan = planned(read_stack(arguments.stackfile))
    spot = settings.capacity.spot
    tiers = [
        _Part(tier.name, timeout_table(tier.timeouts), timeout_order(tier.timeouts, spot=spot)) for tier in plan.tiers
    ]
    by_model = _by_model(plan)
    if arguments.json:
        return as_json({part.name: _as_data(part) for part in (*tiers, *by_model)})
    return "\n".join(
        [*_as_tables("Time-outs of tiers", tiers), *_as_tables("Time-outs of the Envoys that route by model", by_model)]
    )


def _by_model(plan: Plan) -> list[_Part]:
    """Give the Envoys that route by model, if there are any."""
    if plan.model_router is None:
        return []
    times = plan.model_router.timeouts
    order = model_router_order(times, [tier.timeouts for tier in plan.tiers])
    return [_Part(_BY_MODEL, model_router_table(times), order)]


def _as_data(part: _Part) -> dict[str, object]:
    return {
        "timeouts": [
            {"name": line.name, "seconds": line.seconds, "setting": line.setting, "followsFrom": line.follows_from}
            for line in part.timeouts
        ],
        "order": [{"relation": str(order), "holds": order.holds, "else": order.why} for order in part.order],
    }


def _as_tables(title: str, parts: Sequence[_Part]) -> list[str]:
    """Print parts of one kind side by side, as many as a terminal has room for."""
    from planning.report.terminal import plain_table  # noqa: PLC0415 (rich is slow to import, and data needs none of it)

    color = sys.stdout.isatty()
    printed: list[str] = []
    for first in range(0, len(parts), _SIDE_BY_SIDE):
        shown = parts[first : first + _SIDE_BY_SIDE]
        columns = [(part.name, "right") for part in shown]
        printed += [
            plain_table(
                f"{title}, seconds",
                [("time-out", "left"), *columns, ("becomes", "left"), ("follows from", "left")],
                [
                    (lines[0].name, *(f"{line.seconds:,}" for line in lines), lines[0].setting, lines[0].follows_from)
                    for lines in zip(*(part.timeouts for part in shown), strict=True)
                ],
                color=color,
            ),
            plain_table(
                "What must outlast what, seconds",
                [("", "left"), *columns, ("else", "left")],
                [
                    (
                        f"{orders[0].longer} {orders[0].sign} {orders[0].shorter}",
                        *(f"{order.longer_s:,} {order.sign} {order.shorter_s:,}" for order in orders),
                        orders[0].why,
                    )
                    for orders in zip(*(part.order for part in shown), strict=True)
                ],
                color=color,
            ),
        ]
    return printed
