"""What fits where: weights, overheads and KV cache of one replica, item by item, per GPU.

Formulas follow vLLM's own accounting: a share ``gpu_memory_utilization`` of what the driver shows is vLLM's; weights,
the profiled activation peak, non-torch memory and CUDA graphs come first, the KV cache gets the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planning.facts.checkpoints import Checkpoint
from planning.facts.gpus import Gpu
from planning.facts.models import Architecture

GIB = 2**30

#: Bits per weight of the quantised linear layers. Scales and zeros of group 128 are counted: w4a16 4 + 16/128, AWQ and
#: GPTQ with packed zeros 4 + 16/128 + 4/128, MXFP4 4 + 8/32, NVFP4 4 + 8/16 (the formats' definitions; Marlin README).
#: Embeddings, lm_head and norms stay at 16 bits in all of them.
BITS_PER_WEIGHT = {
    "fp16": 16.0,
    "fp8": 8.0,
    "int8": 8.0,
    "w4a16": 4.125,
    "awq": 4.156,
    "gptq": 4.156,
    "nvfp4": 4.5,
    "mxfp4": 4.25,
}

#: vLLM 0.33.0 ``config/cache.py``: its own default share of the GPU's memory.
DEFAULT_GPU_MEMORY_UTILIZATION = 0.92

#: GiB that torch reports, where start-up logs show it (facts/data/vllm_kv_cache_logs.csv). ECC and the driver take the
#: rest; the T4's loss is far above the usual one per cent.
_VISIBLE_GIB = {
    "T4": 14.74,
    "A100-40GB": 39.5,
    "A100-80GB": 79.15,
    "H100": 79.18,
    "H200": 139.8,
    "L40S": 44.42,
}
_VISIBLE_SHARE = 0.99

#: The sampler's peak in bytes: float32 logits of every sequence over the vocabulary, in this many copies (sort,
#: softmax, cumulative sums). Eight start-up logs from 16 to 1,024 sequences and 32k to 201k words give 9.5 to 9.9.
_SAMPLER_LOGITS_COPIES = 9.6

#: GiB outside torch on one GPU, and for every further GPU of the replica (NCCL, custom all-reduce): logs show 0.1 to
#: 0.14 on one, 0.33 on two, 1.74 on eight.
_NON_TORCH_GIB = 0.13
_NON_TORCH_GIB_PER_PEER = 0.2

#: GiB of captured CUDA graphs, inside vLLM's share since 0.21. Logs of dense models show 0.5 to 0.7, of mixtures of
#: experts on 8 GPUs up to 2.5.
_CUDA_GRAPHS_GIB = 0.7
_CUDA_GRAPHS_GIB_EXPERTS = 2.3


@dataclass(frozen=True, slots=True)
class MemoryItem:
    """One use of a GPU's memory."""

    name: str
    gib_per_gpu: float
    note: str


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """The memory of one replica."""

    items: tuple[MemoryItem, ...]
    weights_gib: float
    """Of the whole checkpoint, over all GPUs."""
    kv_gib_per_gpu: float
    """What is left for the KV cache; negative when the weights do not fit."""
    kv_tokens: int
    """Tokens of cache of the replica."""
    full_length_sequences: float
    """How many sequences of ``max_model_len`` fit at once."""
    fits: bool
    """At least one sequence of ``max_model_len`` fits."""
    reason: str
    """Why it does not fit, and by how much; empty when it does."""


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """A checkpoint's bytes by how they are read in a decode step."""

    dense: float
    """Read in every step: attention, embeddings, shared layers."""
    experts: float
    """Routed experts: read by the share of them that the batch hits."""

    @property
    def total(self) -> float:
        """All bytes."""
        return self.dense + self.experts


def embedding_parameters(architecture: Architecture) -> float:
    """Parameters that stay at 16 bits: embeddings, and lm_head when it is not tied to them."""
    return architecture.vocab_size * architecture.hidden_size * (1 if architecture.tied_embeddings else 2)


def expert_parameters(architecture: Architecture) -> float:
    """Parameters of routed experts; 0 for dense models.

    Total and active counts differ by the experts that one token does not visit: (E - k) / E of all of them.
    """
    if architecture.experts <= 1:
        return 0.0
    idle = (architecture.params_billion - architecture.active_params_billion) * 1e9
    return idle * architecture.experts / (architecture.experts - architecture.experts_per_token)


def weight_bytes(architecture: Architecture, checkpoint: Checkpoint) -> WeightBytes:
    """Bytes of a checkpoint's weights, dense and experts.

    Computed from the architecture and the method's bits; formats without a fixed number of bits (GGUF mixtures,
    natively quantised models) take the published size of the repository.
    """
    total = architecture.params_billion * 1e9
    embeddings = embedding_parameters(architecture)
    experts = expert_parameters(architecture)
    bits = BITS_PER_WEIGHT.get(checkpoint.method)
    if bits is None or (checkpoint.repository == architecture.model_id and checkpoint.method != "fp16"):
        published = checkpoint.weights_gb * 1e9
        share = experts / total
        return WeightBytes(published * (1 - share), published * share)
    return WeightBytes((total - embeddings - experts) * bits / 8 + embeddings * 2, experts * bits / 8)


def kv_bytes_per_token(architecture: Architecture, kv_cache_dtype: str) -> float:
    """Bytes of KV cache that one token takes in layers that keep the whole context."""
    size = architecture.kv_bytes_per_token_bf16 * (0.5 if kv_cache_dtype.startswith("fp8") else 1.0)
    if architecture.sliding_window and architecture.global_attention_layers < architecture.layers:
        return size * architecture.global_attention_layers / architecture.layers
    return size


