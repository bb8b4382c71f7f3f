"""What the commands share: their errors, number arguments, JSON, and the model, GPU and checkpoint that they name."""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path

from planning.facts.checkpoints import BITS_PER_WEIGHT, Checkpoint, checkpoints
from planning.facts.gpus import gpu as gpu_named
from planning.facts.gpus import gpus
from planning.facts.hugging_face import ConfigError, PublishedModel, divisors, is_config_path, read_config
from planning.facts.models import Architecture, model, models
from planning.memory import KV_CACHE_DTYPES, MemoryFit, fit
from planning.options import unsupported, vllm_default_limits
from planning.plan import VllmLimits
from problems import did_you_mean

#: Length that one sequence is checked of when none is given: long enough for chat, short of what models could do.
_DEFAULT_MAX_MODEL_LEN = 8192


#: KV cache dtypes that store a vector value by value, so MLA's latent as well as heads.
_ANY_ATTENTION = ("auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2")


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
    command.add_argument("--model", required=True, help="a model of the catalogue, or the path of a config.json")
    command.add_argument("--gpu", required=True, help="a GPU, for example L4")
    command.add_argument("--gpus", type=positive, default=1, help="GPUs under tensor parallelism (1)")
    command.add_argument(
        "--max-model-len",
        type=positive,
        default=_DEFAULT_MAX_MODEL_LEN,
        help=f"longest sequence, tokens ({_DEFAULT_MAX_MODEL_LEN})",
    )
    command.add_argument("--kv-cache-dtype", choices=tuple(KV_CACHE_DTYPES), default="auto", help="as vLLM's (auto)")


def subject(arguments: argparse.Namespace) -> Architecture:
    """Return the model that the arguments name. Raises ``UsageError`` for what is not there."""
    architecture = _architecture(arguments.model)
    if arguments.gpu not in gpus():
        raise UsageError(f"--gpu {arguments.gpu}: no such GPU; {did_you_mean(arguments.gpu, gpus())}")
    dtype, latent = arguments.kv_cache_dtype, architecture.uses_latent_attention
    if dtype.endswith("_ds_mla") != latent and dtype not in _ANY_ATTENTION:
        kind = "latent attention (MLA)" if latent else "attention without a latent"
        raise UsageError(
            f"--kv-cache-dtype {dtype} does not store {kind}, which {arguments.model} has; use auto or fp8"
        )
    most = architecture.max_context
    if most and arguments.max_model_len > most:
        raise UsageError(
            f"--max-model-len {arguments.max_model_len}: {arguments.model} was trained for {most} tokens, "
            f"{arguments.max_model_len - most} fewer; use at most {most}"
        )
    heads, kv_heads = architecture.attention_heads, architecture.kv_heads
    sizes = divisors(heads, kv_heads)
    if arguments.gpus > max(sizes) or arguments.gpus not in divisors(heads, kv_heads, arguments.gpus):
        nearest = min(sizes, key=lambda size: (abs(size - arguments.gpus), -size))
        raise UsageError(
            f"--gpus {arguments.gpus}: {heads} attention heads and {kv_heads} KV heads of {arguments.model} do not "
            f"divide over {arguments.gpus} GPUs; sizes that do: {', '.join(map(str, sizes))}, the nearest is {nearest}"
        )
    return architecture


def _architecture(name: str) -> Architecture:
    if is_config_path(name):
        return _published(name).architecture
    if name not in models():
        raise UsageError(
            f"--model {name} is not in the catalogue; {did_you_mean(name, models())}; or give its config.json's path"
        )
    return model(name)


@cache
def _published(path: str) -> PublishedModel:
    try:
        return read_config(Path(path), path)
    except ConfigError as error:
        raise UsageError(f"--model {error}") from None


def known_checkpoints(architecture: Architecture) -> tuple[Checkpoint, ...]:
    """Every checkpoint of a model: the catalogue's, or the one release that a ``config.json`` describes."""
    if is_config_path(architecture.model_id):
        return (_published(architecture.model_id).checkpoint,)
    return checkpoints(architecture.model_id)


def checkpoint_of(architecture: Architecture, quantization: str) -> Checkpoint:
    """The model's checkpoint of a method; one that nobody published is computed, and said to be missing.

    ``own`` is the model's own release.
    """
    method = "fp16" if quantization == "bf16" else quantization
    for checkpoint in known_checkpoints(architecture):
        if method in {checkpoint.method, "own"}:
            return checkpoint
    size = architecture.params_billion * BITS_PER_WEIGHT[method] / 8
    return Checkpoint(
        architecture.model_id, method, "(no published checkpoint)", size, verified=False, source="computed"
    )


def memory_of(
    arguments: argparse.Namespace, architecture: Architecture, checkpoint: Checkpoint, limits: VllmLimits | None = None
) -> MemoryFit:
    """Return the memory of the replica, at vLLM's own limits unless some are given.

    Raises ``UsageError`` when the GPU cannot run it.
    """
    gpu = gpu_named(arguments.gpu)
    reason = unsupported(architecture, checkpoint, gpu, arguments.gpus, arguments.kv_cache_dtype)
    if reason:
        raise UsageError(reason)
    limits = limits or default_limits(arguments)
    return fit(
        architecture,
        checkpoint,
        gpu,
        arguments.gpus,
        max_model_len=arguments.max_model_len,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        kv_cache_dtype=arguments.kv_cache_dtype,
        gpu_memory_utilization=limits.gpu_memory_utilization,
    )


def default_limits(arguments: argparse.Namespace) -> VllmLimits:
    """Return vLLM's own limits on the GPU that the arguments name."""
    return vllm_default_limits(
        gpu_named(arguments.gpu),
        max_model_len=arguments.max_model_len,
        gpus=arguments.gpus,
        kv_cache_dtype=arguments.kv_cache_dtype,
    )
