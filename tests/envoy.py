"""The real Envoy: to check a bootstrap, and as a process on the loopback interface."""

from __future__ import annotations

import socket
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cluster.processes import Process, Processes, free_ports, wait_until

ENVOY: Final = Path(sysconfig.get_path("purelib")) / "envoy" / "_bin" / "envoy"
"""The binary itself: the package's wrapper would be the process that is told to end."""

needs_envoy: Final = pytest.mark.skipif(not ENVOY.exists(), reason="no envoy for this platform among the packages")


def complaints(bootstrap: str, directory: Path) -> str:
    """Say what Envoy has against a bootstrap; nothing when it takes it."""
    file = directory / "envoy.yaml"
    file.write_text(bootstrap, encoding="utf-8")
    command = [ENVOY, "--mode", "validate", "--config-path", file]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return run.stderr[-2000:] if run.returncode else ""


def start_envoy(
    processes: Processes, name: str, bootstrap: Mapping[str, Any], flags: Sequence[str] = ("--concurrency", "1")
) -> Process:
    """Start Envoy with a bootstrap and wait until every listener of it takes connections."""
    file = processes.directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump(dict(bootstrap)), encoding="utf-8")
    # Hot restart shares memory by number: two of them on one machine would meet in it.
    command = [ENVOY, "--config-path", file, "--disable-hot-restart", "--log-level", "warning", *flags]
    process = processes.start(name, command)
    for listener in bootstrap["static_resources"]["listeners"]:
        port = listener["address"]["socket_address"]["port_value"]
        wait_until(lambda port=port: _listens(process, port), f"{name} listens on {port}", seconds=60)
    return process


def start_before(
    processes: Processes, name: str, bootstrap: str, addresses: Mapping[str, int], flags: Sequence[str] = ()
) -> tuple[str, Process]:
    """Start a pod's Envoy; give the URL of its requests' listener and the process.

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
    return urls["requests"], start_envoy(processes, name, config, flags)


def _listens(process: Process, port: int) -> bool:
    process.check()
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
