"""The serving point against queueing theory and against the simulation of the scheduler.

It proves nothing about vLLM itself: that is the simulation's part, and the speed form's.
"""

import itertools
import math
from dataclasses import replace

import pytest

from planning.facts.checkpoints import checkpoints
from planning.facts.gpus import gpu
from planning.facts.models import model
from planning.serving import Load, LoadModel, Target, Workload
from planning.simulation import Limits, OpenLoop, Outcome, Traffic, gamma, simulate
from planning.speed import ReplicaSpeed, gpu_speed

LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"
LLAMA_70B = "meta-llama/Llama-3.1-70B-Instruct"
MIXTRAL = "mistralai/Mixtral-8x7B-Instruct-v0.1"
WORKLOAD = Workload(900, 150)
EQUAL = Workload(900, 150, input_cv=0.0, output_cv=0.0)
BUDGET = 8192


def replica(model_id: str = LLAMA_8B, method: str = "fp8", gpu_name: str = "L40S", gpus: int = 1) -> ReplicaSpeed:
    weights = next(entry for entry in checkpoints(model_id) if entry.method == method)
    return gpu_speed(model(model_id), weights, gpu(gpu_name), gpus)


def load_model(workload: Workload = WORKLOAD) -> LoadModel:
    return LoadModel(replica(), workload, BUDGET)


def simulated(speed: ReplicaSpeed, workload: Workload, rate: float, kv_tokens: int = 10_000_000) -> Outcome:
    """Enough requests for a standard error of the 95th percentiles of some 3 %; bursts need more."""
    traffic = Traffic(
        OpenLoop(gamma(1 / rate, workload.arrival_cv)),
        gamma(workload.input_tokens, workload.input_cv),
        gamma(workload.output_tokens, workload.output_cv),
        workload.prefix_hit_rate,
    )
    limits = Limits(1024, BUDGET, kv_tokens, 100_000)
    return simulate(speed, limits, traffic, requests=round(4000 * max(1.0, workload.arrival_cv)), warm_up=800)


def over_target(outcome: Outcome, target: Target) -> float:
    return max(outcome.ttft_ms.p95 / target.ttft_ms, outcome.tpot_ms.p95 / target.tpot_ms)


@pytest.mark.parametrize("concurrency", [1.0, 10.0, 60.0])
def test_littles_law_holds_between_rate_concurrency_and_time_in_service(concurrency: float) -> None:
    load = load_model(EQUAL).at(concurrency)
    # The median of nearly symmetric times stands for their mean.
    time_in_service_s = 150 * load.tpot_p50_ms / 1000
    assert load.requests_per_second * time_in_service_s == pytest.approx(concurrency, rel=0.03)


def test_an_idle_replica_answers_in_prefill_and_one_step() -> None:
    speed, load = replica(), load_model(EQUAL).at(0.01)
    step_s = speed.step_s(1, 975)
    assert load.ttft_p50_ms == pytest.approx(1000 * (speed.prefill_s(900) + 1.5 * step_s), rel=0.02)
    assert load.tpot_p50_ms == pytest.approx(1000 * step_s, rel=0.01)


def test_latencies_and_rate_rise_with_concurrency_until_prefills_saturate() -> None:
    loads = [load_model().at(concurrency) for concurrency in (1, 5, 20, 80)]
    for lower, higher in itertools.pairwise(loads):
        assert higher.tpot_p95_ms > lower.tpot_p95_ms
        assert higher.ttft_p95_ms > lower.ttft_p95_ms
        assert higher.requests_per_second > lower.requests_per_second


def test_the_largest_load_touches_the_target_that_binds() -> None:
    by_tpot = load_model().largest(Target(10_000, 50), 1024)
    assert by_tpot is not None
    assert by_tpot.tpot_p95_ms == pytest.approx(50, rel=0.02)
    by_ttft = load_model().largest(Target(250, 10_000), 1024)
    assert by_ttft is not None
    assert by_ttft.ttft_p95_ms == pytest.approx(250, rel=0.02)
    by_slots = load_model().largest(Target(10_000, 10_000), 16)
    assert by_slots is not None
    assert by_slots.sequences_p99 in (15, 16)


def test_a_target_below_the_idle_latency_is_met_by_no_load() -> None:
    assert load_model().largest(Target(1000, 1), 1024) is None
    assert load_model().largest(Target(1, 1000), 1024) is None


def test_carrying_a_rate_agrees_with_the_largest_load() -> None:
    target = Target(1000, 60)
    for workload, more in ((WORKLOAD, 1.05), (Workload(900, 150, arrival_cv=3), 1.15)):
        largest = load_model(workload).largest(target, 1024)
        assert largest is not None
        assert load_model(workload).carries(largest.requests_per_second * 0.98, target, 1024)
        assert not load_model(workload).carries(largest.requests_per_second * more, target, 1024)


def test_bursty_arrivals_and_varied_lengths_lower_the_rate_and_prefix_hits_raise_it() -> None:
    target = Target(1000, 60)
    bursty, plain, cached, equal = (
        load_model(workload).largest(target, 1024)
        for workload in (Workload(900, 150, arrival_cv=3), WORKLOAD, Workload(900, 150, prefix_hit_rate=0.6), EQUAL)
    )
    assert bursty
    assert plain
    assert cached
    assert equal
    assert bursty.requests_per_second < plain.requests_per_second < cached.requests_per_second
    assert plain.requests_per_second < equal.requests_per_second


