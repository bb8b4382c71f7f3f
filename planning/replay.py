"""A month of one autoscaled deployment, played many times over: what the forecast of the bill is held against.

Nothing here is shared with the forecast but facts, prices and the chosen fleet. The forecast works the month out in
closed form; here the parts act as they do in a cluster:

* Requests come at the trace's rate, Poisson or burstier. The number that runs is that of an infinite server: Poisson
  distributed around load x concurrency, forgetting itself within one request's stay (bursts: negative binomial, with
  the peakedness of batches, (1 + CV^2) / 2).
* The autoscaler looks every 15 seconds at the mean of the load window, scales up at once and down to the most it asked
  for within the stabilisation window. A sleeping tier wakes at its first request and sleeps when none ran or waited for
  the cooldown.
* A new replica takes an empty node that is still there, or Karpenter buys one: the cheapest offering that has capacity
  at that moment, else on-demand. Nodes are paid from launch to removal. Spot nodes are taken back at the rate of their
  class; the replacement is ordered at the two minutes' notice.

What it does not prove. It shares the planned rate of a replica, its start time, the prices, and what an offering's
interruption class says of its capacity: if those are wrong, forecast and replay are wrong together. Offerings have
capacity independently of each other and of the last try, where real shortages come together and last. Latency does not
react: requests beyond the capacity are counted, but do not slow each other down or pile up for the next replicas. The
trace stands for every month.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaincc, ndtri, pdtr, pdtrc

from planning.cold_start import AUTOSCALER_LOOK_S, LOAD_WINDOW_S, ColdStart, scale_down_window_s
from planning.facts.traces import Trace

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int16]
Lanes = npt.NDArray[np.int64]

LOOK_S = AUTOSCALER_LOOK_S
_MINUTE_S = 60
_LOOKS = _MINUTE_S // LOOK_S
_LOOKS_PER_WEEK = 168 * 3600 // LOOK_S
_WEEKS_PER_MONTH = 730 / 168

#: EC2's notice before it takes a spot instance back.
_NOTICE_S = 120.0

#: For so long Karpenter leaves an offering alone that had no capacity (its cache of unavailable offerings).
_RETRY_S = 180.0

#: Played before the month begins, so that it begins in the middle of things.
_WARM_UP_S = 7200

#: The least probability that a count of running requests is drawn with.
_LEAST_CHANCE = 1e-10

#: Of single precision: a mean of whole numbers that just fits must not ask for one more.
_ROUNDING = np.float32(1e-5)

#: Requests expected within a cooldown, over those of a burst, from which a gap as long is as good as impossible
#: (exp(-40)).
_NEVER_IDLE = 40.0

_EULER = 0.5772156649

#: Its multiples are spread evenly between whole numbers, however many there are (Weyl).
_GOLDEN = (math.sqrt(5) - 1) / 2

#: Blocks of minutes that are drawn at once.
_BLOCK = 120


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """What arrives at a deployment, look by look (``LOOK_S``) over whole weeks from Monday 00:00."""

    requests: Floats
    """Expected in each look."""
    replicas: Floats
    """How many replicas at their largest rate it keeps busy."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to buy a node."""

    usd_per_hour: float
    """With the node's disk."""
    capacity: float
    """Probability that it can be bought when it is asked for."""
    interruptions_per_hour: float
    on_demand: bool


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """Replicas that are scaled together, each on a node of its own."""

    load: Load
    is_open: npt.NDArray[np.bool_]
    """For each look, whether it is in working hours."""
    requests_per_second: float
    """Of one replica at its largest rate."""
    concurrency: float
    """Requests that run on it then."""
    target: float
    """Running requests, on average over the load window, for each of which the autoscaler wants a replica."""
    burstiness: float
    """Coefficient of variation of the times between arrivals; below 1 counts as 1."""
    minimum: int
    working_hours: int
    maximum: int | None
    floor: int
    """Replicas on on-demand nodes, at all times."""
    may_sleep: bool
    cooldown_s: float
    node_idle_s: float
    """How long Karpenter keeps an empty node."""
    cold_start: ColdStart
    offers: tuple[Offer, ...]
    """In the order in which they are tried."""
    floor_offer: Offer
    image_usd: float
    """For every new node."""


