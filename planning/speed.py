"""How fast one replica is: decode step, prefill, throughput, from bytes, operations and links.

The form and its ten constants come from a fit on 3,000 published measurements of 2023-2026 (facts/data/
throughput_measurements.csv): memory and compute time add, host time grows with layers and sequences, tensor parallelism
pays two all-reduces a layer. Projected cost errs by -25 % / +27 % (80 % band) where the source is like those.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cache

from planning.facts.checkpoints import Checkpoint
from planning.facts.cpus import Cpu, cpu_measurements
from planning.facts.gpus import Gpu
from planning.facts.models import Architecture, models
from planning.memory import kv_bytes_per_sequence, kv_shards, weight_bytes


@dataclass(frozen=True, slots=True)
class SpeedConstants:
    """The fitted constants of the speed form. Fit of 2026-11-22 over the rows of throughput_measurements.csv."""

    bandwidth_efficiency: float = 0.863
    """Achieved share of memory bandwidth."""
    compute_efficiency: float = 0.593
    """Achieved share of peak operations."""
    layer_overhead_s: float = 94.2e-6
    """Host and launch time of a layer and step."""
    sequence_overhead_s: float = 7.2e-6
    """Sampling and scheduling of a sequence and step."""
    link_efficiency: float = 0.48
    """All-reduce's share of the link rate."""
    hop_latency_s: float = 0.34e-6
    """All-reduce's latency of a hop."""
    weight_only_efficiency: float = 0.47
    """Share of the bf16 rate that weight-only kernels reach from compute capability 9 on."""
    expert_efficiency: float = 0.68
    """Share of the bandwidth efficiency at which experts are read."""
    engine_overhead: float = 0.8
    """Factor on host time: current engines 0.8; vLLM up to 0.6 and TGI 1.3."""


CONSTANTS = SpeedConstants()

#: The 80 % band of cost around a projection: measured over predicted cost where the source is like those of the fit.
COST_BAND = (0.75, 1.27)

#: PCIe multi-GPU is poorly measured: L40S rows are 40 % off when NVIDIA's documents are left out of the fit.
COST_BAND_PCIE_MULTI_GPU = (0.60, 1.40)

#: One-way GB/s per GPU between the GPUs of one host: NVLink 3, 4 and 5 for A100, H100/H200 and B200/B300, else PCIe by
#: generation (GPU datasheets).
_NVLINK_GBPS = {8: 300.0, 9: 450.0, 10: 900.0}
_PCIE_GBPS = {"T4": 16.0, "RTX-PRO-6000": 64.0, "RTX-PRO-4500": 64.0, "H100-NVL": 64.0}
_PCIE4_GBPS = 32.0


def link_gbps(gpu: Gpu) -> float:
    """One-way GB/s per GPU of the link that all-reduce uses."""
    if gpu.nvlink == "yes":
        return _NVLINK_GBPS[gpu.compute_capability[0]]
    return _PCIE_GBPS.get(gpu.name, _PCIE4_GBPS)


def cost_band(gpu: Gpu | None, gpus: int) -> tuple[float, float]:
    """Low and high factor on projected cost: wider where measurements are thin."""
    if gpu is None or (gpus > 1 and gpu.nvlink != "yes"):
        return COST_BAND_PCIE_MULTI_GPU
    return COST_BAND


def compute_flops(gpu: Gpu, method: str, constants: SpeedConstants = CONSTANTS) -> float:
    """Operations per second of linear layers on one GPU for a quantisation method, before efficiency.

    fp8 and int8 run natively where the hardware has them; everything else computes in 16 bit after unpacking weights.
    """
    capability, half = gpu.compute_capability, bf16_flops(gpu)
    if method == "fp16":
        return half
    if method == "fp8" and capability >= (8, 9) and gpu.fp8_tflops:
        return gpu.fp8_tflops * 1e12
    if method == "int8" and gpu.int8_tops:
        return gpu.int8_tops * 1e12
    if method in {"nvfp4", "mxfp4"} and capability >= (10, 0) and gpu.fp8_tflops:
        return gpu.fp8_tflops * 1e12
    return half * (constants.weight_only_efficiency if capability >= (9, 0) else 1.0)


def bf16_flops(gpu: Gpu) -> float:
    """Peak 16-bit operations per second. ValueError for a GPU without a published figure."""
    if gpu.bf16_tflops is None:
        raise ValueError(f"no published 16-bit rate of {gpu.name}")
    return gpu.bf16_tflops * 1e12


@dataclass(frozen=True, slots=True)
class ReplicaSpeed:
    """Coefficients of the time of one engine step of a replica. Seconds, tokens, sequences."""

    step_fixed_s: float
    """Dense weights, host time of the layers, latency of the all-reduces."""
    step_per_sequence_s: float
    """Compute, sampling and all-reduce of one more sequence."""
    expert_read_s: float
    """Reading all experts once."""
    expert_miss: float
    """Chance that one token misses a given expert; 1 for dense models."""
    kv_read_s_per_byte: float
    prefill_per_token_s: float
    prefill_per_token_squared_s: float
    prefill_fixed_s: float
    architecture: Architecture
    kv_cache_dtype: str

    def step_s(self, sequences: float, context_tokens: float) -> float:
        """Time of a decode step of ``sequences`` running requests with a mean context, seconds."""
        kv = kv_bytes_per_sequence(self.architecture, self.kv_cache_dtype, context_tokens)
        return self.step_linear(kv, sequences)

    def step_linear(self, kv_bytes: float, sequences: float) -> float:
        """The same with the KV bytes of one sequence at hand: the form that inner loops call."""
        experts = self.expert_read_s * (1 - self.expert_miss**sequences) if self.expert_read_s else 0.0
        return self.step_fixed_s + experts + sequences * (self.step_per_sequence_s + kv_bytes * self.kv_read_s_per_byte)

    def prefill_s(self, input_tokens: float, cached_tokens: float = 0.0) -> float:
        """Time to prefill a prompt of which ``cached_tokens`` are in the prefix cache, seconds.

        Cached tokens cost no linear layers, but the new ones still attend to them.
        """
        new = input_tokens - cached_tokens
        attended = input_tokens**2 - cached_tokens**2
        return self.prefill_fixed_s + new * self.prefill_per_token_s + attended * self.prefill_per_token_squared_s

    def output_tokens_per_second(self, sequences: float, input_tokens: float, output_tokens: float) -> float:
        """Throughput at a held concurrency: every answer pays its own prefill once."""
        step = self.step_s(sequences, input_tokens + output_tokens / 2)
        cycle = sequences * self.prefill_s(input_tokens) + (output_tokens - 1) * step
        return sequences * output_tokens / cycle


