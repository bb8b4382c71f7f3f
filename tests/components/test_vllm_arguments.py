"""The command line of vLLM, against the flags that its pinned version parses. That vLLM starts is not proven."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace

import pytest

from components.vllm_arguments import SharedStore, serve_arguments, transfer_argument
from planning.facts.vllm_flags import flags
from planning.plan import Plan, VllmLimits
from planning.stack import plan_config
from planning.stackfile import read_stack
from tests.components.plans import FAST, QUALITY, SPLIT, TIERS
from tests.harness import ROOT

STORE = SharedStore(bucket="weights-1a2b3c4", prefix="kv-cache/split", region="us-east-2")


def arguments(limits: VllmLimits | None) -> list[str]:
    assert limits is not None
    return serve_arguments(limits, ("quality", "meta-llama/Llama-3.3-70B-Instruct"), QUALITY.timeouts)


def all_limits() -> list[VllmLimits]:
    split = SPLIT.disaggregation
    assert split is not None
    sampled = (*(tier.vllm for tier in TIERS), split.prefill.limits, split.decode.limits)
    planned = (tier.vllm for stack in ("dev", "staging", "prod") for tier in plan_of(stack).tiers)
    limits = [found for found in (*sampled, *planned) if found]
    return [*limits, *(replace(found, kv_offload_gib=39.0) for found in limits)]


def plan_of(stack: str) -> Plan:
    read = read_stack(ROOT / f"Pulumi.{stack}.yaml")
    return plan_config(read.region, read.values, read.encrypted)[1]


def test_every_flag_that_the_program_can_give_is_one_that_the_pinned_vllm_parses() -> None:
    given = {text.partition("=")[0] for limits in all_limits() for text in arguments(limits) if text.startswith("-")}
    given |= {transfer_argument("decode", 1.0).partition("=")[0]}
    assert len(given) >= 16
    assert given - flags() == set()


def test_a_flag_in_the_source_that_no_plan_here_reaches_is_looked_up_too() -> None:
    """So that a branch that the stacks above do not take cannot hide a flag that vLLM dropped."""
    texts = (
        node.value
        for name in ("vllm_arguments.py", "vllm_tier.py", "disaggregated_tier.py", "vllm_container.py")
        for node in ast.walk(ast.parse((ROOT / "components" / name).read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    sidecars = {"--kv-connector", "--secure-proxy"}
    written = {found for text in texts for found in re.findall(r"^--[a-z][a-z-]+(?==|$)", text)} - sidecars
    assert len(written) >= 17
    assert written - flags() == set()


def test_a_prompt_may_be_longer_than_a_step_as_the_plan_assumes() -> None:
    assert "--enable-chunked-prefill" in arguments(QUALITY.vllm)
    assert "--enable-prefix-caching" in arguments(QUALITY.vllm)


def test_blocks_that_leave_the_gpus_are_kept_in_host_memory_only_where_the_plan_has_some() -> None:
    assert QUALITY.vllm is not None
    kept = arguments(replace(QUALITY.vllm, kv_offload_gib=39.0))
    assert {"--kv-offloading-size=39", "--kv-offloading-backend=native"} <= set(kept)
    assert not [text for text in arguments(QUALITY.vllm) if text.startswith("--kv-offloading")]


def test_the_limits_of_the_plan_arrive_one_by_one() -> None:
    assert {
        "--tensor-parallel-size=4",
        "--max-model-len=16384",
        "--max-num-seqs=96",
        "--max-num-batched-tokens=4096",
        "--gpu-memory-utilization=0.92",
        "--kv-cache-dtype=fp8",
        "--port=8000",
        "--shutdown-timeout=90",
    } <= set(arguments(QUALITY.vllm))


def test_no_flag_stands_twice() -> None:
    names = [text.partition("=")[0] for text in arguments(QUALITY.vllm) if text.startswith("--")]
    assert len(names) == len(set(names))


def test_clients_may_name_the_tier_or_the_model_but_need_not_know_the_bucket() -> None:
    given = arguments(QUALITY.vllm)
    start = given.index("--served-model-name")
    assert given[start + 1 : start + 3] == ["quality", "meta-llama/Llama-3.3-70B-Instruct"]
    assert given[start + 3].startswith("--"), "a flag ends the list, or vLLM would take what follows for a name"


def test_the_quantisation_is_left_to_vllm_which_then_picks_the_fast_kernel() -> None:
    assert not [text for text in arguments(QUALITY.vllm) if text.startswith(("--quantization", "-q"))]


def test_requests_in_flight_are_drained_not_aborted() -> None:
    # 0, vLLM's default, aborts them on SIGTERM.
    assert f"--shutdown-timeout={QUALITY.timeouts.shutdown_s}" in arguments(QUALITY.vllm)
    assert QUALITY.timeouts.shutdown_s > 0


def test_streaming_clients_hear_something_long_before_any_proxy_gives_up() -> None:
    (interval,) = [text.partition("=")[2] for text in arguments(FAST.vllm) if text.startswith("--sse-keep-alive")]
    assert 0 < int(interval) < 60, "60 s is the shortest idle time-out in use, the load balancer's default"


def test_weights_are_streamed_with_a_buffer_that_no_pod_is_too_small_for() -> None:
    assert '--model-loader-extra-config={"memory_limit":0}' in arguments(FAST.vllm)
    assert "--load-format=runai_streamer" in arguments(FAST.vllm)


def test_ranks_share_the_reading_instead_of_each_reading_the_whole_checkpoint() -> None:
    assert '--model-loader-extra-config={"memory_limit":0,"distributed":true}' in arguments(QUALITY.vllm)


@pytest.mark.parametrize(("role", "nixl_role"), [("prefill", "kv_producer"), ("decode", "kv_consumer")])
def test_nixl_moves_blocks_from_prefill_to_decode_and_both_keep_a_store(role: str, nixl_role: str) -> None:
    name, _, text = transfer_argument("prefill" if role == "prefill" else "decode", 64.0).partition("=")
    assert name == "--kv-transfer-config"
    assert json.loads(text) == {
        "kv_connector": "MultiConnector",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {
            "connectors": [
                {"kv_connector": "NixlConnector", "kv_role": nixl_role},
                {
                    "kv_connector": "OffloadingConnector",
                    "kv_role": "kv_both",
                    "kv_connector_extra_config": {
                        "spec_name": "CPUOffloadingSpec",
                        "cpu_bytes_to_use": 68_719_476_736,  # 64 GiB
                    },
                },
            ]
        },
    }


def test_the_short_cut_for_offloading_is_not_used_where_it_would_replace_nixl() -> None:
    split = SPLIT.disaggregation
    assert split is not None
    for role in (split.prefill, split.decode):
        assert not [text for text in arguments(role.limits) if text.startswith("--kv-offloading")]


def test_a_shared_store_stands_behind_the_host_memory_and_speaks_tls() -> None:
    config = json.loads(transfer_argument("decode", 64.0, STORE).partition("=")[2])
    offloading = config["kv_connector_extra_config"]["connectors"][1]["kv_connector_extra_config"]
    assert offloading == {
        "spec_name": "TieringOffloadingSpec",
        "cpu_bytes_to_use": 68_719_476_736,
        "secondary_tiers": [
            {
                "type": "obj",
                "prefix": "kv-cache/split",
                "store_config": {
                    "bucket": "weights-1a2b3c4",
                    "region": "us-east-2",
                    "endpoint_override": "https://s3.us-east-2.amazonaws.com",
                    "scheme": "https",
                },
            }
        ],
    }