@dataclass(frozen=True, slots=True, eq=False)
class Replays:
    """Months of one deployment: an entry for each replay, scaled from whole weeks to 730 hours."""

    usd: Floats
    node_hours: Floats
    """Paid: starting, serving, and empty until removed."""
    serving_hours: Floats
    starts: Floats
    """On new nodes, those after interruptions among them."""
    interruptions: Floats
    on_demand_hours: Floats
    requests: float
    """Expected."""
    waited: Floats
    """Requests that found no replica serving."""
    above_capacity: Floats
    """Requests in minutes in which the load is more than the serving replicas are planned for."""


def month_of(trace: Trace, requests_per_day: float, requests_per_second: float, prefill_share: float) -> Load:
    """A trace scaled to a mean, as the load of replicas that carry ``requests_per_second`` at most.

    The trace is repeated, or cut, to whole weeks as near to a month as its own weeks allow: a month has average weeks.
    ``prefill_share`` is the part of a replica's time that goes with prompt tokens; the rest goes with answer tokens.
    """
    length = len(trace.requests) * trace.step_seconds
    own_weeks = max(1, int(length / (LOOK_S * _LOOKS_PER_WEEK)))
    weeks = own_weeks * max(1, round(_WEEKS_PER_MONTH / own_weeks))
    requests = np.array(trace.requests)
    total = requests.sum()
    # Of the trace's mean request: prompts weigh as much of a replica's time as they take at its largest rate.
    prompts, answers = (_relative(series, requests) for series in (trace.input_tokens, trace.output_tokens))
    work = prefill_share * prompts + (1 - prefill_share) * answers
    edges = LOOK_S * np.arange(weeks * _LOOKS_PER_WEEK + 1, dtype=float)

    def per_look(series: Floats) -> Floats:
        cumulated = np.concatenate(([0.0], np.cumsum(series)))
        rounds, within = np.divmod(edges, length)
        position = np.interp(within, np.arange(len(cumulated)) * trace.step_seconds, cumulated)
        looks = np.diff(rounds * cumulated[-1] + position)
        # Equal steps must stay equal: their distributions are worked out once.
        return np.round(looks / total * 1e12) / 1e12

    arrivals, busy = per_look(requests), per_look(work)
    mean = requests_per_day / 86400 * LOOK_S
    scale = mean / arrivals.mean()
    return Load(arrivals * scale, busy * scale / (LOOK_S * requests_per_second))


def _relative(tokens: tuple[float, ...], requests: Floats) -> Floats:
    """Tokens of each step in units of the mean request's."""
    series = np.array(tokens)
    return series * (requests.sum() / series.sum()) if series.sum() else requests


