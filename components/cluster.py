"""The EKS cluster with its system nodes, its add-ons and its default storage class."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks
import pulumi_kubernetes as k8s

from components import iam
from components.names import POOL_LABEL, SYSTEM_POOL
from planning.plan import ClusterPlan, CpuArchitecture, SystemNodesPlan

_AMI_TYPES: Final[Mapping[CpuArchitecture, str]] = {
    "amd64": "AL2023_x86_64_STANDARD",
    "arm64": "AL2023_ARM_64_STANDARD",
}


@dataclass(frozen=True, kw_only=True)
class ClusterArgs:
    """What the cluster is built from."""

    cluster_name: str
    region: str
    plan: ClusterPlan
    system_nodes: SystemNodesPlan
    vpc_id: pulumi.Input[str]
    private_subnet_ids: pulumi.Input[Sequence[pulumi.Input[str]]]
    network_ready: Sequence[pulumi.Resource]
    """``Network.ready``: the nodes' way to the API, ECR and EC2."""
    api_endpoint_cidrs: tuple[str, ...]
    """Who may reach the Kubernetes API from outside the VPC; empty: nobody."""
    admin_role_arns: tuple[str, ...]
    """Cluster administrators beside the principal that creates the cluster: EKS makes that one's entry by itself and
    refuses a second."""
    control_plane_logs: tuple[str, ...]
    log_retention_days: int
    tags: Mapping[str, str]
    """For what a provider's default tags do not reach: instances, their volumes, and volumes of claims."""


