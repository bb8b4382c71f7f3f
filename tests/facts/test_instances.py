"""Instance types and prices, against the figures of the price lists they were read from."""

from __future__ import annotations

import shutil
from datetime import date
from math import ceil
from pathlib import Path
from statistics import median

import pytest

from planning.facts.gpus import gpus
from planning.facts.instances import (
    DERIVED_ON_DEMAND_ERROR,
    INSTANCE_PRICES,
    SPOT_RANGES,
    Offering,
    instance_type,
    instance_types,
    monthly_interruption,
    offerings,
    regions,
)
from planning.facts.table import DATA, InvalidTable, UnknownFact, read_table


def offering(region: str, name: str) -> Offering:
    (found,) = (each for each in offerings(region) if each.instance.name == name)
    return found


@pytest.mark.parametrize(
    ("name", "usd_per_hour"),
    [
        ("g4dn.xlarge", 0.526),
        ("g5.xlarge", 1.006),
        ("g6.xlarge", 0.8048),
        ("g6e.xlarge", 1.861),
        ("g7e.2xlarge", 3.36312),
        ("p4d.24xlarge", 21.957642),
        ("p5.48xlarge", 55.04),
        ("c8g.4xlarge", 0.63808),
    ],
)
def test_on_demand_prices_of_us_east_1_are_the_price_lists_of_july_2026(name: str, usd_per_hour: float) -> None:
    assert offering("us-east-1", name).on_demand_usd_per_hour == usd_per_hour


@pytest.mark.parametrize(
    ("region", "name", "usd_per_hour"),
    [
        ("us-east-1", "g6.xlarge", 0.362),
        ("us-east-2", "g6.xlarge", 0.215),
        ("us-east-2", "g6e.12xlarge", 2.412),
        ("us-east-1", "c8g.4xlarge", 0.217),
    ],
)
def test_spot_is_the_median_over_zones(region: str, name: str, usd_per_hour: float) -> None:
    assert offering(region, name).spot_usd_per_hour == pytest.approx(usd_per_hour, abs=0.0005)


def test_spot_of_a_p5_differs_threefold_between_zones_and_two_are_full() -> None:
    p5 = offering("us-east-1", "p5.48xlarge")
    assert (p5.spot_min_usd_per_hour, p5.spot_max_usd_per_hour) == pytest.approx((16.95, 55.04), abs=0.01)
    assert (p5.zones, p5.zones_at_on_demand_price) == (6, 2)


def test_a_price_that_was_not_read_is_none_and_the_advisors_saving_stands_in() -> None:
    m7i = offering("us-east-1", "m7i.2xlarge")
    assert m7i.spot_usd_per_hour is None
    assert m7i.zones is None
    assert m7i.spot_savings_percent is not None
    assert 0 < m7i.spot_savings_percent < 100


def test_every_price_range_holds_its_median() -> None:
    for region in regions():
        for each in offerings(region):
            if each.spot_usd_per_hour is not None:
                assert each.spot_min_usd_per_hour is not None
                assert each.spot_max_usd_per_hour is not None
                assert each.spot_min_usd_per_hour <= each.spot_usd_per_hour <= each.spot_max_usd_per_hour


def test_there_are_sixteen_regions() -> None:
    assert len(regions()) == 16
    assert {"us-east-1", "us-west-2", "eu-central-1", "eu-south-2", "ap-south-1"} <= set(regions())


def test_ireland_offers_neither_l4_nor_l40s() -> None:
    assert {each.instance.gpu for each in offerings("eu-west-1")} == {None, "T4", "A10G", "A100-40GB"}


def test_mumbai_has_no_l40s() -> None:
    assert "L40S" not in {each.instance.gpu for each in offerings("ap-south-1")}


def test_fractions_of_a_gpu_are_never_offered() -> None:
    families = {each.instance.family for region in regions() for each in offerings(region)}
    assert not families & {"g6f", "gr6f"}
    assert "g6" in families


def test_a_type_without_an_on_demand_price_is_not_offered() -> None:
    assert "p5e.48xlarge" not in instance_types()
    assert "p5en.48xlarge" in instance_types()


