"""Continuous batching under load: the largest request rate of one replica whose 95th percentiles meet the target.

The unknown is the mean number of decoding requests ``b``; everything else follows from it in closed form, and is held
against ``simulation``, which runs the scheduler itself. ``ca``, ``ci`` and ``co`` are the variations of the times
between arrivals and of the lengths of prompts and answers; arrivals are a gamma renewal process.

* Decodes share the engine (processor sharing). A running request sees the mean and what came with it, ``b + z``
  (arrival theorem): ``z`` is 1 for Poisson arrivals, and for bursty ones the peakedness of a gamma process before an
  infinite server, ``1 / (1 - (1 + ca^2 / b)^(-1 / ca^2)) - b`` (Eckberg 1983; exact for exponential answers), more for
  equal ones.
* Prefills take the share ``rate * prefill`` of the engine's time. So the mean time per output token is
  ``step(b + z) + b * prefill / output`` and by Little's law the rate is ``b / (output * tpot)``. Prompts of varied
  length take longer on average, as attention grows with the square; a running request has made
  ``output * (1 + co^2) / 2`` tokens on average (inspection paradox).
* A slower step keeps requests longer, so that their number varies more: its variance is ``b * z / (1 - theta)`` with
  ``theta = b * step' / step``, the negative binomial of this queue when a step's time is linear. Prefills hold decodes
  up while more requests come, which weighs arrivals by ``1 / (1 - rate * prefill)^2``.
* A request's own time per output token averages that number over its stay and adds the prefills that happened to fall
  into it: a compound Poisson sum, whose variance goes with 1 over the answer's length, and the prompts that came while
  its own was computed. The tail is summed over quantiles of the length.
* Time to first token: prompts that come during a step start together in the next and are answered at its end; a request
  waits for the step under way, for its own, and for those of its burst that came before.
* Both are gamma distributed above their least value; quantiles by Wilson and Hilferty (1931).

Against the rate that the simulation finds by bisection (2026-11-22; dense models and Poisson arrivals, 43 cases of
lengths and targets): 2 % low in the median, 13 % low at the tenth, 22 % high at most, where prompts nearly fill a step
and serving is almost unloaded. Bursts and sparse experts at a tight TPOT target come out up to half too low; with
bursts of prompts that fill a step the rate is unsure by a factor of two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from planning.cold_start import LOAD_WINDOW_S
from planning.memory import kv_bytes_per_sequence
from planning.speed import ReplicaSpeed

#: Standard normal quantiles.
_P95 = 1.645
_P99 = 2.326

#: Where the distribution of lengths is looked at: shares of the requests, shortest first, and the standard normal
#: quantiles of their middles. Finer among the short ones, whose time per token varies most.
_SHARES = ((0.05, -1.9600), (0.10, -1.2816), (0.20, -0.6745), (0.30, 0.0), (0.35, 0.9346))


@dataclass(frozen=True, slots=True)
class Workload:
    """What the requests of a tier look like to a replica. A ``cv`` is the standard deviation over the mean.

    Lengths are gamma distributed. The defaults are between the two values of a gamma distribution that meet the median
    and the 99th percentile of Azure's conversations of 2023: prompts of 1,020 and 4,142 tokens at a mean of 1,155;
    for answers the median of 129 at a mean of 211 alone is known.
    """

    input_tokens: float
    output_tokens: float
    prefix_hit_rate: float = 0.0
    arrival_cv: float = 1.0
    input_cv: float = 0.7
    output_cv: float = 1.1

    @property
    def cached_tokens(self) -> float:
        """Prompt tokens found in the prefix cache; vLLM computes the last one anew in any case."""
        return min(self.input_tokens * self.prefix_hit_rate, self.input_tokens - 1)

    @property
    def running_tokens(self) -> float:
        """Mean tokens that a running request holds in the KV cache: a long answer is met more often."""
        return self.input_tokens + self.output_tokens * (1 + self.output_cv**2) / 2

    @property
    def running_tokens_cv_squared(self) -> float:
        """Variation of the same, squared: prompts and the ages of answers, for gamma distributed lengths."""
        spread = self.output_cv**2
        age = self.output_tokens * (1 + spread) / 2
        age_squared = self.output_tokens**2 * (1 + spread) * (1 + 2 * spread) / 3
        return ((self.input_tokens * self.input_cv) ** 2 + age_squared - age**2) / self.running_tokens**2


@dataclass(frozen=True, slots=True)
class Target:
    """95th percentile of time to first token and of time per output token, milliseconds."""

    ttft_ms: float
    tpot_ms: float


@dataclass(frozen=True, slots=True)
class Load:
    """One replica at one concurrency."""

    concurrency: float
    """Mean running requests."""
    requests_per_second: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    tpot_p50_ms: float
    """Of a request, its mean time per output token after the first."""
    tpot_p95_ms: float
    sequences_p99: int
    """Places for requests of mean size that suffice in 99 of 100 moments, by number and by tokens in the KV cache."""
    prefill_share: float = 0.0
    """Of the replica's time: what goes to prompts."""

    @property
    def stay_s(self) -> float:
        """Mean time from a request's first prefill to its last token (Little's law), seconds."""
        return self.concurrency / self.requests_per_second

    @property
    def autoscaler_target(self) -> float:
        """Running requests, on average over the load window, for which one replica is wanted: those of its largest
        rate. Of a replica that is full with less than one request in a window, that one.
        """
        return max(self.concurrency, self.stay_s / LOAD_WINDOW_S)


