"""Every object of every stack before a real API server, for real and in the program's own order.

It proves that schemas, CEL rules, defaults, Pod Security and built-in admission take them. It does not prove what the
charts render, nor what controllers make of the objects: that is for the tests beside this one.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from offline.recording import Recording
from tests import harness
from tests.cluster.build import Tools
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.cluster.stack import AppliedObject, apply_stack

WARNINGS_EXPLAINED: dict[str, str] = {}
"""What the API server may warn of, by the object, each with the reason why it stays. There is nothing."""


@pytest.fixture(scope="module", params=harness.stack_names())
def applied(
    request: pytest.FixtureRequest, tools: Tools, tmp_path_factory: pytest.TempPathFactory
) -> Generator[tuple[Recording, ControlPlane, list[AppliedObject]]]:
    recording = harness.record(request.param, preview=False)
    with control_plane(tools, tmp_path_factory.mktemp(request.param)) as started:
        yield recording, started, apply_stack(started.client, recording)


Applied = tuple[Recording, ControlPlane, list[AppliedObject]]


def test_all_objects_of_the_stack_are_accepted(applied: Applied) -> None:
    recording, _, objects = applied
    assert len(objects) == len(harness.kubernetes_objects(recording)) > 40


def test_nothing_is_warned_of_in_namespaces_that_enforce_restricted_pods(applied: Applied) -> None:
    _, plane, objects = applied
    warned = {str(one): one.applied.warnings for one in objects if one.applied.warnings}
    assert {name: texts for name, texts in warned.items() if name not in WARNINGS_EXPLAINED} == {}
    namespace = plane.client.get("v1", "Namespace", "llm")
    assert namespace is not None
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/warn"] == "restricted"
