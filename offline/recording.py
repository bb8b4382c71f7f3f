"""What a program registered: a frozen picture of its resources, outputs, messages and invokes."""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

#: Where a value stands inside properties: keys of mappings and indexes of lists, outermost first.
PropertyPath = tuple[str | int, ...]

STACK_TYPE = "pulumi:pulumi:Stack"
PROVIDER_TYPE_PREFIX = "pulumi:providers:"


class Unknown(enum.Enum):
    """The type of :data:`UNKNOWN`: a value that only a provider can compute, after the preview."""

    UNKNOWN = "known after pulumi up"

    def __str__(self) -> str:
        """Say when the value will be known."""
        return self.value


UNKNOWN = Unknown.UNKNOWN


@dataclass(frozen=True, slots=True)
class ResourceReference:
    """A whole resource given as a property."""

    urn: str
    id: str


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, text, URI or archive given as a property."""

    kind: Literal["text", "path", "uri", "archive"]
    content: str


class Properties(Mapping[str, Any]):
    """Plain values by Pulumi's (camelCase) names, with secrets unwrapped but remembered by where they stand.

    Values are None, bool, int, float, str, lists and dicts of them, :data:`UNKNOWN`, :class:`ResourceReference` and
    :class:`Asset`. They belong to the recording: read them, do not change them.
    """

    __slots__ = ("_values", "secret_paths")

    def __init__(
        self, values: Mapping[str, Any] | None = None, secret_paths: frozenset[PropertyPath] = frozenset()
    ) -> None:
        self._values: Mapping[str, Any] = values or {}
        self.secret_paths = secret_paths

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        """Show the values with secrets hidden, so that a failing test prints none."""
        return f"Properties({self.redacted()!r})"

    def at(self, *path: str | int, default: Any = None) -> Any:
        """Give the value at ``path``, or ``default`` when any step of it is missing."""
        value: Any = self._values
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return default
        return value

    def is_secret(self, *path: str | int) -> bool:
        """Say whether the value at ``path`` is encrypted in the state: it, or something around it, is a secret."""
        return any(path[: len(secret)] == secret for secret in self.secret_paths)

    def holds_secret(self, *path: str | int) -> bool:
        """Say whether the value at ``path`` is a secret or has a secret anywhere inside."""
        return self.is_secret(*path) or any(secret[: len(path)] == path for secret in self.secret_paths)

    def unknown_paths(self) -> list[PropertyPath]:
        """List where the values stand that are not known yet."""
        return [path for path, value in _leaves(dict(self._values), ()) if value is UNKNOWN]

    def redacted(self, *, secret: str = "[secret]", unknown: str = UNKNOWN.value) -> dict[str, Any]:
        """Give plain JSON-able values with texts in place of secrets, unknown values, references and assets."""

        def shown(value: Any, path: PropertyPath) -> Any:
            if path in self.secret_paths:
                return secret
            if isinstance(value, dict):
                return {key: shown(item, (*path, key)) for key, item in value.items()}
            if isinstance(value, list):
                return [shown(item, (*path, index)) for index, item in enumerate(value)]
            if value is UNKNOWN:
                return unknown
            if isinstance(value, ResourceReference):
                return value.urn
            return f"{value.kind}: {value.content}" if isinstance(value, Asset) else value

        return shown(dict(self._values), ())


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the engine waits for a resource, as the program wrote it (``30m``); empty: the provider's default."""

    create: str = ""
    update: str = ""
    delete: str = ""


@dataclass(frozen=True, slots=True)
class Resource:
    """One registration: what the program asked for, with which options, and what the provider would answer."""

    urn: str
    type: str
    name: str
    #: URN of the parent; empty for the stack itself.
    parent: str
    #: ``custom`` is managed by a provider, ``component`` by this program, ``remote`` is a component made by a plugin,
    #: whose children are not seen offline.
    kind: Literal["custom", "component", "remote"]
    inputs: Properties
    #: Inputs and computed properties as the provider would return them; for a component, its registered outputs.
    outputs: Properties = field(default_factory=Properties)
    id: str = ""
    #: URN of the provider the program chose; empty when Pulumi would use a default provider.
    provider: str = ""
    #: URNs of the providers a component hands to its children, by package.
    providers: Mapping[str, str] = field(default_factory=dict)
    #: URNs from ``depends_on`` (components expanded to their children) and from all properties, in dependency order.
    dependencies: tuple[str, ...] = ()
    property_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    protect: bool = False
    retain_on_delete: bool = False
    delete_before_replace: bool = False
    ignore_changes: tuple[str, ...] = ()
    replace_on_changes: tuple[str, ...] = ()
    #: URNs of resources whose replacement replaces this one.
    replace_with: tuple[str, ...] = ()
    replacement_trigger: Any = None
    timeouts: Timeouts = Timeouts()
    #: Former URNs, or ``name=``/``type=``/``parent=`` parts of them.
    aliases: tuple[str, ...] = ()
    #: URN of the resource whose deletion spares this one its own.
    deleted_with: str = ""
    additional_secret_outputs: tuple[str, ...] = ()
    import_id: str = ""
    #: Read from the cloud (``X.get``) and not managed.
    read: bool = False
    #: Names of the hooks bound to this resource.
    hooks: tuple[str, ...] = ()
    #: Where in the program the resource is made, ``file:line``, when the SDK says.
    source: str = ""

    @property
    def package(self) -> str:
        """Name the provider package: ``aws``, ``kubernetes``, ``eks``, ``pulumi`` or the project's own."""
        return self.type.partition(":")[0]

    @property
    def is_provider(self) -> bool:
        """Say whether this is an explicit provider."""
        return self.type.startswith(PROVIDER_TYPE_PREFIX)

    @property
    def needs_provider(self) -> bool:
        """Say whether the engine needs a provider for this: everything that is neither local nor a provider."""
        return self.kind != "component" and not self.is_provider and self.package != "pulumi"

    @property
    def requires(self) -> tuple[str, ...]:
        """List the URNs that exist before this does and outlive it: its edges in the engine's dependency graph."""
        urns = [self.parent, self.provider, *self.dependencies, self.deleted_with, *self.replace_with]
        urns += [urn for urns in self.property_dependencies.values() for urn in urns]
        return tuple(dict.fromkeys(urn for urn in urns if urn))


