"""Karpenter: what it may do in AWS, what it hears from EC2, and its releases in the cluster.

Once per account EC2 needs its service-linked role for spot (``aws iam create-service-linked-role --aws-service-name
spot.amazonaws.com``). It is not made here: it belongs to the account, most accounts have it, and AWS refuses a second.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from components import helm, iam, versions
from planning.system_pods import SYSTEM_PODS

_NAMESPACE: Final = "kube-system"
"""Where service accounts have the higher priority at the API server; Karpenter's documentation advises it."""
_SERVICE_ACCOUNT: Final = "karpenter"

_RELEASE_TIMEOUTS: Final = pulumi.CustomTimeouts(create="15m", update="15m", delete="15m")

_EVENTS: Final = (
    ("scheduled-change", "aws.health", "AWS Health Event"),
    ("spot-interruption", "aws.ec2", "EC2 Spot Instance Interruption Warning"),
    ("rebalance", "aws.ec2", "EC2 Instance Rebalance Recommendation"),
    ("instance-state-change", "aws.ec2", "EC2 Instance State-change Notification"),
    ("capacity-reservation-interruption", "aws.ec2", "EC2 Capacity Reservation Instance Interruption Warning"),
)


@dataclass(frozen=True, kw_only=True)
class KarpenterArgs:
    """What Karpenter is built from."""

    cluster_name: pulumi.Output[str]
    """``Cluster.name``, which waits for the cluster: a plain text would let entries be made before it."""
    region: str
    node_role_arn: str | None
    """A role that is there and that the system nodes have too; None: one is made."""
    system_ready: Sequence[pulumi.Resource]
    """``Cluster.system_ready``: nodes to run on, DNS, the Pod Identity agent, the tag its nodes find their group by."""


