"""``plan``: the plan and the cost of a stack file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from planning.commands.common import as_json
from planning.commands.planned import planned
from planning.outputs import alternatives, bill_details, plan_outputs
from planning.plan import Plan
from planning.stackfile import read_stack


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    command.add_argument("stackfile", type=Path, metavar="STACKFILE")


def run(arguments: argparse.Namespace) -> str:
    """Return what the command prints."""
    stack = read_stack(arguments.stackfile)
    _, plan = planned(stack)
    if arguments.json:
        return as_data(plan)
    from planning.report.terminal import report  # noqa: PLC0415 (rich is slow to import, and data needs none of it)

    return report(plan, stack.stack_name, color=sys.stdout.isatty())


def as_data(plan: Plan) -> str:
    """The plan as ``--json`` prints it."""
    return as_json({**plan_outputs(plan), **bill_details(plan), "alternatives": alternatives(plan)})
