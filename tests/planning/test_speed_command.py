"""``python -m planning speed`` as a user calls it."""

import json

import pytest

from planning.__main__ import main
from planning.report.terminal import WIDTH

REPLICA = ["speed", "--model", "meta-llama/Llama-3.1-8B-Instruct", "--gpu", "L40S", "--quantization", "fp8"]
LENGTHS = ["--input-tokens", "900", "--output-tokens", "150"]


def test_the_table_shows_percentiles_the_sweet_spot_and_the_articles_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*REPLICA, *LENGTHS]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.count("sweet spot") == 1
    # The article's rates by batch, beside ours.
    for figure in ("45", "320", "1,100", "1,800", "2,200"):
        assert figure in text


def test_the_sweet_spot_is_the_most_powerful_batch_or_the_largest_within_a_target(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def spot(*more: str) -> tuple[int | None, list[dict[str, float]]]:
        assert main([*REPLICA, *LENGTHS, *more, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        return result["sweet_spot"], result["rows"]

    batch, rows = spot()
    power = {row["batch"]: row["simulated_output_tokens_per_second"] / row["latency_p50_ms"] for row in rows}
    assert batch == max(power, key=lambda each: power[each])
    batch, rows = spot("--tpot-ms", "40")
    assert batch == max(row["batch"] for row in rows if row["tpot_p95_ms"] <= 40)
    assert spot("--ttft-ms", "1")[0] is None
    for row in rows:
        assert row["tpot_p50_ms"] <= row["tpot_p95_ms"] <= row["tpot_p99_ms"]


def test_requests_longer_than_the_longest_sequence_are_refused_with_the_way_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*REPLICA, "--input-tokens", "9000", "--output-tokens", "150"]) == 2
    message = capsys.readouterr().err
    assert "958 more than --max-model-len 8,192" in message
    assert "--max-model-len 9150" in message
