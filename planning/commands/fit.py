"""``fit``: memory of a model on GPUs, item by item."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from planning.commands.common import (
    UsageError,
    add_replica,
    as_json,
    checkpoint_of,
    default_limits,
    memory_of,
    positive,
    subject,
)
from planning.facts.checkpoints import BITS_PER_WEIGHT, Checkpoint
from planning.memory import GIB, KV_CACHE_DTYPES, MemoryFit
from planning.options import vllm_pod
from planning.plan import VllmLimits

#: Published and computed sizes that differ by less than this share are the same figure, rounded.
_SAME_SIZE = 0.02


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_replica(command)
    command.add_argument(
        "--quantization", default="own", choices=("own", *BITS_PER_WEIGHT, "bf16"), help="own: the model's own release"
    )
    command.add_argument("--max-num-seqs", type=positive, help="sequences at once (vLLM's default)")
    command.add_argument("--max-num-batched-tokens", type=positive, help="tokens of a step (vLLM's default)")
    command.add_argument("--gpu-memory-utilization", type=_share, help="vLLM's share of the GPU's memory (0.92)")


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return share


def run(arguments: argparse.Namespace) -> str:
    """Return what the command prints."""
    architecture = subject(arguments)
    checkpoint = checkpoint_of(architecture, arguments.quantization)
    if arguments.quantization == "own" and checkpoint.method not in BITS_PER_WEIGHT:
        raise UsageError(f"--quantization own: {arguments.model} is released as {checkpoint.method}; name a method")
    limits = _limits(arguments)
    memory = memory_of(arguments, architecture, checkpoint, limits)
    pod = vllm_pod(arguments.gpus)
    host = (
        ("host memory", pod.memory_gib, "of the pod, /dev/shm in it"),
        ("/dev/shm", pod.shm_gib, "between the workers" if arguments.gpus > 1 else "one worker needs none"),
        ("disk for weights", memory.weights_gib, "where they are not streamed"),
    )
    differs = _difference(checkpoint, memory)
    quality = KV_CACHE_DTYPES[arguments.kv_cache_dtype].quality
    if arguments.json:
        return as_json(
            {
                "fits": memory.fits,
                "reason": memory.reason,
                "checkpoint": checkpoint.repository,
                "quantization": checkpoint.method,
                "params_billion": round(architecture.params_billion, 3),
                "weights_gib": round(memory.weights_gib, 3),
                "published_weights_gib": round(checkpoint.weights_gb * 1e9 / GIB, 3),
                "kv_gib_per_gpu": round(memory.kv_gib_per_gpu, 3),
                "kv_tokens": memory.kv_tokens,
                "kv_cache_quality": quality,
                "full_length_sequences": round(memory.full_length_sequences, 2),
                "gpu_memory_utilization": limits.gpu_memory_utilization,
                "items": [
                    {"name": item.name, "gib_per_gpu": round(item.gib_per_gpu, 3), "note": item.note}
                    for item in memory.items
                ],
                "pod": [{"name": name, "gib": round(gib, 3), "note": note} for name, gib, note in host],
            }
        )
    from planning.report.terminal import plain_table  # noqa: PLC0415 (rich is slow to import, and data needs none of it)

    verdict = (
        f"fits: {memory.kv_tokens:,} tokens of KV cache, {memory.full_length_sequences:.1f} sequences of "
        f"{arguments.max_model_len:,}"
        if memory.fits
        else f"does not fit: {memory.reason}"
    )
    headline = f"{checkpoint.repository} ({checkpoint.method}) on {arguments.gpus} x {arguments.gpu} {verdict}"
    columns = (("item", "left"), ("GiB per GPU", "right"), ("", "left"))
    rows = [(item.name, f"{item.gib_per_gpu:.2f}", item.note) for item in memory.items]
    printed = plain_table(headline, columns, rows, color=sys.stdout.isatty())
    columns = (("of the pod", "left"), ("GiB", "right"), ("", "left"))
    told = f"KV cache in {arguments.kv_cache_dtype}: {quality}.{differs}"
    rows = [(name, f"{gib:.1f}", note) for name, gib, note in host]
    return printed + plain_table(told, columns, rows, color=sys.stdout.isatty())


def _limits(arguments: argparse.Namespace) -> VllmLimits:
    """Take vLLM's defaults, with what the arguments say instead."""
    limits = default_limits(arguments)
    return replace(
        limits,
        max_num_seqs=arguments.max_num_seqs or limits.max_num_seqs,
        max_num_batched_tokens=arguments.max_num_batched_tokens or limits.max_num_batched_tokens,
        gpu_memory_utilization=arguments.gpu_memory_utilization or limits.gpu_memory_utilization,
    )


def _difference(checkpoint: Checkpoint, memory: MemoryFit) -> str:
    """A sentence where the checkpoint's listed size is not the computed one."""
    if checkpoint.repository.startswith("(") or not checkpoint.weights_gb:
        return ""
    listed = checkpoint.weights_gb * 1e9 / GIB
    if abs(listed / memory.weights_gib - 1) <= _SAME_SIZE:
        return ""
    return f" The repository is listed with {listed:.1f} GiB of weights, computed are {memory.weights_gib:.1f}."
