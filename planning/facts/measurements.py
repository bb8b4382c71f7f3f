"""Published measurements that the models of speed and memory are judged by. Nothing here is read unless asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from planning.facts.models import SHAPE_COLUMNS, Architecture, model, read_shape
from planning.facts.table import DATA, Row, read_table


@dataclass(frozen=True, slots=True)
class Measurement:
    """One published run. None: the source does not say.

    Rates are of the whole deployment (all ``gpu_count`` GPUs). The p50 columns hold the published central value, which
    is a mean where ``notes`` says so or does not say. Traps: ``data/SOURCES.md``.
    """

    model: str
    """Short name; ``measured_architectures`` knows it, or the row cannot be predicted."""
    quantization: str
    """``fp16``, ``bf16``, ``fp8``, ``w8a8-int8``, ``w8a16``, ``w4a16``, ``awq-int4``, ``gptq-int4``, ``mxfp4`` or
    ``nvfp4``; ``+kvfp8`` after it for an fp8 cache."""
    gpu: str
    gpu_count: int
    engine: str
    engine_version: str
    input_tokens: float | None
    output_tokens: float | None
    concurrency: float | None
    """None: not stated, open loop, or everything queued at once."""
    output_tokens_per_s: float | None
    total_tokens_per_s: float | None
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    tpot_p50_ms: float | None
    tpot_p99_ms: float | None
    source: str
    source_date: str
    """Year, month or day, as far as known; may be empty."""
    notes: str


@dataclass(frozen=True, slots=True)
class KvCacheLog:
    """The memory that one vLLM server reported at start-up. None: not in the log."""

    model: str
    """Hugging Face id, often not of the catalogue."""
    quantization: str
    kv_cache_dtype: str
    gpu: str
    gpu_memory_gib_reported: float | None
    gpu_count: int
    """Tensor parallel size; all memory figures are per GPU."""
    gpu_memory_utilization: float | None
    max_model_len: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    vllm_version: str
    weights_gib_reported: float | None
    activation_gib_reported: float | None
    non_torch_gib_reported: float | None
    cuda_graph_gib_reported: float | None
    """vLLM has logged a negative figure."""
    kv_gib_reported: float | None
    kv_tokens: int | None
    """No capacity for hybrid, sliding-window and MLA-hybrid models: use ``kv_gib_reported``."""
    source: str
    source_date: str
    notes: str


def measurements(path: Path | None = None) -> tuple[Measurement, ...]:
    """The measurements of ``data/throughput_measurements.csv``, or of a file with its columns.

    Raises ``InvalidTable``.
    """
    return _shipped_measurements() if path is None else read_table(path, _MEASUREMENT_COLUMNS, _measurement)


@cache
def vllm_measurements() -> tuple[Measurement, ...]:
    """The shipped measurements of vLLM, of any version; the others are not parsed."""
    rows = read_table(
        DATA / "throughput_measurements.csv",
        _MEASUREMENT_COLUMNS,
        lambda row: _measurement(row) if row.text("engine") == "vLLM" else None,
    )
    return tuple(row for row in rows if row is not None)


def measured_architectures(path: Path | None = None) -> Mapping[str, Architecture]:
    """The architecture behind each short model name of the measurements (``data/measured_models.csv``).

    A name that stands for a catalogue model has that model's; the others have ``max_context`` 0 and an empty licence.
    Raises ``InvalidTable``, and ``UnknownFact`` for a model id that the catalogue does not hold.
    """
    return _shipped_architectures() if path is None else _architectures(path)


def kv_cache_logs(path: Path | None = None) -> tuple[KvCacheLog, ...]:
    """The logs of ``data/vllm_kv_cache_logs.csv``, or of a file with its columns. Raises ``InvalidTable``."""
    return _shipped_logs() if path is None else read_table(path, _LOG_COLUMNS, _log)


@cache
def _shipped_measurements() -> tuple[Measurement, ...]:
    return read_table(DATA / "throughput_measurements.csv", _MEASUREMENT_COLUMNS, _measurement)


@cache
def _shipped_architectures() -> Mapping[str, Architecture]:
    return _architectures(DATA / "measured_models.csv")


@cache
def _shipped_logs() -> tuple[KvCacheLog, ...]:
    return read_table(DATA / "vllm_kv_cache_logs.csv", _LOG_COLUMNS, _log)


def _architectures(path: Path) -> Mapping[str, Architecture]:
    return MappingProxyType(dict(read_table(path, _ARCHITECTURE_COLUMNS, _measured_architecture)))


_MEASUREMENT_COLUMNS = (
    "model",
    "quantization",
    "gpu",
    "gpu_count",
    "engine",
    "engine_version",
    "input_tokens",
    "output_tokens",
    "concurrency",
    "output_tokens_per_s",
    "total_tokens_per_s",
    "ttft_p50_ms",
    "ttft_p99_ms",
    "tpot_p50_ms",
    "tpot_p99_ms",
    "source",
    "source_date",
    "notes",
)
_ARCHITECTURE_COLUMNS = (*SHAPE_COLUMNS, "measured_name", "model_id")
_LOG_COLUMNS = (
    "model",
    "quantization",
    "kv_cache_dtype",
    "gpu",
    "gpu_memory_gib_reported",
    "gpu_count",
    "gpu_memory_utilization",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "vllm_version",
    "weights_gib_reported",
    "activation_gib_reported",
    "non_torch_gib_reported",
    "cuda_graph_gib_reported",
    "kv_gib_reported",
    "kv_tokens",
    "source",
    "source_date",
    "notes",
)


def _measurement(row: Row) -> Measurement:
    return Measurement(
        model=row.name("model"),
        quantization=row.name("quantization"),
        gpu=row.name("gpu"),
        gpu_count=row.integer("gpu_count"),
        engine=row.name("engine"),
        engine_version=row.text("engine_version"),
        input_tokens=row.optional(row.number, "input_tokens"),
        output_tokens=row.optional(row.number, "output_tokens"),
        concurrency=row.optional(row.number, "concurrency"),
        output_tokens_per_s=row.optional(row.number, "output_tokens_per_s"),
        total_tokens_per_s=row.optional(row.number, "total_tokens_per_s"),
        ttft_p50_ms=row.optional(row.number, "ttft_p50_ms"),
        ttft_p99_ms=row.optional(row.number, "ttft_p99_ms"),
        tpot_p50_ms=row.optional(row.number, "tpot_p50_ms"),
        tpot_p99_ms=row.optional(row.number, "tpot_p99_ms"),
        source=row.text("source"),
        source_date=row.text("source_date"),
        notes=row.text("notes"),
    )


def _measured_architecture(row: Row) -> tuple[str, Architecture]:
    name = row.name("measured_name")
    model_id = row.text("model_id")
    if model_id:
        return name, model(model_id)
    return name, read_shape(row, name)


def _log(row: Row) -> KvCacheLog:
    return KvCacheLog(
        model=row.name("model"),
        quantization=row.name("quantization"),
        kv_cache_dtype=row.name("kv_cache_dtype"),
        gpu=row.name("gpu"),
        gpu_memory_gib_reported=row.optional(row.number, "gpu_memory_gib_reported"),
        gpu_count=row.integer("gpu_count"),
        gpu_memory_utilization=row.optional(row.number, "gpu_memory_utilization"),
        max_model_len=row.optional(row.integer, "max_model_len"),
        max_num_seqs=row.optional(row.integer, "max_num_seqs"),
        max_num_batched_tokens=row.optional(row.integer, "max_num_batched_tokens"),
        vllm_version=row.text("vllm_version"),
        weights_gib_reported=row.optional(row.number, "weights_gib_reported"),
        activation_gib_reported=row.optional(row.number, "activation_gib_reported"),
        non_torch_gib_reported=row.optional(row.number, "non_torch_gib_reported"),
        cuda_graph_gib_reported=row.optional(lambda name: row.number(name, least=-100.0), "cuda_graph_gib_reported"),
        kv_gib_reported=row.optional(row.number, "kv_gib_reported"),
        kv_tokens=row.optional(row.integer, "kv_tokens"),
        source=row.text("source"),
        source_date=row.text("source_date"),
        notes=row.text("notes"),
    )
