"""A tier served by llama.cpp on CPUs: quantised GGUF weights on Graviton or x86, for little load at little cost."""

from __future__ import annotations

from typing import Final

import pulumi
import pulumi_kubernetes as k8s

from components import versions
from components.engine_tier import EngineTier
from components.names import (
    ENGINE,
    ENGINE_PORT,
    tier_labels,
    weights_prefix,
)
from components.serving_pod import (
    NOBODY,
    SCRATCH_DIRECTORY,
    EngineArgs,
    api_key_environment,
    aws_environment,
    container_security,
    engine_pod,
    engine_port,
    probes,
    requirements,
    scratch_mount,
    scratch_volume,
    sleep_before_stop,
    variable,
    writable_volume,
)
from planning.plan import LlamaCppLimits, TierPlan

_WEIGHTS: Final = "weights"
_MODELS_DIRECTORY: Final = "/models"

_START: Final = f'exec /app/llama-server --model "$(ls {_MODELS_DIRECTORY}/*.gguf | head -n 1)" "$@"'
"""The file's name is the repository's, and large models come in parts, of which llama.cpp wants the first."""


class GgufTier(EngineTier):
    """The same contract as a vLLM tier: labels, Service, budgets, probes, drain, and no ``replicas`` of its own."""

    def __init__(self, name: str, args: EngineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(
            name,
            args,
            opts,
            pod=lambda on_demand_only: _pod(args, on_demand_only),
            # Unlike vLLM, llama.cpp keeps /metrics behind the key; only /health and /v1/models are open.
            metrics_need_key=args.api_key,
        )


def llama_server_arguments(limits: LlamaCppLimits, served_model_names: tuple[str, ...]) -> list[str]:
    """Give the flags of ``llama-server`` beside the model's path; names as in its README of October 2026."""
    return [
        f"--alias={','.join(served_model_names)}",
        "--host=0.0.0.0",
        f"--port={ENGINE_PORT}",
        f"--threads={limits.threads}",
        f"--parallel={limits.parallel_slots}",
        f"--ctx-size={limits.context_tokens}",
        "--metrics",
        # Its prompt cache takes up to 8 GiB beside weights and context by default, which no plan counts and the
        # memory limit would punish. Each slot still keeps its last prompt.
        "--cache-ram=0",
        # A chat page and everybody's prompts (/slots) are not part of the API.
        "--no-webui",
        "--no-slots",
        "--offline",
    ]


def _pod(args: EngineArgs, on_demand_only: bool) -> k8s.core.v1.PodSpecArgs:
    tier = args.tier
    if tier.llama_cpp is None:
        raise ValueError(f"tier {tier.name} is planned for {tier.engine}, not for llama.cpp")
    return engine_pod(
        tier,
        pool=tier.node_pool,
        image_label=args.node_image_label,
        user=NOBODY,
        spread_over=tier_labels(tier.name, ENGINE),
        container=_server(tier, tier.llama_cpp, args.api_key),
        init_containers=[_download(args)],
        volumes=[writable_volume(_WEIGHTS, tier.resources.cache_gib), scratch_volume()],
        on_demand_only=on_demand_only,
    )


def _server(tier: TierPlan, limits: LlamaCppLimits, api_key: bool) -> k8s.core.v1.ContainerArgs:
    probe = probes(tier.timeouts)
    return k8s.core.v1.ContainerArgs(
        name="llama-cpp",
        image=versions.LLAMA_CPP.reference,
        # exec makes the server the process that is told to stop; what follows the script's name is its "$@".
        command=["/bin/sh", "-c", _START, "llama-server"],
        args=list(llama_server_arguments(limits, tier.served_model_names)),
        env=[variable("HOME", SCRATCH_DIRECTORY), *api_key_environment("LLAMA_API_KEY", api_key)],
        ports=[engine_port()],
        resources=requirements(tier.resources),
        security_context=container_security(),
        startup_probe=probe.startup,
        readiness_probe=probe.readiness,
        liveness_probe=probe.liveness,
        # llama.cpp cuts its streams on SIGTERM and has no shutdown time-out, so all of the drain comes before it.
        lifecycle=sleep_before_stop(tier.timeouts.pre_stop_s + tier.timeouts.shutdown_s),
        volume_mounts=[
            k8s.core.v1.VolumeMountArgs(name=_WEIGHTS, mount_path=_MODELS_DIRECTORY, read_only=True),
            scratch_mount(),
        ],
    )


def _download(args: EngineArgs) -> k8s.core.v1.ContainerArgs:
    """Fetch the weights before the server starts: llama.cpp reads files only, and its image has no S3 client."""
    address = pulumi.Output.concat("s3://", args.bucket, "/", weights_prefix(args.tier.checkpoint), "/")
    return k8s.core.v1.ContainerArgs(
        name="download-weights",
        image=versions.AWS_CLI.reference,
        args=["s3", "cp", "--recursive", "--no-progress", address, f"{_MODELS_DIRECTORY}/"],
        env=[variable("HOME", SCRATCH_DIRECTORY), *aws_environment(args.region)],
        # A pod needs the larger of both, so the download may use what the server gets.
        resources=requirements(args.tier.resources),
        security_context=container_security(),
        volume_mounts=[
            k8s.core.v1.VolumeMountArgs(name=_WEIGHTS, mount_path=_MODELS_DIRECTORY),
            scratch_mount(),
        ],
    )
