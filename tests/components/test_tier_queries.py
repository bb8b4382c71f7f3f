"""What the autoscaler's queries answer, by a real Prometheus engine where promtool is on PATH."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import tier_queries

PROMTOOL = shutil.which("promtool")

ROUTER = 'namespace="llm",service="fast-router"'
Check = tuple[str, float | None]
SECONDS = range(0, 600, 5)
"""When the series have values; the queries are asked in the last of them."""
CONSTANT = f"+0x{len(SECONDS)}"


def up(value: int) -> dict[str, str]:
    return {"series": f'up{{{ROUTER},job="fast-router",pod="a"}}', "values": f"{value}{CONSTANT}"}


def queued(count: int, model: str = "fast") -> dict[str, str]:
    series = f'llm_d_epp_flow_control_queue_size{{{ROUTER},model_name="{model}",inference_pool=""}}'
    return {"series": series, "values": f"{count}{CONSTANT}"}


def running(count: int, *, before: int | None = None, at_second: int = 0) -> dict[str, str]:
    """``before`` requests until ``at_second``, ``count`` from then on."""
    earlier = "" if before is None else f"{before}+0x{at_second // 5 - 1} "
    return {
        "series": f'llm_d_epp_request_running{{{ROUTER},model_name="fast"}}',
        "values": f"{earlier}{count}{CONSTANT}",
    }


OTHER_TIER = {
    "series": 'llm_d_epp_flow_control_queue_size{namespace="llm",service="quality-router",model_name="fast"}',
    "values": f"7{CONSTANT}",
}
PREFILL = [
    {
        "series": f'{metric}{{namespace="llm",tier="split",role="prefill",pod="a"}}',
        "values": f"{value}{CONSTANT}",
    }
    for metric, value in (("up", 1), ("vllm:num_requests_running", 3), ("vllm:num_requests_waiting", 2))
]
SPLIT_ROUTER = {
    "series": 'up{namespace="llm",service="split-router",job="split-router",pod="b"}',
    "values": f"1{CONSTANT}",
}

CASES: dict[str, tuple[list[dict[str, str]], list[Check]]] = {
    "a tier that nobody asked yet has no series, and reads as zero": (
        [up(1), OTHER_TIER],
        [(tier_queries.queued("fast"), 0), (tier_queries.running("fast"), 0), (tier_queries.is_running("fast"), 0)],
    ),
    "held requests are counted under whatever model clients name": (
        [up(1), queued(3, "fast"), queued(4, "gpt-4"), OTHER_TIER],
        [(tier_queries.queued("fast"), 7)],
    ),
    "a router that does not answer gives no number at all": (
        [up(0), queued(3), running(5)],
        [
            (tier_queries.queued("fast"), None),
            (tier_queries.running("fast"), None),
            (tier_queries.running_beyond("fast", 1, 24), None),
            (tier_queries.is_running("fast"), None),
        ],
    ),
    "a router that Prometheus does not know gives no number at all": (
        [OTHER_TIER],
        [(tier_queries.queued("fast"), None), (tier_queries.running("fast"), None)],
    ),
    "replicas that are always there take their share first": (
        [up(1), running(60)],
        [(tier_queries.running_beyond("fast", 1, 24), 36), (tier_queries.running_beyond("fast", 3, 24), 0)],
    ),
    "with the queue behind them, requests of a busy tier add up": (
        [up(1), running(2), queued(5)],
        [
            (tier_queries.running("fast", with_queue=True), 7),
            (tier_queries.running("fast"), 2),
            (tier_queries.running_beyond("fast", 1, 3, with_queue=True), 4),
        ],
    ),
    "a queue in front of a tier that still starts is not counted as running": (
        [up(1), queued(50)],
        [(tier_queries.running("fast", with_queue=True), 0)],
    ),
    "nor is one after which nothing runs any more": (
        [up(1), running(0), queued(50)],
        [(tier_queries.running("fast", with_queue=True), 0)],
    ),
    "a busy tier without a queue is counted by what runs": (
        [up(1), running(2)],
        [(tier_queries.running("fast", with_queue=True), 2)],
    ),
    "a burst counts as the load window's mean, and nothing as soon as it is over": (
        [up(1), running(60, before=20, at_second=450)],
        [(tier_queries.running("fast"), 40)],
    ),
    "what ran a minute ago keeps no tier awake": (
        [up(1), running(0, before=60, at_second=540)],
        [(tier_queries.running("fast"), 0)],
    ),
    "what Prometheus did not see is not read as no load": (
        # Eight minutes without a look, and a minute since.
        [
            {"series": one["series"], "values": f"{value}+0x11 _x96 {value}+0x11"}
            for one, value in ((up(1), 1), (running(40), 40))
        ],
        [(tier_queries.running("fast"), 40)],
    ),
    "any running request counts as one": ([up(1), running(60)], [(tier_queries.is_running("fast"), 1)]),
    "pods of a role are counted by themselves and read as zero when there are none": (
        [*PREFILL, SPLIT_ROUTER],
        [
            (tier_queries.is_up("split", "prefill"), 1),
            (tier_queries.is_up("split", "decode"), 0),
            (tier_queries.engine_load("split", "prefill"), 5),
            (tier_queries.engine_load("split", "decode"), 0),
        ],
    ),
}


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on PATH (Debian's package prometheus brings it)")
@pytest.mark.parametrize("case", CASES)
def test_prometheus_answers(case: str, tmp_path: Path) -> None:
    series, checks = CASES[case]
    test: dict[str, Any] = {
        "interval": "5s",
        "input_series": series,
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": f"{SECONDS[-1]}s",
                "exp_samples": [] if value is None else [{"labels": "{}", "value": value}],
            }
            for expression, value in checks
        ],
    }
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"tests": [test]}))
    run = subprocess.run([str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_tiers_are_told_apart_by_the_labels_that_prometheus_adds_and_not_by_the_pickers() -> None:
    for query in (tier_queries.queued("fast"), tier_queries.running("fast")):
        assert ROUTER in query
        assert "inference_pool" not in query, "it is empty without an InferencePool"
        assert "model_name" not in query, "it is what the client wrote"


def test_numbers_are_written_without_exponents() -> None:
    assert [tier_queries.number(value) for value in (24.0, 1_500_000, 0.5, 24.25)] == ["24", "1500000", "0.5", "24.25"]
