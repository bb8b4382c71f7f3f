"""Rows for a person: a table, or blocks where the terminal is narrow. Verdicts are words; colours only repeat them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from preflight.rows import Row

#: Wide enough for a file or a log, where there is no terminal to ask.
_WIDTH = 120
#: Four columns of prose want this much; narrower, each row is a block of lines.
_TABLE_FROM = 100
_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "cyan"}
#: What there is to do comes last, where the terminal's prompt follows.
_ORDER = ("ok", "unknown", "warn", "fail")


def show(rows: Sequence[Row], title: str, console: Console | None = None) -> None:
    """Print the rows, those that failed at the end, then what to type, whole lines to copy, and a count."""
    console = console or console_for_tables()
    rows = sorted(rows, key=lambda row: _ORDER.index(row.verdict))
    commands = list(dict.fromkeys(row.command for row in rows if row.command))
    if console.width < _TABLE_FROM:
        console.print(Text(title, style="bold"))
        for row in rows:
            _block(row, _fix(row, commands), console)
    else:
        console.print(_table(rows, commands, title))
    for number, command in enumerate(commands, 1):
        console.print(Text(f"[{number}] {command}"), soft_wrap=True)
    counts = Counter(row.verdict for row in rows)
    console.print(Text(", ".join(f"{counts[verdict]} {verdict}" for verdict in _ORDER if counts[verdict])))


def console_for_tables() -> Console:
    """The terminal's own width on a terminal, a fixed one elsewhere."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)


def _table(rows: Sequence[Row], commands: Sequence[str], title: str) -> Table:
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("", no_wrap=True)
    for heading in ("check", "wanted", "found", "how to fix"):
        table.add_column(heading, ratio=1, overflow="fold")
    for row in rows:
        cells = (row.check, row.wanted, row.found, _fix(row, commands))
        table.add_row(Text(row.verdict, style=_STYLE[row.verdict]), *map(Text, cells))
    return table


def _block(row: Row, fix: str, console: Console) -> None:
    console.print(Text(row.verdict, style=_STYLE[row.verdict]) + Text(f"  {row.check}"))
    for line in _lines(row, fix):
        console.print(Padding(Text(line, overflow="fold"), (0, 0, 0, 2)))


def _lines(row: Row, fix: str) -> Iterator[str]:
    yield f"wanted: {row.wanted}"
    yield f"found: {row.found}"
    if fix:
        yield f"how to fix: {fix}"


def _fix(row: Row, commands: Sequence[str]) -> str:
    """The words, and the number of the command below."""
    return f"{row.fix} [{commands.index(row.command) + 1}]" if row.command else row.fix
