"""Every way to serve a tier: checkpoint x GPU x number of GPUs (or CPU type), with its limits and its largest load."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from planning.cold_start import (
    LLAMA_CPP_IMAGE_GB,
    VLLM_IMAGE_GB,
    ColdStart,
    llama_cpp_cold_start,
    vllm_cold_start,
)
from planning.facts.checkpoints import Checkpoint
from planning.facts.cpus import cpus
from planning.facts.gpus import Gpu, gpus
from planning.facts.instances import InstanceType, Offering
from planning.facts.models import Architecture
from planning.facts.quality import checkpoint_loss
from planning.memory import (
    DEFAULT_GPU_MEMORY_UTILIZATION,
    GIB,
    MemoryFit,
    fit,
    kv_bytes_per_sequence,
    weight_bytes,
)
from planning.plan import LlamaCppLimits, PodResources, VllmLimits
from planning.serving import LEAST_CONCURRENCY, Load, LoadModel, Target, Workload
from planning.speed import ReplicaSpeed, cost_band, cpu_speed, gpu_speed

#: Least compute capability that a method's kernels run on (vLLM 0.33.0); fp8 below 8.9 and all 4-bit formats are
#: weight-only there.
LEAST_COMPUTE_CAPABILITY = {
    "fp16": (7, 0),
    "fp8": (7, 5),
    "int8": (7, 5),
    "awq": (7, 5),
    "gptq": (7, 5),
    "w4a16": (7, 5),
    "mxfp4": (8, 0),
    "nvfp4": (10, 0),
}

#: vLLM has no INT8 kernels for Blackwell (compute capability 10 and above): its documentation sends people to fp8.
INT8_ENDS_BELOW = (10, 0)

#: bf16 begins with Ampere. vLLM runs other models in fp16 below it, but not Gemma, whose activations overflow there.
BF16_LEAST_COMPUTE_CAPABILITY = (8, 0)
_NEEDS_BF16 = "google/gemma"

#: An fp8 KV cache needs it with the Triton attention backend (vLLM 0.33.0).
FP8_KV_LEAST_COMPUTE_CAPABILITY = (8, 9)

#: What ``--max-num-batched-tokens`` is chosen from: more speeds prompts up, and costs activation memory.
BATCHED_TOKENS = (2048, 4096, 8192)
LEAST_MAX_NUM_SEQS = 8

#: llama.cpp's own logical batch (``--batch-size``).
LLAMA_CPP_BATCH_TOKENS = 2048

#: Planning allowances of this program: what a vLLM process takes of the host (first worker with API server and streamer
#: buffers, then each further worker), and what the node's daemons (CNI, proxies, device plugin, exporters) take.
VLLM_CPU_CORES, VLLM_CPU_CORES_PER_WORKER = 3.0, 1.0
VLLM_MEMORY_GIB, VLLM_MEMORY_GIB_PER_WORKER = 10.0, 4.0
SHM_GIB_PER_GPU = 2.0
COMPILE_CACHE_GIB = 10.0
DAEMON_CPU_CORES, DAEMON_MEMORY_GIB = 0.5, 1.0
LLAMA_CPP_MEMORY_GIB = 1.0


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a tier's replicas."""

    tier: str
    architecture: Architecture
    checkpoints: tuple[Checkpoint, ...]
    """Those that the settings allow."""
    workload: Workload
    target: Target
    max_model_len: int
    kv_cache_dtype: str
    gpus: tuple[str, ...] = ()
    """GPU models that may be used; empty: all."""
    host_memory_gib: float = 0.0
    """What a pod takes beside its own needs: the KV store of a disaggregated tier."""


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """One way to serve a demand that meets its target."""

    checkpoint: Checkpoint
    gpu: Gpu | None
    gpus: int
    load: Load
    vllm: VllmLimits | None
    llama_cpp: LlamaCppLimits | None
    resources: PodResources
    offerings: tuple[Offering, ...]
    """Of this GPU (or of this CPU type)."""
    cold_start: ColdStart
    cost_band: tuple[float, float]
    image_gb: float
    """Compressed size of the engine's image."""

    quality_loss_percent: float
    """Expected, of the weights' format; decides between equal prices."""

    @property
    def label(self) -> str:
        """The option in a few words."""
        where = f"{self.gpus} x {self.gpu.name}" if self.gpu else self.offerings[0].instance.name
        return f"{self.checkpoint.method} on {where}"


