"""What a change of the settings does to a stack that serves: in place, rolling, or new beside old until it is ready.

Each change is two recordings of the whole program, compared as the engine would. Not proven: how long a step takes,
what Karpenter and KEDA do in between, and that a rolling update ends (that needs a node for one replica more).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from components import versions
from planning.stackfile import read_stack, stack_path
from tests.change.comparison import Fate, Update
from tests.change.replacement import AWS, EKS_CLUSTER
from tests.harness import ROOT, Recording, Resource, record, record_with

DEPLOYMENT = "kubernetes:apps/v1:Deployment"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
JOB = "kubernetes:batch/v1:Job"
INGRESS = "kubernetes:networking.k8s.io/v1:Ingress"
NODE_POOL = "kubernetes:karpenter.sh/v1:NodePool"
NODE_CLASS = "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass"
KEY = "aws:kms/key:Key"
RELEASE = "kubernetes:helm.sh/v3:Release"
SCALED_OBJECT = "kubernetes:keda.sh/v1alpha1:ScaledObject"

Tiers = list[dict[str, Any]]


def tiers(**of_the_first: object) -> Tiers:
    """The dev stack's tiers, with some settings of the first changed."""
    found = read_stack(stack_path("dev", ROOT)).values["tiers"]
    assert isinstance(found, list)
    return [{**found[0], **of_the_first}, *found[1:]]


MODEL: Mapping[str, object] = {"tiers": tiers(model="Qwen/Qwen3-8B")}
GPU: Mapping[str, object] = {"tiers": tiers(gpus=["L40S"])}
AMI: Mapping[str, object] = {"capacity": {"amiAlias": "al2023@v20260625"}}
NAME: Mapping[str, object] = {"tiers": tiers(name="swift"), "routing": {"defaultTier": "swift"}}
ADDED: Mapping[str, object] = {"tiers": [*tiers(), {**tiers()[0], "name": "more"}]}
REMOVED: Mapping[str, object] = {"tiers": tiers()[:2]}
SPOT: Mapping[str, object] = {"capacity": {"spot": False}, "budget": {"monthlyUsd": 2000}}
ENGINE: Mapping[str, object] = {
    "tiers": tiers(quantization="gguf", maxModelLen=4096, slo={"ttftMs": 60000, "tpotMs": 150})
}
BY_MODEL: Mapping[str, object] = {"routing": {"defaultTier": "fast", "byModelField": True}}
APART: Mapping[str, object] = {"tiers": tiers(disaggregation={"enabled": True, "insist": True})}
PAUSED: Mapping[str, object] = {"tiers": tiers(pausedReplicas=0)}
CHANGES = {
    "model": MODEL,
    "gpus": GPU,
    "amiAlias": AMI,
    "name": NAME,
    "tier added": ADDED,
    "tier removed": REMOVED,
    "spot": SPOT,
    "engine": ENGINE,
    "disaggregation": APART,
    "pausedReplicas": PAUSED,
    "model field": BY_MODEL,
}


#: What a cluster keeps for life; not among the changes of a stack that goes on serving.
FOR_LIFE: Mapping[str, Mapping[str, object]] = {
    "roleArn": {"cluster": {"roleArn": "arn:aws:iam::111122223333:role/eks/control-plane"}},
    "secretsKeyArn": {
        "cluster": {"secretsKeyArn": "arn:aws:kms:us-east-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"}
    },
    "vpcCidr": {"network": {"vpcCidr": "10.8.0.0/16"}},
}


@functools.cache
def changed(name: str) -> Update:
    """Change one thing of the dev stack."""
    return Update(record("dev", preview=False), record_with("dev", preview=False, **{**CHANGES, **FOR_LIFE}[name]))


SLOW = pytest.mark.slow
"""Each change is a recording of the whole program: some seconds."""


def quickly(names: Iterable[str], *quick: str) -> list[pytest.ParameterSet]:
    """Give parameters of which all but the ``quick`` ones are left to the slow tier."""
    return [pytest.param(name, marks=() if name in quick else SLOW) for name in names]


@pytest.fixture(params=quickly(CHANGES, "model", "name"))
def update(request: pytest.FixtureRequest) -> Update:
    return changed(request.param)


def engines(recording: Recording) -> list[Resource]:
    return [one for one in recording.of_type(DEPLOYMENT) if "-engine-" in one.name]


# Whatever changes -----------------------------------------------------------------------------------------------


def test_nothing_is_made_under_a_name_that_is_taken(update: Update) -> None:
    assert update.collisions == [], "the API server would refuse it, half way through the update"


