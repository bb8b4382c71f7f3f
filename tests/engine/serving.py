"""The provider servers as a process of their own, as the engine would find them, and their journal."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.harness import ROOT


@dataclass(frozen=True, slots=True)
class Call:
    """A call that changed something, or was refused."""

    action: str
    urn: str
    timeout_s: float
    refused: str

    @property
    def type(self) -> str:
        """Type token of the resource."""
        return self.urn.split("::")[2].rpartition("$")[2]

    @property
    def name(self) -> str:
        """Logical name of the resource."""
        return self.urn.rpartition("::")[2]


@dataclass(frozen=True, slots=True)
class Served:
    """Running provider servers."""

    debug_providers: str
    """Value of ``PULUMI_DEBUG_PROVIDERS``."""
    journal_path: Path

    @property
    def ports(self) -> dict[str, int]:
        """Port of each package's server."""
        pairs = (pair.partition(":") for pair in self.debug_providers.split(","))
        return {package: int(port) for package, _, port in pairs}

    def calls(self) -> list[Call]:
        """List what was asked so far, in order."""
        if not self.journal_path.exists():
            return []
        lines = self.journal_path.read_text(encoding="utf-8").splitlines()
        read = [json.loads(line) for line in lines]
        return [Call(each["action"], each["urn"], each["timeout_s"], each.get("refused", "")) for each in read]


@contextlib.contextmanager
def provider_servers(directory: Path) -> Iterator[Served]:
    """Run the servers for as long as the block lasts; they are told to end by the end of their input."""
    journal = directory / "journal.jsonl"
    command = [sys.executable, "-m", "tests.engine.providers", str(journal)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes to the servers")
        try:
            yield Served(process.stdout.readline().strip(), journal)
        finally:
            process.stdin.close()
            process.wait(timeout=20)
