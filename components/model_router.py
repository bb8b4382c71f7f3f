"""The way of requests without the routing header: Envoys that find the tier by the ``model`` field of the body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_kubernetes as k8s

from components import envoy_pod, network_rules
from components.envoy_config import ENVOY_CONFIG_KEY, METRICS_PATH
from components.model_router_config import ARGUMENTS, envoy_bootstrap
from components.names import (
    COMPONENT_LABEL,
    ENVOY_METRICS_PORT,
    MODEL_ROUTER,
    NAME_LABEL,
    PART_OF_LABEL,
    POOL_LABEL,
    PROJECT,
    ROUTER,
    ROUTER_PORT,
    SERVING_PRIORITY_CLASS,
    SYSTEM_POOL,
)
from components.serving_pod import NOBODY, pod_security, sleep_before_stop, spread
from planning.plan import ModelRouterPlan, TierPlan

_LABELS: Final = {NAME_LABEL: MODEL_ROUTER, COMPONENT_LABEL: MODEL_ROUTER, PART_OF_LABEL: PROJECT}


@dataclass(frozen=True, kw_only=True)
class ModelRouterArgs:
    """What the Envoys that route by model are built from."""

    plan: ModelRouterPlan
    tiers: tuple[TierPlan, ...]
    namespace: pulumi.Input[str]
    vpc_cidr: str
    """Where the load balancer's addresses are."""
    served: Sequence[pulumi.Resource]
    """The tiers, whose routers are looked up by name."""
    prometheus: pulumi.Resource
    """The release that brings the ServiceMonitor's definition."""