def test_nothing_that_serves_is_deleted_to_make_room_for_its_successor(update: Update) -> None:
    first = [update.new.by_urn[urn].name for urn, fate in update.fates.items() if fate is Fate.REPLACED_AFTER_DELETION]
    assert first == [], "between the two there is nothing"


def test_a_deployment_that_is_left_over_goes_when_all_that_is_new_is_ready(update: Update) -> None:
    deletions = [place for place, step in enumerate(update.steps) if step.action == "delete"]
    others = [place for place, step in enumerate(update.steps) if step.action != "delete"]
    assert not deletions or not others or min(deletions) > max(others)


def test_engines_roll_with_no_replica_less_and_keep_the_number_that_keda_set(update: Update) -> None:
    assert engines(update.new)
    for one in engines(update.new):
        strategy = one.inputs.at("spec", "strategy")
        assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}, one.name
        if not one.name.endswith("floor"):
            assert one.inputs.at("spec", "replicas") is None, "an update would set it and fight the autoscaler"


def test_new_pods_find_their_pool_there_and_old_ones_leave_theirs_first(update: Update) -> None:
    for place, step in enumerate(update.steps):
        if step.resource.type not in {NODE_POOL, NODE_CLASS}:
            continue
        users = [
            at
            for at, other in enumerate(update.steps)
            if other.resource.type == DEPLOYMENT
            and _pool(other.resource) == step.resource.inputs.at("metadata", "name")
            and (other.action == "delete") == (step.action == "delete")
        ]
        wrong = [at for at in users if (at > place if step.action == "delete" else at < place)]
        assert wrong == [], f"{step.action} {step.resource.name}"


def _pool(deployment: Resource) -> object:
    return deployment.inputs.at("spec", "template", "spec", "nodeSelector", "frugal-llm/pool")


def test_the_bucket_has_a_checkpoint_before_an_engine_reads_it(update: Update) -> None:
    jobs = [
        urn for urn, fate in update.fates.items() if urn in update.new.by_urn and update.new.by_urn[urn].type == JOB
    ]
    assert jobs
    for engine in engines(update.new):
        assert set(jobs) <= update.new.upstream(engine), f"{engine.name} would start on an empty bucket"


def test_a_job_whose_template_changes_is_another_job(update: Update) -> None:
    """A Job's template cannot be updated; under one name the old one would have to go first."""
    for job in update.new.of_type(JOB):
        assert job.inputs.at("metadata", "name") is None, f"{job.name}: its name is Pulumi's, new with each replacement"


# One by one -----------------------------------------------------------------------------------------------------


def test_a_new_model_is_fetched_then_rolled_out_then_scaled_by_its_own_measure() -> None:
    update = changed("model")
    fetched = set(update.of(JOB).values())
    assert fetched == {Fate.CREATED, Fate.DELETED}, "the old job goes; what it fetched stays in the bucket"
    assert update.of(DEPLOYMENT)["fast-engine-deployment"] is Fate.UPDATED
    assert set(update.of(SCALED_OBJECT).values()) == {Fate.UPDATED}
    rolled = update.place("update", "fast-engine-deployment", DEPLOYMENT)
    assert rolled < update.place("update", "fast-autoscaler-engine", SCALED_OBJECT)
    assert update.of(INGRESS) == {}, "clients go on by the tier's name"
    assert {name.split("-")[0] for name in update.of(DEPLOYMENT)} == {"fast"}, "other tiers do not notice"


def test_a_routers_new_configuration_is_a_new_config_map_and_the_next_router_is_ready_before_the_last_goes() -> None:
    update = changed("model")
    maps = update.of(CONFIG_MAP)
    assert maps == {"fast-router-envoy": Fate.REPLACED}
    assert update.of(DEPLOYMENT)["fast-router-deployment"] is Fate.UPDATED
    router = update.new.named("fast-router-deployment")
    rolling = router.inputs.at("spec", "strategy", "rollingUpdate")
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}


@SLOW
def test_other_gpus_change_the_pool_in_place_before_the_engine_rolls_onto_it() -> None:
    update = changed("gpus")
    assert update.of(NODE_POOL) == {"pool-fast-pool": Fate.UPDATED}
    assert update.of(DEPLOYMENT)["fast-engine-deployment"] is Fate.UPDATED
    assert update.place("update", "pool-fast-pool", NODE_POOL) < update.place(
        "update", "fast-engine-deployment", DEPLOYMENT
    )
    assert Fate.CREATED not in update.of(DEPLOYMENT).values()