class _State(NamedTuple):
    """Means and variances at one concurrency, seconds."""

    rate: float
    step: float
    tpot: float
    variance: float
    """Of the number running."""
    drift: float
    """1 - theta: how fast the number running returns to its mean, in stays."""
    ttft: float
    """Mean above ``step``."""
    ttft_variance: float
    tpot_variance: float
    """By the number running, before it averages out over a stay."""
    tpot_variance_by_length: float
    """By prefills, times the request's length."""
    backlog: float
    """Prompts that come while a request's own is computed or are left of its burst: they run before its next token."""


class LoadModel:
    """The latency of one replica as a function of its concurrency."""

    def __init__(self, speed: ReplicaSpeed, workload: Workload, max_num_batched_tokens: int) -> None:
        self._speed, self._workload = speed, workload
        given, cached = workload.input_tokens, workload.cached_tokens
        self._kv_bytes = kv_bytes_per_sequence(speed.architecture, speed.kv_cache_dtype, workload.running_tokens)
        self._least_step = speed.step_linear(self._kv_bytes, 1)
        at_mean = speed.prefill_s(given, cached)
        # Attention grows with the square of the length, so that varied prompts take longer on average.
        curve = at_mean - (given - cached) * speed.prefill_per_token_s
        self._prefill_s = at_mean + curve * workload.input_cv**2
        line, cv2 = (given - cached) * speed.prefill_per_token_s, workload.input_cv**2
        # Moments of a gamma distribution of mean 1: second, third, fourth.
        second, third = 1 + cv2, (1 + cv2) * (1 + 2 * cv2)
        fourth = third * (1 + 3 * cv2)
        variance = line**2 * cv2 + 2 * line * curve * (third - second) + curve**2 * (fourth - second**2)
        # A replica that only decodes prefills in no time.
        self._prefill_cv_squared = variance / self._prefill_s**2 if self._prefill_s else 0.0
        self._prefill_squared = self._prefill_s**2 * (1 + self._prefill_cv_squared)
        self._chunks = (given - cached) / max_num_batched_tokens
        burst, spread = workload.arrival_cv**2, workload.output_cv**2
        self._burst = burst
        # Requests of strong bursts come in one step, those of mild ones in several. From the simulation, where a
        # variation of 2 delays a request by those before it alone, and 4 by half of those after it too.
        self._tightness = max(0.0, 1 - 2 / workload.arrival_cv) if burst > 4 else 0.0
        self._mixing = 2 / (1 + spread)
        self._running_cv_squared = workload.running_tokens_cv_squared
        self._lengths = _gamma_shares(workload.output_cv)
        self._median_length = _gamma_quantile(1.0, workload.output_cv**2, 0.0)

    def _at(self, concurrency: float) -> _State:
        workload, prefill, burst = self._workload, self._prefill_s, self._burst
        z = 1.0
        if burst > 1:
            z = 1 / (1 - (1 + burst / concurrency) ** (-1 / burst)) - concurrency
            z = 1 + (z - 1) * self._mixing
        seen = concurrency + max(1.0, z)
        step = self._speed.step_linear(self._kv_bytes, seen)
        wide = 1 + math.sqrt(concurrency * z)
        slope = (self._speed.step_linear(self._kv_bytes, seen + wide) - step) / wide
        prefills = concurrency * prefill / workload.output_tokens
        # Prefills hold decodes up while more requests come: arrivals weigh more, by the share left to decodes.
        slowed = (1 + prefills / step) ** 2
        z += burst * self._mixing / 2 * (slowed - 1)
        step += slope * (max(1.0, z) - (seen - concurrency))
        output = workload.output_tokens
        tpot = step + prefills
        rate = concurrency / (output * tpot)
        drift = max(0.05, 1 - seen * slope / step)
        variance = concurrency * z / drift
        busy = rate * (prefill + step * self._chunks)
        ttft = ttft_variance = backlog = math.inf
        if busy < 1:
            mates = 1.0
            if burst > 1:
                chance = (rate * (step + prefill) / burst) ** (1 / burst) / math.gamma(1 + 1 / burst)
                mates = 1 / (1 - min(chance, (burst - 1) / (burst + 1)))
            spread = self._prefill_cv_squared
            squared = prefill**2 * (2 * mates - 1 + spread)
            cubed = squared * prefill * (2 * mates - 1 + 2 * spread)
            cycle = step / (1 - busy)
            met = cycle + rate * squared / (1 - busy**2)
            together = 1 + self._tightness * (mates - 1)
            own = prefill * (mates + together - 1) + step * max(0.0, self._chunks - 1)
            ttft = (0.5 + busy) * met + own
            met_variance = rate * (cycle * squared / (1 - busy**2) + cubed / (1 - busy**3))
            ttft_variance = (
                met**2 / 12
                + (1 / 3 + busy + busy**2) * met_variance
                + rate * met * squared
                + prefill**2 * mates * (spread + (mates - 1) * (1 + self._tightness) ** 2)
                + 2 * slope**2 * variance
            )
            behind = max(0.0, burst - 1) / 2 - (mates - 1) * max(0.0, 1 - mates * self._chunks)
            backlog = (rate * (step + own + busy * met) + behind) / (1 - rate * prefill)
        slope_of_tpot = slope * tpot / step
        return _State(
            rate=rate,
            step=step,
            tpot=tpot,
            variance=variance,
            drift=drift,
            ttft=ttft,
            ttft_variance=ttft_variance,
            # More arrivals than usual mean more running and more prefills at once: the second term is their covariance.
            tpot_variance=slope_of_tpot * (slope_of_tpot * variance + prefills * burst * slowed),
            tpot_variance_by_length=prefills * prefill * (burst + self._prefill_cv_squared) * slowed,
            backlog=backlog,
        )

    def _tpot_tail(self, state: _State, tpot_s: float) -> float:
        """Share of the requests with a longer time per output token."""
        above = tpot_s - self._least_step
        if above <= 0 or math.isinf(state.backlog):
            return 1.0
        # The same as ``_tpot_of``, spelt out: half of the planner's time is spent here.
        output, prefill, total = self._workload.output_tokens, self._prefill_s, 0.0
        mean, drift = state.tpot - self._least_step, state.drift / 3
        for share, length in self._lengths:
            tokens = length * output
            tokens = max(tokens, 1.0)
            expected = mean + state.backlog * prefill / tokens
            variance = state.tpot_variance / (1 + drift * length)
            variance += (state.tpot_variance_by_length + state.backlog * self._prefill_squared / tokens) / tokens
            spread = variance / (9 * expected * expected)
            total += share * math.erfc(((above / expected) ** (1 / 3) - 1 + spread) / math.sqrt(2 * spread))
        return total / 2

    def _tpot_of(self, state: _State, length: float) -> tuple[float, float]:
        """Of requests ``length`` times the mean length: mean above the least, a ninth of the squared variation."""
        tokens = max(1.0, length * self._workload.output_tokens)
        expected = state.tpot - self._least_step + state.backlog * self._prefill_s / tokens
        variance = (
            state.tpot_variance / (1 + state.drift * length / 3)
            + (state.tpot_variance_by_length + state.backlog * self._prefill_squared / tokens) / tokens
        )
        return expected, variance / (3 * expected) ** 2

    def _places(self, concurrency: float, variance: float) -> float:
        """Sequences of mean size whose room suffices in 99 of 100 moments: by their number and by their lengths."""
        return concurrency + _P99 * math.sqrt(variance + concurrency * self._running_cv_squared)

    def _tpot_median(self, state: _State) -> float:
        if math.isinf(state.backlog):
            return math.inf
        expected, spread = self._tpot_of(state, self._median_length)
        return self._least_step + expected * max(0.0, 1 - spread) ** 3

    def _tpot_p95(self, state: _State) -> float:
        """Where ``_tpot_tail`` is 5 %: secants in the normal quantile's scale, which the tail is nearly straight in."""
        if math.isinf(state.backlog):
            return math.inf
        expected, spread = self._tpot_of(state, self._median_length)
        low = self._least_step + expected * (1 + math.sqrt(spread)) ** 3
        high = self._least_step + expected * (1 + 2 * math.sqrt(spread)) ** 3
        at_low, at_high = (math.log(max(1e-12, self._tpot_tail(state, point)) / 0.05) for point in (low, high))
        for _ in range(8):
            if abs(at_high) < 0.005 or at_high == at_low:
                break
            point = max(self._least_step * 1.0001, high - at_high * (high - low) / (at_high - at_low))
            low, at_low, high = high, at_high, point
            at_high = math.log(max(1e-12, self._tpot_tail(state, high)) / 0.05)
        return high

    def at(self, concurrency: float) -> Load:
        """Latencies with ``concurrency`` requests running on average."""
        state = self._at(concurrency)
        return Load(
            concurrency=concurrency,
            requests_per_second=state.rate,
            ttft_p50_ms=1000 * (state.step + _gamma_quantile(state.ttft, state.ttft_variance, 0.0)),
            ttft_p95_ms=1000 * (state.step + _gamma_quantile(state.ttft, state.ttft_variance, _P95)),
            tpot_p50_ms=1000 * self._tpot_median(state),
            tpot_p95_ms=1000 * self._tpot_p95(state),
            sequences_p99=math.ceil(self._places(concurrency, state.variance)),
            prefill_share=state.rate * self._prefill_s,
        )

    def largest(self, target: Target, sequences: float) -> Load | None:
        """The largest load that meets ``target`` with room for ``sequences`` of mean size at almost any moment.

        None when not even a single request at a time does.
        """
        low, high = LEAST_CONCURRENCY, 8.0
        at_low = self._excess(low, target, sequences)
        if at_low > 0:
            return None
        while (at_high := self._excess(high, target, sequences)) <= 0:
            low, at_low, high = high, at_high, high * 8
        # False position on the logarithm, halving the end that stays (Illinois); ends on the side that meets.
        weight_low, weight_high = at_low, at_high
        while high > 1.008 * low and at_low < -0.01:
            share = weight_low / (weight_low - weight_high)
            middle = low * (high / low) ** min(0.95, max(0.05, share))
            at_middle = self._excess(middle, target, sequences)
            if at_middle <= 0:
                low, at_low, weight_low, weight_high = middle, at_middle, at_middle, weight_high / 2
            else:
                high, weight_high, weight_low = middle, at_middle, weight_low / 2
        return self.at(low)

    def carries(self, requests_per_second: float, target: Target, sequences: float) -> bool:
        """Whether a rate is served within ``target``."""
        tokens_per_second = requests_per_second * self._workload.output_tokens
        low, high = LEAST_CONCURRENCY, float(sequences)
        # Little's law, found by secants: the time per token is nearly straight in the concurrency.
        beyond = tokens_per_second * self._at(high).tpot - high
        if high <= low or beyond > 0:
            return False
        below = tokens_per_second * self._at(low).tpot - low
        for _ in range(20):
            if below <= 0:
                break
            concurrency = low + (high - low) * below / (below - beyond)
            rest = tokens_per_second * self._at(concurrency).tpot - concurrency
            if abs(rest) <= 0.001 * concurrency:
                return self._excess(concurrency, target, sequences) <= 0
            if rest > 0:
                low, below = concurrency, rest
            else:
                high, beyond = concurrency, rest
        return self._excess(low, target, sequences) <= 0

    def _excess(self, concurrency: float, target: Target, sequences: float) -> float:
        """By how much the limit missed most is missed, as a logarithm; 0 or less when all are met."""
        state = self._at(concurrency)
        places = math.log(self._places(concurrency, state.variance) / max(1, math.floor(sequences)))
        ttft_s = state.step + _gamma_quantile(state.ttft, state.ttft_variance, _P95)
        if math.isinf(ttft_s):
            return _HOPELESS
        # A target may be infinite: then its logarithm is, and nothing misses it.
        worst = max(places, math.log(ttft_s * 1000) - math.log(target.ttft_ms))
        tpot_s = target.tpot_ms / 1000
        # An answer of one token has no time between tokens. What is missed already needs no tail.
        if self._workload.output_tokens <= 1 or worst > 0:
            return min(worst, _HOPELESS)
        if state.tpot > tpot_s:
            return min(_HOPELESS, 1 + math.log(state.tpot / tpot_s))
        # A quarter: the logarithm of a tail moves some four times as fast as that of the time it is beyond.
        return max(worst, math.log(max(1e-9, self._tpot_tail(state, tpot_s)) / 0.05) / 4)


def _gamma_quantile(mean: float, variance: float, normal: float) -> float:
    if math.isinf(mean):
        return math.inf
    spread = variance / (9 * mean**2)
    return mean * max(0.0, 1 - spread + normal * math.sqrt(spread)) ** 3


@cache
def _gamma_shares(cv: float) -> tuple[tuple[float, float], ...]:
    if not cv:
        return ((1.0, 1.0),)
    return tuple((share, _gamma_quantile(1.0, cv**2, normal)) for share, normal in _SHARES)


#: Beyond all targets: keeps infinite waits out of the search.
_HOPELESS = 4.0

#: Below this mean concurrency a replica is as good as unloaded.
LEAST_CONCURRENCY = 0.05
