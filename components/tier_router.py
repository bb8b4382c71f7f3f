"""The router of a tier: a pod of Envoy and endpoint picker that is up while the tier sleeps, and holds requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_kubernetes as k8s

from components import envoy_pod, network_rules, versions
from components.envoy_config import ENVOY_CONFIG_KEY
from components.names import (
    ENGINE_PORT,
    PICKER_METRICS_PORT,
    POOL_LABEL,
    ROUTER,
    SERVING_PRIORITY_CLASS,
    SYSTEM_POOL,
    TIER_LABEL,
    router_service,
    tier_labels,
)
from components.router_config import (
    PICKER_CONFIG_DIRECTORY,
    PICKER_CONFIG_KEY,
    PICKER_HEALTH_PORT,
    envoy_bootstrap,
    picker_arguments,
    picker_config,
)
from components.serving_pod import NOBODY, container_security, pod_security, sleep_before_stop
from planning.plan import TierPlan

_PRIVATE_NETWORKS: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
"""Where the Service range lies. The Kubernetes API answers there, and on its interfaces in the VPC."""


@dataclass(frozen=True, kw_only=True)
class TierRouterArgs:
    """What the router of a tier is built from."""

    tier: TierPlan
    namespace: pulumi.Input[str]
    """``ServingNamespace.namespace``, which waits for the namespace."""
    vpc_cidr: str
    """Where the load balancer's addresses are."""
    prometheus: pulumi.Resource
    """The release that brings the ServiceMonitor's definition."""


