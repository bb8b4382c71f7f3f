"""The simulation against published latencies: TPOT and TTFT of measured rows by source, and the rows left out.

Every row is run as its source ran it, as far as that is known: a held number of clients (closed loop) from a cold
start, ten requests a client, or Poisson arrivals at the stated rate; driven by the speed form alone.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from planning.facts.checkpoints import Checkpoint
from planning.facts.gpus import gpus
from planning.facts.measurements import Measurement, measured_architectures
from planning.memory import fit
from planning.simulation import ClosedLoop, Distribution, Limits, OpenLoop, Outcome, Traffic, gamma, simulate
from planning.speed import gpu_speed
from planning.speed_evaluation import METHODS, generation, measured_by

#: InferenceMAX (README, 2025): ``--num-prompts`` is ten times ``--max-concurrency``, ``--random-range-ratio 0.8`` draws
#: lengths evenly from 0.8 to 1 of the nominal one, ``--max-num-seqs`` is the concurrency and
#: ``--max-num-batched-tokens`` 8192, which is TensorRT-LLM's default too.
_REQUESTS_PER_CLIENT = 10
_RANGE_RATIO = 0.8
_BATCHED_TOKENS = 8192

#: Why a row has nothing to say about a scheduler in steady state: marks in its notes, and the reason.
_TRAPS = (
    ("queue-saturated", "the engine ran fewer requests than stated, by a limit that is not published"),
    ("at once", "all requests sent at once: ramp-up and tail, no steady state"),
    ("request rate inf", "all requests sent at once: ramp-up and tail, no steady state"),
    ("above the ideal roofline", "faster than the hardware: a wrong label"),
    ("incl. prefill", "its time per token includes the prefill"),
)


@dataclass(frozen=True, slots=True)
class LatencyErrors:
    """Absolute errors of one source's rows: median percent of each published figure, None where it has none."""

    source: str
    rows: int
    tpot_p50: float | None
    tpot_p50_p90: float | None
    """90th percentile of the error of TPOT p50."""
    tpot_p99: float | None
    ttft_p50: float | None
    ttft_p99: float | None


@dataclass(frozen=True, slots=True)
class LatencyEvaluation:
    """All sources together, each source, and what was left out."""

    total: LatencyErrors
    sources: tuple[LatencyErrors, ...]
    left_out: tuple[tuple[str, int], ...]
    """Reason and rows, most rows first."""


def evaluate_latencies(rows: Iterable[Measurement]) -> LatencyEvaluation:
    """Simulate every row that publishes a TPOT and compare."""
    errors: dict[str, list[tuple[float | None, ...]]] = {}
    left_out: Counter[str] = Counter()
    for row in rows:
        if row.tpot_p50_ms is None:
            continue
        outcome = simulated(row)
        if isinstance(outcome, str):
            left_out[outcome] += 1
            continue
        # A batch that starts together tells the time of all its prompts, and no request's wait.
        queued = not _static(row)
        errors.setdefault(measured_by(row), []).append(
            (
                _error(outcome.tpot_ms.p50, row.tpot_p50_ms),
                _error(outcome.tpot_ms.p99, row.tpot_p99_ms),
                _error(outcome.ttft_ms.p50, row.ttft_p50_ms if queued else None),
                _error(outcome.ttft_ms.p99, row.ttft_p99_ms if queued else None),
            )
        )
    return LatencyEvaluation(
        total=_errors("all", [entry for entries in errors.values() for entry in entries]),
        sources=tuple(_errors(name, entries) for name, entries in sorted(errors.items(), key=lambda x: -len(x[1]))),
        left_out=tuple(left_out.most_common()),
    )


def simulated(row: Measurement) -> Outcome | str:
    """What the simulation says of a row, or why it can say nothing."""
    for mark, reason in _TRAPS:
        if mark in row.notes:
            return reason
    if row.concurrency is None:
        return "no concurrency stated"
    if row.input_tokens is None or row.output_tokens is None:
        return "no lengths stated"
    if re.search(r"attn_dp=([2-9]|\d\d)|-pp 2|expert-parallel", row.notes):
        return "attention data, pipeline or expert parallel: no layout of ours"
    architecture = measured_architectures().get(row.model)
    if architecture is None:
        return "unknown architecture"
    gpu = gpus().get(row.gpu)
    if gpu is None or gpu.bf16_tflops is None:
        return "unknown GPU"
    method, _, kv_dtype = row.quantization.partition("+kv")
    kv_cache_dtype = kv_dtype or "auto"
    checkpoint = Checkpoint(row.model, METHODS.get(method, method), row.model, 0.0, verified=True, source=row.source)
    clients = max(1, round(row.concurrency))
    longest = round(row.input_tokens + row.output_tokens)
    # A batch that starts together is prefilled together.
    batched = max(_BATCHED_TOKENS, clients, clients * round(row.input_tokens) if _static(row) else 0)
    memory = fit(
        architecture,
        checkpoint,
        gpu,
        row.gpu_count,
        max_model_len=longest,
        max_num_seqs=clients,
        max_num_batched_tokens=min(batched, _BATCHED_TOKENS),
        kv_cache_dtype=kv_cache_dtype,
    )
    # It ran, so that it did fit: where the memory model disagrees, the cache is taken for no limit.
    room = memory.full_length_sequences if memory.fits else clients
    limits = Limits(clients, batched, int(room * longest), longest)
    speed = gpu_speed(architecture, checkpoint, gpu, row.gpu_count, kv_cache_dtype, engine=generation(row))
    poisson = re.search(r"Poisson arrivals (\d+) req/s", row.notes)
    if poisson:
        rate = float(poisson[1])
        limits = Limits(256, batched, limits.kv_tokens, longest)
        traffic = Traffic(OpenLoop(gamma(1 / rate, 1)), gamma(row.input_tokens, 0), gamma(row.output_tokens, 0))
        return simulate(speed, limits, traffic, requests=600, warm_up=0)
    requests = max(50, _REQUESTS_PER_CLIENT * clients)
    traffic = Traffic(ClosedLoop(clients), _lengths(row, row.input_tokens), _lengths(row, row.output_tokens))
    return simulate(speed, limits, traffic, requests=requests, warm_up=0)


def _static(row: Measurement) -> bool:
    return "whole batch" in row.notes or "static inference" in row.notes


def _lengths(row: Measurement, nominal: float) -> Distribution:
    if "InferenceMAX" in row.notes:
        return lambda random: nominal * random.uniform(_RANGE_RATIO, 1)
    return gamma(nominal, 1.0 if "ShareGPT" in row.notes else 0.0)


def _error(predicted: float, measured: float | None) -> float | None:
    return None if measured is None else 100 * abs(predicted / measured - 1)


def _errors(source: str, entries: Sequence[tuple[float | None, ...]]) -> LatencyErrors:
    columns = [sorted(value for value in column if value is not None) for column in zip(*entries, strict=True)]
    tpot, *others = columns or [[]] * 4
    medians = [statistics.median(values) if values else None for values in others]
    p50 = statistics.median(tpot) if tpot else None
    return LatencyErrors(source, len(entries), p50, tpot[int(0.9 * len(tpot))] if tpot else None, *medians)