def kv_bytes_per_sequence(architecture: Architecture, kv_cache_dtype: str, tokens: float) -> float:
    """Bytes of KV cache of a sequence of ``tokens``; sliding-window layers stop growing at their window."""
    grows = kv_bytes_per_token(architecture, kv_cache_dtype) * tokens
    if not architecture.sliding_window:
        return grows
    whole = architecture.kv_bytes_per_token_bf16 * (0.5 if kv_cache_dtype.startswith("fp8") else 1.0)
    local_share = 1 - architecture.global_attention_layers / architecture.layers
    return grows + whole * local_share * min(tokens, architecture.sliding_window)


def kv_shards(architecture: Architecture, gpus: int) -> float:
    """Into how many parts the KV cache is really divided: heads are copied when there are fewer than GPUs.

    Multi-head latent attention keeps one compressed vector that every GPU holds whole.
    """
    return 1.0 if architecture.uses_latent_attention else float(min(gpus, architecture.kv_heads))


def visible_gib(gpu: Gpu) -> float:
    """GiB that vLLM sees on a GPU."""
    return _VISIBLE_GIB.get(gpu.name, gpu.memory_gib * _VISIBLE_SHARE)


def activation_gib(architecture: Architecture, gpus: int, max_num_seqs: int, max_num_batched_tokens: int) -> float:
    """Peak of activations that vLLM profiles at start, GiB per GPU.

    The larger of the sampler's float32 logits for ``max_num_seqs`` sequences and the MLP's buffers for a step of
    ``max_num_batched_tokens``: gate and up projections with their product (3 x intermediate size, divided over the
    GPUs) and four hidden states, 16 bit. Source: facts/data/vllm_kv_cache_logs.csv, column activation_gib_reported.
    """
    sampler = _SAMPLER_LOGITS_COPIES * 4 * max_num_seqs * architecture.vocab_size
    per_token = 3 * _active_intermediate_size(architecture) / gpus + 4 * architecture.hidden_size
    return max(sampler, max_num_batched_tokens * per_token * 2) / GIB


def _active_intermediate_size(architecture: Architecture) -> float:
    """Width of the MLP that one token passes, over all experts it visits, from the parameter count."""
    per_layer = (architecture.active_params_billion * 1e9 - embedding_parameters(architecture)) / architecture.layers
    heads = 2 * architecture.attention_heads + 2 * architecture.kv_heads
    attention = architecture.hidden_size * architecture.head_dim * heads
    return max((per_layer - attention) / (3 * architecture.hidden_size), architecture.hidden_size)


def fit(
    architecture: Architecture,
    checkpoint: Checkpoint,
    gpu: Gpu,
    gpus: int,
    *,
    max_model_len: int,
    max_num_seqs: int = 256,
    max_num_batched_tokens: int = 8192,
    kv_cache_dtype: str = "auto",
    gpu_memory_utilization: float = DEFAULT_GPU_MEMORY_UTILIZATION,
) -> MemoryFit:
    """Say whether a replica of ``gpus`` GPUs holds the checkpoint, and how much KV cache remains.

    Sizes are GiB per GPU; ``max_model_len``, ``max_num_batched_tokens`` and ``kv_tokens`` are tokens.
    """
    weights_gib = weight_bytes(architecture, checkpoint).total / GIB
    embeddings_gib = embedding_parameters(architecture) * 2 / GIB
    quantised_gib = weights_gib - min(embeddings_gib, weights_gib)
    visible = visible_gib(gpu)
    graphs = _CUDA_GRAPHS_GIB if architecture.experts <= 1 or gpus < 8 else _CUDA_GRAPHS_GIB_EXPERTS
    items = (
        MemoryItem(
            "weights, quantised layers" if checkpoint.method != "fp16" else "weights, layers",
            quantised_gib / gpus,
            f"{checkpoint.method}, {quantised_gib:.1f} GiB over {gpus} GPU",
        ),
        MemoryItem("weights, embeddings and lm_head", (weights_gib - quantised_gib) / gpus, "16 bit"),
        MemoryItem(
            "activations",
            activation_gib(architecture, gpus, max_num_seqs, max_num_batched_tokens),
            f"peak at {max_num_seqs} sequences and {max_num_batched_tokens} tokens a step",
        ),
        MemoryItem("CUDA graphs", graphs, "as logged by vLLM from 0.18"),
        MemoryItem("outside torch", _NON_TORCH_GIB + _NON_TORCH_GIB_PER_PEER * (gpus - 1), "context, NCCL"),
    )
    kv_gib = visible * gpu_memory_utilization - sum(item.gib_per_gpu for item in items)
    sequence_gib = kv_bytes_per_sequence(architecture, kv_cache_dtype, max_model_len) / GIB
    shards = kv_shards(architecture, gpus)
    sequences = kv_gib * shards / sequence_gib
    fits = sequences >= 1
    reason = ""
    if kv_gib <= 0:
        reason = f"{-kv_gib:.1f} GiB per GPU too little for weights and overheads"
    elif not fits:
        reason = (
            f"{sequence_gib / shards - kv_gib:.1f} GiB per GPU too little for one sequence of {max_model_len} tokens"
        )
    return MemoryFit(
        items=(
            *items,
            MemoryItem("KV cache", max(kv_gib, 0.0), f"{kv_cache_dtype}, what is left"),
            MemoryItem("left to the driver", visible * (1 - gpu_memory_utilization), f"1 - {gpu_memory_utilization}"),
        ),
        weights_gib=weights_gib,
        kv_gib_per_gpu=kv_gib,
        kv_tokens=max(0, math.floor(sequences * max_model_len)),
        full_length_sequences=max(0.0, sequences),
        fits=fits,
        reason=reason,
    )
