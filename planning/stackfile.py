"""A stack file read as Pulumi reads it, without Pulumi: ``Pulumi.<stack>.yaml`` over the defaults of ``Pulumi.yaml``.

Both ``python -m planning`` and the offline engine read stacks through :func:`read_stack`, so they cannot disagree
about what a stack says. Encrypted values (``secure: …``) are accepted unread: a placeholder stands for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from planning.facts.traces import names_file
from problems import NAMESPACE
from reading import own_values

#: Stands for a value that only the stack's secrets provider can decrypt.
ENCRYPTED = "[encrypted]"

_PROGRAM_DIRECTORY = Path(__file__).resolve().parents[1]
# What Pulumi reads of a stack file (pulumi.com/docs/iac/concepts/projects/stack-settings-file); the rest it ignores.
_STACK_FILE_KEYS = frozenset({"config", "environment", "secretsprovider", "encryptedkey", "encryptionsalt"})
_STACK_FILE_NAME = re.compile(r"Pulumi\.(?P<stack>.+)\.ya?ml")
# What makes an entry of the project file's `config:` block a declaration and not a plain value.
_DECLARATION_KEYS = frozenset({"type", "default", "value", "description", "secret", "items"})


class StackFileError(Exception):
    """A stack or project file that cannot be read; the message names the file, the line and the way out."""


@dataclass(frozen=True, slots=True)
class StackFile:
    """The configuration of one stack, project defaults applied."""

    path: Path
    project: str
    stack_name: str
    #: ``aws:region``, or None when the stack leaves it to the environment.
    region: str | None
    #: The values of this program's namespace by key (``own_values``), :data:`ENCRYPTED` in place of encrypted ones.
    values: Mapping[str, object]
    #: The keys of :attr:`values` that were given as ``secure:``, in whole or in part.
    encrypted: frozenset[str]
    #: Every value of every namespace, by ``namespace:key``.
    config: Mapping[str, object]
    #: The keys of :attr:`config` that are secret: encrypted ones, and those the project declares ``secret: true``.
    secret_keys: frozenset[str]

    def engine_config(self) -> dict[str, str]:
        """Give the configuration as the engine hands it to a program: text as it is, everything else as JSON."""
        return {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in self.config.items()
            if value is not None
        }


def read_stack(path: Path) -> StackFile:
    """Read the stack file at ``path`` and apply the defaults of the project file beside it.

    Without a ``Pulumi.yaml`` beside the stack file the program's own is used; without any, there are no defaults.
    Raises :class:`StackFileError` when a file is missing, is not YAML or has not the shape of a stack file.
    """
    project, defaults, declared_secret = _read_project(path)
    document = _load(path)
    for key in document:
        if key not in _STACK_FILE_KEYS:
            inside = "config:" if f"{key}".startswith(f"{NAMESPACE}:") else f"config: as {NAMESPACE}:{key}"
            raise StackFileError(
                f"{path}: Pulumi does not read {key!r} at the top of a stack file; move it into {inside}"
            )
    given = document.get("config") or {}
    if not isinstance(given, dict):
        raise StackFileError(f"{path}: `config:` holds {_kind(given)}; it must map keys such as {NAMESPACE}:tiers")
    config: dict[str, Any] = dict(defaults)
    config |= {f"{key}": value for key, value in given.items()}
    encrypted = frozenset(key for key, value in config.items() if _holds_secure(value))
    config = {key: _without_secure(value) for key, value in config.items()}
    region = config.get("aws:region")
    if region is not None and not isinstance(region, str):
        raise StackFileError(f"{path}: aws:region holds {_kind(region)}; it must be a name such as us-east-2")
    prefix = f"{NAMESPACE}:"
    values = own_values(config)
    return StackFile(
        path=path,
        project=project or NAMESPACE,
        stack_name=stack_name(path),
        region=region,
        values={key: _beside(path, value) if key.endswith("tiers") else value for key, value in values.items()},
        encrypted=frozenset(key.removeprefix(prefix) for key in encrypted if key.startswith(prefix)),
        config=config,
        secret_keys=encrypted | (declared_secret & config.keys()),
    )


def _beside(path: Path, tiers: object) -> object:
    """Tiers whose ``architecture`` or ``traffic.profile`` is a path beside the stack file, as seen from here."""

    def seen(named: object) -> object:
        return str(beside) if isinstance(named, str) and (beside := path.parent / named).exists() else named

    def tier_seen(tier: dict[str, Any]) -> dict[str, Any]:
        if "architecture" in tier:
            tier = {**tier, "architecture": seen(tier["architecture"])}
        traffic = tier.get("traffic")
        if isinstance(traffic, dict) and isinstance(profile := traffic.get("profile"), str) and names_file(profile):
            tier = {**tier, "traffic": {**traffic, "profile": seen(profile)}}
        return tier

    if not isinstance(tiers, list):
        return tiers
    return [tier_seen(tier) if isinstance(tier, dict) else tier for tier in tiers]


def stack_name(path: Path) -> str:
    """Name the stack of a stack file: ``dev`` for ``Pulumi.dev.yaml``, the file's stem for any other name."""
    named = _STACK_FILE_NAME.fullmatch(path.name)
    return named["stack"] if named else path.stem