class ModelRouter(pulumi.ComponentResource):
    """Two Envoys on the system nodes, each enough for all requests, and a Service in front of them.

    They hold nothing but the bodies that are on their way in: a request that waits for a replica waits in its tier's
    router, and here only its connection is open. One that goes waits for what an engine may still finish, and not for
    what is held for longer: that is cut, and its client's retry is held anew. To wait for a hold too, each roll would
    take two of them with one Envoy left, since a preStop sleeps its whole time whether or not a request is there; and
    a tier's router that rolls with it lets go of what it holds after 15 s anyway.
    """

    service: k8s.core.v1.Service

    def __init__(self, name: str, args: ModelRouterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:routing:ModelRouter", name, {}, opts)
        self._args = args
        child = pulumi.ResourceOptions(parent=self)
        text = envoy_bootstrap(args.plan, args.tiers)
        config = envoy_pod.config_map(f"{name}-envoy", args.namespace, _LABELS, {ENVOY_CONFIG_KEY: text}, child)
        before = [*self._network_policies(name, child), *args.served]
        deployment = k8s.apps.v1.Deployment(
            f"{name}-deployment",
            metadata=self._metadata(MODEL_ROUTER),
            spec=self._deployment_spec(config),
            opts=pulumi.ResourceOptions(parent=self, depends_on=before),
        )
        self.service = k8s.core.v1.Service(
            f"{name}-service",
            metadata=self._metadata(MODEL_ROUTER),
            spec=k8s.core.v1.ServiceSpecArgs(selector=_LABELS, ports=envoy_pod.service_ports(ENVOY_METRICS_PORT)),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[deployment]),
        )
        k8s.policy.v1.PodDisruptionBudget(
            f"{name}-disruption-budget",
            metadata=self._metadata(MODEL_ROUTER),
            spec=k8s.policy.v1.PodDisruptionBudgetSpecArgs(
                selector=k8s.meta.v1.LabelSelectorArgs(match_labels=_LABELS),
                max_unavailable=1,
                unhealthy_pod_eviction_policy="AlwaysAllow",
            ),
            opts=child,
        )
        # As often as everything that wakes nobody.
        envoy_pod.service_monitor(
            f"{name}-service-monitor",
            MODEL_ROUTER,
            args.namespace,
            _LABELS,
            pulumi.ResourceOptions(parent=self, depends_on=[args.prometheus]),
            path=METRICS_PATH,
            # Else each pod shows some 170 series for each tier, most of them of what has never happened.
            params={"usedonly": [""]},
        )
        self.register_outputs({})

    def _metadata(self, name: str) -> k8s.meta.v1.ObjectMetaArgs:
        return k8s.meta.v1.ObjectMetaArgs(name=name, namespace=self._args.namespace, labels=_LABELS)

    def _network_policies(
        self, name: str, child: pulumi.ResourceOptions
    ) -> tuple[k8s.networking.v1.NetworkPolicy, k8s.networking.v1.NetworkPolicy]:
        """Admit the load balancer and Prometheus; let out to the routers, and let these admit what comes."""
        routers = {COMPONENT_LABEL: ROUTER, PART_OF_LABEL: PROJECT}
        own = k8s.networking.v1.NetworkPolicy(
            f"{name}-network-policy",
            metadata=self._metadata(MODEL_ROUTER),
            spec=k8s.networking.v1.NetworkPolicySpecArgs(
                pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=_LABELS),
                policy_types=["Ingress", "Egress"],
                ingress=envoy_pod.admitted(self._args.vpc_cidr, ENVOY_METRICS_PORT),
                # Looking up their names is everybody's in the namespace.
                egress=[
                    k8s.networking.v1.NetworkPolicyEgressRuleArgs(
                        to=[network_rules.pods(routers)], ports=[network_rules.tcp(ROUTER_PORT)]
                    )
                ],
            ),
            opts=child,
        )
        # A policy of the routers admits what has an address of the VPC: said of pods, it holds for any CNI.
        into_routers = k8s.networking.v1.NetworkPolicy(
            f"{name}-router-network-policy",
            metadata=self._metadata(f"{MODEL_ROUTER}-to-routers"),
            spec=k8s.networking.v1.NetworkPolicySpecArgs(
                pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=routers),
                policy_types=["Ingress"],
                ingress=[
                    k8s.networking.v1.NetworkPolicyIngressRuleArgs(
                        from_=[network_rules.pods(_LABELS)], ports=[network_rules.tcp(ROUTER_PORT)]
                    )
                ],
            ),
            opts=child,
        )
        return own, into_routers

    def _deployment_spec(self, config: k8s.core.v1.ConfigMap) -> k8s.apps.v1.DeploymentSpecArgs:
        plan = self._args.plan
        container = envoy_pod.envoy_container(
            envoy_pod.router_requirements(plan.cpu_millicores, plan.memory_mib),
            # Envoy ends at once when told to. So it is told only when whatever an engine may still finish has ended;
            # new requests go to the other pod meanwhile.
            lifecycle=sleep_before_stop(plan.timeouts.drain_s),
            arguments=ARGUMENTS,
        )
        pod = k8s.core.v1.PodSpecArgs(
            automount_service_account_token=False,
            enable_service_links=False,
            priority_class_name=SERVING_PRIORITY_CLASS,
            node_selector={POOL_LABEL: SYSTEM_POOL},
            topology_spread_constraints=spread(_LABELS),
            termination_grace_period_seconds=plan.timeouts.grace_s,
            security_context=pod_security(NOBODY),
            containers=[container],
            volumes=[envoy_pod.config_volume(envoy_pod.CONFIG_VOLUME, config)],
        )
        return k8s.apps.v1.DeploymentSpecArgs(
            replicas=plan.replicas,
            selector=k8s.meta.v1.LabelSelectorArgs(match_labels=_LABELS),
            # The system nodes have room for the replicas and none more. The second goes when the load balancer sends to
            # the first one's successor (`ServingNamespace` asks for that gate).
            strategy=k8s.apps.v1.DeploymentStrategyArgs(
                type="RollingUpdate",
                rolling_update=k8s.apps.v1.RollingUpdateDeploymentArgs(max_surge=0, max_unavailable=1),
            ),
            template=k8s.core.v1.PodTemplateSpecArgs(
                metadata=k8s.meta.v1.ObjectMetaArgs(labels=_LABELS),
                spec=pod,
            ),
        )
