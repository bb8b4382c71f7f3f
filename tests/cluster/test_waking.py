"""Sleeping tiers under the real KEDA, HPA, Prometheus, Envoy and picker: they wake, lose nobody, and sleep again."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests import harness
from tests.cluster.build import Tools
from tests.cluster.callers import Request, all_answered, report, send_all
from tests.cluster.figures import Record, record_figure
from tests.cluster.serving import Pace, ServingStack, serving_stack

START_S = 3.0


@pytest.fixture(scope="module")
def stack(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServingStack]:
    """Give the dev stack, which tires after seconds and not after half an hour."""
    recording = harness.record("dev", preview=False)
    pace = Pace(start_s=START_S, idle_s=3)
    with serving_stack(tools, tmp_path_factory.mktemp("waking"), recording, pace) as started:
        yield started


def test_fifty_mixed_requests_to_a_sleeping_tier_are_all_answered(stack: ServingStack, record_property: Record) -> None:
    stack.wait_asleep("fast")

    requests = [Request(model="fast", stream=number % 2 == 0, tokens=10) for number in range(50)]
    outcomes = send_all(stack.router("fast"), requests)

    record_figure(record_property, report("0 to 1", outcomes))
    all_answered(outcomes)
    first_s = min(one.total_s for one in outcomes)
    assert START_S <= first_s <= START_S + 15
