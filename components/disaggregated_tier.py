"""A tier whose prompts are prefilled in one set of vLLM pods and decoded in another, with a KV store behind both."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pulumi
import pulumi_kubernetes as k8s

from components import versions
from components.engine_surroundings import EngineSurroundings, EngineSurroundingsArgs
from components.names import ENGINE, ENGINE_PORT, ROLE_LABEL, kv_cache_prefix, role_deployment, tier_labels
from components.serving_pod import (
    ENGINE_TOKEN,
    VLLM_USER,
    EngineArgs,
    container_security,
    cores,
    engine_deployment_spec,
    engine_pod,
    gib,
    rollout_timeouts,
    variable,
)
from components.vllm_arguments import SHARED_DIRECTORY, SharedStore, serve_arguments, transfer_argument
from components.vllm_container import model_address, vllm_container, vllm_volumes
from planning.plan import DisaggregationPlan, PodResources, RolePlan, TierPlan

NIXL_PORT: Final = 5600
"""vLLM's default for the NIXL handshake."""
DECODE_PORT: Final = 8200
"""Where the routing sidecar looks for vLLM by default; the sidecar itself has the port that the router calls."""

_SHARED_FILES: Final = "shared-kv-cache"
_SIDECAR_CPU_CORES: Final = 0.1
_SIDECAR_MEMORY_GIB: Final = 0.125
"""What a reverse proxy that streams bodies asks for; not measured. It comes out of the decode pod's share, which fills
its node, and has no memory limit: a killed proxy would cut every stream."""


