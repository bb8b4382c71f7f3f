"""Arrival traces: requests and tokens in equal steps of time, the shipped public ones and a user's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from planning.facts.table import DATA, InvalidCell, InvalidTable, Problem, Row, UnknownFact, read_header, read_table

_TRACES = DATA / "traces"

_SECONDS_OF_TIME_COLUMN = {"minute": 60.0, "hour": 3600.0, "t_start_s": 1.0}
_AMOUNTS = ("requests", "input_tokens", "output_tokens")

# Down-sampled from public data; licences in data/SOURCES.md.
_SERVEGEN = "alibaba/ServeGen@f891d11 (arXiv 2505.09999), Apache-2.0"
_AZURE = "Azure/AzurePublicDataset@b469a11 AzureLLMInferenceTrace 2023-11-16 (Splitwise, ISCA 2024), CC-BY-4.0"
_MOONCAKE = "kvcache-ai/Mooncake@3b5a594 FAST25 conversation trace, Apache-2.0"
_SOURCES = {"servegen": _SERVEGEN, "azure2023": _AZURE, "mooncake": _MOONCAKE}


@dataclass(frozen=True, slots=True)
class Trace:
    """What arrived in each step. The three series have the same length."""

    name: str
    step_seconds: float
    requests: tuple[float, ...]
    """Requests of each step, not a rate."""
    input_tokens: tuple[float, ...]
    """Prompt tokens of all requests of each step."""
    output_tokens: tuple[float, ...]
    """Generated tokens of all requests of each step."""
    source: str


class InvalidTrace(InvalidTable):
    """A trace file with problems, all of them with their lines."""


def trace_names() -> tuple[str, ...]:
    """The names of the shipped traces, sorted."""
    return tuple(sorted(path.stem for path in _TRACES.glob("*.csv")))


@cache
def trace(name: str) -> Trace:
    """A shipped trace. Raises ``UnknownFact`` of kind ``trace``."""
    if name not in trace_names():
        raise UnknownFact("trace", name, trace_names())
    return _read(_TRACES / f"{name}.csv", _SOURCES[name.partition("_")[0]])


def read_trace(path: Path) -> Trace:
    """A user's trace: a CSV file with one time column (``minute``, ``hour`` or ``t_start_s``) and the columns
    ``requests``, ``input_tokens`` and ``output_tokens``. Times are starts of steps of one length; other columns are
    ignored.

    Raises ``InvalidTrace`` with every missing column, or else with every bad cell, negative value, time out of order
    and gap; ``OSError`` when the file cannot be opened.
    """
    return _read(path, str(path))


@dataclass(frozen=True, slots=True)
class _Step:
    line: int
    start: float | None
    """In units of the time column; None where that cell is bad."""
    requests: float
    input_tokens: float
    output_tokens: float


def _read(path: Path, source: str) -> Trace:
    time_column = _time_column(path)
    problems: list[Problem] = []
    steps = read_table(path, (time_column, *_AMOUNTS), lambda row: _step(row, time_column, problems))
    length = _step_length(steps, time_column, problems)
    if problems:
        raise InvalidTrace(path, tuple(sorted(problems, key=lambda problem: problem.line)))
    return Trace(
        name=path.stem,
        step_seconds=length * _SECONDS_OF_TIME_COLUMN[time_column],
        requests=tuple(step.requests for step in steps),
        input_tokens=tuple(step.input_tokens for step in steps),
        output_tokens=tuple(step.output_tokens for step in steps),
        source=source,
    )


def _time_column(path: Path) -> str:
    """The one time column of a file that has all columns. Raises ``InvalidTrace``."""
    header = read_header(path)
    found = [column for column in _SECONDS_OF_TIME_COLUMN if column in header]
    problems = [Problem(1, f"column {column} is missing") for column in _AMOUNTS if column not in header]
    if len(found) != 1:
        wrong = "more than one time column" if found else "a time column is missing"
        problems.insert(0, Problem(1, f"{wrong}: one of {', '.join(_SECONDS_OF_TIME_COLUMN)} is needed"))
    if problems:
        raise InvalidTrace(path, tuple(problems))
    return found[0]


def _step(row: Row, time_column: str, problems: list[Problem]) -> _Step:
    """Bad cells are added to ``problems`` and read as 0, so that the rest of the file is still checked."""

    def number(column: str) -> float | None:
        try:
            return row.number(column)
        except InvalidCell as error:
            problems.append(Problem(row.line, str(error)))
            return None

    return _Step(
        line=row.line,
        start=number(time_column),
        requests=number("requests") or 0.0,
        input_tokens=number("input_tokens") or 0.0,
        output_tokens=number("output_tokens") or 0.0,
    )


def _step_length(steps: tuple[_Step, ...], time_column: str, problems: list[Problem]) -> float:
    """The time from one step to the next, in units of the time column: the shortest found; a longer one is a gap."""
    apart = [
        (before.start, after.start, after.line)
        for before, after in pairwise(steps)
        if before.start is not None and after.start is not None
    ]
    rising = [after - before for before, after, _ in apart if after > before]
    if not steps:
        problems.append(Problem(1, "no line after the header"))
    elif len(steps) == 1 and time_column == "t_start_s":
        problems.append(Problem(steps[0].line, "the length of a step follows from two lines or more"))
    length = min(rising, default=1.0)
    for before, after, line in apart:
        if after <= before:
            problems.append(Problem(line, f"{time_column} {after:g} does not come after {before:g}"))
        elif after - before > length * (1 + 1e-6):
            problems.append(
                Problem(line, f"gap: {time_column} goes from {before:g} to {after:g}, a step is {length:g}")
            )
    return length
