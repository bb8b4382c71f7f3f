"""Deliberate mistakes in our own objects before the real parts: each is caught, and by whom the table says.

What a schema can say, `tests/test_mistakes.py` checks without a cluster.
"""

from __future__ import annotations

import subprocess
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import harness
from tests.cluster.build import Tools
from tests.cluster.client import Refused, condition
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.cluster.keda import start_keda
from tests.cluster.stack import apply_stack
from tests.mistakes import MISTAKES, STACK, Mistake, Tier


def caught_by(*tiers: Tier) -> pytest.MarkDecorator:
    chosen = [one for one in MISTAKES if one.caught_by in tiers]
    return pytest.mark.parametrize("mistake", chosen, ids=lambda one: f"{one.kind}-{one.what}")


@pytest.fixture(scope="module")
def plane(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Generator[ControlPlane]:
    """Give a cluster that runs the whole stack, KEDA included."""
    with control_plane(tools, tmp_path_factory.mktemp("mistakes")) as started:
        recording = harness.record(STACK, preview=False)
        apply_stack(started.client, recording, {"keda": lambda: start_keda(started)})
        yield started


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    return harness.kubernetes_objects(harness.record(STACK, preview=False))


def test_every_object_is_taken_again_as_it_stands(plane: ControlPlane, manifests: list[dict[str, Any]]) -> None:
    # Else a mistake might be refused for something that is wrong without it.
    for one in manifests:
        assert plane.client.apply(one, dry_run=True).warnings == ()


@caught_by(Tier.API_SERVER, Tier.KEDA_WEBHOOK)
def test_the_api_server_or_a_webhook_refuses(
    plane: ControlPlane, manifests: list[dict[str, Any]], mistake: Mistake
) -> None:
    with pytest.raises(Refused) as refused:
        plane.client.apply(mistake.made_apart_from(mistake.chosen_from(manifests)), dry_run=True)
    assert mistake.is_said_in(refused.value.message)
    by_webhook = "admission webhook" in refused.value.message
    assert by_webhook == (mistake.caught_by is Tier.KEDA_WEBHOOK)


@caught_by(Tier.POD_SECURITY)
def test_pod_security_warns_of(plane: ControlPlane, manifests: list[dict[str, Any]], mistake: Mistake) -> None:
    """Of a workload it warns; its pods it refuses."""
    wrong = mistake.made_apart_from(mistake.chosen_from(manifests))
    (warning,) = plane.client.apply(wrong, dry_run=True).warnings
    assert 'would violate PodSecurity "restricted:v1.36"' in warning
    assert mistake.is_said_in(warning)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "wrong", "namespace": wrong["metadata"]["namespace"]},
        "spec": wrong["spec"]["template"]["spec"],
    }
    with pytest.raises(Refused, match="violates PodSecurity"):
        plane.client.apply(pod, dry_run=True)


@caught_by(Tier.KEDA_OPERATOR)
def test_kedas_operator_is_not_ready_with(
    plane: ControlPlane, manifests: list[dict[str, Any]], mistake: Mistake
) -> None:
    right = mistake.chosen_from(manifests)

    def says(wanted: str) -> object:
        def look(one: Mapping[str, Any]) -> bool:
            ready = condition(one, "Ready")
            return ready.get("status") == wanted and (wanted == "True" or mistake.is_said_in(ready.get("message", "")))

        return plane.client.wait_for(
            right["apiVersion"],
            right["kind"],
            right["metadata"]["name"],
            right["metadata"]["namespace"],
            look,
            f"has Ready {wanted}",
            seconds=60,
        )

    says("True")
    plane.client.apply(mistake.made_in(right))
    says("False")
    plane.client.apply(right)
    says("True")


@caught_by(Tier.PROMTOOL)
def test_promtool_refuses(tools: Tools, manifests: list[dict[str, Any]], mistake: Mistake, tmp_path: Path) -> None:
    right = mistake.chosen_from(manifests)
    assert _promtool(tools, right, tmp_path).returncode == 0
    refused = _promtool(tools, mistake.made_in(right), tmp_path)
    assert refused.returncode != 0
    assert mistake.is_said_in(refused.stdout + refused.stderr)


def _promtool(tools: Tools, rule: Mapping[str, Any], directory: Path) -> subprocess.CompletedProcess[str]:
    file = directory / "rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")
    command = [tools["prometheus"] / "promtool", "check", "rules", file]
    return subprocess.run(command, capture_output=True, text=True, check=False)
