"""The speed form against published measurements, and the fit of its constants.

Every row is predicted from its architecture, GPU, quantisation, lengths and concurrency alone; no measured figure of
the row is an input. What is compared is the published output rate; where a source gives latencies instead, the rate
that they imply at the stated concurrency (Little's law), or the latency itself when it gives only one.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, cast

from planning.facts.checkpoints import Checkpoint
from planning.facts.gpus import Gpu, gpus
from planning.facts.logged_models import logged_model
from planning.facts.measurements import Measurement, measured_architectures
from planning.facts.models import Architecture
from planning.memory import GIB, fit, gpu_name, kv_bytes_per_sequence, kv_shards, visible_gib, weight_bytes
from planning.speed import CONSTANTS, Engine, SpeedConstants, Work, gpu_work

#: The measurements' names of quantisations. ``w8a16`` is nothing that we serve: 8 bit in memory, unpacked to multiply.
METHODS = {
    "bf16": "fp16",
    "fp16": "fp16",
    "fp8": "fp8",
    "int8": "int8",
    "w8a8": "int8",
    "w8a8-int8": "int8",
    "w8a16": "w8a16",
    "w4a16": "w4a16",
    "awq": "awq",
    "awq-int4": "awq",
    "gptq": "gptq",
    "gptq-int4": "gptq",
    "mxfp4": "mxfp4",
    "nvfp4": "nvfp4",
}

#: Prompt and answer of a single request whose lengths nobody states. At a batch of one they hardly matter.
_SHORT_TOKENS = 256.0

#: Largest batches by engine: vLLM's default ``--max-num-seqs`` and TensorRT-LLM's largest engine batch.
_VLLM_MAX_NUM_SEQS, _VLLM_MAX_NUM_SEQS_LARGE, _TENSORRT_MAX_BATCH = 256, 1024, 2048

#: TensorRT-LLM: share of the memory left after weights and 2.5 GiB of buffers that becomes KV cache (its default
#: ``kv_cache_free_gpu_mem_fraction``); it admits a request only when its whole answer will fit
#: (``GUARANTEED_NO_EVICT``), while vLLM admits by the prompt and preempts.
_TENSORRT_KV_SHARE, _TENSORRT_BUFFERS_GIB = 0.9, 2.5

#: vLLM's default ``--gpu-memory-utilization`` in the years of most rows.
_VLLM_UTILIZATION = 0.9

#: Above any tokens, requests, GPUs or rates that a run can have.
_LARGEST_CELL = 1e9


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that is not judged."""

    row: Measurement
    reason: str
    prediction: Prediction | None
    """Where it can be computed all the same."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A row and what the form says of it: ``amount / seconds`` is the output rate, or ``seconds`` the latency."""

    row: Measurement
    work: Work
    amount: float | None
    """Output tokens of the work; None where a latency is compared."""
    engine: Engine
    measured: float
    """Output tokens per second, or seconds."""

    def error(self, unit: Work) -> float:
        """Predicted over measured speed, minus 1, given the seconds per unit of work."""
        seconds = sum(part * each for part, each in zip(self.work, unit, strict=True))
        if self.amount is None:
            return self.measured / seconds - 1
        return self.amount / seconds / self.measured - 1


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How well predictions meet measurements, percent."""

    rows: int
    median_ape: float
    p90_ape: float
    within_2x: float
    bias: float
    """Median of predicted over measured speed, less 100."""


def measured_by(row: Measurement) -> str:
    """Who measured, as far as the row says: what is left out together when a source is left out."""
    measurer = re.match(r"(.+?) measured point", row.notes)
    if measurer:
        return measurer[1]
    first, *rest = row.source.split()
    if first in {"github", "HF"} and rest:
        named = next((word for word in rest if "/" in word), "")
        return "/".join(named.split("/")[: 1 if first == "HF" else 2]) or first
    return first.removeprefix("https://").split("/")[0]


def predictions(rows: Sequence[Measurement]) -> tuple[list[Prediction], list[LeftOut]]:
    """What can be judged, and what is left out with its reason."""
    judged: list[Prediction] = []
    left_out: list[LeftOut] = []
    for row in rows:
        subject = _subject(row)
        if isinstance(subject, str):
            left_out.append(LeftOut(row, subject, None))
            continue
        prediction = subject.prediction()
        reason = subject.contradiction(prediction)
        if reason:
            left_out.append(LeftOut(row, reason, prediction))
        else:
            judged.append(prediction)
    return judged, left_out


def errors_by_source(
    judged: Sequence[Prediction], constants: SpeedConstants = CONSTANTS
) -> dict[str, list[tuple[Prediction, float]]]:
    """Error of every row, predicted over measured speed minus 1, by who measured."""
    units: dict[Engine, Work] = {engine: constants.seconds_per_unit(engine) for engine in _ENGINES}
    errors: dict[str, list[tuple[Prediction, float]]] = {}
    for prediction in judged:
        errors.setdefault(measured_by(prediction.row), []).append(
            (prediction, prediction.error(units[prediction.engine]))
        )
    return errors


def leave_one_source_out(judged: Sequence[Prediction]) -> dict[str, list[tuple[Prediction, float]]]:
    """The same with constants fitted on all other sources. Needs two sources: ValueError."""
    sources = {measured_by(prediction.row) for prediction in judged}
    if len(sources) < 2:
        raise ValueError("only one source: nothing remains to fit the constants on")
    errors: dict[str, list[tuple[Prediction, float]]] = {}
    for source in sorted(sources):
        constants = fit_constants([row for row in judged if measured_by(row.row) != source])
        errors |= errors_by_source([row for row in judged if measured_by(row.row) == source], constants)
    return errors


def summary(errors: Sequence[float]) -> Accuracy:
    """Accuracy of predicted over measured speed, minus 1. ValueError without rows."""
    if not errors:
        raise ValueError("no row can be judged")
    size = [100 * abs(error) for error in errors]
    ratios = [1 + error for error in errors]
    return Accuracy(
        rows=len(errors),
        median_ape=statistics.median(size),
        p90_ape=statistics.quantiles(size, n=10, method="inclusive")[-1] if len(size) > 1 else size[0],
        within_2x=100 * sum(0.5 <= ratio <= 2 for ratio in ratios) / len(ratios),
        bias=100 * (statistics.median(ratios) - 1),
    )


def ranking(judged: Sequence[Prediction], constants: SpeedConstants = CONSTANTS) -> float | None:
    """Percent of pairs of GPU choices that are put in the right order, which is what right-sizing needs.

    Pairs share model, lengths, concurrency and source, differ in GPU, number or quantisation, and their measured rates
    per GPU by more than a quarter. None without such pairs.
    """
    groups: dict[object, list[Prediction]] = {}
    for prediction in judged:
        row = prediction.row
        if prediction.amount is not None:
            key = (row.model, row.input_tokens, row.output_tokens, row.concurrency, measured_by(row), row.engine)
            groups.setdefault(key, []).append(prediction)
    units: dict[Engine, Work] = {engine: constants.seconds_per_unit(engine) for engine in _ENGINES}
    right = pairs = 0
    for group in groups.values():
        rates = [
            (one.measured / one.row.gpu_count, one.measured * (1 + one.error(units[one.engine])) / one.row.gpu_count)
            for one in group
        ]
        for position, (measured, predicted) in enumerate(rates):
            for other_measured, other_predicted in rates[:position]:
                if max(measured, other_measured) > 1.25 * min(measured, other_measured):
                    pairs += 1
                    right += (measured > other_measured) == (predicted > other_predicted)
    return 100 * right / pairs if pairs else None


#: Where a fit begins: what one would write down without measurements, and no difference between engines.
_TEXTBOOK = SpeedConstants(
    bandwidth_efficiency=0.8,
    older_attention_efficiency=1.0,
    expert_read_efficiency=0.8,
    compute_efficiency=0.6,
    weight_only_efficiency=0.8,
    expert_compute_efficiency=0.8,
    link_efficiency=0.5,
    hop_latency_s=0.5e-6,
    step_overhead_s=500e-6,
    layer_overhead_s=60e-6,
    layer_overhead_before_v1_s=100e-6,
    layer_overhead_eager_s=100e-6,
    sequence_overhead_s=10e-6,
    sequence_overhead_before_v1_s=30e-6,
)

#: Errors below it count as squares, above it by their size, and beyond a factor of e no more: a wrong label must not
#: pull the constants. The pull towards the start keeps what no row identifies where it was.
_SMALL_ERROR, _LARGEST_ERROR, _PULL = 0.05, 1.0, 1e-4


def fit_constants(judged: Sequence[Prediction]) -> SpeedConstants:
    """Fit the constants by the mean size of the logarithmic error."""
    import numpy as np  # noqa: PLC0415 (slow to import, and only a fit needs it)
    from scipy.optimize import minimize  # noqa: PLC0415 (as above)

    by_engine = [
        (
            np.array([row.work for row in judged if row.engine == engine]),
            np.log(
                [
                    row.measured / row.amount if row.amount else 1 / row.measured
                    for row in judged
                    if row.engine == engine
                ]
            ),
            engine,
        )
        for engine in _ENGINES
        if any(row.engine == engine for row in judged)
    ]
    start = np.log(np.array(astuple(_TEXTBOOK)))

    def cost(logarithms: Any) -> float:
        constants = SpeedConstants(*(float(value) for value in np.exp(logarithms)))
        total = 0.0
        for work, log_rate, engine in by_engine:
            error = np.log(work @ np.array(constants.seconds_per_unit(engine))) + log_rate
            total += float(np.minimum(np.sqrt(error**2 + _SMALL_ERROR**2), _LARGEST_ERROR).sum())
        return total / len(judged) + _PULL * float(((logarithms - start) ** 2).sum())

    found = cast("Any", minimize(cost, start, method="L-BFGS-B", options={"maxiter": 500, "maxfun": 50_000}))
    return SpeedConstants(*(float(value) for value in np.exp(found.x)))


_ENGINES: tuple[Engine, ...] = ("current", "before_v1", "eager")


@dataclass(frozen=True, slots=True)
class _Subject:
    """A row with everything it names looked up."""

    row: Measurement
    architecture: Architecture
    checkpoint: Checkpoint
    gpu: Gpu
    input_tokens: float
    output_tokens: float
    concurrency: float | None
    """None: as many as the memory holds."""
    output_tokens_per_second: float | None

    @property
    def tensorrt(self) -> bool:
        return "TensorRT" in self.row.engine

    @property
    def kv_cache_dtype(self) -> str:
        """NVIDIA's fp8 and nvfp4 checkpoints ask TensorRT-LLM for an fp8 KV cache."""
        natively = self.tensorrt and self.checkpoint.method in {"fp8", "nvfp4"}
        return "fp8" if natively or self.row.quantization.endswith("+kvfp8") else "auto"

    def contradiction(self, prediction: Prediction) -> str:
        """Why the row's own label cannot be right; empty when it can."""
        row = self.row
        layout = re.search(r"_tp(\d+)(?:_\d+)?_ep(\d+)", row.source)
        if layout and int(layout[2]) > 1 and int(layout[1]) != row.gpu_count:
            return "GPUs stated contradict the parallelism of the run's name"
        if weight_bytes(self.architecture, self.checkpoint).total > row.gpu_count * visible_gib(self.gpu) * GIB:
            return "the weights do not fit in the GPUs stated"
        if prediction.error(_roofline(prediction.work)) < 0:
            return "faster than bandwidth or peak rate allow"
        return ""

    def batch(self) -> float:
        """Sequences that run at once."""
        per_answer = 1.0 if self.tensorrt else 0.5
        kv = kv_bytes_per_sequence(
            self.architecture, self.kv_cache_dtype, self.input_tokens + per_answer * self.output_tokens
        )
        room = self._kv_gib_per_gpu() * GIB * kv_shards(self.architecture, self.row.gpu_count)
        most = self._max_num_seqs()
        asked = most if self.concurrency is None else self.concurrency
        return max(1.0, min(asked, most, room / kv))

    def _max_num_seqs(self) -> int:
        if self.tensorrt:
            return _TENSORRT_MAX_BATCH
        large = self.gpu.memory_gib >= 70 and not self.gpu.name.startswith("A100")
        return _VLLM_MAX_NUM_SEQS_LARGE if large and generation(self.row) == "current" else _VLLM_MAX_NUM_SEQS

    def _kv_gib_per_gpu(self) -> float:
        if self.tensorrt:
            weights_gib = weight_bytes(self.architecture, self.checkpoint).total / self.row.gpu_count / GIB
            return _TENSORRT_KV_SHARE * (visible_gib(self.gpu) - weights_gib - _TENSORRT_BUFFERS_GIB)
        return fit(
            self.architecture,
            self.checkpoint,
            self.gpu,
            self.row.gpu_count,
            max_model_len=math.ceil(self.input_tokens + self.output_tokens),
            max_num_seqs=self._max_num_seqs(),
            kv_cache_dtype=self.kv_cache_dtype,
            gpu_memory_utilization=_VLLM_UTILIZATION,
        ).kv_gib_per_gpu

    def prediction(self) -> Prediction:
        """The work of the run that the row's figure is about."""
        row, answer = self.row, self.output_tokens
        replica = gpu_work(self.architecture, self.checkpoint, self.gpu, row.gpu_count)
        kv = kv_bytes_per_sequence(self.architecture, self.kv_cache_dtype, self.input_tokens + answer / 2)
        prefill = replica.prefill(self.input_tokens)
        batch = self.batch()
        step = replica.decode(batch, kv)
        engine = generation(row)
        rate = self.output_tokens_per_second
        if rate is None and row.ttft_p50_ms is None:
            # TPOT alone: its own step, and the prefills of the others in between.
            work = step.plus(prefill.times((batch - 1) / answer))
            return Prediction(row, work, None, engine, (row.tpot_p50_ms or 0.0) / 1000)
        if rate is None and row.tpot_p50_ms is None:
            return Prediction(row, prefill.times(batch).plus(step), None, engine, (row.ttft_p50_ms or 0.0) / 1000)
        if rate is None:
            stay_s = ((row.ttft_p50_ms or 0.0) + (row.tpot_p50_ms or 0.0) * (answer - 1)) / 1000
            rate = (self.concurrency or 1.0) * answer / stay_s
        requests = self.concurrency
        if requests is None or not is_burst(row):
            return Prediction(row, prefill.times(batch).plus(step.times(answer)), batch * answer, engine, rate)
        # Waves of a full batch, and then it drains. Answers of equal length all end together; of exponential length the
        # k-th last ends after answer / k, so that steps of a + b k take answer x (a x H(batch) + b x batch) in all,
        # with H the harmonic number.
        waves = step.times(answer * max(0.0, requests - batch) / batch)
        drain = step.times(answer)
        if not (self.input_tokens.is_integer() and answer.is_integer()):
            # Fractions are means of a data set with lengths of all kinds.
            alone = replica.decode(1.0, kv)
            slope = step.plus(alone.times(-1.0)).times(1 / max(batch - 1, 1.0))
            fixed = alone.plus(slope.times(-1.0))
            harmonic = sum(1 / (k + 1) for k in range(round(batch)))
            drain = fixed.times(harmonic).plus(slope.times(batch)).times(answer)
        work = prefill.times(max(batch, requests)).plus(waves).plus(drain)
        return Prediction(row, work, max(batch, requests) * answer, engine, rate)