def gpu_speed(
    architecture: Architecture,
    checkpoint: Checkpoint,
    gpu: Gpu,
    gpus: int,
    kv_cache_dtype: str = "auto",
    constants: SpeedConstants = CONSTANTS,
) -> ReplicaSpeed:
    """Speed of a checkpoint on ``gpus`` GPUs under tensor parallelism."""
    weights = weight_bytes(architecture, checkpoint)
    bandwidth = gpu.bandwidth_gbps * 1e9 * constants.bandwidth_efficiency
    flops = gpus * compute_flops(gpu, checkpoint.method, constants) * constants.compute_efficiency
    attention_flops = gpus * bf16_flops(gpu) * constants.compute_efficiency
    layers, hidden = architecture.layers, architecture.hidden_size
    reduce_per_token, reduce_fixed = 0.0, 0.0
    if gpus > 1:
        hops = 2 * (gpus - 1)
        link = link_gbps(gpu) * 1e9 * constants.link_efficiency
        reduce_per_token = 2 * layers * hops / gpus * hidden * 2 / link
        reduce_fixed = 2 * layers * hops * constants.hop_latency_s
    active = architecture.active_params_billion * 1e9
    miss = 1 - architecture.experts_per_token / architecture.experts if architecture.experts > 1 else 1.0
    return ReplicaSpeed(
        step_fixed_s=weights.dense / (gpus * bandwidth)
        + constants.engine_overhead * constants.layer_overhead_s * layers
        + reduce_fixed,
        step_per_sequence_s=2 * active / flops
        + constants.engine_overhead * constants.sequence_overhead_s
        + reduce_per_token,
        expert_read_s=weights.experts / constants.expert_efficiency / (gpus * bandwidth),
        expert_miss=miss,
        kv_read_s_per_byte=1 / (kv_shards(architecture, gpus) * bandwidth),
        prefill_per_token_s=2 * active / flops + reduce_per_token,
        prefill_per_token_squared_s=2 * layers * architecture.attention_heads * architecture.head_dim / attention_flops,
        prefill_fixed_s=reduce_fixed,
        architecture=architecture,
        kv_cache_dtype=kv_cache_dtype,
    )


#: Memory bandwidth that ``t`` llama.cpp threads reach: this share of the socket's, times ``t / (t + half)``. EC2 does
#: not divide bandwidth among vCPUs, so few threads reach more than their share. Fit of the five generation rows of
#: Llama-3.1-8B Q4_0 on Graviton4 in facts/data/cpu_measurements.csv, 4 to 64 threads, within 7 %.
_CPU_BANDWIDTH_SHARE = 0.72
_CPU_HALF_RATE_THREADS = 17.0

#: Prompts shorter than this do not reach the full prefill rate.
_FULL_PREFILL_TOKENS = 100


@cache
def cpu_flops_per_vcpu(processor: str) -> float:
    """Operations per second of one vCPU in llama.cpp's matrix kernels, from the published prompt rates.

    The median over the processor's runs of catalogue models; a processor without runs takes the slowest one that has
    some.
    """
    rates: dict[str, list[float]] = {}
    for row in cpu_measurements():
        known = models().get(row.model)
        if known and row.prompt_tokens_per_s and (row.prompt_tokens or 0) >= _FULL_PREFILL_TOKENS:
            rate = row.prompt_tokens_per_s * 2 * known.active_params_billion * 1e9 / row.threads
            rates.setdefault(row.processor, []).append(rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return medians.get(processor, min(medians.values()))


def cpu_speed(architecture: Architecture, checkpoint: Checkpoint, cpu: Cpu, threads: int) -> ReplicaSpeed:
    """Speed of a GGUF checkpoint under llama.cpp with ``threads`` threads, one a vCPU."""
    bandwidth = cpu.memory_bandwidth_gbps * 1e9 * _CPU_BANDWIDTH_SHARE * threads / (threads + _CPU_HALF_RATE_THREADS)
    flops = threads * cpu_flops_per_vcpu(cpu.processor)
    weights = weight_bytes(architecture, checkpoint)
    compute = 2 * architecture.active_params_billion * 1e9 / flops
    attention = 2 * architecture.layers * architecture.attention_heads * architecture.head_dim / flops
    return ReplicaSpeed(
        step_fixed_s=weights.dense / bandwidth,
        step_per_sequence_s=compute,
        expert_read_s=weights.experts / bandwidth,
        expert_miss=1 - architecture.experts_per_token / architecture.experts if architecture.experts > 1 else 1.0,
        kv_read_s_per_byte=1 / bandwidth,
        prefill_per_token_s=compute,
        prefill_per_token_squared_s=attention,
        prefill_fixed_s=0.0,
        architecture=architecture,
        kv_cache_dtype="auto",
    )
