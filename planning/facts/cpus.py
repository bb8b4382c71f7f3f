"""Processors behind the CPU instance families, and what llama.cpp was measured to do on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from types import MappingProxyType

from planning.facts.table import CPU_ARCHITECTURES, DATA, CpuArchitecture, Row, UnknownFact, read_table


@dataclass(frozen=True, slots=True)
class Cpu:
    """One processor (socket) as an instance family rents it out."""

    family: str
    """Instance family: ``c8g``."""
    processor: str
    """``Graviton4``; several families share one."""
    arch: CpuArchitecture
    memory_bandwidth_gbps: float
    """Of the whole socket, 10^9 bytes a second: channels x transfers a second x 8 bytes."""
    vcpu_per_socket: int
    """A vCPU is a core on Graviton and half a core (a hardware thread) on Intel."""
    clock_ghz: float
    """Sustained, all cores."""
    measured_read_bandwidth_gbps: float | None
    """Reached by reads alone on an instance of ``measured_on_vcpu`` vCPUs. EC2 does not divide bandwidth by vCPU: 64 of
    Graviton4's 96 cores reached 87 % of the socket's. Nor does it promise it: neighbours share the socket."""
    measured_on_vcpu: int | None
    source: str
    as_of: date | None


@dataclass(frozen=True, slots=True)
class CpuMeasurement:
    """One published run of llama.cpp (or Ollama, which is llama.cpp) on a CPU. None: not stated."""

    model: str
    """Catalogue id, or the short name of ``measured_architectures``, or else the source's name."""
    quantization: str
    """``gguf-q4_0`` and its like, ``fp16``, ``mxfp4``."""
    weights_gib: float | None
    """Size of the file: the bytes read for one token of a dense model."""
    processor: str
    """As in ``Cpu``."""
    instance_type: str | None
    vcpu: int | None
    """Of the instance."""
    threads: int
    """That llama.cpp used."""
    batch: int
    """Sequences generated together."""
    prompt_tokens: int | None
    """Length of the prompt; below about 100 tokens prefill is not at its full rate."""
    prompt_tokens_per_s: float | None
    generation_tokens_per_s: float | None
    """Of all sequences together."""
    source: str
    source_date: str
    notes: str


@cache
def cpus() -> Mapping[str, Cpu]:
    """All processors by instance family (``data/cpus.csv``)."""
    return MappingProxyType({row.family: row for row in read_table(DATA / "cpus.csv", _CPU_COLUMNS, _cpu)})


def cpu(family: str) -> Cpu:
    """The processor of an instance family: ``c8g``, not ``c8g.4xlarge``. Raises ``UnknownFact`` (``cpu family``)."""
    try:
        return cpus()[family]
    except KeyError:
        raise UnknownFact("cpu family", family, cpus()) from None


@cache
def cpu_measurements() -> tuple[CpuMeasurement, ...]:
    """The runs of ``data/cpu_measurements.csv``: few, all with one sequence at a time."""
    return read_table(DATA / "cpu_measurements.csv", _MEASUREMENT_COLUMNS, _measurement)


_CPU_COLUMNS = (
    "family",
    "processor",
    "arch",
    "memory_bandwidth_gbps_per_socket",
    "vcpu_per_socket",
    "clock_ghz",
    "measured_read_bandwidth_gbps",
    "measured_on_vcpu",
    "source",
    "as_of",
)
_MEASUREMENT_COLUMNS = (
    "model",
    "quantization",
    "weights_gib",
    "processor",
    "instance_type",
    "vcpu",
    "threads",
    "batch",
    "prompt_tokens",
    "prompt_tokens_per_s",
    "generation_tokens_per_s",
    "source",
    "source_date",
    "notes",
)


def _cpu(row: Row) -> Cpu:
    return Cpu(
        family=row.name("family"),
        processor=row.name("processor"),
        arch=row.choice("arch", CPU_ARCHITECTURES),
        memory_bandwidth_gbps=row.number("memory_bandwidth_gbps_per_socket"),
        vcpu_per_socket=row.integer("vcpu_per_socket"),
        clock_ghz=row.number("clock_ghz"),
        measured_read_bandwidth_gbps=row.optional(row.number, "measured_read_bandwidth_gbps"),
        measured_on_vcpu=row.optional(row.integer, "measured_on_vcpu"),
        source=row.name("source"),
        as_of=row.date("as_of"),
    )


def _measurement(row: Row) -> CpuMeasurement:
    return CpuMeasurement(
        model=row.name("model"),
        quantization=row.name("quantization"),
        weights_gib=row.optional(row.number, "weights_gib"),
        processor=row.name("processor"),
        instance_type=row.optional(row.name, "instance_type"),
        vcpu=row.optional(row.integer, "vcpu"),
        threads=row.integer("threads"),
        batch=row.integer("batch"),
        prompt_tokens=row.optional(row.integer, "prompt_tokens"),
        prompt_tokens_per_s=row.optional(row.number, "prompt_tokens_per_s"),
        generation_tokens_per_s=row.optional(row.number, "generation_tokens_per_s"),
        source=row.name("source"),
        source_date=row.name("source_date"),
        notes=row.text("notes"),
    )
