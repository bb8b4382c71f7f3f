"""``report``: the plan of a stack file for people, in the terminal or as one HTML page."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from planning.commands.common import UsageError
from planning.commands.plan import as_data
from planning.commands.planned import planned, planned_in_detail
from planning.stackfile import read_stack


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    command.add_argument("stackfile", type=Path, metavar="STACKFILE")
    command.add_argument("--html", metavar="OUT.html", help="write one page that opens from disk")


def run(arguments: argparse.Namespace) -> str:
    """Return what the command prints."""
    out = _file(arguments.html)
    stack = read_stack(arguments.stackfile)
    if out is not None:
        from planning.report.page import page  # noqa: PLC0415 (only the page needs it)

        plan, details = planned_in_detail(stack)
        write_whole(out, page(plan, details, stack.stack_name))
        return f"{out}\n"
    _, plan = planned(stack)
    if arguments.json:
        return as_data(plan)
    from planning.report.terminal import report  # noqa: PLC0415 (rich is slow to import, and data needs none of it)

    return report(plan, stack.stack_name, color=sys.stdout.isatty())


def _file(named: str | None) -> Path | None:
    """The file of ``--html``. Raises ``UsageError`` when it cannot be one."""
    if named is None:
        return None
    if not named:
        raise UsageError("--html is empty: name a file, for example month.html")
    path = Path(named)
    if path.is_dir():
        raise UsageError(f"--html {path} is a directory: name a file, for example {path / 'month.html'}")
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place and move it there: readers see the old one or the new one, never half of it.

    What is there and is no file, as ``/dev/stdout``, is written to.
    Raises ``UsageError`` when it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        ) as file:
            beside = Path(file.name)
            try:
                file.write(text)
                file.close()
                # Temporary files are for their owner alone; a report is a file like any other.
                beside.chmod(0o644)
                beside.replace(path)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UsageError(f"--html {path}: cannot be written: {error.strerror or error}") from None
