"""The routers' configuration before the picker that llm-d's descends from: `tests/cluster/picker.py` says how far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from components.names import SERVING_NAMESPACE
from tests import harness
from tests.cluster.control_plane import ControlPlane
from tests.cluster.picker import start_picker
from tests.cluster.processes import DidNotHappen
from tests.cluster.stack import define_picker

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SERVING_NAMESPACE}}


def configurations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Give each tier of vLLM that is not disaggregated, with its picker's configuration."""
    for stack in harness.stack_names():
        for one in harness.kubernetes_objects(harness.record(stack, preview=False), "ConfigMap"):
            tier, found, _ = one["metadata"]["name"].partition("-router-picker")
            config = yaml.safe_load(next(iter(one["data"].values()))) if found else {}
            if "kv-cache-utilization-scorer" in {plugin["type"] for plugin in config.get("plugins", ())}:
                yield f"{stack}-{tier}", config


def test_the_picker_loads_every_tiers_configuration_and_waits_for_replicas(cluster: ControlPlane) -> None:
    define_picker(cluster.client)
    cluster.client.apply(NAMESPACE)
    seen = dict(configurations())
    assert {"dev-fast", "prod-fast", "prod-quality", "staging-fast"} <= seen.keys()
    for tier, config in seen.items():
        started = start_picker(cluster, tier, config, SERVING_NAMESPACE)
        started.process.check()
        cluster.processes.stop(started.process)


def test_the_picker_ends_at_a_field_that_it_does_not_know(cluster: ControlPlane) -> None:
    # So what it loads above, it has read.
    define_picker(cluster.client)
    cluster.client.apply(NAMESPACE)
    tier, config = next(configurations())
    config["flowControl"]["maxRequest"] = 10
    with pytest.raises(DidNotHappen, match=r"unknown field .*maxRequest"):
        start_picker(cluster, tier, config, SERVING_NAMESPACE)
