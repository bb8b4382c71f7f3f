"""The rate of a prefill replica against the scheduler's simulation and a closed form of queueing theory.

Not proven here: the transfer of the KV cache, which the simulation does not know.
"""

from __future__ import annotations

import pytest

from planning.disaggregation import largest_prefill_rate
from planning.facts.checkpoints import checkpoints
from planning.facts.gpus import gpu
from planning.facts.models import model
from planning.serving import Workload
from planning.simulation import Limits, OpenLoop, Traffic, gamma, simulate
from planning.speed import ReplicaSpeed, gpu_speed

LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"
BUDGET = 2048


def speed() -> ReplicaSpeed:
    weights = next(entry for entry in checkpoints(LLAMA_8B) if entry.method == "fp8")
    return gpu_speed(model(LLAMA_8B), weights, gpu("L40S"), 1)


def rate(workload: Workload, ttft_s: float, budget: int = BUDGET) -> float:
    found = largest_prefill_rate(speed(), workload, ttft_s, budget)
    assert found is not None
    return found[0]


def simulated_rate(workload: Workload, ttft_s: float) -> float:
    """The largest rate whose 95th percentile meets the target, by bisection; answers are of one token."""
    limits = Limits(max_num_seqs=512, max_num_batched_tokens=BUDGET, kv_tokens=5_000_000, max_model_len=100_000)
    low, high = 0.0, 1 / speed().prefill_s(workload.input_tokens)
    for _ in range(8):
        middle = (low + high) / 2
        traffic = Traffic(
            OpenLoop(gamma(1 / middle, workload.arrival_cv)),
            gamma(workload.input_tokens, workload.input_cv),
            gamma(1, 0),
        )
        outcome = simulate(speed(), limits, traffic, requests=6000)
        low, high = (middle, high) if outcome.ttft_ms.p95 <= 1000 * ttft_s else (low, middle)
    return low


@pytest.mark.parametrize(
    ("input_tokens", "input_cv", "arrival_cv", "ttft_s"),
    [(900, 0, 1, 1.0), (900, 0.7, 1, 0.3), (900, 0.7, 2, 1.0), (4000, 0, 1, 1.0), (4000, 0.7, 1, 2.0)],
)
def test_the_rate_is_that_of_the_simulated_scheduler(
    input_tokens: float, input_cv: float, arrival_cv: float, ttft_s: float
) -> None:
    workload = Workload(input_tokens, 1, arrival_cv=arrival_cv, input_cv=input_cv)
    assert rate(workload, ttft_s) == pytest.approx(simulated_rate(workload, ttft_s), rel=0.15)


def test_equal_prompts_are_served_at_a_higher_rate_than_varied_ones_and_bursts_at_a_lower() -> None:
    equal = rate(Workload(4000, 1, input_cv=0), 1.0)
    varied = rate(Workload(4000, 1, input_cv=0.7), 1.0)
    assert equal > varied > rate(Workload(4000, 1, input_cv=0.7, arrival_cv=2), 1.0)


def test_a_prompt_that_alone_takes_longer_than_the_target_is_served_at_no_rate() -> None:
    alone = speed().prefill_s(4000)
    assert largest_prefill_rate(speed(), Workload(4000, 1, input_cv=0), alone, BUDGET) is None
    assert largest_prefill_rate(speed(), Workload(4000, 1, arrival_cv=100), 1.0, BUDGET) is None
