"""An event simulation of one replica under vLLM's V1 scheduler: what the closed form of ``serving`` is checked against.

A run repeats: take what has arrived, schedule a step (running decodes first, then prompts in chunks of what is left of
the token budget, first come first served), let its time pass, hand out its tokens. Between two events the batch is the
same and a step's time grows linearly with the context, so that all steps up to the next event pass at once.

As vLLM 0.33.0 does it by default (``vllm serve --help``, ``--scheduler-reserve-full-isl``): a prompt is admitted when
all of it fits the KV cache, a decode takes its next block when it needs it, and when there is none the request admitted
last loses all its blocks and computes its tokens anew. Not modelled: swapping, priorities, speculative decoding.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from planning.speed import ReplicaSpeed

#: Tokens of one KV cache block (vLLM's default on GPUs).
BLOCK_TOKENS = 16

#: A random length or time.
Distribution = Callable[[Random], float]


def gamma(mean: float, cv: float) -> Distribution:
    """Gamma with a coefficient of variation: 0 is a constant, 1 exponential, above 1 bursty."""
    if not cv:
        return lambda _: mean
    shape = 1 / cv**2
    return lambda random: random.gammavariate(shape, mean / shape)


def lognormal(mean: float, cv: float) -> Distribution:
    """Log-normal with a coefficient of variation: a heavier tail than gamma's."""
    sigma = math.sqrt(math.log1p(cv**2))
    return lambda random: random.lognormvariate(math.log(mean) - sigma**2 / 2, sigma)


def empirical(values: Sequence[float]) -> Distribution:
    """One of the values seen, each as likely."""
    return lambda random: random.choice(values)


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Requests come at their own times, whatever the replica does."""

    seconds_between: Distribution


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """So many clients, each sending its next request when the last one is answered."""

    clients: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is asked of the replica."""

    arrivals: OpenLoop | ClosedLoop
    input_tokens: Distribution
    output_tokens: Distribution
    prefix_hit_rate: float = 0.0
    """Share of each prompt that the prefix cache holds; the last token is computed anew in any case."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The scheduler's limits. Longer requests than ``max_model_len`` (or the whole cache) are cut to it."""

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_tokens: int
    max_model_len: int

    def __post_init__(self) -> None:
        """VLLM refuses to start so, and without room for a step of every sequence the loop would not be vLLM's."""
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens {self.max_num_batched_tokens} is below max_num_seqs {self.max_num_seqs}"
            )


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of one figure over the requests."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the requests met, after the warm-up."""

    ttft_ms: Percentiles
    tpot_ms: Percentiles
    """Time per output token after the first, of a request; requests of one token have none."""
    latency_ms: Percentiles
    mean_wait_s: float
    """From arrival to admission."""
    mean_service_s: float
    """From admission to the last token."""
    requests_per_second: float
    output_tokens_per_second: float
    mean_running: float
    """Admitted requests on average over time."""
    preemptions: int


@dataclass(slots=True, eq=False)
class _Request:
    arrival_s: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    admitted_s: float = -1.0
    first_token_s: float = -1.0
    finish_s: float = -1.0
    made: int = 0
    """Output tokens so far; of a decoding request those at its last (re)start."""
    computed: int = 0
    """Tokens in the KV cache while the prompt is worked on."""
    base: int = 0
    """Tokens in the cache less the step counter while decoding: it does not change from step to step."""
    finish_step: int = -1
    """Step that makes the last token; -1 while not decoding."""


def mixed_step_s(
    speed: ReplicaSpeed, sequences: int, context_tokens: float, chunks: Sequence[tuple[int, int]] = ()
) -> float:
    """Time of one engine step: decodes of a mean context, and prompts' chunks as (tokens before, tokens after).

    Every step pays for launches and for reading the weights, even without decodes; the chunks come on top with their
    own work, attention from their place in the prompt.
    """
    return speed.step_s(max(1, sequences), context_tokens) + sum(speed.prefill_s(end, start) for start, end in chunks)


