"""Mistakes in a configuration, in the words of the person who can mend them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

NAMESPACE = "frugal-llm"
"""Of all settings of this program in a stack's configuration."""

#: Where a setting stands: names of sections and places in lists, as pydantic gives them.
Location = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration, in the words of the person who can mend it."""

    path: str
    value: object
    limit: str
    way_out: str = ""

    def __str__(self) -> str:
        """Give the problem on one line: path, value, limit, way out."""
        found = "" if self.value is None else f" is {_shown(self.value)}:"
        separator = "" if found else ":"
        return f"{self.path}{found}{separator} {self.limit}" + (f"; {self.way_out}" if self.way_out else "")


@dataclass(frozen=True, slots=True)
class Conflict:
    """Settings of one section that do not go together. The problem is told of the first."""

    settings: tuple[str, ...]
    """Names of all that take part."""
    value: object
    limit: str
    way_out: str

    def at(self, section: Location) -> Problem:
        """The problem of a conflict in a section."""
        return Problem(setting_path((*section, self.settings[0])), self.value, self.limit, self.way_out)


def _place(problem: Problem) -> list[str | int]:
    """What to sort problems by, so that those of a section stand together and the tenth tier's after the second's."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", problem.path)]


class ConfigurationError(Exception):
    """Every problem of one configuration, in one message."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=_place))
        count = len(self.problems)
        headline = f"{count} problem{'s' if count != 1 else ''} in the configuration, nothing was created:"
        super().__init__("\n".join([headline, *(f"  - {problem}" for problem in self.problems)]))


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Suggest the known names nearest to ``given``, or list a few of them when none is near."""
    names = sorted(set(known))
    near = nearest(given, names)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    return "choose one of " + ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


def nearest(given: str, known: Iterable[str]) -> list[str]:
    """The known names that ``given`` may be a slip of, at most three; none where none is near."""
    lowered = {name.lower(): name for name in sorted(set(known))}
    longer = [name for lower, name in lowered.items() if given and lower.startswith(given.lower())]
    near = difflib.get_close_matches(given.lower(), lowered, n=2, cutoff=0.5)
    return longer[:3] or [lowered[name] for name in near]


def _shown(value: object) -> str:
    """Write a value as YAML has it, not too long."""
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(int(value) if isinstance(value, float) and value.is_integer() else value)
    return text if len(text) <= 80 else text[:77] + "…"


def setting_path(location: Location) -> str:
    """Write a place as its key in a stack file, with the namespace."""
    if location[:1] == ("region",):
        return "aws:region"
    return f"{NAMESPACE}:" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(
        "."
    )