class TierRouter(pulumi.ComponentResource):
    """Envoy and the llm-d endpoint picker in one pod on the system nodes, with everything around it.

    One replica, because the queue and the prefix index are the picker's memory: a second would be a second queue with
    half of the knowledge. When its configuration changes, the next pod takes over before the last one goes: a model's
    change is one of both, and with the old router gone first four requests of ten failed meanwhile. What the old one
    holds at its end fails all the same, with a 503 that says when to retry; so the pod is
    kept off spot, and nothing but a change of its configuration moves it.
    """

    service_name: str
    service: k8s.core.v1.Service

    def __init__(self, name: str, args: TierRouterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:routing:TierRouter", name, {}, opts)
        self._prefix = name
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)
        self._labels = tier_labels(args.tier.name, ROUTER)
        self.service_name = router_service(args.tier.name)

        permissions = self._permissions()
        policy = self._network_policy()
        deployment = self._deployment(
            self._config("envoy", ENVOY_CONFIG_KEY, envoy_bootstrap(args.tier)),
            self._config("picker", PICKER_CONFIG_KEY, picker_config(args.tier)),
            [permissions, policy],
        )
        self.service = self._service(deployment)
        self._disruption_budget()
        self._service_monitor()
        self.register_outputs({"service_name": self.service_name})

    def _metadata(self, name: str) -> k8s.meta.v1.ObjectMetaArgs:
        return k8s.meta.v1.ObjectMetaArgs(name=name, namespace=self._args.namespace, labels=self._labels)

    def _after(self, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=list(resources)))

    def _config(self, part: str, key: str, text: str) -> k8s.core.v1.ConfigMap:
        name = f"{self._prefix}-{part}"
        return envoy_pod.config_map(name, self._args.namespace, self._labels, {key: text}, self._child)

    def _permissions(self) -> k8s.rbac.v1.RoleBinding:
        account = k8s.core.v1.ServiceAccount(
            f"{self._prefix}-service-account", metadata=self._metadata(self.service_name), opts=self._child
        )
        role = k8s.rbac.v1.Role(
            f"{self._prefix}-role",
            metadata=self._metadata(self.service_name),
            # All the picker asks of the API: which pods of the tier are ready.
            rules=[k8s.rbac.v1.PolicyRuleArgs(api_groups=[""], resources=["pods"], verbs=["get", "list", "watch"])],
            opts=self._child,
        )
        return k8s.rbac.v1.RoleBinding(
            f"{self._prefix}-role-binding",
            metadata=self._metadata(self.service_name),
            role_ref=k8s.rbac.v1.RoleRefArgs(
                api_group="rbac.authorization.k8s.io", kind="Role", name=self.service_name
            ),
            subjects=[
                k8s.rbac.v1.SubjectArgs(kind="ServiceAccount", name=self.service_name, namespace=self._args.namespace)
            ],
            opts=self._after(account, role),
        )

    def _network_policy(self) -> k8s.networking.v1.NetworkPolicy:
        """Admit the load balancer and Prometheus; let out to the tier's engines and the Kubernetes API."""
        api = [
            k8s.networking.v1.NetworkPolicyPeerArgs(ip_block=k8s.networking.v1.IPBlockArgs(cidr=block))
            for block in (*_PRIVATE_NETWORKS, self._args.vpc_cidr)
        ]
        engines = network_rules.pods({TIER_LABEL: self._args.tier.name})
        return k8s.networking.v1.NetworkPolicy(
            f"{self._prefix}-network-policy",
            metadata=self._metadata(self.service_name),
            spec=k8s.networking.v1.NetworkPolicySpecArgs(
                pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=self._labels),
                policy_types=["Ingress", "Egress"],
                ingress=envoy_pod.admitted(self._args.vpc_cidr, PICKER_METRICS_PORT),
                egress=[
                    k8s.networking.v1.NetworkPolicyEgressRuleArgs(to=[engines], ports=[network_rules.tcp(ENGINE_PORT)]),
                    k8s.networking.v1.NetworkPolicyEgressRuleArgs(to=api, ports=[network_rules.tcp(443)]),
                ],
            ),
            opts=self._child,
        )

    def _deployment(
        self, envoy: k8s.core.v1.ConfigMap, picker: k8s.core.v1.ConfigMap, before: list[pulumi.Resource]
    ) -> k8s.apps.v1.Deployment:
        tier = self._args.tier
        pod = k8s.core.v1.PodSpecArgs(
            service_account_name=self.service_name,
            enable_service_links=False,
            priority_class_name=SERVING_PRIORITY_CLASS,
            # Never on a node that spot takes back or Karpenter consolidates: a restart fails what is held.
            node_selector={POOL_LABEL: SYSTEM_POOL},
            termination_grace_period_seconds=tier.timeouts.grace_s,
            security_context=pod_security(NOBODY),
            init_containers=[_envoy_container(tier)],
            containers=[_picker_container(tier)],
            volumes=[
                envoy_pod.config_volume(envoy_pod.CONFIG_VOLUME, envoy),
                envoy_pod.config_volume("picker", picker),
            ],
        )
        return k8s.apps.v1.Deployment(
            f"{self._prefix}-deployment",
            metadata=self._metadata(self.service_name),
            spec=k8s.apps.v1.DeploymentSpecArgs(
                replicas=1,
                # Two pickers for as long as the old one ends: both choose by the same metrics of the same replicas.
                # Prometheus looks at the new one only, so what the old one finishes no longer counts as load.
                strategy=k8s.apps.v1.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=k8s.apps.v1.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                ),
                selector=k8s.meta.v1.LabelSelectorArgs(match_labels=self._labels),
                template=k8s.core.v1.PodTemplateSpecArgs(
                    # Without the tier's own label, by which the picker finds engines: it would find itself.
                    metadata=k8s.meta.v1.ObjectMetaArgs(labels=self._labels),
                    spec=pod,
                ),
            ),
            opts=self._after(*before),
        )

    def _service(self, deployment: k8s.apps.v1.Deployment) -> k8s.core.v1.Service:
        return k8s.core.v1.Service(
            f"{self._prefix}-service",
            metadata=self._metadata(self.service_name),
            spec=k8s.core.v1.ServiceSpecArgs(selector=self._labels, ports=envoy_pod.service_ports(PICKER_METRICS_PORT)),
            opts=self._after(deployment),
        )

    def _disruption_budget(self) -> None:
        k8s.policy.v1.PodDisruptionBudget(
            f"{self._prefix}-disruption-budget",
            metadata=self._metadata(self.service_name),
            spec=k8s.policy.v1.PodDisruptionBudgetSpecArgs(
                selector=k8s.meta.v1.LabelSelectorArgs(match_labels=self._labels),
                # The only replica holds requests that an eviction would fail: draining its node is for a person, or a
                # forced node group update, to decide.
                min_available=1,
                unhealthy_pod_eviction_policy="AlwaysAllow",
            ),
            opts=self._child,
        )

    def _service_monitor(self) -> None:
        """Scrape as often as the autoscaler looks: these series wake the tier.

        It tells tiers apart by ``namespace`` and ``service``; the picker's own ``inference_pool`` is empty without an
        InferencePool.
        """
        tier = self._args.tier
        envoy_pod.service_monitor(
            f"{self._prefix}-service-monitor",
            self.service_name,
            self._args.namespace,
            self._labels,
            self._after(self._args.prometheus),
            path="/metrics",
            interval=f"{tier.timeouts.polling_interval_s}s",
            relabelings=[{"action": "replace", "targetLabel": "tier", "replacement": tier.name}],
        )


