"""The real Envoy: to check a bootstrap, and as a process on the loopback interface."""

from __future__ import annotations

import socket
import subprocess
import sysconfig
from collections.abc import Callable, Mapping, Sequence
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
    processes: Processes,
    name: str,
    bootstrap: str,
    address_of: Callable[[str], tuple[str, int]],
    flags: Sequence[str] = (),
) -> tuple[dict[str, str], Process]:
    """Start a pod's Envoy; give the URLs of its listeners by their names, and the process.

    All that differs from the pod: it listens on free ports of the loopback interface, the Services that it calls are
    where ``address_of`` says, and its admin socket, which a pod has to itself, has a name of its own on this machine.
    """
    config: dict[str, Any] = yaml.safe_load(bootstrap)
    ports = free_ports(len(config["static_resources"]["listeners"]))
    urls: dict[str, str] = {}
    for listener, port in zip(config["static_resources"]["listeners"], ports, strict=True):
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
        urls[listener["name"]] = f"http://127.0.0.1:{port}"
    addresses = [config["admin"]["address"]] if "admin" in config else []
    for cluster in config["static_resources"]["clusters"]:
        (locality,) = cluster["load_assignment"]["endpoints"]
        (one,) = locality["lb_endpoints"]
        addresses.append(one["endpoint"]["address"])
    for address in addresses:
        if "pipe" in address:
            address["pipe"] = {"path": f"{address['pipe']['path']}-{ports[0]}"}
        else:
            host, port = address_of(address["socket_address"]["address"].partition(".")[0])
            address["socket_address"] = {"address": host, "port_value": port}
    return urls, start_envoy(processes, name, config, flags)


def _listens(process: Process, port: int) -> bool:
    process.check()
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
