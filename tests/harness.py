"""Recordings of the program and of single components, and what tests ask of them.

A recording comes from Pulumi's own SDK against the offline engine (`offline.engine`). It proves what the program asks
for, in which order and with which options. It does not prove that AWS, Kubernetes or Helm accept it, what providers
default or check, or what `eks.Cluster` and charts create inside.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from offline import engine, manifests
from offline.answers import Answers
from offline.manifests import HelmRelease, KubernetesObject
from offline.recording import UNKNOWN, Properties, Recording, Resource
from planning.stackfile import StackFile, read_stack, stack_names, stack_path
from problems import NAMESPACE
from settings import SECRET_KEYS

__all__ = [
    "ROOT",
    "UNKNOWN",
    "HelmRelease",
    "KubernetesObject",
    "Properties",
    "Recording",
    "Resource",
    "children",
    "component_under_test",
    "computed",
    "default_provider_users",
    "destroy_reachability",
    "duplicate_urns",
    "helm_releases",
    "is_secret",
    "kubernetes_objects",
    "named",
    "of_type",
    "provider_inputs",
    "record",
    "record_stack",
    "record_with",
    "stack_names",
]

ROOT = Path(__file__).resolve().parents[1]
T = TypeVar("T")

CLUSTER_NAME = "component-under-test"


@functools.cache
def record(stack: str = "dev", *, preview: bool = True) -> Recording:
    """Run the whole program for a stack of the repository; a session runs each stack and mode once."""
    return record_stack(read_stack(stack_path(stack, ROOT)), preview=preview)


def record_with(stack: str = "dev", *, preview: bool = True, **values: object) -> Recording:
    """Run the whole program for a stack with some values of this program's namespace replaced (None removes one)."""
    file = read_stack(stack_path(stack, ROOT))
    config = {key: value for key, value in file.config.items() if key.partition(":")[2] not in values}
    config |= {f"frugal-llm:{key}": value for key, value in values.items() if value is not None}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    program = ROOT / "__main__.py"
    secret = file.secret_keys | {f"{NAMESPACE}:{key}" for key in SECRET_KEYS & values.keys()}
    return engine.run_program(program, file.project, file.stack_name, texts, secret, preview=preview)


def record_stack(stack: StackFile, *, preview: bool = True, program: Path = ROOT / "__main__.py") -> Recording:
    """Run a program for a stack file that has been read."""
    return engine.run_program(
        program, stack.project, stack.stack_name, stack.engine_config(), stack.secret_keys, preview=preview
    )


def component_under_test(
    factory: Callable[[pulumi.ResourceOptions], Mapping[str, Any] | pulumi.Resource | None],
    *,
    preview: bool = False,
    region: str = "us-east-2",
    config: Mapping[str, object] | None = None,
    placeholders: bool = False,
) -> Recording:
    """Run one component by itself. ``factory`` gets options with explicit providers and makes the component with them.

    A mapping that it returns becomes the stack outputs, so outputs of the component can be read from the recording.
    The providers are named ``aws`` and ``kubernetes``; as on a first preview, the latter's kubeconfig is not known in
    a preview.
    """

    def main() -> None:
        cloud = aws.Provider("aws", region=region, default_tags={"tags": {"project": "frugal-llm"}})
        cluster = k8s.Provider("kubernetes", kubeconfig=computed("{}"), cluster_identifier=CLUSTER_NAME)
        made = factory(pulumi.ResourceOptions(providers=[cloud, cluster]))
        for name, value in (made if isinstance(made, Mapping) else {}).items():
            pulumi.export(name, value)

    given = {f"frugal-llm:{key}": value for key, value in (config or {}).items()}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items()}
    return engine.record(
        main,
        directory=ROOT,
        project="frugal-llm",
        stack="test",
        config={"aws:region": region, **texts},
        preview=preview,
        answers=Answers(placeholders=placeholders),
    )


def computed(value: T) -> pulumi.Output[T]:
    """Make an input that a provider computes: unknown in a preview, ``value`` after. Only inside a running program."""

    def resolved(result: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(result)
        return future

    known = not pulumi.runtime.is_dry_run()
    return pulumi.Output(resolved(set()), resolved(value if known else None), resolved(known))


def of_type(recording: Recording, *types: str) -> list[Resource]:
    """List the resources of the type tokens, such as ``aws:sqs/queue:Queue``."""
    return recording.of_type(*types)


def named(recording: Recording, name: str, type_: str | None = None) -> Resource:
    """Give the one resource with this logical name (and type)."""
    return recording.named(name, type_)


def children(recording: Recording, parent: Resource | str | None = None) -> list[Resource]:
    """List the direct children of a resource (or of the resource of that name), or of the stack."""
    return recording.children(recording.named(parent) if isinstance(parent, str) else parent)


def destroy_reachability(recording: Recording, first: Resource | str, second: Resource | str) -> bool:
    """Say whether a destroy is sure to finish with ``first`` before it starts on ``second``.

    True when ``second`` is reachable from ``first`` over dependencies, property dependencies, parents and providers.
    """
    resources = [recording.named(one) if isinstance(one, str) else one for one in (first, second)]
    return recording.destroyed_before(*resources)


def is_secret(subject: Resource | Properties, *path: str | int) -> bool:
    """Say whether the value at a path of a resource's inputs (or of stack outputs) is encrypted in the state."""
    return (subject.inputs if isinstance(subject, Resource) else subject).is_secret(*path)


def duplicate_urns(recording: Recording) -> list[str]:
    """List the URNs that the engine would refuse because they stand twice."""
    return recording.duplicate_urns


def default_provider_users(recording: Recording) -> list[str]:
    """List what would run under a default provider: its credentials and cluster are whatever the shell has."""
    resources = [resource.urn for resource in recording.resources if resource.needs_provider and not resource.provider]
    return resources + [invoke.token for invoke in recording.invokes if not invoke.provider]


def provider_inputs(recording: Recording, resource: Resource) -> Mapping[str, Any]:
    """Give the configuration of a resource's provider, with the JSON that the wire has in it decoded."""
    inputs = recording.by_urn[resource.provider].inputs
    return {key: _decoded(value) for key, value in inputs.items()}


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        return value


def kubernetes_objects(recording: Recording, kind: str | None = None) -> list[dict[str, Any]]:
    """List the manifests (apiVersion, kind, metadata, spec, …) of all objects or of one kind, in dependency order.

    Unknown values and secrets are texts. Charts' own objects are not among them.
    """
    objects = manifests.kubernetes_objects(recording)
    return [dict(one.manifest) for one in objects if kind in {None, one.kind}]


def helm_releases(recording: Recording) -> list[HelmRelease]:
    """List the Helm releases with their values, in dependency order."""
    return manifests.helm_releases(recording)
