"""The planner on the command line: ``python -m planning plan|fit|speed``, with no Pulumi and no account.

Exit code 0: done. 2: the input is wrong, or the plan is over a hard budget; one message lists everything.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from planning.facts.checkpoints import Checkpoint, checkpoints
from planning.facts.gpus import gpu as gpu_named
from planning.facts.gpus import gpus
from planning.facts.models import Architecture, model, models
from planning.memory import BITS_PER_WEIGHT, DEFAULT_GPU_MEMORY_UTILIZATION, MemoryFit, fit
from planning.options import LEAST_LOSS_FIRST, unsupported, vllm_default_limits
from planning.outputs import plan_outputs
from planning.speed import cost_band, gpu_speed
from planning.stack import plan_config
from planning.stackfile import StackFileError, read_stack
from settings import ConfigurationError, did_you_mean

#: Length that ``fit`` checks one sequence of when none is given: long enough for chat, short of what models could do.
_DEFAULT_MAX_MODEL_LEN = 8192


class UsageError(Exception):
    """Arguments that parse but name something that is not there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], str] = parsed.command
    try:
        print(command(parsed), end="")
    except (ConfigurationError, StackFileError, UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m planning", description="Size and price LLM serving on AWS.")
    commands = parser.add_subparsers(required=True, metavar="command")

    plan = commands.add_parser("plan", help="the plan and the cost of a stack file")
    plan.add_argument("stackfile", type=Path, metavar="STACKFILE")
    plan.set_defaults(command=_plan)

    fits = commands.add_parser("fit", help="memory of a model on GPUs, item by item")
    fits.set_defaults(command=_fit)
    speed = commands.add_parser("speed", help="throughput and latency by batch size")
    speed.set_defaults(command=_speed)
    for command in (fits, speed):
        command.add_argument("--model", required=True, help="a model of the catalogue")
        command.add_argument("--gpu", required=True, help="a GPU, for example L4")
        command.add_argument("--gpus", type=_positive, default=1, help="GPUs under tensor parallelism (1)")
        command.add_argument(
            "--max-model-len",
            type=_positive,
            default=_DEFAULT_MAX_MODEL_LEN,
            help=f"longest sequence, tokens ({_DEFAULT_MAX_MODEL_LEN})",
        )
        command.add_argument("--kv-cache-dtype", choices=("auto", "fp8"), default="auto")
    fits.add_argument("--quantization", required=True, choices=(*BITS_PER_WEIGHT, "bf16"))
    speed.add_argument(
        "--quantization",
        choices=("auto", *BITS_PER_WEIGHT, "bf16"),
        default="auto",
        help="auto: the least loss that fits",
    )
    speed.add_argument("--input-tokens", type=_positive, required=True)
    speed.add_argument("--output-tokens", type=_positive, required=True)
    speed.add_argument("--batch", type=_batches, default=(1, 8, 32, 64, 128), help="batch sizes (1,8,32,64,128)")
    for command in (plan, fits, speed):
        command.add_argument("--json", action="store_true", help="data instead of tables")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def _batches(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _plan(arguments: argparse.Namespace) -> str:
    stack = read_stack(arguments.stackfile)
    _, plan = plan_config(stack.region, stack.values, stack.encrypted)
    if arguments.json:
        return _json(plan_outputs(plan))
    from planning.report.terminal import report  # noqa: PLC0415 (rich is slow to import, and data needs none of it)

    return report(plan, stack.stack_name, color=sys.stdout.isatty())


def _subject(arguments: argparse.Namespace) -> Architecture:
    if arguments.model not in models():
        raise UsageError(
            f"--model {arguments.model} is not in the catalogue; {did_you_mean(arguments.model, models())}"
        )
    if arguments.gpu not in gpus():
        raise UsageError(f"--gpu {arguments.gpu}: no such GPU; {did_you_mean(arguments.gpu, gpus())}")
    architecture = model(arguments.model)
    if architecture.max_context and arguments.max_model_len > architecture.max_context:
        raise UsageError(
            f"--max-model-len {arguments.max_model_len}: {arguments.model} was trained for "
            f"{architecture.max_context} tokens"
        )
    return architecture


def _checkpoint(architecture: Architecture, quantization: str) -> Checkpoint:
    """The model's checkpoint of a method; one that nobody published is computed, and said to be missing."""
    method = "fp16" if quantization == "bf16" else quantization
    for checkpoint in checkpoints(architecture.model_id):
        if checkpoint.method == method:
            return checkpoint
    size = architecture.params_billion * BITS_PER_WEIGHT[method] / 8
    return Checkpoint(
        architecture.model_id, method, "(no published checkpoint)", size, verified=False, source="computed"
    )


def _memory(arguments: argparse.Namespace, architecture: Architecture, checkpoint: Checkpoint) -> MemoryFit:
    gpu = gpu_named(arguments.gpu)
    reason = unsupported(architecture, checkpoint, gpu, arguments.gpus, arguments.kv_cache_dtype)
    if reason:
        raise UsageError(reason)
    limits = vllm_default_limits(
        gpu, max_model_len=arguments.max_model_len, gpus=arguments.gpus, kv_cache_dtype=arguments.kv_cache_dtype
    )
    return fit(
        architecture,
        checkpoint,
        gpu,
        arguments.gpus,
        max_model_len=arguments.max_model_len,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        kv_cache_dtype=arguments.kv_cache_dtype,
    )


def _fit(arguments: argparse.Namespace) -> str:
    architecture = _subject(arguments)
    checkpoint = _checkpoint(architecture, arguments.quantization)
    memory = _memory(arguments, architecture, checkpoint)
    if arguments.json:
        return _json(
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
    from planning.report.terminal import plain_table  # noqa: PLC0415 (as above)

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


def _speed(arguments: argparse.Namespace) -> str:
    architecture = _subject(arguments)
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
        return _json(
            {"checkpoint": checkpoint.repository, "quantization": checkpoint.method, "band": note, "rows": rows}
        )
    from planning.report.terminal import plain_table  # noqa: PLC0415 (as above)

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
        checkpoint = _checkpoint(architecture, arguments.quantization)
        memory = _memory(arguments, architecture, checkpoint)
        if not memory.fits:
            raise UsageError(f"{checkpoint.method} does not fit on {arguments.gpus} x {arguments.gpu}: {memory.reason}")
        return checkpoint, memory
    reasons: list[str] = []
    known = [entry for entry in checkpoints(architecture.model_id) if entry.method in BITS_PER_WEIGHT]
    for checkpoint in sorted(known, key=lambda entry: LEAST_LOSS_FIRST.index(entry.method)):
        try:
            memory = _memory(arguments, architecture, checkpoint)
        except UsageError as error:
            reasons.append(str(error))
            continue
        if memory.fits:
            return checkpoint, memory
        reasons.append(f"{checkpoint.method}: {memory.reason}")
    raise UsageError(
        f"{architecture.model_id} does not fit on {arguments.gpus} x {arguments.gpu}: {'; '.join(reasons)}"
    )


if __name__ == "__main__":
    sys.exit(main())