def open_looks(working: tuple[float, ...], looks: int) -> npt.NDArray[np.bool_]:
    """Which looks are in working hours; ``working`` is the share of each of a week's hours that is.

    An hour that is open in part is so at its start when the hour before is open, else at its end.
    """
    per_hour = 3600 // LOOK_S
    within = (np.arange(per_hour) + 0.5) / per_hour
    hours = [within < share if working[hour - 1] > 0 else within > 1 - share for hour, share in enumerate(working)]
    return np.tile(np.concatenate(hours), looks // _LOOKS_PER_WEEK)


def replay(
    deployment: Deployment,
    replays: int,
    seed: int | np.random.SeedSequence,
    progress: Callable[[float], None] = lambda _: None,
) -> Replays:
    """Play so many months; the same seed gives the same ones. ``progress`` is told the share that is done."""
    return _Month(deployment, replays, np.random.default_rng(seed)).play(progress)


class _Month:
    """The state of all replays of a deployment, an entry for each replay; times in seconds from the month's start."""

    def __init__(self, deployment: Deployment, replays: int, rng: np.random.Generator) -> None:
        self._deployment = deployment
        self._rng = rng
        load = deployment.load
        self._end = float(LOOK_S * len(load.requests))
        self._wishes = _Wishes(deployment, replays, rng)
        self._nodes = _Nodes(deployment, replays, self._end, rng)
        self._held = np.zeros(replays, dtype=np.int16)
        self._last_active = np.full(replays, -np.inf)
        self._burst = max(1.0, deployment.burstiness**2)
        self._clock = 0.0
        """Requests expected so far; ``_due`` is when it strikes the next one of each replay."""
        self._due = np.full(replays, -np.inf)
        self._queued = np.zeros(replays)
        """Requests that waited when a replica came to serve."""
        self._luck = rng.standard_normal(replays)
        """How far the requests that waited, and came right after, are from what was expected: a normal quantile."""
        self._waited = np.zeros(replays)
        self._above = np.zeros(replays)

    def play(self, progress: Callable[[float], None]) -> Replays:
        deployment, nodes = self._deployment, self._nodes
        first = -_WARM_UP_S // _MINUTE_S
        minutes = int(self._end) // _MINUTE_S
        load = deployment.load.replicas.reshape(minutes, _LOOKS).mean(axis=1)
        requests = deployment.load.requests.reshape(minutes, _LOOKS).sum(axis=1)
        is_open = deployment.is_open[::_LOOKS]
        for minute, least, most in self._wishes.minutes(first, minutes):
            if minute % _BLOCK == 0:
                progress(max(0, minute) / minutes)
            start = float(minute * _MINUTE_S)
            kept = deployment.working_hours if is_open[minute] else deployment.minimum
            for lane in nodes.interrupt(start + _MINUTE_S):
                self._queued[lane], self._luck[lane] = 0, self._rng.standard_normal()
            if minute == first and not (deployment.may_sleep and kept == 0):
                self._scale(np.maximum(least, 1), start)
            self._follow(least, most, start, max(1, kept), load[minute])
            if deployment.may_sleep:
                self._sleep_and_wake(start, kept, load[minute], requests[minute])
            else:
                self._count_waiting(start, requests[minute])
            if minute >= 0:
                self._above += requests[minute] * (load[minute] > nodes.serving(start + _MINUTE_S / 2) + 1e-9)
        nodes.close()
        month = _WEEKS_PER_MONTH * 168 * 3600 / self._end
        return Replays(
            usd=(nodes.usd + nodes.starts * deployment.image_usd) * month,
            node_hours=nodes.paid_s / 3600 * month,
            serving_hours=nodes.serving_s / 3600 * month,
            starts=nodes.starts * month,
            interruptions=nodes.interruptions * month,
            on_demand_hours=nodes.on_demand_s / 3600 * month,
            requests=float(requests.sum()) * month,
            waited=self._waited * month,
            above_capacity=self._above * month,
        )

    def _follow(self, least: Counts, most: Counts, start: float, kept: int, load: float) -> None:
        """Between what the autoscaler asks for and the most that it asked for lately, replicas stay as they are."""
        # The mean of a minute's four looks.
        moment = start + (_LOOKS - 1) * LOOK_S / 2
        served_for = moment - self._nodes.serves_from
        if (served_for < LOAD_WINDOW_S + self._wishes.window_s).any():
            least, most = self._after_a_gap(least, most, np.maximum(served_for, 0), kept, load)
        wanted = np.minimum(np.maximum(self._held, least), most)
        if self._deployment.may_sleep:
            wanted[self._held == 0] = 0
        self._scale(wanted, moment)

    def _after_a_gap(
        self, least: Counts, most: Counts, served_for: Floats, kept: int, load: float
    ) -> tuple[Counts, Counts]:
        """The same where nothing ran within the load window: it still holds that time, and the requests that waited
        all run at once, as many more as the load alone would have running.
        """
        stay_s, rate = self._stay_s, load * self._deployment.requests_per_second

        def asked(requests: Floats, left: Floats | float) -> Counts:
            """With ``left`` of a stay's seconds outside the window yet. A sum of as many exponential stays varies."""
            varied = np.maximum(0, requests + self._luck * np.sqrt((1 + self._burst) * requests))
            replicas = np.ceil(varied * stay_s * left / (LOAD_WINDOW_S * self._wishes.threshold) - _ROUNDING)
            return np.clip(replicas, kept, self._wishes.limit).astype(np.int16)

        fresh = served_for < LOAD_WINDOW_S
        now = asked(rate * served_for + self._queued, -np.expm1(-served_for / stay_s))
        at_most = asked((rate * LOAD_WINDOW_S + self._queued) * (self._queued > 0), 1.0)
        recent = served_for < LOAD_WINDOW_S + self._wishes.window_s
        return np.where(fresh, now, least), np.where(recent, np.maximum(most, at_most), most)

    def _scale(self, wanted: Counts, when: float) -> None:
        changed = np.flatnonzero(wanted != self._held)
        if len(changed):
            self._change(changed, wanted[changed], np.full(len(changed), when))

    def _change(self, lanes: Lanes, wanted: Counts, when: Floats) -> None:
        """Start the replicas that are missing, and remove the newest of those that are too many."""
        held = self._held[lanes]
        for place in range(int(held.min()), int(wanted.max())):
            starting = (held <= place) & (place < wanted)
            if starting.any():
                self._nodes.start(place, lanes[starting], when[starting])
        for place in reversed(range(int(wanted.min()), int(held.max()))):
            stopping = (wanted <= place) & (place < held)
            if stopping.any():
                self._nodes.stop(place, lanes[stopping], when[stopping])
        self._held[lanes] = wanted

    def _sleep_and_wake(self, start: float, kept: int, load: float, requests: float) -> None:
        """A minute of a tier that sleeps while idle, request by request while gaps of a cooldown are possible."""
        held, end, cooldown_s = self._held, start + _MINUTE_S, self._deployment.cooldown_s
        before, self._clock = self._clock, self._clock + requests
        if kept:
            asleep = np.flatnonzero(held == 0)
            if len(asleep):
                self._wake(asleep, np.full(len(asleep), start))
        elif requests * cooldown_s / _MINUTE_S < _NEVER_IDLE * self._burst or not held.all():
            self._request_by_request(start, before, requests)
            expired = np.flatnonzero((held > 0) & (self._last_active + cooldown_s <= end))
            self._sleep(expired, start)
            return
        self._count_waiting(start, requests)
        # Of so many exponential stays, the longest is this much longer than their mean (the harmonic number).
        running = max(1.0, load * self._deployment.concurrency)
        longest = math.log(running) + _EULER + 1 / (2 * running)
        self._last_active[:] = end + self._stay_s * longest

    def _request_by_request(self, start: float, before: float, requests: float) -> None:
        """Wake at a request, and note who is active: requests come as a gamma renewal process by the load's clock."""
        stale = np.flatnonzero(self._due < before)
        if len(stale):
            # Where nobody looked, the time since the last request is anything (equilibrium of a renewal process).
            length = self._rng.standard_gamma(1 / self._burst + 1, len(stale)) * self._burst
            self._due[stale] = before + length * self._rng.random(len(stale))
        serves_from, active = self._nodes.serves_from, self._last_active
        while len(lanes := np.flatnonzero(self._due < self._clock)):
            when = start + _MINUTE_S * (self._due[lanes] - before) / requests
            self._due[lanes] += self._rng.standard_gamma(1 / self._burst, len(lanes)) * self._burst
            self._sleep(lanes[(self._held[lanes] > 0) & (active[lanes] + self._deployment.cooldown_s <= when)], start)
            asleep = self._held[lanes] == 0
            if asleep.any():
                self._wake(lanes[asleep], when[asleep])
            waits = when < serves_from[lanes]
            self._waited[lanes] += waits & (when >= 0)
            self._queued[lanes] += waits
            active[lanes] = np.maximum(active[lanes], np.maximum(when, serves_from[lanes]) + self._stay_s)

    def _sleep(self, lanes: Lanes, start: float) -> None:
        if len(lanes):
            when = np.maximum(self._last_active[lanes] + self._deployment.cooldown_s, start)
            self._change(lanes, np.zeros(len(lanes), dtype=np.int16), when)

    def _wake(self, lanes: Lanes, when: Floats) -> None:
        self._change(lanes, np.ones(len(lanes), dtype=np.int16), when)
        self._queued[lanes], self._luck[lanes] = 0, self._rng.standard_normal(len(lanes))
        self._last_active[lanes] = self._nodes.serves_from[lanes]

    def _count_waiting(self, start: float, requests: float) -> None:
        """Requests of a minute that come before a replica serves, where one is held."""
        waiting = np.flatnonzero((self._nodes.serves_from > start) & (self._held > 0))
        if len(waiting):
            share = np.minimum(1, (self._nodes.serves_from[waiting] - start) / _MINUTE_S)
            self._queued[waiting] += requests * share
            self._waited[waiting] += requests * share * (start >= 0)

    @property
    def _stay_s(self) -> float:
        return self._deployment.concurrency / self._deployment.requests_per_second


class _Wishes:
    """What the autoscaler asks for, which follows from the requests alone."""

    def __init__(self, deployment: Deployment, replays: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._replays = replays
        load = deployment.load
        self._running = load.replicas * deployment.concurrency
        self.threshold = deployment.target
        self._peakedness = (1 + max(1.0, deployment.burstiness**2)) / 2
        stay_s = deployment.concurrency / deployment.requests_per_second
        per_second = load.requests / LOOK_S
        stays = np.divide(self._running, per_second, out=np.full_like(per_second, stay_s), where=per_second > 0)
        self._memory = np.exp(-LOOK_S / np.maximum(stays, 1e-9))
        kept = np.where(deployment.is_open, deployment.working_hours, deployment.minimum)
        self._least = np.maximum(kept, 1).astype(np.int16)
        self.limit = deployment.maximum or np.iinfo(np.int16).max
        self.window_s = scale_down_window_s(deployment.cooldown_s)
        self._window = max(1, round(self.window_s / LOOK_S))
        self._tables: dict[float, tuple[int, npt.NDArray[np.float32]]] = {}

    def minutes(self, first: int, end: int) -> Iterator[tuple[int, Counts, Counts]]:
        """Every minute, with what the autoscaler asks for in it: a replay that holds fewer replicas than the one comes
        up to it, a replay that holds more than the other goes down to it.
        """
        window, means = self._window, LOAD_WINDOW_S // LOOK_S
        noise = self._rng.standard_normal(self._replays, dtype=np.float32)
        counted = np.zeros((means - 1, self._replays), dtype=np.int32)
        asked = np.zeros((window - 1, self._replays), dtype=np.int16)
        # Both windows are full of what was drawn when the first minute comes.
        for minute in range(first - -(-(window + means) // _LOOKS), end, _BLOCK):
            size = min(_BLOCK, end - minute)
            looks = np.arange(minute * _LOOKS, (minute + size) * _LOOKS) % len(self._running)
            drawn = self._rng.standard_normal((len(looks), self._replays), dtype=np.float32)
            noise = self._remember(drawn, noise, looks)
            counted = np.concatenate((counted, self._counts(drawn, looks)))
            sums = np.cumsum(np.concatenate((np.zeros_like(counted[:1]), counted)), axis=0, dtype=np.int32)
            mean = (sums[means:] - sums[:-means]) * (counted[means - 1 :] > 0) * np.float32(1 / means)
            wishes = np.ceil(mean / np.float32(self.threshold) - _ROUNDING).astype(np.int16)
            asked = np.concatenate((asked, np.clip(wishes, self._least[looks, None], self.limit)))
            now, most = asked[window - 1 :], _largest_of_last(asked, window)
            low, high = now[::_LOOKS], most[::_LOOKS]
            for look in range(1, _LOOKS):
                up, down = now[look::_LOOKS], most[look::_LOOKS]
                low, high = np.minimum(np.maximum(low, up), down), np.minimum(np.maximum(high, up), down)
            for offset in range(max(0, first - minute), size):
                yield minute + offset, low[offset], high[offset]
            counted, asked = counted[len(counted) - (means - 1) :], asked[len(asked) - (window - 1) :]

    def _remember(
        self, drawn: npt.NDArray[np.float32], before: npt.NDArray[np.float32], looks: Lanes
    ) -> npt.NDArray[np.float32]:
        """Turn independent draws into those that are correlated as the number of running requests is."""
        memory = self._memory[looks].astype(np.float32)
        drawn *= np.sqrt(1 - memory**2)[:, None]
        for look, share in enumerate(memory):
            drawn[look] += share * before
            before = drawn[look]
        return before.copy()

    def _counts(self, drawn: npt.NDArray[np.float32], looks: Lanes) -> npt.NDArray[np.int32]:
        """Running requests of each look, from normal draws of the same rank."""
        counts = np.empty(drawn.shape, dtype=np.int32)
        means = self._running[looks]
        changes = [0, *(np.flatnonzero(np.diff(means)) + 1).tolist(), len(means)]
        for begin, end in pairwise(changes):
            first, beyond = self._table(float(means[begin]))
            counts[begin:end] = np.searchsorted(beyond, drawn[begin:end])
            counts[begin:end] += first
        return counts

    def _table(self, mean: float) -> tuple[int, npt.NDArray[np.float32]]:
        """The least count that is drawn of a mean, and the normal quantiles from which on it is one more each."""
        if mean not in self._tables:
            spread = 8 * math.sqrt(mean * self._peakedness) + 30 * self._peakedness
            counts = np.arange(max(0, math.floor(mean - spread)), math.ceil(mean + spread))
            if mean <= 0:
                below, above = np.ones(1), np.zeros(1)
            elif self._peakedness > 1:
                # Negative binomial of variance peakedness x mean.
                size, chance = mean / (self._peakedness - 1), 1 / self._peakedness
                below, above = betainc(size, counts + 1, chance), betaincc(size, counts + 1, chance)
            else:
                below, above = pdtr(counts, mean), pdtrc(counts, mean)
            drawn = (below > _LEAST_CHANCE) & (above > _LEAST_CHANCE)
            quantiles = np.where(below < above, ndtri(below), -ndtri(above))[drawn]
            first = int(counts[np.argmax(below > _LEAST_CHANCE)])
            self._tables[mean] = first, quantiles.astype(np.float32)
        return self._tables[mean]


def _largest_of_last(series: Counts, window: int) -> Counts:
    """For each entry from the first whole window on, the largest of the last ``window`` along the first axis."""
    size, largest = 1, series
    while 2 * size <= window:
        largest = np.maximum(largest[size:], largest[:-size])
        size *= 2
    rest = window - size
    return np.maximum(largest[rest:], largest[: len(largest) - rest]) if rest else largest


class _Nodes:
    """The nodes of all replays, and what was paid. Replica ``place`` of a replay runs on its node ``place``.

    The newest replica goes first, so the nodes that are empty come behind those that are not, and the one that got
    empty last is the first to be used again.
    """

    def __init__(self, deployment: Deployment, replays: int, end_s: float, rng: np.random.Generator) -> None:
        self._rng = rng
        self._offset = rng.random()
        self._end = end_s
        self._floor, self._idle_s = deployment.floor, deployment.node_idle_s
        self._cold_s, self._warm_s = deployment.cold_start.total_s, deployment.cold_start.engine_s
        offers = (*deployment.offers, deployment.floor_offer)
        self._usd_per_s = np.array([offer.usd_per_hour for offer in offers]) / 3600
        self._on_demand = np.array([offer.on_demand for offer in offers])
        self._hazard = np.array([offer.interruptions_per_hour for offer in offers]) / 3600
        # The first with capacity is bought: the chance that one of the first so many has some.
        self._found = 1 - np.cumprod([1 - offer.capacity for offer in deployment.offers])
        shape = (0, replays)
        self._offer = np.zeros(shape, dtype=np.int16)
        self._launched, self._ready, self._interrupted = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._emptied = np.zeros(shape)
        """When the replica left; plus infinity while one is there, minus infinity where there is no node."""
        self._next_interruption = np.full(replays, np.inf)
        self.serves_from = np.full(replays, np.inf)
        """From when on some replica serves, while replicas are held."""
        self.usd, self.paid_s, self.serving_s, self.on_demand_s = np.zeros((4, replays))
        self.starts, self.interruptions = np.zeros((2, replays))

    def start(self, place: int, lanes: Lanes, when: Floats) -> None:
        """Start a replica: on the node of the place if it is still there, else on a new one."""
        if place == len(self._offer):
            self._add_place()
        emptied, interrupted = self._emptied[place, lanes], self._interrupted[place, lanes]
        kept = np.minimum(emptied + self._idle_s, interrupted)
        again = when < kept
        gone = ~again & np.isfinite(emptied)
        if gone.any():
            self._remove(place, lanes[gone], kept[gone])
        new = ~again
        if new.any():
            self._launch(place, lanes[new], when[new])
        self._ready[place, lanes[again]] = when[again] + self._warm_s
        self._emptied[place, lanes] = np.inf
        ready, before = self._ready[place, lanes], self.serves_from[lanes]
        self.serves_from[lanes] = np.where(before > when, np.minimum(before, ready), before)
        self._next_interruption[lanes] = np.minimum(self._next_interruption[lanes], self._interrupted[place, lanes])

    def stop(self, place: int, lanes: Lanes, when: Floats) -> None:
        """Remove a replica; its node stays for a while."""
        self._served(place, lanes, when)
        self._emptied[place, lanes] = when
        if place == 0:
            self.serves_from[lanes] = np.inf

    def interrupt(self, before: float) -> Iterator[int]:
        """Take back the spot nodes whose time comes before a moment, and order new ones at the notice.

        Yields the replays in which no replica serves any more.
        """
        for lane in np.flatnonzero(self._next_interruption < before):
            alone = np.array([lane])
            holding = np.isposinf(self._emptied[:, lane])
            for place in np.flatnonzero(holding & (self._interrupted[:, lane] < before)).tolist():
                when = self._interrupted[place, alone]
                self._served(place, alone, when)
                self._remove(place, alone, when + _NOTICE_S)
                self.interruptions[lane] += 0 <= when[0] < self._end
                self._launch(place, alone, when)
                ready = self._ready[holding, lane].min()
                if ready > when[0]:
                    self.serves_from[lane] = ready
                    yield int(lane)
            self._next_interruption[lane] = self._interrupted[holding, lane].min(initial=np.inf)

    def serving(self, moment: float) -> npt.NDArray[np.int64]:
        """Replicas that serve."""
        return np.count_nonzero(self._ready <= moment, axis=0)

    def close(self) -> None:
        """End the month: what is still there is paid until its end."""
        for place in range(len(self._offer)):
            lanes = np.flatnonzero(~np.isneginf(self._emptied[place]))
            self._served(place, lanes, np.full(len(lanes), self._end))
            kept = np.minimum(self._emptied[place, lanes] + self._idle_s, self._interrupted[place, lanes])
            self._remove(place, lanes, np.minimum(kept, self._end))

    def _add_place(self) -> None:
        def longer(series: npt.NDArray[np.float64], value: float) -> npt.NDArray[np.float64]:
            return np.append(series, np.full((1, series.shape[1]), value), axis=0)

        self._offer = np.append(self._offer, np.zeros((1, self._offer.shape[1]), dtype=np.int16), axis=0)
        self._launched, self._ready = longer(self._launched, 0), longer(self._ready, np.inf)
        self._interrupted, self._emptied = longer(self._interrupted, np.inf), longer(self._emptied, -np.inf)

    def _launch(self, place: int, lanes: Lanes, when: Floats) -> None:
        count = len(lanes)
        if place < self._floor:
            offer = np.full(count, len(self._usd_per_s) - 1)
        else:
            # Each draw is uniform, and together those of all replays are spread evenly, with what a few times in a
            # row leave out made up for by the next: what a node that stays for the month costs is drawn only once.
            self._offset = (self._offset + _GOLDEN) % 1
            draws = (self._rng.permutation(count) + self._offset) / count
            offer = np.searchsorted(self._found, draws, side="right")
            none = offer == len(self._found)
            if none.any():
                # Nothing has capacity, and nothing may be bought on demand: ask again until something has.
                tries = self._rng.geometric(max(self._found[-1], _LEAST_CHANCE), np.count_nonzero(none))
                when = when.copy()
                when[none] += _RETRY_S * tries
                draws = self._rng.random(len(tries)) * self._found[-1]
                offer[none] = np.minimum(np.searchsorted(self._found, draws, side="right"), len(self._found) - 1)
        self._offer[place, lanes] = offer
        self._launched[place, lanes] = when
        self._ready[place, lanes] = when + self._cold_s
        hazard = self._hazard[offer]
        lives = np.full(count, np.inf)
        np.divide(self._rng.standard_exponential(count), hazard, out=lives, where=hazard > 0)
        self._interrupted[place, lanes] = when + lives
        self.starts[lanes] += (when >= 0) & (when < self._end)

    def _served(self, place: int, lanes: Lanes, until: Floats) -> None:
        ready = np.maximum(self._ready[place, lanes], 0)
        self.serving_s[lanes] += np.maximum(0, np.minimum(until, self._end) - ready)
        self._ready[place, lanes] = np.inf

    def _remove(self, place: int, lanes: Lanes, until: Floats) -> None:
        paid = np.clip(until, 0, self._end) - np.clip(self._launched[place, lanes], 0, self._end)
        offer = self._offer[place, lanes]
        self.paid_s[lanes] += paid
        self.usd[lanes] += paid * self._usd_per_s[offer]
        self.on_demand_s[lanes] += paid * self._on_demand[offer]
