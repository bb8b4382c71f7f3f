"""Third-party controllers beside Karpenter and Prometheus: load balancer, autoscaler, GPU device plugin and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from components import helm, iam, versions
from components.names import GPU_RESOURCE, KEDA_NAMESPACE, LOAD_BALANCER_CONTROLLER_ACCOUNT, MONITORING_NAMESPACE

_SYSTEM_NAMESPACE, _LOAD_BALANCER_ACCOUNT = LOAD_BALANCER_CONTROLLER_ACCOUNT
_NVIDIA_NODES: Final = {"karpenter.k8s.aws/instance-gpu-manufacturer": "nvidia"}
"""Karpenter's own label: it is on GPU nodes whichever operating system they run."""
_PRIORITY: Final = "system-cluster-critical"
"""A tier that sleeps is woken by KEDA: it goes last when a system node runs out of memory."""


@dataclass(frozen=True, kw_only=True)
class ControllersArgs:
    """What the controllers are built from."""

    cluster_name: pulumi.Output[str]
    """``Cluster.name``, which waits for the cluster."""
    region: str
    vpc_id: pulumi.Input[str]
    gpu_nodes: bool
    """Some node pool has GPUs."""
    device_plugin: bool
    """GPU nodes come without a device plugin: AL2023 does, Bottlerocket brings its own."""
    efa: bool
    """Some pod asks for an Elastic Fabric Adapter; no node image brings their device plugin."""
    web_acl_arn: str | None
    """WAF v2 web ACL that the controller may put before load balancers; None: it has no say in WAF."""
    tags: Mapping[str, str]
    """For what the controller makes in AWS: provider default tags do not reach it."""
    system_ready: Sequence[pulumi.Resource]
    """``Cluster.system_ready``: nodes to run on, DNS, the Pod Identity agent."""
    prometheus: pulumi.Resource
    """The release that brings the ServiceMonitor's definition, which two of the charts use."""


