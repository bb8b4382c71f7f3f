"""How fast one replica is: decode step, prefill, throughput, from bytes, operations and links.

The time of a run is a sum: bytes over bandwidth, operations over peak rate, bytes over links, and host time that grows
with steps, layers and sequences. ``Work`` counts those parts at the hardware's peak; ``SpeedConstants`` says what the
peak is worth. Fourteen constants, each with a physical meaning, are fitted on published measurements of 2023-2026 and
judged on them by ``python -m planning evaluate`` (facts/data/throughput_measurements.csv).
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, NamedTuple

from planning.facts.checkpoints import Checkpoint
from planning.facts.cpus import Cpu, cpu_measurements
from planning.facts.gpus import Gpu
from planning.facts.models import Architecture, models
from planning.memory import embedding_parameters, kv_bytes_per_sequence, kv_shards, weight_bytes

Engine = Literal["current", "before_v1", "eager"]
"""Generation of a serving engine by its host time. ``current``: vLLM from 0.9 (its V1 core), SGLang, TensorRT-LLM.
``before_v1``: vLLM up to 0.8, TGI, LMDeploy. ``eager``: vLLM before CUDA graphs (2023)."""

HOPPER = (9, 0)


class Work(NamedTuple):
    """Parts of the time of a run. Seconds at the hardware's peak, or counts; on the busiest GPU of the replica."""

    memory_s: float = 0.0
    """Weights, and KV cache from Hopper on."""
    older_attention_memory_s: float = 0.0
    """KV cache before Hopper."""
    expert_memory_s: float = 0.0
    compute_s: float = 0.0
    weight_only_compute_s: float = 0.0
    """Linear layers whose weights are unpacked to 16 bit, from Hopper on."""
    expert_compute_s: float = 0.0
    """Linear layers of a mixture of experts."""
    weight_only_expert_compute_s: float = 0.0
    link_s: float = 0.0
    hops: float = 0.0
    """Steps of all-reduces from GPU to GPU."""
    layers: float = 0.0
    """Layers run, over all steps."""
    sequences: float = 0.0
    """Sequences scheduled and sampled, over all steps."""
    steps: float = 0.0

    def plus(self, other: Work) -> Work:
        """One after the other."""
        return Work(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def times(self, factor: float) -> Work:
        """``factor`` times in a row."""
        return Work(*(factor * part for part in self))


@dataclass(frozen=True, slots=True)
class SpeedConstants:
    """What the peaks are worth, and what the host costs. Fitted by ``speed_evaluation.fit_constants``."""

    bandwidth_efficiency: float = 0.904
    """Achieved share of memory bandwidth."""
    older_attention_efficiency: float = 0.804
    """Share of that at which attention kernels read the KV cache before Hopper."""
    expert_read_efficiency: float = 0.874
    """Share of that at which routed experts are read: many small matrices, unevenly hit."""
    compute_efficiency: float = 0.674
    """Achieved share of peak operations."""
    weight_only_efficiency: float = 0.463
    """Share of that which weight-only kernels reach from Hopper on."""
    expert_compute_efficiency: float = 0.702
    """Share of that which grouped matrix products of experts reach."""
    link_efficiency: float = 0.488
    """All-reduce's share of the link rate."""
    hop_latency_s: float = 0.433e-6
    """All-reduce's latency from GPU to GPU."""
    step_overhead_s: float = 961e-6
    """Scheduler, input preparation and sampler of a step."""
    layer_overhead_s: float = 49.9e-6
    """Launches of a layer's kernels, and their ends where the GPU idles."""
    layer_overhead_before_v1_s: float = 90.9e-6
    layer_overhead_eager_s: float = 340e-6
    sequence_overhead_s: float = 6.07e-6
    """Scheduling, sampling and detokenising of a sequence and step."""
    sequence_overhead_before_v1_s: float = 65.9e-6

    def seconds_per_unit(self, engine: Engine = "current") -> Work:
        """Seconds that a unit of each part of ``Work`` takes."""
        memory, compute = 1 / self.bandwidth_efficiency, 1 / self.compute_efficiency
        return Work(
            memory_s=memory,
            older_attention_memory_s=memory / self.older_attention_efficiency,
            expert_memory_s=memory / self.expert_read_efficiency,
            compute_s=compute,
            weight_only_compute_s=compute / self.weight_only_efficiency,
            expert_compute_s=compute / self.expert_compute_efficiency,
            weight_only_expert_compute_s=compute / self.weight_only_efficiency / self.expert_compute_efficiency,
            link_s=1 / self.link_efficiency,
            hops=self.hop_latency_s,
            layers={
                "current": self.layer_overhead_s,
                "before_v1": self.layer_overhead_before_v1_s,
                "eager": self.layer_overhead_eager_s,
            }[engine],
            sequences=self.sequence_overhead_s if engine == "current" else self.sequence_overhead_before_v1_s,
            steps=self.step_overhead_s,
        )


CONSTANTS = SpeedConstants()

#: The 80 % band of cost around a projection, measured over predicted cost, of rows whose source had no part in the fit:
#: of dense models on GPUs with many rows, and of everything else, where measurements are thin or scatter.
COST_BAND = (0.84, 1.24)
COST_BAND_THIN = (0.52, 1.49)

#: GPUs with at least 50 judged rows. Several of them without NVLink are thinly measured all the same: two sources.
WELL_MEASURED = frozenset({"H100", "H200", "B200", "A100-40GB", "A100-80GB", "A100-80GB-PCIe", "A6000", "L40S"})

#: llama.cpp's batches are projected from runs of one sequence: an allowance, until batches are measured.
COST_BAND_LLAMA_CPP = (0.60, 1.40)

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


def cost_band(architecture: Architecture, gpu: Gpu | None, gpus: int) -> tuple[float, float]:
    """Low and high factor on projected cost: wider where measurements are thin or scatter. ``gpu`` None: a CPU.

    Wide are mixtures of experts, latent and recurrent attention (no row has them), GPUs with few rows, several GPUs
    over PCIe.
    """
    if gpu is None:
        return COST_BAND_LLAMA_CPP
    plain = architecture.experts <= 1 and not architecture.uses_latent_attention
    dense = plain and not architecture.state_bytes_per_sequence
    well = gpu.name in WELL_MEASURED and (gpus == 1 or gpu.nvlink == "yes")
    return COST_BAND if dense and well else COST_BAND_THIN


def native_flops(gpu: Gpu, method: str) -> float | None:
    """Peak operations per second at which a GPU multiplies a quantised format as it is stored; None: unpacked first."""
    capability = gpu.compute_capability
    if method == "fp16":
        return bf16_flops(gpu)
    if method == "fp8" and capability >= (8, 9) and gpu.fp8_tflops:
        return gpu.fp8_tflops * 1e12
    if method == "int8" and gpu.int8_tops:
        return gpu.int8_tops * 1e12
    if method in {"nvfp4", "mxfp4"} and capability >= (10, 0) and gpu.fp8_tflops:
        # Kernels reach the fp8 rate and not the 4-bit peak.
        return gpu.fp8_tflops * 1e12
    return None


def bf16_flops(gpu: Gpu) -> float:
    """Peak 16-bit operations per second. ValueError for a GPU without a published figure."""
    if gpu.bf16_tflops is None:
        raise ValueError(f"no published 16-bit rate of {gpu.name}")
    return gpu.bf16_tflops * 1e12


def _linear_work(architecture: Architecture, gpu: Gpu, gpus: int, method: str, parameters: float) -> Work:
    """The linear layers of one token."""
    native = native_flops(gpu, method)
    seconds = 2 * parameters / (gpus * (native or bf16_flops(gpu)))
    unpacked = native is None and gpu.compute_capability >= HOPPER
    if architecture.experts > 1:
        return Work(weight_only_expert_compute_s=seconds) if unpacked else Work(expert_compute_s=seconds)
    return Work(weight_only_compute_s=seconds) if unpacked else Work(compute_s=seconds)


def attended(architecture: Architecture, tokens: float) -> float:
    """Twice the pairs of tokens of a prompt that attend to each other, as a mean over the layers.

    ``tokens`` squared where every layer is global; a local layer's tokens see no further than its window.
    """
    window = architecture.sliding_window
    if not window or tokens <= window:
        return tokens**2
    local = 1 - architecture.global_attention_layers / architecture.layers
    return (1 - local) * tokens**2 + local * (2 * window * tokens - window**2)


@dataclass(frozen=True, slots=True)
class ReplicaWork:
    """What a replica has to do, by what it grows with."""

    step: Work
    """Of every decode step: dense weights, launches."""
    sequence: Work
    """Of one more sequence in a step."""
    experts: Work
    """Reading all experts once."""
    expert_miss: float
    """Chance that one token misses a given expert; 1 for dense models."""
    kv_byte: Work
    """Reading a byte of KV cache."""
    prompt_token: Work
    attention: Work
    """Attention over a prompt, by what ``attended`` counts."""
    architecture: Architecture

    def decode(self, sequences: float, kv_bytes_per_sequence: float) -> Work:
        """One decode step."""
        work = self.step.plus(self.sequence.times(sequences)).plus(
            self.kv_byte.times(sequences * kv_bytes_per_sequence)
        )
        return work.plus(self.experts.times(1 - self.expert_miss**sequences))

    def prefill(self, input_tokens: float) -> Work:
        """One prompt's prefill, in a step that decodes too."""
        attention = self.attention.times(attended(self.architecture, input_tokens))
        return self.prompt_token.times(input_tokens).plus(attention)


def gpu_work(architecture: Architecture, checkpoint: Checkpoint, gpu: Gpu, gpus: int) -> ReplicaWork:
    """Count the work of a checkpoint on ``gpus`` GPUs under tensor parallelism."""
    weights = weight_bytes(architecture, checkpoint)
    bandwidth = gpu.bandwidth_gbps * 1e9
    layers, hidden = architecture.layers, architecture.hidden_size
    # A token's input embedding is looked up, not multiplied; the output layer works once a step, not for every token of
    # a prompt.
    embedding = architecture.vocab_size * architecture.hidden_size
    active = architecture.active_params_billion * 1e9
    looked_up = 0.0 if architecture.tied_embeddings else float(embedding)

    def linear(parameters: float) -> Work:
        return _linear_work(architecture, gpu, gpus, checkpoint.method, parameters)

    reduce, hops = Work(), 0.0
    if gpus > 1:
        # A ring all-reduce moves 2 (n - 1) / n of the 16-bit hidden state; there are two a layer.
        hops = 2 * layers * 2 * (gpus - 1)
        reduce = Work(link_s=hops / gpus * hidden * 2 / (link_gbps(gpu) * 1e9))
    attention = 2 * layers * architecture.attention_heads * architecture.head_dim / (gpus * bf16_flops(gpu))
    read = 1 / (kv_shards(architecture, gpus) * bandwidth)
    newer = gpu.compute_capability >= HOPPER
    return ReplicaWork(
        step=Work(memory_s=(weights.dense - 2 * looked_up) / (gpus * bandwidth), hops=hops, layers=layers, steps=1.0),
        sequence=linear(active - looked_up).plus(reduce).plus(Work(sequences=1.0)),
        experts=Work(expert_memory_s=weights.experts / (gpus * bandwidth)),
        expert_miss=1 - architecture.experts_per_token / architecture.experts if architecture.experts > 1 else 1.0,
        kv_byte=Work(memory_s=read) if newer else Work(older_attention_memory_s=read),
        prompt_token=linear(active - embedding_parameters(architecture)).plus(reduce),
        attention=Work(compute_s=attention),
        architecture=architecture,
    )


@dataclass(frozen=True, slots=True)
class ReplicaSpeed:
    """Coefficients of the time of one engine step of a replica. Seconds, tokens, sequences."""

    step_fixed_s: float
    """Dense weights, host time of the step and its layers, latency of the all-reduces."""
    step_per_sequence_s: float
    """Compute, sampling and all-reduce of one more sequence."""
    expert_read_s: float
    """Reading all experts once."""
    expert_miss: float
    """Chance that one token misses a given expert; 1 for dense models."""
    kv_read_s_per_byte: float
    prefill_per_token_s: float
    prefill_per_pair_s: float
    """By what ``attended`` counts."""
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
        pairs = attended(self.architecture, input_tokens) - attended(self.architecture, cached_tokens)
        return new * self.prefill_per_token_s + pairs * self.prefill_per_pair_s

    def slower(self, factor: float) -> ReplicaSpeed:
        """The same replica where everything takes ``factor`` times as long."""
        return replace(
            self,
            step_fixed_s=self.step_fixed_s * factor,
            step_per_sequence_s=self.step_per_sequence_s * factor,
            expert_read_s=self.expert_read_s * factor,
            kv_read_s_per_byte=self.kv_read_s_per_byte * factor,
            prefill_per_token_s=self.prefill_per_token_s * factor,
            prefill_per_pair_s=self.prefill_per_pair_s * factor,
        )

    def output_tokens_per_second(self, sequences: float, input_tokens: float, output_tokens: float) -> float:
        """Throughput at a held concurrency: every answer pays its own prefill once, in its first step."""
        step = self.step_s(sequences, input_tokens + output_tokens / 2)
        cycle = sequences * self.prefill_s(input_tokens) + output_tokens * step
        return sequences * output_tokens / cycle


def gpu_speed(
    architecture: Architecture,
    checkpoint: Checkpoint,
    gpu: Gpu,
    gpus: int,
    kv_cache_dtype: str = "auto",
    constants: SpeedConstants = CONSTANTS,
    engine: Engine = "current",
) -> ReplicaSpeed:
    """Speed of a checkpoint on ``gpus`` GPUs under tensor parallelism, in a current engine unless said otherwise."""
    work = gpu_work(architecture, checkpoint, gpu, gpus)
    unit = constants.seconds_per_unit(engine)

    def seconds(part: Work) -> float:
        return sum(amount * each for amount, each in zip(part, unit, strict=True))

    return ReplicaSpeed(
        step_fixed_s=seconds(work.step),
        step_per_sequence_s=seconds(work.sequence),
        expert_read_s=seconds(work.experts),
        expert_miss=work.expert_miss,
        kv_read_s_per_byte=seconds(work.kv_byte),
        prefill_per_token_s=seconds(work.prompt_token),
        prefill_per_pair_s=seconds(work.attention),
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
        prefill_per_pair_s=attention,
        architecture=architecture,
        kv_cache_dtype="auto",
    )
