"""Reading a CSV file of facts: typed cells, and all errors of a file in one exception."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal, TypeVar

DATA = Path(__file__).parent / "data"
MIB_PER_GIB = 1024

CpuArchitecture = Literal["amd64", "arm64"]
"""As in the node label ``kubernetes.io/arch``."""

CPU_ARCHITECTURES: tuple[CpuArchitecture, ...] = ("amd64", "arm64")

T = TypeVar("T")
Choice = TypeVar("Choice", bound=str)


class UnknownFact(KeyError):
    """A name that the facts do not hold. ``nearest`` has up to three known names that look like it."""

    def __init__(self, kind: str, name: str, known: Collection[str]) -> None:
        super().__init__(kind, name, known)
        self.kind: str = kind
        """What was looked for: ``model``, ``gpu``, ``region``, …"""
        self.name: str = name
        """The name as given."""
        self.nearest: tuple[str, ...] = _nearest(name, known)

    def __str__(self) -> str:
        hint = f"; did you mean {' or '.join(self.nearest)}?" if self.nearest else ""
        return f"unknown {self.kind} {self.name!r}{hint}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a file."""

    line: int
    """As an editor counts, the header is line 1."""
    text: str


class InvalidTable(ValueError):
    """A file that cannot be read as the table it should be; every problem found, in the order of lines."""

    def __init__(self, path: Path, problems: tuple[Problem, ...]) -> None:
        super().__init__(path, problems)
        self.path: Path = path
        self.problems: tuple[Problem, ...] = problems

    def __str__(self) -> str:
        return "\n".join(f"{self.path}:{problem.line}: {problem.text}" for problem in self.problems)


class InvalidCell(ValueError):
    """One cell that does not hold what its column should; ``read_table`` gathers these."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, read cell by cell. Every method raises ``InvalidCell`` for a cell of another kind."""

    line: int
    cells: Mapping[str, str | None]

    def text(self, column: str) -> str:
        """The cell, which may be empty."""
        return (self.cells[column] or "").strip()

    def name(self, column: str) -> str:
        """The cell, which must not be empty."""
        text = self.text(column)
        if not text:
            raise InvalidCell(f"{column} is empty")
        return text

    def number(self, column: str, *, least: float = 0.0) -> float:
        """A finite number, not below ``least``."""
        text = self.name(column)
        try:
            number = float(text)
        except ValueError:
            raise InvalidCell(f"{column} should be a number, not {text!r}") from None
        if not math.isfinite(number):
            raise InvalidCell(f"{column} should be a finite number, not {text!r}")
        if number < least:
            raise InvalidCell(f"{column} is {text}, below {least:g}")
        return number

    def price(self, column: str) -> float:
        """A number above 0: nothing that is sold here is free, so a zero is a mistake of its source."""
        number = self.number(column)
        if number == 0:
            raise InvalidCell(f"{column} is {self.text(column)}; a price is above 0")
        return number

    def integer(self, column: str) -> int:
        """A whole number, not negative."""
        number = self.number(column)
        if number != int(number):
            raise InvalidCell(f"{column} should be a whole number, not {self.text(column)!r}")
        return int(number)

    def yes(self, column: str) -> bool:
        """``yes`` or ``no``."""
        return self.choice(column, ("yes", "no")) == "yes"

    def choice(self, column: str, choices: Sequence[Choice]) -> Choice:
        """One of ``choices``."""
        text = self.name(column)
        for choice in choices:
            if choice == text:
                return choice
        raise InvalidCell(f"{column} should be one of {', '.join(choices)}, not {text!r}")

    def date(self, column: str) -> date | None:
        """A day as ``2026-07-09``; None when the source has no date (empty or ``undated``)."""
        text = self.text(column)
        if text in ("", "undated"):
            return None
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise InvalidCell(f"{column} should be a date as 2026-07-09, not {text!r}") from None

    def optional(self, read: Callable[[str], T], column: str) -> T | None:
        """``read(column)``, or None when the cell is empty: the source does not say."""
        return read(column) if self.text(column) else None


def read_table(path: Path, columns: Collection[str], parse: Callable[[Row], T]) -> tuple[T, ...]:
    """One ``parse(row)`` for each line of the CSV file at ``path``.

    Raises ``InvalidTable`` with every missing column, or with the first bad cell of each line, and ``OSError`` when the
    file cannot be opened. A byte-order mark, as spreadsheets write it, is skipped.
    """
    return parse_rows(path, _rows(path, columns), parse)


def rows_by_region(path: Path, columns: Collection[str]) -> Mapping[str, tuple[Row, ...]]:
    """The lines of a CSV file by their column ``region``, unparsed: one plan needs one region's. Raises as
    ``read_table``.
    """
    by_region: dict[str, list[Row]] = {}
    for region, row in read_table(path, ("region", *columns), lambda row: (row.name("region"), row)):
        by_region.setdefault(region, []).append(row)
    return {region: tuple(rows) for region, rows in by_region.items()}


def parse_rows(path: Path, rows: Iterable[Row], parse: Callable[[Row], T]) -> tuple[T, ...]:
    """One ``parse(row)`` for each row. Raises ``InvalidTable`` with the first bad cell of each."""
    parsed: list[T] = []
    problems: list[Problem] = []
    for row in rows:
        try:
            parsed.append(parse(row))
        except InvalidCell as error:
            problems.append(Problem(row.line, str(error)))
    if problems:
        raise InvalidTable(path, tuple(problems))
    return tuple(parsed)


def _rows(path: Path, columns: Collection[str]) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise InvalidTable(path, tuple(Problem(1, f"column {column} is missing") for column in missing))
        for cells in reader:
            yield Row(reader.line_num, cells)


def read_header(path: Path) -> tuple[str, ...]:
    """The column names of the CSV file at ``path``; empty for an empty file. Raises ``OSError``."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return tuple(next(csv.reader(file), ()))


def _nearest(name: str, known: Collection[str]) -> tuple[str, ...]:
    """Compared without case, and with or without the owner before a slash: people type ``llama-3.1-8b``."""

    def likeness(candidate: str) -> float:
        wanted, folded = name.casefold(), candidate.casefold()
        tails = difflib.SequenceMatcher(None, wanted.rpartition("/")[2], folded.rpartition("/")[2]).ratio()
        return max(difflib.SequenceMatcher(None, wanted, folded).ratio(), tails)

    scored = sorted(((likeness(candidate), candidate) for candidate in known), key=lambda pair: (-pair[0], pair[1]))
    return tuple(candidate for score, candidate in scored[:3] if score >= 0.6)