class Controllers(pulumi.ComponentResource):
    """AWS Load Balancer Controller, KEDA and, with GPU nodes, the device plugins of NVIDIA and EFA and DCGM exporter.

    What they manage depends on them, so that on destroy their finalizers are cleared while they still run.
    """

    load_balancer_controller: k8s.helm.v3.Release
    keda: k8s.helm.v3.Release
    device_plugin: k8s.helm.v3.Release | None
    efa_device_plugin: k8s.helm.v3.Release | None
    dcgm_exporter: k8s.helm.v3.Release | None

    def __init__(self, name: str, args: ControllersArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:cluster:Controllers", name, {}, opts)
        self._prefix = name
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)

        self.load_balancer_controller = self._load_balancer_controller()
        self.keda = self._keda()
        self.device_plugin = self._device_plugin() if args.gpu_nodes and args.device_plugin else None
        self.efa_device_plugin = self._efa_device_plugin() if args.efa else None
        self.dcgm_exporter = self._dcgm_exporter() if args.gpu_nodes else None
        self.register_outputs({})

    def _load_balancer_controller(self) -> k8s.helm.v3.Release:
        args = self._args
        role = aws.iam.Role(
            f"{self._prefix}-load-balancer", assume_role_policy=iam.trust(iam.POD_IDENTITY), opts=self._child
        )
        # The controller's own policy, v3.5.0, in the same order so that it can be compared with the next. Bound to the
        # region, and to what carries this cluster's tag where the original asks for any cluster's or for none: also
        # listeners and rules, which the controller tags as it makes them (its feature gate ListenerRulesTagging, on by
        # default), and the cluster's security group, which carries Karpenter's tag. Without its rights on Shield,
        # Cognito and IAM's certificates, which it does not use here, and on WAF only those for the one web ACL of the
        # settings. Two, because that exceeds the 6144 characters of one.
        place = {"partition": iam.partition(args.region), "region": args.region}
        filled = args.cluster_name.apply(
            lambda cluster_name: iam.documents("load_balancer_controller.json", cluster_name=cluster_name, **place)
        )
        policies: dict[str, pulumi.Input[str]] = {
            title: filled[title] for title in iam.titles("load_balancer_controller.json")
        }
        if args.web_acl_arn is not None:
            policies |= iam.documents("web_acl.json", web_acl_arn=args.web_acl_arn, **place)
        attachments: list[pulumi.Resource] = []
        for title, document in policies.items():
            name = f"{self._prefix}-load-balancer-{title}"
            policy = aws.iam.Policy(name, policy=document, opts=self._child)
            attachments.append(
                aws.iam.RolePolicyAttachment(name, role=role.name, policy_arn=policy.arn, opts=self._child)
            )
        association = aws.eks.PodIdentityAssociation(
            f"{self._prefix}-load-balancer",
            cluster_name=args.cluster_name,
            namespace=_SYSTEM_NAMESPACE,
            service_account=_LOAD_BALANCER_ACCOUNT,
            role_arn=role.arn,
            opts=self._child,
        )
        return helm.release(
            f"{self._prefix}-load-balancer-controller",
            versions.AWS_LOAD_BALANCER_CONTROLLER,
            {
                "clusterName": args.cluster_name,
                # Told, because it would else ask the instance metadata, which the hop limit keeps from pods.
                "region": args.region,
                "vpcId": args.vpc_id,
                "serviceAccount": {"create": True, "name": _LOAD_BALANCER_ACCOUNT},
                # It carries no traffic: a minute without it delays a new target, and a second replica costs as much as
                # the first.
                "replicaCount": 1,
                "createIngressClassResource": True,
                "defaultTargetType": "ip",
                # Its webhook for Services fails closed: while the controller starts, nobody could create a Service.
                "enableServiceMutatorWebhook": False,
                # A new certificate at every upgrade would leave a moment in which API server and webhook disagree.
                "keepTLSSecret": True,
                # Services that it would ask about for every load balancer, used or not.
                "enableShield": False,
                "enableWaf": False,
                "enableWafv2": args.web_acl_arn is not None,
                "defaultTags": dict(args.tags),
                "nodeSelector": helm.ON_SYSTEM_NODES,
                "resources": helm.resources("aws-load-balancer-controller"),
            },
            namespace=_SYSTEM_NAMESPACE,
            parent=self,
            # Credentials are injected when a pod is created: association and permissions must be there before, and on
            # destroy until the last load balancer is gone.
            depends_on=[association, *attachments, *args.system_ready],
        )

    def _keda(self) -> k8s.helm.v3.Release:
        namespace = k8s.core.v1.Namespace(
            f"{self._prefix}-keda-namespace",
            metadata=k8s.meta.v1.ObjectMetaArgs(name=KEDA_NAMESPACE),
            opts=self._after(*self._args.system_ready),
        )
        return helm.release(
            f"{self._prefix}-keda",
            versions.KEDA,
            _keda_values(),
            namespace=KEDA_NAMESPACE,
            parent=self,
            depends_on=[namespace, self._args.prometheus, *self._args.system_ready],
        )

    def _device_plugin(self) -> k8s.helm.v3.Release:
        return helm.release(
            f"{self._prefix}-device-plugin",
            versions.NVIDIA_DEVICE_PLUGIN,
            # By its own affinity it runs where the label nvidia.com/gpu.present is, and it tolerates the GPU taint.
            {"resources": helm.resources("nvidia-device-plugin")},
            namespace=_SYSTEM_NAMESPACE,
            parent=self,
            depends_on=self._args.system_ready,
        )

    def _efa_device_plugin(self) -> k8s.helm.v3.Release:
        return helm.release(
            f"{self._prefix}-efa-device-plugin",
            versions.EFA_DEVICE_PLUGIN,
            {
                # By its own affinity it runs on types that have EFA.
                "tolerations": [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}],
                "resources": helm.resources("aws-efa-k8s-device-plugin"),
            },
            namespace=_SYSTEM_NAMESPACE,
            parent=self,
            depends_on=self._args.system_ready,
        )

    def _dcgm_exporter(self) -> k8s.helm.v3.Release:
        return helm.release(
            f"{self._prefix}-dcgm-exporter",
            versions.DCGM_EXPORTER,
            {
                "nodeSelector": _NVIDIA_NODES,
                # SYS_ADMIN, a default of the chart, is also what lets it see the GPUs on Bottlerocket, which shows
                # them to no unprivileged container that did not ask for one (bottlerocket issue 3992).
                "tolerations": [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}],
                "serviceMonitor": {"enabled": True, "interval": "30s"},
                # A GPU node's CPUs and memory are the engine's: what a DaemonSet asks for, no pod can have.
                "resources": helm.resources("dcgm-exporter"),
            },
            # Made by the Prometheus release's component.
            namespace=MONITORING_NAMESPACE,
            parent=self,
            depends_on=[self._args.prometheus, *self._args.system_ready],
        )

    def _after(self, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=list(resources)))


def _keda_values() -> dict[str, Any]:
    return {
        "image": {"pullPolicy": "IfNotPresent"},
        "nodeSelector": helm.ON_SYSTEM_NODES,
        "priorityClassName": _PRIORITY,
        "resources": {
            "operator": helm.resources("keda-operator"),
            "metricServer": helm.resources("keda-metrics-server"),
            "webhooks": helm.resources("keda-webhooks"),
        },
        # Only Deployments are scaled, and no trigger here reads a secret.
        "rbac": {"enabledCustomScaledRefKinds": False},
        "permissions": {
            "operator": {"restrict": {"secret": True}},
            "metricServer": {"restrict": {"secret": True}},
        },
        # Errors of its triggers mean that a sleeping tier cannot wake.
        "prometheus": {"operator": {"enabled": True, "serviceMonitor": {"enabled": True, "interval": "30s"}}},
        "enableServiceLinks": False,
    }
