"""``docs/mistakes.md``: deliberate mistakes in a stack file and in the program's objects, and who catches each."""

from __future__ import annotations

import itertools

from tests.mistakes import MISTAKES, STACK, Mistake


def mistakes_page() -> str:
    """The table, by kind of object."""
    lines = [
        "# Mistakes, and where each is caught",
        "",
        f"Made from `tests/mistakes.py` by `make docs`. Each of these {len(MISTAKES)} mistakes is made in the file of",
        f"the `{STACK}` stack or in an object that it emits, one at a time. The tests demand that it is refused where",
        "this table says, with the reason, and in a stack file with what mends it and exit code 2. What no tier of",
        "tests catches: an image or tag that does not exist, a quota of the account, and what only AWS itself refuses.",
        "",
        "| object | mistake | caught by |",
        "|---|---|---|",
    ]
    ordered = sorted(MISTAKES, key=lambda mistake: mistake.kind)
    for kind, group in itertools.groupby(ordered, key=lambda mistake: mistake.kind):
        lines += [_row(kind, mistake) for mistake in group]
    return "\n".join(lines) + "\n"


def _row(kind: str, mistake: Mistake) -> str:
    return f"| {kind} `{mistake.name}` | {mistake.what} | {mistake.caught_by.value} |"
