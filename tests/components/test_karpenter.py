"""Karpenter as the program asks for it. That its policies suffice, and that AWS takes them, is not proven here."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from components import iam, versions
from components.karpenter import Karpenter, KarpenterArgs
from tests.components.building import CLUSTER, REGION, stand_in
from tests.harness import Recording, Resource, component_under_test, default_provider_users, duplicate_urns

POLICY = "aws:iam/policy:Policy"
ATTACHMENT = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
RELEASE = "kubernetes:helm.sh/v3:Release"

# The managed policies of the CloudFormation template in Karpenter v1.14.1's documentation, and their statements.
STATEMENTS = {
    "node-lifecycle": [
        "AllowScopedEC2InstanceAccessActions",
        "AllowScopedEC2LaunchTemplateAccessActions",
        "AllowScopedEC2InstanceActionsWithTags",
        "AllowScopedResourceCreationTagging",
        "AllowScopedResourceTagging",
        "AllowScopedDeletion",
    ],
    "iam-integration": [
        "AllowPassingInstanceRole",
        "AllowScopedInstanceProfileCreationActions",
        "AllowScopedInstanceProfileTagActions",
        "AllowScopedInstanceProfileActions",
    ],
    "eks-integration": ["AllowAPIServerEndpointDiscovery"],
    "interruption": ["AllowInterruptionQueueActions"],
    "zonal-shift": ["AllowZonalShiftStatusReadOnly"],
    "resource-discovery": [
        "AllowRegionalReadActions",
        "AllowSSMReadActions",
        "AllowPricingReadActions",
        "AllowUnscopedInstanceProfileListAction",
        "AllowInstanceProfileReadActions",
    ],
}
# Read-only actions that IAM cannot bind to a resource (service authorization reference).
UNBOUND = {
    "AllowRegionalReadActions",
    "AllowPricingReadActions",
    "AllowUnscopedInstanceProfileListAction",
    "AllowZonalShiftStatusReadOnly",
}


def recorded(node_role_arn: str | None = None) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> dict[str, pulumi.Output[str]]:
        made = Karpenter(
            "karpenter",
            KarpenterArgs(
                cluster_name=stand_in("cluster", opts).urn.apply(lambda _: CLUSTER),
                region=REGION,
                node_role_arn=node_role_arn,
                system_ready=[stand_in("system-nodes", opts)],
            ),
            opts,
        )
        stand_in("pool", opts, after=[made.controller, made.crds])
        return {"node_role": made.node_role_name}

    return component_under_test(factory, region=REGION)


@pytest.fixture(scope="module")
def karpenter() -> Recording:
    return recorded()


def statements(recording: Recording, title: str) -> list[dict[str, Any]]:
    return json.loads(recording.named(f"karpenter-{title}", POLICY).inputs["policy"])["Statement"]


def actions(statement: dict[str, Any]) -> list[str]:
    action = statement["Action"]
    return [action] if isinstance(action, str) else action


def release(recording: Recording, name: str) -> Resource:
    return recording.named(name, RELEASE)


def test_the_controller_has_karpenters_own_six_policies_statement_by_statement(karpenter: Recording) -> None:
    assert len(karpenter.of_type(POLICY)) == 6
    for title, sids in STATEMENTS.items():
        assert [statement["Sid"] for statement in statements(karpenter, title)] == sids


def test_no_policy_allows_an_action_by_wildcard(karpenter: Recording) -> None:
    for title in STATEMENTS:
        for statement in statements(karpenter, title):
            assert statement["Effect"] == "Allow"
            assert "NotAction" not in statement
            assert not [action for action in actions(statement) if "*" in action]


def test_only_reads_that_iam_cannot_bind_are_unbound(karpenter: Recording) -> None:
    unbound = {
        statement["Sid"]
        for title in STATEMENTS
        for statement in statements(karpenter, title)
        if statement["Resource"] == "*"
    }
    assert unbound == UNBOUND


def test_instances_are_started_and_stopped_only_with_the_tags_of_this_cluster(karpenter: Recording) -> None:
    by_sid = {statement["Sid"]: statement for statement in statements(karpenter, "node-lifecycle")}
    started = by_sid["AllowScopedEC2InstanceActionsWithTags"]["Condition"]["StringEquals"]
    assert started[f"aws:RequestTag/kubernetes.io/cluster/{CLUSTER}"] == "owned"
    stopped = by_sid["AllowScopedDeletion"]
    assert actions(stopped) == ["ec2:TerminateInstances", "ec2:DeleteLaunchTemplate"]
    assert stopped["Condition"]["StringEquals"] == {f"aws:ResourceTag/kubernetes.io/cluster/{CLUSTER}": "owned"}
    assert all(resource.startswith(f"arn:aws:ec2:{REGION}:*:") for resource in stopped["Resource"])


def test_the_only_role_it_can_pass_on_is_that_of_its_nodes(karpenter: Recording) -> None:
    passing = statements(karpenter, "iam-integration")[0]
    assert actions(passing) == ["iam:PassRole"]
    assert passing["Resource"] == karpenter.named("karpenter-node", "aws:iam/role:Role").outputs["arn"]


def test_a_node_role_that_is_there_is_passed_on_and_gets_no_second_access_entry() -> None:
    # EKS itself makes the entry of a role that a managed node group has (Amazon EKS user guide, access entries).
    recording = recorded("arn:aws:iam::111122223333:role/eks/nodes")
    assert recording.outputs["node_role"] == "nodes"
    assert statements(recording, "iam-integration")[0]["Resource"] == "arn:aws:iam::111122223333:role/eks/nodes"
    assert recording.of_type("aws:eks/accessEntry:AccessEntry") == []
    assert [role.name for role in recording.of_type("aws:iam/role:Role")] == ["karpenter-controller"]


def test_policies_name_the_account_of_their_role_with_no_look_up(karpenter: Recording) -> None:
    (discovery,) = statements(karpenter, "eks-integration")
    assert discovery["Resource"] == f"arn:aws:eks:{REGION}:111122223333:cluster/{CLUSTER}"
    assert karpenter.invokes == ()


def test_each_policy_fits_iams_6144_characters_for_the_longest_names() -> None:
    # EKS: at most 100 characters for a cluster; IAM: 64 for a role; SQS: 80 for a queue.
    arn = f"arn:aws-us-gov:iam::111122223333:role/{'r' * 64}"
    filled = iam.documents(
        "karpenter.json",
        partition="aws-us-gov",
        region="ap-southeast-1",
        cluster_name="c" * 100,
        account_id="111122223333",
        node_role_arn=arn,
        queue_arn=f"arn:aws-us-gov:sqs:ap-southeast-1:111122223333:{'q' * 80}",
    )
    assert set(filled) == set(STATEMENTS)
    assert max(len(document) for document in filled.values()) <= 6144
    assert sum(len(document) for document in filled.values()) > 6144, "one policy would do"
    assert "${" not in "".join(filled.values())


def test_a_placeholder_without_a_value_is_an_error_not_a_policy_for_nobody() -> None:
    with pytest.raises(KeyError, match="partition"):
        iam.documents("karpenter.json", region=REGION)


def test_only_pods_with_an_association_can_be_the_controller(karpenter: Recording) -> None:
    role = karpenter.named("karpenter-controller", "aws:iam/role:Role")
    (statement,) = json.loads(role.inputs["assumeRolePolicy"])["Statement"]
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert statement["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    (association,) = karpenter.of_type("aws:eks/podIdentityAssociation:PodIdentityAssociation")
    assert association.inputs["roleArn"] == role.outputs["arn"]
    assert (association.inputs["namespace"], association.inputs["serviceAccount"]) == ("kube-system", "karpenter")
    values = release(karpenter, "karpenter-controller").inputs["values"]
    assert values["serviceAccount"]["name"] == association.inputs["serviceAccount"]


def test_its_nodes_may_join_by_their_role(karpenter: Recording) -> None:
    role = karpenter.named("karpenter-node", "aws:iam/role:Role")
    (entry,) = karpenter.of_type("aws:eks/accessEntry:AccessEntry")
    assert (entry.inputs["principalArn"], entry.inputs["type"]) == (role.outputs["arn"], "EC2_LINUX")
    assert karpenter.outputs["node_role"] == role.outputs["name"]
    attached = [found.inputs["policyArn"] for found in karpenter.of_type(ATTACHMENT) if "-node-A" in found.name]
    assert [arn.rsplit("/", 1)[1] for arn in attached] == list(iam.NODE_POLICIES)


def test_the_queue_forgets_after_five_minutes_and_is_encrypted(karpenter: Recording) -> None:
    queue = karpenter.named("karpenter-interruption", "aws:sqs/queue:Queue")
    assert queue.inputs["name"] == CLUSTER
    assert queue.inputs["messageRetentionSeconds"] == 300
    assert queue.inputs["sqsManagedSseEnabled"] is True


def test_only_aws_events_reach_the_queue_and_nothing_without_tls(karpenter: Recording) -> None:
    queue = karpenter.named("karpenter-interruption", "aws:sqs/queue:Queue")
    (policy,) = karpenter.of_type("aws:sqs/queuePolicy:QueuePolicy")
    allow, deny = json.loads(policy.inputs["policy"])["Statement"]
    assert allow["Principal"] == {"Service": ["events.amazonaws.com", "sqs.amazonaws.com"]}
    assert (allow["Effect"], allow["Action"]) == ("Allow", "sqs:SendMessage")
    assert (deny["Effect"], deny["Principal"], deny["Action"]) == ("Deny", "*", "sqs:*")
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert allow["Resource"] == deny["Resource"] == queue.outputs["arn"]


def test_it_hears_of_all_five_ways_to_lose_an_instance(karpenter: Recording) -> None:
    queue = karpenter.named("karpenter-interruption", "aws:sqs/queue:Queue")
    rules = karpenter.of_type("aws:cloudwatch/eventRule:EventRule")
    heard = {
        (pattern["source"][0], pattern["detail-type"][0])
        for pattern in (json.loads(rule.inputs["eventPattern"]) for rule in rules)
    }
    assert heard == {
        ("aws.health", "AWS Health Event"),
        ("aws.ec2", "EC2 Spot Instance Interruption Warning"),
        ("aws.ec2", "EC2 Instance Rebalance Recommendation"),
        ("aws.ec2", "EC2 Instance State-change Notification"),
        ("aws.ec2", "EC2 Capacity Reservation Instance Interruption Warning"),
    }
    targets = karpenter.of_type("aws:cloudwatch/eventTarget:EventTarget")
    assert {target.inputs["rule"] for target in targets} == {rule.outputs["name"] for rule in rules}
    assert {target.inputs["arn"] for target in targets} == {queue.outputs["arn"]}


def test_the_releases_are_pinned_and_named_as_the_charts_expect(karpenter: Recording) -> None:
    for name, chart in (("karpenter-crd", versions.KARPENTER_CRD), ("karpenter-controller", versions.KARPENTER)):
        inputs = release(karpenter, name).inputs
        assert (inputs["chart"], inputs["version"]) == (chart.chart, "1.14.1")
        assert inputs["namespace"] == "kube-system"
        assert not inputs.get("skipAwait")
    assert release(karpenter, "karpenter-crd").inputs["name"] == "karpenter-crd"
    assert release(karpenter, "karpenter-controller").inputs["name"] == "karpenter"


def test_crds_come_from_their_own_chart_because_helm_never_upgrades_those_of_another(karpenter: Recording) -> None:
    controller = release(karpenter, "karpenter-controller")
    assert controller.inputs["skipCrds"] is True
    assert karpenter.destroyed_before(controller, release(karpenter, "karpenter-crd"))


def test_the_controller_is_told_its_cluster_queue_and_region(karpenter: Recording) -> None:
    values = release(karpenter, "karpenter-controller").inputs["values"]
    assert values["settings"] == {
        "clusterName": CLUSTER,
        "interruptionQueue": CLUSTER,
    }
    # The metadata service, its other source, is one hop too far for a pod.
    assert values["controller"]["env"] == [{"name": "AWS_REGION", "value": REGION}]
    assert values["replicas"] == 2
    assert set(values["controller"]["resources"]) == {"requests", "limits"}


def test_the_controller_outlives_the_pools_and_all_it_needs_outlives_the_controller(karpenter: Recording) -> None:
    controller = release(karpenter, "karpenter-controller")
    assert karpenter.destroyed_before(karpenter.named("pool"), controller)
    needed = [
        karpenter.named("system-nodes"),
        *karpenter.of_type(
            POLICY,
            ATTACHMENT,
            "aws:iam/role:Role",
            "aws:eks/accessEntry:AccessEntry",
            "aws:eks/podIdentityAssociation:PodIdentityAssociation",
            "aws:sqs/queuePolicy:QueuePolicy",
            "aws:cloudwatch/eventRule:EventRule",
            "aws:cloudwatch/eventTarget:EventTarget",
        ),
        karpenter.named("karpenter-interruption", "aws:sqs/queue:Queue"),
    ]
    for resource in needed:
        assert karpenter.destroyed_before(controller, resource), f"{resource.name} goes before the controller"


def test_entries_and_associations_wait_for_the_cluster(karpenter: Recording) -> None:
    for kind in ("aws:eks/accessEntry:AccessEntry", "aws:eks/podIdentityAssociation:PodIdentityAssociation"):
        (found,) = karpenter.of_type(kind)
        assert karpenter.destroyed_before(found, karpenter.named("cluster"))


def test_the_account_wide_role_for_spot_is_left_alone(karpenter: Recording) -> None:
    assert karpenter.of_type("aws:iam/serviceLinkedRole:ServiceLinkedRole") == []


def test_nothing_uses_a_default_provider_or_stands_twice(karpenter: Recording) -> None:
    assert default_provider_users(karpenter) == []
    assert duplicate_urns(karpenter) == []
