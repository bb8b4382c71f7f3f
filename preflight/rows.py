"""What a check says: rows of a table, and the exit code that follows from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail", "unknown"]
"""``fail``: ``pulumi up`` would fail, or the stack could not serve its plan. ``unknown``: nobody could look."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was checked."""

    check: str
    wanted: str
    found: str
    verdict: Verdict
    fix: str = ""
    """What to do; empty when there is nothing to do."""
    command: str = ""
    """What to type for it, if it is one command."""


class NotAnswered(Exception):
    """A question that AWS or Hugging Face did not answer.

    The message is the reason, which names the permission that is missing, a semicolon, and the way out.
    """


def exit_code(rows: Iterable[Row]) -> int:
    """0: nothing failed, though something may be unknown; 1: something failed."""
    return int(any(row.verdict == "fail" for row in rows))