def stack_names(directory: Path = _PROGRAM_DIRECTORY) -> list[str]:
    """List the stacks that have a file in ``directory``, sorted by name."""
    return sorted(stack_name(file) for file in directory.glob("Pulumi.*.y*ml") if _STACK_FILE_NAME.fullmatch(file.name))


def stack_path(stack: str, directory: Path = _PROGRAM_DIRECTORY) -> Path:
    """Find a stack's file from what a person types: the stack's name, or a path to its file.

    Raises :class:`StackFileError` naming the stacks there are.
    """
    if stack.endswith((".yaml", ".yml")) or "/" in stack:
        return Path(stack)
    for suffix in ("yaml", "yml"):
        path = directory / f"Pulumi.{stack}.{suffix}"
        if path.is_file():
            return path
    known = ", ".join(stack_names(directory)) or "none"
    raise StackFileError(
        f"there is no stack {stack!r} here (Pulumi.{stack}.yaml is missing); stacks: {known}, or give a file"
    )


def _read_project(stack_file: Path) -> tuple[str, dict[str, Any], frozenset[str]]:
    """Read the project's name, its configuration defaults and the keys it declares secret, by ``namespace:key``."""
    beside = [stack_file.parent / name for name in ("Pulumi.yaml", "Pulumi.yml")]
    path = next((file for file in [*beside, _PROGRAM_DIRECTORY / "Pulumi.yaml"] if file.is_file()), None)
    if path is None:
        return "", {}, frozenset()
    document = _load(path)
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise StackFileError(f"{path}: the project has no `name:`")
    declared = document.get("config") or {}
    if not isinstance(declared, dict):
        raise StackFileError(f"{path}: `config:` holds {_kind(declared)}; it must map keys to their declarations")
    defaults: dict[str, Any] = {}
    secret: set[str] = set()
    for key, entry in declared.items():
        qualified = key if ":" in key else f"{name}:{key}"
        if isinstance(entry, dict) and (not entry or entry.keys() & _DECLARATION_KEYS):
            if entry.get("secret") is True:
                secret.add(qualified)
            default = entry.get("value", entry.get("default"))
        else:
            default = entry
        if default is not None:
            defaults[qualified] = default
    return name, defaults, frozenset(secret)


def _load(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StackFileError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StackFileError(f"{path}: cannot be read: {error}") from None
    try:
        document = yaml.load(text, Loader=_Loader)  # a SafeLoader with fewer implicit types
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise StackFileError(f"{path}:{line} is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # Explicit tags with a value that is none, keys that are lists, integers of thousands of digits.
        raise StackFileError(f"{path}: cannot be read as YAML: {str(error)[:200]}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise StackFileError(f"{path}: holds {_kind(document)}; it must be a mapping with `config:` in it")
    return document


class _Loader(yaml.SafeLoader):
    """YAML as the engine reads it (1.2, Go): `18:00` and `on` are text, not 1080 and true; a key stands once."""


_Loader.yaml_implicit_resolvers = {}
_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))


def _integer(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(node.value)
    return int(text, 0) if text[:2] in {"0x", "0o"} else int(text)


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, Hashable) and key in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _is_secure(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"secure"}


def _holds_secure(value: object) -> bool:
    if _is_secure(value):
        return True
    if isinstance(value, dict):
        return any(_holds_secure(item) for item in value.values())
    return isinstance(value, list) and any(_holds_secure(item) for item in value)


def _without_secure(value: Any) -> Any:
    if _is_secure(value):
        return ENCRYPTED
    if isinstance(value, dict):
        return {key: _without_secure(item) for key, item in value.items()}
    return [_without_secure(item) for item in value] if isinstance(value, list) else value


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else f"the value {value!r}"
