"""A tier served by vLLM: its replicas, and those of them that spot interruptions never reach."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as k8s

from components.engine_surroundings import EngineSurroundings, EngineSurroundingsArgs
from components.names import CAPACITY_LABEL, ENGINE, engine_deployment, tier_labels
from components.serving_pod import (
    ENGINE_TOKEN,
    VLLM_USER,
    EngineArgs,
    engine_deployment_spec,
    engine_pod,
    rollout_timeouts,
)
from components.vllm_arguments import serve_arguments
from components.vllm_container import model_address, vllm_container, vllm_volumes


class VllmTier(pulumi.ComponentResource):
    """A Deployment without ``replicas``, which the autoscaler sets, and a fixed one on on-demand nodes for the floor.

    Pass ``opts`` with ``depends_on`` the weights (the bucket must be filled, and Pod Identity knows a pod only when
    its association is older than the pod) and the tier's node pool (on destroy the pods go first).
    """

    deployment_name: pulumi.Output[str]
    """What the autoscaler scales; the floor's replicas come on top of it."""
    service_name: str

    def __init__(self, name: str, args: EngineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(ENGINE_TOKEN, name, {}, opts)
        tier = args.tier
        surroundings = EngineSurroundings(
            f"{name}-surroundings",
            EngineSurroundingsArgs(tier_name=tier.name, namespace=args.namespace),
            opts=pulumi.ResourceOptions(parent=self),
        )
        child = pulumi.ResourceOptions(
            parent=self, depends_on=list(surroundings.ready), custom_timeouts=rollout_timeouts(tier.timeouts)
        )
        deployment = k8s.apps.v1.Deployment(
            f"{name}-deployment",
            metadata=_metadata(args, engine_deployment(tier.name)),
            spec=_spec(args, "elastic"),
            opts=child,
        )
        if tier.replicas.on_demand_floor > 0:
            k8s.apps.v1.Deployment(
                f"{name}-floor",
                metadata=_metadata(args, f"{tier.name}-floor"),
                spec=_spec(args, "floor", replicas=tier.replicas.on_demand_floor),
                opts=child,
            )

        self.deployment_name = deployment.metadata.name
        self.service_name = surroundings.service_name
        self.register_outputs({"deployment_name": self.deployment_name, "service_name": self.service_name})


def _metadata(args: EngineArgs, name: str) -> k8s.meta.v1.ObjectMetaArgs:
    return k8s.meta.v1.ObjectMetaArgs(name=name, namespace=args.namespace, labels=tier_labels(args.tier.name, ENGINE))


def _spec(args: EngineArgs, capacity: str, replicas: int | None = None) -> k8s.apps.v1.DeploymentSpecArgs:
    tier = args.tier
    if tier.vllm is None:
        raise ValueError(f"tier {tier.name} is planned for {tier.engine}, not for vLLM")
    labels = tier_labels(tier.name, ENGINE)
    container = vllm_container(
        arguments=[
            model_address(args.bucket, tier),
            *serve_arguments(tier.vllm, tier.served_model_names, tier.timeouts),
        ],
        resources=tier.resources,
        timeouts=tier.timeouts,
        region=args.region,
        api_key=args.api_key,
    )
    pod = engine_pod(
        tier,
        pool=tier.node_pool,
        image_label=args.node_image_label,
        user=VLLM_USER,
        # Floor and elastic replicas are spread as one: two zones between them is what a minimum of two is for.
        spread_over=labels,
        container=container,
        volumes=vllm_volumes(tier.resources),
        on_demand_only=capacity == "floor",
    )
    return engine_deployment_spec({**labels, CAPACITY_LABEL: capacity}, pod, tier.timeouts, replicas)
