"""One tier as clients see it: the engine that the plan chose, the router in front of it, and what scales it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.autoscaler import TierAutoscaler, TierAutoscalerArgs
from components.disaggregated_tier import DisaggregatedTier
from components.gguf_tier import GgufTier
from components.serving_pod import EngineArgs
from components.tier_router import TierRouter, TierRouterArgs
from components.vllm_tier import VllmTier
from planning.plan import SchedulePlan, TierPlan


@dataclass(frozen=True, kw_only=True)
class ServedTierArgs:
    """What a tier is built from."""

    tier: TierPlan
    schedule: SchedulePlan | None
    region: str
    node_image_label: str
    vpc_cidr: str
    namespace: pulumi.Input[str]
    bucket: pulumi.Input[str]
    """Holds the tier's checkpoint."""
    api_key: bool
    """The namespace holds an API key that clients must send."""
    prometheus: pulumi.Resource
    prometheus_url: str
    keda: pulumi.Resource


class ServedTier(pulumi.ComponentResource):
    """Engine, router and autoscaler of one tier.

    Pass ``opts`` with ``depends_on`` the tier's node pool, the weights and the namespace's guards.
    """

    router: TierRouter

    def __init__(self, name: str, args: ServedTierArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:serving:ServedTier", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        engine = _engine(f"{name}-engine", args, child)
        self.router = TierRouter(
            f"{name}-router",
            TierRouterArgs(
                tier=args.tier, namespace=args.namespace, vpc_cidr=args.vpc_cidr, prometheus=args.prometheus
            ),
            opts=child,
        )
        TierAutoscaler(
            f"{name}-autoscaler",
            TierAutoscalerArgs(
                tier=args.tier,
                schedule=args.schedule,
                prometheus_url=args.prometheus_url,
                namespace=args.namespace,
                workloads=[engine],
                keda=args.keda,
            ),
            opts=child,
        )
        self.register_outputs({})


def _engine(name: str, args: ServedTierArgs, opts: pulumi.ResourceOptions) -> pulumi.ComponentResource:
    """Create the engine that the plan chose."""
    tier = args.tier
    engine = DisaggregatedTier if tier.disaggregation else VllmTier if tier.engine == "vllm" else GgufTier
    return engine(
        name,
        EngineArgs(
            tier=tier,
            namespace=args.namespace,
            node_image_label=args.node_image_label,
            bucket=args.bucket,
            region=args.region,
            api_key=args.api_key,
        ),
        opts,
    )