@dataclass(frozen=True, slots=True)
class Miss:
    """One way that does not work, and why."""

    label: str
    reason: str
    ttft_ms: float | None = None
    """Best 95th percentile it could reach, unloaded; None when it does not fit."""
    tpot_ms: float | None = None


class Market:
    """What a region offers, grouped the ways the search asks for it."""

    def __init__(self, offerings: Sequence[Offering]) -> None:
        self.offerings = tuple(offerings)
        known = gpus()
        groups: dict[tuple[str, int], list[Offering]] = {}
        for offering in self.offerings:
            if offering.instance.gpu is not None:
                groups.setdefault((offering.instance.gpu, offering.instance.gpu_count), []).append(offering)
        self.by_gpu = tuple((known[gpu], count, tuple(offers)) for (gpu, count), offers in groups.items())
        """GPU model, GPUs of a node, offerings."""
        self.cpu = tuple(
            offering
            for offering in self.offerings
            if offering.instance.gpu is None and offering.instance.family in cpus()
        )

    def of_size(self, count: int) -> Iterator[tuple[Gpu, tuple[Offering, ...]]]:
        """GPU models offered on nodes of exactly ``count`` GPUs."""
        return ((gpu, offers) for gpu, size, offers in self.by_gpu if size == count)


def survey(demand: Demand, market: Market, *, tuned: bool) -> tuple[list[Option], list[Miss]]:
    """Every option of a demand in a region's market, and every miss with its reason.

    ``tuned``: choose vLLM's limits for the target; else leave vLLM's defaults of the GPU.
    """
    options: list[Option] = []
    misses: list[Miss] = []
    for checkpoint in demand.checkpoints:
        ways = (
            _cpu_options(demand, checkpoint, market)
            if checkpoint.method.startswith("gguf")
            else _gpu_options(demand, checkpoint, market, tuned=tuned)
        )
        for way in ways:
            if isinstance(way, Option):
                options.append(way)
            else:
                misses.append(way)
    return options, misses


def _gpu_options(demand: Demand, checkpoint: Checkpoint, market: Market, *, tuned: bool) -> Iterator[Option | Miss]:
    for gpu, count, offered in market.by_gpu:
        if demand.gpus and gpu.name not in demand.gpus:
            continue
        label = f"{checkpoint.method} on {count} x {gpu.name}"
        reason = unsupported(demand.architecture, checkpoint, gpu, count, demand.kv_cache_dtype)
        if reason:
            yield Miss(label, reason)
            continue
        pod = vllm_pod(count)
        hosts = tuple(offering for offering in offered if hosts_pod(offering.instance, pod, demand.host_memory_gib))
        if not hosts:
            memory_gib = pod.memory_gib + demand.host_memory_gib
            yield Miss(label, f"no instance type leaves {pod.cpu_cores:g} cores and {memory_gib:g} GiB for the pod")
            continue
        found = _vllm_limits(demand, checkpoint, gpu, count, tuned=tuned)
        if isinstance(found, Miss):
            yield found
            continue
        limits, load = found
        yield Option(
            checkpoint=checkpoint,
            gpu=gpu,
            gpus=count,
            load=load,
            vllm=limits,
            llama_cpp=None,
            resources=pod,
            offerings=hosts,
            cold_start=vllm_cold_start(checkpoint.weights_gb),
            cost_band=cost_band(gpu, count),
            image_gb=VLLM_IMAGE_GB,
            quality_loss_percent=checkpoint_loss(demand.architecture.params_billion, checkpoint).percent,
        )