@dataclass(frozen=True, slots=True)
class Message:
    """One call of ``pulumi.log``."""

    severity: Literal["info", "warning", "error"]
    text: str
    #: URN of the resource the message is about, or empty.
    urn: str = ""


@dataclass(frozen=True, slots=True)
class Invoke:
    """One call of a provider's function, with the answer that the program got."""

    token: str
    arguments: Mapping[str, Any]
    provider: str
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Recording:
    """One run of a program. Resources stand in dependency order, in the program's own order where that is free."""

    project: str
    stack: str
    preview: bool
    resources: tuple[Resource, ...]
    outputs: Properties
    messages: tuple[Message, ...]
    invokes: tuple[Invoke, ...]

    @cached_property
    def by_urn(self) -> Mapping[str, Resource]:
        """Give the resources by URN; of resources with one URN, the first."""
        return {resource.urn: resource for resource in reversed(self.resources)}

    @property
    def stack_urn(self) -> str:
        """Give the URN of the stack, the root of the tree (which is not among the resources)."""
        return f"urn:pulumi:{self.stack}::{self.project}::{STACK_TYPE}::{self.project}-{self.stack}"

    @property
    def duplicate_urns(self) -> list[str]:
        """List the URNs registered more than once; the engine refuses them, mocks do not."""
        return [urn for urn, count in Counter(resource.urn for resource in self.resources).items() if count > 1]

    def where(self, condition: Callable[[Resource], bool]) -> list[Resource]:
        """List the resources that meet a condition."""
        return [resource for resource in self.resources if condition(resource)]

    def of_type(self, *types: str) -> list[Resource]:
        """List the resources of any of the type tokens, such as ``aws:sqs/queue:Queue``."""
        return self.where(lambda resource: resource.type in types)

    def named(self, name: str, type_: str | None = None) -> Resource:
        """Give the one resource with this logical name (and type); raises LookupError when there is not just one."""
        found = self.where(lambda resource: resource.name == name and type_ in {None, resource.type})
        if len(found) != 1:
            near = sorted({resource.name for resource in self.resources})
            raise LookupError(f"{len(found)} resources are named {name!r}; names: {', '.join(near)}")
        return found[0]

    @cached_property
    def _children(self) -> Mapping[str, list[Resource]]:
        children: defaultdict[str, list[Resource]] = defaultdict(list)
        for resource in self.resources:
            children[resource.parent].append(resource)
        return children

    def children(self, parent: Resource | None = None) -> list[Resource]:
        """List the direct children of a resource, or of the stack."""
        return list(self._children.get(parent.urn if parent else self.stack_urn, []))

    def descendants(self, parent: Resource) -> list[Resource]:
        """List the children of a resource, their children and so on."""
        return [found for child in self.children(parent) for found in (child, *self.descendants(child))]

    @cached_property
    def _upstream(self) -> Mapping[str, frozenset[str]]:
        closures: dict[str, frozenset[str]] = {}
        for resource in self.resources:  # in dependency order, so what it requires is there already
            direct = [urn for urn in resource.requires if urn in self.by_urn]
            closures[resource.urn] = frozenset(direct).union(*(closures.get(urn, frozenset()) for urn in direct))
        return closures

    def upstream(self, resource: Resource) -> frozenset[str]:
        """Give the URNs of everything that exists before ``resource`` and outlives it, directly or not.

        Follows dependencies, property dependencies, parent, provider and ``deleted_with``, as the engine does when it
        plans a destroy (``pkg/resource/graph/dependency_graph.go``, ``DependenciesOf``).
        """
        return self._upstream[resource.urn]

    def destroyed_before(self, first: Resource, second: Resource) -> bool:
        """Say whether a destroy is sure to finish with ``first`` before it starts on ``second``."""
        return second.urn in self.upstream(first)

    def texts(self, severity: Literal["info", "warning", "error"]) -> list[str]:
        """List the texts of the messages of one severity, in order."""
        return [message.text for message in self.messages if message.severity == severity]


def _leaves(value: Any, path: PropertyPath) -> Iterator[tuple[PropertyPath, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value
