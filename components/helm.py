"""A third-party controller as a Helm release at its pinned version. Creates the one resource it is named for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pulumi
import pulumi_kubernetes as k8s

from components.names import POOL_LABEL, SYSTEM_POOL
from components.versions import Chart
from planning.system_pods import GPU_NODE_PODS, SYSTEM_PODS

ON_SYSTEM_NODES: Final = {POOL_LABEL: SYSTEM_POOL}
"""Node selector of everything that must outlive the nodes that come and go with the load."""

_WAIT_S: Final = 600
"""How long Helm waits for what it installed: image pulls on fresh nodes take minutes."""
_TIMEOUTS: Final = pulumi.CustomTimeouts(create="15m", update="15m", delete="15m")


def release(
    name: str,
    chart: Chart,
    values: Mapping[str, Any],
    *,
    namespace: pulumi.Input[str],
    parent: pulumi.Resource,
    depends_on: Sequence[pulumi.Resource],
    release_name: str | None = None,
) -> k8s.helm.v3.Release:
    """Install ``chart`` under its own name, or ``release_name``; Helm waits until all of it is ready."""
    return k8s.helm.v3.Release(
        name,
        # Not Pulumi's suffixed name: charts name their objects by the release.
        name=release_name or chart.chart.rsplit("/", 1)[-1],
        chart=chart.chart,
        version=chart.version,
        repository_opts=k8s.helm.v3.RepositoryOptsArgs(repo=chart.repository) if chart.repository else None,
        namespace=namespace,
        values=dict(values),
        timeout=_WAIT_S,
        opts=pulumi.ResourceOptions(parent=parent, depends_on=list(depends_on), custom_timeouts=_TIMEOUTS),
    )


def resources(pod: str) -> dict[str, dict[str, str]]:
    """Give a chart's ``resources`` of one of the planned system pods."""
    planned = SYSTEM_PODS.get(pod) or GPU_NODE_PODS[pod]
    return {
        "requests": {"cpu": f"{planned.cpu_millicores}m", "memory": f"{planned.memory_mib}Mi"},
        "limits": {"memory": f"{planned.memory_limit_mib}Mi"},
    }
