"""Every object of every stack before a real API server, for real and in the program's own order.

It proves that schemas, CEL rules, defaults, Pod Security, built-in admission, KEDA's webhook and promtool take them,
and that KEDA's operator is ready to scale. It does not prove what the charts render, nor that anything is scaled.
"""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
import yaml

from offline.recording import Recording
from tests import harness
from tests.cluster.build import Tools
from tests.cluster.client import is_true
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.cluster.keda import start_keda
from tests.cluster.stack import AppliedObject, apply_stack

WARNINGS_EXPLAINED: dict[str, str] = {}
"""What the API server may warn of, by the object, each with the reason why it stays. There is nothing."""


@pytest.fixture(scope="module", params=harness.stack_names())
def applied(
    request: pytest.FixtureRequest, tools: Tools, tmp_path_factory: pytest.TempPathFactory
) -> Generator[tuple[Recording, ControlPlane, list[AppliedObject]]]:
    recording = harness.record(request.param, preview=False)
    with control_plane(tools, tmp_path_factory.mktemp(request.param)) as started:
        yield recording, started, apply_stack(started.client, recording, {"keda": lambda: start_keda(started)})


Applied = tuple[Recording, ControlPlane, list[AppliedObject]]


def test_all_objects_of_the_stack_are_accepted(applied: Applied) -> None:
    recording, _, objects = applied
    assert len(objects) == len(harness.kubernetes_objects(recording)) > 40


def test_prefill_and_decode_of_the_disaggregated_tier_are_among_them(applied: Applied) -> None:
    recording, _, objects = applied
    pods = [one.emitted.manifest["spec"]["template"] for one in objects if one.emitted.kind == "Deployment"]
    roles = {pod["metadata"]["labels"].get("llm-d.ai/role") for pod in pods} - {None}
    assert roles == ({"prefill", "decode"} if recording is harness.record("staging", preview=False) else set())


def test_nothing_is_warned_of_in_namespaces_that_enforce_restricted_pods(applied: Applied) -> None:
    _, plane, objects = applied
    warned = {str(one): one.applied.warnings for one in objects if one.applied.warnings}
    assert {name: texts for name, texts in warned.items() if name not in WARNINGS_EXPLAINED} == {}
    namespace = plane.client.get("v1", "Namespace", "llm")
    assert namespace is not None
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/warn"] == "restricted"


def test_kedas_operator_is_ready_to_scale_every_tier(applied: Applied) -> None:
    """Without Prometheus it knows no load; that it takes triggers, targets and fallback is what Ready says."""
    _, plane, objects = applied
    scaled = [one for one in objects if one.emitted.kind == "ScaledObject"]
    assert scaled
    for one in scaled:
        kind = ("keda.sh/v1alpha1", "ScaledObject")
        plane.client.wait_for(*kind, one.emitted.name, one.emitted.namespace, is_true("Ready"), "is ready", seconds=60)
        name = f"keda-hpa-{one.emitted.name}"
        autoscaler = plane.client.get("autoscaling/v2", "HorizontalPodAutoscaler", name, one.emitted.namespace)
        assert autoscaler is not None
        # A minimum of the API server's own would be 1 for a tier that sleeps, which is KEDA's part.
        assert autoscaler["spec"]["maxReplicas"] == one.emitted.manifest["spec"]["maxReplicaCount"]


def test_the_api_server_keeps_what_makes_a_tier_grow_at_its_target(applied: Applied) -> None:
    # Where the feature gate HPAConfigurableTolerance is off it drops the tolerance, and the default of 10 % stays.
    _, plane, _ = applied
    autoscalers = plane.client.objects("autoscaling/v2", "HorizontalPodAutoscaler", "llm")
    assert autoscalers
    for one in autoscalers:
        assert [one["spec"]["behavior"][way]["tolerance"] for way in ("scaleUp", "scaleDown")] == ["0", "0"]


def test_prometheus_takes_every_rule(applied: Applied, tools: Tools, tmp_path: Path) -> None:
    rules = harness.kubernetes_objects(applied[0], "PrometheusRule")
    assert rules
    for one in rules:
        file = tmp_path / f"{one['metadata']['name']}.yaml"
        file.write_text(yaml.safe_dump(one["spec"]), encoding="utf-8")
        command = [tools["prometheus"] / "promtool", "check", "rules", file]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