class Karpenter(pulumi.ComponentResource):
    """The node autoscaler. Node pools depend on ``controller`` and ``crds``.

    All that the controller needs in AWS is upstream of its release: a controller that loses a permission, its queue or
    its nodes' role while node pools are deleted cannot clear their finalizers, and leaves instances running.
    """

    node_role_name: pulumi.Output[str]
    controller: k8s.helm.v3.Release
    crds: k8s.helm.v3.Release

    def __init__(self, name: str, args: KarpenterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:nodes:Karpenter", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)

        node = iam.node_role(f"{name}-node", args.node_role_arn, args.region, child)
        access: list[pulumi.Resource] = []
        if args.node_role_arn is None:
            # Lets kubelets with this role join; in authentication mode API there is no aws-auth to do it. For a role
            # that managed node groups have, EKS makes the entry by itself and refuses a second.
            entry = aws.eks.AccessEntry(
                f"{name}-node",
                cluster_name=args.cluster_name,
                principal_arn=node.arn,
                type="EC2_LINUX",
                opts=child,
            )
            access.append(entry)
        queue, queue_parts = _interruption_queue(name, args.cluster_name, child)
        controller_role, controller_parts = _controller_role(name, args, node, queue, child)

        self.node_role_name = node.name
        self.crds = _release(
            f"{name}-crd",
            versions.KARPENTER_CRD,
            {},
            pulumi.ResourceOptions(parent=self, custom_timeouts=_RELEASE_TIMEOUTS),
        )
        association = aws.eks.PodIdentityAssociation(
            f"{name}-controller",
            cluster_name=args.cluster_name,
            namespace=_NAMESPACE,
            service_account=_SERVICE_ACCOUNT,
            role_arn=controller_role.arn,
            opts=child,
        )
        self.controller = _release(
            f"{name}-controller",
            versions.KARPENTER,
            {
                "serviceAccount": {"name": _SERVICE_ACCOUNT},
                # Each on its own node, by the chart; on a single system node the second one waits, without harm.
                "replicas": SYSTEM_PODS["karpenter"].replicas,
                "controller": {
                    # Else it asks the instance metadata, which the hop limit keeps from pods.
                    "env": [{"name": "AWS_REGION", "value": args.region}],
                    # Its Go runtime takes the limit for its memory limit.
                    "resources": helm.resources("karpenter"),
                },
                # The endpoint it finds by itself, with eks:DescribeCluster.
                "settings": {
                    "clusterName": args.cluster_name,
                    "interruptionQueue": queue.name,
                },
                # Its CRD comes with Prometheus, which runs on nodes, which Karpenter need not wait for.
                "serviceMonitor": {"enabled": False},
            },
            pulumi.ResourceOptions(
                parent=self,
                depends_on=[
                    self.crds,
                    # Credentials are injected when a pod is created: the association must be there before.
                    association,
                    *controller_parts,
                    *node.attachments,
                    *access,
                    *queue_parts,
                    *args.system_ready,
                ],
                custom_timeouts=_RELEASE_TIMEOUTS,
            ),
        )
        self.register_outputs({"node_role_name": self.node_role_name})


def _release(
    name: str, chart: versions.Chart, values: dict[str, object], opts: pulumi.ResourceOptions
) -> k8s.helm.v3.Release:
    return k8s.helm.v3.Release(
        name,
        # Not Pulumi's own suffixed name: the chart names its objects, and the CRD chart its owner, by the release.
        name=chart.chart.rsplit("/", 1)[-1],
        chart=chart.chart,
        version=chart.version,
        namespace=_NAMESPACE,
        # Helm installs a chart's CRDs once and never again; they come from the CRD chart, which upgrades them.
        skip_crds=True,
        values=values,
        timeout=600,
        opts=opts,
    )


def _interruption_queue(
    name: str, cluster_name: pulumi.Output[str], child: pulumi.ResourceOptions
) -> tuple[aws.sqs.Queue, list[pulumi.Resource]]:
    queue = aws.sqs.Queue(
        f"{name}-interruption",
        name=cluster_name,
        # A warning older than five minutes is about an instance that is gone.
        message_retention_seconds=300,
        sqs_managed_sse_enabled=True,
        opts=child,
    )
    policy = aws.sqs.QueuePolicy(
        f"{name}-interruption",
        queue_url=queue.url,
        policy=pulumi.Output.json_dumps(
            {
                "Version": "2012-10-17",
                "Id": "EC2InterruptionPolicy",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": ["events.amazonaws.com", "sqs.amazonaws.com"]},
                        "Action": "sqs:SendMessage",
                        "Resource": queue.arn,
                    },
                    {
                        # A refusal may be wide: nothing at all without TLS.
                        "Sid": "DenyHTTP",
                        "Effect": "Deny",
                        "Principal": "*",
                        "Action": "sqs:*",
                        "Resource": queue.arn,
                        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                    },
                ],
            }
        ),
        opts=child,
    )
    targets: list[pulumi.Resource] = []
    for suffix, source, detail_type in _EVENTS:
        rule = aws.cloudwatch.EventRule(
            f"{name}-{suffix}",
            description=pulumi.Output.format("{0}, for Karpenter of {1}", detail_type, cluster_name),
            event_pattern=json.dumps({"source": [source], "detail-type": [detail_type]}),
            opts=child,
        )
        targets.append(
            aws.cloudwatch.EventTarget(
                f"{name}-{suffix}",
                rule=rule.name,
                target_id="KarpenterInterruptionQueueTarget",
                arn=queue.arn,
                opts=child,
            )
        )
    return queue, [policy, *targets]


def _controller_role(
    name: str, args: KarpenterArgs, node_role: iam.NodeRole, queue: aws.sqs.Queue, child: pulumi.ResourceOptions
) -> tuple[aws.iam.Role, list[pulumi.Resource]]:
    """Give the controller's role with the six policies of Karpenter's own CloudFormation template, v1.14.1.

    Six, because together they exceed the 6144 characters of one. ``Resource: "*"`` is left where AWS takes nothing
    narrower: reading EC2's offers (bound to the region), prices, the list of instance profiles, zonal shifts (bound to
    the cluster).
    """
    role = aws.iam.Role(f"{name}-controller", assume_role_policy=iam.trust(iam.POD_IDENTITY), opts=child)
    filled = pulumi.Output.all(
        partition=iam.partition(args.region),
        region=args.region,
        cluster_name=args.cluster_name,
        account_id=iam.account_id(node_role.arn),
        node_role_arn=node_role.arn,
        queue_arn=queue.arn,
    ).apply(lambda values: iam.documents("karpenter.json", **values))
    attachments: list[pulumi.Resource] = []
    for title in iam.titles("karpenter.json"):
        policy = aws.iam.Policy(f"{name}-{title}", policy=filled[title], opts=child)
        attachments.append(
            aws.iam.RolePolicyAttachment(f"{name}-{title}", role=role.name, policy_arn=policy.arn, opts=child)
        )
    return role, attachments
