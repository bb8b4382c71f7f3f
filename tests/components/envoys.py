"""The real Envoy, to check a bootstrap and to run one on the loopback interface before stub tiers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.processes import Process, Processes, answers, free_ports

ENVOY = shutil.which("envoy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
needs_envoy = pytest.mark.skipif(ENVOY is None, reason="no envoy for this platform among the packages")


def complaints(bootstrap: str, directory: Path) -> str:
    """Say what Envoy has against a bootstrap; nothing when it takes it."""
    file = directory / "envoy.yaml"
    file.write_text(bootstrap)
    run = subprocess.run(
        [str(ENVOY), "--mode", "validate", "--config-path", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return run.stderr[-2000:] if run.returncode else ""


def start(
    processes: Processes, name: str, bootstrap: str, addresses: Mapping[str, int], arguments: tuple[str, ...] = ()
) -> tuple[str, Process]:
    """Run Envoy with a bootstrap; give the URL of its requests' listener and the process.

    All that differs from the pod: it listens on free ports of the loopback interface, and its clusters are the ports
    of ``addresses`` there instead of names in the cluster's DNS.
    """
    config: dict[str, Any] = yaml.safe_load(bootstrap)
    ports = free_ports(len(config["static_resources"]["listeners"]))
    urls: dict[str, str] = {}
    for listener, port in zip(config["static_resources"]["listeners"], ports, strict=True):
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
        urls[listener["name"]] = f"http://127.0.0.1:{port}"
    for cluster in config["static_resources"]["clusters"]:
        (locality,) = cluster["load_assignment"]["endpoints"]
        (one,) = locality["lb_endpoints"]
        address = {"address": "127.0.0.1", "port_value": addresses[cluster["name"]]}
        one["endpoint"]["address"]["socket_address"] = address
    file = processes.directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [str(ENVOY), "--config-path", file, "--log-level", "warn", "--disable-hot-restart", *arguments]
    process = processes.start(name, command)
    answers(process, f"{urls['ready']}/ready", seconds=30)
    return urls["requests"], process
