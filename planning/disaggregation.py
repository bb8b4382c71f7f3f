"""Prefill and decode in replicas of their own: what each carries, and whether that pays."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from planning.memory import kv_bytes_per_sequence
from planning.options import Demand, Option, replica_speed
from planning.serving import Load, LoadModel
from planning.speed import ReplicaSpeed

#: Prompts with fewer new tokens than this are prefilled on the decode pod: the transfer would cost more than it saves.
#: llm-d's own example of the prefix-based decider.
NON_CACHED_TOKENS = 256


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
    service = speed.prefill_s(demand.workload.input_tokens, demand.workload.cached_tokens)
    room = demand.target.ttft_ms / 1000 - service - transfer_s
    if decode is None or room <= 0:
        return None
    rate = _largest_rate(service, room, demand.workload.arrival_cv)
    return RoleLoads(rate, rate * (service + transfer_s) + 1, decode, transfer_s * 1000)


def _without_prefill(speed: ReplicaSpeed) -> ReplicaSpeed:
    return replace(speed, prefill_per_token_s=0.0, prefill_per_pair_s=0.0)


def _largest_rate(service_s: float, room_s: float, arrival_cv: float) -> float:
    """The rate at which 95 % of requests wait at most ``room_s``: Kingman's wait with an exponential tail."""
    low, high = 0.0, 1 / service_s
    for _ in range(40):
        rate = (low + high) / 2
        busy = rate * service_s
        wait = service_s * (arrival_cv**2 + 1) / (2 * (1 - busy)) * max(0.0, math.log(busy / 0.05))
        low, high = (rate, high) if wait <= room_s else (low, rate)
    return low
