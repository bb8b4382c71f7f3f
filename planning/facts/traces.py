"""Arrival traces: requests and tokens in equal steps of time, the shipped public ones and a user's own."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from planning.facts.table import DATA, InvalidCell, InvalidTable, Problem, Row, UnknownFact, read_header, read_table

_TRACES = DATA / "traces"

_SECONDS_OF_TIME_COLUMN = {"minute": 60.0, "hour": 3600.0, "t_start_s": 1.0}
_TOKENS = ("input_tokens", "output_tokens")
_AMOUNTS = ("requests", *_TOKENS)

#: Of a file in which each line is one request.
_REQUEST_TIME = "t_s"
_REQUESTS_STEP_S = 60.0
#: Every step of a trace takes memory, empty ones too: two numbers far apart are a slip of units sooner than a trace.
_LONGEST_S = 366 * 86_400.0

#: Of one cell, far above any trace's: sums stay finite.
_LARGEST = 1e15

_FORMAT = f"{', '.join(_SECONDS_OF_TIME_COLUMN)} for steps, or {_REQUEST_TIME} where each line is one request"

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

    def in_short(self) -> str:
        """How many problems there are, and the first of them, on one line without the path."""
        count = len(self.problems)
        first = [f"line {problem.line}: {problem.text}" for problem in self.problems[:3]]
        more = [f"{count - len(first)} more"] if count > len(first) else []
        return f"{count} problem{'s' if count > 1 else ''}: {'; '.join([*first, *more])}"


def names_file(profile: str) -> bool:
    """Whether a profile is the path of a trace file: names of profiles and shipped traces have no slash or ending."""
    return "/" in profile or profile.lower().endswith(".csv")


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
    """A user's trace, a CSV file of one of two kinds; other columns are ignored.

    Steps: one time column (``minute``, ``hour`` or ``t_start_s``) and the columns ``requests``, ``input_tokens`` and
    ``output_tokens``. Times are starts of steps of one length, of which a whole number fits into an hour.

    Requests: ``t_s`` (seconds) in order of time, ``input_tokens`` and ``output_tokens``, one line each. They are summed
    over minutes from the first request on; the last minute, whose end the file does not tell, counts only when it is
    the only one.

    Raises ``InvalidTrace`` with every missing column, or else with every bad cell, negative value, time out of order
    and gap, or for a trace without requests; ``OSError`` when the file cannot be opened.
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
    problems: list[Problem] = []
    try:
        time_column = _time_column(path)
        amounts = _TOKENS if time_column == _REQUEST_TIME else _AMOUNTS
        steps = read_table(path, (time_column, *amounts), lambda row: _step(row, time_column, amounts, problems))
    except UnicodeDecodeError:
        raise InvalidTrace(path, (Problem(1, "is not text in UTF-8"),)) from None
    except csv.Error as error:
        raise InvalidTrace(path, (Problem(1, f"is no CSV file: {error}"),)) from None
    if not steps:
        problems.append(Problem(1, "no line after the header"))
    if time_column == _REQUEST_TIME:
        step_s = _REQUESTS_STEP_S
        steps = _minutes(steps, problems)
    else:
        step_s = _step_length(steps, time_column, problems) * _SECONDS_OF_TIME_COLUMN[time_column]
    # Of a trace that tells hours apart, only whole ones are used.
    per_hour = max(1, round(3600 / step_s))
    whole = len(steps) - len(steps) % per_hour if len(steps) >= 24 * per_hour else len(steps)
    if not problems and not any(step.requests for step in steps[:whole]):
        problems.append(Problem(1, f"no requests in any of its {whole} steps"))
    if problems:
        raise InvalidTrace(path, tuple(sorted(problems, key=lambda problem: problem.line)))
    return Trace(
        name=path.stem,
        step_seconds=step_s,
        requests=tuple(step.requests for step in steps),
        input_tokens=tuple(step.input_tokens for step in steps),
        output_tokens=tuple(step.output_tokens for step in steps),
        source=source,
    )


