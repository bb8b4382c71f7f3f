"""``timeouts``: every time-out of a stack file, what each follows from, and what must outlast what."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from planning.commands.common import as_json
from planning.commands.planned import planned
from planning.plan import Plan
from planning.stackfile import read_stack
from planning.timeouts import Order, Timeout, model_router_order, model_router_table, timeout_order, timeout_table

_BY_MODEL = "routing.byModelField"
"""What the Envoys of this setting stand under; no tier can have the name."""


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    command.add_argument("stackfile", type=Path, metavar="STACKFILE")


@dataclass(frozen=True, slots=True)
class _Part:
    """A tier, or the Envoys that route by model."""

    name: str
    title: str
    timeouts: tuple[Timeout, ...]
    order: tuple[Order, ...]


def run(arguments: argparse.Namespace) -> str:
    """Return what the command prints. A stack whose time-outs are out of order has no plan, as ``plan`` would say."""
    settings, plan = planned(read_stack(arguments.stackfile))
    parts = _parts(plan, spot=settings.capacity.spot)
    if arguments.json:
        return as_json({part.name: _as_data(part) for part in parts})
    return "\n".join(map(_as_table, parts))


def _parts(plan: Plan, *, spot: bool) -> list[_Part]:
    parts = [
        _Part(
            tier.name,
            f"Time-outs of tier {tier.name}",
            timeout_table(tier.timeouts),
            timeout_order(tier.timeouts, spot=spot),
        )
        for tier in plan.tiers
    ]
    if plan.model_router is not None:
        times = plan.model_router.timeouts
        order = model_router_order(times, [tier.timeouts for tier in plan.tiers])
        parts.append(_Part(_BY_MODEL, f"Time-outs of the Envoys of {_BY_MODEL}", model_router_table(times), order))
    return parts


def _as_data(part: _Part) -> dict[str, object]:
    return {
        "timeouts": [
            {"name": line.name, "seconds": line.seconds, "setting": line.setting, "followsFrom": line.follows_from}
            for line in part.timeouts
        ],
        "order": [{"relation": str(order), "holds": order.holds, "else": order.why} for order in part.order],
    }


def _as_table(part: _Part) -> str:
    from planning.report.terminal import plain_table  # noqa: PLC0415 (rich is slow to import, and data needs none of it)

    color = sys.stdout.isatty()
    lines = plain_table(
        part.title,
        [("time-out", "left"), ("seconds", "right"), ("becomes", "left"), ("follows from", "left")],
        [(line.name, f"{line.seconds:,}", line.setting, line.follows_from) for line in part.timeouts],
        color=color,
    )
    order = plain_table(
        "What must outlast what",
        [("", "left"), ("else", "left")],
        [(str(order), order.why) for order in part.order],
        color=color,
    )
    return f"{lines}\n{order}"
