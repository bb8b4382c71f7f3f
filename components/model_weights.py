"""The weights bucket: what the engines read from it, and the jobs that fill it once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from components import helm, iam, network_rules, versions
from components.names import (
    COMPONENT_LABEL,
    GGUF_METHOD_PREFIX,
    HUGGING_FACE_SECRET,
    HUGGING_FACE_SECRET_KEY,
    KV_CACHE_PREFIX,
    NAME_LABEL,
    PART_OF_LABEL,
    POOL_LABEL,
    PROJECT,
    SYSTEM_POOL,
    engine_service_account,
    is_gguf,
    kv_cache_prefix,
    weights_prefix,
)
from components.serving_pod import (
    NOBODY,
    SCRATCH_DIRECTORY,
    aws_environment,
    container_security,
    pod_security,
    scratch_mount,
    scratch_volume,
    secret_variable,
    variable,
)
from planning.plan import CheckpointChoice, TierPlan

_SCRIPT: Final = Path(__file__).parent / "scripts" / "fill_bucket.py"
_SCRIPT_DIRECTORY: Final = "/scripts"
_FILL: Final = "weights-fill"
_FILL_LABELS: Final = {NAME_LABEL: _FILL, COMPONENT_LABEL: "weights", PART_OF_LABEL: PROJECT}

_FILL_DEADLINE_S: Final = 3 * 3600
"""The largest checkpoint of the catalogue has 410 GB: two and a half hours at 50 MB/s."""
_OLD_VERSIONS_DAYS: Final = 7
"""Long enough to notice an overwritten checkpoint; at most one copy more to pay for."""
_KV_CACHE_DAYS: Final = 1
"""vLLM never deletes the KV blocks it shares, and nobody continues a conversation from its cache a day later."""


@dataclass(frozen=True, kw_only=True)
class ModelWeightsArgs:
    """What the bucket is for."""

    tiers: tuple[TierPlan, ...]
    cluster_name: pulumi.Input[str]
    region: str
    namespace: pulumi.Input[str]
    hugging_face_token: bool
    """The namespace holds a Hugging Face token."""


class ModelWeights(pulumi.ComponentResource):
    """A bucket with each checkpoint under ``<repository>/``, read by every tier's engine, written by its own jobs.

    The jobs run on the system nodes: they stream from Hugging Face to the bucket and need neither a disk for the
    weights nor a GPU node, which would cost a hundred times as much for the same minutes. ``pulumi up`` waits for them,
    so tiers that depend on this component start on a full bucket, with credentials for it.
    """

    bucket_name: pulumi.Output[str]

    def __init__(self, name: str, args: ModelWeightsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:serving:ModelWeights", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)

        bucket = aws.s3.Bucket(
            f"{name}-bucket",
            # Everything in it can be had again from Hugging Face, so it must not outlive the stack and keep costing.
            force_destroy=True,
            opts=child,
        )
        guards = _guards(name, bucket, args, child)
        reader = _role(f"{name}-reader", [_read(bucket)], child)
        for tier in args.tiers:
            prefix = kv_cache_prefix(tier.name)
            shares = tier.disaggregation is not None and tier.disaggregation.shared_store == "s3"
            role = (
                _role(f"{name}-{tier.name}-kv-cache", [_read(bucket), _write(bucket, f"{prefix}/*")], child)
                if shares
                else reader
            )
            _associate(f"{name}-{tier.name}-engine", args, engine_service_account(tier.name), role, child)

        self._fill(name, args, bucket, guards)

        self.bucket_name = bucket.bucket
        self.register_outputs({"bucket_name": self.bucket_name})

    def _fill(
        self, name: str, args: ModelWeightsArgs, bucket: aws.s3.Bucket, guards: Sequence[pulumi.Resource]
    ) -> None:
        """Create the jobs, with an identity that may write and a way out to Hugging Face."""
        child = pulumi.ResourceOptions(parent=self)
        identity = k8s.core.v1.ServiceAccount(
            f"{name}-fill",
            metadata=k8s.meta.v1.ObjectMetaArgs(name=_FILL, namespace=args.namespace, labels=_FILL_LABELS),
            automount_service_account_token=False,
            opts=child,
        )
        writer = _role(f"{name}-writer", [_list(bucket), _write(bucket, "*")], child)
        association = _associate(f"{name}-fill", args, _FILL, writer, child)
        policy = k8s.networking.v1.NetworkPolicy(
            f"{name}-fill",
            metadata=k8s.meta.v1.ObjectMetaArgs(name=_FILL, namespace=args.namespace, labels=_FILL_LABELS),
            spec=k8s.networking.v1.NetworkPolicySpecArgs(
                pod_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=_FILL_LABELS),
                policy_types=["Ingress", "Egress"],
                egress=[network_rules.to_public_https(), network_rules.to_pod_identity()],
            ),
            opts=child,
        )
        script = k8s.core.v1.ConfigMap(
            f"{name}-fill",
            metadata=k8s.meta.v1.ObjectMetaArgs(namespace=args.namespace, labels=_FILL_LABELS),
            immutable=True,
            data={_SCRIPT.name: _SCRIPT.read_text(encoding="utf-8")},
            opts=child,
        )
        deadline = f"{_FILL_DEADLINE_S}s"
        for checkpoint in _distinct(args.tiers):
            if checkpoint.gated and not args.hugging_face_token:
                pulumi.log.warn(
                    f"{checkpoint.repository} is gated: its job will fail until huggingFaceToken is set to a token "
                    "whose owner accepted the licence",
                    self,
                )
            k8s.batch.v1.Job(
                f"{name}-fill-{_slug(weights_prefix(checkpoint))}",
                metadata=k8s.meta.v1.ObjectMetaArgs(namespace=args.namespace, labels=_FILL_LABELS),
                spec=_fill_spec(checkpoint, bucket.bucket, script.metadata.name, args),
                opts=pulumi.ResourceOptions(
                    parent=self,
                    depends_on=[identity, association, policy, *writer.attached, *guards],
                    custom_timeouts=pulumi.CustomTimeouts(create=deadline, update=deadline),
                ),
            )


@dataclass(frozen=True, slots=True)
class _Role:
    arn: pulumi.Output[str]
    attached: tuple[pulumi.Resource, ...]


def _distinct(tiers: Sequence[TierPlan]) -> list[CheckpointChoice]:
    """Give each checkpoint once: tiers may serve the same one."""
    return list({weights_prefix(tier.checkpoint): tier.checkpoint for tier in tiers}.values())


def _slug(prefix: str) -> str:
    """Give a name for a place in the bucket: Kubernetes allows 63 characters, and Pulumi adds 9."""
    readable = re.sub(r"[^a-z0-9]+", "-", prefix.lower().split("/", 1)[-1]).strip("-")[:24].strip("-")
    return f"{readable}-{hashlib.sha256(prefix.encode()).hexdigest()[:6]}"


def _guards(
    name: str, bucket: aws.s3.Bucket, args: ModelWeightsArgs, child: pulumi.ResourceOptions
) -> list[pulumi.Resource]:
    """Encrypt the bucket, close it to the public and to plain HTTP, and let leftovers expire."""
    private = aws.s3.BucketPublicAccessBlock(
        f"{name}-private",
        bucket=bucket.bucket,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        opts=child,
    )
    encryption = aws.s3.BucketServerSideEncryptionConfiguration(
        f"{name}-encryption",
        bucket=bucket.bucket,
        rules=[
            aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                # S3's own keys: published weights are worth no key of their own, nor its price a request.
                apply_server_side_encryption_by_default=(
                    aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                        sse_algorithm="AES256"
                    )
                ),
            )
        ],
        opts=child,
    )
    versioning = aws.s3.BucketVersioning(
        f"{name}-versioning",
        bucket=bucket.bucket,
        versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
        opts=child,
    )
    policy = aws.s3.BucketPolicy(
        f"{name}-tls-only",
        bucket=bucket.bucket,
        policy=pulumi.Output.json_dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Sid": "TlsOnly",
                        "Effect": "Deny",
                        "Principal": "*",
                        "Action": "s3:*",
                        "Resource": [bucket.arn, pulumi.Output.concat(bucket.arn, "/*")],
                        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                    }
                ],
            }
        ),
        # Both change what policies the bucket accepts, and AWS refuses one change during the other.
        opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[private])),
    )
    shares_kv = any(tier.disaggregation and tier.disaggregation.shared_store == "s3" for tier in args.tiers)
    lifecycle = aws.s3.BucketLifecycleConfiguration(
        f"{name}-lifecycle",
        bucket=bucket.bucket,
        rules=[
            aws.s3.BucketLifecycleConfigurationRuleArgs(
                id="leftovers",
                status="Enabled",
                filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
                # An interrupted upload is invisible and paid for.
                abort_incomplete_multipart_upload=(
                    aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(days_after_initiation=1)
                ),
                noncurrent_version_expiration=(
                    aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
                        noncurrent_days=_OLD_VERSIONS_DAYS
                    )
                ),
            ),
            *([_kv_cache_expiry()] if shares_kv else []),
        ],
        # Rules on versions are taken only by a bucket that has them.
        opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[versioning])),
    )
    return [private, encryption, versioning, policy, lifecycle]


def _kv_cache_expiry() -> aws.s3.BucketLifecycleConfigurationRuleArgs:
    return aws.s3.BucketLifecycleConfigurationRuleArgs(
        id=KV_CACHE_PREFIX,
        status="Enabled",
        filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=f"{KV_CACHE_PREFIX}/"),
        expiration=aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(days=_KV_CACHE_DAYS),
        noncurrent_version_expiration=aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
            noncurrent_days=_KV_CACHE_DAYS
        ),
    )


def _list(bucket: aws.s3.Bucket) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [bucket.arn]}


def _read(bucket: aws.s3.Bucket) -> dict[str, Any]:
    # Listing is part of reading: engines look for files, and without it S3 answers 403 where a 404 is meant.
    objects = pulumi.Output.concat(bucket.arn, "/*")
    return {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": [bucket.arn, objects]}


def _write(bucket: aws.s3.Bucket, keys: str) -> dict[str, Any]:
    objects = pulumi.Output.concat(bucket.arn, "/", keys)
    return {"Effect": "Allow", "Action": ["s3:PutObject", "s3:AbortMultipartUpload"], "Resource": [objects]}


def _role(name: str, statements: Sequence[dict[str, Any]], child: pulumi.ResourceOptions) -> _Role:
    role = aws.iam.Role(name, assume_role_policy=iam.trust(iam.POD_IDENTITY), opts=child)
    policy = aws.iam.RolePolicy(
        name,
        role=role.name,
        policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": list(statements)}),
        opts=child,
    )
    return _Role(role.arn, (policy,))


def _associate(
    name: str, args: ModelWeightsArgs, service_account: str, role: _Role, child: pulumi.ResourceOptions
) -> aws.eks.PodIdentityAssociation:
    return aws.eks.PodIdentityAssociation(
        f"{name}-identity",
        cluster_name=args.cluster_name,
        namespace=args.namespace,
        service_account=service_account,
        role_arn=role.arn,
        opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=list(role.attached))),
    )


def _fill_spec(
    checkpoint: CheckpointChoice,
    bucket: pulumi.Input[str],
    script: pulumi.Input[str],
    args: ModelWeightsArgs,
) -> k8s.batch.v1.JobSpecArgs:
    quantization = checkpoint.method.removeprefix(GGUF_METHOD_PREFIX)
    token = [secret_variable("HF_TOKEN", HUGGING_FACE_SECRET, HUGGING_FACE_SECRET_KEY)]
    fill = helm.resources(_FILL)
    container = k8s.core.v1.ContainerArgs(
        name="fill",
        image=versions.AWS_CLI.reference,
        command=["python3", f"{_SCRIPT_DIRECTORY}/{_SCRIPT.name}"],
        args=[
            f"--repository={checkpoint.repository}",
            pulumi.Output.concat("--bucket=", bucket),
            f"--prefix={weights_prefix(checkpoint)}",
            *([f"--quantization={quantization}"] if is_gguf(checkpoint) else []),
        ],
        env=[
            variable("HOME", SCRATCH_DIRECTORY),
            variable("PYTHONUNBUFFERED", "1"),
            variable("PYTHONDONTWRITEBYTECODE", "1"),
            *aws_environment(args.region),
            *(token if args.hugging_face_token else []),
        ],
        resources=k8s.core.v1.ResourceRequirementsArgs(requests=fill["requests"], limits=fill["limits"]),
        security_context=container_security(),
        volume_mounts=[
            k8s.core.v1.VolumeMountArgs(name="script", mount_path=_SCRIPT_DIRECTORY, read_only=True),
            scratch_mount(),
        ],
    )
    return k8s.batch.v1.JobSpecArgs(
        # A copy goes on where the last attempt broke off; no ttl, or Pulumi would miss a finished job and run it again.
        backoff_limit=6,
        active_deadline_seconds=_FILL_DEADLINE_S,
        template=k8s.core.v1.PodTemplateSpecArgs(
            metadata=k8s.meta.v1.ObjectMetaArgs(labels=_FILL_LABELS),
            spec=k8s.core.v1.PodSpecArgs(
                service_account_name=_FILL,
                automount_service_account_token=False,
                enable_service_links=False,
                restart_policy="OnFailure",
                node_selector={POOL_LABEL: SYSTEM_POOL},
                security_context=pod_security(NOBODY),
                containers=[container],
                volumes=[
                    k8s.core.v1.VolumeArgs(
                        name="script", config_map=k8s.core.v1.ConfigMapVolumeSourceArgs(name=script)
                    ),
                    scratch_volume(),
                ],
            ),
        ),
    )
