"""Recordings of serving components, and questions about their pods."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import kubernetes_validate
import pulumi

from planning.plan import TierPlan
from tests.components.building import REGION
from tests.harness import Recording, component_under_test, computed, kubernetes_objects

BUCKET = "weights-1a2b3c4"
NODE_IMAGE_LABEL = "al2023-v20260714-1.36"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
POD_MONITOR = "kubernetes:monitoring.coreos.com/v1:PodMonitor"
NETWORK_POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"

# Beside the minor that the stack pins, the next one: an upgrade must not meet objects it refuses.
KUBERNETES_MINORS = ("1.36", "1.37")


def tier_recording(
    component: Callable[[str, Any, pulumi.ResourceOptions], Any],
    arguments: Callable[..., Any],
    tier: TierPlan,
    *,
    api_key: bool = True,
    preview: bool = False,
) -> Recording:
    """Record one tier's component; the bucket's name is computed, as it is in the program."""

    def factory(opts: pulumi.ResourceOptions) -> Mapping[str, Any]:
        args = arguments(
            tier=tier,
            namespace="llm",
            node_image_label=NODE_IMAGE_LABEL,
            bucket=computed(BUCKET),
            region=REGION,
            api_key=api_key,
        )
        made = component(tier.name, args, opts)
        return {"service": made.service_name}

    return component_under_test(factory, preview=preview)


def object_of(recording: Recording, kind: str, name: str) -> dict[str, Any]:
    """Give the one Kubernetes object of this kind and name."""
    (found,) = [one for one in kubernetes_objects(recording, kind) if one["metadata"]["name"] == name]
    return found


def pod_of(recording: Recording, deployment: str) -> dict[str, Any]:
    """Give the pod spec of a Deployment."""
    return object_of(recording, "Deployment", deployment)["spec"]["template"]["spec"]


def engine_of(recording: Recording, deployment: str) -> dict[str, Any]:
    """Give the engine's container."""
    (container,) = pod_of(recording, deployment)["containers"]
    return container


def environment(container: Mapping[str, Any]) -> dict[str, Any]:
    """Give a container's variables: plain values, or where the value comes from."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container.get("env", [])}


def flag(container: Mapping[str, Any], name: str) -> str:
    """Give the value of a ``--name=value`` argument."""
    (value,) = [text.partition("=")[2] for text in container["args"] if text.startswith(f"{name}=")]
    return value


def json_flag(container: Mapping[str, Any], name: str) -> Any:
    """Give the value of an argument that is JSON."""
    return json.loads(flag(container, name))


def refusals(recording: Recording) -> list[str]:
    """List what Kubernetes' own schemas refuse, unknown fields included. Custom resources are not looked at."""
    built_in = [one for one in kubernetes_objects(recording) if one["kind"] not in {"PodMonitor", "Secret"}]
    found = []
    for minor in KUBERNETES_MINORS:
        for one in built_in:
            try:
                kubernetes_validate.validate(one, minor, strict=True)
            except kubernetes_validate.ValidationError as error:
                found.append(f"{minor} {one['kind']} {one['metadata']['name']}: {error}")
    return found


def restricted_violations(pod: Mapping[str, Any]) -> list[str]:
    """List what Pod Security ``restricted`` would refuse, of what these pods could get wrong; by its published text."""
    allowed_volumes = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
    allowed_volumes |= {"secret"}
    whole = pod.get("securityContext", {})
    found = [f"volume {one['name']}" for one in pod.get("volumes", []) if not (set(one) - {"name"} <= allowed_volumes)]
    found += [field for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        own = {**whole, **container.get("securityContext", {})}
        name = container["name"]
        if own.get("runAsNonRoot") is not True or own.get("runAsUser") == 0:
            found.append(f"{name} may run as root")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append(f"{name} may gain privileges")
        if own.get("capabilities") != {"drop": ["ALL"]}:
            found.append(f"{name} keeps capabilities")
        if own.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
            found.append(f"{name} has no seccomp profile")
    return found


def pods_that_can_write_to_their_image(recording: Recording) -> list[str]:
    """List the containers whose root file system is writable."""
    return [
        f"{one['metadata']['name']}/{container['name']}"
        for one in kubernetes_objects(recording)
        if one["kind"] in {"Deployment", "Job"}
        for pod in [one["spec"]["template"]["spec"]]
        for container in [*pod.get("initContainers", []), *pod["containers"]]
        if container["securityContext"].get("readOnlyRootFilesystem") is not True
    ]