def _time_column(path: Path) -> str:
    """The one time column of a file that has all columns. Raises ``InvalidTrace``."""
    header = read_header(path)
    separator = next((name for sign, name in ((";", "semicolons"), ("\t", "tabs")) if sign in "".join(header)), None)
    if len(header) == 1 and separator:
        raise InvalidTrace(path, (Problem(1, f"columns are separated by {separator}; write commas"),))
    written = {name.strip().lower(): name for name in header}
    times = [column for column in (*_SECONDS_OF_TIME_COLUMN, _REQUEST_TIME) if column in written]
    problems: list[Problem] = []
    if len(times) != 1:
        wrong = "more than one time column" if times else "a time column is missing"
        problems.append(Problem(1, f"{wrong}: one of {_FORMAT}"))
    amounts = _TOKENS if times == [_REQUEST_TIME] else _AMOUNTS
    for column in (*times, *amounts):
        if column in header:
            continue
        text = f"column {column} is missing"
        if column in written:
            text += f": it is written {written[column]!r}, lower case without spaces is needed"
        elif column == "requests":
            text += f"; where each line is one request, {_REQUEST_TIME} is its time in seconds"
        problems.append(Problem(1, text))
    if amounts == _TOKENS and "requests" in header:
        problems.append(
            Problem(1, f"{_REQUEST_TIME} is the time of one request, requests counts those of a step: use t_start_s")
        )
    if problems:
        raise InvalidTrace(path, tuple(problems))
    return times[0]


def _step(row: Row, time_column: str, amounts: tuple[str, ...], problems: list[Problem]) -> _Step:
    """Bad cells are added to ``problems`` and read as 0, so that the rest of the file is still checked."""

    def number(column: str) -> float | None:
        try:
            value = row.number(column)
        except InvalidCell as error:
            problems.append(Problem(row.line, str(error)))
            return None
        if value > _LARGEST:
            problems.append(Problem(row.line, f"{column} is {value:g}, above {_LARGEST:g}"))
            return None
        return value

    return _Step(
        line=row.line,
        start=number(time_column),
        requests=(number("requests") or 0.0) if "requests" in amounts else 1.0,
        input_tokens=number("input_tokens") or 0.0,
        output_tokens=number("output_tokens") or 0.0,
    )


def _minutes(requests: tuple[_Step, ...], problems: list[Problem]) -> tuple[_Step, ...]:
    """Single requests summed over minutes from the first one on; nothing where their times have problems."""
    timed = [(request.start, request) for request in requests if request.start is not None]
    for (before, _), (after, request) in pairwise(timed):
        if after < before:
            problems.append(Problem(request.line, f"{_REQUEST_TIME} {after:.15g} comes before {before:.15g}"))
    if problems:
        return ()
    first, last = timed[0][0], timed[-1][0]
    if last - first > _LONGEST_S:
        days = f"{(last - first) / 86_400:,.0f} days, more than {_LONGEST_S / 86_400:.0f}"
        text = f"{_REQUEST_TIME} goes from {first:.15g} to {last:.15g}, {days}: it should be in seconds"
        problems.append(Problem(timed[-1][1].line, text))
        return ()
    minutes = [[0.0, 0.0, 0.0] for _ in range(int((last - first) // _REQUESTS_STEP_S) + 1)]
    for start, request in timed:
        minute = minutes[int((start - first) // _REQUESTS_STEP_S)]
        for position, amount in enumerate((request.requests, request.input_tokens, request.output_tokens)):
            minute[position] += amount
    return tuple(_Step(0, None, *minute) for minute in minutes[:-1] or minutes)


def _step_length(steps: tuple[_Step, ...], time_column: str, problems: list[Problem]) -> float:
    """The time from one step to the next, in units of the time column: the shortest found; a longer one is a gap."""
    apart = [
        (before.start, after.start, after.line)
        for before, after in pairwise(steps)
        if before.start is not None and after.start is not None
    ]
    rising = [after - before for before, after, _ in apart if after > before]
    if len(steps) == 1 and time_column == "t_start_s":
        problems.append(Problem(steps[0].line, "the length of a step follows from two lines or more"))
    length = min(rising, default=1.0)
    for before, after, line in apart:
        if after <= before:
            problems.append(Problem(line, f"{time_column} {after:.15g} does not come after {before:.15g}"))
        elif after - before > length * (1 + 1e-6):
            gap = f"gap: {time_column} goes from {before:.15g} to {after:.15g}, a step is {length:.15g}"
            problems.append(Problem(line, gap))
    per_hour = 3600 / (length * _SECONDS_OF_TIME_COLUMN[time_column])
    if not problems and abs(per_hour - max(1, round(per_hour))) > 1e-6 * per_hour:
        text = f"a step is {3600 / per_hour:.15g} s, of which no whole number fits into an hour: choose 60 or 3600"
        problems.append(Problem(steps[1].line, text))
    return length
