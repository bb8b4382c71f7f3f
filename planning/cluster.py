"""The control plane's version and addresses, and the processor of the system nodes."""

from __future__ import annotations

from planning.facts.eks_versions import (
    ADDONS,
    addon_versions,
    controllers,
    eks_version,
    minor,
    runnable_versions,
    runs,
)
from planning.facts.system_images import SystemImage, system_images
from planning.facts.table import CPU_ARCHITECTURES, CpuArchitecture, UnknownFact
from planning.network import service_cidr
from planning.plan import ClusterPlan
from problems import NAMESPACE, Problem
from settings import StackSettings


def cluster_problems(settings: StackSettings) -> list[Problem]:
    """A Kubernetes version that EKS, a controller or the pinned add-ons do not have, with every reason for it."""
    version = settings.cluster.kubernetes_version
    if runs(version):
        return []
    reasons = [
        f"{each.controller} {each.version} supports {each.oldest} to {each.newest}"
        for each in controllers()
        if not each.supports(version)
    ]
    try:
        eks_version(version)
    except UnknownFact:
        reasons.append("its support on EKS is not known here")
    missing = [name for name in ADDONS if name not in addon_versions(version)]
    if missing and not reasons:
        reasons.append(f"no version is pinned for it of {', '.join(missing)}")
    nearest = min(runnable_versions(), key=lambda known: abs(minor(known) - minor(version)))
    limit = f"this program cannot run it: {'; '.join(reasons)}"
    path = f"{NAMESPACE}:cluster.kubernetesVersion"
    return [Problem(path, version, limit, f'the nearest that works is "{nearest}"')]


def cluster_plan(settings: StackSettings) -> ClusterPlan:
    """The control plane of sound settings."""
    asked = settings.cluster
    return ClusterPlan(
        kubernetes_version=asked.kubernetes_version,
        addon_versions=addon_versions(asked.kubernetes_version),
        service_cidr=service_cidr(settings.network.vpc_cidr),
        role_arn=asked.role_arn,
        node_role_arn=asked.node_role_arn,
        secrets_key_arn=asked.secrets_key_arn,
    )


def system_architectures(images: tuple[SystemImage, ...] | None = None) -> tuple[CpuArchitecture, ...]:
    """The processors that every image on the system nodes (those of the facts) is known to exist for."""
    given = system_images() if images is None else images
    return tuple(each for each in CPU_ARCHITECTURES if all(each in image.architectures for image in given))
