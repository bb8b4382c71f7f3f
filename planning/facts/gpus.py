"""GPUs: memory, bandwidth and peak rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

from planning.facts.table import DATA, InvalidCell, Row, UnknownFact, read_table

NvLink = Literal["yes", "no", "bridge"]
_NVLINK: tuple[NvLink, ...] = ("yes", "no", "bridge")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. Peaks are dense, without sparsity; None where no source states one or the hardware has no such mode."""

    name: str
    """The name used everywhere: ``A10G``, ``A100-40GB``, ``RTX-PRO-6000``, …"""
    memory_gib: float
    """What EC2 reports, below the name: 22.35 for the "24 GB" of an L4."""
    bandwidth_gbps: float
    """Memory bandwidth, 10^9 bytes a second."""
    bf16_tflops: float | None
    """Of a T4, which has no bf16, the fp16 rate."""
    fp8_tflops: float | None
    """None: no fp8 arithmetic, fp8 weights are then only a storage format."""
    int8_tops: float | None
    nvlink: NvLink
    """``bridge``: in pairs only."""
    compute_capability: tuple[int, int]
    least_driver: int | None
    """Oldest branch of NVIDIA's driver that knows it; None: any that vLLM runs on."""
    source: str
    """Says which cells are disputed or recalled."""


@cache
def gpus() -> Mapping[str, Gpu]:
    """All GPUs by name (``data/gpus.csv``), AWS's and those that appear in measurements only."""
    return MappingProxyType({row.name: row for row in read_table(DATA / "gpus.csv", _COLUMNS, _gpu)})


def gpu(name: str) -> Gpu:
    """The GPU of that name. Raises ``UnknownFact`` of kind ``gpu``."""
    try:
        return gpus()[name]
    except KeyError:
        raise UnknownFact("gpu", name, gpus()) from None


_COLUMNS = (
    "gpu",
    "memory_gib",
    "bandwidth_gbps",
    "bf16_dense_tflops",
    "fp8_dense_tflops",
    "int8_dense_tops",
    "nvlink",
    "compute_capability",
    "least_driver",
    "source",
)


def _gpu(row: Row) -> Gpu:
    return Gpu(
        name=row.name("gpu"),
        memory_gib=row.number("memory_gib"),
        bandwidth_gbps=row.number("bandwidth_gbps"),
        bf16_tflops=row.optional(row.number, "bf16_dense_tflops"),
        fp8_tflops=row.optional(row.number, "fp8_dense_tflops"),
        int8_tops=row.optional(row.number, "int8_dense_tops"),
        nvlink=row.choice("nvlink", _NVLINK),
        compute_capability=_compute_capability(row),
        least_driver=row.optional(row.integer, "least_driver"),
        source=row.name("source"),
    )


def _compute_capability(row: Row) -> tuple[int, int]:
    # A pair, because 10.3 is newer than 9.0 and 8.10 would be newer than 8.9.
    text = row.name("compute_capability")
    major, dot, minor = text.partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal()):
        raise InvalidCell(f"compute_capability should be as 8.9, not {text!r}")
    return int(major), int(minor)
