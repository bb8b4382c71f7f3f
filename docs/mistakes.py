"""``docs/mistakes.md``: deliberate mistakes in the program's own objects, and who catches each."""

from __future__ import annotations

import itertools

from tests.mistakes import MISTAKES, STACK, Mistake


def mistakes_page() -> str:
    """The table, by kind of object."""
    lines = [
        "# Mistakes, and where each is caught",
        "",
        f"Made from `tests/mistakes.py` by `make docs`. Each of these {len(MISTAKES)} mistakes is made in an object",
        f"that the `{STACK}` stack emits, one at a time, and the tests demand that the tier named here refuses it and",
        "says why. What no tier of tests catches: an image or tag that does not exist, a quota of the account, and",
        "what only AWS itself refuses.",
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
