"""What can run where: rules of vLLM 0.33.0 and of tensor parallelism."""

import pytest

from planning.facts.checkpoints import Checkpoint, checkpoints
from planning.facts.gpus import gpu
from planning.facts.models import model
from planning.options import (
    DAEMON_CPU_CORES,
    DAEMON_MEMORY_GIB,
    unsupported,
    vllm_default_limits,
)
from planning.system_pods import DAEMONS, GPU_NODE_PODS

LLAMA_70B = "meta-llama/Llama-3.1-70B-Instruct"


def checkpoint(method: str) -> Checkpoint:
    return Checkpoint(LLAMA_70B, method, "somewhere/else", 40.0, verified=True, source="")


@pytest.mark.parametrize(
    ("method", "gpu_name", "count", "dtype", "works"),
    [
        ("int8", "A100-80GB", 1, "auto", True),
        ("int8", "RTX-PRO-6000", 1, "auto", False),
        ("fp8", "RTX-PRO-6000", 1, "auto", True),
        ("nvfp4", "H100", 1, "auto", False),
        ("nvfp4", "B200", 1, "auto", True),
        ("mxfp4", "T4", 1, "auto", False),
        ("w4a16", "A10G", 1, "fp8", False),
        ("w4a16", "L4", 1, "fp8", True),
        ("w4a16", "L4", 3, "auto", False),
        ("gptq8", "L4", 1, "auto", False),
    ],
)
def test_a_gpu_runs_what_vllm_has_kernels_for(method: str, gpu_name: str, count: int, dtype: str, works: bool) -> None:
    assert (unsupported(model(LLAMA_70B), checkpoint(method), gpu(gpu_name), count, dtype) == "") is works


def test_gemma_needs_bf16_which_a_t4_has_not() -> None:
    gemma = model("google/gemma-3-4b-it")
    own = checkpoints("google/gemma-3-4b-it")[0]
    assert "no bf16" in unsupported(gemma, own, gpu("T4"), 1)
    assert unsupported(gemma, own, gpu("L4"), 1) == ""


@pytest.mark.parametrize(
    ("gpu_name", "sequences", "tokens"),
    [("L4", 256, 2048), ("A100-80GB", 256, 2048), ("H100", 1024, 8192), ("B200", 1024, 16384)],
)
def test_default_limits_are_those_of_the_api_server(gpu_name: str, sequences: int, tokens: int) -> None:
    limits = vllm_default_limits(gpu(gpu_name), max_model_len=8192, gpus=1, kv_cache_dtype="auto")
    assert (limits.max_num_seqs, limits.max_num_batched_tokens) == (sequences, tokens)


def test_the_allowance_for_a_nodes_daemons_covers_what_they_request() -> None:
    pods = (DAEMONS, *GPU_NODE_PODS.values())
    assert sum(pod.cpu_millicores for pod in pods) <= 1000 * DAEMON_CPU_CORES
    assert sum(pod.memory_mib for pod in pods) <= 1024 * DAEMON_MEMORY_GIB