def simulate(
    speed: ReplicaSpeed, limits: Limits, traffic: Traffic, *, requests: int = 4000, warm_up: int = 500, seed: int = 1
) -> Outcome:
    """Run until ``requests`` are answered after the first ``warm_up``, which are not counted."""
    replica = _Replica(speed, limits, traffic, Random(seed))
    while len(replica.done) < warm_up:
        replica.advance()
    skipped, start_s, start_area, preempted = len(replica.done), replica.now_s, replica.running_s, replica.preemptions
    while len(replica.done) < skipped + requests:
        replica.advance()
    counted, span_s = replica.done[skipped:], replica.now_s - start_s
    tpots = [
        (request.finish_s - request.first_token_s) / (request.output_tokens - 1)
        for request in counted
        if request.output_tokens > 1
    ]
    return Outcome(
        ttft_ms=_percentiles([request.first_token_s - request.arrival_s for request in counted]),
        tpot_ms=_percentiles(tpots or [0.0]),
        latency_ms=_percentiles([request.finish_s - request.arrival_s for request in counted]),
        mean_wait_s=sum(request.admitted_s - request.arrival_s for request in counted) / len(counted),
        mean_service_s=sum(request.finish_s - request.admitted_s for request in counted) / len(counted),
        requests_per_second=len(counted) / span_s,
        output_tokens_per_second=sum(request.output_tokens for request in counted) / span_s,
        mean_running=(replica.running_s - start_area) / span_s,
        preemptions=replica.preemptions - preempted,
    )


def _percentiles(seconds: list[float]) -> Percentiles:
    ordered = sorted(seconds)
    p50, p95, p99 = (1000 * ordered[math.ceil(share * len(ordered)) - 1] for share in (0.50, 0.95, 0.99))
    return Percentiles(p50, p95, p99)


