"""The rule that a measurement of the same replica beats the formula. How near a user's own replica comes is not proven:
the rows come from other machines, mostly with prompts of random words.
"""

import statistics
from collections import defaultdict

import pytest

from planning.facts.checkpoints import checkpoints
from planning.facts.gpus import gpu
from planning.facts.measurements import Measurement, vllm_measurements
from planning.facts.models import model
from planning.measured import measured_replica
from planning.speed import CONSTANTS, gpu_speed
from planning.speed_evaluation import Prediction, is_burst, is_current, predictions

QWEN3_32B_ON_H100 = ("Qwen/Qwen3-32B", "fp16", "H100", 2)


def close(one: Measurement, other: Measurement) -> bool:
    """Lengths within a factor of two."""
    pairs = ((one.input_tokens, other.input_tokens), (one.output_tokens, other.output_tokens))
    return all(mine and theirs and 0.5 <= mine / theirs <= 2 for mine, theirs in pairs)


def test_a_measured_replica_is_named_with_who_measured_it_with_what() -> None:
    found = measured_replica(QWEN3_32B_ON_H100, 1000, 1000)
    assert found is not None
    assert found.rows > 5
    assert "aiconfigurator" in found.source
    assert "vLLM 0.12.0" in found.source


def test_lengths_beyond_a_factor_of_two_are_not_the_same_measurement() -> None:
    assert measured_replica(QWEN3_32B_ON_H100, 100_000, 1000) is None


def test_a_source_with_a_row_that_cannot_be_right_is_not_believed_about_that_model_and_gpu() -> None:
    # Its runs of Qwen3-235B in fp8 on one H200 name fewer GPUs than the weights need; those on two are as doubtful.
    assert measured_replica(("Qwen/Qwen3-235B-A22B", "fp8", "H200", 2), 8000, 1000) is None


def test_runs_that_were_faster_than_projected_speed_up_the_plan_by_as_much() -> None:
    found = measured_replica(("openai/gpt-oss-120b", "mxfp4", "B200", 1), 1024, 1024)
    assert found is not None
    architecture = model("openai/gpt-oss-120b")
    weights = next(one for one in checkpoints(architecture.model_id) if one.method == "mxfp4")
    speed = gpu_speed(architecture, weights, gpu("B200"), 1)
    ratios: list[float] = []
    for row in vllm_measurements():
        named = (row.model, row.gpu, row.gpu_count, row.input_tokens, row.output_tokens)
        if named == ("gpt-oss-120b", "B200", 1, 1024, 1024) and row.ttft_p50_ms and row.tpot_p50_ms and row.concurrency:
            stay_s = (row.ttft_p50_ms + 1023 * row.tpot_p50_ms) / 1000
            measured = row.concurrency * 1024 / stay_s
            ratios.append(measured / speed.output_tokens_per_second(row.concurrency, 1024, 1024))
    assert len(ratios) >= 3
    assert statistics.median(ratios) > 1.1
    assert 1 / found.time_factor == pytest.approx(statistics.median(ratios), rel=0.1)


def test_a_replica_that_nobody_measured_has_no_measurement() -> None:
    assert measured_replica(("Qwen/Qwen3-32B", "awq", "L4", 4), 1000, 500) is None


def test_other_rows_of_a_replica_foretell_a_row_twice_as_well_as_the_formula() -> None:
    replicas: dict[object, list[Prediction]] = defaultdict(list)
    rows = [row for row in vllm_measurements() if is_current(row) and not is_burst(row)]
    for one in predictions([row for row in rows if row.concurrency and row.input_tokens and row.output_tokens])[0]:
        replicas[one.row.model, one.row.quantization, one.row.gpu, one.row.gpu_count].append(one)

    def cost(one: Prediction) -> float:
        return 1 + one.error(CONSTANTS.seconds_per_unit(one.engine))

    by_formula: list[float] = []
    by_rows: list[float] = []
    for group in replicas.values():
        for one in group:
            others = [cost(other) for other in group if other is not one and close(one.row, other.row)]
            if others:
                by_formula.append(cost(one))
                by_rows.append(cost(one) / statistics.median(others))
    assert len(by_rows) > 300
    formula, measured = (statistics.median(abs(value - 1) for value in values) for values in (by_formula, by_rows))
    assert measured < formula / 2
    assert measured < 0.05
