"""GPUs, against the EC2 API's memory and NVIDIA's data sheets."""

from __future__ import annotations

from planning.facts.gpus import gpu, gpus


def test_an_a10g_and_an_l4_expose_22_35_gib_not_24() -> None:
    assert gpu("A10G").memory_gib == 22.35
    assert gpu("L4").memory_gib == 22.35
    assert gpu("L40S").memory_gib == 44.7


def test_the_two_a100_differ_in_memory_and_bandwidth() -> None:
    assert (gpu("A100-40GB").memory_gib, gpu("A100-40GB").bandwidth_gbps) == (40.0, 1555)
    assert (gpu("A100-80GB").memory_gib, gpu("A100-80GB").bandwidth_gbps) == (80.0, 2039)


def test_fp8_arithmetic_begins_with_compute_capability_8_9() -> None:
    without_figures = {"RTX-PRO-4500"}
    for each in gpus().values():
        if each.name not in without_figures:
            assert (each.fp8_tflops is not None) == (each.compute_capability >= (8, 9)), each.name


def test_compute_capabilities_compare_as_versions() -> None:
    assert gpu("B300").compute_capability == (10, 3)
    assert gpu("B300").compute_capability > gpu("H100").compute_capability > gpu("L4").compute_capability


def test_an_h100_has_989_dense_tflops_in_bf16() -> None:
    assert gpu("H100").bf16_tflops == 989
    assert gpu("H100").bandwidth_gbps == 3350


def test_a_rate_that_nobody_published_is_none() -> None:
    assert gpu("RTX-PRO-4500").bf16_tflops is None
    assert gpu("A10G").fp8_tflops is None


def test_g6_g6e_and_g7e_gpus_have_no_nvlink() -> None:
    assert {gpu(name).nvlink for name in ("L4", "L40S", "RTX-PRO-6000", "A10G", "T4")} == {"no"}
    assert gpu("A6000").nvlink == "bridge"
