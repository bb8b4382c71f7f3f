"""Every way to serve a tier: checkpoint x GPU x number of GPUs (or CPU type), with its limits and its largest load."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from planning.measured import MeasuredReplica, measured_replica
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
from planning.speed import COST_BAND, ReplicaSpeed, cost_band, cpu_speed, gpu_speed
from planning.spot import pool_price, spot_usd_per_hour, worth_spot

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

#: vLLM writes an nvfp4 KV cache on data-centre Blackwell only (vllm-project/vllm issues 47684 and 49011).
NVFP4_KV_LEAST_COMPUTE_CAPABILITY = (10, 0)

#: What ``--max-num-batched-tokens`` is chosen from: more speeds prompts up, and costs activation memory.
BATCHED_TOKENS = (2048, 4096, 8192)
LEAST_MAX_NUM_SEQS, MOST_MAX_NUM_SEQS = 8, 1024

#: Limits that carry less than one per cent more are not worth their memory.
_WORTH_MORE = 1.01

#: A GPU that carries less than this share of another's rate is slower, and not merely another of its kind.
_AS_FAST = 0.9

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
    """What a pod takes beside its own needs: a KV store that is asked for."""


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
    measured: MeasuredReplica | None = None
    """What the speed rests on where the replica was measured; None: the formula."""

    @property
    def place(self) -> tuple[str, int]:
        """Where it runs: GPU model or CPU family, and how many GPUs."""
        return (self.gpu.name if self.gpu else self.offerings[0].instance.family), self.gpus

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
    """What a region offers, grouped the ways the search asks for it, and what was found out about it so far."""

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
        self._surveys: dict[Demand, Survey] = {}
        self._hosts: dict[tuple[str, PodResources, float], tuple[Offering, ...]] = {}
        self._widest: dict[tuple[int, float, float], float] = {}
        self._least_spots = {
            key: min((price for offer in offers if (price := spot_usd_per_hour(offer)) is not None), default=math.inf)
            for key, offers in groups.items()
        }

        self._least_on_demand = {
            key: min(offer.on_demand_usd_per_hour for offer in offers) for key, offers in groups.items()
        }

    def of_size(self, count: int) -> Iterator[tuple[Gpu, tuple[Offering, ...]]]:
        """GPU models offered on nodes of exactly ``count`` GPUs."""
        return ((gpu, offers) for gpu, size, offers in self.by_gpu if size == count)

    def widest_pool_usd_per_hour(self, count: int, weights_gb: float, first_usd_per_hour: float) -> float:
        """The price of the widest pool of nodes of ``count`` GPUs that could hold the weights and starts at a spot
        price. Every further type lowers the price, so no real pool is below it.
        """
        key = (count, weights_gb, first_usd_per_hour)
        if key not in self._widest:
            capable = (offers for gpu, offers in self.of_size(count) if _holds(gpu, count, weights_gb))
            offerings = [offer for offers in capable for offer in offers]
            # With a fallback below its first spot price the pool would start on the fallback.
            fallbacks = [offer for offer in offerings if offer.on_demand_usd_per_hour >= first_usd_per_hour]
            fallback = min(fallbacks, key=lambda offer: offer.on_demand_usd_per_hour)
            members = worth_spot(offerings, fallback.on_demand_usd_per_hour)
            members = tuple(offer for offer in members if (spot_usd_per_hour(offer) or 0.0) >= first_usd_per_hour)
            pool = members if fallback in members else (*members, replace(fallback, spot_usd_per_hour=None))
            self._widest[key] = pool_price(pool, spot=True, on_demand_fallback=True).usd_per_hour
        return self._widest[key]

    def least_spot(self, gpu: str, count: int) -> float:
        """The lowest spot price of nodes of exactly ``count`` such GPUs; infinite when none is known."""
        return self._least_spots.get((gpu, count), math.inf)

    def least_price(self, gpu: str, count: int) -> float:
        """The lowest price of nodes of exactly ``count`` such GPUs, spot or on-demand."""
        return min(self.least_spot(gpu, count), self._least_on_demand[gpu, count])

    def hosts(self, gpu: Gpu, pod: PodResources, more_memory_gib: float) -> tuple[Offering, ...]:
        """The nodes of a GPU model with room for a pod and some more host memory."""
        key = (gpu.name, pod, more_memory_gib)
        if key not in self._hosts:
            offered = next(offers for other, offers in self.of_size(pod.gpus) if other is gpu)
            self._hosts[key] = tuple(offer for offer in offered if hosts_pod(offer.instance, pod, more_memory_gib))
        return self._hosts[key]

    def survey(self, demand: Demand) -> Survey:
        """The survey of a demand, one however many tiers, levers and requirements ask for it."""
        if demand not in self._surveys:
            self._surveys[demand] = Survey(demand, self)
        return self._surveys[demand]


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """A checkpoint on a GPU model and count, or on a CPU type, that may serve a demand."""

    checkpoint: Checkpoint
    gpu: Gpu | None
    gpus: int
    offerings: tuple[Offering, ...]
    """Those with room for the pod."""
    most_requests_per_second: float
    """No replica carries more, whatever its limits."""
    as_fast: frozenset[str]
    """GPU models that its pool may start on: its own, and those that are about as fast or faster. With a slower one in
    front, it would be that one's way, described worse."""
    on_demand_usd_per_hour: float
    """Lowest among the offerings."""
    least_usd_per_hour: float
    """Lowest that the pool may start on."""
    pool_usd_per_hour: float
    """Lowest that a node hour of its pool may cost, on-demand fallback included."""
    quality_loss_percent: float
    """Expected, of the weights' format."""

    @property
    def place(self) -> tuple[str, int]:
        """Where it runs: GPU model or CPU family, and how many GPUs."""
        return (self.gpu.name if self.gpu else self.offerings[0].instance.family), self.gpus

    @property
    def label(self) -> str:
        """The way in a few words."""
        where = f"{self.gpus} x {self.gpu.name}" if self.gpu else self.offerings[0].instance.name
        return f"{self.checkpoint.method} on {where}"


