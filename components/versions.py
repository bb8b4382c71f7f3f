"""Every version and image that the stack pins, each with where it was seen. Nothing is ever ``latest``."""

from __future__ import annotations

from dataclasses import dataclass

from planning.facts import eks_versions

KUBERNETES_VERSION = eks_versions.KUBERNETES_VERSION
"""Of a stack that names none. The others, and the add-ons of each, stand in the facts: the plan needs them."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A Helm chart at a pinned version; ``repository`` is empty for OCI charts."""

    chart: str
    version: str
    repository: str
    source: str


@dataclass(frozen=True, slots=True)
class Image:
    """A container image at a pinned tag."""

    reference: str
    source: str


KARPENTER_CRD = Chart(
    "oci://public.ecr.aws/karpenter/karpenter-crd", "1.14.1", "", "aws/karpenter-provider-aws v1.14.1, 2026-08-20"
)
KARPENTER = Chart(
    "oci://public.ecr.aws/karpenter/karpenter", "1.14.1", "", "aws/karpenter-provider-aws v1.14.1, 2026-08-20"
)
KEDA = Chart(
    "keda",
    "2.21.0",
    "https://kedacore.github.io/charts",
    "fixes CVE-2026-77524 of all versions up to 2.20.2; seen in public files of 2026-09 to 2026-11, chart unverified",
)
AWS_LOAD_BALANCER_CONTROLLER = Chart(
    "aws-load-balancer-controller",
    "3.5.0",
    "https://aws.github.io/eks-charts",
    "kubernetes-sigs/aws-load-balancer-controller 225f44568, 2026-08-17: of this version are the values, CRDs and IAM "
    "policy here too; 3.6.0 was seen in public files since, without them",
)
KUBE_PROMETHEUS_STACK = Chart(
    "oci://ghcr.io/prometheus-community/charts/kube-prometheus-stack",
    "91.8.2",
    "",
    "seen in public files of 2026-09 to 2026-11, unverified; CRDs here are those of chart 88.5.3",
)
NVIDIA_DEVICE_PLUGIN = Chart(
    "nvidia-device-plugin",
    "0.20.0",
    "https://nvidia.github.io/k8s-device-plugin",
    "NVIDIA/k8s-device-plugin 1b826acc6, 2026-08-19",
)
DCGM_EXPORTER = Chart(
    "dcgm-exporter",
    "4.8.2",
    "https://nvidia.github.io/dcgm-exporter/helm-charts",
    "NVIDIA/dcgm-exporter d5e5f51, 2026-05-12",
)

EFA_DEVICE_PLUGIN = Chart(
    "aws-efa-k8s-device-plugin", "v0.5.30", "https://aws.github.io/eks-charts", "aws/eks-charts 5239609, 2026-08-03"
)

VLLM_VERSION = "0.33.0"
VLLM = Image(
    f"docker.io/vllm/vllm-openai:v{VLLM_VERSION}",
    "PyPI wheel 0.33.0 of 2026-11-01; the image tag follows the project's convention, unverified",
)
LLAMA_CPP = Image(
    "ghcr.io/ggml-org/llama.cpp:server-b11206", "tag seen in public files of 2026-11; its arm64 variant is unverified"
)
ENDPOINT_PICKER = Image(
    "ghcr.io/llm-d/llm-d-router-endpoint-picker:v0.11.0", "seen in public files of 2026-09 to 2026-11, unverified"
)
DISAGGREGATION_SIDECAR = Image(
    "ghcr.io/llm-d/llm-d-router-disagg-sidecar:v0.11.0", "tag seen at v0.10.0; v0.11.0 unverified"
)
ENVOY = Image(
    "docker.io/envoyproxy/envoy:distroless-v1.39.1", "seen with an arm64 digest in public files of 2026-09 to 2026-11"
)
AWS_CLI = Image(
    "public.ecr.aws/aws-cli/aws-cli:2.37.4",
    "tag seen in public files of 2026-10, amd64 and arm64; by its Dockerfile (aws/aws-cli, branch v2, 2026-07-23) it "
    "is Amazon Linux 2023, whose dnf brings python3 3.9: read, not run",
)
"""Fills the weights bucket and fetches GGUF files from it: 150 MB on both CPU architectures instead of vLLM's 10 GB."""