def _roofline(work: Work) -> Work:
    """Seconds per unit when nothing is lost and everything overlaps: only the larger of reading and computing."""
    # How many experts a batch hits is an expectation, so reading them proves nothing.
    reads = Work(memory_s=1.0, older_attention_memory_s=1.0)
    computes = Work(compute_s=1.0, weight_only_compute_s=1.0, expert_compute_s=1.0, weight_only_expert_compute_s=1.0)
    reading, computing = (sum(a * b for a, b in zip(work, one, strict=True)) for one in (reads, computes))
    return reads if reading > computing else computes


def architecture_of(row: Measurement) -> Architecture | None:
    """The architecture that a row names, by the measurements' short names or as people write it; None: not known."""
    return measured_architectures().get(row.model) or logged_model(row.model)


def _subject(row: Measurement) -> _Subject | str:
    """The row with what it names, or why it cannot be predicted."""
    architecture = architecture_of(row)
    if architecture is None:
        return f"architecture of {row.model} is not known"
    gpu = gpus().get(gpu_name(row.gpu))
    if gpu is None or gpu.bf16_tflops is None:
        return f"no published peaks of {row.gpu}"
    method = METHODS.get(row.quantization.removesuffix("+kvfp8"))
    if method is None:
        return f"no rule for the format {row.quantization}"
    impossible = _impossible_cell(row)
    if impossible:
        return impossible
    given, made = _lengths(row)
    if given is None:
        return "input length not stated"
    if made is None:
        return "output length not stated"
    rate = row.output_tokens_per_s
    if rate is None and row.total_tokens_per_s is not None:
        rate = row.total_tokens_per_s * made / (given + made)
    if rate is None and row.ttft_p50_ms is None and row.tpot_p50_ms is None:
        return "neither a rate nor a latency"
    concurrency = 1.0 if _is_single(row) else row.concurrency
    if concurrency is None and rate is None:
        return "open loop: load not stated as a concurrency"
    eight_bit_gb = architecture.params_billion
    checkpoint = Checkpoint(row.model, method, "as measured", eight_bit_gb, verified=True, source=row.source)
    return _Subject(row, architecture, checkpoint, gpu, given, made, concurrency, rate)


