"""Manifests against the schemas that the API server has: unknown fields, wrong types, missing required fields.

Not checked: CEL rules (``x-kubernetes-validations``), defaults, admission webhooks, and whether names, labels and ports
fit together. A schema is not a cluster.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate import utils as built_in
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from components.versions import KUBERNETES_VERSION

_DEFINITIONS = Path(__file__).parent / "crds"
_FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_PLACEHOLDERS = ("${", "<known after", "[secret]")
"""How an offline rendering writes what only a provider knows, or what nobody may see: texts, whatever the type."""


def problems(manifest: Mapping[str, Any]) -> list[str]:
    """List what the API server would refuse in ``manifest`` by its schema; empty when it would take it.

    A text that stands for a value not known yet passes for any type. A kind that neither Kubernetes nor one of the
    copied definitions knows is a problem.
    """
    api_version, kind = str(manifest.get("apiVersion", "")), str(manifest.get("kind", ""))
    definitions = _definitions()
    if (api_version, kind) in definitions:
        return sorted(_without_metadata_rules(definitions[api_version, kind], manifest))
    served = sorted(version for version, other in definitions if other == kind)
    if served:
        return [f"{kind} is not served as {api_version!r}, only as {', '.join(served)}"]
    try:
        validator = _built_in_validator(api_version, kind)
    except kubernetes_validate.SchemaNotFoundError:
        return [f"{api_version!r} {kind!r} is no kind of Kubernetes {KUBERNETES_VERSION} nor of a copied definition"]
    return sorted(_findings(validator, manifest))


def _without_metadata_rules(schema: dict[str, Any], manifest: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(manifest.get("metadata"), Mapping) or not manifest["metadata"].get("name"):
        yield "metadata.name: is missing"
    yield from _findings(jsonschema.Draft202012Validator(schema), manifest)


def _findings(validator: Any, manifest: Mapping[str, Any]) -> Iterator[str]:
    for error in validator.iter_errors(manifest):
        for leaf in _leaves(error):
            if not _is_placeholder(leaf.instance):
                path = ".".join(str(part) for part in leaf.absolute_path) or "(top)"
                yield f"{path}: {leaf.message[:300]}"


def _leaves(error: jsonschema.ValidationError) -> Iterator[jsonschema.ValidationError]:
    """Give an error, or those of its alternatives: a placeholder in one of them must not count against the whole."""
    if not error.context:
        yield error
        return
    alternatives: dict[Any, list[jsonschema.ValidationError]] = {}
    for inner in error.context:
        alternatives.setdefault(inner.schema_path[0], []).append(inner)
    if any(all(_is_placeholder(one.instance) for one in group) for group in alternatives.values()):
        return
    yield error


def _is_placeholder(value: object) -> bool:
    return isinstance(value, str) and value.startswith(_PLACEHOLDERS)


@functools.cache
def _definitions() -> dict[tuple[str, str], dict[str, Any]]:
    """Give the schema of every served version of every copied definition, closed to unknown fields."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for file in sorted(_DEFINITIONS.glob("*.yaml")):
        definition = yaml.load(file.read_text(encoding="utf-8"), Loader=_FAST)["spec"]
        for version in definition["versions"]:
            if version["served"]:
                schema = _closed(version["schema"]["openAPIV3Schema"])
                # The API server checks these by schemas of its own.
                schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {}}
                found[f"{definition['group']}/{version['name']}", definition["names"]["kind"]] = schema
    return found


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a structural schema into JSON schema that refuses fields it does not name.

    The API server prunes or, with strict field validation, refuses them; either way they do nothing.
    """
    closed = {key: value for key, value in schema.items() if not key.startswith("x-") and key != "nullable"}
    # OpenAPI's formats (int32, duration, date-time) say little; the API server checks few of them.
    closed.pop("format", None)
    if isinstance(schema.get("properties"), Mapping):
        closed["properties"] = {name: _closed(inner) for name, inner in schema["properties"].items()}
    for key in ("items", "additionalProperties", "not"):
        if isinstance(schema.get(key), Mapping):
            closed[key] = _closed(schema[key])
    for key in ("allOf", "anyOf", "oneOf"):
        # Inside these, a structural schema only restricts; fields are named outside.
        if key in schema:
            closed[key] = [dict(inner) for inner in schema[key]]
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("anyOf", None)
        closed["type"] = ["integer", "string"]
    if (
        "properties" in closed
        and "additionalProperties" not in closed
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        closed["additionalProperties"] = False
    if schema.get("nullable") and "type" in closed:
        closed["type"] = [*([closed["type"]] if isinstance(closed["type"], str) else closed["type"]), "null"]
    return closed


@functools.cache
def _built_in_validator(api_version: str, kind: str) -> Any:
    """Give the strict validator of a built-in kind, its definitions read once for all kinds."""
    group = api_version.partition("/")
    prefix = f"{group[0].split('.')[0]}-{group[2]}" if group[2] else api_version
    directory = f"kubernetes-json-schema/v{KUBERNETES_VERSION}.0-local-strict"
    try:
        schema = built_in.schema_contents(f"{directory}/{kind.lower()}-{prefix}.json", KUBERNETES_VERSION)
    except FileNotFoundError as error:
        raise kubernetes_validate.SchemaNotFoundError(kind, KUBERNETES_VERSION, api_version) from error
    registry = DRAFT202012.create_resource(schema) @ _shared_definitions(directory)
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def _shared_definitions(directory: str) -> Registry:
    contents = built_in.schema_contents(f"{directory}/_definitions.json", KUBERNETES_VERSION)
    return DRAFT202012.create_resource(contents) @ Registry()
