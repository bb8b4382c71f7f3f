"""How a rule is written."""

from __future__ import annotations

from typing import Any, Literal

from components.tier_queries import number

Severity = Literal["none", "warning", "critical"]
"""``critical``: requests are lost or soon will be. ``warning``: latency or money, in hours or days. ``none``: all is
well."""


def alert(
    name: str,
    expression: str,
    *,
    after: str,
    severity: Severity,
    summary: str,
    description: str,
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Give an alerting rule; ``after`` is how long ``expression`` must hold."""
    return {
        "alert": name,
        "expr": expression,
        "for": after,
        "labels": {"severity": severity, **(labels or {})},
        "annotations": {"summary": summary, "description": description},
    }


def record(name: str, expression: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """Give a recording rule."""
    return {"record": name, "expr": expression, **({"labels": labels} if labels else {})}


def constant(name: str, value: float, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """Record a figure of the plan, so that alerts and dashboards compare series with series."""
    return record(name, f"vector({number(value)})", labels)
