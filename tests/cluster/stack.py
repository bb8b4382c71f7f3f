"""A whole stack on a real API server: every object that the program emits, in the order of its own dependencies.

Helm's charts cannot be had here. Each release is stood in for by what the program's own objects need of it: its custom
resource definitions, its service account, the load balancer's IngressClass. What else a chart renders is not applied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from offline.manifests import HelmRelease, KubernetesObject, helm_releases, kubernetes_objects
from offline.recording import Recording
from tests.cluster.client import Applied, Client, Object, wait_for_definitions

_DEFINITIONS: Final = Path(__file__).parents[1] / "schemas" / "crds"
_PICKER_GROUPS: Final = ("inference.networking.k8s.io", "inference.networking.x-k8s.io", "llm-d.ai")

_CHARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "karpenter-crd": ("karpenter.sh", "karpenter.k8s.aws", "autoscaling.x-k8s.io"),
    "keda": ("keda.sh", "eventing.keda.sh"),
    "aws-load-balancer-controller": ("elbv2.k8s.aws", "gateway.k8s.aws"),
    "kube-prometheus-stack": ("monitoring.coreos.com",),
}
"""API groups that a chart defines."""

Start = Callable[[], None]
Change = Callable[[Object], Object | None]
"""What a test makes of a manifest before it is applied; None leaves it out."""


@dataclass(frozen=True, slots=True)
class AppliedObject:
    """An object of the program and what the API server made of it."""

    emitted: KubernetesObject
    applied: Applied

    def __str__(self) -> str:
        """Name it as ``kubectl`` does."""
        return f"{self.emitted.kind} {self.emitted.namespace}/{self.emitted.name}".replace(" /", " ")


def apply_stack(
    client: Client, recording: Recording, starts: Mapping[str, Start] | None = None, change: Change | None = None
) -> list[AppliedObject]:
    """Apply every object of an update's recording. Raises ``Refused`` at the first that is not taken.

    ``starts`` are called by a chart's name once its definitions are established: the real part, where a test runs it.
    """
    objects = {one.resource.urn: one for one in kubernetes_objects(recording)}
    releases = {one.resource.urn: one for one in helm_releases(recording)}
    applied: list[AppliedObject] = []
    for resource in recording.resources:
        if resource.urn in releases:
            release = releases[resource.urn]
            _stand_in(client, release)
            start = (starts or {}).get(_chart(release))
            if start:
                start()
        elif resource.urn in objects:
            emitted = objects[resource.urn]
            changed = change(dict(emitted.manifest)) if change else emitted.manifest
            if changed:
                applied.append(AppliedObject(emitted, client.apply(changed)))
    return applied


def define(client: Client, *groups: str) -> None:
    """Apply the custom resource definitions of API groups and wait until they are established."""
    wanted = [one for one in _all_definitions() if one["spec"]["group"] in groups]
    for definition in wanted:
        client.apply(definition)
    wait_for_definitions(client, [one["metadata"]["name"] for one in wanted])


def define_picker(client: Client) -> None:
    """Apply the definitions that an endpoint picker watches; the stack gives it a selector and makes none of them."""
    define(client, *_PICKER_GROUPS)


def _chart(release: HelmRelease) -> str:
    return release.chart.rpartition("/")[2]


def _stand_in(client: Client, release: HelmRelease) -> None:
    define(client, *_CHARTS.get(_chart(release), ()))
    account = release.values.get("serviceAccount") or {}
    client.apply(_object("v1", "ServiceAccount", account.get("name", release.name), release.namespace))
    if release.values.get("createIngressClassResource"):
        spec = {"controller": "ingress.k8s.aws/alb"}
        client.apply({**_object("networking.k8s.io/v1", "IngressClass", "alb"), "spec": spec})


def _object(api_version: str, kind: str, name: str, namespace: str | None = None) -> Object:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


@functools.cache
def _all_definitions() -> tuple[dict[str, Any], ...]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    texts = (file.read_text(encoding="utf-8") for file in sorted(_DEFINITIONS.glob("*.yaml")))
    return tuple(document for text in texts for document in yaml.load_all(text, Loader=loader) if document)
