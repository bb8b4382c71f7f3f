"""Network policy rules that serving pods and the weights job share, as typed arguments. It creates no resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pulumi_kubernetes as k8s

from components.names import MONITORING_NAMESPACE

_PRIVATE: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
_POD_IDENTITY_AGENT: Final = "169.254.170.23/32"


def tcp(port: int) -> k8s.networking.v1.NetworkPolicyPortArgs:
    """Give one TCP port."""
    return k8s.networking.v1.NetworkPolicyPortArgs(protocol="TCP", port=port)


def pods(labels: Mapping[str, str]) -> k8s.networking.v1.NetworkPolicyPeerArgs:
    """Give the pods of the same namespace that carry ``labels``."""
    return k8s.networking.v1.NetworkPolicyPeerArgs(pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=labels))


def namespace(name: str) -> k8s.networking.v1.NetworkPolicyPeerArgs:
    """Give all pods of a namespace."""
    labels = {"kubernetes.io/metadata.name": name}
    return k8s.networking.v1.NetworkPolicyPeerArgs(
        namespace_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=labels)
    )


def prometheus() -> k8s.networking.v1.NetworkPolicyPeerArgs:
    """Give the pods that scrape metrics."""
    return namespace(MONITORING_NAMESPACE)


def to_public_https() -> k8s.networking.v1.NetworkPolicyEgressRuleArgs:
    """Let pods open HTTPS connections to public addresses only.

    S3 answers on public addresses, also through the VPC's gateway endpoint, and they change too often to be listed; a
    policy cannot name a host. So any public address is allowed on 443 and everything private is not: other pods, the
    VPC, the cluster's private API endpoint and the nodes' metadata are out of reach of a pod that was taken over.
    """
    block = k8s.networking.v1.IPBlockArgs(cidr="0.0.0.0/0", except_=list(_PRIVATE))
    return k8s.networking.v1.NetworkPolicyEgressRuleArgs(
        to=[k8s.networking.v1.NetworkPolicyPeerArgs(ip_block=block)], ports=[tcp(443)]
    )


def to_pod_identity() -> k8s.networking.v1.NetworkPolicyEgressRuleArgs:
    """Let pods fetch their AWS credentials from the agent on their node."""
    block = k8s.networking.v1.IPBlockArgs(cidr=_POD_IDENTITY_AGENT)
    return k8s.networking.v1.NetworkPolicyEgressRuleArgs(
        to=[k8s.networking.v1.NetworkPolicyPeerArgs(ip_block=block)], ports=[tcp(80)]
    )
