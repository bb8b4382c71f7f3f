"""The right-sizing tables: what fits is checked by arithmetic on paper, prices by AWS's list."""

from __future__ import annotations

import itertools

import pytest

from planning.facts.models import model
from planning.right_sizing import CLASSES, REGIONS, TARGET, Sizing, checkpoint, context_tokens, sizings

CASES = [*itertools.product(CLASSES, (False, True))]


def row(name: str, region: str, *, four_bit: bool) -> Sizing:
    return next(one for one in sizings(CLASSES[name], four_bit=four_bit) if one.region == region)


def test_every_class_has_a_model_of_about_its_size_and_both_precisions() -> None:
    # Names of the classes; 8x22B has 141 billion parameters.
    for name, billion in {"7-8B": 8, "13B": 13, "34B": 34, "70B": 70, "8x22B": 141, "405B": 405}.items():
        assert model(CLASSES[name]).params_billion == pytest.approx(billion, rel=0.01)
        assert checkpoint(CLASSES[name], four_bit=False).method == "fp16"
        assert checkpoint(CLASSES[name], four_bit=True).weights_gb < 0.75 * model(CLASSES[name]).params_billion


@pytest.mark.parametrize(("name", "four_bit"), CASES)
def test_a_minimum_holds_the_weights_and_one_full_sequence_and_the_best_meets_the_target(
    name: str, four_bit: bool
) -> None:
    architecture, weights = model(CLASSES[name]), checkpoint(CLASSES[name], four_bit=four_bit)
    for one in sizings(CLASSES[name], four_bit=four_bit):
        if one.minimum:
            setup = one.minimum.setup
            assert setup.gpu.memory_gib * setup.gpus * 2**30 > weights.weights_gb * 1e9
            assert one.minimum.kv_tokens >= context_tokens(architecture)
            assert setup.on_demand.region == one.region
        for best in (one.on_demand, one.spot):
            if best:
                assert best.load.ttft_p95_ms <= TARGET.ttft_ms
                assert best.load.tpot_p95_ms <= TARGET.tpot_ms


@pytest.mark.parametrize(("name", "four_bit"), CASES)
def test_no_setup_that_holds_the_model_has_less_memory_than_the_minimum(name: str, four_bit: bool) -> None:
    for one in sizings(CLASSES[name], four_bit=four_bit):
        best = [found.setup for found in (one.on_demand, one.spot) if found]
        if one.minimum is None:
            assert not best
            continue
        least = one.minimum.setup.gpu.memory_gib * one.minimum.setup.gpus
        assert all(setup.gpu.memory_gib * setup.gpus >= least for setup in best)


def test_4_bit_needs_no_more_memory_than_16() -> None:
    for name, region in itertools.product(CLASSES, REGIONS):
        full, packed = (row(name, region, four_bit=four_bit).minimum for four_bit in (False, True))
        assert packed is not None
        if full:
            assert packed.setup.gpu.memory_gib * packed.setup.gpus <= full.setup.gpu.memory_gib * full.setup.gpus


def test_16_gb_of_weights_do_not_fit_on_a_16_gb_gpu() -> None:
    minimum = row("7-8B", "us-east-1", four_bit=False).minimum
    assert minimum is not None
    assert minimum.setup.gpu.name == "L4"
    assert minimum.setup.on_demand.on_demand_usd_per_hour == 0.8048  # g6.xlarge, AWS price list of 2026-07-20


def test_ireland_has_no_l4_and_no_node_for_405b_in_16_bit() -> None:
    assert row("405B", "eu-west-1", four_bit=False) == Sizing("eu-west-1", None, None, None)
    minimum = row("7-8B", "eu-west-1", four_bit=False).minimum
    assert minimum is not None
    assert minimum.setup.gpu.name == "A10G"


def test_405b_in_16_bit_takes_a_node_of_more_than_810_gb() -> None:
    minimum = row("405B", "us-east-1", four_bit=False).minimum
    assert minimum is not None
    assert minimum.setup.on_demand.instance.name == "p5en.48xlarge"


def test_every_row_has_the_band_of_its_own_gpus() -> None:
    """More of the published measurements are of the H100 than of the RTX PRO 6000 (throughput_measurements.csv).

    The mixture of experts has a band of its own on any GPU and is left out.
    """
    widths: dict[str, set[float]] = {}
    for name, four_bit in CASES:
        for one in sizings(CLASSES[name], four_bit=four_bit):
            for found in (one.minimum, one.on_demand, one.spot):
                if found and found.setup.gpus == 1 and name != "8x22B":
                    low, high = found.cost_band
                    widths.setdefault(found.setup.gpu.name, set()).add(high / low)
    assert max(widths["H100"]) < min(widths["RTX-PRO-6000"])