def _requests(traffic: Traffic, limits: Limits, random: Random) -> Iterator[_Request]:
    longest = min(limits.max_model_len, limits.kv_tokens // BLOCK_TOKENS * BLOCK_TOKENS)
    arrivals, now = traffic.arrivals, 0.0
    while True:
        if isinstance(arrivals, OpenLoop):
            now += arrivals.seconds_between(random)
        prompt = min(max(1, round(traffic.input_tokens(random))), longest - 1)
        answer = min(max(1, round(traffic.output_tokens(random))), longest - prompt)
        yield _Request(now, prompt, answer, min(int(prompt * traffic.prefix_hit_rate), prompt - 1))


class _Replica:
    """The scheduler's state and its clock."""

    def __init__(self, speed: ReplicaSpeed, limits: Limits, traffic: Traffic, random: Random) -> None:
        self.now_s = 0.0
        self.running_s = 0.0
        """Integral of the admitted requests over time."""
        self.preemptions = 0
        self.done: list[_Request] = []
        self._speed, self._limits = speed, limits
        self._source = _requests(traffic, limits, random)
        self._closed = isinstance(traffic.arrivals, ClosedLoop)
        clients = traffic.arrivals.clients if isinstance(traffic.arrivals, ClosedLoop) else 0
        self._waiting = deque(next(self._source) for _ in range(clients))
        self._next = next(self._source)
        self._running: dict[_Request, None] = {}
        """Admitted requests, first admitted first."""
        self._prompts: deque[_Request] = deque()
        """Those of them whose prompts are not computed yet."""
        self._finishes: list[tuple[int, int, _Request]] = []
        self._decoding, self._context = 0, 0
        """Decoding requests and the tokens they hold."""
        self._step, self._pushed = 0, 0
        self._free = limits.kv_tokens // BLOCK_TOKENS
        self._phases = [0] * BLOCK_TOKENS
        """Decoding requests by ``base`` modulo the block size: who needs a block in which step."""

    def advance(self) -> None:
        """One step with prompts, or all steps up to the next event without, or the wait for the next request."""
        while not self._closed and self._next.arrival_s <= self.now_s:
            self._waiting.append(self._next)
            self._next = next(self._source)
        preempted = self._make_room()
        chunks = self._schedule_prompts(admit=not preempted)
        if chunks:
            self._pass(self._time(chunks), 1)
            self._deliver(chunks)
        elif self._decoding:
            steps = self._steps_to_event()
            first = self._time(())
            growth = self._speed.step_s(self._decoding, self._mean_context() + 1) - first
            self._pass(steps * first + growth * steps * (steps - 1) / 2, steps)
        else:
            self.now_s = self._next.arrival_s
        while self._finishes and self._finishes[0][0] <= self._step:
            finish_step, _, request = heapq.heappop(self._finishes)
            if request.finish_step == finish_step:
                self._stop_decoding(request)
                self._finish(request)

    def _mean_context(self) -> float:
        return self._context / self._decoding + 1

    def _time(self, chunks: Sequence[tuple[_Request, int]]) -> float:
        spans = [(request.computed, request.computed + tokens) for request, tokens in chunks]
        return mixed_step_s(self._speed, self._decoding, self._mean_context() if self._decoding else 0, spans)

    def _pass(self, seconds: float, steps: int) -> None:
        """Let ``steps`` steps pass: every decoding request holds that many tokens more."""
        self.now_s += seconds
        self.running_s += seconds * len(self._running)
        self._free -= self._blocks_of_next(steps)
        self._context += steps * self._decoding
        self._step += steps

    def _blocks_of_next(self, steps: int) -> int:
        """Blocks that the decoding requests take in so many steps."""
        rounds, rest = divmod(steps, BLOCK_TOKENS)
        if not rest:
            return rounds * self._decoding
        first = -(self._step + rest - 1) % BLOCK_TOKENS
        return rounds * self._decoding + sum((self._phases * 2)[first : first + rest])

    def _make_room(self) -> bool:
        """Preempt the request admitted last until each decode's next token has a place. Whether any was."""
        preempted = False
        while self._blocks_of_next(1) > self._free:
            request, _ = self._running.popitem()
            if request.finish_step < 0:
                self._prompts.remove(request)
                self._free += _blocks(request.input_tokens + request.made)
            else:
                request.made = request.output_tokens - (request.finish_step - self._step)
                self._stop_decoding(request)
            self._waiting.appendleft(request)
            self.preemptions += 1
            preempted = True
        return preempted

    def _schedule_prompts(self, *, admit: bool) -> list[tuple[_Request, int]]:
        """The chunks of this step: prompts under way, then waiting ones as budget, slots and blocks allow."""
        budget = self._limits.max_num_batched_tokens - self._decoding
        chunks: list[tuple[_Request, int]] = []
        for request in self._prompts:
            tokens = min(budget, request.input_tokens + request.made - request.computed)
            if tokens:
                chunks.append((request, tokens))
                budget -= tokens
        room = self._free - self._blocks_of_next(1) if self._waiting else 0
        while admit and self._waiting and budget and len(self._running) < self._limits.max_num_seqs:
            request = self._waiting[0]
            blocks = _blocks(request.input_tokens + request.made)
            if blocks > room:
                break
            room -= blocks
            self._free -= blocks
            self._running[self._waiting.popleft()] = None
            self._prompts.append(request)
            if request.admitted_s < 0:
                request.admitted_s = self.now_s
            request.computed = request.cached_tokens
            tokens = min(budget, request.input_tokens + request.made - request.computed)
            chunks.append((request, tokens))
            budget -= tokens
        return chunks

    def _steps_to_event(self) -> int:
        """Steps in which nothing changes but the context: to a finish, an arrival or the last block."""
        while self._finishes[0][2].finish_step != self._finishes[0][0]:
            heapq.heappop(self._finishes)
        steps = self._finishes[0][0] - self._step
        if not self._closed and not self._waiting and len(self._running) < self._limits.max_num_seqs:
            first = self._time(())
            growth = self._speed.step_s(self._decoding, self._mean_context() + 1) - first
            left = self._next.arrival_s - self.now_s
            linear = first - growth / 2
            # The smallest k with k * linear + k * k * growth / 2 >= left.
            steps = min(steps, math.ceil(2 * left / (linear + math.sqrt(linear**2 + 2 * growth * left))))
        if self._free < self._decoding * (steps // BLOCK_TOKENS + 1):
            while self._blocks_of_next(steps) > self._free:
                steps -= max(1, steps // 16)
        return max(1, steps)

    def _deliver(self, chunks: list[tuple[_Request, int]]) -> None:
        """Book the chunks' tokens; a prompt that is through makes its first token and decodes from the next step."""
        for request, tokens in chunks:
            request.computed += tokens
            if request.computed < request.input_tokens + request.made:
                continue
            self._prompts.popleft()
            request.made += 1
            if request.first_token_s < 0:
                request.first_token_s = self.now_s
            if request.made == request.output_tokens:
                self._free += _blocks(request.computed)
                del self._running[request]
                self._finish(request)
                continue
            request.base = request.computed - self._step
            request.finish_step = self._step + request.output_tokens - request.made
            self._phases[request.base % BLOCK_TOKENS] += 1
            self._decoding += 1
            self._context += request.computed
            self._pushed += 1
            heapq.heappush(self._finishes, (request.finish_step, self._pushed, request))

    def _stop_decoding(self, request: _Request) -> None:
        tokens = request.base + self._step
        self._phases[request.base % BLOCK_TOKENS] -= 1
        self._decoding -= 1
        self._context -= tokens
        self._free += _blocks(tokens)
        self._running.pop(request, None)
        request.finish_step = -1

    def _finish(self, request: _Request) -> None:
        request.finish_s = self.now_s
        self.done.append(request)
        if self._closed:
            self._next.arrival_s = self.now_s
            self._waiting.append(self._next)
            self._next = next(self._source)


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)
