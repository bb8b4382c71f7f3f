"""The container that runs ``vllm serve``, and its volumes, as typed arguments. It creates no resource."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pulumi
import pulumi_kubernetes as k8s

from components import versions
from components.names import ENGINE_PORT, weights_prefix
from components.serving_pod import (
    CACHE_DIRECTORY,
    SCRATCH,
    api_key_environment,
    aws_environment,
    container_security,
    engine_port,
    memory_volume,
    probes,
    requirements,
    scratch_mount,
    sleep_before_stop,
    variable,
    writable_volume,
)
from planning.plan import PodResources, TierPlan, Timeouts

KEEP_ALIVE_MARGIN_S: Final = 60
"""How much longer than the load balancer vLLM keeps an idle connection. Whoever sends requests must be the one to close
first, or a request meets a closing connection (502); with vLLM's own 5 s it does, for all that pool connections."""

_CACHE: Final = "cache"
_SHARED_MEMORY: Final = "shared-memory"


def model_address(bucket: pulumi.Input[str], tier: TierPlan) -> pulumi.Output[str]:
    """Give the address of a tier's weights, vLLM's positional argument."""
    return pulumi.Output.concat("s3://", bucket, "/", weights_prefix(tier.checkpoint))


def vllm_container(
    *,
    arguments: Sequence[pulumi.Input[str]],
    resources: PodResources,
    timeouts: Timeouts,
    region: str,
    api_key: bool,
    port: int = ENGINE_PORT,
    extra_environment: Sequence[k8s.core.v1.EnvVarArgs] = (),
    extra_ports: Sequence[k8s.core.v1.ContainerPortArgs] = (),
    extra_mounts: Sequence[k8s.core.v1.VolumeMountArgs] = (),
    efa_interfaces: int = 0,
) -> k8s.core.v1.ContainerArgs:
    """Give the engine container; ``arguments`` start with the model's address.

    It holds no Hugging Face token: weights, tokenizer and chat template come from the bucket, and a pod that reads
    strangers' prompts needs no key to anybody's account.
    """
    probe = probes(timeouts)
    return k8s.core.v1.ContainerArgs(
        name="vllm",
        image=versions.VLLM.reference,
        args=list(arguments),
        env=[*environment(timeouts, region, api_key), *extra_environment],
        ports=[engine_port(port), *extra_ports],
        resources=requirements(resources, efa_interfaces),
        security_context=container_security(),
        startup_probe=probe.startup,
        readiness_probe=probe.readiness,
        liveness_probe=probe.liveness,
        # Then SIGTERM, and vLLM finishes what runs within --shutdown-timeout.
        lifecycle=sleep_before_stop(timeouts.pre_stop_s),
        volume_mounts=[
            k8s.core.v1.VolumeMountArgs(name=_CACHE, mount_path=CACHE_DIRECTORY),
            scratch_mount(),
            *([k8s.core.v1.VolumeMountArgs(name=_SHARED_MEMORY, mount_path="/dev/shm")] if resources.shm_gib else []),
            *extra_mounts,
        ],
    )


def vllm_volumes(resources: PodResources) -> list[k8s.core.v1.VolumeArgs]:
    """Give the volumes that :func:`vllm_container` mounts."""
    # Ranks of one replica, and KV blocks kept in host memory, meet in /dev/shm; a container's own has 64 MiB.
    shared = [memory_volume(_SHARED_MEMORY, resources.shm_gib)] if resources.shm_gib else []
    return [writable_volume(_CACHE, resources.cache_gib), writable_volume(SCRATCH, resources.cache_gib), *shared]


def environment(timeouts: Timeouts, region: str, api_key: bool) -> list[k8s.core.v1.EnvVarArgs]:
    """Give vLLM's environment: where it may write, how long it waits, and where it must not call."""
    return [
        # The root file system is read-only, and libraries keep caches under the home directory unasked.
        variable("HOME", CACHE_DIRECTORY),
        variable("HF_HOME", f"{CACHE_DIRECTORY}/huggingface"),
        variable("VLLM_CACHE_ROOT", f"{CACHE_DIRECTORY}/vllm"),
        variable("TRITON_CACHE_DIR", f"{CACHE_DIRECTORY}/triton"),
        # Nothing is looked up at Hugging Face: a start must not depend on it, and nobody there counts ours.
        variable("HF_HUB_OFFLINE", "1"),
        variable("VLLM_NO_USAGE_STATS", "1"),
        variable("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", str(timeouts.alb_idle_s + KEEP_ALIVE_MARGIN_S)),
        # vLLM gives its engine process 600 s by default, less than a 70B model may take to load and compile.
        variable("VLLM_ENGINE_READY_TIMEOUT_S", str(timeouts.startup_probe_s)),
        *aws_environment(region),
        *api_key_environment("VLLM_API_KEY", api_key),
    ]
