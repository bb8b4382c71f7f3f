"""Properties of the whole program, over every stack: what no single component can promise.

They hold for what the program asks for. Not proven here: that AWS and Kubernetes accept it, that finalizers are done
when a delete returns, and what `eks.Cluster` and the charts create inside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import yaml

from offline import manifests
from offline.engine import ProgramRefused
from planning.stackfile import read_stack, stack_names, stack_path
from settings import SECRET_KEYS
from tests.harness import (
    ROOT,
    Recording,
    Resource,
    default_provider_users,
    destroy_reachability,
    duplicate_urns,
    helm_releases,
    is_secret,
    kubernetes_objects,
    provider_inputs,
    record,
    record_stack,
    record_with,
)

NODE_POOL = "kubernetes:karpenter.sh/v1:NodePool"
NODE_CLASS = "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass"
SCALED_OBJECT = "kubernetes:keda.sh/v1alpha1:ScaledObject"
INGRESS = "kubernetes:networking.k8s.io/v1:Ingress"
SERVICE = "kubernetes:core/v1:Service"
WORKLOADS = {
    "kubernetes:apps/v1:Deployment",
    "kubernetes:apps/v1:StatefulSet",
    "kubernetes:apps/v1:DaemonSet",
    "kubernetes:batch/v1:Job",
}
# Deleting one of these deletes something in AWS, by a controller that has to be there to do it.
OWNERS_OF_CLOUD_OBJECTS = {
    NODE_POOL,
    NODE_CLASS,
    INGRESS,
    SERVICE,
    "kubernetes:core/v1:PersistentVolumeClaim",
    "kubernetes:elbv2.k8s.aws/v1beta1:TargetGroupBinding",
    "kubernetes:elbv2.k8s.aws/v1beta1:IngressClassParams",
    "kubernetes:gateway.networking.k8s.io/v1:Gateway",
}

Chosen = Callable[[Recording], list[Resource]]


# What exists -----------------------------------------------------------------------------------------------------


def test_the_stacks_are_those_the_documentation_names() -> None:
    assert stack_names(ROOT) == ["dev", "prod", "staging"]


def test_no_urn_stands_twice(preview: Recording) -> None:
    assert duplicate_urns(preview) == [], "the engine refuses the second resource of a URN; mocks do not"


def test_names_are_unique_under_each_parent(preview: Recording) -> None:
    seen = [(one.parent, one.type, one.name) for one in preview.resources]
    assert len(seen) == len(set(seen))


def test_nothing_uses_a_default_provider(preview: Recording) -> None:
    assert default_provider_users(preview) == [], "these would use the shell's credentials or ~/.kube/config"


def test_every_kubernetes_object_is_on_the_stacks_own_cluster(preview: Recording) -> None:
    clusters = {one.urn for one in preview.of_type("eks:index:Cluster")}
    objects = preview.where(lambda one: one.package == "kubernetes")
    assert objects
    assert clusters
    for one in objects:
        provider = preview.by_urn[one.provider]
        assert provider.type == "pulumi:providers:kubernetes", one.urn
        assert set(provider.property_dependencies["kubeconfig"]) & clusters, f"{one.name} is on some other cluster"


def test_the_engine_is_told_to_make_no_default_providers(stack: str) -> None:
    disabled = read_stack(stack_path(stack, ROOT)).config.get("pulumi:disable-default-providers")
    assert isinstance(disabled, list)
    assert {"aws", "kubernetes"} <= set(disabled)
    assert "*" not in disabled, "eks.Cluster needs its plugin's own default provider (pulumi-eks#1508)"


def test_every_aws_resource_is_tagged_by_its_provider(preview: Recording) -> None:
    for one in preview.where(lambda one: one.package == "aws"):
        tags = (provider_inputs(preview, one).get("defaultTags") or {}).get("tags")
        assert tags, f"{one.name} ({one.type}) has a provider without default tags"
        assert preview.stack in tags.values(), f"{one.name}: no tag tells this stack from another"
    for cluster in preview.of_type("eks:index:Cluster"):
        inside = preview.by_urn[cluster.providers["aws"]]
        assert "defaultTags" in inside.inputs, "what the component creates would be untagged"


def test_preview_and_update_ask_for_the_same_graph(preview: Recording, update: Recording) -> None:
    asked = [{one.urn: one.requires for one in recording.resources} for recording in (preview, update)]
    assert asked[0] == asked[1], "a first preview would show something else than what comes"


def test_components_have_types_of_three_parts_of_this_project(update: Recording) -> None:
    for one in update.where(lambda one: one.kind == "component"):
        assert one.type.startswith("frugal-llm:"), one.type
        assert len(one.type.split(":")) == 3, f"{one.type} is no three-part token"


# Configuration ---------------------------------------------------------------------------------------------------


def test_every_key_of_a_stack_is_declared_with_its_type(stack: str) -> None:
    """The engine checks the types of `Pulumi.yaml` before it runs the program; the offline engine does not."""
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))
    types = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}
    prefix = f"{project['name']}:"
    declarations = {key.removeprefix(prefix): declared for key, declared in project["config"].items()}
    for key, value in read_stack(stack_path(stack, ROOT)).values.items():
        assert key in declarations, f"{key} is not declared"
        declared = declarations[key]
        assert declared["description"], f"{key} is not described"
        assert isinstance(value, types[declared["type"]]), f"{key} is declared {declared['type']}"


def test_a_wrong_setting_is_refused_before_the_first_resource() -> None:
    with pytest.raises(ProgramRefused, match="tiers") as caught:
        record_with("dev", tiers=[{"name": "fast", "modle": "meta-llama/Llama-3.1-8B-Instruct"}])
    assert caught.value.registered == ()
    assert "modle" in str(caught.value)


def test_the_report_is_logged_once_and_before_all_else(preview: Recording) -> None:
    assert preview.texts("error") == []
    first = preview.messages[0]
    assert first.severity == "info"
    assert "month" in first.text


# Secrets ---------------------------------------------------------------------------------------------------------


def test_the_kubeconfig_is_a_secret_output(preview: Recording) -> None:
    assert is_secret(preview.outputs, "kubeconfig")


def test_what_a_kubernetes_secret_holds_is_a_secret_in_the_state(preview: Recording) -> None:
    for one in preview.of_type("kubernetes:core/v1:Secret"):
        for key in ("data", "stringData"):
            assert not one.inputs.get(key) or is_secret(one, key), f"{one.name}.{key} would be in the state in clear"


@pytest.mark.parametrize("key", sorted(SECRET_KEYS))
def test_a_secret_setting_never_leaves_the_secrets(key: str) -> None:
    canary = "hf_CANARYCANARYCANARYCANARYCANARYCANA"
    recording = record_with("dev", preview=False, **{key: canary})
    leaks = [
        f"{one.urn} {'.'.join(map(str, path))}"
        for one in recording.resources
        for path, text in _texts(dict(one.inputs))
        if canary in text and not one.inputs.is_secret(*path)
    ]
    leaks += [
        f"output {'.'.join(map(str, path))}"
        for path, text in _texts(dict(recording.outputs))
        if canary in text and not is_secret(recording.outputs, *path)
    ]
    leaks += [message.text for message in recording.messages if canary in message.text]
    assert leaks == []
    shown = [one.manifest for one in manifests.kubernetes_objects(recording)]
    assert canary not in json.dumps([*shown, *(release.values for release in helm_releases(recording))])


def _texts(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))


# Destroy ---------------------------------------------------------------------------------------------------------


def types(*tokens: str) -> Chosen:
    return lambda recording: recording.of_type(*tokens)


def release(chart: str) -> Chosen:
    """Choose the releases of a chart, whether named in a repository or by its OCI address."""
    return lambda recording: [one.resource for one in helm_releases(recording) if one.chart.rpartition("/")[2] == chart]


def identity(service_account: str) -> Chosen:
    """Choose what gives a service account its rights in AWS: the association, the role and the role's policies."""

    def chosen(recording: Recording) -> list[Resource]:
        associations = [
            one
            for one in recording.of_type("aws:eks/podIdentityAssociation:PodIdentityAssociation")
            if one.inputs["serviceAccount"] == service_account
        ]
        roles = {urn for one in associations for urn in one.property_dependencies["roleArn"]}
        policies = recording.where(
            lambda one: (
                one.type.startswith("aws:iam/rolePolicy")
                and bool(roles & set(one.property_dependencies.get("role", ())))
            )
        )
        return [*associations, *(recording.by_urn[urn] for urn in sorted(roles)), *policies]

    return chosen


