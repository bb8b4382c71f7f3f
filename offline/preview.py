"""A recording for a person: the program's own report, the tree of resources, the stack's outputs."""

from __future__ import annotations

import json
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from offline.manifests import SECRET
from offline.recording import Recording, Resource

#: Lines are kept within this many columns where the names allow it.
WIDTH = 100
# Leaves of one type under one parent are folded into one line from this many on.
_FOLD_FROM = 3
_HIDDEN_CHILDREN = "remote component: what its plugin creates inside is not listed, it counts as one"


@dataclass(frozen=True, slots=True)
class _Group:
    """A family of resources, as the headline counts them."""

    singular: str
    plural: str
    style: str


_AWS = _Group("AWS", "AWS", "yellow")
_KUBERNETES = _Group("Kubernetes object", "Kubernetes objects", "blue")
_HELM = _Group("Helm release", "Helm releases", "cyan")
_EKS = _Group("EKS cluster", "EKS clusters", "magenta")
_COMPONENT = _Group("component", "components", "bold")
_PROVIDER = _Group("provider", "providers", "dim")
_OTHER = _Group("other", "other", "")
_GROUPS = (_AWS, _KUBERNETES, _HELM, _EKS, _COMPONENT, _PROVIDER, _OTHER)


def show(recording: Recording, console: Console, *, everything: bool = False) -> None:
    """Print a recording: messages, tree, counts, outputs. ``everything`` folds no siblings and cuts no line."""
    for message in recording.messages:
        prefix = "" if message.severity == "info" else f"{message.severity}: "
        console.print(Text(f"{prefix}{message.text}"), soft_wrap=True)
    if recording.messages:
        console.print()
    console.print(Text(headline(recording), style="bold"))
    console.print()
    console.print(Text(f"{recording.project}-{recording.stack}", style="bold"), soft_wrap=True)
    for line in _tree(recording, None, "", everything=everything):
        console.print(line, soft_wrap=True)
    console.print()
    for line in _counts(recording):
        console.print(line, soft_wrap=True)
    console.print()
    count = len(recording.outputs)
    console.print(Text(f"{count} stack output{'' if count == 1 else 's'}", style="bold"), soft_wrap=True)
    for line in _outputs(recording, everything=everything):
        console.print(line, soft_wrap=True)


def headline(recording: Recording) -> str:
    """Count the resources by family, on one line."""
    counts = Counter(_group(resource).singular for resource in recording.resources)
    parts = [
        f"{counts[group.singular]} {group.singular if counts[group.singular] == 1 else group.plural}"
        for group in _GROUPS
        if counts[group.singular]
    ]
    total = len(recording.resources)
    return f"{total} resource{'' if total == 1 else 's'}: {', '.join(parts)}" if parts else "no resources"


def as_json(recording: Recording) -> str:
    """Give everything a tool may want to know, as JSON; secrets and unknown values are texts."""
    document = {
        "project": recording.project,
        "stack": recording.stack,
        "outputs": recording.outputs.redacted(secret=SECRET),
        "messages": [{"severity": message.severity, "text": message.text} for message in recording.messages],
        "counts": dict(sorted(Counter(resource.type for resource in recording.resources).items())),
        "resources": [
            {
                "urn": resource.urn,
                "type": resource.type,
                "name": resource.name,
                "kind": resource.kind,
                "parent": resource.parent,
                "provider": resource.provider,
                "dependencies": resource.dependencies,
                "protect": resource.protect,
                "source": resource.source,
                "inputs": resource.inputs.redacted(secret=SECRET),
            }
            for resource in recording.resources
        ],
    }
    return json.dumps(document, indent=2)


def _group(resource: Resource) -> _Group:
    if resource.is_provider:
        return _PROVIDER
    if resource.type.startswith("kubernetes:helm.sh/"):
        return _HELM
    if resource.package == "eks":
        return _EKS if resource.type == "eks:index:Cluster" else _AWS
    if resource.kind == "component":
        return _COMPONENT
    return {"aws": _AWS, "kubernetes": _KUBERNETES}.get(resource.package, _OTHER)