def test_an_overloaded_prefill_queue_never_answers_in_time() -> None:
    assert math.isinf(load_model(Workload(8000, 4)).at(200).ttft_p95_ms)


def test_requests_alike_hold_half_their_answer_on_average_and_exponential_ones_the_whole() -> None:
    """The inspection paradox: a long answer is more likely to be met while it runs."""
    assert Workload(900, 150, output_cv=0.0).running_tokens == 975
    assert Workload(900, 150, output_cv=1.0).running_tokens == 1050


DENSE = [
    pytest.param(replica(), 40.0, 100.0, id="8B on L40S"),
    pytest.param(replica(gpu_name="L4"), 80.0, 150.0, id="8B on L4"),
    pytest.param(replica(LLAMA_70B, "fp8", "H100", 4), 40.0, 100.0, id="70B on 4 x H100"),
]
ALL = [*DENSE, pytest.param(replica(MIXTRAL, "fp16", "A100-80GB", 2), 40.0, 100.0, id="8x7B on 2 x A100")]
LENGTHS = [(900, 150), (200, 400), (6000, 300)]


def cases(speed: ReplicaSpeed, lengths: tuple[int, int], tpots: tuple[float, float]) -> list[Target]:
    """Two targets: one that the time per token binds, and one that the first token does."""
    long_prompt_ms = 1000 * speed.prefill_s(3 * lengths[0])
    return [Target(2 * long_prompt_ms + 400, tpots[0]), Target(1.3 * long_prompt_ms + 300, tpots[1])]


@pytest.mark.parametrize(
    ("arrival_cv", "length_cv"),
    [(1.0, (0.0, 0.0)), (1.0, (0.7, 1.1)), (1.0, (1.0, 1.0)), (2.0, (0.7, 1.1)), (4.0, (0.7, 1.1))],
)
@pytest.mark.parametrize(("speed", "tight_tpot_ms", "loose_tpot_ms"), ALL)
def test_the_rate_found_is_not_optimistic_by_more_than_five_percent(
    speed: ReplicaSpeed,
    tight_tpot_ms: float,
    loose_tpot_ms: float,
    length_cv: tuple[float, float],
    arrival_cv: float,
) -> None:
    """At the rate found over 1.05 the simulation meets the target but for 6 %, half of it the simulation's noise."""
    found = 0
    for position, (given, made) in enumerate(LENGTHS):
        workload = Workload(given, made, 0.0, arrival_cv, *length_cv)
        target = cases(speed, (given, made), (tight_tpot_ms, loose_tpot_ms))[(position + round(arrival_cv)) % 2]
        load = LoadModel(speed, workload, BUDGET).largest(target, 1024)
        if load is not None:
            found += 1
            assert over_target(simulated(speed, workload, load.requests_per_second / 1.05), target) <= 1.06
    assert found >= (3 if arrival_cv == 1 else 1)


@pytest.mark.parametrize("length_cv", [(0.0, 0.0), (0.7, 1.1), (1.0, 1.0)])
@pytest.mark.parametrize(("speed", "tight_tpot_ms", "loose_tpot_ms"), DENSE)
def test_a_fifth_more_than_the_rate_found_misses_the_target_for_poisson_arrivals(
    speed: ReplicaSpeed, tight_tpot_ms: float, loose_tpot_ms: float, length_cv: tuple[float, float]
) -> None:
    """For bursts and sparse experts at a tight target the model is more careful than that (its docstring)."""
    for given, made in LENGTHS:
        workload = Workload(given, made, 0.0, 1.0, *length_cv)
        for target in cases(speed, (given, made), (tight_tpot_ms, loose_tpot_ms)):
            load = LoadModel(speed, workload, BUDGET).largest(target, 1024)
            assert load is not None
            assert over_target(simulated(speed, workload, load.requests_per_second * 1.2), target) >= 1


@pytest.mark.parametrize("arrival_cv", [1.0, 2.0])
@pytest.mark.parametrize("length_cv", [(0.0, 0.0), (0.7, 1.1), (1.0, 1.0)])
@pytest.mark.parametrize("kv_tokens", [20_000, 60_000])
def test_a_replica_short_of_cache_is_filled_but_not_over_filled(
    kv_tokens: int, length_cv: tuple[float, float], arrival_cv: float
) -> None:
    speed, target = replica(), Target(1000, 100)
    workload = Workload(900, 300, 0.0, arrival_cv, *length_cv)
    load = LoadModel(speed, workload, BUDGET).largest(target, math.floor(kv_tokens / workload.running_tokens))
    assert load is not None
    assert over_target(simulated(speed, workload, load.requests_per_second, kv_tokens), target) <= 1
    assert over_target(simulated(speed, workload, load.requests_per_second * 1.25, kv_tokens), target) > 1


def test_one_request_in_a_load_window_never_asks_for_a_second_replica() -> None:
    """A request that stays for 60 s is 0.2 running ones on average over 300 s."""
    often = Load(0.5, 1 / 120, 0.0, 0.0, 0.0, 0.0, 1)
    assert often.autoscaler_target == 0.5
    seldom = replace(often, concurrency=0.1, requests_per_second=1 / 600)
    assert seldom.autoscaler_target == pytest.approx(60 / 300)