def _impossible_cell(row: Measurement) -> str:
    """The first figure that no run can have; empty when there is none."""
    at_least_one = ("gpu_count", "input_tokens", "output_tokens", "concurrency")
    above_zero = ("output_tokens_per_s", "total_tokens_per_s", "ttft_p50_ms", "tpot_p50_ms")
    for least, names in ((1.0, at_least_one), (1e-9, above_zero)):
        for name in names:
            value = getattr(row, name)
            if value is not None and not least <= value <= _LARGEST_CELL:
                return f"{name} is {value:g}"
    return ""


def _lengths(row: Measurement) -> tuple[float | None, float | None]:
    """Tokens in and out of a request: the row's, or those that its notes give in words."""
    given, made = row.input_tokens, row.output_tokens
    typical = re.search(r"p50 input (\d+) / p50 output (\d+)", row.notes)
    long_context = re.search(r"~(\d+)K input", row.notes)
    if given is None and typical:
        given, made = float(typical[1]), made or float(typical[2])
    if given is None and long_context:
        given = 1000 * float(long_context[1])
    if _is_single(row):
        return given or _SHORT_TOKENS, made or _SHORT_TOKENS
    if made is None and row.output_tokens_per_s is None and row.tpot_p50_ms is None:
        made = 1.0
    return given, made


