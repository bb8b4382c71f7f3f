"""An update of one recorded graph into another, step by step in the engine's order.

The engine walks the new program in dependency order, creates and updates, and deletes what is left over when all of
that is done, dependents first; a replacement under the same name is deleted where it is made. It knows resources by
their URN. Not proven: that providers do as `replacement` says, and how long a step takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from offline.recording import PropertyPath, Recording, Resource
from tests.change.replacement import Difference, difference, physical_name


class Fate(Enum):
    """What becomes of a resource."""

    SAME = "stays as it is"
    UPDATED = "updated in place"
    UPDATED_IN_NAME = "said to be updated, and stays as it is"
    REFUSED = "not changed, the update fails"
    REPLACED = "replaced, the old one goes last"
    REPLACED_AFTER_DELETION = "replaced, the old one goes first"
    CREATED = "created"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Step:
    """One action of the engine."""

    action: str
    """``create``, ``update`` or ``delete``."""
    resource: Resource


@dataclass(frozen=True)
class Update:
    """What turns ``old`` into ``new``."""

    old: Recording
    new: Recording

    @cached_property
    def fates(self) -> Mapping[str, Fate]:
        """What becomes of every resource of either graph, by URN."""
        fates = {urn: Fate.DELETED for urn in self.old.by_urn if urn not in self.new.by_urn}
        return {**fates, **{urn: self._fate(urn) for urn in self.new.by_urn}}

    @cached_property
    def differences(self) -> Mapping[str, Difference]:
        """What is different about each resource that both graphs have, by URN."""
        found: dict[str, Difference] = {}
        for resource in self.new.resources:
            before = self.old.by_urn.get(resource.urn)
            if before is None or resource.kind == "component" or resource.is_provider:
                continue
            # A replaced resource has another id and name; what refers to them changes with it.
            replaced = [self.old.by_urn[urn] for urn in resource.requires if urn in found and found[urn].replacing]
            moved = tuple(path for one in replaced for path in _references(resource, one))
            found[resource.urn] = difference(resource.type, before.inputs, resource.inputs, moved)
        return found

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The engine's actions in order; those that nothing orders stand in the program's order."""
        forward: list[Step] = []
        left_over = {urn for urn, fate in self.fates.items() if fate in {Fate.DELETED, Fate.REPLACED}}
        for resource in self.new.resources:
            match self.fates[resource.urn]:
                case Fate.CREATED | Fate.REPLACED:
                    forward.append(Step("create", resource))
                case Fate.REPLACED_AFTER_DELETION:
                    forward += [Step("delete", self.old.by_urn[resource.urn]), Step("create", resource)]
                case Fate.UPDATED | Fate.UPDATED_IN_NAME | Fate.REFUSED:
                    forward.append(Step("update", resource))
                case Fate.SAME | Fate.DELETED:
                    pass
        backward = [Step("delete", one) for one in reversed(self.old.resources) if one.urn in left_over]
        return tuple(step for step in (*forward, *backward) if step.resource.kind != "component")

    @property
    def collisions(self) -> list[str]:
        """Name what is created under a name that another resource still has: the provider refuses it."""
        holders = {name: one.urn for one in self.old.resources if (name := physical_name(one.type, one.inputs))}
        found: list[str] = []
        for step in self.steps:
            name = physical_name(step.resource.type, step.resource.inputs)
            if name is None:
                continue
            if step.action == "create" and name in holders:
                found.append(f"{step.resource.urn} would be a second {'/'.join(name)}")
            if step.action == "delete":
                holders.pop(name, None)
            else:
                holders[name] = step.resource.urn
        return found

    def of(self, *types: str) -> Mapping[str, Fate]:
        """Give the fates of the resources of some types, by logical name; what stays as it is is left out."""
        resources = {**self.old.by_urn, **self.new.by_urn}
        return {
            resources[urn].name: fate
            for urn, fate in self.fates.items()
            if resources[urn].type in types and fate is not Fate.SAME
        }

    def place(self, action: str, name: str, type_: str) -> int:
        """Give where in the order a step stands. Raises LookupError when there is not just one."""
        places = [
            place
            for place, step in enumerate(self.steps)
            if (step.action, step.resource.name, step.resource.type) == (action, name, type_)
        ]
        if len(places) != 1:
            raise LookupError(f"{len(places)} steps {action} {type_} {name}")
        return places[0]

    def _fate(self, urn: str) -> Fate:
        if urn not in self.old.by_urn:
            return Fate.CREATED
        found = self.differences.get(urn)
        if found is None or not found.changed:
            return Fate.SAME
        if found.refused:
            return Fate.REFUSED
        if not found.replacing:
            return Fate.UPDATED if found.applied else Fate.UPDATED_IN_NAME
        first = found.delete_first or self.new.by_urn[urn].delete_before_replace
        return Fate.REPLACED_AFTER_DELETION if first else Fate.REPLACED


def _references(resource: Resource, replaced: Resource) -> Iterator[PropertyPath]:
    """Find where a resource's inputs hold the id, ARN or name of another."""
    outputs = replaced.outputs
    texts = {replaced.id, outputs.get("arn"), outputs.get("name"), outputs.at("metadata", "name")}
    known = {text for text in texts if isinstance(text, str) and text}
    for key, urns in resource.property_dependencies.items():
        if replaced.urn in urns:
            yield from _holding(resource.inputs.get(key), (key,), known)


def _holding(value: Any, path: PropertyPath, texts: set[str]) -> Iterator[PropertyPath]:
    if isinstance(value, str) and any(text in value for text in texts):
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _holding(item, (*path, key), texts)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _holding(item, (*path, index), texts)