def unsupported(
    architecture: Architecture, checkpoint: Checkpoint, gpu: Gpu, count: int, kv_cache_dtype: str = "auto"
) -> str:
    """Why a GPU cannot run a checkpoint under tensor parallelism of ``count``; empty when it can."""
    least = LEAST_COMPUTE_CAPABILITY.get(checkpoint.method)
    if least is None:
        return f"vLLM has no kernels for {checkpoint.method}"
    if gpu.compute_capability < least:
        have, need = (".".join(map(str, pair)) for pair in (gpu.compute_capability, least))
        return f"{checkpoint.method} needs compute capability {need}, the {gpu.name} has {have}"
    if checkpoint.method == "int8" and gpu.compute_capability >= INT8_ENDS_BELOW:
        return f"vLLM has no int8 kernels for the {gpu.name}"
    if kv_cache_dtype.startswith("fp8") and gpu.compute_capability < FP8_KV_LEAST_COMPUTE_CAPABILITY:
        return f"the {gpu.name} cannot keep its KV cache in fp8"
    if gpu.compute_capability < BF16_LEAST_COMPUTE_CAPABILITY and architecture.model_id.startswith(_NEEDS_BF16):
        return f"the {gpu.name} has no bf16, and vLLM refuses this model in fp16"
    if gpu.bf16_tflops is None:
        return f"no published speed of the {gpu.name}"
    heads, kv_heads = architecture.attention_heads, architecture.kv_heads
    if heads % count or (kv_heads % count and count % kv_heads):
        return f"{heads} attention heads and {kv_heads} KV heads do not divide over {count} GPUs"
    return ""


def vllm_default_limits(gpu: Gpu, *, max_model_len: int, gpus: int, kv_cache_dtype: str) -> VllmLimits:
    """What the API server takes when nobody sets limits (vLLM 0.33.0 ``engine/arg_utils.py``), by the GPU's memory."""
    large = gpu.memory_gib >= 70 and not gpu.name.startswith("A100")
    return VllmLimits(
        tensor_parallel_size=gpus,
        max_model_len=max_model_len,
        max_num_seqs=1024 if large else 256,
        max_num_batched_tokens=(16384 if gpu.memory_gib >= 160 else 8192) if large else 2048,
        gpu_memory_utilization=DEFAULT_GPU_MEMORY_UTILIZATION,
        kv_cache_dtype=kv_cache_dtype,
    )


def _vllm_limits(
    demand: Demand, checkpoint: Checkpoint, gpu: Gpu, count: int, *, tuned: bool
) -> tuple[VllmLimits, Load] | Miss:
    """The limits with the largest rate, or why none works."""
    speed = _gpu_speed(demand.architecture, checkpoint, gpu, count, demand.kv_cache_dtype)
    default = vllm_default_limits(
        gpu, max_model_len=demand.max_model_len, gpus=count, kv_cache_dtype=demand.kv_cache_dtype
    )
    choices = {default.max_num_batched_tokens, *(BATCHED_TOKENS if tuned else ())}
    best: tuple[VllmLimits, Load] | None = None
    memory = _fit(demand, checkpoint, default, gpu, LEAST_MAX_NUM_SEQS if tuned else default.max_num_seqs, min(choices))
    label = f"{checkpoint.method} on {count} x {gpu.name}"
    if not memory.fits:
        return Miss(label, memory.reason)
    for batched_tokens in sorted(choices):
        model = LoadModel(speed, demand.workload, batched_tokens)
        sequences = default.max_num_seqs if not tuned else 1024
        for _ in range(2):
            # The second round has the KV room that the first round's sequences really leave.
            load = model.largest(demand.target, sequences)
            if load is None:
                break
            wanted = max(LEAST_MAX_NUM_SEQS, math.ceil(load.sequences_p99 / 8) * 8) if tuned else default.max_num_seqs
            memory = _fit(demand, checkpoint, default, gpu, wanted, batched_tokens)
            room = _sequences(demand, memory, speed) if memory.fits else 0
            if room >= load.sequences_p99:
                limits = VllmLimits(
                    tensor_parallel_size=count,
                    max_model_len=demand.max_model_len,
                    max_num_seqs=wanted,
                    max_num_batched_tokens=batched_tokens,
                    gpu_memory_utilization=DEFAULT_GPU_MEMORY_UTILIZATION,
                    kv_cache_dtype=demand.kv_cache_dtype,
                )
                if best is None or load.requests_per_second > best[1].requests_per_second * 1.01:
                    best = (limits, load)
                break
            sequences = room
    if best is not None:
        return best
    return _too_slow(label, LoadModel(speed, demand.workload, max(choices)), demand.target, memory)


