"""The router under load, beside whatever else the machine does: `make bench` has the figures of a quiet one."""

from __future__ import annotations

import statistics

import pytest

from tests.cluster.build import Tools
from tests.cluster.figures import Record, record_figure
from tests.cluster.router_load import (
    HELD,
    HELD_KIB,
    LIMIT_MIB,
    REQUESTS_PER_SECOND,
    added_latency,
    busy_stack,
    memory_while_holding_mib,
)

MOST_P99_MS = 50
"""Five times what a quiet machine must reach: tests share two cores."""


def test_the_router_adds_little_time_and_holds_a_thousand_requests_in_little_memory(
    tools: Tools, tmp_path_factory: pytest.TempPathFactory, record_property: Record
) -> None:
    with busy_stack(tools, tmp_path_factory.mktemp("router-load")) as stack:
        runs = added_latency(stack, seconds=4)
        taken = memory_while_holding_mib(stack)
        limits = stack.router_limits_mib("fast")

    p99_ms = statistics.median(run.added_p99_ms for run in runs)
    listed = ", ".join(f"{run.added_p99_ms:.1f}" for run in runs)
    record_figure(record_property, f"router adds at p99, {REQUESTS_PER_SECOND}/s: {p99_ms:.1f} ms (runs: {listed})")
    parts = ", ".join(f"{name} {mib:.0f}" for name, mib in taken.items())
    record_figure(record_property, f"router with {HELD:,} held requests of {HELD_KIB} KiB: MiB of {parts}")
    assert p99_ms <= MOST_P99_MS
    assert sum(taken.values()) < LIMIT_MIB
    assert all(taken[name] < limit_mib for name, limit_mib in limits.items())
