"""A tier whose pods are all alike, whichever engine runs in them: its replicas, and those that spot never reaches."""

from __future__ import annotations

from collections.abc import Callable

import pulumi
import pulumi_kubernetes as k8s

from components.engine_surroundings import EngineSurroundings, EngineSurroundingsArgs
from components.names import CAPACITY_LABEL, ENGINE, engine_deployment, tier_labels
from components.serving_pod import ENGINE_TOKEN, EngineArgs, engine_deployment_spec, rollout_timeouts


class EngineTier(pulumi.ComponentResource):
    """A Deployment without ``replicas``, which the autoscaler sets, and a fixed one on on-demand nodes for the floor.

    Pass ``opts`` with ``depends_on`` the weights (the bucket must be filled, and Pod Identity knows a pod only when
    its association is older than the pod) and the tier's node pool (on destroy the pods go first).
    """

    deployment_name: pulumi.Output[str]
    """What the autoscaler scales; the floor's replicas come on top of it."""
    service_name: str

    def __init__(
        self,
        name: str,
        args: EngineArgs,
        opts: pulumi.ResourceOptions | None = None,
        *,
        pod: Callable[[bool], k8s.core.v1.PodSpecArgs],
        metrics_need_key: bool = False,
    ) -> None:
        """Create the tier with what ``pod`` gives: pods that run on on-demand nodes only, or on any."""
        super().__init__(ENGINE_TOKEN, name, {}, opts)
        tier = args.tier
        surroundings = EngineSurroundings(
            f"{name}-surroundings",
            EngineSurroundingsArgs(tier_name=tier.name, namespace=args.namespace, metrics_need_key=metrics_need_key),
            opts=pulumi.ResourceOptions(parent=self),
        )
        child = pulumi.ResourceOptions(
            parent=self, depends_on=list(surroundings.ready), custom_timeouts=rollout_timeouts(tier.timeouts)
        )
        labels = tier_labels(tier.name, ENGINE)

        def deployment(role: str, object_name: str, capacity: str, replicas: int | None) -> k8s.apps.v1.Deployment:
            return k8s.apps.v1.Deployment(
                f"{name}-{role}",
                metadata=k8s.meta.v1.ObjectMetaArgs(name=object_name, namespace=args.namespace, labels=labels),
                spec=engine_deployment_spec(
                    {**labels, CAPACITY_LABEL: capacity}, pod(capacity == "floor"), tier.timeouts, replicas
                ),
                opts=child,
            )

        elastic = deployment("deployment", engine_deployment(tier.name), "elastic", None)
        if tier.replicas.on_demand_floor > 0:
            deployment("floor", f"{tier.name}-floor", "floor", tier.replicas.on_demand_floor)

        self.deployment_name = elastic.metadata.name
        self.service_name = surroundings.service_name
        self.register_outputs({"deployment_name": self.deployment_name, "service_name": self.service_name})
