"""What AWS says of a stack, read-only: ``python -m preflight STACK`` before up, ``leftovers STACK`` after destroy.

Exit codes of the checks: 0, nothing failed (a check may be unknown); 1, something failed; 2, the stack file is wrong.
Exit codes of leftovers: 0, nothing is left; 1, something is; 2, the stack file is wrong or AWS did not answer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from offline.engine import ProgramRefused, run_program
from planning.commands.planned import planned
from planning.facts.table import InvalidTable
from planning.stackfile import StackFileError, read_stack, stack_path
from preflight import leftovers
from preflight.aws import Account
from preflight.beside import ask, waiting_for
from preflight.questions import Stack, checks_of
from preflight.rows import NotAnswered, exit_code
from preflight.table import show
from problems import ConfigurationError

_PROGRAM = Path(__file__).resolve().parents[1] / "__main__.py"
_WRONG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    after = given[:1] == ["leftovers"]
    name = "python -m preflight" + (" leftovers" if after else "")
    parser = argparse.ArgumentParser(
        prog=name, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stack", metavar="STACK", help="a stack's name, or a path to a stack file")
    parser.add_argument("--json", action="store_true", help="data instead of a table")
    options = parser.parse_args(given[1:] if after else given)
    try:
        return (_leftovers if after else _preflight)(options)
    except (ConfigurationError, InvalidTable, StackFileError, ProgramRefused, NotAnswered) as error:
        print(error, file=sys.stderr)
        return _WRONG


def _preflight(options: argparse.Namespace) -> int:
    file = read_stack(stack_path(options.stack))
    settings, plan = planned(file)
    with waiting_for("the program's resources"), contextlib.redirect_stdout(sys.stderr):
        recording = run_program(
            _PROGRAM, file.project, file.stack_name, file.engine_config(), file.secret_keys, preview=True
        )
    token = os.environ.get("HF_TOKEN", "").strip()
    stack = Stack(file.stack_name, settings, plan, recording, datetime.now(UTC).date(), token)
    rows = ask(checks_of(stack, Account(plan.region)))
    if options.json:
        print(json.dumps({"stack": stack.name, "region": plan.region, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        show(rows, f"Stack {stack.name} in {plan.region}, before pulumi up")
    return exit_code(rows)


def _leftovers(options: argparse.Namespace) -> int:
    file = read_stack(stack_path(options.stack))
    if not file.region:
        raise StackFileError(f"{file.path}: aws:region is not set; leftovers are looked for in one region")
    with waiting_for("AWS"):
        left = leftovers.read(Account(file.region), file.stack_name, file.region, datetime.now(UTC))
    if options.json:
        print(json.dumps({"stack": file.stack_name, "region": file.region, **leftovers.as_data(left)}, indent=2))
    else:
        leftovers.show(left, file.stack_name, file.region)
    return leftovers.exit_code(left)


if __name__ == "__main__":
    sys.exit(main())
