"""The speed form against published measurements. Rows it was fitted on are among them: a fresh source may err more."""

import statistics

import pytest

from planning.facts.checkpoints import Checkpoint, checkpoints
from planning.facts.cpus import cpu, cpu_measurements
from planning.facts.gpus import gpu, gpus
from planning.facts.measurements import measured_architectures, measurements
from planning.facts.models import model
from planning.speed import compute_flops, cpu_speed, gpu_speed

LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"
METHODS = {"fp16": "fp16", "bf16": "fp16", "fp8": "fp8", "w8a8-int8": "int8", "w4a16": "w4a16", "awq-int4": "awq"}


def checkpoint(model_id: str, method: str) -> Checkpoint:
    return next(entry for entry in checkpoints(model_id) if entry.method == method)


def errors(engines: set[str], gpu_names: set[str]) -> list[float]:
    """Absolute relative error of throughput of every dense row at a stated concurrency."""
    found: list[float] = []
    for row in measurements():
        method, architecture = METHODS.get(row.quantization), measured_architectures().get(row.model)
        if (
            method is None
            or architecture is None
            or architecture.experts > 1
            or row.gpu not in gpus()
            or row.gpu not in gpu_names
            or row.engine not in engines
            or not (row.concurrency and row.input_tokens and row.output_tokens and row.output_tokens_per_s)
            or "FLAG" in row.notes
        ):
            continue
        weights = Checkpoint(architecture.model_id, method, "measured", 0.0, verified=True, source="")
        speed = gpu_speed(architecture, weights, gpu(row.gpu), row.gpu_count)
        predicted = speed.output_tokens_per_second(row.concurrency, row.input_tokens, row.output_tokens)
        found.append(abs(predicted / row.output_tokens_per_s - 1))
    return found


def test_throughput_is_within_the_published_error_of_the_form() -> None:
    found = errors({"vLLM", "TensorRT-LLM"}, {"A100-40GB", "A100-80GB", "H100", "H200", "L40S", "L4", "A6000"})
    assert len(found) > 500
    # The form's error is published as 11 % in the median on rows kept apart, 14 % without the row's source in the fit.
    assert statistics.median(found) < 0.17


def test_fp8_on_ampere_computes_in_16_bit_and_on_ada_natively() -> None:
    assert compute_flops(gpu("A100-80GB"), "fp8") == 312e12
    assert compute_flops(gpu("L4"), "fp8") == 242e12
    # Weight-only kernels on Hopper reach 0.47 of the bf16 rate.
    assert compute_flops(gpu("H100"), "w4a16") == pytest.approx(0.47 * 989e12)


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
