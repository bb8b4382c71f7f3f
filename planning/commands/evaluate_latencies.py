"""``evaluate --latencies``: the simulated scheduler against published TPOT and TTFT, by source."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

from planning.commands.common import UsageError, as_json
from planning.facts.measurements import Measurement
from planning.simulation_evaluation import evaluate_latencies


def evaluate_measured_latencies(rows: Sequence[Measurement], *, as_data: bool) -> str:
    """Return what ``evaluate --latencies`` prints. Raises ``UsageError``."""
    evaluation = evaluate_latencies(rows)
    if not evaluation.sources:
        raise UsageError(f"--latencies: none of the {len(rows)} rows has a TPOT at a stated concurrency and lengths")
    if as_data:
        return as_json(asdict(evaluation))
    from planning.report.terminal import plain_table  # noqa: PLC0415 (rich is slow to import, and data needs none of it)

    names = ("rows", "TPOT p50 %", "its p90 %", "TPOT p99 %", "TTFT p50 %", "TTFT p99 %")
    cells = [
        (
            one.source,
            f"{one.rows:,}",
            *(
                "" if error is None else f"{error:.1f}"
                for error in (one.tpot_p50, one.tpot_p50_p90, one.tpot_p99, one.ttft_p50, one.ttft_p99)
            ),
        )
        for one in (evaluation.total, *evaluation.sources)
    ]
    headline = "Simulated against published latencies: median error, by source"
    color = sys.stdout.isatty()
    text = plain_table(headline, [("source", "left"), *((name, "right") for name in names)], cells, color=color)
    if not evaluation.left_out:
        return text
    reasons = [(reason, f"{count}") for reason, count in evaluation.left_out]
    return text + "\n" + plain_table("Left out", [("because", "left"), ("rows", "right")], reasons, color=color)