class Cluster(pulumi.ComponentResource):
    """An EKS cluster that is ready for controllers: nodes, DNS, network policy, Pod Identity, volumes.

    Pass ``opts`` with ``providers=[aws_provider, eks_provider]``; ``eks.Cluster`` inherits both. It needs no
    ``provider_credential_opts``: the check that asks for them looks at ``opts.provider``, which is never set for a
    component that is constructed from Python, and its kubeconfig is read by people and by ``provider`` here, with the
    caller's own AWS credentials.
    """

    name: pulumi.Output[str]
    """Known in a preview, and depends on the cluster: what is made in the cluster by this name waits for it."""
    kubeconfig: pulumi.Output[str]
    """Secret. Holds no credential: it calls ``aws eks get-token``."""
    provider: k8s.Provider
    security_group_id: pulumi.Output[str]
    """The group that EKS makes for control plane and nodes. Its members reach each other on every port, which is what
    pods, webhooks and metrics need; load balancers add their own rule to it."""
    storage_class: pulumi.Output[str]
    """Encrypted gp3, the cluster's default."""
    system_nodes: aws.eks.NodeGroup
    system_ready: tuple[pulumi.Resource, ...]
    """What controllers need to run, and to have while they clean up."""

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:cluster:Cluster", name, {}, opts)
        self._prefix = name
        self._args = args
        self._child = pulumi.ResourceOptions(parent=self)

        self._cluster = self._control_plane()
        self.kubeconfig = pulumi.Output.secret(self._cluster.kubeconfig_json)
        self.name = self._cluster.urn.apply(lambda _: args.cluster_name)
        self.security_group_id = self._cluster.cluster_security_group_id
        self.provider = k8s.Provider(
            f"{name}-kubernetes",
            kubeconfig=self.kubeconfig,
            # A kubeconfig may change its text; the objects are to be replaced only when the cluster is another one.
            # Its issuer has an id that no other cluster has, not even one of the same name.
            cluster_identifier=self._cluster.oidc_issuer,
            opts=self._child,
        )

        self._administrators()
        # The security group is EKS's own, so its tag is all that can be declared. Karpenter selects by it.
        discovery = aws.ec2.Tag(
            f"{name}-discovery",
            resource_id=self.security_group_id,
            key="karpenter.sh/discovery",
            value=self.name,
            opts=self._child,
        )

        # Before the nodes: without a CNI none becomes Ready. On destroy after them: the CNI frees its interfaces.
        before_nodes = [
            # Network policies of the tiers are enforced by the CNI's own agent, which is off by default.
            self._addon("vpc-cni", [], {"enableNetworkPolicy": "true"}),
            self._addon("kube-proxy", []),
            self._addon("eks-pod-identity-agent", []),
        ]
        self.system_nodes = self._node_group(before_nodes)
        coredns = self._addon("coredns", [self.system_nodes])
        metrics_server = self._addon("metrics-server", [self.system_nodes])
        volumes = self._volumes()
        storage_class = self._storage_class(volumes)
        self.storage_class = storage_class.metadata.name

        self.system_ready = (
            *before_nodes,
            self.system_nodes,
            coredns,
            metrics_server,
            volumes,
            storage_class,
            discovery,
        )
        self.register_outputs(
            {
                "name": self.name,
                "kubeconfig": self.kubeconfig,
                "security_group_id": self.security_group_id,
            }
        )

    def _control_plane(self) -> eks.Cluster:
        args, plan = self._args, self._args.plan
        # Made by us first: EKS would make it on its own, with no end to its retention, and leave it behind.
        logs: list[pulumi.Resource] = []
        if args.control_plane_logs:
            group = aws.cloudwatch.LogGroup(
                f"{self._prefix}-logs",
                name=f"/aws/eks/{args.cluster_name}/cluster",
                retention_in_days=args.log_retention_days,
                opts=self._child,
            )
            logs.append(group)
        public = bool(args.api_endpoint_cidrs)
        return eks.Cluster(
            self._prefix,
            name=args.cluster_name,
            version=plan.kubernetes_version,
            authentication_mode=eks.AuthenticationMode.API,
            vpc_id=args.vpc_id,
            private_subnet_ids=args.private_subnet_ids,
            kubernetes_service_ip_address_range=plan.service_cidr,
            service_role=self._given_role(plan.role_arn) if plan.role_arn else None,
            endpoint_private_access=True,
            endpoint_public_access=public,
            public_access_cidrs=list(args.api_endpoint_cidrs) if public else None,
            encryption_config_key_arn=plan.secrets_key_arn or self._secrets_key().arn,
            enabled_cluster_log_types=list(args.control_plane_logs),
            # Extended support costs six times the control plane's price; STANDARD upgrades instead of paying it.
            upgrade_policy=aws.eks.ClusterUpgradePolicyArgs(support_type="STANDARD"),
            # One security group for control plane and nodes, EKS's own: a second one on nodes would only have to repeat
            # its rules, and load balancers refuse nodes with two groups of the cluster.
            skip_default_security_groups=True,
            skip_default_node_group=True,
            # Neither EKS nor the component installs an add-on: each is ours, once, at a pinned version.
            bootstrap_self_managed_addons=False,
            use_default_vpc_cni=True,
            kube_proxy_addon_options=eks.KubeProxyAddonOptionsArgs(enabled=False),
            coredns_addon_options=eks.CoreDnsAddonOptionsArgs(enabled=False),
            # Pod Identity needs no OIDC provider.
            create_oidc_provider=False,
            opts=pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=logs)),
        )

    def _secrets_key(self) -> aws.kms.Key:
        return aws.kms.Key(
            f"{self._prefix}-secrets",
            description=f"Kubernetes secrets of {self._args.cluster_name}",
            enable_key_rotation=True,
            # The longest wait, and the key goes after its cluster: a deletion by mistake can be cancelled that long
            # (`docs/changes.md`). Not protected, or no destroy would pass; not retained, or each destroy would leave a
            # key that is billed. One that waits is not (AWS KMS' pricing page), so nothing is lost by waiting.
            deletion_window_in_days=30,
            opts=self._child,
        )

    def _given_role(self, arn: str) -> aws.iam.Role:
        """Look up a role that is there: `eks.Cluster` takes no ARN."""
        return aws.iam.Role.get(f"{self._prefix}-role", iam.role_name(arn), opts=self._child)

    def _administrators(self) -> None:
        policy = f"arn:{iam.partition(self._args.region)}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
        for arn in self._args.admin_role_arns:
            # Account, kind and path: two accounts may have a role of one name. Not the position, which moves.
            suffix = arn.split(":", 4)[4].replace(":", "-").replace("/", "-")
            entry = aws.eks.AccessEntry(
                f"{self._prefix}-admin-{suffix}",
                cluster_name=self.name,
                principal_arn=arn,
                opts=self._child,
            )
            aws.eks.AccessPolicyAssociation(
                f"{self._prefix}-admin-{suffix}",
                cluster_name=self.name,
                principal_arn=arn,
                policy_arn=policy,
                access_scope=aws.eks.AccessPolicyAssociationAccessScopeArgs(type="cluster"),
                opts=self._after(entry),
            )

    def _addon(
        self,
        addon: str,
        after: Sequence[pulumi.Resource],
        configuration: Mapping[str, object] | None = None,
        pod_identity: aws.eks.AddonPodIdentityAssociationArgs | None = None,
    ) -> aws.eks.Addon:
        return aws.eks.Addon(
            f"{self._prefix}-{addon}",
            cluster_name=self.name,
            addon_name=addon,
            addon_version=self._args.plan.addon_versions[addon],
            configuration_values=json.dumps(configuration) if configuration else None,
            pod_identity_associations=[pod_identity] if pod_identity else None,
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            opts=self._after(*after),
        )

    def _node_group(self, before: Sequence[pulumi.Resource]) -> aws.eks.NodeGroup:
        args, plan = self._args, self._args.system_nodes
        role = iam.node_role(f"{self._prefix}-system-node", args.plan.node_role_arn, args.region, self._child)
        tags = {**args.tags, "Name": f"{args.cluster_name}-system"}
        template = aws.ec2.LaunchTemplate(
            f"{self._prefix}-system-nodes",
            # Names no security group: EKS then attaches its own.
            metadata_options=aws.ec2.LaunchTemplateMetadataOptionsArgs(
                http_endpoint="enabled",
                http_tokens="required",
                # One hop ends at the node: pods cannot take the node's credentials.
                http_put_response_hop_limit=1,
            ),
            block_device_mappings=[
                aws.ec2.LaunchTemplateBlockDeviceMappingArgs(
                    device_name="/dev/xvda",
                    ebs=aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
                        volume_size=plan.volume_gib,
                        volume_type="gp3",
                        encrypted="true",
                        delete_on_termination="true",
                    ),
                )
            ],
            tag_specifications=[
                aws.ec2.LaunchTemplateTagSpecificationArgs(resource_type=kind, tags=tags)
                for kind in ("instance", "volume", "network-interface")
            ],
            update_default_version=True,
            opts=self._child,
        )
        return aws.eks.NodeGroup(
            f"{self._prefix}-system",
            cluster_name=self.name,
            node_role_arn=role.arn,
            subnet_ids=args.private_subnet_ids,
            ami_type=_AMI_TYPES[plan.cpu_architecture],
            capacity_type="ON_DEMAND",
            instance_types=[plan.instance_type],
            version=args.plan.kubernetes_version,
            launch_template=aws.eks.NodeGroupLaunchTemplateArgs(
                id=template.id, version=template.latest_version.apply(str)
            ),
            labels={POOL_LABEL: SYSTEM_POOL},
            # Nothing but the plan scales these nodes, so desiredSize is not ignored: EKS refuses a minimum above it.
            scaling_config=aws.eks.NodeGroupScalingConfigArgs(
                desired_size=plan.count, min_size=plan.count, max_size=plan.maximum
            ),
            update_config=aws.eks.NodeGroupUpdateConfigArgs(max_unavailable=1),
            # A router is one pod that must not be disrupted, so its budget would stop every update of its node.
            force_update_version=True,
            opts=self._after(*role.attachments, *before, *args.network_ready),
        )

    def _volumes(self) -> aws.eks.Addon:
        role = iam.attached_role(
            f"{self._prefix}-ebs-csi",
            iam.POD_IDENTITY,
            ["service-role/AmazonEBSCSIDriverPolicy"],
            self._args.region,
            self._child,
        )
        return self._addon(
            "aws-ebs-csi-driver",
            [self.system_nodes, *role.attachments],
            # Volumes of claims are made by the driver: no provider's default tags reach them.
            {"controller": {"extraVolumeTags": dict(self._args.tags)}},
            aws.eks.AddonPodIdentityAssociationArgs(role_arn=role.role.arn, service_account="ebs-csi-controller-sa"),
        )

    def _storage_class(self, volumes: aws.eks.Addon) -> k8s.storage.v1.StorageClass:
        return k8s.storage.v1.StorageClass(
            f"{self._prefix}-gp3",
            metadata=k8s.meta.v1.ObjectMetaArgs(
                name="gp3", annotations={"storageclass.kubernetes.io/is-default-class": "true"}
            ),
            provisioner="ebs.csi.aws.com",
            parameters={"type": "gp3", "encrypted": "true"},
            # A volume lives in one zone; it must be the zone in which its pod is put.
            volume_binding_mode="WaitForFirstConsumer",
            allow_volume_expansion=True,
            reclaim_policy="Delete",
            opts=pulumi.ResourceOptions(parent=self, provider=self.provider, depends_on=[volumes]),
        )

    def _after(self, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=list(resources)))
