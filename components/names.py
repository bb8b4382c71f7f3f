"""Names and labels that more than one component must agree on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from planning.plan import CheckpointChoice

PROJECT: Final = "frugal-llm"

SERVING_NAMESPACE: Final = "llm"
LOAD_BALANCER_CONTROLLER_ACCOUNT: Final = ("kube-system", "aws-load-balancer-controller")
"""Namespace and name of the controller's service account."""
MONITORING_NAMESPACE: Final = "monitoring"
KEDA_NAMESPACE: Final = "keda"

TIER_LABEL: Final = "llm-d.ai/tier"
"""On engine pods; the endpoint picker selects by it."""
ROLE_LABEL: Final = "llm-d.ai/role"
"""``prefill`` or ``decode`` on the pods of a disaggregated tier; the picker's profile handler reads it."""
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
NAME_LABEL: Final = "app.kubernetes.io/name"
PART_OF_LABEL: Final = "app.kubernetes.io/part-of"
POOL_LABEL: Final = "frugal-llm/pool"
"""On nodes of a NodePool; pods select their pool by it."""
NODE_IMAGE_LABEL: Final = "frugal-llm/node-image"
"""On nodes of a NodePool; engine pods select by it, so a new image is a new template."""
CAPACITY_LABEL: Final = "frugal-llm/capacity"
"""``elastic`` or ``floor`` on engine pods: two Deployments of one tier must not select each other's pods.

On their nodes too: an elastic replica would take the floor's on-demand node, leave its spot node empty and cost another
on-demand node.
"""
SYSTEM_POOL: Final = "system"
"""Value of ``POOL_LABEL`` on the system nodes."""

ENGINE: Final = "engine"
ROUTER: Final = "router"
MODEL_ROUTER: Final = "front-envoy"
"""Everything of the Envoys that route by model has this name. No tier's object can: theirs end with their part."""

ENGINE_PORT: Final = 8000
HTTP_PORT: Final = 80
"""Of the Services in front of routers."""
ROUTER_PORT: Final = 8081
ROUTER_READY_PORT: Final = 19001
ENVOY_METRICS_PORT: Final = 19002
"""Where an Envoy without a picker beside it shows its metrics."""
PICKER_METRICS_PORT: Final = 9090

HUGGING_FACE_SECRET: Final = "hugging-face-token"
HUGGING_FACE_SECRET_KEY: Final = "token"
API_KEY_SECRET: Final = "api-key"
API_KEY_SECRET_KEY: Final = "key"

SERVING_PRIORITY_CLASS: Final = "frugal-llm-serving"

PROMETHEUS_RELEASE: Final = "prometheus"
PROMETHEUS_URL: Final = f"http://{PROMETHEUS_RELEASE}-kube-prometheus-prometheus.{MONITORING_NAMESPACE}:9090"
"""Service of the chart's Prometheus: ``<release>-kube-prometheus-prometheus`` for a release of this name."""

EFA_RESOURCE: Final = "vpc.amazonaws.com/efa"
GPU_RESOURCE: Final = "nvidia.com/gpu"

GGUF_METHOD_PREFIX: Final = "gguf-"
KV_CACHE_PREFIX: Final = "kv-cache"


def tier_labels(tier: str, component: str) -> dict[str, str]:
    """Labels of every object of a tier's ``component`` (``engine`` or ``router``)."""
    labels = {NAME_LABEL: f"{tier}-{component}", COMPONENT_LABEL: component, PART_OF_LABEL: PROJECT}
    return labels | ({TIER_LABEL: tier} if component == ENGINE else {})


def engine_service_account(tier: str) -> str:
    """Service account of a tier's engine pods; Pod Identity lets it read the weights bucket."""
    return f"{tier}-engine"


def engine_deployment(tier: str) -> str:
    """Deployment of a tier's engine pods that the autoscaler owns; the Service around them has the same name."""
    return f"{tier}-engine"


def role_deployment(tier: str, role: str) -> str:
    """Deployment of a disaggregated tier's ``prefill`` or ``decode`` pods."""
    return f"{tier}-{role}"


def is_gguf(checkpoint: CheckpointChoice) -> bool:
    """Say whether the checkpoint is a file for llama.cpp."""
    return checkpoint.method.startswith(GGUF_METHOD_PREFIX)


def weights_prefix(checkpoint: CheckpointChoice) -> str:
    """Where a checkpoint stands in the weights bucket, without slashes around it.

    A GGUF repository holds a file for each quantisation, so there the quantisation is part of the place.
    """
    return f"{checkpoint.repository}/{checkpoint.method}" if is_gguf(checkpoint) else checkpoint.repository


def kv_cache_prefix(tier: str) -> str:
    """Where a disaggregated tier keeps shared KV blocks in the weights bucket."""
    return f"{KV_CACHE_PREFIX}/{tier}"


def router_service(tier: str) -> str:
    """Service in front of a tier's router, the backend of the Ingress."""
    return f"{tier}-router"


STACK_TAG: Final = "frugal-llm:stack"
"""Cost allocation tag of everything a stack makes; the AWS budget adds up what carries it."""


def stack_tags(stack: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of every AWS resource of a stack: the ones asked for and the stack's own."""
    return {**tags, STACK_TAG: stack}
