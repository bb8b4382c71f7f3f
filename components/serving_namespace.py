"""The namespace of everything that serves: its pod security, its secrets, its walls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_kubernetes as k8s

from components.names import (
    API_KEY_SECRET,
    API_KEY_SECRET_KEY,
    HUGGING_FACE_SECRET,
    HUGGING_FACE_SECRET_KEY,
    SERVING_NAMESPACE,
    SERVING_PRIORITY_CLASS,
)

READINESS_GATE_LABEL: Final = "elbv2.k8s.aws/pod-readiness-gate-inject"
"""On namespaces into whose pods behind a target group the AWS Load Balancer Controller puts its readiness gate. Where
it cannot be asked, its chart lets pods come without."""

_PRIORITY: Final = 1_000_000
"""Above pods without a class (0), below Kubernetes' own from 2,000,000,000."""


@dataclass(frozen=True, kw_only=True)
class ServingNamespaceArgs:
    """The cluster's minor version, and the secrets of the stack; each of these is optional."""

    kubernetes_version: str
    hugging_face_token: pulumi.Input[str] | None = None
    """For gated checkpoints, while the weights bucket is filled."""
    api_key: pulumi.Input[str] | None = None
    """What clients send as bearer token; without it the engines answer anyone who reaches them."""


class ServingNamespace(pulumi.ComponentResource):
    """Namespace under Pod Security ``restricted`` in which nothing may talk to anything until a policy allows it.

    A quota keeps Services from opening a way in of their own.
    """

    namespace: pulumi.Output[str]
    has_hugging_face_token: bool
    has_api_key: bool
    ready: tuple[pulumi.Resource, ...]
    """What pods of the namespace need before they start: walls, priority and secrets."""

    def __init__(self, name: str, args: ServingNamespaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:serving:ServingNamespace", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)

        # The standard of the cluster's own minor: an upgrade must not refuse pods that ran the day before.
        version = f"v{args.kubernetes_version}"
        modes = ("enforce", "audit", "warn")
        namespace = k8s.core.v1.Namespace(
            f"{name}-namespace",
            metadata=k8s.meta.v1.ObjectMetaArgs(
                name=SERVING_NAMESPACE,
                labels={
                    **{f"pod-security.kubernetes.io/{mode}": "restricted" for mode in modes},
                    **{f"pod-security.kubernetes.io/{mode}-version": version for mode in modes},
                    # A router counts as ready when the load balancer sends to it: an old one would go before.
                    READINESS_GATE_LABEL: "enabled",
                },
            ),
            opts=child,
        )
        self.namespace = namespace.metadata.name
        priority = k8s.scheduling.v1.PriorityClass(
            f"{name}-priority",
            metadata=k8s.meta.v1.ObjectMetaArgs(name=SERVING_PRIORITY_CLASS),
            value=_PRIORITY,
            description="Engines and routers: what answers requests goes before what only prepares or observes.",
            opts=child,
        )
        given = (
            (f"{name}-hugging-face", HUGGING_FACE_SECRET, HUGGING_FACE_SECRET_KEY, args.hugging_face_token),
            (f"{name}-api-key", API_KEY_SECRET, API_KEY_SECRET_KEY, args.api_key),
        )
        secrets = [
            self._secret(logical_name, physical_name, key, value, child)
            for logical_name, physical_name, key, value in given
            if value is not None
        ]

        quota = k8s.core.v1.ResourceQuota(
            f"{name}-quota",
            metadata=k8s.meta.v1.ObjectMetaArgs(name="no-second-way-in", namespace=self.namespace),
            # The Ingress is the one way in: a load balancer or port of a Service's own would go past its rules. GPUs
            # are bounded by the node pools; a quota would hold back the replacement of a pod that still drains.
            spec=k8s.core.v1.ResourceQuotaSpecArgs(hard={"services.loadbalancers": "0", "services.nodeports": "0"}),
            opts=child,
        )

        self.ready = (namespace, priority, quota, *secrets, *self._policies(name, child))
        self.has_hugging_face_token = args.hugging_face_token is not None
        self.has_api_key = args.api_key is not None
        self.register_outputs(
            {
                "namespace": self.namespace,
                "has_hugging_face_token": self.has_hugging_face_token,
                "has_api_key": self.has_api_key,
            }
        )

    def _secret(
        self, name: str, physical_name: str, key: str, value: pulumi.Input[str], child: pulumi.ResourceOptions
    ) -> k8s.core.v1.Secret:
        return k8s.core.v1.Secret(
            name,
            metadata=k8s.meta.v1.ObjectMetaArgs(name=physical_name, namespace=self.namespace),
            type="Opaque",
            # Marked again here: one caller who passes plain text would otherwise put it into the state.
            string_data={key: pulumi.Output.secret(value)},
            opts=child,
        )

    def _policies(self, name: str, child: pulumi.ResourceOptions) -> list[k8s.networking.v1.NetworkPolicy]:
        everyone = k8s.meta.v1.LabelSelectorArgs()
        deny = k8s.networking.v1.NetworkPolicy(
            f"{name}-default-deny",
            metadata=k8s.meta.v1.ObjectMetaArgs(name="default-deny", namespace=self.namespace),
            spec=k8s.networking.v1.NetworkPolicySpecArgs(pod_selector=everyone, policy_types=["Ingress", "Egress"]),
            opts=child,
        )
        server = k8s.networking.v1.NetworkPolicyPeerArgs(
            namespace_selector=k8s.meta.v1.LabelSelectorArgs(
                match_labels={"kubernetes.io/metadata.name": "kube-system"}
            ),
            pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels={"k8s-app": "kube-dns"}),
        )
        dns = k8s.networking.v1.NetworkPolicy(
            f"{name}-dns",
            metadata=k8s.meta.v1.ObjectMetaArgs(name="dns", namespace=self.namespace),
            spec=k8s.networking.v1.NetworkPolicySpecArgs(
                pod_selector=everyone,
                policy_types=["Egress"],
                egress=[
                    k8s.networking.v1.NetworkPolicyEgressRuleArgs(
                        to=[server],
                        ports=[
                            k8s.networking.v1.NetworkPolicyPortArgs(protocol=protocol, port=53)
                            for protocol in ("UDP", "TCP")
                        ],
                    )
                ],
            ),
            opts=child,
        )
        return [deny, dns]