def _label(resource: Resource) -> str:
    """Name a resource's type as a person would."""
    package, _, rest = resource.type.partition(":")
    if resource.is_provider:
        return f"{resource.type.rpartition(':')[2]} provider"
    if package == "aws":
        module, _, name = rest.rpartition(":")
        return f"{module.partition('/')[0]}.{name}"
    if package == "eks":
        return f"eks.{resource.type.rpartition(':')[2]}"
    if resource.type.startswith("kubernetes:helm.sh/"):
        return "Helm release"
    return resource.type.rpartition(":")[2]


def _chart(resource: Resource) -> str:
    return str(resource.inputs.get("chart", "")).rpartition("/")[2]


def _detail(resource: Resource) -> str:
    if _group(resource) is _HELM:
        return f"{_chart(resource)} {resource.inputs.get('version', '')}".strip()
    return _HIDDEN_CHILDREN if resource.kind == "remote" else ""


def _tree(recording: Recording, parent: Resource | None, indent: str, *, everything: bool) -> Iterator[Text]:
    families = _families(recording, parent, everything=everything)
    for position, family in enumerate(families):
        last = position == len(families) - 1
        first = family[0]
        line = Text(f"{indent}{'└─ ' if last else '├─ '}", style="dim")
        label = _label(first) + (f" × {len(family)}" if len(family) > 1 else "")
        line.append(label, style=_group(first).style or "default")
        names = ", ".join(resource.name for resource in family)
        line.append(f"  {names if everything else _cut(names, WIDTH - len(line) - 2)}", style="not dim")
        if len(family) == 1 and (detail := _detail(first)):
            line.append(f"  ({detail})", style="dim")
        yield line
        if len(family) == 1:
            yield from _tree(recording, first, indent + ("   " if last else "│  "), everything=everything)


def _families(recording: Recording, parent: Resource | None, *, everything: bool) -> list[list[Resource]]:
    """Group the children of one parent: leaves of one type together when there are many, else each alone."""
    leaves: defaultdict[str, list[Resource]] = defaultdict(list)
    children = recording.children(parent)
    for child in children:
        # A release's chart and version are worth a line of their own.
        if child.kind == "custom" and _group(child) is not _HELM and not recording.children(child):
            leaves[child.type].append(child)
    folded: set[str] = set()
    families: list[list[Resource]] = []
    for child in children:
        together = leaves.get(child.type, [])
        if everything or len(together) < _FOLD_FROM or child not in together:
            families.append([child])
        elif child.type not in folded:
            folded.add(child.type)
            families.append(together)
    return families


def _counts(recording: Recording) -> Iterator[Text]:
    """Give a table of how many there are of each type, a family a row."""
    by_group: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for resource in recording.resources:
        group = _group(resource)
        label = _chart(resource) if group is _HELM else _label(resource)
        by_group[group.singular][label] += 1
    for group in _GROUPS:
        labels = by_group[group.singular]
        total = labels.total()
        name = group.singular if total == 1 else group.plural
        types = ", ".join(f"{label} {count}" for label, count in sorted(labels.items(), key=_most_first))
        for position, part in enumerate(textwrap.wrap(types, WIDTH - 26)):
            line = Text(f"{total:4}  " if position == 0 else " " * 6)
            yield line.append(f"{name if position == 0 else '':20}", style=group.style).append(part)


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    label, count = item
    return -count, label


def _outputs(recording: Recording, *, everything: bool) -> Iterator[Text]:
    for name, value in recording.outputs.redacted(secret=SECRET).items():
        for text in _rendered(value, f"  {name}: "):
            yield Text(text if everything else _cut(text, WIDTH))


def _rendered(value: Any, prefix: str) -> Sequence[str]:
    """Render a value on one line, or a collection with an item a line."""
    inner = " " * (len(prefix) - len(prefix.lstrip()) + 2)
    if isinstance(value, dict) and value:
        return [prefix.rstrip(), *(f"{inner}{key}: {_flow(item)}" for key, item in value.items())]
    if isinstance(value, list) and value:
        return [prefix.rstrip(), *(f"{inner}- {_flow(item)}" for item in value)]
    return [prefix + _flow(value)]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flow(item)}" for key, item in value.items()) or "{}"
    if isinstance(value, list):
        return ", ".join(_flow(item) for item in value) or "[]"
    return value if isinstance(value, str) else json.dumps(value)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= max(width, 20) else text[: max(width, 20) - 1].rstrip(", ") + "…"
