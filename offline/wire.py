"""Pulumi's wire format for properties: protobuf structs in which marked mappings stand for secrets and references."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from google.protobuf import struct_pb2

from offline.recording import UNKNOWN, Asset, Properties, PropertyPath, ResourceReference

# The constants of the protocol, the same in every Pulumi SDK (sdk/python/lib/pulumi/runtime/rpc.py).
UNKNOWN_TEXT = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
_RESOURCE = "5cf8f73096256a8f31e491e813e4eb8e"
_ASSET = "c44067f5952c0a294b673a41bacd8c17"
_ARCHIVE = "0def7320c3a5731c473e5ecbe6d01bc7"


def from_struct(struct: struct_pb2.Struct) -> Properties:
    """Read properties off the wire, keys sorted; secrets are unwrapped and their paths remembered."""
    secrets: set[PropertyPath] = set()
    values = {key: _read(struct.fields[key], (key,), secrets) for key in sorted(struct.fields)}
    return Properties(values, frozenset(secrets))


def to_struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """Write plain values (no secrets) as a struct; None is left out, as the SDK does."""
    struct = struct_pb2.Struct()
    for key, value in values.items():
        if value is not None:
            struct.fields[key].CopyFrom(_write(value))
    return struct


def as_secret(value: struct_pb2.Value) -> struct_pb2.Value:
    """Mark a value as a secret; one that is marked already stays as it is."""
    fields = value.struct_value.fields
    if _SIGNATURE in fields and fields[_SIGNATURE].string_value == _SECRET:
        return value
    marker = struct_pb2.Value(string_value=_SECRET)
    return struct_pb2.Value(struct_value=struct_pb2.Struct(fields={_SIGNATURE: marker, "value": value}))


def _read(value: struct_pb2.Value, path: PropertyPath, secrets: set[PropertyPath]) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return UNKNOWN if value.string_value == UNKNOWN_TEXT else value.string_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_read(item, (*path, index), secrets) for index, item in enumerate(value.list_value.values)]
        case "struct_value":
            return _read_struct(value.struct_value, path, secrets)
        case _:
            return None


def _read_struct(struct: struct_pb2.Struct, path: PropertyPath, secrets: set[PropertyPath]) -> Any:
    fields = struct.fields
    signature = fields[_SIGNATURE].string_value if _SIGNATURE in fields else ""
    match signature:
        case "":
            return {key: _read(fields[key], (*path, key), secrets) for key in sorted(fields)}
        case _ if signature == _SECRET:
            secrets.add(path)
            return _read(fields["value"], path, secrets)
        case _ if signature == _RESOURCE:
            return ResourceReference(fields["urn"].string_value, fields["id"].string_value if "id" in fields else "")
        case _ if signature == _ASSET:
            kinds: tuple[Literal["text", "path", "uri"], ...] = ("text", "path", "uri")
            kind = next(kind for kind in kinds if kind in fields)
            return Asset(kind, fields[kind].string_value)
        case _ if signature == _ARCHIVE:
            place = next((place for place in ("path", "uri") if place in fields), "")
            return Asset("archive", fields[place].string_value if place else ", ".join(_names(fields)))
        case _:
            raise ValueError(f"unrecognised signature {signature} at {path}")


def _names(fields: Mapping[str, struct_pb2.Value]) -> Iterable[str]:
    return sorted(fields["assets"].struct_value.fields)


def _write(value: Any) -> struct_pb2.Value:
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() | float():
            return struct_pb2.Value(number_value=float(value))
        case str():
            return struct_pb2.Value(string_value=value)
        case list():
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=[_write(item) for item in value]))
        case dict():
            return struct_pb2.Value(struct_value=to_struct(value))
        case _ if value is UNKNOWN:
            return struct_pb2.Value(string_value=UNKNOWN_TEXT)
        case _:
            raise TypeError(f"cannot send a {type(value).__name__} as a property")
