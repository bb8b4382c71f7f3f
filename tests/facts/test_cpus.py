"""CPU facts for serving GGUF checkpoints."""

from __future__ import annotations

import pytest

from planning.facts.cpus import cpu, cpu_measurements, cpus
from planning.facts.instances import instance_types
from planning.facts.table import UnknownFact


def test_bandwidth_is_channels_times_transfers_times_eight_bytes() -> None:
    assert cpu("c7g").memory_bandwidth_gbps == pytest.approx(8 * 4.8 * 8)
    assert cpu("c8g").memory_bandwidth_gbps == pytest.approx(12 * 5.6 * 8)
    assert cpu("m7i").memory_bandwidth_gbps == pytest.approx(8 * 4.8 * 8)


def test_a_vcpu_is_a_core_on_graviton_and_a_thread_on_intel() -> None:
    assert (cpu("m7g").vcpu_per_socket, cpu("m8g").vcpu_per_socket, cpu("m7i").vcpu_per_socket) == (64, 96, 96)


def test_two_thirds_of_a_graviton4_reach_87_percent_of_its_bandwidth() -> None:
    # Arm's memory-subsystem learning path: all reads on c8g.16xlarge.
    c8g = cpu("c8g")
    assert c8g.measured_on_vcpu == 64
    assert c8g.measured_read_bandwidth_gbps == 465.5
    assert 465.5 / c8g.memory_bandwidth_gbps == pytest.approx(0.866, abs=0.001)


def test_families_of_one_processor_share_its_figures_and_the_architecture_of_their_instances() -> None:
    for each in cpus().values():
        twins = [other for other in cpus().values() if other.processor == each.processor]
        assert len({(twin.memory_bandwidth_gbps, twin.vcpu_per_socket, twin.arch) for twin in twins}) == 1
    for instance in instance_types().values():
        if instance.family in cpus():
            assert cpus()[instance.family].arch == instance.arch


def test_every_cpu_family_on_offer_but_the_burstable_one_has_its_facts() -> None:
    offered = {instance.family for instance in instance_types().values() if instance.gpu is None}
    assert offered - set(cpus()) == {"t4g"}


def test_an_8b_in_4_bit_generates_41_tokens_a_second_on_16_cores_of_graviton4() -> None:
    (row,) = (
        row
        for row in cpu_measurements()
        if row.instance_type == "c8g.4xlarge" and row.threads == 16 and row.prompt_tokens == 512
    )
    assert (row.generation_tokens_per_s, row.prompt_tokens_per_s, row.weights_gib) == (40.99, 190.18, 4.33)


def test_no_measurement_reads_weights_faster_than_the_socket_can() -> None:
    bandwidth = {each.processor: each.memory_bandwidth_gbps for each in cpus().values()}
    for row in cpu_measurements():
        mixture_of_experts = row.model in ("qwen3.5-35b-a3b", "openai/gpt-oss-20b")
        if row.weights_gib and row.generation_tokens_per_s and not mixture_of_experts:
            gbps = row.weights_gib * 1.073741824 * row.generation_tokens_per_s
            assert gbps < bandwidth[row.processor], row


def test_all_measurements_are_of_one_sequence_and_of_a_known_processor() -> None:
    assert len(cpu_measurements()) == 36
    assert {row.batch for row in cpu_measurements()} == {1}
    assert {row.processor for row in cpu_measurements()} <= {each.processor for each in cpus().values()}


def test_a_family_is_asked_for_without_its_size() -> None:
    with pytest.raises(UnknownFact, match="cpu family"):
        cpu("c8g.4xlarge")