class Survey:
    """The ways to serve a demand in a market. Each is looked at only when asked for: most are too dear to matter."""

    def __init__(self, demand: Demand, market: Market) -> None:
        self._demand = demand
        self._found: dict[tuple[Way, bool], Option | Miss] = {}
        ways: list[Way] = []
        misses: list[Miss] = []
        for checkpoint in demand.checkpoints:
            on_cpu = checkpoint.method.startswith("gguf")
            for way in (_cpu_ways if on_cpu else _gpu_ways)(demand, checkpoint, market):
                if isinstance(way, Way):
                    ways.append(way)
                else:
                    misses.append(way)
        self.ways = tuple(ways)
        on_cpus = sorted((way for way in ways if way.gpu is None), key=lambda way: way.offerings[0].instance.vcpu)
        self._fastest = {(way.checkpoint, way.place): way for way in on_cpus}
        self.impossible = tuple(misses)
        """What no software or node here runs."""

    def look(self, way: Way, *, tuned: bool = True) -> Option | Miss:
        """Work out one way: with vLLM's limits chosen for the target, or with its defaults of the GPU.

        llama.cpp has no defaults to leave.
        """
        key = (way, tuned or way.gpu is None)
        if key not in self._found:
            if way.gpu is None:
                self._found[key] = self._on_cpu(way)
            else:
                self._found[key] = _gpu_option(self._demand, way, way.gpu, tuned=tuned)
        return self._found[key]

    def _on_cpu(self, way: Way) -> Option | Miss:
        """Of a family, the node with the most threads is the fastest: where it misses, the smaller ones do too."""
        fastest = self._fastest[way.checkpoint, way.place]
        if way is not fastest and isinstance(missed := self.look(fastest), Miss):
            return replace(missed, label=way.label, reason=f"{fastest.offerings[0].instance.name} has {missed.reason}")
        return _cpu_option(self._demand, way)

    def options(self, *, tuned: bool = True) -> tuple[Option, ...]:
        """Every way that meets the target."""
        return tuple(found for way in self.ways if isinstance(found := self.look(way, tuned=tuned), Option))

    @property
    def misses(self) -> tuple[Miss, ...]:
        """Every way that does not even with limits chosen for it, and why."""
        for way in self.ways:
            self.look(way)
        return self.looked_at_misses

    @property
    def looked_at_misses(self) -> tuple[Miss, ...]:
        """Those of the ways that were cheap enough to be looked at."""
        failed = (found for (_, tuned), found in self._found.items() if tuned and isinstance(found, Miss))
        return (*failed, *self.impossible)


