"""Requests over the hours of a month: the shape of a week from a profile, or of a month from a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist, fmean

from planning.cold_start import AUTOSCALER_LOOK_S, LOAD_WINDOW_S
from planning.facts.traces import Trace, names_file, read_trace, trace, trace_names
from settings import Traffic, WorkingHours, open_hours

HOURS_PER_MONTH = 730.0
HOURS_PER_WEEK = 168
DAYS_PER_MONTH = HOURS_PER_MONTH / 24

#: Where the day's shape of the profiles comes from: the only public trace of general use over whole weeks.
_REFERENCE_TRACE = "servegen_m_large"


class Steps:
    """The load of a trace in equal steps, whose mean is 1; after the last comes the first."""

    def __init__(self, values: Sequence[float], step_s: float) -> None:
        self._values = list(values)
        self._step_s = step_s
        self._known: dict[int, tuple[float, float]] = {}

    def busiest(self, window_s: float) -> float:
        """The busiest step that the last ``window_s`` touch, on average over time."""
        return self._between(window_s)[0]

    def rises_per_hour(self, window_s: float) -> float:
        """How much that goes up in an hour, all rises added."""
        return self._between(window_s)[1]

    def _between(self, window_s: float) -> tuple[float, float]:
        whole, rest = divmod(window_s / self._step_s, 1)
        fewer, more = self._of_count(int(whole) + 1), self._of_count(int(whole) + 2)
        return (1 - rest) * fewer[0] + rest * more[0], (1 - rest) * fewer[1] + rest * more[1]

    def _of_count(self, count: int) -> tuple[float, float]:
        """Mean and rises an hour of the busiest of so many steps in a row."""
        if count not in self._known:
            around = [*self._values, *self._values[: count - 1]]
            busiest = [max(around[at : at + count]) for at in range(len(self._values))]
            rises = sum(max(0.0, after - before) for before, after in pairwise([busiest[-1], *busiest]))
            self._known[count] = fmean(busiest), rises / len(busiest) * 3600 / self._step_s
        return self._known[count]


@dataclass(frozen=True, slots=True)
class Bursts:
    """How the load moves around its mean within an hour, or within a whole trace too short to tell hours apart."""

    peak: float
    """Busiest load window (what the autoscaler averages over, or the trace's step where that is longer) over the
    mean."""
    lasts_s: float
    """How long a burst lasts: the time over which the load is correlated with itself."""
    period_s: float
    """Of what the peak is the peak."""
    steps: Steps | None = None
    """The trace's own, where it is long enough to tell hours apart and fine enough to tell what happens in them."""
    hours: Steps | None = None

    def held(self, window_s: float) -> float:
        """The busiest load of the last ``window_s`` over the mean, on average over time.

        Where the trace tells: over that of the hours' means. Else, of ``n`` independent loads the largest is about
        ``z(n)`` deviations above their mean. The peak tells the deviation, being the largest of the whole period.
        """
        if self.steps and self.hours:
            return max(1.0, self.steps.busiest(window_s) / self.hours.busiest(window_s))
        if self.peak <= 1 or window_s >= self.period_s:
            return self.peak
        of_window, of_period = (largest_of(1 + length / self.lasts_s) for length in (window_s, self.period_s))
        return 1 + (self.peak - 1) * of_window / of_period

    def rises_per_hour(self, window_s: float) -> float:
        """How much the busiest load of the last ``window_s`` goes up within hours, over the mean; 0 where unknown."""
        if not self.steps or not self.hours:
            return 0.0
        return max(0.0, self.steps.rises_per_hour(window_s) - self.hours.rises_per_hour(window_s))

    @property
    def deviation(self) -> float:
        """Standard deviation of the load over its mean, as the peak tells it."""
        return (self.peak - 1) / largest_of(1 + self.period_s / self.lasts_s) if self.peak > 1 else 0.0


STEADY = Bursts(peak=1.0, lasts_s=3600.0, period_s=3600.0)


@lru_cache(1024)
def largest_of(count: float) -> float:
    """Expected largest of ``count`` normal values, in their standard deviations (Blom 1958)."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """How the requests of some weeks or of a month spread over its hours; the mean of each series is 1."""

    name: str
    weights: tuple[float, ...]
    """Requests, one per hour from Monday 00:00 local time."""
    prompts: tuple[float, ...]
    """Prompt tokens of the same hours; as ``weights`` where nothing is known of lengths."""
    answers: tuple[float, ...]
    """Answer tokens of the same hours."""
    bursts: Callable[[float], Bursts]
    """By the share of a replica's time that goes to prompts."""
    week_to_week: float
    """Largest ratio between two weeks' totals: how far a month may be off its mean."""
    source: str

    @property
    def peak_over_mean(self) -> float:
        """Busiest hour over the mean hour, in requests."""
        return max(self.weights)


@dataclass(frozen=True, slots=True)
class Profile:
    """A named shape of the week, and in words what it is."""

    name: str
    meaning: str


PROFILES = (
    Profile("flat", "the same at every hour"),
    Profile(
        "office-hours",
        "working hours of the schedule only (without a schedule Monday to Friday, 8 to 18), each day shaped like the "
        "trace's busiest hours",
    ),
    Profile("global", "users in the Americas, Europe and Asia alike: the trace's mean day, eight hours apart each"),
    Profile("batch-window", "evenly outside the schedule's working hours; without a schedule from 22:00 to 06:00"),
)


def profile_names() -> tuple[str, ...]:
    """Every profile that a tier may name."""
    return (*(profile.name for profile in PROFILES), *trace_names())


def profile_choices() -> tuple[str, ...]:
    """The same by their shortest names."""
    return tuple(dict.fromkeys(_short(name) for name in profile_names()))


def shape(profile: str, working_hours: Sequence[float]) -> Shape:
    """The shape of ``profile``, a name or the path of a trace file; ``working_hours`` has a week's 168 hours.

    Raises ``KeyError`` for an unknown profile; for a file as ``read_trace``, or ``OSError`` where it is none.
    """
    if profile in _BUILT:
        return _BUILT[profile](tuple(working_hours))
    if names_file(profile):
        path = Path(profile)
        if path.exists() and not path.is_file():
            raise OSError("is no file")
        status = path.stat()
        return _of_file(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return _named(_find(profile))


def with_peak(given: Shape, peak_over_mean: float) -> Shape:
    """The same shape with another busiest hour over the mean hour.

    Every hour is raised to the same power, so the order of the hours stays and quiet ones stay above zero. Raises
    ``ValueError`` where no power does: a shape without ups and downs has none to stretch, and requests in few hours
    only cannot come evenly.
    """
    busiest = sum(weight > 0.999999 * given.peak_over_mean for weight in given.weights)
    awake = sum(weight > 0 for weight in given.weights)
    least, most = len(given.weights) / awake, len(given.weights) / busiest
    if not (least - 1e-9 <= peak_over_mean < most or math.isclose(peak_over_mean, given.peak_over_mean)):
        raise ValueError(f"it is {given.peak_over_mean:.2f}, and between {least:.2f} and {most:.2f} once stretched")

    def stretched(power: float) -> list[float]:
        return [weight**power if weight else 0.0 for weight in given.weights]

    low, high = 0.0, 1.0
    while max(stretched(high)) / fmean(stretched(high)) < peak_over_mean and high < 256:
        low, high = high, 2 * high
    for _ in range(50):
        power = (low + high) / 2
        values = stretched(power)
        low, high = (power, high) if max(values) / fmean(values) < peak_over_mean else (low, power)
    weights = tuple(_over_mean(stretched(high)))
    change = [new / old if old else 0.0 for new, old in zip(weights, given.weights, strict=True)]
    prompts, answers = (
        tuple(_over_mean([value * factor for value, factor in zip(series, change, strict=True)]))
        for series in (given.prompts, given.answers)
    )
    return replace(given, weights=weights, prompts=prompts, answers=answers)


def growing(given: Shape, percent_per_month: float) -> Shape:
    """Four weeks of a shape in which traffic grows; the mean stays, so the first week is below it."""
    weeks = tuple(_tiled(given.weights, 4 * HOURS_PER_WEEK))
    hours = len(weeks)
    factor = [(1 + percent_per_month / 100) ** (hour / HOURS_PER_MONTH) for hour in range(hours)]

    def grown(series: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(_over_mean([a * b for a, b in zip(_tiled(series, hours), factor, strict=True)]))

    return replace(given, weights=grown(given.weights), prompts=grown(given.prompts), answers=grown(given.answers))


def together(parts: Sequence[tuple[Shape, Traffic]]) -> Shape:
    """The shape of several tiers' requests on one fleet; bursts are those of the tier with the most requests."""
    length = max(len(part.weights) for part, _ in parts)

    def summed(series: Callable[[Shape], Sequence[float]], per_day: Callable[[Traffic], float]) -> tuple[float, ...]:
        tiled = [(_tiled(series(part), length), per_day(traffic)) for part, traffic in parts]
        return tuple(_over_mean([sum(values[hour] * amount for values, amount in tiled) for hour in range(length)]))

    most, _ = max(parts, key=lambda part: part[1].requests_per_day)
    return replace(
        most,
        weights=summed(lambda part: part.weights, lambda traffic: traffic.requests_per_day),
        prompts=summed(lambda part: part.prompts, lambda traffic: traffic.requests_per_day * traffic.input_tokens),
        answers=summed(lambda part: part.answers, lambda traffic: traffic.requests_per_day * traffic.output_tokens),
    )


def _find(profile: str) -> str:
    """Let people leave out the resolution: ``servegen_m_large`` is the hourly file."""
    names = trace_names()
    for candidate in (profile, f"{profile}_hourly", f"{profile}_minute"):
        if candidate in names:
            return candidate
    raise KeyError(profile)


def _short(name: str) -> str:
    """The shortest name by which ``_find`` gives the same."""
    stem = name.rpartition("_")[0]
    return stem if stem and _find(stem) == name else name


@lru_cache(16)
def _of_file(path: Path, _version: tuple[int, ...]) -> Shape:
    """A user's trace as a shape of requests. Comparing variants asks for it again and again."""
    return from_trace(_of_one_length(read_trace(path)))


@cache
def _named(name: str) -> Shape:
    """A shipped trace's shape of requests: lengths are the tier's own at any hour.

    An hourly trace has the bursts of its ten-minute file, or else of the reference's.
    """
    given = from_trace(_of_one_length(trace(name)))
    if not name.endswith("_hourly"):
        return given
    fine = name.replace("_hourly", "_10min")
    fine = fine if fine in trace_names() else f"{_REFERENCE_TRACE}_10min"
    return replace(given, bursts=from_trace(_of_one_length(trace(fine))).bursts)


def _of_one_length(given: Trace) -> Trace:
    return replace(given, input_tokens=given.requests, output_tokens=given.requests)


def from_trace(source: Trace) -> Shape:
    """The shape of a trace: its hours, repeated to whole weeks, or to a month where that is shorter.

    A trace that is shorter than a day tells no hours apart: it gives a flat week, and how far and how long its load
    departs from the mean. The clock time of public traces is not documented; the first hour is taken for Monday 00:00.
    Where no tokens are counted, all requests have one length.
    """
    source = _per_look(source)
    per_hour = round(3600 / source.step_seconds)
    count = len(source.requests) // per_hour
    if count >= 24:
        source = _summed(source, 1, count * per_hour)
    source = replace(
        source,
        input_tokens=source.input_tokens if any(source.input_tokens) else source.requests,
        output_tokens=source.output_tokens if any(source.output_tokens) else source.requests,
    )
    if count < 24:
        flat = (1.0,) * HOURS_PER_WEEK
        return Shape(source.name, flat, flat, flat, _bursts_of(source, len(source.requests)), 1.0, source.source)

    def hours(series: Sequence[float]) -> list[float]:
        sums = [sum(series[start : start + per_hour]) for start in range(0, count * per_hour, per_hour)]
        return _over_mean(_tiled(sums, min(math.lcm(count, HOURS_PER_WEEK), round(HOURS_PER_MONTH))))

    weights = tuple(hours(source.requests))
    prompts = answers = weights
    if not source.input_tokens == source.output_tokens == source.requests:
        prompts, answers = tuple(hours(source.input_tokens)), tuple(hours(source.output_tokens))
    weeks = [sum(weights[at : at + HOURS_PER_WEEK]) for at in range(0, count - HOURS_PER_WEEK + 1, HOURS_PER_WEEK)]
    return Shape(
        source.name,
        weights,
        prompts,
        answers,
        _bursts_of(source, per_hour),
        max(weeks) / min(weeks) if weeks and min(weeks) else 1.0,
        source.source,
    )


def _per_look(source: Trace) -> Trace:
    """Steps finer than the autoscaler looks, summed where they fit: it sees no finer, and bursts take long to count."""
    steps = round(AUTOSCALER_LOOK_S / source.step_seconds)
    whole = len(source.requests) // max(1, steps) * steps
    if steps <= 1 or not whole or not math.isclose(steps * source.step_seconds, AUTOSCALER_LOOK_S):
        return source
    return _summed(source, steps, whole)


def _summed(source: Trace, steps: int, until: int) -> Trace:
    """A trace's first steps, so many in one."""

    def summed(series: Sequence[float]) -> tuple[float, ...]:
        return tuple(sum(series[at : at + steps]) for at in range(0, until, steps))

    return replace(
        source,
        step_seconds=steps * source.step_seconds,
        requests=summed(source.requests),
        input_tokens=summed(source.input_tokens),
        output_tokens=summed(source.output_tokens),
    )


def _bursts_of(source: Trace, period: int) -> Callable[[float], Bursts]:
    """Bursts of a trace within periods of so many steps: the busiest load window of each over its mean, on average."""
    window = max(1, round(LOAD_WINDOW_S / source.step_seconds))
    prompts, answers = _over_mean(source.input_tokens), _over_mean(source.output_tokens)

    @cache
    def bursts(prefill_share: float) -> Bursts:
        period_s = period * source.step_seconds
        if period <= window:
            return replace(STEADY, period_s=period_s)
        work = [prefill_share * a + (1 - prefill_share) * b for a, b in zip(prompts, answers, strict=True)]
        peaks: list[float] = []
        correlated: list[float] = []
        for start in range(0, len(work) - period + 1, period):
            part = work[start : start + period]
            mean = fmean(part)
            if mean:
                # What came before the first step is taken to be what comes at the end: short traces are repeated.
                around = [*part[period - window + 1 :], *part]
                smooth = [sum(around[at : at + window]) / window / mean for at in range(period)]
                peaks.append(max(smooth))
                correlated.append(_correlated_steps(smooth))
        lasts_s = max(LOAD_WINDOW_S, source.step_seconds, fmean(correlated) * source.step_seconds)
        peak = max(1.0, fmean(peaks))
        if len(work) < 24 * period:
            return Bursts(peak, lasts_s, period_s)
        whole = work[: len(work) // period * period]
        around = [*whole[len(whole) - window + 1 :], *whole]
        smooth = [sum(around[at : at + window]) / window for at in range(len(whole))]
        by_hour = [fmean(whole[at : at + period]) for at in range(0, len(whole), period)]
        return Bursts(peak, lasts_s, period_s, Steps(smooth, source.step_seconds), Steps(by_hour, period_s))

    one_length = prompts == answers
    return lambda prefill_share: bursts(0.0 if one_length else prefill_share)


def _correlated_steps(load: Sequence[float]) -> float:
    """Steps over which a load with mean 1, repeated, is correlated: the sum of its autocorrelations until they end."""
    apart = [value - 1 for value in load]
    variance = sum(value * value for value in apart)
    total = 1.0
    for lag in range(1, len(apart) // 2) if variance else ():
        correlation = sum(a * b for a, b in zip(apart, [*apart[lag:], *apart[:lag]], strict=True)) / variance
        if correlation <= 0:
            break
        total += 2 * correlation
    return total


def _reference_day() -> list[float]:
    weights = _named(f"{_REFERENCE_TRACE}_hourly").weights
    return [fmean(weights[hour::24]) for hour in range(24)]


def _from_weights(name: str, weights: Sequence[float], source: str) -> Shape:
    """A shape without a trace of its own: bursts and weeks as of the reference trace."""
    reference = _named(f"{_REFERENCE_TRACE}_hourly")
    even = tuple(_over_mean(weights))
    return Shape(name, even, even, even, reference.bursts, reference.week_to_week, source)


@cache
def _flat(_: tuple[float, ...]) -> Shape:
    return _from_weights("flat", (1.0,) * HOURS_PER_WEEK, "the same every hour")


@cache
def _office_hours(working_hours: tuple[float, ...]) -> Shape:
    """Traffic in working hours only, each day shaped like the busiest stretch of the trace's mean day."""
    if all(share == 1 for share in working_hours):
        working_hours = open_hours(WorkingHours())
    day = _reference_day()
    weights = [0.0] * HOURS_PER_WEEK
    for start in range(0, HOURS_PER_WEEK, 24):
        at_work = [hour for hour in range(start, start + 24) if working_hours[hour]]
        busiest = max(range(24), key=lambda first: sum(day[(first + i) % 24] for i in range(len(at_work))))
        for position, hour in enumerate(at_work):
            weights[hour] = day[(busiest + position) % 24] * working_hours[hour]
    source = f"all requests in working hours, each day shaped like the busiest hours of {_REFERENCE_TRACE}"
    return _from_weights("office-hours", weights, source)


@cache
def _global(_: tuple[float, ...]) -> Shape:
    """Three equal groups of users, each with the trace's mean day at its own time."""
    day = _reference_day()
    weights = [sum(day[(hour + apart) % 24] for apart in (0, 8, 16)) for hour in range(24)] * 7
    return _from_weights("global", weights, f"mean day of {_REFERENCE_TRACE} at three places eight hours apart")


@cache
def _batch_window(working_hours: tuple[float, ...]) -> Shape:
    closed = [1 - share for share in working_hours]
    weights = closed if any(closed) else [1.0 if hour % 24 in {22, 23, *range(6)} else 0.0 for hour in range(168)]
    return _from_weights("batch-window", weights, "evenly outside working hours")


_BUILT: dict[str, Callable[[tuple[float, ...]], Shape]] = {
    "flat": _flat,
    "office-hours": _office_hours,
    "global": _global,
    "batch-window": _batch_window,
}


def _tiled(series: Sequence[float], length: int) -> list[float]:
    """A series repeated to a length; one that is longer stays whole."""
    return list(series) if len(series) >= length else (list(series) * math.ceil(length / len(series)))[:length]


def _over_mean(series: Sequence[float]) -> list[float]:
    mean = fmean(series)
    return [value / mean for value in series] if mean else [0.0] * len(series)
