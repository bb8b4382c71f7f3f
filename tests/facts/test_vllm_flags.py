"""The flags of the pinned vLLM."""

from __future__ import annotations

from planning.facts.vllm_flags import flags


def test_the_flags_that_a_tier_needs_exist() -> None:
    assert {
        "--max-model-len",
        "--max-num-seqs",
        "--max-num-batched-tokens",
        "--gpu-memory-utilization",
        "--tensor-parallel-size",
        "--kv-cache-dtype",
        "--shutdown-timeout",
    } <= flags()


def test_a_flag_that_vllm_dropped_is_not_there() -> None:
    assert "--device" not in flags()
    assert "--max-model-length" not in flags()
