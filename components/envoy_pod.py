"""What pods with an Envoy have in common, as typed arguments. It creates no resource but their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pulumi
import pulumi_kubernetes as k8s

from components import versions
from components.envoy_config import ENVOY_CONFIG_KEY
from components.names import ROUTER_PORT, ROUTER_READY_PORT
from components.serving_pod import container_security

_CONFIG_DIRECTORY: Final = "/etc/envoy"
CONFIG_VOLUME: Final = "envoy"


def envoy_container(
    resources: k8s.core.v1.ResourceRequirementsArgs,
    *,
    restart_policy: str | None = None,
    lifecycle: k8s.core.v1.LifecycleArgs | None = None,
    arguments: tuple[str, ...] = (),
) -> k8s.core.v1.ContainerArgs:
    """Give the container of Envoy with the configuration of the volume ``CONFIG_VOLUME``."""
    return k8s.core.v1.ContainerArgs(
        name="envoy",
        image=versions.ENVOY.reference,
        restart_policy=restart_policy,
        command=["envoy"],
        args=[
            "--config-path",
            f"{_CONFIG_DIRECTORY}/{ENVOY_CONFIG_KEY}",
            "--log-level",
            "warn",
            # Shared memory for a hot restart would need a writable file system, and nothing restarts it hot.
            "--disable-hot-restart",
            *arguments,
        ],
        ports=[
            k8s.core.v1.ContainerPortArgs(name="http", container_port=ROUTER_PORT),
            k8s.core.v1.ContainerPortArgs(name="ready", container_port=ROUTER_READY_PORT),
        ],
        readiness_probe=k8s.core.v1.ProbeArgs(
            http_get=k8s.core.v1.HTTPGetActionArgs(path="/ready", port="ready"), period_seconds=5
        ),
        lifecycle=lifecycle,
        resources=resources,
        security_context=container_security(),
        volume_mounts=[config_mount(CONFIG_VOLUME, _CONFIG_DIRECTORY)],
    )


def router_requirements(cpu_millicores: int, memory_mib: int) -> k8s.core.v1.ResourceRequirementsArgs:
    """Limit memory to what is requested, and CPU not at all: throttling would show up in every first token."""
    memory = f"{memory_mib}Mi"
    return k8s.core.v1.ResourceRequirementsArgs(
        requests={"cpu": f"{cpu_millicores}m", "memory": memory}, limits={"memory": memory}
    )


def config_map(
    name: str,
    namespace: pulumi.Input[str],
    labels: Mapping[str, str],
    data: Mapping[str, str],
    opts: pulumi.ResourceOptions,
) -> k8s.core.v1.ConfigMap:
    """Create a ConfigMap under a name of Pulumi's choice, new with every change, so that a change rolls the pod."""
    return k8s.core.v1.ConfigMap(
        name,
        metadata=k8s.meta.v1.ObjectMetaArgs(namespace=namespace, labels=labels),
        immutable=True,
        data=data,
        opts=opts,
    )


def config_volume(name: str, config: k8s.core.v1.ConfigMap) -> k8s.core.v1.VolumeArgs:
    """Give the volume with a ConfigMap's files."""
    source = k8s.core.v1.ConfigMapVolumeSourceArgs(name=config.metadata.name)
    return k8s.core.v1.VolumeArgs(name=name, config_map=source)


def config_mount(name: str, directory: str) -> k8s.core.v1.VolumeMountArgs:
    """Mount a volume of configuration."""
    return k8s.core.v1.VolumeMountArgs(name=name, mount_path=directory, read_only=True)
