"""``speed``: throughput and latency of a replica by batch size."""

from __future__ import annotations

import argparse
import sys

from planning.commands.common import (
    UsageError,
    add_replica,
    as_json,
    checkpoint_of,
    known_checkpoints,
    memory_of,
    positive,
    subject,
)
from planning.facts.checkpoints import Checkpoint
from planning.facts.gpus import gpu as gpu_named
from planning.facts.models import Architecture
from planning.facts.quality import checkpoint_loss
from planning.memory import BITS_PER_WEIGHT, MemoryFit
from planning.speed import cost_band, gpu_speed


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_replica(command)
    command.add_argument(
        "--quantization",
        choices=("auto", *BITS_PER_WEIGHT, "bf16"),
        default="auto",
        help="auto: the least loss that fits",
    )
    command.add_argument("--input-tokens", type=positive, required=True)
    command.add_argument("--output-tokens", type=positive, required=True)
    command.add_argument("--batch", type=_batches, default=(1, 8, 32, 64, 128), help="batch sizes (1,8,32,64,128)")


def _batches(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


def run(arguments: argparse.Namespace) -> str:
    """Return what the command prints."""
    architecture = subject(arguments)
    gpu = gpu_named(arguments.gpu)
    checkpoint, memory = _fitting(arguments, architecture)
    speed = gpu_speed(architecture, checkpoint, gpu, arguments.gpus, arguments.kv_cache_dtype)
    given, made = arguments.input_tokens, arguments.output_tokens
    prefill = speed.prefill_s(given)
    rows = [
        {
            "batch": batch,
            "output_tokens_per_second": round(speed.output_tokens_per_second(batch, given, made), 1),
            "ttft_ms": round(1000 * (prefill + speed.step_s(batch, given)), 1),
            "tpot_ms": round(1000 * (speed.step_s(batch, given + made / 2) + (batch - 1) * prefill / made), 1),
            "fits_kv_cache": batch * (given + made) <= memory.kv_tokens,
        }
        for batch in arguments.batch
    ]
    low, high = cost_band(gpu, arguments.gpus)
    note = f"projected; cost {100 * (low - 1):+.0f} % to {100 * (high - 1):+.0f} %"
    if arguments.json:
        return as_json(
            {"checkpoint": checkpoint.repository, "quantization": checkpoint.method, "band": note, "rows": rows}
        )
    from planning.report.terminal import plain_table  # noqa: PLC0415 (rich is slow to import, and data needs none of it)

    headline = (
        f"{checkpoint.repository} ({checkpoint.method}) on {arguments.gpus} x {gpu.name}, {given:,} tokens in, "
        f"{made:,} out; {note}"
    )
    columns = [(name, "right") for name in ("batch", "output tokens/s", "TTFT ms", "TPOT ms", "fits KV cache")]
    cells = [
        (
            str(row["batch"]),
            f"{row['output_tokens_per_second']:,.0f}",
            f"{row['ttft_ms']:,.0f}",
            f"{row['tpot_ms']:,.1f}",
            "yes" if row["fits_kv_cache"] else "no",
        )
        for row in rows
    ]
    return plain_table(headline, columns, cells, color=sys.stdout.isatty())


def _fitting(arguments: argparse.Namespace, architecture: Architecture) -> tuple[Checkpoint, MemoryFit]:
    """The checkpoint asked for, or for ``auto`` the one with the least loss that exists, runs and fits."""
    if arguments.quantization != "auto":
        checkpoint = checkpoint_of(architecture, arguments.quantization)
        memory = memory_of(arguments, architecture, checkpoint)
        if not memory.fits:
            raise UsageError(f"{checkpoint.method} does not fit on {arguments.gpus} x {arguments.gpu}: {memory.reason}")
        return checkpoint, memory
    reasons: list[str] = []
    known = [entry for entry in known_checkpoints(architecture) if entry.method in BITS_PER_WEIGHT]
    size = architecture.params_billion
    for checkpoint in sorted(known, key=lambda entry: checkpoint_loss(size, entry).percent):
        try:
            memory = memory_of(arguments, architecture, checkpoint)
        except UsageError as error:
            reasons.append(str(error))
            continue
        if memory.fits:
            return checkpoint, memory
        reasons.append(f"{checkpoint.method}: {memory.reason}")
    raise UsageError(
        f"{architecture.model_id} does not fit on {arguments.gpus} x {arguments.gpu}: {'; '.join(reasons)}"
    )