def _too_slow(label: str, model: LoadModel, target: Target, memory: MemoryFit) -> Miss:
    unloaded = model.at(LEAST_CONCURRENCY)
    missed = [
        f"{name} {best:,.0f} ms unloaded, target {limit:,.0f}"
        for name, best, limit in (
            ("TTFT", unloaded.ttft_p95_ms, target.ttft_ms),
            ("TPOT", unloaded.tpot_p95_ms, target.tpot_ms),
        )
        if best > limit
    ]
    reason = "; ".join(missed) or f"room for {memory.kv_tokens:,} tokens of KV cache is too little to serve"
    return Miss(label, reason, unloaded.ttft_p95_ms, unloaded.tpot_p95_ms)


def sustains(option: Option, demand: Demand, gpu: Gpu, requests_per_second: float) -> bool:
    """Whether the very pod of ``option`` carries a rate within the target on another GPU model."""
    limits = option.vllm
    if limits is None or unsupported(demand.architecture, option.checkpoint, gpu, option.gpus, limits.kv_cache_dtype):
        return False
    memory = _fit(demand, option.checkpoint, limits, gpu, limits.max_num_seqs, limits.max_num_batched_tokens)
    if not memory.fits:
        return False
    speed = _gpu_speed(demand.architecture, option.checkpoint, gpu, option.gpus, limits.kv_cache_dtype)
    model = LoadModel(speed, demand.workload, limits.max_num_batched_tokens)
    room = min(limits.max_num_seqs, _sequences(demand, memory, speed))
    return model.carries(requests_per_second, demand.target, room)


def load_model(option: Option, demand: Demand) -> LoadModel:
    """The latency of an option's replica as a function of its concurrency."""
    if option.gpu is None or option.vllm is None:
        instance = option.offerings[0].instance
        threads = option.llama_cpp.threads if option.llama_cpp else instance.vcpu
        speed = cpu_speed(demand.architecture, option.checkpoint, cpus()[instance.family], threads)
        return LoadModel(speed, demand.workload, LLAMA_CPP_BATCH_TOKENS)
    speed = _gpu_speed(demand.architecture, option.checkpoint, option.gpu, option.gpus, option.vllm.kv_cache_dtype)
    return LoadModel(speed, demand.workload, option.vllm.max_num_batched_tokens)


def _fit(
    demand: Demand, checkpoint: Checkpoint, limits: VllmLimits, gpu: Gpu, max_num_seqs: int, batched_tokens: int
) -> MemoryFit:
    return fit(
        demand.architecture,
        checkpoint,
        gpu,
        limits.tensor_parallel_size,
        max_model_len=demand.max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=batched_tokens,
        kv_cache_dtype=limits.kv_cache_dtype,
        gpu_memory_utilization=limits.gpu_memory_utilization,
    )


def _sequences(demand: Demand, memory: MemoryFit, speed: ReplicaSpeed) -> int:
    """How many running requests of the demand's mean size the KV cache holds."""
    running = demand.workload.running_tokens
    full = kv_bytes_per_sequence(speed.architecture, speed.kv_cache_dtype, demand.max_model_len)
    mean = kv_bytes_per_sequence(speed.architecture, speed.kv_cache_dtype, running)
    return math.floor(memory.full_length_sequences * full / mean)


