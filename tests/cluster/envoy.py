"""Envoy as a plain process, from the package that has its binary."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.processes import Process, Processes, wait_until

ENVOY: Final = shutil.which("envoy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
"""Where it is; None: there is none for this platform among the packages."""


def start_envoy(processes: Processes, name: str, bootstrap: Mapping[str, Any]) -> Process:
    """Start Envoy with a bootstrap and wait until every TCP listener of it takes connections."""
    assert ENVOY is not None
    file = processes.directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump(dict(bootstrap)), encoding="utf-8")
    # Hot restart shares memory by number: two of them on one machine would meet in it.
    flags = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
    process = processes.start(name, [ENVOY, "--config-path", file, *flags])
    for listener in bootstrap["static_resources"]["listeners"]:
        port = listener["address"]["socket_address"]["port_value"]
        wait_until(lambda port=port: _listens(process, port), f"{name} listens on {port}", seconds=60)
    return process


def _listens(process: Process, port: int) -> bool:
    process.check()
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
