"""``evaluate --kv-cache-logs``: the memory model against vLLM's start-up logs."""

from __future__ import annotations

import sys
from pathlib import Path

from planning.commands.common import UsageError, as_json
from planning.facts.measurements import KvCacheLog
from planning.facts.table import InvalidTable
from planning.memory_evaluation import LogEvaluation, evaluate_logs


def evaluate_kv_cache_logs(path: Path, *, as_data: bool) -> str:
    """Return what ``evaluate --kv-cache-logs`` prints. Raises ``UsageError``."""
    try:
        evaluation = evaluate_logs(path)
    except InvalidTable as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"--kv-cache-logs {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--kv-cache-logs: {error}") from None
    if as_data:
        return as_json(_data(evaluation))
    from planning.report.terminal import plain_table  # noqa: PLC0415 (rich is slow to import, and data needs none of it)

    left_out = sum(map(len, evaluation.left_out.values()))
    headline = (
        f"KV cache per GPU, {len(evaluation.predictions)} logs: median error {evaluation.median_ape:.1f} %, 90th "
        f"percentile {evaluation.p90_ape:.1f} %, bias {evaluation.bias:+.1f} %; of {evaluation.configurations} "
        f"configurations (model, GPU, number) {evaluation.configuration_median_ape:.1f} % and "
        f"{evaluation.configuration_p90_ape:.1f} %; {left_out} left out"
    )
    color = sys.stdout.isatty()
    columns = (
        ("model", "left"),
        ("GPU", "left"),
        ("vLLM", "left"),
        ("weights", "left"),
        ("GiB", "right"),
        ("logged", "right"),
        ("error", "right"),
    )
    rows = [
        (
            prediction.log.model.rpartition("/")[2][:30],
            f"{prediction.log.gpu_count} x {prediction.log.gpu[:14]}",
            prediction.log.vllm_version[:8],
            "computed" if prediction.from_architecture else "logged",
            f"{prediction.predicted_gib:.2f}",
            f"{prediction.log.kv_gib_reported:.2f}",
            f"{prediction.error_percent:+.1f} %",
        )
        for prediction in sorted(evaluation.predictions, key=lambda each: -abs(each.error_percent))
    ]
    printed = plain_table(headline, columns, rows, color=color)
    if not left_out:
        return printed
    told = [(reason, _label(log)[:52]) for reason, logs in evaluation.left_out.items() for log in logs]
    return printed + plain_table("Left out", (("reason", "left"), ("log", "left")), told, color=color)


def _data(evaluation: LogEvaluation) -> dict[str, object]:
    return {
        "rows": len(evaluation.predictions),
        "left_out": sum(map(len, evaluation.left_out.values())),
        "median_ape": round(evaluation.median_ape, 3),
        "p90_ape": round(evaluation.p90_ape, 3),
        "bias": round(evaluation.bias, 3),
        "configurations": evaluation.configurations,
        "configuration_median_ape": round(evaluation.configuration_median_ape, 3),
        "configuration_p90_ape": round(evaluation.configuration_p90_ape, 3),
        "left_out_reasons": [
            {"reason": reason, "rows": len(logs), "logs": [_label(log) for log in logs]}
            for reason, logs in evaluation.left_out.items()
        ],
        "predictions": [
            {
                "model": prediction.log.model,
                "gpu": prediction.log.gpu,
                "gpu_count": prediction.log.gpu_count,
                "vllm_version": prediction.log.vllm_version,
                "weights": "computed" if prediction.from_architecture else "logged",
                "predicted_gib": round(prediction.predicted_gib, 3),
                "logged_gib": prediction.log.kv_gib_reported,
                "error_percent": round(prediction.error_percent, 2),
            }
            for prediction in evaluation.predictions
        ],
    }


def _label(log: KvCacheLog) -> str:
    return f"{log.model} ({log.quantization}) on {log.gpu_count} x {log.gpu}"
