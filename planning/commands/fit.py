"""``fit``: memory of a model on GPUs, item by item."""

from __future__ import annotations

import argparse
import sys

from planning.commands.common import add_replica, as_json, checkpoint_of, memory_of, subject
from planning.memory import BITS_PER_WEIGHT, DEFAULT_GPU_MEMORY_UTILIZATION


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_replica(command)
    command.add_argument("--quantization", required=True, choices=(*BITS_PER_WEIGHT, "bf16"))


def run(arguments: argparse.Namespace) -> str:
    """Return what the command prints."""
    architecture = subject(arguments)
    checkpoint = checkpoint_of(architecture, arguments.quantization)
    memory = memory_of(arguments, architecture, checkpoint)
    if arguments.json:
        return as_json(
            {
                "fits": memory.fits,
                "reason": memory.reason,
                "checkpoint": checkpoint.repository,
                "weights_gib": round(memory.weights_gib, 3),
                "kv_gib_per_gpu": round(memory.kv_gib_per_gpu, 3),
                "kv_tokens": memory.kv_tokens,
                "full_length_sequences": round(memory.full_length_sequences, 2),
                "gpu_memory_utilization": DEFAULT_GPU_MEMORY_UTILIZATION,
                "items": [
                    {"name": item.name, "gib_per_gpu": round(item.gib_per_gpu, 3), "note": item.note}
                    for item in memory.items
                ],
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
    return plain_table(headline, columns, rows, color=sys.stdout.isatty())