def test_the_size_of_an_instance_does_not_tell_its_gpus() -> None:
    counts = {name: instance_type(name).gpu_count for name in ("g7e.12xlarge", "g6e.12xlarge", "g6e.16xlarge")}
    assert counts == {"g7e.12xlarge": 2, "g6e.12xlarge": 4, "g6e.16xlarge": 1}
    assert instance_type("p5.4xlarge").gpu_count == 1


def test_p4d_is_the_40_gb_a100_and_only_p4de_the_80_gb_one() -> None:
    p4d, p4de = instance_type("p4d.24xlarge"), instance_type("p4de.24xlarge")
    assert (p4d.gpu, p4d.gpu_memory_gib_each, p4d.gpu_memory_label_mib) == ("A100-40GB", 40.0, 40960)
    assert (p4de.gpu, p4de.gpu_memory_gib_each, p4de.gpu_memory_label_mib) == ("A100-80GB", 80.0, 81920)
    assert p4d.gpu_name_label == p4de.gpu_name_label == "a100"


def test_g7es_label_is_rtx_pro_server_6000() -> None:
    assert instance_type("g7e.2xlarge").gpu_name_label == "rtx-pro-server-6000"


def test_every_offered_gpu_is_a_known_one_with_the_memory_that_ec2_reports() -> None:
    for each in instance_types().values():
        if each.gpu is None:
            assert (each.gpu_count, each.gpu_memory_gib_each) == (0, 0.0)
            assert each.gpu_name_label is None
        else:
            assert each.gpu_count >= 1
            assert each.gpu_memory_gib_each == pytest.approx(gpus()[each.gpu].memory_gib, abs=0.02)
            assert each.gpu_name_label is not None


def test_a_g6_xlarge_leaves_3_92_cores_and_14162_mib_to_pods() -> None:
    g6 = instance_type("g6.xlarge")
    assert g6.allocatable_cpu == pytest.approx(3.92)
    assert g6.allocatable_memory_gib == pytest.approx(14162 / 1024)
    assert (g6.arch, g6.local_nvme_gb, g6.network_baseline_mbps) == ("amd64", 250, 2500)


def test_a_c8g_4xlarge_leaves_15_89_cores_and_27322_mib_to_pods() -> None:
    c8g = instance_type("c8g.4xlarge")
    assert c8g.allocatable_cpu == pytest.approx(15.89)
    assert c8g.allocatable_memory_gib == pytest.approx(27322 / 1024)
    assert (c8g.arch, c8g.gpu, c8g.vcpu) == ("arm64", None, 16)


def test_only_graviton_families_are_arm64() -> None:
    arm = {each.family for each in instance_types().values() if each.arch == "arm64"}
    assert arm == {"c7g", "c8g", "m7g", "m8g", "t4g"}


def test_allocatable_memory_of_cpu_types_follows_karpenters_documented_reserve() -> None:
    # pkg/providers/instancetype/types.go: 64 MiB of Graviton's memory is not usable, 7.5 % is taken by the VM, kubelet
    # keeps 255 MiB + 11 MiB a pod, 100 MiB is the eviction threshold.
    columns = ("instance_type", "memory_mib", "max_pods", "arch", "allocatable_memory")
    rows = read_table(DATA / "cpu_instances.csv", columns, lambda row: [row.name(column) for column in columns])
    assert len(rows) == 27
    for name, memory_mib, pods, arch, allocatable in rows:
        usable = int(memory_mib) - (64 if arch == "arm64" else 0)
        expected = usable - ceil(usable * 0.075) - (255 + 11 * int(pods)) - 100
        assert allocatable == f"{expected}Mi", name


def test_a_g5_xlarge_in_virginia_is_interrupted_often_and_in_ohio_less() -> None:
    assert offering("us-east-1", "g5.xlarge").interruption_class == ">20%"
    assert offering("us-east-2", "g5.xlarge").interruption_class == "10-15%"


def test_a_family_newer_than_the_advisor_counts_as_the_worst_class() -> None:
    g7e = offering("us-east-1", "g7e.2xlarge")
    assert g7e.interruption_class is None
    assert monthly_interruption(g7e.interruption_class) == monthly_interruption(">20%")


