"""The weights bucket and its jobs as the program asks for them. What AWS makes of the policies is not proven here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pulumi
import pytest

from components.model_weights import ModelWeights, ModelWeightsArgs
from planning.plan import TierPlan
from tests.components.building import CLUSTER, REGION
from tests.components.plans import FAST, QUALITY, SMALL, SPLIT, TIERS
from tests.components.serving import environment, pods_that_can_write_to_their_image, refusals, restricted_violations
from tests.harness import (
    Recording,
    Resource,
    component_under_test,
    default_provider_users,
    duplicate_urns,
    kubernetes_objects,
)

ASSOCIATION = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
JOB = "kubernetes:batch/v1:Job"
LIFECYCLE = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"


def weights(*tiers: TierPlan, token: bool = True) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> Mapping[str, Any]:
        args = ModelWeightsArgs(
            tiers=tiers, cluster_name=CLUSTER, region=REGION, namespace="llm", hugging_face_token=token
        )
        return {"bucket": ModelWeights("weights", args, opts).bucket_name}

    return component_under_test(factory)


def sharing() -> TierPlan:
    plan = SPLIT.disaggregation
    assert plan is not None
    return replace(SPLIT, disaggregation=replace(plan, shared_store="s3"))


@pytest.fixture(scope="module")
def full() -> Recording:
    return weights(*TIERS)


def only(recording: Recording, type_: str) -> Resource:
    (found,) = recording.of_type(type_)
    return found


def jobs(recording: Recording) -> list[dict[str, Any]]:
    return [one["spec"]["template"]["spec"] for one in kubernetes_objects(recording, "Job")]


def role_of(recording: Recording, service_account: str) -> str:
    """Name the role that a service account gets."""
    (found,) = [one for one in recording.of_type(ASSOCIATION) if one.inputs["serviceAccount"] == service_account]
    (role,) = [one for one in recording.of_type("aws:iam/role:Role") if one.outputs["arn"] == found.inputs["roleArn"]]
    return role.name


def statements(recording: Recording, role: str) -> list[dict[str, Any]]:
    document = json.loads(recording.named(role, "aws:iam/rolePolicy:RolePolicy").inputs["policy"])
    return document["Statement"]


def actions(recording: Recording, role: str) -> set[str]:
    return {action for statement in statements(recording, role) for action in statement["Action"]}


# --- the bucket -----------------------------------------------------------------------------------------------------


def test_the_bucket_goes_with_the_stack(full: Recording) -> None:
    assert only(full, "aws:s3/bucket:Bucket").inputs["forceDestroy"] is True, "weights can be downloaded again"


def test_the_bucket_is_encrypted_versioned_and_closed_to_the_public(full: Recording) -> None:
    closed = only(full, "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock").inputs
    assert [closed[key] for key in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls")] == [True] * 3
    assert closed["restrictPublicBuckets"] is True
    encryption = only(
        full, "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    ).inputs
    assert encryption["rules"] == [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}]
    versioning = only(full, "aws:s3/bucketVersioning:BucketVersioning").inputs
    assert versioning["versioningConfiguration"] == {"status": "Enabled"}


def test_the_bucket_refuses_plain_http(full: Recording) -> None:
    bucket = only(full, "aws:s3/bucket:Bucket")
    policy = json.loads(only(full, "aws:s3/bucketPolicy:BucketPolicy").inputs["policy"])
    arn = bucket.outputs["arn"]
    assert policy["Statement"] == [
        {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ]


def test_leftovers_expire(full: Recording) -> None:
    assert only(full, LIFECYCLE).inputs["rules"] == [
        {
            "id": "leftovers",
            "status": "Enabled",
            "filter": {"prefix": ""},
            "abortIncompleteMultipartUpload": {"daysAfterInitiation": 1},
            "noncurrentVersionExpiration": {"noncurrentDays": 7},
        }
    ]


def test_shared_kv_blocks_expire_within_a_day() -> None:
    (_, kv_cache) = only(weights(sharing()), LIFECYCLE).inputs["rules"]
    assert (kv_cache["filter"], kv_cache["expiration"]) == ({"prefix": "kv-cache/"}, {"days": 1})
    assert kv_cache["noncurrentVersionExpiration"] == {"noncurrentDays": 1}


# --- who may do what ------------------------------------------------------------------------------------------------


def test_every_tiers_engine_reads_the_bucket_and_writes_nothing(full: Recording) -> None:
    arn = only(full, "aws:s3/bucket:Bucket").outputs["arn"]
    for tier in TIERS:
        role = role_of(full, f"{tier.name}-engine")
        assert statements(full, role) == [
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": [arn, f"{arn}/*"]}
        ]


def test_the_jobs_may_write_and_only_the_jobs(full: Recording) -> None:
    assert role_of(full, "weights-fill") == "weights-writer"
    assert actions(full, "weights-writer") == {"s3:ListBucket", "s3:PutObject", "s3:AbortMultipartUpload"}
    assert len(full.of_type(ASSOCIATION)) == len(TIERS) + 1


def test_a_tier_that_shares_kv_blocks_writes_below_its_own_prefix() -> None:
    recording = weights(FAST, sharing())
    assert role_of(recording, "fast-engine") == "weights-reader"
    role = role_of(recording, "split-engine")
    (writing,) = [one for one in statements(recording, role) if "s3:PutObject" in one["Action"]]
    arn = only(recording, "aws:s3/bucket:Bucket").outputs["arn"]
    assert writing["Resource"] == [f"{arn}/kv-cache/split/*"]


def test_roles_are_for_pods_of_the_cluster(full: Recording) -> None:
    for role in full.of_type("aws:iam/role:Role"):
        (trust,) = json.loads(role.inputs["assumeRolePolicy"])["Statement"]
        assert trust["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert {(one.inputs["clusterName"], one.inputs["namespace"]) for one in full.of_type(ASSOCIATION)} == {
        (CLUSTER, "llm")
    }


# --- the jobs -------------------------------------------------------------------------------------------------------


def test_each_checkpoint_is_fetched_once_however_many_tiers_serve_it() -> None:
    twin = replace(QUALITY, name="twin")
    arguments = [job["containers"][0]["args"] for job in jobs(weights(QUALITY, twin, SMALL))]
    assert [[text for text in given if not text.startswith("--bucket")] for given in arguments] == [
        [
            "--repository=RedHatAI/Llama-3.3-70B-Instruct-quantized.w4a16",
            "--prefix=RedHatAI/Llama-3.3-70B-Instruct-quantized.w4a16",
        ],
        [
            "--repository=bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
            "--prefix=bartowski/Meta-Llama-3.1-8B-Instruct-GGUF/gguf-q4_k_m",
            "--quantization=q4_k_m",
        ],
    ]


def test_jobs_need_neither_a_gpu_nor_a_disk_and_run_on_the_system_nodes(full: Recording) -> None:
    for job in jobs(full):
        assert job["nodeSelector"] == {"frugal-llm/pool": "system"}
        assert "tolerations" not in job
        resources = job["containers"][0]["resources"]
        assert resources == {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "1024Mi"}}
        script, scratch = job["volumes"]
        assert set(script) == {"name", "configMap"}
        assert scratch == {"name": "temporary", "emptyDir": {"sizeLimit": "256Mi"}}


def test_kubernetes_and_pod_security_accept_the_jobs(full: Recording) -> None:
    assert refusals(full) == []
    assert [violation for job in jobs(full) for violation in restricted_violations(job)] == []
    assert pods_that_can_write_to_their_image(full) == []


def test_the_token_is_read_from_its_secret_or_not_at_all(full: Recording) -> None:
    for job in jobs(full):
        assert environment(job["containers"][0])["HF_TOKEN"] == {
            "secretKeyRef": {"name": "hugging-face-token", "key": "token"}
        }
    for job in jobs(weights(QUALITY, token=False)):
        assert "HF_TOKEN" not in environment(job["containers"][0])


def test_a_gated_checkpoint_without_a_token_is_pointed_out_before_the_hours_of_waiting() -> None:
    (warning,) = weights(FAST, QUALITY, token=False).texts("warning")
    assert "meta-llama/Llama-3.1-8B-Instruct is gated" in warning
    assert "huggingFaceToken" in warning


def test_jobs_wait_for_their_rights_and_the_buckets_guards_and_are_waited_for(full: Recording) -> None:
    for job in full.of_type(JOB):
        before = ["weights-fill-identity", "weights-tls-only", "weights-private", "weights-encryption"]
        assert all(full.destroyed_before(job, full.named(name)) for name in before)
        policies = [one for one in full.of_type("aws:iam/rolePolicy:RolePolicy") if one.name == "weights-writer"]
        assert full.destroyed_before(job, policies[0])
        assert job.timeouts.create == f"{job.inputs['spec']['activeDeadlineSeconds']}s"
        assert "ttlSecondsAfterFinished" not in job.inputs["spec"], "a vanished job would be made again"


def test_a_changed_script_runs_the_jobs_again_since_its_config_map_gets_another_name(full: Recording) -> None:
    script = full.named("weights-fill", "kubernetes:core/v1:ConfigMap")
    assert "name" not in script.inputs["metadata"]
    assert script.inputs["immutable"] is True
    for job in full.of_type(JOB):
        assert script.urn in full.upstream(job)


def test_job_names_fit_kubernetes_limit(full: Recording) -> None:
    names = [one["metadata"]["name"] for one in kubernetes_objects(full, "Job")]
    assert len(set(names)) == len(TIERS)
    assert max(map(len, names)) <= 63


def test_everything_uses_the_given_providers_and_no_name_stands_twice(full: Recording) -> None:
    assert default_provider_users(full) == []
    assert duplicate_urns(full) == []
