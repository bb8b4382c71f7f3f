"""A tier served by vLLM on GPUs."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as k8s

from components.engine_tier import EngineTier
from components.names import ENGINE, tier_labels
from components.serving_pod import VLLM_USER, EngineArgs, engine_pod
from components.vllm_arguments import serve_arguments
from components.vllm_container import model_address, vllm_container, vllm_volumes


class VllmTier(EngineTier):
    """vLLM with the weights streamed from the bucket; ``opts`` as for ``EngineTier``."""

    def __init__(self, name: str, args: EngineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, args, opts, pod=lambda on_demand_only: _pod(args, on_demand_only))


def _pod(args: EngineArgs, on_demand_only: bool) -> k8s.core.v1.PodSpecArgs:
    tier = args.tier
    if tier.vllm is None:
        raise ValueError(f"tier {tier.name} is planned for {tier.engine}, not for vLLM")
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
    return engine_pod(
        tier,
        pool=tier.node_pool,
        image_label=args.node_image_label,
        user=VLLM_USER,
        # Floor and elastic replicas are spread as one: two zones between them is what a minimum of two is for.
        spread_over=tier_labels(tier.name, ENGINE),
        container=container,
        volumes=vllm_volumes(tier.resources),
        on_demand_only=on_demand_only,
    )
