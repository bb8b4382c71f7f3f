"""The offline engine records faithfully what a program asks for.

Not proven here: that the engine of the Pulumi CLI behaves the same; the real wire, aliases being resolved, diffs and
replacements need that engine.
"""

from __future__ import annotations

import time
from pathlib import Path

import pulumi
import pulumi_aws as aws
import pytest

from offline.answers import Answers
from offline.engine import NotAnsweredOffline, ProgramRefused, run_program
from offline.recording import Recording
from tests.harness import (
    UNKNOWN,
    component_under_test,
    computed,
    default_provider_users,
    destroy_reachability,
    duplicate_urns,
    is_secret,
    named,
    provider_inputs,
)

PROGRAMS = Path(__file__).parent / "programs"
CONFIG = {"sample:token": "tok-en", "sample:replicas": "[1, 2]"}


def run(program: str, *, preview: bool = True, answers: Answers | None = None) -> Recording:
    path = PROGRAMS / f"{program}.py"
    return run_program(path, "sample", "dev", CONFIG, {"sample:token"}, preview=preview, answers=answers)


@pytest.fixture(scope="module")
def preview() -> Recording:
    return run("small")


@pytest.fixture(scope="module")
def update() -> Recording:
    return run("small", preview=False)


def test_computed_properties_are_unknown_in_a_preview_and_known_after(preview: Recording, update: Recording) -> None:
    assert preview.outputs["vpc"] is UNKNOWN
    assert update.outputs["vpc"].startswith("vpc-")
    role = named(update, "role")
    assert "arn:aws:sqs:eu-central-1:111122223333:group-queue-1" in role.inputs["assumeRolePolicy"]
    assert named(preview, "role").inputs["assumeRolePolicy"] is UNKNOWN


def test_nothing_comes_back_from_a_cluster_that_is_not_there_yet(preview: Recording, update: Recording) -> None:
    assert named(preview, "token").inputs.at("metadata", "namespace") is UNKNOWN, "as on a real first preview"
    assert named(update, "token").inputs.at("metadata", "namespace") == "apps"


def test_both_modes_ask_for_the_same_graph(preview: Recording, update: Recording) -> None:
    assert {one.urn: one.requires for one in preview.resources} == {one.urn: one.requires for one in update.resources}


def test_placeholders_say_what_will_stand_there() -> None:
    answers = Answers(placeholders=True)
    settings = named(run("small", preview=False, answers=answers), "settings")
    assert settings.inputs["data"]["queue"] == "${group-queue-1.arn}"
    assert "${group-queue-1.arn}" in answers.given


def test_secrets_are_unwrapped_but_stay_marked(preview: Recording) -> None:
    token = named(preview, "token")
    assert token.inputs["stringData"] == {"token": "tok-en"}
    assert is_secret(token, "stringData")
    assert is_secret(token, "stringData", "token")
    assert not is_secret(token, "metadata")
    assert named(preview, "metrics").inputs.holds_secret("values")
    assert is_secret(preview.outputs, "kubeconfig")
    assert not is_secret(preview.outputs, "region")


def test_no_secret_is_printed_with_a_recording(preview: Recording) -> None:
    assert "tok-en" not in repr(preview)


def test_parents_make_the_tree_and_the_urns(preview: Recording) -> None:
    queue = named(preview, "group-queue-1")
    assert preview.by_urn[queue.parent].name == "group"
    assert queue.urn == "urn:pulumi:dev::sample::sample:index:Group$aws:sqs/queue:Queue::group-queue-1"
    assert [one.name for one in preview.children(named(preview, "group"))] == ["group-queue-1", "group-queue-2"]
    assert named(preview, "vpc").parent == preview.stack_urn


def test_depending_on_a_component_is_depending_on_its_children(preview: Recording) -> None:
    names = [preview.by_urn[urn].name for urn in named(preview, "role").dependencies]
    assert names == ["group-queue-1", "group-queue-2"]


def test_resources_stand_in_dependency_order(preview: Recording) -> None:
    position = {one.urn: index for index, one in enumerate(preview.resources)}
    for one in preview.resources:
        for urn in one.requires:
            assert position.get(urn, -1) < position[one.urn], f"{one.name} stands before {urn}"


def test_options_are_recorded(preview: Recording) -> None:
    vpc, role = named(preview, "vpc"), named(preview, "role")
    assert vpc.protect
    assert vpc.ignore_changes == ("tags",)
    assert vpc.aliases == ("name=old-vpc",)
    assert vpc.timeouts.delete == "30m"
    assert role.deleted_with == vpc.urn
    assert vpc.source == "small.py:29"
    assert [preview.by_urn[urn].name for urn in role.property_dependencies["assumeRolePolicy"]] == ["group-queue-1"]


