"""Parts that all engine pods share, as arguments. Whole pods are looked at in the tests of the tiers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.serving_pod import STARTUP_PERIOD_S, cores, gib, probes, requirements
from tests.components.plans import FAST, QUALITY, SMALL


@pytest.mark.parametrize(("amount", "quantity"), [(26.0, "26624Mi"), (26.5, "27136Mi"), (0.125, "128Mi"), (0.0, "0Mi")])
def test_memory_is_whole_mebibytes(amount: float, quantity: str) -> None:
    assert gib(amount) == quantity


@pytest.mark.parametrize(("amount", "quantity"), [(3.5, "3500m"), (24.0, "24000m"), (0.1, "100m")])
def test_cpu_is_whole_millicores(amount: float, quantity: str) -> None:
    assert cores(amount) == quantity


@pytest.mark.parametrize("seconds", [300, 301, 304, 305, 1799])
def test_the_startup_probe_covers_the_planned_time_and_at_most_one_look_more(seconds: int) -> None:
    startup = probes(replace(QUALITY.timeouts, startup_probe_s=seconds)).startup
    assert isinstance(startup.failure_threshold, int)
    assert seconds <= startup.failure_threshold * STARTUP_PERIOD_S < seconds + STARTUP_PERIOD_S


def test_cpu_is_never_throttled() -> None:
    for tier in (QUALITY, FAST, SMALL):
        limits = requirements(tier.resources).limits
        assert isinstance(limits, dict)
        assert "cpu" not in limits