def node_entries(recording: Recording) -> list[Resource]:
    """Choose the access entries of nodes (a person's entry may go at any time)."""
    entries = recording.of_type("aws:eks/accessEntry:AccessEntry")
    return [one for one in entries if str(one.inputs.get("type", "")).startswith("EC2")]


def core_addons(recording: Recording) -> list[Resource]:
    """Choose the add-ons without which no controller on the cluster works."""
    core = {"vpc-cni", "kube-proxy", "coredns", "eks-pod-identity-agent"}
    return [one for one in recording.of_type("aws:eks/addon:Addon") if one.inputs["addonName"] in core]


def private_network(recording: Recording) -> list[Resource]:
    """Choose the VPC and the subnets without public addresses, which is where nodes and control plane are."""
    subnets = recording.of_type("aws:ec2/subnet:Subnet")
    private = [one for one in subnets if not one.inputs.get("mapPublicIpOnLaunch") and "private" in one.name]
    return [*recording.of_type("aws:ec2/vpc:Vpc"), *private]


def every_ingress(recording: Recording) -> list[Resource]:
    return recording.where(
        lambda one: one.type == INGRESS or (one.type == SERVICE and one.inputs.at("spec", "type") == "LoadBalancer")
    )


NODE_GROUP = types("aws:eks/nodeGroup:NodeGroup", "eks:index:ManagedNodeGroup")
CLUSTER = types("eks:index:Cluster", "aws:eks/cluster:Cluster")
NETWORK = types(
    "aws:ec2/vpc:Vpc",
    "aws:ec2/subnet:Subnet",
    "aws:ec2/internetGateway:InternetGateway",
    "aws:ec2/natGateway:NatGateway",
    "aws:ec2/route:Route",
    "aws:ec2/routeTable:RouteTable",
    "aws:ec2/routeTableAssociation:RouteTableAssociation",
)
QUEUE = types("aws:sqs/queue:Queue")
LOAD_BALANCER_CONTROLLER = release("aws-load-balancer-controller")