def test_a_plugins_component_is_one_resource_with_scalar_outputs(update: Recording) -> None:
    cluster = named(update, "cluster")
    assert cluster.kind == "remote"
    assert not update.children(cluster)
    assert '"current-context": "sample"' in cluster.outputs["kubeconfigJson"]
    assert cluster.outputs["oidcProviderArn"].startswith("arn:aws:iam::111122223333:oidc-provider/")
    assert "eksCluster" not in cluster.outputs, "whole resources inside the component are not imitated"


def test_explicit_providers_are_told_from_default_ones(preview: Recording) -> None:
    assert provider_inputs(preview, named(preview, "role"))["defaultTags"] == {"tags": {"project": "sample"}}
    assert default_provider_users(preview) == []
    assert default_provider_users(run("twice")) == [one.urn for one in run("twice").of_type("aws:sqs/queue:Queue")]


def test_destroy_order_is_reachability(preview: Recording) -> None:
    assert destroy_reachability(preview, "settings", "token"), "depends_on"
    assert destroy_reachability(preview, "settings", "group-queue-1"), "a property"
    assert destroy_reachability(preview, "settings", "cluster"), "its provider is configured by the cluster"
    assert destroy_reachability(preview, "group-queue-1", "group"), "its parent"
    assert not destroy_reachability(preview, "apps", "token"), "the other way round"
    assert not destroy_reachability(preview, "apps", "settings"), "unrelated"


def test_messages_and_invokes_are_recorded(preview: Recording) -> None:
    assert preview.texts("info") == ["the report of the program", "about the vpc"]
    assert preview.texts("warning") == ["one thing to watch"]
    assert preview.messages[-1].urn == named(preview, "vpc").urn
    assert [call.token for call in preview.invokes] == ["aws:index/getCallerIdentity:getCallerIdentity"]


def test_two_runs_record_the_same(preview: Recording) -> None:
    again = run("small")
    assert again.resources == preview.resources
    assert again.messages == preview.messages


def test_urns_that_stand_twice_are_found(preview: Recording) -> None:
    assert duplicate_urns(preview) == []
    assert duplicate_urns(run("twice")) == ["urn:pulumi:dev::sample::sample:index:Pair$aws:sqs/queue:Queue::queue"]


@pytest.mark.parametrize(
    ("program", "message", "registered"),
    [
        ("refuses", "2 problems in the configuration, nothing was created:\n  - sample:mode must be right", 0),
        ("exits", "sample:mode must be right", 0),
        ("late", "the name given is not allowed", 1),
    ],
)
@pytest.mark.parametrize("preview", [True, False])
def test_a_program_that_refuses_is_quoted(program: str, message: str, registered: int, preview: bool) -> None:
    with pytest.raises(ProgramRefused) as caught:
        run(program, preview=preview)
    assert str(caught.value) == message
    assert len(caught.value.registered) == registered


def test_a_bug_comes_out_as_itself() -> None:
    with pytest.raises(ZeroDivisionError):
        run("buggy")
    with pytest.raises(KeyError, match="given!"):
        run("buggy_later")


def test_an_answer_that_needs_an_account_is_not_invented() -> None:
    with pytest.raises(NotAnsweredOffline, match="aws:ec2/getAmi:getAmi, which needs an account"):
        run("asks")


def test_one_component_can_be_run_by_itself() -> None:
    def factory(opts: pulumi.ResourceOptions) -> dict[str, pulumi.Output[str]]:
        group = pulumi.ComponentResource("sample:index:Empty", "group", {}, opts)
        child = pulumi.ResourceOptions(parent=group)
        queue = aws.sqs.Queue("queue", kms_master_key_id=computed("key-1"), opts=child)
        return {"arn": queue.arn}

    update, preview = component_under_test(factory), component_under_test(factory, preview=True)
    assert named(update, "queue").inputs["kmsMasterKeyId"] == "key-1"
    assert named(preview, "queue").inputs["kmsMasterKeyId"] is UNKNOWN
    assert update.outputs["arn"].startswith("arn:aws:sqs:us-east-2:")
    assert preview.outputs["arn"] is UNKNOWN
    assert default_provider_users(update) == []


@pytest.mark.slow
def test_a_program_of_the_real_size_is_recorded_within_four_seconds() -> None:
    run("many")  # the SDKs' modules are loaded on first use
    started = time.process_time()
    recording = run("many")
    assert time.process_time() - started < 4
    assert len(recording.resources) == 243