@SLOW
def test_a_new_image_rolls_every_engine_and_lets_karpenter_drain_none() -> None:
    """Nodes of the old image lack the label that new pods select, so drift finds no place for the old ones' pods."""
    update = changed("amiAlias")
    assert set(update.of(NODE_CLASS).values()) == set(update.of(NODE_POOL).values()) == {Fate.UPDATED}
    assert update.of(DEPLOYMENT) == {one.name: Fate.UPDATED for one in engines(update.new)}
    for one in engines(update.new):
        paths = [path for path in update.differences[one.urn].changed if path[-1] == "frugal-llm/node-image"]
        assert len(paths) == 1
    for pool in update.new.of_type(NODE_POOL):
        budgets = pool.inputs.at("spec", "disruption", "budgets")
        assert {"nodes": "1", "reasons": ["Drifted"]} in budgets, "and what drifts for another reason goes one by one"


def test_a_renamed_tier_is_served_under_its_old_name_until_the_new_one_answers() -> None:
    update = changed("name")
    assert update.of(INGRESS) == {"ingress-ingress": Fate.UPDATED}, "the load balancer keeps its address"
    switched = update.place("update", "ingress-ingress", INGRESS)
    for part in ("engine", "router"):
        assert update.place("create", f"swift-{part}-deployment", DEPLOYMENT) < switched
        assert switched < update.place("delete", f"fast-{part}-deployment", DEPLOYMENT)
    for part in ("engine-deployment", "router-service"):
        created = next(one for one in update.new.resources if one.name == f"swift-{part}")
        assert created.urn in update.new.upstream(update.new.named("ingress-ingress")), "not by chance, by dependency"
    assert update.of(JOB) == {}, "the checkpoint is the same"


@SLOW
def test_a_tier_that_is_added_is_in_the_rules_when_it_answers_and_others_do_not_notice() -> None:
    update = changed("tier added")
    assert update.place("create", "more-engine-deployment", DEPLOYMENT) < update.place(
        "update", "ingress-ingress", INGRESS
    )
    assert set(update.of(DEPLOYMENT).values()) == {Fate.CREATED}


@SLOW
def test_a_tier_that_is_removed_leaves_the_rules_before_its_pods_go() -> None:
    update = changed("tier removed")
    assert update.place("update", "ingress-ingress", INGRESS) < update.place(
        "delete", "batch-engine-deployment", DEPLOYMENT
    )
    assert set(update.of(DEPLOYMENT).values()) == {Fate.DELETED}
    assert update.place("delete", "batch-autoscaler-engine", SCALED_OBJECT) < update.place(
        "delete", "batch-engine-deployment", DEPLOYMENT
    ), "KEDA must not scale what is going"


@SLOW
def test_a_pause_and_its_end_touch_the_scaler_and_the_alert_of_its_start_and_nothing_that_serves() -> None:
    update = changed("pausedReplicas")
    touched = [urn for urn, fate in update.fates.items() if fate is not Fate.SAME]
    assert [update.new.by_urn[urn].name for urn in touched] == ["fast-autoscaler-engine", "observability-rules"]
    assert update.of(SCALED_OBJECT) == {"fast-autoscaler-engine": Fate.UPDATED}


@SLOW
def test_buying_on_demand_only_changes_pools_in_place() -> None:
    update = changed("spot")
    assert Fate.UPDATED in update.of(NODE_POOL).values()
    assert set(update.of(DEPLOYMENT).values()) <= {Fate.UPDATED}


@SLOW
@pytest.mark.parametrize("name", ["engine", "disaggregation"])
def test_another_engine_keeps_the_tiers_identity_and_address(name: str) -> None:
    update = changed(name)
    for type_ in ("kubernetes:core/v1:ServiceAccount", "kubernetes:core/v1:Service"):
        assert set(update.of(type_).values()) <= {Fate.UPDATED}, "a second one under the name would be refused"
    created = [name for name, fate in update.of(DEPLOYMENT).items() if fate is Fate.CREATED]
    for each in created:
        gone = [name for name, fate in update.of(DEPLOYMENT).items() if fate is Fate.DELETED]
        assert all(update.place("create", each, DEPLOYMENT) < update.place("delete", old, DEPLOYMENT) for old in gone)