def _gpu_ways(demand: Demand, checkpoint: Checkpoint, market: Market) -> Iterator[Way | Miss]:
    possible: list[tuple[Gpu, int, tuple[Offering, ...], float]] = []
    holding: dict[int, list[tuple[str, float]]] = {}
    for gpu, count, _ in market.by_gpu:
        if demand.gpus and gpu.name not in demand.gpus:
            continue
        label = f"{checkpoint.method} on {count} x {gpu.name}"
        reason = unsupported(demand.architecture, checkpoint, gpu, count, demand.kv_cache_dtype)
        if reason:
            yield Miss(label, reason)
            continue
        pod = vllm_pod(count)
        hosts = market.hosts(gpu, pod, demand.host_memory_gib)
        if not hosts:
            memory_gib = pod.memory_gib + demand.host_memory_gib
            yield Miss(label, f"no instance type leaves {pod.cpu_cores:g} cores and {memory_gib:g} GiB for the pod")
            continue
        speed = replica_speed(demand, checkpoint, gpu, count)
        most = most_requests_per_second(speed, demand)
        possible.append((gpu, count, hosts, most))
        if _holds(gpu, count, checkpoint.weights_gb):
            holding.setdefault(count, []).append((gpu.name, most))
    for gpu, count, hosts, most in possible:
        as_fast = frozenset(
            [gpu.name, *(name for name, others_most in holding.get(count, ()) if others_most >= most * _AS_FAST)]
        )
        on_demand = min(offering.on_demand_usd_per_hour for offering in hosts)
        least = min([on_demand, *(market.least_spot(name, count) for name in as_fast)])
        # What does not hold its weights will be said to, by being looked at.
        holds = _holds(gpu, count, checkpoint.weights_gb)
        pool_usd = market.widest_pool_usd_per_hour(count, checkpoint.weights_gb, least) if holds else on_demand
        yield Way(
            checkpoint=checkpoint,
            gpu=gpu,
            gpus=count,
            offerings=hosts,
            most_requests_per_second=most,
            as_fast=as_fast,
            on_demand_usd_per_hour=on_demand,
            least_usd_per_hour=least,
            pool_usd_per_hour=pool_usd,
            quality_loss_percent=checkpoint_loss(demand.architecture.params_billion, checkpoint).percent,
        )


def _holds(gpu: Gpu, count: int, weights_gb: float) -> bool:
    return gpu.memory_gib * count * GIB > weights_gb * 1e9


def most_requests_per_second(speed: ReplicaSpeed, demand: Demand) -> float:
    """A bound from above on the rate of a replica: with the most sequences whose mean step meets the TPOT target.

    Infinite where not a single one does: such a way is to be looked at, for the reason.
    """
    workload = demand.workload
    context = workload.input_tokens + workload.output_tokens / 2
    kv_bytes = kv_bytes_per_sequence(speed.architecture, speed.kv_cache_dtype, context)
    prefill_s = speed.prefill_s(workload.input_tokens, workload.cached_tokens)
    fixed_s = speed.step_fixed_s
    # Without the experts' reads, which only add.
    sequence_s = speed.step_per_sequence_s + kv_bytes * speed.kv_read_s_per_byte + prefill_s / workload.output_tokens
    room_s = demand.target.tpot_ms / 1000 - fixed_s
    if workload.output_tokens <= 1:
        return 1 / (workload.output_tokens * sequence_s)
    sequences = room_s / sequence_s
    return sequences / (workload.output_tokens * (fixed_s + sequences * sequence_s)) if sequences > 0 else math.inf