def _envoy_container(tier: TierPlan) -> k8s.core.v1.ContainerArgs:
    """Envoy as a sidecar: Kubernetes stops it only after the picker has ended.

    An answer streams through both, and the picker ends when its last answer has ended; as a second ordinary container
    Envoy would get its SIGTERM at the same moment as the picker and cut them all.
    """
    return envoy_pod.envoy_container(
        envoy_pod.router_requirements(tier.router.envoy_cpu_millicores, tier.router.envoy_memory_mib),
        restart_policy="Always",
    )


def _picker_container(tier: TierPlan) -> k8s.core.v1.ContainerArgs:
    return k8s.core.v1.ContainerArgs(
        name="picker",
        image=versions.ENDPOINT_PICKER.reference,
        args=list(picker_arguments(tier)),
        env=[
            _pod_field("NAMESPACE", "metadata.namespace"),
            # It reads its own name, and exits when that does not look like a Deployment's pod.
            _pod_field("POD_NAME", "metadata.name"),
        ],
        ports=[
            k8s.core.v1.ContainerPortArgs(name="health", container_port=PICKER_HEALTH_PORT),
            k8s.core.v1.ContainerPortArgs(name=envoy_pod.METRICS_PORT_NAME, container_port=PICKER_METRICS_PORT),
        ],
        liveness_probe=_grpc_probe("liveness", period_seconds=10, initial_delay_seconds=5),
        # Ready as soon as it has listed the pods, also when there are none: it must be there while the tier sleeps.
        readiness_probe=_grpc_probe("readiness", period_seconds=2),
        lifecycle=sleep_before_stop(tier.timeouts.pre_stop_s),
        resources=envoy_pod.router_requirements(tier.router.picker_cpu_millicores, tier.router.picker_memory_mib),
        security_context=container_security(),
        volume_mounts=[envoy_pod.config_mount("picker", PICKER_CONFIG_DIRECTORY)],
    )


def _grpc_probe(service: str, *, period_seconds: int, initial_delay_seconds: int = 0) -> k8s.core.v1.ProbeArgs:
    return k8s.core.v1.ProbeArgs(
        grpc=k8s.core.v1.GRPCActionArgs(port=PICKER_HEALTH_PORT, service=service),
        period_seconds=period_seconds,
        initial_delay_seconds=initial_delay_seconds,
    )


def _pod_field(variable: str, path: str) -> k8s.core.v1.EnvVarArgs:
    field = k8s.core.v1.ObjectFieldSelectorArgs(field_path=path)
    return k8s.core.v1.EnvVarArgs(name=variable, value_from=k8s.core.v1.EnvVarSourceArgs(field_ref=field))