# What is destroyed first, what second, and what goes wrong the other way round.
DESTROY_ORDER: dict[str, tuple[Chosen, Chosen, str]] = {
    "class, karpenter": (types(NODE_CLASS), release("karpenter"), "only the controller clears a class's finalizer"),
    "pool, definitions": (
        types(NODE_POOL),
        release("karpenter-crd"),
        "a definition takes its objects along, unattended",
    ),
    "karpenter, definitions": (release("karpenter"), release("karpenter-crd"), "it cannot finish without them"),
    "karpenter, rights": (release("karpenter"), identity("karpenter"), "without rights it terminates nothing"),
    "karpenter, queue": (release("karpenter"), QUEUE, "the controller reads its queue until it leaves"),
    "karpenter, nodes": (release("karpenter"), NODE_GROUP, "the controller runs on the system nodes"),
    "karpenter, add-ons": (release("karpenter"), core_addons, "it needs network, DNS and pod identity to the end"),
    "class, entry": (
        types(NODE_CLASS),
        types("aws:eks/accessEntry:AccessEntry"),
        "a node that is shut out cannot drain",
    ),
    "ingress, controller": (every_ingress, LOAD_BALANCER_CONTROLLER, "only the controller deletes the load balancer"),
    "balancers, rights": (
        LOAD_BALANCER_CONTROLLER,
        identity("aws-load-balancer-controller"),
        "and only with its rights",
    ),
    "balancers, nodes": (LOAD_BALANCER_CONTROLLER, NODE_GROUP, "the controller runs on the system nodes"),
    "scaling, keda": (types(SCALED_OBJECT), release("keda"), "only KEDA clears a ScaledObject's finalizer"),
    "keda, nodes": (release("keda"), NODE_GROUP, "KEDA runs on the system nodes"),
    "nodes, cluster": (NODE_GROUP, CLUSTER, "they are the cluster's"),
    "nodes, network": (NODE_GROUP, NETWORK, "nodes reach AWS through the NAT gateway until they are gone"),
    "cluster, subnets": (
        CLUSTER,
        private_network,
        "the control plane's interfaces are in the subnets",
    ),
}


def test_a_node_pool_is_destroyed_before_its_class_which_terminates_its_nodes(preview: Recording) -> None:
    pools = preview.of_type(NODE_POOL)
    assert pools
    for pool in pools:
        of_pool = [one for one in preview.of_type(NODE_CLASS) if one.parent == pool.parent]
        assert [one.inputs["metadata"]["name"] for one in of_pool] == [
            pool.inputs["spec"]["template"]["spec"]["nodeClassRef"]["name"]
        ]
        assert destroy_reachability(preview, pool, of_pool[0])


@pytest.mark.parametrize("pair", DESTROY_ORDER)
def test_destroy_goes_from_the_workloads_to_the_network(preview: Recording, pair: str) -> None:
    first, second, because = DESTROY_ORDER[pair]
    befores, afters = first(preview), second(preview)
    assert befores, "nothing to destroy first"
    assert afters, "nothing to destroy second"
    wrong = [
        f"{before.name} before {after.name}"
        for before in befores
        for after in afters
        if not destroy_reachability(preview, before, after)
    ]
    assert wrong == [], because