def test_interruption_classes_are_ranges_in_order() -> None:
    classes = [monthly_interruption(text) for text in ("<5%", "5-10%", "10-15%", "15-20%", ">20%")]
    assert [each.low for each in classes] == [0.0, 0.05, 0.10, 0.15, 0.20]
    assert all(each.low < each.expected < each.high <= 1 for each in classes)
    with pytest.raises(UnknownFact, match="interruption class"):
        monthly_interruption("20%")


def test_the_advisors_impossible_negative_saving_is_dropped() -> None:
    assert offering("ca-central-1", "p5.48xlarge").spot_savings_percent is None


def test_prices_carry_their_source_and_date() -> None:
    g6 = offering("us-east-1", "g6.xlarge")
    assert "karpenter-provider-aws@1d927085" in g6.source
    assert g6.as_of == date(2026, 7, 9)
    assert all(each.source and each.as_of for region in regions() for each in offerings(region))


def test_an_unknown_region_and_an_unknown_type_say_what_was_meant() -> None:
    with pytest.raises(UnknownFact, match="did you mean eu-west-1"):
        offerings("eu-west1")
    with pytest.raises(UnknownFact, match=r"did you mean g6\.xlarge"):
        instance_type("g6.xlage")


def test_an_instance_type_is_offered_once_in_a_region() -> None:
    for region in regions():
        names = [each.instance.name for each in offerings(region)]
        assert len(names) == len(set(names))
        assert {each.region for each in offerings(region)} == {region}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",0.526,0.2150,", ",0,0.2150,", r"instance_prices\.csv:2: on_demand_usd_per_hour is 0; a price is above 0"),
        (",0.526,0.2150,", ",0.526,-0.2,", r"instance_prices\.csv:2: spot_usd_per_hour is -0\.2, below 0"),
        (",0.526,0.2150,", ",half,0.2150,", r"instance_prices\.csv:2: on_demand_usd_per_hour should be a number"),
        ("us-east-1,g4dn.xlarge,", "us-east-1,,", r"instance_prices\.csv:2: instance_type is empty"),
        (
            "us-east-1,g4dn.xlarge,",
            "us-east-1,g4dm.xlarge,",
            r":2: unknown instance type 'g4dm\.xlarge'; did you mean",
        ),
    ],
)
def test_a_price_file_with_a_bad_price_or_an_unknown_type_names_the_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    shutil.copy(DATA / SPOT_RANGES, tmp_path)
    text = (DATA / INSTANCE_PRICES).read_text()
    assert old in text
    (tmp_path / INSTANCE_PRICES).write_text(text.replace(old, new, 1))
    with pytest.raises(InvalidTable, match=message):
        offerings("us-east-1", tmp_path)


def test_prices_that_siblings_of_the_family_give_are_within_a_tenth_of_a_percent() -> None:
    # Each price that was read, against us-east-1's times the median ratio of the other sizes of its family there.
    reference = {each.instance.name: each.on_demand_usd_per_hour for each in offerings("us-east-1")}
    checked = 0
    for region in regions():
        read = [each for each in offerings(region) if not each.derived and each.instance.name in reference]
        ratios = {each.instance.name: each.on_demand_usd_per_hour / reference[each.instance.name] for each in read}
        for each in read:
            family = (one.instance.name for one in read if one.instance.family == each.instance.family)
            others = [ratios[name] for name in family if name != each.instance.name]
            if region != "us-east-1" and others:
                assert ratios[each.instance.name] == pytest.approx(median(others), rel=DERIVED_ON_DEMAND_ERROR)
                checked += 1
    assert checked == 375


@pytest.mark.parametrize(
    ("name", "adapters"), [("g7e.2xlarge", 0), ("g7e.8xlarge", 1), ("p4d.24xlarge", 4), ("p5.48xlarge", 32)]
)
def test_small_sizes_have_no_elastic_fabric_adapter(name: str, adapters: int) -> None:
    """Karpenter's page of instance types, 2026-07-11."""
    assert instance_type(name).efa_interfaces == adapters
