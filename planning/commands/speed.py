"""``speed``: throughput and latency of a replica by batch size, and the batch that serves best."""

from __future__ import annotations

import argparse
import math
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
from planning.facts.article import ARTICLE_TOKENS_PER_SECOND
from planning.facts.checkpoints import Checkpoint
from planning.facts.gpus import gpu as gpu_named
from planning.facts.models import Architecture
from planning.facts.quality import checkpoint_loss
from planning.measured import measured_replica
from planning.memory import BITS_PER_WEIGHT, MemoryFit
from planning.options import vllm_default_limits
from planning.serving import Workload
from planning.simulation import ClosedLoop, Limits, Outcome, Traffic, gamma, simulate
from planning.speed import COST_BAND, ReplicaSpeed, cost_band, gpu_speed
from planning.tiers import speed_source

#: Requests simulated of each batch: a 99th percentile needs some tens above it.
_REQUESTS = 4000


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_replica(command)
    command.add_argument(
        "--quantization",
        choices=("auto", *BITS_PER_WEIGHT, "bf16"),
        default="auto",
        help="auto: the least loss that fits",
    )
    defaults = Workload(1, 1)
    command.add_argument("--input-tokens", type=positive, required=True, help="mean prompt length")
    command.add_argument("--output-tokens", type=positive, required=True, help="mean answer length")
    for name, default in (("input", defaults.input_cv), ("output", defaults.output_cv)):
        command.add_argument(
            f"--{name}-tokens-cv",
            type=_variation,
            default=default,
            help=f"standard deviation of it over the mean; 0: all alike ({default})",
        )
    command.add_argument("--batch", type=_batches, default=(1, 8, 32, 64, 128), help="batch sizes (1,8,32,64,128)")
    for name in ("ttft", "tpot"):
        command.add_argument(
            f"--{name}-ms", type=positive, help=f"target of the 95th percentile of {name.upper()}; marks the best batch"
        )


