"""What the speed form says of hardware and formats. How well it meets measurements: test_speed_evaluation.py."""

import pytest

from planning.facts.checkpoints import Checkpoint, checkpoints
from planning.facts.cpus import cpu, cpu_measurements
from planning.facts.gpus import gpu
from planning.facts.models import model
from planning.speed import cpu_speed, gpu_speed, native_flops

LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"


def checkpoint(model_id: str, method: str) -> Checkpoint:
    return next(entry for entry in checkpoints(model_id) if entry.method == method)


def test_fp8_on_ampere_computes_in_16_bit_and_on_ada_natively() -> None:
    assert native_flops(gpu("A100-80GB"), "fp8") is None
    assert native_flops(gpu("L4"), "fp8") == 242e12
    assert native_flops(gpu("H100"), "w4a16") is None


def test_weight_only_kernels_are_slower_than_16_bit_ones_from_hopper_on_when_computing() -> None:
    # gpustack's performance lab, Qwen3-8B on an H100: INT4 weight-only gains 2 % or loses where memory is no limit.
    architecture = model(LLAMA_8B)
    half, packed = (
        gpu_speed(architecture, checkpoint(LLAMA_8B, method), gpu("H100"), 1) for method in ("fp16", "w4a16")
    )
    assert packed.prefill_s(4000) > half.prefill_s(4000)
    assert packed.step_s(1, 500) < half.step_s(1, 500)


def test_two_gpus_over_pcie_pay_more_for_a_prompt_than_over_nvlink() -> None:
    architecture, weights = model(LLAMA_8B), checkpoint(LLAMA_8B, "fp16")

    def gain(name: str) -> float:
        one, two = (gpu_speed(architecture, weights, gpu(name), count).prefill_s(2000) for count in (1, 2))
        return one / two

    assert gain("A100-80GB") > 1.6
    assert gain("L40S") < 1.3


def test_cached_prompt_tokens_cost_no_linear_layers_but_are_attended_to() -> None:
    speed = gpu_speed(model(LLAMA_8B), checkpoint(LLAMA_8B, "fp16"), gpu("L4"), 1)
    whole, half_cached, half = speed.prefill_s(8000), speed.prefill_s(8000, 4000), speed.prefill_s(4000)
    assert half < half_cached < whole


@pytest.mark.parametrize("threads", [4, 8, 16])
def test_cpu_generation_is_within_a_tenth_of_the_graviton4_runs(threads: int) -> None:
    row = next(
        entry
        for entry in cpu_measurements()
        if entry.instance_type == "c8g.4xlarge" and entry.threads == threads and entry.generation_tokens_per_s
    )
    assert row.quantization == "gguf-q4_0"
    weights = Checkpoint(
        LLAMA_8B, "gguf-q4_0", "measured", (row.weights_gib or 0) * 2**30 / 1e9, verified=True, source=""
    )
    step_s = cpu_speed(model(LLAMA_8B), weights, cpu("c8g"), threads).step_s(1, 128)
    # A step also computes; the published rate holds both.
    assert 1 / step_s == pytest.approx(row.generation_tokens_per_s, rel=0.25)
