"""What stands around a tier's engine pods whatever the engine is: identity, address, protection, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_kubernetes as k8s

from components import network_rules
from components.names import (
    API_KEY_SECRET,
    API_KEY_SECRET_KEY,
    ENGINE,
    ENGINE_PORT,
    NAME_LABEL,
    PROMETHEUS_RELEASE,
    ROLE_LABEL,
    ROUTER,
    TIER_LABEL,
    engine_deployment,
    engine_service_account,
    tier_labels,
)
from components.serving_pod import METRICS_PORT_NAME

_SCRAPE_INTERVAL: Final = "15s"
"""For dashboards and alerts. The autoscaler does not read these series: they are absent while a tier sleeps."""


@dataclass(frozen=True, kw_only=True)
class EngineSurroundingsArgs:
    """What the surroundings of a tier's engine are built from."""

    tier_name: str
    namespace: pulumi.Input[str]
    roles: tuple[str, ...] = ()
    """Roles whose pods are disrupted independently, the one that takes requests last; empty: all pods are alike."""
    engine_ports: tuple[int, ...] = (ENGINE_PORT,)
    """Ports that the tier's router and Prometheus may reach."""
    pods_talk: bool = False
    """The tier's pods exchange KV blocks with each other."""
    metrics_need_key: bool = False
    """The engine gives its metrics only to holders of the clients' API key."""


class EngineSurroundings(pulumi.ComponentResource):
    """Service account, Service, disruption budgets, network policy and PodMonitor of a tier's engine pods.

    The network policy admits the tier's router and Prometheus, and lets pods out to S3, their credentials and, where
    the tier says so, each other. DNS is allowed for the whole namespace.
    """

    service_name: str
    ready: tuple[pulumi.Resource, ...]
    """What must exist before the first pod: no pod runs without its identity, nor without its walls."""

    def __init__(self, name: str, args: EngineSurroundingsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:serving:EngineSurroundings", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        tier = args.tier_name
        labels = tier_labels(tier, ENGINE)

        service_account = k8s.core.v1.ServiceAccount(
            f"{name}-service-account",
            metadata=_metadata(args, engine_service_account(tier)),
            automount_service_account_token=False,
            opts=child,
        )
        network_policy = k8s.networking.v1.NetworkPolicy(
            f"{name}-network-policy",
            metadata=_metadata(args, engine_deployment(tier)),
            spec=_network_policy_spec(args),
            opts=child,
        )
        # Headless: the router picks pods itself. This is for people, and for DNS of single pods.
        serving = {ROLE_LABEL: args.roles[-1]} if args.roles else {}
        k8s.core.v1.Service(
            f"{name}-service",
            metadata=_metadata(args, engine_deployment(tier)),
            spec=k8s.core.v1.ServiceSpecArgs(
                cluster_ip="None",
                selector={**labels, **serving},
                ports=[k8s.core.v1.ServicePortArgs(name="http", port=ENGINE_PORT, target_port=ENGINE_PORT)],
            ),
            opts=child,
        )
        for suffix, group in _disruption_groups(args).items():
            k8s.policy.v1.PodDisruptionBudget(
                f"{name}-{suffix}-disruption-budget",
                metadata=_metadata(args, f"{tier}-{suffix}"),
                spec=k8s.policy.v1.PodDisruptionBudgetSpecArgs(
                    selector=k8s.meta.v1.LabelSelectorArgs(match_labels={**labels, **group}),
                    # One at a time, whatever the number: a least number would make a drain of a single replica wait
                    # for ever.
                    max_unavailable=1,
                    # A replica that still loads serves nobody and holds up no drain.
                    unhealthy_pod_eviction_policy="AlwaysAllow",
                ),
                opts=child,
            )
        k8s.apiextensions.CustomResource(
            f"{name}-pod-monitor",
            api_version="monitoring.coreos.com/v1",
            kind="PodMonitor",
            metadata=k8s.meta.v1.ObjectMetaArgs(
                name=engine_deployment(tier),
                namespace=args.namespace,
                labels={**labels, "release": PROMETHEUS_RELEASE},
            ),
            spec=_pod_monitor_spec(args),
            opts=child,
        )

        self.service_name = engine_deployment(tier)
        self.ready = (service_account, network_policy)
        self.register_outputs({"service_name": self.service_name})


def _metadata(args: EngineSurroundingsArgs, name: str) -> k8s.meta.v1.ObjectMetaArgs:
    return k8s.meta.v1.ObjectMetaArgs(name=name, namespace=args.namespace, labels=tier_labels(args.tier_name, ENGINE))


def _disruption_groups(args: EngineSurroundingsArgs) -> Mapping[str, Mapping[str, str]]:
    return {role: {ROLE_LABEL: role} for role in args.roles} or {ENGINE: {}}


def _network_policy_spec(args: EngineSurroundingsArgs) -> k8s.networking.v1.NetworkPolicySpecArgs:
    engine = tier_labels(args.tier_name, ENGINE)
    router = {NAME_LABEL: tier_labels(args.tier_name, ROUTER)[NAME_LABEL]}
    callers = k8s.networking.v1.NetworkPolicyIngressRuleArgs(
        from_=[network_rules.pods(router), network_rules.prometheus()],
        ports=[network_rules.tcp(port) for port in args.engine_ports],
    )
    # Without ports: NIXL's handshake has a port of its own, but UCX moves the blocks over ports that it draws.
    from_peers = [k8s.networking.v1.NetworkPolicyIngressRuleArgs(from_=[network_rules.pods(engine)])]
    to_peers = [k8s.networking.v1.NetworkPolicyEgressRuleArgs(to=[network_rules.pods(engine)])]
    return k8s.networking.v1.NetworkPolicySpecArgs(
        pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=engine),
        policy_types=["Ingress", "Egress"],
        ingress=[callers, *(from_peers if args.pods_talk else [])],
        egress=[
            network_rules.to_public_https(),
            network_rules.to_pod_identity(),
            *(to_peers if args.pods_talk else []),
        ],
    )


def _pod_monitor_spec(args: EngineSurroundingsArgs) -> dict[str, Any]:
    key = {"name": API_KEY_SECRET, "key": API_KEY_SECRET_KEY}
    return {
        "selector": {"matchLabels": tier_labels(args.tier_name, ENGINE)},
        "podMetricsEndpoints": [
            {
                "port": METRICS_PORT_NAME,
                "path": "/metrics",
                "interval": _SCRAPE_INTERVAL,
                "relabelings": [_label_from_pod(TIER_LABEL, "tier"), _label_from_pod(ROLE_LABEL, "role")],
                **({"authorization": {"type": "Bearer", "credentials": key}} if args.metrics_need_key else {}),
            }
        ],
    }


def _label_from_pod(pod_label: str, label: str) -> dict[str, Any]:
    """Copy a pod's label to its series under a short name; a pod without it gets none."""
    source = "__meta_kubernetes_pod_label_" + "".join(letter if letter.isalnum() else "_" for letter in pod_label)
    return {"sourceLabels": [source], "targetLabel": label, "action": "replace"}
