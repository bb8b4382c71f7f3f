"""The serving point against what queueing theory says. It proves nothing about vLLM's scheduler itself."""

import itertools
import math

import pytest

from planning.facts.checkpoints import checkpoints
from planning.facts.gpus import gpu
from planning.facts.models import model
from planning.serving import LoadModel, Target, Workload
from planning.speed import gpu_speed

LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"
WORKLOAD = Workload(900, 150)


def load_model(workload: Workload = WORKLOAD, batched_tokens: int = 8192, gpu_name: str = "L40S") -> LoadModel:
    weights = next(entry for entry in checkpoints(LLAMA_8B) if entry.method == "fp8")
    return LoadModel(gpu_speed(model(LLAMA_8B), weights, gpu(gpu_name), 1), workload, batched_tokens)


@pytest.mark.parametrize("concurrency", [1.0, 10.0, 60.0])
def test_littles_law_holds_between_rate_concurrency_and_time_in_service(concurrency: float) -> None:
    load = load_model().at(concurrency)
    time_in_service_s = 150 * load.tpot_p50_ms / 1000
    assert load.requests_per_second * time_in_service_s == pytest.approx(concurrency)


def test_an_idle_replica_answers_in_prefill_and_one_step() -> None:
    weights = next(entry for entry in checkpoints(LLAMA_8B) if entry.method == "fp8")
    speed = gpu_speed(model(LLAMA_8B), weights, gpu("L40S"), 1)
    load = load_model().at(0.01)
    assert load.ttft_p50_ms == pytest.approx(1000 * (speed.prefill_s(900) + 1.5 * speed.step_s(0, 975)), rel=0.01)
    assert load.tpot_p50_ms == pytest.approx(1000 * speed.step_s(0, 975), rel=0.01)


def test_latencies_and_rate_rise_with_concurrency_until_prefills_saturate() -> None:
    loads = [load_model().at(concurrency) for concurrency in (1, 5, 20, 80)]
    for lower, higher in itertools.pairwise(loads):
        assert higher.tpot_p95_ms > lower.tpot_p95_ms
        assert higher.ttft_p95_ms > lower.ttft_p95_ms
        assert higher.requests_per_second > lower.requests_per_second


def test_the_largest_load_touches_the_target_that_binds() -> None:
    by_tpot = load_model().largest(Target(10_000, 50), 1024)
    assert by_tpot is not None
    assert by_tpot.tpot_p95_ms == pytest.approx(50, rel=0.01)
    by_ttft = load_model().largest(Target(150, 10_000), 1024)
    assert by_ttft is not None
    assert by_ttft.ttft_p95_ms == pytest.approx(150, rel=0.02)
    by_slots = load_model().largest(Target(10_000, 10_000), 16)
    assert by_slots is not None
    assert by_slots.sequences_p999 in (15, 16)


def test_a_target_below_the_idle_latency_is_met_by_no_load() -> None:
    assert load_model().largest(Target(1000, 1), 1024) is None
    assert load_model().largest(Target(1, 1000), 1024) is None


def test_carrying_a_rate_agrees_with_the_largest_load() -> None:
    target = Target(1000, 60)
    largest = load_model().largest(target, 1024)
    assert largest is not None
    assert load_model().carries(largest.requests_per_second * 0.98, target, 1024)
    assert not load_model().carries(largest.requests_per_second * 1.05, target, 1024)


def test_bursty_arrivals_lower_the_rate_and_prefix_hits_raise_it() -> None:
    target = Target(1000, 60)
    plain, bursty, cached = (
        load_model(workload).largest(target, 1024)
        for workload in (WORKLOAD, Workload(900, 150, arrival_cv=3), Workload(900, 150, prefix_hit_rate=0.6))
    )
    assert plain
    assert bursty
    assert cached
    assert bursty.requests_per_second < plain.requests_per_second < cached.requests_per_second


def test_an_overloaded_prefill_queue_never_answers_in_time() -> None:
    assert math.isinf(load_model(Workload(8000, 4)).at(200).ttft_p95_ms)
