"""The values of our Helm releases against the defaults of their charts: Helm itself takes any key and ignores it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

_VALUES: Final = Path(__file__).parent / "values"

_BESIDE_THE_FILE: Final[Mapping[str, Mapping[str, Any]]] = {
    "kube-prometheus-stack": {
        "kube-state-metrics": {"nodeSelector": {}, "resources": {}, "metricLabelsAllowlist": []},
        "grafana": {"nodeSelector": {}, "resources": {}},
    },
    # Its template takes `resources` whole; the file has the limits in a comment.
    "aws-efa-k8s-device-plugin": {"resources": {"limits": {}}},
}
"""Values that a chart takes and its file of defaults does not show, as far as we set them; see SOURCES.md."""


def unknown_values(chart: str, values: Mapping[str, Any]) -> list[str]:
    """List what of ``values`` the chart would ignore or choke on: keys that its defaults do not have, maps for scalars.

    A key whose default is empty (null, an empty map or list) is open: what stands below it is the chart's template's
    business, and not checked. ``chart`` may be an OCI address.
    """
    name = chart.rsplit("/", 1)[-1]
    if not (_VALUES / f"{name}-values.yaml").exists():
        return [f"no default values of a chart {name!r} are here"]
    return list(_differences(values, _defaults(name), ()))


@functools.cache
def _defaults(chart: str) -> Mapping[str, Any]:
    defaults = yaml.safe_load((_VALUES / f"{chart}-values.yaml").read_text(encoding="utf-8"))
    return _merged(defaults, _BESIDE_THE_FILE.get(chart, {}))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return merged


def _differences(values: Mapping[str, Any], defaults: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for key, value in values.items():
        place = ".".join((*path, key))
        if key not in defaults:
            yield f"{place}: the chart has no such value"
            continue
        default = defaults[key]
        if default in (None, "", {}, []):
            continue
        if isinstance(default, Mapping) != isinstance(value, Mapping):
            yield f"{place}: is {_kind(value)}, the chart's default is {_kind(default)}"
        elif isinstance(default, Mapping):
            yield from _differences(value, default, (*path, key))
        elif isinstance(default, list) != isinstance(value, list) or isinstance(default, bool) != isinstance(
            value, bool
        ):
            yield f"{place}: is {_kind(value)}, the chart's default is {_kind(default)}"


def _kind(value: object) -> str:
    kinds: dict[type, str] = {dict: "a map", list: "a list", bool: "a truth value"}
    return kinds.get(type(value), repr(value))