def _gpu_option(demand: Demand, way: Way, gpu: Gpu, *, tuned: bool) -> Option | Miss:
    found = _vllm_limits(demand, way.checkpoint, gpu, way.gpus, tuned=tuned)
    if isinstance(found, Miss):
        return found
    limits, load = found
    measured = measured_speed(demand, way.checkpoint, gpu, way.gpus)
    return Option(
        checkpoint=way.checkpoint,
        gpu=gpu,
        gpus=way.gpus,
        load=load,
        vllm=limits,
        llama_cpp=None,
        resources=vllm_pod(way.gpus),
        offerings=way.offerings,
        cold_start=vllm_cold_start(way.checkpoint.weights_gb, demand.host_memory_gib),
        measured=measured,
        cost_band=COST_BAND if measured else cost_band(demand.architecture, gpu, way.gpus),
        image_gb=VLLM_IMAGE_GB,
        quality_loss_percent=way.quality_loss_percent,
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
    if kv_cache_dtype.startswith("nvfp4") and gpu.compute_capability < NVFP4_KV_LEAST_COMPUTE_CAPABILITY:
        return f"the {gpu.name} cannot keep its KV cache in {kv_cache_dtype}"
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
    speed = replica_speed(demand, checkpoint, gpu, count)
    default = vllm_default_limits(
        gpu, max_model_len=demand.max_model_len, gpus=count, kv_cache_dtype=demand.kv_cache_dtype
    )
    choices = sorted({default.max_num_batched_tokens, *(BATCHED_TOKENS if tuned else ())})
    label = f"{checkpoint.method} on {count} x {gpu.name}"
    memory = _fit(demand, checkpoint, default, gpu, LEAST_MAX_NUM_SEQS if tuned else default.max_num_seqs, choices[0])
    if not memory.fits:
        return Miss(label, memory.reason)

    fastest = LoadModel(speed, demand.workload, choices[-1])
    if not fastest.carries(0.0, demand.target, MOST_MAX_NUM_SEQS):
        return _too_slow(label, fastest, demand.target, memory)

    def room(max_num_seqs: int, batched_tokens: int) -> int:
        memory = _fit(demand, checkpoint, default, gpu, max_num_seqs, batched_tokens)
        return _sequences(demand, memory, speed) if memory.fits else 0

    def largest(batched_tokens: int, sequences: int) -> Load | None:
        return LoadModel(speed, demand.workload, batched_tokens).largest(demand.target, sequences)

    best: tuple[VllmLimits, Load] | None = None
    for batched_tokens in choices:
        if tuned:
            sequences = _most_sequences(lambda count, tokens=batched_tokens: room(count, tokens))
        else:
            sequences = min(default.max_num_seqs, room(default.max_num_seqs, batched_tokens))
        load = largest(batched_tokens, sequences)
        if load is not None and (best is None or load.requests_per_second > best[1].requests_per_second * _WORTH_MORE):
            wanted = max(LEAST_MAX_NUM_SEQS, math.ceil(load.sequences_p99 / 8) * 8) if tuned else default.max_num_seqs
            best = replace(default, max_num_seqs=wanted, max_num_batched_tokens=batched_tokens), load
        if batched_tokens == choices[0] != choices[-1]:
            # More tokens a step help prompts only, and leave less room: no choice carries more than this.
            ceiling = largest(choices[-1], sequences)
            least = best[1].requests_per_second * _WORTH_MORE if best else 0.0
            if ceiling is None or ceiling.requests_per_second <= least:
                break
    if best is not None:
        return best
    return _too_slow(label, fastest, demand.target, memory)


def _most_sequences(room: Callable[[int], int]) -> int:
    """The most sequences that fit beside the activations of as many: ``room(n)`` falls as ``n`` rises.

    False position between multiples of 8: the room falls linearly once the sampler's logits are the largest buffer.
    """
    low, high = LEAST_MAX_NUM_SEQS, MOST_MAX_NUM_SEQS
    room_low, room_high = room(low), room(high)
    if room_low <= low:
        return room_low
    if room_high >= high:
        return high
    while high - low > 8:
        estimate = low + (high - low) * (room_low - low) / (room_low - low + high - room_high)
        middle = min(high - 8, max(low + 8, round(estimate / 8) * 8))
        room_middle = room(middle)
        if room_middle >= middle:
            low, room_low = middle, room_middle
        else:
            high, room_high = middle, room_middle
    return max(low, room_high)


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
    speed = replica_speed(demand, option.checkpoint, gpu, option.gpus)
    model = LoadModel(speed, demand.workload, limits.max_num_batched_tokens)
    room = min(limits.max_num_seqs, _sequences(demand, memory, speed))
    return model.carries(requests_per_second, demand.target, room)


def sustains_on_cpu(option: Option, demand: Demand, instance: InstanceType, requests_per_second: float) -> bool:
    """The same for a CPU type: the pod keeps its threads and slots."""
    limits = option.llama_cpp
    if limits is None or not hosts_pod(instance, option.resources):
        return False
    speed = _cpu_speed(demand.architecture, option.checkpoint, instance.family, limits.threads)
    model = LoadModel(speed, demand.workload, LLAMA_CPP_BATCH_TOKENS)
    return model.carries(requests_per_second, demand.target, limits.parallel_slots)


def load_model(option: Option, demand: Demand) -> LoadModel:
    """The latency of an option's replica as a function of its concurrency."""
    if option.gpu is None or option.vllm is None:
        instance = option.offerings[0].instance
        threads = option.llama_cpp.threads if option.llama_cpp else instance.vcpu
        speed = _cpu_speed(demand.architecture, option.checkpoint, instance.family, threads)
        return LoadModel(speed, demand.workload, LLAMA_CPP_BATCH_TOKENS)
    speed = replica_speed(demand, option.checkpoint, option.gpu, option.gpus)
    return LoadModel(speed, demand.workload, option.vllm.max_num_batched_tokens)


def _fit(
    demand: Demand, checkpoint: Checkpoint, limits: VllmLimits, gpu: Gpu, max_num_seqs: int, batched_tokens: int
) -> MemoryFit:
    return _known_fit(
        demand.architecture,
        checkpoint,
        gpu,
        limits.tensor_parallel_size,
        demand.max_model_len,
        max_num_seqs,
        batched_tokens,
        limits.kv_cache_dtype,
        limits.gpu_memory_utilization,
    )


@cache
def _known_fit(
    architecture: Architecture,
    checkpoint: Checkpoint,
    gpu: Gpu,
    gpus: int,
    max_model_len: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    kv_cache_dtype: str,
    gpu_memory_utilization: float,
) -> MemoryFit:
    """Tiers of the same model ask for the same limits again and again."""
    return fit(
        architecture,
        checkpoint,
        gpu,
        gpus,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        kv_cache_dtype=kv_cache_dtype,
        gpu_memory_utilization=gpu_memory_utilization,
    )


def kv_cache_gib(option: Option, demand: Demand) -> float:
    """GiB of KV cache on all GPUs of an option's replica; 0 on CPU."""
    limits = option.vllm
    if limits is None or option.gpu is None:
        return 0.0
    memory = _fit(demand, option.checkpoint, limits, option.gpu, limits.max_num_seqs, limits.max_num_batched_tokens)
    return memory.kv_gib_per_gpu * option.gpus


def _sequences(demand: Demand, memory: MemoryFit, speed: ReplicaSpeed) -> int:
    """How many running requests of the demand's mean size the KV cache holds."""
    running = demand.workload.running_tokens
    full = kv_bytes_per_sequence(speed.architecture, speed.kv_cache_dtype, demand.max_model_len)
    mean = kv_bytes_per_sequence(speed.architecture, speed.kv_cache_dtype, running)
    return math.floor(memory.full_length_sequences * full / mean)


def replica_speed(demand: Demand, checkpoint: Checkpoint, gpu: Gpu, count: int) -> ReplicaSpeed:
    """Speed of a vLLM replica: as the formula projects it, or as it was measured where it was."""
    speed = _gpu_speed(demand.architecture, checkpoint, gpu, count, demand.kv_cache_dtype)
    measured = measured_speed(demand, checkpoint, gpu, count)
    return speed.slower(measured.time_factor) if measured else speed


def measured_speed(demand: Demand, checkpoint: Checkpoint, gpu: Gpu, count: int) -> MeasuredReplica | None:
    """Published measurements of the very replica at the demand's lengths; None where there are none."""
    replica = (demand.architecture.model_id, checkpoint.method, gpu.name, count)
    workload = demand.workload
    return measured_replica(replica, workload.input_tokens, workload.output_tokens, demand.kv_cache_dtype)


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


def _cpu_ways(demand: Demand, checkpoint: Checkpoint, market: Market) -> Iterator[Way | Miss]:
    for offering in market.cpu:
        threads, room_gib, slot_gib = _cpu_room(demand, checkpoint, offering.instance)
        if room_gib < slot_gib or threads < 1:
            label = f"{checkpoint.method} on {offering.instance.name}"
            yield Miss(label, f"{slot_gib - room_gib:.1f} GiB too little for weights and one slot")
            continue
        speed = _cpu_speed(demand.architecture, checkpoint, offering.instance.family, threads)
        on_demand = offering.on_demand_usd_per_hour
        price = spot_usd_per_hour(offering)
        least = on_demand if price is None else min(price, on_demand)
        yield Way(
            checkpoint=checkpoint,
            gpu=None,
            gpus=0,
            offerings=(offering,),
            most_requests_per_second=most_requests_per_second(speed, demand),
            as_fast=frozenset(),
            on_demand_usd_per_hour=on_demand,
            least_usd_per_hour=least,
            pool_usd_per_hour=least,
            quality_loss_percent=checkpoint_loss(demand.architecture.params_billion, checkpoint).percent,
        )


def _cpu_room(demand: Demand, checkpoint: Checkpoint, instance: InstanceType) -> tuple[int, float, float]:
    """Threads of a node, GiB left for slots beside the weights, and GiB of one slot."""
    weights_gib = weight_bytes(demand.architecture, checkpoint).total / GIB
    slot_gib = kv_bytes_per_sequence(demand.architecture, "auto", demand.max_model_len) / GIB
    room_gib = instance.allocatable_memory_gib - DAEMON_MEMORY_GIB - LLAMA_CPP_MEMORY_GIB - weights_gib
    return math.floor(instance.allocatable_cpu - DAEMON_CPU_CORES), room_gib, slot_gib


@cache
def _cpu_speed(architecture: Architecture, checkpoint: Checkpoint, family: str, threads: int) -> ReplicaSpeed:
    return cpu_speed(architecture, checkpoint, cpus()[family], threads)


def _cpu_option(demand: Demand, way: Way) -> Option | Miss:
    instance, checkpoint = way.offerings[0].instance, way.checkpoint
    threads, room_gib, slot_gib = _cpu_room(demand, checkpoint, instance)
    speed = _cpu_speed(demand.architecture, checkpoint, instance.family, threads)
    model = LoadModel(speed, demand.workload, LLAMA_CPP_BATCH_TOKENS)
    load = model.largest(demand.target, math.floor(room_gib / slot_gib))
    if load is None:
        unloaded = model.at(LEAST_CONCURRENCY)
        reason = (
            f"TTFT {unloaded.ttft_p95_ms:,.0f} ms and TPOT {unloaded.tpot_p95_ms:,.0f} ms unloaded, target "
            f"{demand.target.ttft_ms:,.0f} and {demand.target.tpot_ms:,.0f}"
        )
        return Miss(way.label, reason, unloaded.ttft_p95_ms, unloaded.tpot_p95_ms)
    slots = load.sequences_p99
    weights_gib = weight_bytes(demand.architecture, checkpoint).total / GIB
    memory = weights_gib + slots * slot_gib + LLAMA_CPP_MEMORY_GIB
    return Option(
        checkpoint=checkpoint,
        gpu=None,
        gpus=0,
        load=load,
        vllm=None,
        llama_cpp=LlamaCppLimits(threads, slots, slots * demand.max_model_len),
        resources=PodResources(float(threads), math.ceil(memory * 10) / 10, 0, 0.0, math.ceil(weights_gib) + 1.0),
        offerings=way.offerings,
        cold_start=llama_cpp_cold_start(checkpoint.weights_gb, instance.network_baseline_mbps or 1000),
        cost_band=cost_band(demand.architecture, None, 0),
        image_gb=LLAMA_CPP_IMAGE_GB,
        quality_loss_percent=way.quality_loss_percent,
    )
