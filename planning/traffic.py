"""Requests over the hours of a month: the shape of a week from a profile or a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from planning.facts.traces import Trace, trace, trace_names

HOURS_PER_MONTH = 730.0
HOURS_PER_WEEK = 168
DAYS_PER_MONTH = HOURS_PER_MONTH / 24

#: Where the day's shape of ``office-hours`` comes from: the only public trace of general use over whole weeks.
_OFFICE_TRACE = "servegen_m_large_hourly"


@dataclass(frozen=True, slots=True)
class Shape:
    """How the requests of a week (or of several) spread over its hours; the mean of ``weights`` is 1."""

    name: str
    weights: tuple[float, ...]
    """One per hour from Monday 00:00 local time; whole weeks."""
    peak_within_hour: float
    """Busiest ten minutes over the mean of their hour."""
    week_to_week: float
    """Largest ratio between two weeks' totals: how far a month may be off its mean."""
    source: str

    @property
    def peak_over_mean(self) -> float:
        """Busiest hour over the mean hour."""
        return max(self.weights)


def profile_names() -> tuple[str, ...]:
    """Every profile that a tier may name."""
    return ("flat", "office-hours", *trace_names())


def shape(profile: str, working_hours: Sequence[float]) -> Shape:
    """The weekly shape of ``profile``; ``working_hours`` has a week's 168 hours. KeyError for an unknown profile."""
    if profile == "flat":
        reference = _trace_shape(_OFFICE_TRACE)
        return Shape(
            "flat", (1.0,) * HOURS_PER_WEEK, reference.peak_within_hour, reference.week_to_week, "the same every hour"
        )
    if profile == "office-hours":
        return _office_hours(tuple(working_hours))
    return _trace_shape(_find(profile))


def _find(profile: str) -> str:
    """Let people leave out the resolution: ``servegen_m_large`` is the hourly file."""
    names = trace_names()
    for candidate in (profile, f"{profile}_hourly", f"{profile}_minute"):
        if candidate in names:
            return candidate
    raise KeyError(profile)


@cache
def _trace_shape(name: str) -> Shape:
    return from_trace(trace(name))


def from_trace(source: Trace) -> Shape:
    """The shape of a trace: its hours, repeated to whole weeks.

    A trace that is shorter than a day tells no hours apart: it gives a flat week and the bursts within an hour. The
    clock time of public traces is not documented; the first hour is taken for Monday 00:00.
    """
    per_hour = round(3600 / source.step_seconds)
    requests = source.requests
    hours = [sum(requests[start : start + per_hour]) for start in range(0, len(requests) - per_hour + 1, per_hour)]
    if len(hours) < 24:
        total = sum(requests)
        peak = max(requests) * len(requests) / total if source.step_seconds >= 600 else _ten_minute_peak(source)
        return Shape(source.name, (1.0,) * HOURS_PER_WEEK, max(1.0, peak), 1.0, source.source)
    days = len(hours) // 24
    usable = hours[: (len(hours) // HOURS_PER_WEEK or 1) * HOURS_PER_WEEK] if days >= 7 else hours[: days * 24]
    repeats = 1 if days >= 7 else -(-HOURS_PER_WEEK // len(usable))
    week = (usable * repeats)[: HOURS_PER_WEEK if days < 7 else len(usable)]
    mean = sum(week) / len(week)
    weeks = [sum(week[start : start + HOURS_PER_WEEK]) for start in range(0, len(week), HOURS_PER_WEEK)]
    return Shape(
        source.name,
        tuple(value / mean for value in week),
        _peak_within_hour(source.name),
        max(weeks) / min(weeks),
        source.source,
    )


@cache
def _peak_within_hour(name: str) -> float:
    """Busiest ten minutes over the mean of their hour, on average over the hours.

    From the trace's own ten-minute file; a trace that has none takes that of the largest one which has.
    """
    fine = name.replace("_hourly", "_10min")
    source = trace(fine if fine in trace_names() else _OFFICE_TRACE.replace("_hourly", "_10min"))
    hours = [source.requests[start : start + 6] for start in range(0, len(source.requests) - 5, 6)]
    ratios = [max(hour) * 6 / sum(hour) for hour in hours if sum(hour)]
    return sum(ratios) / len(ratios)


def _ten_minute_peak(source: Trace) -> float:
    window = round(600 / source.step_seconds)
    requests = source.requests
    sums = [sum(requests[start : start + window]) for start in range(len(requests) - window + 1)]
    return max(sums) * len(requests) / (window * sum(requests))


def _office_hours(working_hours: tuple[float, ...]) -> Shape:
    """Traffic in working hours only, each day shaped like the busiest stretch of the trace's mean day."""
    reference = _trace_shape(_OFFICE_TRACE)
    day = [sum(reference.weights[hour::24]) / len(reference.weights[hour::24]) for hour in range(24)]
    weights = [0.0] * HOURS_PER_WEEK
    for start in range(0, HOURS_PER_WEEK, 24):
        open_hours = [hour for hour in range(start, start + 24) if working_hours[hour]]
        busiest = max(range(24), key=lambda first: sum(day[(first + i) % 24] for i in range(len(open_hours))))
        for position, hour in enumerate(open_hours):
            weights[hour] = day[(busiest + position) % 24] * working_hours[hour]
    mean = sum(weights) / HOURS_PER_WEEK
    return Shape(
        "office-hours",
        tuple(weight / mean for weight in weights),
        reference.peak_within_hour,
        reference.week_to_week,
        f"all requests in working hours, each day shaped like the busiest hours of {_OFFICE_TRACE}",
    )
