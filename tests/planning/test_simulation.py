"""The simulation against closed forms of queueing theory and against published measurements.

Not proven here: that vLLM's scheduler is what is simulated beyond its documented rules, nor the time of a mixed step.
"""

import math
import time

import pytest

from planning.facts.checkpoints import checkpoints
from planning.facts.gpus import gpu
from planning.facts.measurements import measurements
from planning.facts.models import model
from planning.simulation import (
    ClosedLoop,
    Distribution,
    Limits,
    OpenLoop,
    Outcome,
    Traffic,
    empirical,
    gamma,
    lognormal,
    simulate,
)
from planning.simulation_evaluation import evaluate_latencies
from planning.speed import ReplicaSpeed, gpu_speed

LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"
AMPLE = Limits(max_num_seqs=1024, max_num_batched_tokens=8192, kv_tokens=10_000_000, max_model_len=100_000)


def speed() -> ReplicaSpeed:
    weights = next(entry for entry in checkpoints(LLAMA_8B) if entry.method == "fp8")
    return gpu_speed(model(LLAMA_8B), weights, gpu("L40S"), 1)


def held(
    clients: int, input_tokens: Distribution, output_tokens: Distribution, limits: Limits = AMPLE, requests: int = 4000
) -> Outcome:
    return simulate(speed(), limits, Traffic(ClosedLoop(clients), input_tokens, output_tokens), requests=requests)


