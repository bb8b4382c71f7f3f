"""The Kubernetes side of a recording as files: every object as YAML, every Helm release's values.

The files stand in the order in which the program creates the objects. What a provider has yet to compute is a
placeholder such as ``${queue.url}``, and no secret is ever written.
"""

from __future__ import annotations

import base64
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from offline.recording import Recording, Resource

SECRET = "[secret]"
MARKER = ".frugal-llm-manifests"
_RELEASE_TYPES = {"kubernetes:helm.sh/v3:Release", "kubernetes:helm.sh/v4:Chart"}
_TOP_LEVEL_ORDER = ("apiVersion", "kind", "metadata", "spec")


class NotOurDirectory(Exception):
    """The output directory holds something that this program did not write."""


@dataclass(frozen=True, slots=True)
class KubernetesObject:
    """One object as it would be sent to the API server."""

    resource: Resource
    manifest: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The object's kind."""
        return str(self.manifest["kind"])

    @property
    def namespace(self) -> str:
        """The object's namespace, or empty."""
        return str(self.manifest["metadata"].get("namespace", ""))

    @property
    def name(self) -> str:
        """The object's name; an autonamed object's is that of its resource."""
        return str(self.manifest["metadata"]["name"])

    @property
    def is_patch(self) -> bool:
        """Say whether this changes an object that somebody else owns."""
        return self.resource.type.endswith(f":{self.kind}Patch")


@dataclass(frozen=True, slots=True)
class HelmRelease:
    """One Helm release, without what its chart renders."""

    resource: Resource
    name: str
    namespace: str
    chart: str
    version: str
    #: The repository's address; empty for a chart of an OCI registry, whose name is its address.
    repo: str
    values: Mapping[str, Any]
    skip_crds: bool


def kubernetes_objects(recording: Recording) -> list[KubernetesObject]:
    """List the Kubernetes objects in dependency order, secrets hidden and unknown values as text."""
    return [_object(resource) for resource in recording.resources if _is_object(resource)]


def helm_releases(recording: Recording) -> list[HelmRelease]:
    """List the Helm releases in dependency order, secrets in their values hidden and unknown values as text."""
    return [_release(resource) for resource in recording.of_type(*_RELEASE_TYPES)]


