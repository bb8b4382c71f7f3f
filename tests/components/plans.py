"""Sample tiers, written by hand: what the planner decides for four kinds of tier. Plausible figures, not planned."""

from __future__ import annotations

from dataclasses import replace

from planning.plan import (
    CheckpointChoice,
    CostItem,
    CostRange,
    DisaggregationPlan,
    Forecast,
    LlamaCppLimits,
    ModelRouterPlan,
    ModelRouterTimeouts,
    PodResources,
    ReplicaRange,
    RolePlan,
    RouterPlan,
    ServingPoint,
    TierCost,
    TierPlan,
    Timeouts,
    VllmLimits,
)

ROUTER = RouterPlan(
    envoy_cpu_millicores=200,
    envoy_memory_mib=256,
    picker_cpu_millicores=300,
    picker_memory_mib=512,
    max_held_requests=1000,
    max_held_bytes_mib=512,
    queue_depth_threshold=8,
)

_LIMITS_70B = VllmLimits(
    tensor_parallel_size=4,
    max_model_len=16384,
    max_num_seqs=96,
    max_num_batched_tokens=4096,
    gpu_memory_utilization=0.92,
    kv_cache_dtype="fp8",
)

QUALITY = TierPlan(
    name="quality",
    model_id="meta-llama/Llama-3.3-70B-Instruct",
    served_model_names=("quality", "meta-llama/Llama-3.3-70B-Instruct"),
    engine="vllm",
    checkpoint=CheckpointChoice(
        repository="RedHatAI/Llama-3.3-70B-Instruct-quantized.w4a16",
        method="w4a16",
        weights_gib=37.1,
        gated=False,
        quality_loss_percent=0.5,
        quality_loss_source="sample",
    ),
    gpu="L40S",
    gpus_per_replica=4,
    instance_types=("g6e.12xlarge", "g6e.24xlarge"),
    vllm=_LIMITS_70B,
    llama_cpp=None,
    serving=ServingPoint(
        ttft_ms=1400.0,
        tpot_ms=45.0,
        requests_per_second=1.9,
        concurrency=24.0,
        autoscaler_target=24.0,
        output_tokens_per_second=480.0,
        source="sample",
    ),
    resources=PodResources(cpu_cores=24.0, memory_gib=96.0, gpus=4, shm_gib=16.0, cache_gib=20.0),
    replicas=ReplicaRange(minimum=2, maximum=6, on_demand_floor=1, working_hours=2),
    timeouts=Timeouts(
        cold_start_s=320,
        startup_probe_s=580,
        progress_deadline_s=1220,
        router_queue_s=60,
        router_hold_s=660,
        envoy_message_s=760,
        alb_idle_s=860,
        client_s=860,
        polling_interval_s=5,
        cooldown_s=600,
        pre_stop_s=15,
        shutdown_s=90,
        grace_s=110,
    ),
    router=ROUTER,
    node_pool="gpu-4",
    disaggregation=None,
    scale_to_zero=False,
    ttft_target_ms=2000.0,
    tpot_target_ms=60.0,
)
"""70B in 4 bits on four GPUs, never below two replicas, one of them on demand."""

FAST = replace(
    QUALITY,
    name="fast",
    model_id="meta-llama/Llama-3.1-8B-Instruct",
    served_model_names=("fast", "meta-llama/Llama-3.1-8B-Instruct"),
    checkpoint=CheckpointChoice(
        repository="meta-llama/Llama-3.1-8B-Instruct",
        method="fp16",
        weights_gib=15.0,
        gated=True,
        quality_loss_percent=0.5,
        quality_loss_source="sample",
    ),
    gpu="L4",
    gpus_per_replica=1,
    instance_types=("g6.xlarge", "g5.xlarge", "g6e.xlarge"),
    vllm=VllmLimits(
        tensor_parallel_size=1,
        max_model_len=8192,
        max_num_seqs=32,
        max_num_batched_tokens=2048,
        gpu_memory_utilization=0.92,
        kv_cache_dtype="auto",
    ),
    resources=PodResources(cpu_cores=3.0, memory_gib=12.0, gpus=1, shm_gib=0.0, cache_gib=20.0),
    replicas=ReplicaRange(minimum=0, maximum=8, on_demand_floor=0, working_hours=1),
    timeouts=replace(QUALITY.timeouts, cold_start_s=290, startup_probe_s=490, progress_deadline_s=1090),
    node_pool="gpu-1",
    scale_to_zero=True,
)
"""8B as published on one small GPU, asleep when nobody asks."""

