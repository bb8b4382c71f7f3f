"""The planner on the command line: ``python -m planning plan|report|fit|speed|…``, with no Pulumi and no account.

Exit code 0: done. 2: the input is wrong, or the plan is over a hard budget; one message lists everything.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from planning.commands.common import UsageError
from planning.facts.table import InvalidTable
from planning.stackfile import StackFileError
from problems import ConfigurationError

_COMMANDS = {
    "plan": "the plan and the cost of a stack file",
    "report": "the same for people, in the terminal or as one HTML page",
    "diff": "what changes between two stack files, or since a git revision, as Markdown",
    "fit": "memory of a model on GPUs, item by item",
    "evaluate": "the models of speed and memory against published measurements",
    "prices": "today's prices of a region from AWS into the data files",
    "timeouts": "every time-out on the way of a request, what it follows from and what it must outlast",
    "speed": "throughput and latency by batch size",
    "replay": "the forecast under a trace against simulated months",
}


#: Commands of other rooms. This file is the program's front door and finds them by name, as it finds its own; no module
#: of the planner imports them, so that what plans reads no network.
_ELSEWHERE = {"prices": "prices.command"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m planning", description="Size and price LLM serving on AWS.")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    for name, help_text in _COMMANDS.items():
        command = commands.add_parser(name, help=help_text)
        if given[:1] == [name]:
            # Each command imports what it alone needs.
            _command(name).configure(command)
        command.add_argument("--json", action="store_true", help="data instead of tables")
    parsed = parser.parse_args(given)
    try:
        print(_command(parsed.command).run(parsed), end="")
    except (ConfigurationError, InvalidTable, StackFileError, UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
    return 0


def _command(name: str) -> ModuleType:
    return import_module(_ELSEWHERE.get(name, f"planning.commands.{name}"))


if __name__ == "__main__":
    # A command is over before cycles of garbage matter, and looking for them takes a tenth of a large plan's time.
    gc.disable()
    sys.exit(main())
