"""What fits where: weights, overheads and KV cache of one replica, item by item, per GPU.

Formulas follow vLLM's own accounting: a share ``gpu_memory_utilization`` of what the driver shows is vLLM's; weights,
the profiled activation peak, non-torch memory and CUDA graphs come first, the KV cache gets the rest.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache

from planning.facts.checkpoints import BITS_PER_WEIGHT, Checkpoint
from planning.facts.gpus import Gpu, gpus
from planning.facts.models import Architecture

GIB = 2**30

#: vLLM 0.33.0 ``config/cache.py``: its own default share of the GPU's memory.
DEFAULT_GPU_MEMORY_UTILIZATION = 0.92

#: vLLM that is installed: constants that changed between versions are those of this one unless a version is given.
PINNED_VLLM = (0, 33)

#: GiB that torch reports ("total capacity" of its out-of-memory errors, and facts/data/vllm_kv_cache_logs.csv). ECC and
#: the driver take the rest; the T4's loss is far above the usual one per cent. A10, A10G and L4: 21.96 to 22.18.
_VISIBLE_GIB = {
    "T4": 14.74,
    "V100-32GB": 31.74,
    "A10": 22.06,
    "A10G": 22.06,
    "L4": 22.06,
    "RTX-3090": 23.58,
    "RTX-4090": 23.53,
    "RTX-4090D": 23.55,
    "RTX-5090": 31.36,
    "A100-40GB": 39.5,
    "A100-80GB": 79.15,
    "H100": 79.18,
    "H200": 139.8,
    "B200": 178.35,
    "L40S": 44.42,
    "RTX-PRO-6000": 94.97,
    "A6000": 47.4,
    "RTX-A6000": 47.4,
    "RTX-6000-Ada": 47.4,
    "GB10 (DGX Spark)": 121.69,
}
_VISIBLE_SHARE = 0.99

#: The sampler's peak in bytes: float32 logits of every sequence over the vocabulary, in this many copies. With a sort
#: (values, 64-bit indices, softmax, cumulative sums): eight logged peaks from 16 to 1,024 sequences and 32k to 201k
#: words give 9.5 to 9.9. vLLM 0.17 samples by a kernel that does not sort: what is left is the 16-bit (0.5) and the
#: 32-bit logits, probabilities, noise and the kernel's buffer. Over several GPUs the gathered logits lie beside them
#: (two copies and NCCL's staging). Both: start-up logs of 0.18 and 0.19 of 16 models.
_SORTING_COPIES = 9.7
_SORTING_ENDS = (0, 17)
_LOGITS_COPIES = 4.5
_GATHERED_LOGITS_COPIES = 2.5

#: Hidden states of a layer that are alive at its peak: input, residual, norm, output. Logged peaks of long prefills (up
#: to 32,768 tokens) give 4.0.
_HIDDEN_STATES = 4

#: Buffers of fp8 expert kernels, in hidden states of every token times the experts that it visits. Since 0.11.1 vLLM
#: keeps them from one layer to the next and through sampling. Logs of DeepSeek and
#: Qwen3-Coder-Next give 1.5 to 2.4.
_EXPERT_WORKSPACE_COPIES = 2.3
_EXPERT_WORKSPACE_STAYS = (0, 11, 1)

#: Image tokens whose encoder outputs are held while the language model is profiled: Qwen-VL's largest image.
_PROFILED_IMAGE_TOKENS = 16384

#: vLLM pads the width of MXFP4 experts to this multiple (gpt-oss: 2,880 to 3,072, logged as 64.4 for 60.7 GiB).
_MXFP4_MULTIPLE = 256

#: GiB outside torch: CUDA context, cuBLAS. Over several GPUs NCCL's channels, on NVLink custom all-reduce and symmetric
#: buffers that grow with the number of steps of a ring (logs: 0.7 on 4 and 1.0 on 8; PCIe 0.21 to 0.33 on 2 to 8).
NON_TORCH_GIB = 0.13
_NCCL_GIB = 0.12
_NVLINK_GIB_PER_DOUBLING = 0.3

#: Weights below this are no item of their own: they would print as 0.00.
_SMALLEST_ITEM_GIB = 0.005

#: GPUs that share the host's memory: what the process holds there counts as taken (a log of Qwen3-0.6B: 3.35 GiB for
#: 1.12 of weights), and vLLM, which finds no memory of the GPU's own, takes the defaults of a small one.
UNIFIED_MEMORY = ("GB10 (DGX Spark)",)
UNIFIED_HOST_GIB = 2.1

#: GiB of captured CUDA graphs, and more for every further GPU. Inside vLLM's share from 0.20: estimates there fell by
#: 0.27 to 0.59 on one GPU, 0.63 on two, 0.9 on four and 1.55 on eight against 0.19 of the same models.
_CUDA_GRAPHS_GIB = 0.6
_CUDA_GRAPHS_GIB_PER_PEER = 0.14
_CUDA_GRAPHS_COUNT = (0, 20)


@dataclass(frozen=True, slots=True)
class KvCacheDtype:
    """How ``--kv-cache-dtype`` stores one vector (a head's key or value of one token)."""

    key_bits: float
    value_bits: float
    overhead_bytes: float
    """Scales, zeros and norms of a key and a value together."""
    boundary_layers: int
    """Layers at the ends that stay at 16 bit in models without linear layers."""
    quality: str
    """Published cost, with its source."""


_NO_QUALITY = "no published quality figure"
_FP8 = KvCacheDtype(
    8, 8, 0, 0, "97 to 99 % of the 16-bit scores, long-context retrieval 94 to 98 % (vLLM blog, 2026-04-22)"
)
_TURBO = "vLLM's turboquant/config.py"

#: The choices of vLLM 0.33.0's ``--kv-cache-dtype`` that CUDA serves (config/cache.py; sizes of TurboQuant from
#: model_executor/layers/quantization/turboquant/config.py). Left out:
#: fp8_inc (Gaudi) and nvfp4_ds_mla (no size published).
KV_CACHE_DTYPES = {
    "auto": KvCacheDtype(16, 16, 0, 0, "none lost"),
    "float16": KvCacheDtype(16, 16, 0, 0, "none lost"),
    "bfloat16": KvCacheDtype(16, 16, 0, 0, "none lost"),
    "fp8": _FP8,
    "fp8_e4m3": _FP8,
    "fp8_e5m2": KvCacheDtype(8, 8, 0, 0, _NO_QUALITY),
    "fp8_ds_mla": KvCacheDtype(9.12, 9.12, 0, 0, _NO_QUALITY),
    "fp8_per_token_head": KvCacheDtype(8, 8, 8, 0, _NO_QUALITY),
    "int8_per_token_head": KvCacheDtype(8, 8, 8, 0, _NO_QUALITY),
    "int4_per_token_head": KvCacheDtype(4, 4, 8, 0, _NO_QUALITY),
    "nvfp4": KvCacheDtype(4.5, 4.5, 0, 0, _NO_QUALITY),
    "nvfp4_4over6": KvCacheDtype(4.5, 4.5, 0, 0, _NO_QUALITY),
    "turboquant_k8v4": KvCacheDtype(8, 4, 4, 4, f"perplexity +1.17 % ({_TURBO})"),
    "turboquant_4bit_nc": KvCacheDtype(4, 4, 6, 4, f"perplexity +2.71 % ({_TURBO})"),
    "turboquant_k3v4_nc": KvCacheDtype(3, 4, 6, 4, f"perplexity +10.63 % ({_TURBO})"),
    "turboquant_3bit_nc": KvCacheDtype(3, 3, 6, 4, f"perplexity +20.59 % ({_TURBO})"),
}


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

    Where they were not counted: total and active counts differ by the experts that one token does not visit, which are
    (E - k) / E of all of them.
    """
    if architecture.experts <= 1:
        return 0.0
    if architecture.routed_billion:
        return architecture.routed_billion * 1e9
    idle = (architecture.params_billion - architecture.active_params_billion) * 1e9
    return idle * architecture.experts / (architecture.experts - architecture.experts_per_token)


@cache
def weight_bytes(architecture: Architecture, checkpoint: Checkpoint) -> WeightBytes:
    """Bytes of a checkpoint's weights, dense and experts.

    Quantised are linear layers only: embeddings, lm_head and what the architecture names beside them (vision tower,
    routers, norms) stay at 16 bit, and of an MXFP4 model everything but its experts. Formats without a fixed number of
    bits (GGUF mixtures) take the published size of the repository.
    """
    total = architecture.params_billion * 1e9
    experts = expert_parameters(architecture)
    bits = BITS_PER_WEIGHT.get(checkpoint.method)
    if bits is None:
        published = checkpoint.weights_gb * 1e9
        share = experts / total
        return WeightBytes(published * (1 - share), published * share)
    kept = embedding_parameters(architecture) + architecture.unquantised_billion * 1e9
    dense_bits = 16.0 if checkpoint.method == "mxfp4" and experts else bits
    return WeightBytes((total - kept - experts) * dense_bits / 8 + kept * 2, experts * bits / 8)


def weight_gib_per_gpu(architecture: Architecture, checkpoint: Checkpoint, gpus: int) -> float:
    """GiB of weights on one GPU: a share, and the whole of what is not divided (at 16 bit, or fp8 where all is)."""
    whole = architecture.replicated_billion * 1e9 * (1 if checkpoint.method == "fp8" else 2)
    total = weight_bytes(architecture, checkpoint).total + _padding_bytes(architecture, checkpoint, gpus)
    return (max(total - whole, 0.0) / gpus + min(whole, total)) / GIB


def _padding_bytes(architecture: Architecture, checkpoint: Checkpoint, gpus: int) -> float:
    """What vLLM adds to the experts of all GPUs together so that each GPU's width is one that its kernels take."""
    if checkpoint.method != "mxfp4" or not architecture.intermediate_size:
        return 0.0
    part = architecture.intermediate_size / gpus
    padded = math.ceil(part / _MXFP4_MULTIPLE) * _MXFP4_MULTIPLE
    return weight_bytes(architecture, checkpoint).experts * (padded / part - 1)


@cache
def _kv_share(architecture: Architecture, kv_cache_dtype: str) -> float:
    """Bytes of the cache relative to 16 bit."""
    dtype = KV_CACHE_DTYPES[kv_cache_dtype]
    size = (dtype.key_bits + dtype.value_bits) / 8 * architecture.head_dim + dtype.overhead_bytes
    share = size / (4 * architecture.head_dim)
    if dtype.boundary_layers and not architecture.state_bytes_per_sequence:
        kept = min(dtype.boundary_layers, architecture.layers) / architecture.layers
        share = kept + (1 - kept) * share
    return share


def _global_kv_bytes(architecture: Architecture) -> float:
    """Bytes of one token at 16 bit in layers that keep the whole context."""
    if architecture.global_kv_bytes_per_token_bf16 is not None:
        return architecture.global_kv_bytes_per_token_bf16
    if not architecture.sliding_window:
        return architecture.kv_bytes_per_token_bf16
    return architecture.kv_bytes_per_token_bf16 * architecture.global_attention_layers / architecture.layers


def kv_bytes_per_token(architecture: Architecture, kv_cache_dtype: str) -> float:
    """Bytes of KV cache that one token takes in layers that keep the whole context.

    Of a model whose every layer slides, what one token takes until the window is full.
    """
    whole = _global_kv_bytes(architecture) or architecture.kv_bytes_per_token_bf16
    return whole * _kv_share(architecture, kv_cache_dtype)


def kv_bytes_per_sequence(architecture: Architecture, kv_cache_dtype: str, tokens: float) -> float:
    """Bytes of KV cache of a sequence of ``tokens``, with the fixed state of linear layers.

    Sliding-window layers stop growing at their window.
    """
    whole = _global_kv_bytes(architecture)
    kept = tokens if architecture.sliding_window is None else min(tokens, architecture.sliding_window)
    local = architecture.kv_bytes_per_token_bf16 - whole
    share = _kv_share(architecture, kv_cache_dtype)
    return (whole * tokens + local * kept) * share + architecture.state_bytes_per_sequence


def kv_shards(architecture: Architecture, gpus: int) -> float:
    """Into how many parts the KV cache is really divided: heads are copied when there are fewer than GPUs.

    Multi-head latent attention keeps one compressed vector that every GPU holds whole.
    """
    return 1.0 if architecture.uses_latent_attention else float(min(gpus, architecture.kv_heads))


def _sequence_gib_per_gpu(architecture: Architecture, kv_cache_dtype: str, tokens: int, gpus: int) -> float:
    """GiB of one sequence on one GPU; recurrent state divides over all GPUs, whatever the KV heads."""
    total = kv_bytes_per_sequence(architecture, kv_cache_dtype, tokens)
    state = architecture.state_bytes_per_sequence
    return ((total - state) / kv_shards(architecture, gpus) + state / gpus) / GIB


def visible_gib(gpu: Gpu) -> float:
    """GiB that vLLM sees on a GPU."""
    return _VISIBLE_GIB.get(gpu.name, gpu.memory_gib * _VISIBLE_SHARE)


def visible_gib_named(name: str) -> float | None:
    """GiB that vLLM sees on a GPU that need not be in the catalogue; None when nobody has logged it."""
    known = gpu_name(name)
    if known in _VISIBLE_GIB:
        return _VISIBLE_GIB[known]
    if known in gpus():
        return visible_gib(gpus()[known])
    stated = re.search(r"(\d+)[- ]?GB\b", name)
    return int(stated[1]) * _VISIBLE_SHARE if stated else None


@cache
def gpu_name(text: str) -> str:
    """The catalogue's name of a GPU as people write it: ``NVIDIA A100 80GB PCIe``, ``h100-sxm``; else the text."""
    by_folded = {known.casefold(): known for known in (*gpus(), *_VISIBLE_GIB)}
    folded = re.sub(r"^(nvidia|geforce|tesla)[- ]|[- ]?\(r\)", "", text.casefold().replace("_", "-"))
    folded = re.sub(r"^(geforce|tesla)[- ]", "", folded).replace(" ", "-")
    while folded not in by_folded:
        shorter = re.sub(r"-(sxm\d?|pcie|hbm\d?e?|\d+gb|server-edition|blackwell)$", "", folded)
        if shorter == folded:
            return text
        folded = shorter
    return by_folded[folded]


def sampler_gib(vocab_size: int, gpus: int, max_num_seqs: int, vllm: tuple[int, ...] = PINNED_VLLM) -> float:
    """GiB of the sampler's peak: float32 logits of ``max_num_seqs`` sequences, and their copies."""
    copies = _LOGITS_COPIES + (_GATHERED_LOGITS_COPIES if gpus > 1 else 0.0)
    if vllm < _SORTING_ENDS:
        copies = _SORTING_COPIES
    return copies * 4 * max_num_seqs * vocab_size / GIB


def activation_gib(
    architecture: Architecture,
    gpus: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    *,
    method: str = "fp16",
    vllm: tuple[int, ...] = PINNED_VLLM,
) -> float:
    """Peak of activations that vLLM profiles at start, GiB per GPU.

    The largest of the sampler's logits for ``max_num_seqs`` sequences, the forward pass of a step of
    ``max_num_batched_tokens`` (four hidden states, and gate, up and product of the feed-forward, divided over the
    GPUs) and the vision encoder's, 16 bit; beside it what stays: encoder outputs, and the workspace of fp8 experts.
    """
    width = architecture.intermediate_size or _active_intermediate_size(architecture)
    visited = architecture.experts_per_token if architecture.experts > 1 and architecture.intermediate_size else 1
    feed_forward = visited * (3 * width / gpus + (architecture.hidden_size if visited > 1 else 0))
    forward = max_num_batched_tokens * 2 * (_HIDDEN_STATES * architecture.hidden_size + feed_forward) / GIB
    encoder = 2 * _PROFILED_IMAGE_TOKENS * architecture.encoder_values / GIB
    stays = 2 * _PROFILED_IMAGE_TOKENS * architecture.image_token_values / GIB
    if method == "fp8" and architecture.experts > 1 and vllm >= _EXPERT_WORKSPACE_STAYS:
        rows = max_num_batched_tokens * architecture.experts_per_token
        stays += _EXPERT_WORKSPACE_COPIES * 2 * rows * architecture.hidden_size / GIB
    sampled = min(max_num_seqs, max_num_batched_tokens)
    return max(sampler_gib(architecture.vocab_size, gpus, sampled, vllm), forward, encoder) + stays


@cache
def _active_intermediate_size(architecture: Architecture) -> float:
    """Width of the MLP that one token passes, over all experts it visits, from the parameter count."""
    per_layer = (architecture.active_params_billion * 1e9 - embedding_parameters(architecture)) / architecture.layers
    heads = 2 * architecture.attention_heads + 2 * architecture.kv_heads
    attention = architecture.hidden_size * architecture.head_dim * heads
    return max((per_layer - attention) / (3 * architecture.hidden_size), architecture.hidden_size)


def communication_gib(gpus: int, *, nvlink: bool) -> float:
    """GiB of NCCL and all-reduce buffers on one of ``gpus`` GPUs."""
    if gpus == 1:
        return 0.0
    return _NVLINK_GIB_PER_DOUBLING * math.log2(gpus) if nvlink else _NCCL_GIB


def cuda_graphs_gib(gpus: int, vllm: tuple[int, ...] = PINNED_VLLM) -> float:
    """GiB of CUDA graphs that vLLM counts in its share; 0 before the version that does."""
    return 0.0 if vllm < _CUDA_GRAPHS_COUNT else _CUDA_GRAPHS_GIB + _CUDA_GRAPHS_GIB_PER_PEER * (gpus - 1)


def overheads(gpus: int, *, nvlink: bool, vllm: tuple[int, ...] = PINNED_VLLM) -> tuple[MemoryItem, ...]:
    """What vLLM takes of its share on one of ``gpus`` GPUs beside weights and activations."""
    items = (
        MemoryItem("CUDA graphs", cuda_graphs_gib(gpus, vllm), "in vLLM's share since 0.20"),
        MemoryItem("communication", communication_gib(gpus, nvlink=nvlink), f"NCCL over {gpus} GPU"),
        MemoryItem("outside torch", NON_TORCH_GIB, "CUDA context, cuBLAS"),
    )
    return tuple(item for item in items if item.gib_per_gpu)


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
    weights = weight_bytes(architecture, checkpoint)
    visible = visible_gib(gpu)
    items = (
        *_weight_items(architecture, checkpoint, gpus),
        MemoryItem(
            "activations",
            activation_gib(architecture, gpus, max_num_seqs, max_num_batched_tokens, method=checkpoint.method),
            f"peak at {max_num_seqs} sequences and {max_num_batched_tokens} tokens a step",
        ),
        *overheads(gpus, nvlink=gpu.nvlink == "yes"),
    )
    kv_gib = visible * gpu_memory_utilization - sum(item.gib_per_gpu for item in items)
    sequence_gib = _sequence_gib_per_gpu(architecture, kv_cache_dtype, max_model_len, gpus)
    sequences = kv_gib / sequence_gib
    fits = sequences >= 1
    reason = ""
    if kv_gib <= 0:
        reason = f"{-kv_gib:.1f} GiB per GPU too little for weights and overheads"
    elif not fits:
        reason = f"{sequence_gib - kv_gib:.1f} GiB per GPU too little for one sequence of {max_model_len} tokens"
    return MemoryFit(
        items=(
            *items,
            MemoryItem("KV cache", max(kv_gib, 0.0), f"{kv_cache_dtype}, what is left"),
            MemoryItem("left to the driver", visible * (1 - gpu_memory_utilization), f"1 - {gpu_memory_utilization}"),
        ),
        weights_gib=weights.total / GIB,
        kv_gib_per_gpu=kv_gib,
        kv_tokens=max(0, math.floor(sequences * max_model_len)),
        full_length_sequences=max(0.0, sequences),
        fits=fits,
        reason=reason,
    )


@cache
def _weight_items(architecture: Architecture, checkpoint: Checkpoint, gpus: int) -> tuple[MemoryItem, ...]:
    """Weights by class of tensors, on one GPU."""
    weights = weight_bytes(architecture, checkpoint)
    embeddings = min(embedding_parameters(architecture) * 2, weights.dense)
    kept = min(architecture.unquantised_billion * 2e9, weights.dense - embeddings)
    layers = weights.dense - embeddings - kept
    padding = _padding_bytes(architecture, checkpoint, gpus)
    copies = (
        weight_gib_per_gpu(architecture, checkpoint, gpus) * gpus * GIB - weights.total - padding if gpus > 1 else 0.0
    )
    bits = "16 bit" if checkpoint.method in {"fp16", "mxfp4"} else checkpoint.method
    parts = (
        ("weights, experts", weights.experts, f"{checkpoint.method}, {weights.experts / GIB:.1f} GiB over {gpus} GPU"),
        ("weights, padding of experts", padding, f"{checkpoint.method}, widths rounded up to {_MXFP4_MULTIPLE}"),
        ("weights, embeddings and lm_head", embeddings, "16 bit"),
        ("weights, norms, routers, vision", kept, "16 bit"),
        ("weights, held whole by every GPU", copies, "beyond a share: latent projections, routers, norms"),
    )
    sizes = tuple(MemoryItem(name, size / gpus / GIB, note) for name, size, note in parts)
    # What is too small to be seen, the norms of a dense model, counts with the layers that it is part of.
    unseen = sum(item.gib_per_gpu for item in sizes if item.gib_per_gpu < _SMALLEST_ITEM_GIB)
    of_layers = f"{bits}, {layers / GIB:.1f} GiB over {gpus} GPU"
    return (
        MemoryItem("weights, layers", layers / gpus / GIB + unseen, of_layers),
        *(item for item in sizes if item.gib_per_gpu >= _SMALLEST_ITEM_GIB),
    )