def offered(
    rate: float, cv: float, input_tokens: float, output_tokens: float, requests: int, **lengths: float
) -> Outcome:
    traffic = Traffic(
        OpenLoop(gamma(1 / rate, cv)),
        gamma(input_tokens, lengths.get("input_cv", 0.0)),
        gamma(output_tokens, lengths.get("output_cv", 0.0)),
    )
    return simulate(speed(), AMPLE, traffic, requests=requests, warm_up=requests // 10)


@pytest.mark.parametrize("clients", [1, 8, 64, 200])
def test_identical_requests_of_a_held_number_of_clients_run_at_the_formulas_throughput(clients: int) -> None:
    outcome = held(clients, gamma(900, 0), gamma(400, 0))
    assert outcome.output_tokens_per_second == pytest.approx(
        speed().output_tokens_per_second(clients, 900, 400), rel=0.02
    )
    # A request sees its own steps and, where prompts do not all fit one step, prefills of others: between the bounds.
    step_ms = 1000 * speed().step_s(clients, 1100)
    prefills_ms = 1000 * (clients - 1) * speed().prefill_s(900) / 400
    assert 0.98 * step_ms <= outcome.tpot_ms.p50 <= 1.02 * (step_ms + prefills_ms)


def test_a_single_client_waits_for_its_prefill_and_one_step_alone() -> None:
    outcome = held(1, gamma(900, 0), gamma(400, 0), requests=50)
    assert outcome.ttft_ms.p99 == pytest.approx(1000 * (speed().prefill_s(900) + speed().step_s(1, 0)), rel=1e-6)
    assert outcome.tpot_ms.p50 == pytest.approx(1000 * speed().step_s(1, 1100), rel=0.001)


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_prompts_that_fill_a_step_wait_as_pollaczek_and_khinchine_say(busy: float) -> None:
    """M/D/1: each prompt is one whole step, nothing decodes. 200,000 requests: standard error of the mean below 1 %."""
    service_s = speed().prefill_s(8192) + speed().step_s(1, 0)
    outcome = offered(busy / service_s, 1.0, 8192, 1, requests=200_000)
    assert outcome.mean_wait_s == pytest.approx(busy * service_s / (2 * (1 - busy)), rel=0.02)
    assert outcome.requests_per_second == pytest.approx(busy / service_s, rel=0.02)


def test_littles_law_holds_between_admitted_requests_rate_and_time_in_service() -> None:
    outcome = offered(7.0, 1.0, 900, 150, requests=20_000, input_cv=1.0, output_cv=1.0)
    assert outcome.mean_running == pytest.approx(outcome.requests_per_second * outcome.mean_service_s, rel=0.02)


def test_decodes_share_the_engine_like_the_processor_sharing_queue() -> None:
    """A step of ``a + g n``: number in service is negative binomial of mean ``r theta / (1 - theta)``, whatever the
    lengths' distribution; prompts of one token, so that nothing but decodes takes time.
    """
    replica = speed()
    fixed, growth = replica.step_s(0, 0), replica.step_s(1, 1001) - replica.step_s(0, 0)
    # A context of ~1,000 tokens for all: long enough that 100 tokens more or less do not matter, cached but for one.
    traffic_rate, output = 20.0, 100
    traffic = Traffic(OpenLoop(gamma(1 / traffic_rate, 1)), gamma(950, 0), gamma(output, 0), prefix_hit_rate=1.0)
    outcome = simulate(replica, AMPLE, traffic, requests=40_000, warm_up=4_000)
    left = 1 - traffic_rate * replica.prefill_s(950, 949)
    theta = traffic_rate * output * growth / left
    expected = (fixed / growth + 1) * theta / (1 - theta)
    assert outcome.mean_running == pytest.approx(expected, rel=0.03)


def test_a_full_cache_preempts_and_still_answers_every_request() -> None:
    limits = Limits(max_num_seqs=256, max_num_batched_tokens=8192, kv_tokens=40_000, max_model_len=8192)
    outcome = held(128, gamma(500, 1), gamma(500, 1), limits)
    assert outcome.preemptions > 100
    assert outcome.mean_running < 80
    # 40,000 tokens hold at most so many requests: time in the queue is what the others pay.
    assert outcome.ttft_ms.p50 > outcome.tpot_ms.p50 * 100


def test_no_more_run_than_max_num_seqs_and_a_small_budget_cuts_prompts_into_chunks() -> None:
    narrow = Limits(max_num_seqs=16, max_num_batched_tokens=8192, kv_tokens=10_000_000, max_model_len=100_000)
    assert held(64, gamma(900, 0), gamma(100, 0), narrow).mean_running == pytest.approx(16, rel=0.02)
    chunked = Limits(max_num_seqs=16, max_num_batched_tokens=512, kv_tokens=10_000_000, max_model_len=100_000)
    whole, cut = (held(16, gamma(4000, 0), gamma(100, 1), limits) for limits in (narrow, chunked))
    assert cut.ttft_ms.p50 > whole.ttft_ms.p50
    assert max(cut.tpot_ms.p99, whole.tpot_ms.p99) > 0


def test_a_budget_below_the_number_of_sequences_is_refused() -> None:
    with pytest.raises(ValueError, match="max_num_batched_tokens 128 is below max_num_seqs 256"):
        Limits(max_num_seqs=256, max_num_batched_tokens=128, kv_tokens=10_000, max_model_len=4096)


def test_cached_prefixes_are_not_computed() -> None:
    plain = Traffic(ClosedLoop(1), gamma(4000, 0), gamma(10, 0))
    cached = Traffic(ClosedLoop(1), gamma(4000, 0), gamma(10, 0), prefix_hit_rate=0.75)
    times = [simulate(speed(), AMPLE, traffic, requests=20, warm_up=1).ttft_ms.p50 for traffic in (plain, cached)]
    expected = [speed().prefill_s(4000, cached) + speed().step_s(1, 0) for cached in (0, 3000)]
    assert times == pytest.approx([1000 * seconds for seconds in expected])


@pytest.mark.parametrize("distribution", [gamma(300, 1.5), lognormal(300, 1.5)])
def test_lengths_have_the_mean_and_variation_asked_for(distribution: Distribution) -> None:
    from random import Random

    random = Random(7)
    values = [distribution(random) for _ in range(200_000)]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    assert mean == pytest.approx(300, rel=0.02)
    assert deviation / mean == pytest.approx(1.5, rel=0.05)


def test_empirical_lengths_are_those_given() -> None:
    outcome = held(4, empirical([100.0]), empirical([20.0, 20.0]), requests=100)
    assert outcome.output_tokens_per_second == pytest.approx(20 * outcome.requests_per_second)


def test_thousands_of_requests_take_well_under_a_second() -> None:
    started = time.process_time()
    offered(7.0, 1.0, 900, 150, requests=5000, input_cv=1.0, output_cv=1.0)
    assert time.process_time() - started < 1.0


def test_published_times_per_token_are_reproduced_within_a_fifth_in_the_median() -> None:
    """Over all sources and engines. Time to first token is not: published figures hold clients and networks too."""
    result = evaluate_latencies(measurements())
    assert result.total.rows >= 1200
    assert result.total.tpot_p50 is not None
    assert result.total.tpot_p50 <= 20
    assert sum(source.rows for source in result.sources) == result.total.rows
    assert result.total.rows + sum(rows for _, rows in result.left_out) == sum(
        row.tpot_p50_ms is not None for row in measurements()
    )