def test_workloads_are_gone_before_the_pools_they_run_on(preview: Recording) -> None:
    pairs = [
        (workload, pool)
        for workload in preview.where(lambda one: one.type in WORKLOADS)
        for pool in preview.of_type(NODE_POOL)
        if _may_run_on(workload, pool)
    ]
    assert pairs
    wrong = [f"{one.name} before {pool.name}" for one, pool in pairs if not destroy_reachability(preview, one, pool)]
    assert wrong == [], "a pool that still runs something waits for its drain"


def _may_run_on(workload: Resource, pool: Resource) -> bool:
    """Say whether the scheduler may put a workload's pods on a pool's nodes, by labels and taints alone."""
    pod = workload.inputs.at("spec", "template", "spec", default={})
    labels = pool.inputs.at("spec", "template", "metadata", "labels", default={})
    labels = labels | {"karpenter.sh/nodepool": pool.inputs.at("metadata", "name")}
    wanted: Mapping[str, Any] = pod.get("nodeSelector") or {}
    if any(key in labels and labels[key] != value for key, value in wanted.items()):
        return False
    taints = pool.inputs.at("spec", "template", "spec", "taints", default=[])
    return all(any(_tolerates(one, taint) for one in pod.get("tolerations") or []) for taint in taints)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    same_key = toleration.get("key") in {None, taint["key"]}
    exists = toleration.get("operator") == "Exists"
    return same_key and (exists or toleration.get("value", "") == taint.get("value", ""))


def test_the_deletion_of_what_owns_cloud_objects_is_never_skipped(preview: Recording) -> None:
    owners = preview.where(lambda one: one.type in OWNERS_OF_CLOUD_OBJECTS)
    assert owners
    for one in owners:
        assert not one.deleted_with, f"{one.name} would leave its instances or load balancer behind"
        assert not one.retain_on_delete, one.name


def test_karpenters_objects_are_deleted_in_the_foreground_and_awaited(preview: Recording) -> None:
    objects = preview.of_type(NODE_POOL, NODE_CLASS)
    assert objects
    for one in objects:
        annotations = one.inputs.at("metadata", "annotations", default={})
        assert "pulumi.com/skipAwait" not in annotations, one.name
        assert "pulumi.com/deletionPropagationPolicy" not in annotations, one.name
        assert _minutes(one.timeouts.delete) >= 30, f"{one.name}: a GPU node drains longer than 10 min"


def _minutes(timeout: str) -> float:
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", timeout)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    return hours * 60 + minutes + seconds / 60


# Who owns what ---------------------------------------------------------------------------------------------------


def test_what_keda_scales_has_no_replicas_of_its_own(preview: Recording) -> None:
    targets = {
        (one["metadata"].get("namespace"), one["spec"]["scaleTargetRef"]["name"])
        for one in kubernetes_objects(preview, "ScaledObject")
    }
    assert targets
    deployments = {
        (one["metadata"].get("namespace"), one["metadata"]["name"]): one
        for one in kubernetes_objects(preview, "Deployment")
    }
    assert targets <= deployments.keys(), "a ScaledObject scales nothing"
    for target in targets:
        assert "replicas" not in deployments[target]["spec"], f"{target}: every update would fight the autoscaler"


@pytest.mark.slow
def test_the_program_is_the_same_from_run_to_run() -> None:
    assert record("prod").resources == record.__wrapped__("prod").resources


@pytest.mark.parametrize(
    ("budget", "mails"),
    [({"monthlyUsd": 800}, 0), ({"monthlyUsd": 800, "notify": ["ops@example.com"]}, 3), ({}, None)],
)
def test_aws_keeps_the_budget_whether_or_not_there_is_somebody_to_mail(budget: object, mails: int | None) -> None:
    kept = record_with("dev", budget=budget).of_type("aws:budgets/budget:Budget")
    assert [len(one.inputs.get("notifications") or []) for one in kept] == ([] if mails is None else [mails])


def test_a_budget_in_a_namespace_that_nothing_reads_ends_the_program() -> None:
    # The engine hands a program every key of the stack file; the planner's reader of the file refuses it too.
    file = read_stack(stack_path("dev", ROOT))
    misspelt = replace(file, config={**file.config, "frugal-lm:budget": {"monthlyUsd": 1}})
    with pytest.raises(ProgramRefused, match=r"frugal-lm:budget: is not read.*write frugal-llm:budget"):
        record_stack(misspelt)
