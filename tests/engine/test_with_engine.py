"""The real engine runs the program with providers that make nothing and refuse a wrong order.

Needs `pulumi` with its Python language host on PATH. Proven then: preview, update, a second preview without changes, a
renamed tier and a destroy go through in an order that the small world takes. Not proven: that AWS takes it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.engine.serving import Call, Served, provider_servers
from tests.harness import ROOT

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("pulumi") is None, reason="pulumi is not on PATH: the real engine's order is not tested here"
    ),
]

_NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "tests", "manifests")


@dataclass(frozen=True)
class Stack:
    """A copy of the program with a stack of its own in a local backend."""

    name: str
    directory: Path
    environment: Mapping[str, str]
    served: Served

    def pulumi(self, *arguments: str) -> str:
        """Run the CLI; its output, or a failure of the test with it."""
        ran = subprocess.run(
            ["pulumi", *arguments, "--non-interactive", "--stack", self.name],
            cwd=self.directory,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        told = f"{ran.stdout}\n{ran.stderr}"
        if ran.returncode:
            pytest.fail(f"pulumi {' '.join(arguments)} ended with {ran.returncode}:\n{told}")
        return told

    def calls_of(self, *arguments: str) -> list[Call]:
        """Run the CLI, and give what it asked of the providers."""
        before = len(self.served.calls())
        self.pulumi(*arguments)
        return self.served.calls()[before:]

    def rename_first_tier(self, name: str) -> str:
        """Give the first tier another name in the stack's file, and return the old one."""
        path = self.directory / f"Pulumi.{self.name}.yaml"
        file = yaml.safe_load(path.read_text(encoding="utf-8"))
        first = file["config"]["frugal-llm:tiers"][0]
        old, first["name"] = first["name"], name
        if file["config"].get("frugal-llm:routing", {}).get("defaultTier") == old:
            file["config"]["frugal-llm:routing"]["defaultTier"] = name
        path.write_text(yaml.safe_dump(file, sort_keys=False), encoding="utf-8")
        return str(old)


@pytest.fixture(params=["dev", "prod"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    program, backend = tmp_path / "program", tmp_path / "backend"
    shutil.copytree(ROOT, program, ignore=_NOT_COPIED)
    (program / ".venv").symlink_to((ROOT / ".venv").resolve())
    backend.mkdir()
    with provider_servers(tmp_path) as served:
        environment = {
            **os.environ,
            "PULUMI_BACKEND_URL": backend.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "for-tests",
            "PULUMI_DEBUG_PROVIDERS": served.debug_providers,
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        made = Stack(request.param, program, environment, served)
        subprocess.run(
            ["pulumi", "stack", "init", made.name, "--non-interactive"], cwd=program, env=environment, check=True
        )
        yield made


def test_a_stack_comes_changes_and_goes_without_a_refusal(stack: Stack) -> None:
    assert "month" in stack.pulumi("preview"), "the report is part of the preview"
    assert stack.served.calls() == [], "a preview makes nothing"

    made = stack.calls_of("up", "--yes", "--skip-preview")
    assert {call.action for call in made} == {"create"}
    assert len(made) > 100

    assert stack.calls_of("preview", "--expect-no-changes") == []

    old = stack.rename_first_tier("renamed")
    changed = [(call.action, call.name) for call in stack.calls_of("up", "--yes", "--skip-preview")]
    switched = changed.index(("update", "ingress-ingress"))
    assert changed.index(("create", "renamed-engine-deployment")) < switched, "the new engine answers first"
    assert switched < changed.index(("delete", f"{old}-engine-deployment")), "the old one goes when nobody asks it"

    gone = stack.calls_of("destroy", "--yes", "--skip-preview")
    assert {call.action for call in gone} == {"delete"}
    pools = [call for call in gone if call.type == "kubernetes:karpenter.sh/v1:NodePool"]
    assert pools
    assert all(call.timeout_s == 1800 for call in pools), "draining GPU nodes takes longer than the usual 10 minutes"
    calls = stack.served.calls()
    assert [call.refused for call in calls if call.refused] == []
    left = [call.urn for call in calls if call.action == "create"]
    for call in calls:
        if call.action == "delete":
            left.remove(call.urn)
    assert left == []
