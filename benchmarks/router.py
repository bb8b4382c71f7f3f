"""What a tier's router adds to a request, and what it takes while it holds many: the real Envoy and picker.

``make bench`` runs it on the machine that it is on; the load, a replica that only plays at it and the router share its
cores. Exits with 1 when a figure is beyond its limit.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.cluster.build import Tools
from tests.cluster.router_load import (
    HELD,
    HELD_KIB,
    LIMIT_MIB,
    LIMIT_P99_MS,
    REQUESTS_PER_SECOND,
    added_latency,
    busy_stack,
    memory_while_holding_mib,
)

_SECONDS = 10.0


def main() -> int:
    """Measure, print, and say whether the limits hold."""
    console = Console()
    with (
        tempfile.TemporaryDirectory() as directory,
        console.status("serving a stack and loading its router, two minutes and a half"),
        busy_stack(Tools(), Path(directory)) as stack,
    ):
        runs = added_latency(stack, seconds=_SECONDS)
        taken = memory_while_holding_mib(stack)
    table = Table(title=f"milliseconds at {REQUESTS_PER_SECOND} requests/s", title_justify="left")
    for name in ("run", "direct p50", "p99", "through the router p50", "p99", "added p50", "added p99"):
        table.add_column(name, justify="right")
    for number, run in enumerate(runs, 1):
        figures = (run.direct_p50_ms, run.direct_p99_ms, run.routed_p50_ms, run.routed_p99_ms)
        table.add_row(str(number), *(f"{one:.1f}" for one in (*figures, run.added_p50_ms, run.added_p99_ms)))
    console.print(table)
    p99_ms, mib = statistics.median(run.added_p99_ms for run in runs), sum(taken.values())
    parts = ", ".join(f"{name} {one:.0f}" for name, one in taken.items())
    console.print(f"added at p99, median of {len(runs)}: {p99_ms:.1f} ms (limit {LIMIT_P99_MS:g})")
    console.print(f"memory with {HELD:,} held requests of {HELD_KIB} KiB: {mib:.0f} MiB ({parts}; limit {LIMIT_MIB:g})")
    return int(p99_ms > LIMIT_P99_MS or mib > LIMIT_MIB)


if __name__ == "__main__":
    sys.exit(main())
