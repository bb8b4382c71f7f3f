"""Prefill and decode in replicas of their own: what each carries, and whether that pays."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from planning.memory import kv_bytes_per_sequence
from planning.options import Demand, Option, replica_speed
from planning.plan import TierPlan
from planning.serving import Load, LoadModel, Workload
from planning.speed import ReplicaSpeed
from problems import NAMESPACE, Problem
from settings import StackSettings

#: Prompts with fewer new tokens than this are prefilled on the decode pod: the transfer would cost more than it saves.
#: llm-d's own example of the prefix-based decider.
NON_CACHED_TOKENS = 256

#: The target is a 95th percentile.
_LATE = 0.05

#: A replica that may work less than this share of the time drowns in any burst.
_LEAST_BUSY = 1e-3

#: Twenty prompts' lengths, each as likely as the others: their standard normal quantiles.
_QUANTILES = tuple(statistics.NormalDist().inv_cdf((place + 0.5) / 20) for place in range(20))


@dataclass(frozen=True, slots=True)
class RoleLoads:
    """The largest rate of one prefill and of one decode replica within the target."""

    prefill_requests_per_second: float
    prefill_concurrency: float
    decode: Load
    transfer_ms: float
    """To move one prompt's KV cache over the node's sustained network rate."""


def role_loads(option: Option, demand: Demand, network_mbps: float) -> RoleLoads | None:
    """What one replica of each role carries; None when a role cannot meet its part of the target.

    Decode replicas see no prefill, so only TPOT binds them. Prefill replicas work first come, first served; the wait
    behind others, the prefill itself and the transfer must stay within TTFT.
    """
    if option.gpu is None or option.vllm is None:
        return None
    dtype = option.vllm.kv_cache_dtype
    speed = replica_speed(demand, option.checkpoint, option.gpu, option.gpus)
    kv_bytes = kv_bytes_per_sequence(demand.architecture, dtype, demand.workload.input_tokens)
    transfer_s = kv_bytes * 8 / (network_mbps * 1e6)
    decode = LoadModel(_without_prefill(speed), demand.workload, option.vllm.max_num_batched_tokens).largest(
        replace(demand.target, ttft_ms=math.inf), option.vllm.max_num_seqs
    )
    found = largest_prefill_rate(
        speed, demand.workload, demand.target.ttft_ms / 1000, option.vllm.max_num_batched_tokens, transfer_s
    )
    if decode is None or found is None:
        return None
    rate, service_s = found
    return RoleLoads(rate, rate * (service_s + transfer_s) + 1, decode, transfer_s * 1000)


def _without_prefill(speed: ReplicaSpeed) -> ReplicaSpeed:
    return replace(speed, prefill_per_token_s=0.0, prefill_per_pair_s=0.0)


def largest_prefill_rate(
    speed: ReplicaSpeed, workload: Workload, ttft_s: float, max_num_batched_tokens: int, transfer_s: float = 0.0
) -> tuple[float, float] | None:
    """Requests a second of which 95 % have their first token within ``ttft_s``, and a prompt's mean seconds of work.

    None when prompts or bursts alone take too long. The wait behind others lasts longer than ``t`` with a probability
    of at most ``exp(-decay * t)``, where ``E exp(decay * work) * E exp(-decay * interarrival) = 1`` (Kingman 1964, A
    martingale inequality in the theory of queues). With gamma distributed times the rate follows from the decay. Work
    varies as the prompts' lengths do; a step's launches and weights are shared by the prompts that fill it.

    Against ``simulation`` over 18 cases (2026-11-22): 4 % high in the median with steps of 2,048 tokens, 27 % low to
    10 % high; with steps of 8,192, which keep prompts for each other, 9 % high, 11 % low to 39 % high.
    """
    step_s, burst, spread = speed.step_s(1, 0), workload.arrival_cv**2, workload.input_cv**2
    own: list[float] = []
    for normal in _QUANTILES:
        # Wilson and Hilferty (1931): a gamma quantile from the normal one.
        length = max(0.0, 1 - spread / 9 + normal * workload.input_cv / 3) ** 3
        own.append(
            speed.prefill_s(length * workload.input_tokens, length * workload.cached_tokens) + length * transfer_s
        )
    steps = (workload.input_tokens - workload.cached_tokens) / max_num_batched_tokens
    work_s = sum(own) / len(own) - transfer_s + steps * step_s
    left = [ttft_s - seconds - step_s * max(1.0, steps) for seconds in own]

    def late(decay: float) -> float:
        return sum(math.exp(-decay * seconds) if seconds > 0 else 1.0 for seconds in left) / len(left)

    # No wait decays faster than varied prompts do; where they are equal, 50 ends it within a tenth of a prompt.
    low, high = 0.0, (0.999 / spread if spread else 50.0) / work_s
    if late(high) > _LATE:
        return None
    for _ in range(40):
        decay = (low + high) / 2
        low, high = (low, decay) if late(decay) <= _LATE else (decay, high)
    grown = -math.log1p(-high * work_s * spread) / spread if spread else high * work_s
    # The equation solved for the rate; (e^x - 1)^-1 written so that strong bursts do not overflow.
    rate = -high * burst * math.exp(-burst * grown) / math.expm1(-burst * grown) if burst else high / grown
    return (rate, work_s) if rate * work_s > _LEAST_BUSY else None


def disaggregation_problems(settings: StackSettings, tiers: Mapping[int, TierPlan]) -> list[Problem]:
    """Tiers with prefill and decode apart that cost more than together, unless the settings insist.

    ``tiers`` are the plans of all tiers of the settings, by the position that a problem names.
    """
    return [
        Problem(
            f"{NAMESPACE}:tiers[{position}].disaggregation.enabled",
            value=True,
            limit=plan.disaggregation.verdict,
            way_out="set it to false, or insist: true beside it to run it all the same",
        )
        for tier, (position, plan) in zip(settings.tiers, tiers.items(), strict=True)
        if plan.disaggregation and not plan.disaggregation.pays and not tier.disaggregation.insist
    ]