def _batches(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


def _variation(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 10:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 10")
    return number


def run(arguments: argparse.Namespace) -> str:
    """Return what the command prints."""
    architecture = subject(arguments)
    _check_lengths(arguments, architecture)
    gpu = gpu_named(arguments.gpu)
    checkpoint, memory = _fitting(arguments, architecture)
    speed = gpu_speed(architecture, checkpoint, gpu, arguments.gpus, arguments.kv_cache_dtype)
    replica = (architecture.model_id, checkpoint.method, gpu.name, arguments.gpus)
    measured = measured_replica(replica, arguments.input_tokens, arguments.output_tokens, arguments.kv_cache_dtype)
    if measured:
        speed = speed.slower(measured.time_factor)
    rows = [_row(arguments, speed, memory, batch) for batch in arguments.batch]
    best = _sweet_spot(arguments, rows)
    for row in rows:
        row["sweet_spot"] = row is best
    low, high = COST_BAND if measured else cost_band(architecture, gpu, arguments.gpus)
    note = f"{speed_source(measured)}; cost {100 * (low - 1):+.0f} % to {100 * (high - 1):+.0f} %"
    if arguments.json:
        return as_json(
            {
                "checkpoint": checkpoint.repository,
                "quantization": checkpoint.method,
                "band": note,
                "sweet_spot": best["batch"] if best else None,
                "sweet_spot_rule": _rule(arguments),
                "rows": rows,
            }
        )
    headline = (
        f"{checkpoint.repository} ({checkpoint.method}) on {arguments.gpus} x {gpu.name}, "
        f"{arguments.input_tokens:,} tokens in, {arguments.output_tokens:,} out; {note}"
    )
    return _table(headline, arguments, rows, best)


def _check_lengths(arguments: argparse.Namespace, architecture: Architecture) -> None:
    """Refuse requests that do not fit the longest sequence."""
    whole, longest = arguments.input_tokens + arguments.output_tokens, arguments.max_model_len
    if whole > longest:
        way_out = f"give --max-model-len {whole} or more"
        if architecture.max_context and whole > architecture.max_context:
            way_out = f"{architecture.model_id} was trained for {architecture.max_context:,}: ask for shorter requests"
        raise UsageError(
            f"--input-tokens {arguments.input_tokens:,} and --output-tokens {arguments.output_tokens:,} are {whole:,} "
            f"tokens, {whole - longest:,} more than --max-model-len {longest:,}; {way_out}"
        )


def _row(arguments: argparse.Namespace, speed: ReplicaSpeed, memory: MemoryFit, batch: int) -> dict[str, object]:
    given, made = arguments.input_tokens, arguments.output_tokens
    prefill = speed.prefill_s(given)
    outcome = _held(arguments, speed, memory, batch)
    return {
        "batch": batch,
        "output_tokens_per_second": round(speed.output_tokens_per_second(batch, given, made), 1),
        "ttft_ms": round(1000 * (prefill + speed.step_s(batch, given)), 1),
        "tpot_ms": round(1000 * (speed.step_s(batch, given + made / 2) + (batch - 1) * prefill / made), 1),
        "fits_kv_cache": batch * (given + made) <= memory.kv_tokens,
        "simulated_output_tokens_per_second": round(outcome.output_tokens_per_second, 1),
        "simulated_running": round(outcome.mean_running, 1),
        "preemptions_per_request": round(outcome.preemptions / _REQUESTS, 3),
        **{
            f"{figure}_{name}_ms": round(getattr(getattr(outcome, f"{figure}_ms"), name), 1)
            for figure in ("ttft", "tpot")
            for name in ("p50", "p95", "p99")
        },
        "latency_p50_ms": round(outcome.latency_ms.p50, 1),
        "article_output_tokens_per_second": ARTICLE_TOKENS_PER_SECOND.get(batch),
    }


def _held(arguments: argparse.Namespace, speed: ReplicaSpeed, memory: MemoryFit, batch: int) -> Outcome:
    """So many clients at all times, with the KV cache that the GPU really has and vLLM's default token budget."""
    defaults = vllm_default_limits(
        gpu_named(arguments.gpu),
        max_model_len=arguments.max_model_len,
        gpus=arguments.gpus,
        kv_cache_dtype=arguments.kv_cache_dtype,
    )
    return simulate(
        speed,
        Limits(batch, max(batch, defaults.max_num_batched_tokens), memory.kv_tokens, arguments.max_model_len),
        Traffic(
            ClosedLoop(batch),
            gamma(arguments.input_tokens, arguments.input_tokens_cv),
            gamma(arguments.output_tokens, arguments.output_tokens_cv),
        ),
        requests=_REQUESTS,
        warm_up=2 * batch,
    )


def _rule(arguments: argparse.Namespace) -> str:
    limits = [
        f"{name} {limit:,} ms"
        for name, limit in (("TTFT", arguments.ttft_ms), ("TPOT", arguments.tpot_ms))
        if limit is not None
    ]
    if limits:
        return f"the most tokens/s whose 95th percentiles meet {' and '.join(limits)}"
    return "the most tokens/s per second of latency (Kleinrock's power)"


def _sweet_spot(arguments: argparse.Namespace, rows: list[dict[str, object]]) -> dict[str, object] | None:
    """Of the batches that fit the cache: within the targets the fastest, without targets the most powerful.

    Power is throughput over response time (Kleinrock 1979): beyond its peak more load buys more waiting than tokens.
    """

    def figure(row: dict[str, object], name: str) -> float:
        value = row[name]
        assert isinstance(value, float)
        return value

    limits = [(f"{name}_p95_ms", getattr(arguments, f"{name}_ms") or math.inf) for name in ("ttft", "tpot")]
    usable = [row for row in rows if row["fits_kv_cache"] and all(figure(row, name) <= limit for name, limit in limits)]
    targets = arguments.ttft_ms is not None or arguments.tpot_ms is not None

    def worth(row: dict[str, object]) -> float:
        return figure(row, "simulated_output_tokens_per_second") / (1 if targets else figure(row, "latency_p50_ms"))

    return max(usable, key=worth, default=None)


def _table(
    headline: str, arguments: argparse.Namespace, rows: list[dict[str, object]], best: dict[str, object] | None
) -> str:
    from planning.report.terminal import plain_table  # noqa: PLC0415 (rich is slow to import, and data needs none of it)

    names = ("batch", "tokens/s", "TTFT p50", "p99 ms", "TPOT p50", "p99 ms", "fits KV", "article", "")
    columns = [(name, "right") for name in names]
    cells = [
        (
            str(row["batch"]),
            f"{row['simulated_output_tokens_per_second']:,.0f}",
            f"{row['ttft_p50_ms']:,.0f}",
            f"{row['ttft_p99_ms']:,.0f}",
            f"{row['tpot_p50_ms']:,.1f}",
            f"{row['tpot_p99_ms']:,.1f}",
            "yes" if row["fits_kv_cache"] else f"runs {row['simulated_running']:,.0f}",
            f"{article:,}" if (article := row["article_output_tokens_per_second"]) else "",
            "sweet spot" if row is best else "",
        )
        for row in rows
    ]
    notes = [f"Sweet spot: {_rule(arguments)}."]
    if best is None:
        notes.append("None of these batches does and fits the KV cache.")
    if not all(row["fits_kv_cache"] for row in rows):
        notes.append("Where the KV cache is too small, only so many of the batch run at once and the others wait.")
    if any(row["article_output_tokens_per_second"] for row in rows):
        notes.append("Article: its tokens/s come without model, GPU and lengths; here each answer pays for its prompt.")
    return plain_table(headline, columns, cells, color=sys.stdout.isatty()) + "\n".join(("", *notes, ""))


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
