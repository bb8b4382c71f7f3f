"""The memory model against vLLM's start-up logs: KV cache per GPU, predicted and logged.

A prediction sees what a user knows before the start: model, quantisation, GPUs, vLLM's version and its arguments, and
the memory that the driver reports. The log's own activation, non-torch and CUDA graph figures are results of the same
start; they are what is to be predicted and are never read. Logged weights are used only where the architecture is not
known, or its format has no fixed number of bits.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planning.facts.checkpoints import BITS_PER_WEIGHT, Checkpoint
from planning.facts.gpus import gpus
from planning.facts.logged_models import logged_model, logged_models
from planning.facts.measurements import KvCacheLog, kv_cache_logs
from planning.facts.models import Architecture
from planning.memory import (
    PINNED_VLLM,
    UNIFIED_HOST_GIB,
    UNIFIED_MEMORY,
    activation_gib,
    gpu_name,
    overheads,
    sampler_gib,
    visible_gib_named,
    weight_gib_per_gpu,
)

#: Methods as logs name them.
_METHODS = {
    "bf16": "fp16",
    "bf16?": "fp16",
    "w8a8": "int8",
    "w8a8-int8": "int8",
    "awq-int4": "awq",
    "gptq-int4": "gptq",
}

#: The V1 engine and its defaults (vLLM ``engine/arg_utils.py``); before it a step held the longest prompt whole.
_V1_ENGINE = (0, 9)

#: The old engine cut prompts into steps of 2,048 tokens only for models of a longer context than this.
_CHUNKS_ABOVE = 32768
_SMALL_STEP = 2048

#: From this much memory on, A100 excepted, vLLM's defaults are those of a large GPU.
_LARGE_GPU_GIB = 70


#: Tensor parallelism ends at a rack (GB200 NVL72); anything above is a mistake.
_MOST_GPUS = 72


@dataclass(frozen=True, slots=True)
class LogPrediction:
    """One log, predicted."""

    log: KvCacheLog
    predicted_gib: float
    from_architecture: bool
    """The weights were computed; else the logged weights were taken."""

    @property
    def error_percent(self) -> float:
        """Predicted against logged KV cache, signed."""
        logged = self.log.kv_gib_reported or 0.0
        return (self.predicted_gib / logged - 1) * 100


@dataclass(frozen=True, slots=True)
class LogEvaluation:
    """All logs of a file."""

    predictions: tuple[LogPrediction, ...]
    left_out: Mapping[str, tuple[KvCacheLog, ...]]
    """By reason."""

    @property
    def median_ape(self) -> float:
        """Median absolute error, percent."""
        return statistics.median(self._absolute())

    @property
    def p90_ape(self) -> float:
        """90th percentile of the absolute error, percent."""
        return _p90(self._absolute())

    @property
    def bias(self) -> float:
        """Median signed error, percent: positive where too much cache was promised."""
        return statistics.median(prediction.error_percent for prediction in self.predictions)

    @property
    def configurations(self) -> int:
        """Combinations of model, GPU and number of GPUs: logs of one repeat each other."""
        return len(self._by_configuration())

    @property
    def configuration_median_ape(self) -> float:
        """Median over configurations of the median absolute error of each, percent."""
        return statistics.median(self._by_configuration())

    @property
    def configuration_p90_ape(self) -> float:
        """90th percentile over configurations of the median absolute error of each, percent."""
        return _p90(self._by_configuration())

    def _absolute(self) -> Sequence[float]:
        return [abs(prediction.error_percent) for prediction in self.predictions]

    def _by_configuration(self) -> Sequence[float]:
        errors: dict[tuple[str, str, int], list[float]] = {}
        for each in self.predictions:
            key = (each.log.model, gpu_name(each.log.gpu), each.log.gpu_count)
            errors.setdefault(key, []).append(abs(each.error_percent))
        return [statistics.median(group) for group in errors.values()]


def _p90(errors: Sequence[float]) -> float:
    return errors[0] if len(errors) == 1 else statistics.quantiles(errors, n=10, method="inclusive")[8]


def evaluate_logs(path: Path | None = None) -> LogEvaluation:
    """Predict every log of a file, the shipped one without a path.

    Raises ``InvalidTable`` for a file that is no such table, ``OSError`` when it cannot be read, ``ValueError`` when no
    row can be predicted.
    """
    predictions: list[LogPrediction] = []
    left_out: dict[str, tuple[KvCacheLog, ...]] = {}
    for log in kv_cache_logs(path):
        result = predict(log)
        if isinstance(result, str):
            left_out[result] = (*left_out.get(result, ()), log)
        else:
            predictions.append(result)
    if not predictions:
        reasons = Counter({reason: len(logs) for reason, logs in left_out.items()})
        told = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common()) or "it has no rows"
        raise ValueError(f"no row of {path} can be predicted: {told}")
    return LogEvaluation(tuple(predictions), left_out)


def predict(log: KvCacheLog) -> LogPrediction | str:
    """KV cache per GPU of one log, or the general reason why it cannot be predicted."""
    if re.match(r"(AMD |Intel |Google )|(Instinct|MI\d|Gaudi|TPU|Radeon|RX-)", log.gpu, re.IGNORECASE):
        return "no NVIDIA GPU"
    if not log.kv_gib_reported:
        return "no KV cache size logged"
    if log.gpu_memory_utilization is None:
        return "utilization not logged"
    if not 0 < log.gpu_memory_utilization <= 1:
        return "utilization is no share"
    if not 1 <= log.gpu_count <= _MOST_GPUS:
        return "number of GPUs is none that a replica has"
    visible = log.gpu_memory_gib_reported or visible_gib_named(log.gpu)
    if visible is None:
        return "memory of the GPU neither logged nor known"
    method = _METHODS.get(log.quantization, log.quantization)
    architecture = logged_model(log.model)
    computed = architecture is not None and method in BITS_PER_WEIGHT
    if not computed and log.weights_gib_reported is None:
        return "architecture not known and weights not logged"
    version = vllm_version(log.vllm_version)
    context = log.max_model_len or (architecture.max_context if architecture else 0)
    sequences, batched = _limits(log, visible, context, version)
    count = log.gpu_count
    if architecture is not None:
        activations = activation_gib(architecture, count, sequences, batched, method=method, vllm=version)
    else:
        # Of an unknown model only the sampler can be said, at the middle of the known vocabularies.
        vocabulary = int(statistics.median(entry.vocab_size for entry in logged_models().values()))
        activations = sampler_gib(vocabulary, count, sequences, version)
    weights = (
        weight_gib_per_gpu(architecture, _checkpoint(architecture, method), count)
        if architecture is not None and computed
        else log.weights_gib_reported or 0.0
    )
    known = gpus().get(gpu_name(log.gpu))
    nvlink = known is not None and known.nvlink == "yes"
    taken = weights + activations + sum(item.gib_per_gpu for item in overheads(count, nvlink=nvlink, vllm=version))
    if log.gpu in UNIFIED_MEMORY:
        taken += UNIFIED_HOST_GIB
    return LogPrediction(log, visible * log.gpu_memory_utilization - taken, from_architecture=computed)


def vllm_version(text: str) -> tuple[int, ...]:
    """The version in a text such as ``0.11.2+rhai1`` or ``0.6.x``; the pinned one where there is none."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in found.groups() if part) if found else PINNED_VLLM


def _limits(log: KvCacheLog, visible: float, context: int, version: tuple[int, ...]) -> tuple[int, int]:
    """Sequences and tokens of a step: as logged, else vLLM's defaults for the version and the GPU's memory."""
    large = visible >= _LARGE_GPU_GIB and not gpu_name(log.gpu).startswith("A100") and log.gpu not in UNIFIED_MEMORY
    if version < _V1_ENGINE:
        whole = max(context, _SMALL_STEP) if context <= _CHUNKS_ABOVE else _SMALL_STEP
        return log.max_num_seqs or 256, log.max_num_batched_tokens or whole
    return log.max_num_seqs or (1024 if large else 256), log.max_num_batched_tokens or (8192 if large else _SMALL_STEP)


def _checkpoint(architecture: Architecture, method: str) -> Checkpoint:
    return Checkpoint(architecture.model_id, method, architecture.model_id, 0.0, verified=False, source="computed")
