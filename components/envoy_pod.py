"""What pods with an Envoy have in common, as typed arguments. It creates no resource but their configuration and the
monitor of their metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pulumi
import pulumi_kubernetes as k8s

from components import network_rules, versions
from components.envoy_config import ENVOY_CONFIG_KEY
from components.names import HTTP_PORT, PROMETHEUS_RELEASE, ROUTER_PORT, ROUTER_READY_PORT
from components.serving_pod import container_security

_CONFIG_DIRECTORY: Final = "/etc/envoy"
CONFIG_VOLUME: Final = "envoy"
METRICS_PORT_NAME: Final = "metrics"


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


def admitted(vpc_cidr: str, metrics_port: int) -> list[k8s.networking.v1.NetworkPolicyIngressRuleArgs]:
    """Admit the load balancer, whose addresses are in the VPC, and Prometheus."""
    load_balancer = k8s.networking.v1.NetworkPolicyPeerArgs(ip_block=k8s.networking.v1.IPBlockArgs(cidr=vpc_cidr))
    return [
        k8s.networking.v1.NetworkPolicyIngressRuleArgs(
            from_=[load_balancer], ports=[network_rules.tcp(ROUTER_PORT), network_rules.tcp(ROUTER_READY_PORT)]
        ),
        k8s.networking.v1.NetworkPolicyIngressRuleArgs(
            from_=[network_rules.prometheus()], ports=[network_rules.tcp(metrics_port)]
        ),
    ]


def service_ports(metrics_port: int) -> list[k8s.core.v1.ServicePortArgs]:
    """Give the ports of the Service in front: for requests, and for Prometheus to find the pods by."""
    return [
        k8s.core.v1.ServicePortArgs(name="http", port=HTTP_PORT, target_port=ROUTER_PORT),
        k8s.core.v1.ServicePortArgs(name=METRICS_PORT_NAME, port=metrics_port, target_port=metrics_port),
    ]


def service_monitor(
    name: str,
    service: str,
    namespace: pulumi.Input[str],
    labels: Mapping[str, str],
    opts: pulumi.ResourceOptions,
    **endpoint: object,
) -> k8s.apiextensions.CustomResource:
    """Scrape the pods behind ``service``, which carries ``labels``; ``endpoint`` says where and how often.

    The series get the labels ``namespace`` and ``service`` from the Service.
    """
    return k8s.apiextensions.CustomResource(
        name,
        api_version="monitoring.coreos.com/v1",
        kind="ServiceMonitor",
        metadata=k8s.meta.v1.ObjectMetaArgs(
            name=service, namespace=namespace, labels={**labels, "release": PROMETHEUS_RELEASE}
        ),
        spec={"selector": {"matchLabels": labels}, "endpoints": [{"port": METRICS_PORT_NAME, **endpoint}]},
        opts=opts,
    )
