"""``evaluate``: the models of speed and memory against published measurements."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from planning.commands.common import UsageError, as_json
from planning.commands.evaluate_latencies import evaluate_measured_latencies
from planning.commands.evaluate_logs import evaluate_kv_cache_logs
from planning.facts.measurements import Measurement, measurements
from planning.facts.table import InvalidTable
from planning.speed import CONSTANTS
from planning.speed_evaluation import (
    Accuracy,
    LeftOut,
    Prediction,
    errors_by_source,
    is_current,
    leave_one_source_out,
    predictions,
    ranking,
    summary,
)


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    files = command.add_mutually_exclusive_group(required=True)
    files.add_argument(
        "--measurements", type=Path, metavar="FILE.csv", help="the speed model; columns of throughput_measurements.csv"
    )
    files.add_argument(
        "--kv-cache-logs", type=Path, metavar="FILE.csv", help="the memory model; columns of vllm_kv_cache_logs.csv"
    )
    modes = command.add_mutually_exclusive_group()
    modes.add_argument(
        "--leave-one-source-out",
        action="store_true",
        help="predict every source's rows with constants fitted on all others",
    )
    modes.add_argument(
        "--latencies",
        action="store_true",
        help="simulate vLLM's scheduler and compare TPOT and TTFT by source; takes some seconds",
    )


def run(arguments: argparse.Namespace) -> str:
    """Return what the command prints."""
    if arguments.kv_cache_logs is not None:
        if arguments.leave_one_source_out or arguments.latencies:
            raise UsageError("--leave-one-source-out and --latencies judge speed: they go with --measurements only")
        return evaluate_kv_cache_logs(arguments.kv_cache_logs, as_data=arguments.json)
    rows = _read(arguments.measurements)
    if arguments.latencies:
        return evaluate_measured_latencies(rows, as_data=arguments.json)
    judged, left_out = predictions(rows)
    if not judged:
        raise UsageError(f"--measurements {arguments.measurements}: none of its {len(rows)} rows can be predicted")
    try:
        by_source = leave_one_source_out(judged) if arguments.leave_one_source_out else errors_by_source(judged)
    except ValueError as error:
        raise UsageError(f"--leave-one-source-out: {error}") from error
    return _data(judged, left_out, by_source) if arguments.json else _tables(judged, left_out, by_source)


def _read(path: Path) -> tuple[Measurement, ...]:
    try:
        return measurements(path)
    except (OSError, UnicodeDecodeError, InvalidTable) as error:
        raise UsageError(f"--measurements {path}: {error}") from error


def _total(by_source: dict[str, list[tuple[Prediction, float]]], *, current: bool = False) -> Accuracy | None:
    errors = [error for rows in by_source.values() for one, error in rows if not current or is_current(one.row)]
    return summary(errors) if errors else None


def _left_out_errors(left_out: list[LeftOut]) -> list[tuple[str, int, Accuracy | None]]:
    """Each reason, its rows, and the error on those that can be computed all the same."""
    result: list[tuple[str, int, Accuracy | None]] = []
    for reason, count in Counter(one.reason for one in left_out).most_common():
        known = [one.prediction for one in left_out if one.reason == reason and one.prediction]
        errors = [one.error(CONSTANTS.seconds_per_unit(one.engine)) for one in known]
        result.append((reason, count, summary(errors) if errors else None))
    return result


def _data(
    judged: list[Prediction], left_out: list[LeftOut], by_source: dict[str, list[tuple[Prediction, float]]]
) -> str:
    total, current = _total(by_source), _total(by_source, current=True)
    return as_json(
        {
            **(asdict(total) if total else {}),
            "left_out": len(left_out),
            "left_out_reasons": [
                {"reason": reason, "rows": count, "median_ape": known.median_ape if known else None}
                for reason, count, known in _left_out_errors(left_out)
            ],
            "current_engines": asdict(current) if current else None,
            "ranking": ranking(judged),
            "sources": {
                source: asdict(summary([error for _, error in rows])) for source, rows in sorted(by_source.items())
            },
            "constants": asdict(CONSTANTS),
        }
    )


def _tables(
    judged: list[Prediction], left_out: list[LeftOut], by_source: dict[str, list[tuple[Prediction, float]]]
) -> str:
    from planning.report.terminal import plain_table  # noqa: PLC0415 (rich is slow to import, and data needs none)

    order = ranking(judged)
    total, current = _total(by_source), _total(by_source, current=True)
    lines = [("all", total), ("current engines", current)]
    lines += sorted(
        ((source, summary([error for _, error in rows])) for source, rows in by_source.items()),
        key=lambda line: -line[1].rows,
    )
    columns = [("source", "left"), *((name, "right") for name in ("rows", "median %", "p90 %", "in 2x %", "bias %"))]
    cells = [(name, f"{one.rows:,}", *_figures(one)) for name, one in lines if one]
    headline = f"{len(judged):,} of {len(judged) + len(left_out):,} rows, error of predicted against measured speed" + (
        f"; {order:.1f} % of pairs of GPU choices in the right order" if order is not None else ""
    )
    color = sys.stdout.isatty()
    text = plain_table(headline, columns, cells, color=color)
    if not left_out:
        return text
    reasons = [
        (reason, f"{count}", f"{known.median_ape:.0f}" if known else "", f"{known.rows}" if known else "")
        for reason, count, known in _left_out_errors(left_out)
    ]
    columns = [("left out because", "left"), ("rows", "right"), ("median %", "right"), ("of", "right")]
    return text + "\n" + plain_table(f"{len(left_out)} rows left out", columns, reasons, color=color)


def _figures(one: Accuracy) -> tuple[str, str, str, str]:
    return f"{one.median_ape:.1f}", f"{one.p90_ape:.1f}", f"{one.within_2x:.0f}", f"{one.bias:+.0f}"