class DisaggregatedTier(pulumi.ComponentResource):
    """Prefill and decode Deployments, each without ``replicas``: the autoscaler owns both numbers.

    The router sends every request to a decode pod. Its sidecar has a prefill pod compute the prompt when the router
    named one, and vLLM in the decode pod pulls the KV blocks from there over NIXL. Pass ``opts`` as for ``VllmTier``.
    """

    prefill_deployment_name: pulumi.Output[str]
    decode_deployment_name: pulumi.Output[str]
    service_name: str

    def __init__(self, name: str, args: EngineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(ENGINE_TOKEN, name, {}, opts)
        tier = args.tier
        plan = tier.disaggregation
        if plan is None:
            raise ValueError(f"tier {tier.name} is not planned as disaggregated")
        surroundings = EngineSurroundings(
            f"{name}-surroundings",
            EngineSurroundingsArgs(
                tier_name=tier.name,
                namespace=args.namespace,
                roles=("prefill", "decode"),
                engine_ports=(ENGINE_PORT, DECODE_PORT),
                pods_talk=True,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        child = pulumi.ResourceOptions(
            parent=self, depends_on=list(surroundings.ready), custom_timeouts=rollout_timeouts(tier.timeouts)
        )
        prefill, decode = (
            k8s.apps.v1.Deployment(
                f"{name}-{role.role}",
                metadata=k8s.meta.v1.ObjectMetaArgs(
                    name=role_deployment(tier.name, role.role),
                    namespace=args.namespace,
                    labels=_labels(tier, role),
                ),
                spec=_spec(args, plan, role),
                opts=child,
            )
            for role in (plan.prefill, plan.decode)
        )

        self.prefill_deployment_name = prefill.metadata.name
        self.decode_deployment_name = decode.metadata.name
        self.service_name = surroundings.service_name
        self.register_outputs(
            {
                "prefill_deployment_name": self.prefill_deployment_name,
                "decode_deployment_name": self.decode_deployment_name,
                "service_name": self.service_name,
            }
        )


def _labels(tier: TierPlan, role: RolePlan) -> dict[str, str]:
    return {**tier_labels(tier.name, ENGINE), ROLE_LABEL: role.role}


def _resources(tier: TierPlan, plan: DisaggregationPlan, role: RolePlan) -> PodResources:
    """Give what a role's engine requests: the tier's pod, the role's GPUs, and the KV store (in /dev/shm)."""
    planned = tier.resources
    sidecars = 1 if role.role == "decode" else 0
    return replace(
        planned,
        cpu_cores=planned.cpu_cores - sidecars * _SIDECAR_CPU_CORES,
        memory_gib=planned.memory_gib + plan.kv_store_gib - sidecars * _SIDECAR_MEMORY_GIB,
        gpus=role.limits.tensor_parallel_size,
        shm_gib=planned.shm_gib + plan.kv_store_gib,
    )


def _spec(args: EngineArgs, plan: DisaggregationPlan, role: RolePlan) -> k8s.apps.v1.DeploymentSpecArgs:
    tier = args.tier
    labels = _labels(tier, role)
    resources = _resources(tier, plan, role)
    decodes = role.role == "decode"
    port = DECODE_PORT if decodes else ENGINE_PORT
    container = vllm_container(
        arguments=[
            model_address(args.bucket, tier),
            *serve_arguments(role.limits, tier.served_model_names, tier.timeouts, port=port),
            _transfer_argument(args, plan, role),
        ],
        resources=resources,
        timeouts=tier.timeouts,
        region=args.region,
        api_key=args.api_key,
        port=port,
        extra_environment=[
            # The address that a decode pod is told to fetch from; the default, localhost, would be itself.
            k8s.core.v1.EnvVarArgs(
                name="VLLM_NIXL_SIDE_CHANNEL_HOST",
                value_from=k8s.core.v1.EnvVarSourceArgs(
                    field_ref=k8s.core.v1.ObjectFieldSelectorArgs(field_path="status.podIP")
                ),
            ),
            variable("VLLM_NIXL_SIDE_CHANNEL_PORT", str(NIXL_PORT)),
            # Blocks are known by hashes of their tokens, which all pods of the tier must compute alike.
            variable("PYTHONHASHSEED", "0"),
        ],
        extra_ports=[k8s.core.v1.ContainerPortArgs(name="nixl", container_port=NIXL_PORT)],
        extra_mounts=[k8s.core.v1.VolumeMountArgs(name=_SHARED_FILES, mount_path=SHARED_DIRECTORY)]
        if plan.shared_claim
        else [],
        # UCX, NIXL's transport here, takes EFA where its driver loads and TCP where it does not.
        efa_interfaces=plan.efa_interfaces,
    )
    pod = engine_pod(
        tier,
        pool=role.node_pool,
        image_label=args.node_image_label,
        user=VLLM_USER,
        spread_over=labels,
        container=container,
        init_containers=[_routing_sidecar()] if decodes else [],
        in_the_zone_of=tier_labels(tier.name, ENGINE) if plan.efa_interfaces else None,
        volumes=[*vllm_volumes(resources), *([_claimed(plan.shared_claim)] if plan.shared_claim else [])],
    )
    return engine_deployment_spec(labels, pod, tier.timeouts)


def _transfer_argument(args: EngineArgs, plan: DisaggregationPlan, role: RolePlan) -> pulumi.Input[str]:
    if plan.shared_store != "s3":
        return transfer_argument(
            role.role, plan.kv_store_gib, plan.shared_store if plan.shared_store == "file" else None
        )
    prefix = kv_cache_prefix(args.tier.name)
    return pulumi.Output.from_input(args.bucket).apply(
        lambda bucket: transfer_argument(
            role.role, plan.kv_store_gib, SharedStore(bucket=bucket, prefix=prefix, region=args.region)
        )
    )


def _claimed(claim: str) -> k8s.core.v1.VolumeArgs:
    source = k8s.core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name=claim)
    return k8s.core.v1.VolumeArgs(name=_SHARED_FILES, persistent_volume_claim=source)


def _routing_sidecar() -> k8s.core.v1.ContainerArgs:
    """Give the proxy in front of a decode engine, as a native sidecar.

    It starts before vLLM and stops after it, so draining requests keep their way out. Its peers are the tier's own
    pods inside the namespace, over plain HTTP like the router's hop. The network policy confines it: a prefill host
    that a client named would otherwise be called.
    """
    return k8s.core.v1.ContainerArgs(
        name="routing-sidecar",
        image=versions.DISAGGREGATION_SIDECAR.reference,
        restart_policy="Always",
        args=[f"--port={ENGINE_PORT}", "--kv-connector=nixlv2", "--secure-proxy=false"],
        ports=[k8s.core.v1.ContainerPortArgs(name="http", container_port=ENGINE_PORT)],
        resources=k8s.core.v1.ResourceRequirementsArgs(
            requests={"cpu": cores(_SIDECAR_CPU_CORES), "memory": gib(_SIDECAR_MEMORY_GIB)}
        ),
        security_context=container_security(),
        # Its own, not vLLM's: it answers as soon as it listens.
        readiness_probe=k8s.core.v1.ProbeArgs(
            http_get=k8s.core.v1.HTTPGetActionArgs(path="/health", port="http"), period_seconds=5
        ),
    )