def is_current(row: Measurement) -> bool:
    """Whether the row's engine is vLLM from 0.9, TensorRT-LLM from 1.0 or SGLang from 0.5."""
    least = {"vLLM": (0, 9), "TensorRT-LLM": (1, 0), "SGLang": (0, 5)}.get(row.engine)
    version = re.match(r"(\d+)\.(\d+)", row.engine_version)
    return bool(least and version and least <= (int(version[1]), int(version[2])) < (1000, 0))


def is_burst(row: Measurement) -> bool:
    """Whether all requests were sent at once: such a run measures ramp and tail, not a steady state."""
    return "at once" in row.notes or "rate inf" in row.notes


def _is_single(row: Measurement) -> bool:
    return "single request" in row.notes or "serial requests" in row.notes


def generation(row: Measurement) -> Engine:
    """The engine's generation, from its name, version and date."""
    if row.engine == "SGLang" or "TensorRT" in row.engine:
        return "current"
    if row.engine != "vLLM":
        return "before_v1"
    version = re.match(r"(\d+)\.(\d+)", row.engine_version)
    year = re.match(r"20\d\d", row.engine_version)
    if version and not year:
        return "current" if (int(version[1]), int(version[2])) >= (0, 9) else "before_v1"
    if year:
        return "eager" if year[0] == "2023" else "before_v1" if year[0] == "2024" else "current"
    return "current" if row.source_date >= "2025-06" else "before_v1"