@cache
def _gpu_speed(architecture: Architecture, checkpoint: Checkpoint, gpu: Gpu, count: int, dtype: str) -> ReplicaSpeed:
    return gpu_speed(architecture, checkpoint, gpu, count, dtype)


def vllm_pod(gpu_count: int) -> PodResources:
    """What a vLLM pod requests on ``gpu_count`` GPUs. Weights go straight to the GPUs and take no host memory."""
    shm = SHM_GIB_PER_GPU * gpu_count if gpu_count > 1 else 0.0
    return PodResources(
        cpu_cores=VLLM_CPU_CORES + VLLM_CPU_CORES_PER_WORKER * (gpu_count - 1),
        memory_gib=VLLM_MEMORY_GIB + VLLM_MEMORY_GIB_PER_WORKER * (gpu_count - 1) + shm,
        gpus=gpu_count,
        shm_gib=shm,
        cache_gib=COMPILE_CACHE_GIB,
    )


def hosts_pod(instance: InstanceType, pod: PodResources, more_memory_gib: float = 0.0) -> bool:
    """Whether a node of this type has room for the pod, with some more memory, beside the node's daemons."""
    return (
        instance.allocatable_cpu >= pod.cpu_cores + DAEMON_CPU_CORES
        and instance.allocatable_memory_gib >= pod.memory_gib + more_memory_gib + DAEMON_MEMORY_GIB
        and instance.gpu_count == pod.gpus
    )


def _cpu_options(demand: Demand, checkpoint: Checkpoint, market: Market) -> Iterator[Option | Miss]:
    weights_gib = weight_bytes(demand.architecture, checkpoint).total / GIB
    slot_gib = kv_bytes_per_sequence(demand.architecture, "auto", demand.max_model_len) / GIB
    for offering in market.cpu:
        instance = offering.instance
        label = f"{checkpoint.method} on {instance.name}"
        threads = math.floor(instance.allocatable_cpu - DAEMON_CPU_CORES)
        room_gib = instance.allocatable_memory_gib - DAEMON_MEMORY_GIB - LLAMA_CPP_MEMORY_GIB - weights_gib
        if room_gib < slot_gib or threads < 1:
            yield Miss(label, f"{slot_gib - room_gib:.1f} GiB too little for weights and one slot")
            continue
        model = LoadModel(
            cpu_speed(demand.architecture, checkpoint, cpus()[instance.family], threads),
            demand.workload,
            LLAMA_CPP_BATCH_TOKENS,
        )
        load = model.largest(demand.target, math.floor(room_gib / slot_gib))
        if load is None:
            unloaded = model.at(LEAST_CONCURRENCY)
            reason = (
                f"TTFT {unloaded.ttft_p95_ms:,.0f} ms and TPOT {unloaded.tpot_p95_ms:,.0f} ms unloaded, target "
                f"{demand.target.ttft_ms:,.0f} and {demand.target.tpot_ms:,.0f}"
            )
            yield Miss(label, reason, unloaded.ttft_p95_ms, unloaded.tpot_p95_ms)
            continue
        slots = load.sequences_p99
        memory = weights_gib + slots * slot_gib + LLAMA_CPP_MEMORY_GIB
        yield Option(
            checkpoint=checkpoint,
            gpu=None,
            gpus=0,
            load=load,
            vllm=None,
            llama_cpp=LlamaCppLimits(threads, slots, slots * demand.max_model_len),
            resources=PodResources(float(threads), math.ceil(memory * 10) / 10, 0, 0.0, math.ceil(weights_gib) + 1.0),
            offerings=(offering,),
            cold_start=llama_cpp_cold_start(checkpoint.weights_gb, instance.network_baseline_mbps or 1000),
            cost_band=cost_band(None, 0),
            image_gb=LLAMA_CPP_IMAGE_GB,
            quality_loss_percent=checkpoint_loss(demand.architecture.params_billion, checkpoint).percent,
        )
