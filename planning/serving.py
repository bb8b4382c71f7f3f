"""Continuous batching under load: the largest request rate of one replica whose 95th percentiles meet the target.

The unknown is the mean number of running requests ``b``; everything else follows from it in closed form.

* A request stays for ``output_tokens`` steps. In that time every other request that arrives puts its prefill between
  the steps, and by Little's law ``b`` requests arrive while one is served. So the mean time per output token is
  ``step(b) + b * prefill / output_tokens`` and the rate is ``b / (output_tokens * tpot)``.
* The number in service of a loss-free station is Poisson around ``b`` (M/G/infinity), wider for bursty arrivals: its
  variance is ``b * (1 + cv^2) / 2``. The 95th percentile of it gives the 95th percentile of the step and of the
  prefills in between.
* Prefills queue first come, first served; chunked prefill shares each step with the decodes. The wait is Kingman's,
with an exponential tail; prompts vary like an exponential, which public traces resemble.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planning.memory import kv_bytes_per_sequence
from planning.speed import ReplicaSpeed

#: Standard normal quantiles.
_P95 = 1.645
_P999 = 3.090

#: Variation of prompt lengths around their mean, squared: 1 is exponential (Azure 2023 conversation: p50/mean 0.88).
_PROMPT_CV_SQUARED = 1.0


@dataclass(frozen=True, slots=True)
class Workload:
    """What the requests of a tier look like to a replica."""

    input_tokens: float
    output_tokens: float
    prefix_hit_rate: float = 0.0
    arrival_cv: float = 1.0

    @property
    def cached_tokens(self) -> float:
        """Prompt tokens found in the prefix cache; vLLM computes the last one anew in any case."""
        return min(self.input_tokens * self.prefix_hit_rate, self.input_tokens - 1)


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
    tpot_p95_ms: float
    sequences_p999: int
    """Running requests that are exceeded in one moment of a thousand."""


class LoadModel:
    """The latency of one replica as a function of its concurrency."""

    def __init__(self, speed: ReplicaSpeed, workload: Workload, max_num_batched_tokens: int) -> None:
        self._speed = speed
        self._workload = workload
        context = workload.input_tokens + workload.output_tokens / 2
        self._kv_bytes = kv_bytes_per_sequence(speed.architecture, speed.kv_cache_dtype, context)
        cached = workload.cached_tokens
        self._prefill_s = speed.prefill_s(workload.input_tokens, cached)
        self._chunks = (workload.input_tokens - cached) / max_num_batched_tokens
        self._spread = (1 + workload.arrival_cv**2) / 2

    def at(self, concurrency: float) -> Load:
        """Latencies with ``concurrency`` requests running on average."""
        output, prefill = self._workload.output_tokens, self._prefill_s
        deviation = math.sqrt(concurrency * self._spread)
        high = concurrency + _P95 * deviation
        step = self._speed.step_linear(self._kv_bytes, concurrency)
        step_high = self._speed.step_linear(self._kv_bytes, high)
        tpot = step + concurrency * prefill / output
        rate = concurrency / (output * tpot)
        # A prompt takes its own prefill and its share of the decode steps that carry its chunks.
        service = prefill + step * self._chunks
        busy = rate * service
        own = math.ceil(self._chunks) * step + prefill
        wait_p50 = wait_p95 = math.inf
        if busy < 1:
            mean_wait_of_waiting = service * (self._workload.arrival_cv**2 + _PROMPT_CV_SQUARED) / (2 * (1 - busy))
            wait_p95 = mean_wait_of_waiting * max(0.0, math.log(busy / 0.05)) if busy > 0 else 0.0
            wait_p50 = mean_wait_of_waiting * max(0.0, math.log(busy / 0.5)) if busy > 0 else 0.0
        return Load(
            concurrency=concurrency,
            requests_per_second=rate,
            ttft_p50_ms=1000 * (wait_p50 + step / 2 + own),
            ttft_p95_ms=1000 * (wait_p95 + step_high + own),
            tpot_p50_ms=1000 * tpot,
            tpot_p95_ms=1000 * (step_high + high * prefill / output),
            sequences_p999=math.ceil(concurrency + _P999 * deviation),
        )

    def largest(self, target: Target, sequences: float) -> Load | None:
        """The largest load that meets ``target`` with at most ``sequences`` running at almost any moment.

        None when not even a single request at a time does.
        """
        if not self._meets(LEAST_CONCURRENCY, target, sequences):
            return None
        low, high = LEAST_CONCURRENCY, 4.0
        while self._meets(high, target, sequences):
            low, high = high, high * 4
        while high - low > 0.004 * high:
            middle = (low + high) / 2
            if self._meets(middle, target, sequences):
                low = middle
            else:
                high = middle
        return self.at(low)

    def carries(self, requests_per_second: float, target: Target, sequences: float) -> bool:
        """Whether a rate is served within ``target``."""
        steps_per_second = requests_per_second * self._workload.output_tokens
        concurrency = LEAST_CONCURRENCY
        for _ in range(60):
            step = self._speed.step_linear(self._kv_bytes, concurrency)
            busy = requests_per_second * self._prefill_s
            if busy >= 1 or concurrency > sequences:
                return False
            # Little's law with the prefills' share taken out of the engine's time.
            after = max(LEAST_CONCURRENCY, steps_per_second * step / (1 - busy))
            if after - concurrency <= 0.001 * after:
                return self._meets(after, target, sequences)
            concurrency = after
        return False

    def _meets(self, concurrency: float, target: Target, sequences: float) -> bool:
        """``at(concurrency)`` against the target, without the figures that do not decide."""
        deviation = math.sqrt(concurrency * self._spread)
        if math.ceil(concurrency + _P999 * deviation) > sequences:
            return False
        output, prefill = self._workload.output_tokens, self._prefill_s
        high = concurrency + _P95 * deviation
        step_high = self._speed.step_linear(self._kv_bytes, high)
        # An answer of one token has no time between tokens.
        if output > 1 and 1000 * (step_high + high * prefill / output) > target.tpot_ms:
            return False
        return self.at(concurrency).ttft_p95_ms <= target.ttft_ms


#: Below this mean concurrency a replica is as good as unloaded.
LEAST_CONCURRENCY = 0.05
