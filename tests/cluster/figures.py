"""Figures that tests measure, printed when the run ends and written to ``build/measured.md``.

A test records them as properties of its report, so that they reach the terminal from any worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.placement import Placement, report

Record = Callable[[str, object], None]
"""pytest's ``record_property``."""

_FILE: Final = Path(__file__).parents[2] / "build" / "measured.md"
_PLACEMENT, _FIGURE = "placement", "figure"


def record_placements(record: Record, placements: Sequence[Placement]) -> None:
    """Put placements into the report."""
    for each in placements:
        record(_PLACEMENT, each.row)


def record_figure(record: Record, text: str) -> None:
    """Put a measured figure into the report."""
    record(_FIGURE, text)


def show(terminal: pytest.TerminalReporter) -> None:
    """Print what was recorded, if anything was, and write it down."""
    recorded = [
        pair
        for outcome in ("passed", "failed")
        for test in terminal.stats.get(outcome, [])
        if getattr(test, "when", "") == "call"
        for pair in test.user_properties
    ]
    nodes = Counter(tuple(value) for name, value in recorded if name == _PLACEMENT)
    rows = sorted((*row, str(count)) for row, count in nodes.items())
    measured = Counter(str(value) for name, value in recorded if name == _FIGURE)
    figures = [f"- {text}" + (f" ({count} times)" if count > 1 else "") for text, count in measured.items()]
    if not recorded:
        return
    text = "\n\n".join(part for part in (report(rows) if rows else "", "\n".join(figures)) if part)
    terminal.section("measured on the real parts")
    terminal.write_line(text)
    _FILE.parent.mkdir(exist_ok=True)
    _FILE.write_text(f"{text}\n", encoding="utf-8")
