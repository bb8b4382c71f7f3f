"""What every controller on the system nodes requests: the nodes are sized from it, and its release asks for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SystemPod:
    """Requests of one controller. CPU is not limited; memory is limited to ``memory_limit_mib``."""

    replicas: int
    cpu_millicores: int
    memory_mib: int
    memory_limit_mib: int
    source: str


_OURS = "planning allowance of this program for tens of nodes, not measured; its release requests it"
_EKS = "the EKS add-on's own default, recalled, not verified"

SYSTEM_PODS = {
    "karpenter": SystemPod(2, 250, 512, 1024, _OURS),
    "keda-operator": SystemPod(1, 50, 128, 512, _OURS),
    "keda-metrics-server": SystemPod(1, 50, 128, 256, _OURS),
    "keda-webhooks": SystemPod(1, 10, 64, 128, _OURS),
    "aws-load-balancer-controller": SystemPod(1, 50, 128, 256, _OURS),
    # Prometheus reads every series back into memory when it starts.
    "prometheus": SystemPod(1, 200, 1024, 2048, _OURS),
    "prometheus-config-reloader": SystemPod(1, 10, 32, 64, _OURS),
    "prometheus-operator": SystemPod(1, 20, 64, 128, _OURS),
    "kube-state-metrics": SystemPod(1, 10, 64, 128, _OURS),
    "grafana": SystemPod(1, 50, 256, 512, _OURS),
    # Two streams through the AWS CLI, each with ten parts of 8 MiB in flight. Jobs that find no room wait for another.
    "weights-fill": SystemPod(1, 500, 512, 1024, _OURS),
    "coredns": SystemPod(2, 100, 70, 170, _EKS),
    "metrics-server": SystemPod(2, 100, 200, 400, _EKS),
    "ebs-csi-controller": SystemPod(2, 60, 240, 1536, _EKS),
}
"""Everything on the system nodes beside the tiers' routers and the model routers, which are sized by the traffic."""

GPU_NODE_PODS = {
    "nvidia-device-plugin": SystemPod(1, 10, 64, 128, _OURS),
    "dcgm-exporter": SystemPod(1, 50, 256, 512, _OURS),
    # Only where pods use EFA.
    "aws-efa-k8s-device-plugin": SystemPod(1, 10, 32, 64, _OURS),
}
"""On every GPU node, beside the daemons."""

#: Daemons of every node: CNI, kube-proxy, Pod Identity agent, EBS CSI node. EKS defaults, recalled, not verified.
DAEMONS = SystemPod(1, 200, 300, 0, _EKS)