@SLOW
def test_karpenters_definitions_are_upgraded_before_it_and_its_pools_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = record("dev", preview=False)
    for name in ("KARPENTER", "KARPENTER_CRD"):
        monkeypatch.setattr(versions, name, replace(getattr(versions, name), version="1.15.0"))
    update = Update(old, record_with("dev", preview=False))
    assert [(step.action, step.resource.name) for step in update.steps] == [
        ("update", "karpenter-crd"),
        ("update", "karpenter-controller"),
    ]
    controller = update.new.named("karpenter-controller", RELEASE)
    assert update.new.named("karpenter-crd", RELEASE).urn in update.new.upstream(controller)


@SLOW
def test_a_new_kubernetes_version_updates_in_place_and_rolls_every_engine_onto_its_own_image() -> None:
    old = record_with("dev", preview=False, cluster={"kubernetesVersion": "1.35"})
    update = Update(old, record("dev", preview=False))
    assert update.of(EKS_CLUSTER) == {"cluster": Fate.UPDATED}
    assert update.of("aws:eks/nodeGroup:NodeGroup") == {"cluster-system": Fate.UPDATED}
    assert update.of("kubernetes:core/v1:Namespace") == {"serving-namespace": Fate.UPDATED}
    assert update.of(DEPLOYMENT) == {one.name: Fate.UPDATED for one in engines(update.new)}, (
        "Karpenter resolves the alias for the new version: left to drift, each replica would be stopped and load again"
    )
    assert set(update.of(NODE_POOL).values()) == {Fate.UPDATED}
    for one in engines(update.new):
        (path,) = update.differences[one.urn].changed
        assert path[-1] == "frugal-llm/node-image", one.name
    order = [step.resource.type for step in update.steps]
    assert order.index(EKS_CLUSTER) < order.index("aws:eks/nodeGroup:NodeGroup"), "nodes may not be newer"


# What a cluster keeps for life -----------------------------------------------------------------------------------


@SLOW
def test_another_role_of_the_control_plane_deletes_the_cluster_before_there_is_a_new_one() -> None:
    """Not followed here: all that is in the cluster, which goes with it."""
    update = changed("roleArn")
    assert update.of(EKS_CLUSTER) == {"cluster": Fate.REPLACED_AFTER_DELETION}
    assert update.place("delete", "cluster", EKS_CLUSTER) < update.place("create", "cluster", EKS_CLUSTER)


@SLOW
def test_another_block_of_addresses_makes_a_network_that_the_cluster_cannot_move_to() -> None:
    update = changed("vpcCidr")
    assert update.of("aws:ec2/vpc:Vpc") == {"network-vpc": Fate.REPLACED}
    assert update.of(EKS_CLUSTER) == {"cluster": Fate.REFUSED}


def test_another_key_never_reaches_the_cluster_while_its_own_goes_and_can_be_had_back_for_30_days() -> None:
    """A key that waits for its deletion works no more, so the page says not to; the longest wait is the way back."""
    update = changed("secretsKeyArn")
    assert update.of(EKS_CLUSTER) == {"cluster": Fate.UPDATED_IN_NAME}
    assert update.of(KEY) == {"cluster-secrets": Fate.DELETED}
    assert update.old.named("cluster-secrets", KEY).inputs["deletionWindowInDays"] == 30


# The rules themselves -------------------------------------------------------------------------------------------


def test_every_aws_type_of_the_stacks_has_its_rule(update: Update) -> None:
    types = {one.type.partition(":")[2] for one in update.new.resources if one.package == "aws"}
    assert types <= AWS.keys()


def test_no_change_is_no_step() -> None:
    one = record("dev", preview=False)
    assert Update(one, one).steps == ()


Broken = Callable[[Resource], Resource]


def test_the_comparison_sees_a_name_that_is_taken_and_a_deletion_that_comes_first() -> None:
    """So the tests above can fail: a moved component, and a fixed name on what cannot be updated."""
    old = record("dev", preview=False)
    account = old.named("fast-engine-surroundings-service-account")
    moved = replace(account, urn=account.urn.replace("serving:Engine", "serving:OtherEngine"))
    resources = tuple(moved if one is account else one for one in old.resources)
    assert len(Update(old, replace(old, resources=resources)).collisions) == 1

    deployment = old.named("fast-engine-deployment")
    spec = {**deployment.inputs["spec"], "selector": {"matchLabels": {"other": "labels"}}}
    selecting = replace(deployment, inputs=type(deployment.inputs)({**deployment.inputs, "spec": spec}))
    resources = tuple(selecting if one is deployment else one for one in old.resources)
    update = Update(old, replace(old, resources=resources))
    assert update.of(DEPLOYMENT) == {"fast-engine-deployment": Fate.REPLACED_AFTER_DELETION}
    assert [step.action for step in update.steps] == ["delete", "create"]