def write(recording: Recording, directory: Path, *, placeholders: Iterable[str] = ()) -> int:
    """Write all objects and releases into ``directory``, in place of what an earlier run wrote there.

    Gives the number of objects and releases. Raises :class:`NotOurDirectory` and writes nothing when the directory
    holds files that are not from an earlier run.
    """
    _check_ours(directory)
    files = _files(recording, placeholders)
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}.new.", dir=directory.parent))
    try:
        for name, text in files.items():
            file = fresh / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        (fresh / MARKER).write_text("".join(f"{name}\n" for name in sorted(files)), encoding="utf-8")
        fresh.chmod(0o755)
        _swap(fresh, directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return sum(1 for resource in recording.resources if _is_object(resource) or resource.type in _RELEASE_TYPES)


def _is_object(resource: Resource) -> bool:
    return resource.package == "kubernetes" and resource.kind == "custom" and "kind" in resource.inputs


def _object(resource: Resource) -> KubernetesObject:
    plain = resource.inputs.redacted(secret=SECRET, unknown="<known after pulumi up>")
    metadata = dict(plain.get("metadata") or {})
    answered = resource.outputs.at("metadata", "name")
    metadata["name"] = answered if isinstance(answered, str) else metadata.get("name", resource.name)
    if plain["kind"] == "Secret":
        plain |= {key: _hidden(key, resource.inputs[key]) for key in ("data", "stringData") if key in plain}
    ordered = {key: plain[key] for key in _TOP_LEVEL_ORDER if key in plain} | plain
    return KubernetesObject(resource, ordered | {"metadata": {"name": metadata.pop("name"), **metadata}})


def _hidden(key: str, content: Any) -> dict[str, str]:
    """Hide every value of a Secret, marked as secret or not; ``data`` stays valid base64."""
    text = base64.b64encode(SECRET.encode()).decode() if key == "data" else SECRET
    return dict.fromkeys(content if isinstance(content, dict) else ("hidden",), text)


def _release(resource: Resource) -> HelmRelease:
    plain = resource.inputs.redacted(secret=SECRET, unknown="<known after pulumi up>")
    answered = resource.outputs.get("name")
    return HelmRelease(
        resource=resource,
        name=answered if isinstance(answered, str) else str(plain.get("name", resource.name)),
        namespace=str(plain.get("namespace", "default")),
        chart=str(plain["chart"]),
        version=str(plain.get("version", "")),
        repo=str((plain.get("repositoryOpts") or {}).get("repo", "")),
        values=plain.get("values") or {},
        skip_crds=plain.get("skipCrds") is True,
    )


def _files(recording: Recording, placeholders: Iterable[str]) -> dict[str, str]:
    """Give the texts of all files by their names."""
    entries: list[KubernetesObject | HelmRelease] = []
    for resource in recording.resources:
        if resource.type in _RELEASE_TYPES:
            entries.append(_release(resource))
        elif _is_object(resource):
            entries.append(_object(resource))
    numbers = {entry.resource.urn: number for number, entry in enumerate(entries, start=1)}
    digits = max(3, len(str(len(entries))))
    files: dict[str, str] = {}
    rows: list[tuple[str, ...]] = []
    for number, entry in enumerate(entries, start=1):
        order = f"{number:0{digits}}"
        after = sorted(numbers[urn] for urn in entry.resource.requires if urn in numbers)
        if isinstance(entry, HelmRelease):
            name = _unused(f"releases/{_slug(entry.name)}", files)
            files[f"{name}.values.yaml"] = _yaml(entry.values)
            files[f"{name}.yaml"] = _yaml(_release_facts(entry, number))
            file, what = f"{name}.values.yaml", f"Helm release {entry.namespace}/{entry.name}: {entry.chart}"
            what += f" {entry.version}".rstrip()
        else:
            folder = "patches/" if entry.is_patch else ""
            parts = [order, entry.kind, entry.namespace, entry.name]
            file = f"{folder}{_slug('-'.join(part for part in parts if part))}.yaml"
            files[file] = _yaml(entry.manifest)
            what = f"{entry.kind} {entry.namespace}/{entry.name}".replace(" /", " ")
        rows.append((order, what, f"`{file}`", ", ".join(f"{need:0{digits}}" for need in after)))
    unseen = [resource for resource in recording.resources if _renders_unseen_objects(resource)]
    files["index.md"] = _index(recording, rows, unseen, _used(placeholders, files))
    return files


def _renders_unseen_objects(resource: Resource) -> bool:
    return resource.package == "kubernetes" and resource.kind == "remote" and resource.type not in _RELEASE_TYPES


def _release_facts(release: HelmRelease, number: int) -> dict[str, Any]:
    facts = {
        "order": number,
        "name": release.name,
        "namespace": release.namespace,
        "chart": release.chart,
        "version": release.version,
        "repo": release.repo,
        "skipCrds": release.skip_crds,
    }
    return {key: value for key, value in facts.items() if value != ""}


def _index(
    recording: Recording, rows: Iterable[tuple[str, ...]], unseen: Iterable[Resource], placeholders: Iterable[str]
) -> str:
    lines = [
        f"# Kubernetes objects of {recording.project}, stack {recording.stack}",
        "",
        "In the order in which the program creates them; a destroy goes the other way. What charts and remote",
        "components render is not here. Files in `patches/` change objects that somebody else owns.",
        "",
        "| order | what | file | after |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    if listed := [f"- {resource.name} ({resource.type})" for resource in unseen]:
        lines += ["", "Rendered by a provider plugin, so not here:", "", *listed]
    if used := [f"- `{placeholder}`" for placeholder in placeholders]:
        lines += ["", "Known after `pulumi up`:", "", *used]
    return "\n".join([*lines, ""])


def _used(placeholders: Iterable[str], files: Mapping[str, str]) -> list[str]:
    text = "\n".join(files.values())
    return sorted(placeholder for placeholder in placeholders if placeholder in text)


def _unused(name: str, files: Mapping[str, str]) -> str:
    candidates = [name, *(f"{name}-{number}" for number in range(2, 100))]
    return next(candidate for candidate in candidates if f"{candidate}.yaml" not in files)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _check_ours(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise NotOurDirectory(f"{directory} is a file; give a directory")
    present = {str(file.relative_to(directory)) for file in directory.rglob("*") if not file.is_dir()} - {MARKER}
    marker = directory / MARKER
    foreign = sorted(present - set(marker.read_text(encoding="utf-8").splitlines() if marker.is_file() else ()))
    if foreign:
        shown = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        raise NotOurDirectory(
            f"{directory} holds files that were not written here ({shown}); give a new or an empty directory"
        )


def _swap(fresh: Path, directory: Path) -> None:
    """Put ``fresh`` in the place of ``directory``: a reader sees the old files or the new ones, never a mixture."""
    if not directory.exists():
        fresh.rename(directory)
        return
    old = fresh.with_name(fresh.name.replace(".new.", ".old."))
    directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old)


class _Dumper(yaml.SafeDumper):
    """Block style throughout: scripts as they are written, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.text)


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