SMALL = replace(
    QUALITY,
    name="small",
    model_id="meta-llama/Llama-3.1-8B-Instruct",
    served_model_names=("small", "meta-llama/Llama-3.1-8B-Instruct"),
    engine="llama.cpp",
    checkpoint=CheckpointChoice(
        repository="bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
        method="gguf-q4_k_m",
        weights_gib=4.6,
        gated=False,
        quality_loss_percent=0.5,
        quality_loss_source="sample",
    ),
    gpu=None,
    gpus_per_replica=0,
    instance_types=("c8g.4xlarge", "c7g.4xlarge"),
    vllm=None,
    llama_cpp=LlamaCppLimits(threads=15, parallel_slots=2, context_tokens=16384),
    resources=PodResources(cpu_cores=15.0, memory_gib=9.0, gpus=0, shm_gib=0.0, cache_gib=8.0),
    replicas=ReplicaRange(minimum=0, maximum=2, on_demand_floor=0, working_hours=0),
    timeouts=replace(QUALITY.timeouts, cold_start_s=90, startup_probe_s=320, progress_deadline_s=690),
    node_pool="cpu",
    scale_to_zero=True,
)
"""8B in 4 bits on Graviton, asleep when nobody asks."""

SPLIT = replace(
    QUALITY,
    name="split",
    served_model_names=("split",),
    checkpoint=CheckpointChoice(
        repository="RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic",
        method="fp8",
        weights_gib=67.7,
        gated=False,
        quality_loss_percent=0.5,
        quality_loss_source="sample",
    ),
    replicas=ReplicaRange(minimum=3, maximum=8, on_demand_floor=0, working_hours=3),
    disaggregation=DisaggregationPlan(
        prefill=RolePlan(
            role="prefill",
            limits=replace(_LIMITS_70B, max_num_seqs=16, max_num_batched_tokens=16384),
            replicas=ReplicaRange(minimum=1, maximum=3, on_demand_floor=0, working_hours=1),
            concurrency_target=4.0,
            node_pool="gpu-4",
        ),
        decode=RolePlan(
            role="decode",
            limits=replace(_LIMITS_70B, max_num_seqs=128, max_num_batched_tokens=2048),
            replicas=ReplicaRange(minimum=2, maximum=5, on_demand_floor=0, working_hours=2),
            concurrency_target=48.0,
            node_pool="gpu-4",
        ),
        kv_store_gib=64.0,
        shared_store="none",
        shared_claim=None,
        efa_interfaces=0,
        non_cached_tokens=512,
        pays=True,
        verdict="sample",
    ),
)
"""70B in 8 bits, prefill and decode apart, with 64 GiB of host memory for KV blocks."""

TIERS = (QUALITY, FAST, SMALL, SPLIT)


def _cost(tier: str, usd: float, million_tokens: float, spot_share: float) -> TierCost:
    return TierCost(
        tier=tier,
        expected_usd=usd,
        low_usd=0.8 * usd,
        high_usd=1.5 * usd,
        usd_per_million_tokens=usd / million_tokens,
        usd_per_million_tokens_saturated=0.5 * usd / million_tokens,
        million_tokens=million_tokens,
        replica_hours=730.0,
        spot_share=spot_share,
        utilization=0.5,
    )


_NODES_USD = {"quality": 1460.0, "fast": 146.0, "small": 73.0, "split": 2920.0}

FORECAST = Forecast(
    total=CostRange(low=4000.0, expected=4964.0, high=7000.0),
    baseline_usd=20_000.0,
    baseline_description="sample",
    items=(
        *(CostItem(f"{tier}: nodes", "compute", tier, usd, "sample") for tier, usd in _NODES_USD.items()),
        CostItem("EKS control plane", "fixed", None, 365.0, "sample"),
    ),
    tiers=(
        _cost("quality", 1460.0, 730.0, 0.4),
        _cost("fast", 146.0, 1460.0, 0.9),
        _cost("small", 73.0, 73.0, 1.0),
        _cost("split", 2920.0, 1460.0, 0.8),
    ),
    savings=(),
    drivers=(),
    what_ifs=(),
    prices_as_of="2026-11-01",
    price_source="sample",
    budget_usd=6000.0,
)
"""Round figures of a month: 2, 0.2, 0.1 and 4 USD an hour of nodes and 0.5 of everything else."""

BY_MODEL = (FAST, QUALITY, SMALL)
MODEL_ROUTER = ModelRouterPlan(
    replicas=2,
    cpu_millicores=150,
    memory_mib=176,
    max_body_mib=1,
    timeouts=ModelRouterTimeouts(
        idle_s=810,
        connection_s=7,
        keepalive_idle_s=10,
        keepalive_interval_s=5,
        keepalive_probes=3,
        drain_s=105,
        grace_s=110,
    ),
    tier_of_model={
        "fast": "fast",
        "quality": "quality",
        "small": "small",
        FAST.model_id: "fast",
        QUALITY.model_id: "quality",
    },
    default_tier="fast",
    routing_header="X-Model-Tier",
)
"""What routes by model before the tiers of ``BY_MODEL``, of which two serve one model."""
