"""What the commands share: their errors, number arguments, JSON, and the model, GPU and checkpoint that they name."""

from __future__ import annotations

import argparse
import json

from planning.facts.checkpoints import Checkpoint, checkpoints
from planning.facts.gpus import gpu as gpu_named
from planning.facts.gpus import gpus
from planning.facts.models import Architecture, model, models
from planning.memory import BITS_PER_WEIGHT, MemoryFit, fit
from planning.options import unsupported, vllm_default_limits
from settings import did_you_mean

#: Length that one sequence is checked of when none is given: long enough for chat, short of what models could do.
_DEFAULT_MAX_MODEL_LEN = 8192


class UsageError(Exception):
    """Arguments that parse but name something that is not there."""


def positive(text: str) -> int:
    """Read a whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def as_json(value: object) -> str:
    """Data as indented JSON with a line's end."""
    return json.dumps(value, indent=2) + "\n"


def add_replica(command: argparse.ArgumentParser) -> None:
    """Add the arguments that describe a replica without its quantisation."""
    command.add_argument("--model", required=True, help="a model of the catalogue")
    command.add_argument("--gpu", required=True, help="a GPU, for example L4")
    command.add_argument("--gpus", type=positive, default=1, help="GPUs under tensor parallelism (1)")
    command.add_argument(
        "--max-model-len",
        type=positive,
        default=_DEFAULT_MAX_MODEL_LEN,
        help=f"longest sequence, tokens ({_DEFAULT_MAX_MODEL_LEN})",
    )
    command.add_argument("--kv-cache-dtype", choices=("auto", "fp8"), default="auto")


def subject(arguments: argparse.Namespace) -> Architecture:
    """Return the model that the arguments name. Raises ``UsageError`` for what is not there."""
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


def checkpoint_of(architecture: Architecture, quantization: str) -> Checkpoint:
    """The model's checkpoint of a method; one that nobody published is computed, and said to be missing."""
    method = "fp16" if quantization == "bf16" else quantization
    for checkpoint in checkpoints(architecture.model_id):
        if checkpoint.method == method:
            return checkpoint
    size = architecture.params_billion * BITS_PER_WEIGHT[method] / 8
    return Checkpoint(
        architecture.model_id, method, "(no published checkpoint)", size, verified=False, source="computed"
    )


def memory_of(arguments: argparse.Namespace, architecture: Architecture, checkpoint: Checkpoint) -> MemoryFit:
    """Return the memory of the replica. Raises ``UsageError`` when the GPU cannot run it."""
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
