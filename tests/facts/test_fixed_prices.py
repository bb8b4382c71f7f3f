"""Prices besides instances, against AWS's price list, and how missing ones are derived."""

from __future__ import annotations

from pathlib import Path

import pytest

from planning.facts.fixed_prices import fixed_items, fixed_price, read_fixed_prices, stand_in_band
from planning.facts.instances import regions
from planning.facts.table import DATA, InvalidTable, UnknownFact


@pytest.mark.parametrize(
    ("item", "usd"),
    [
        ("eks_control_plane_standard", 0.10),
        ("nat_gateway", 0.045),
        ("nat_gateway_data", 0.045),
        ("alb", 0.0225),
        ("ebs_gp3_storage", 0.08),
        ("public_ipv4", 0.005),
        ("s3_standard_storage", 0.023),
        ("vpc_gateway_endpoint_s3", 0.0),
    ],
)
def test_us_east_1_is_the_price_list(item: str, usd: float) -> None:
    price = fixed_price("us-east-1", item)
    assert price.usd == usd
    assert not price.substituted


def test_a_month_of_control_plane_costs_73_dollars() -> None:
    assert fixed_price("us-east-1", "eks_control_plane_standard").usd * 730 == pytest.approx(73.0)
    assert fixed_price("us-east-1", "eks_control_plane_extended").usd * 730 == pytest.approx(438.0)


def test_a_price_that_was_read_for_the_region_is_used() -> None:
    frankfurt = fixed_price("eu-central-1", "ebs_gp3_storage")
    assert (frankfurt.usd, frankfurt.substituted) == (0.0952, False)


def test_a_missing_price_is_the_reference_times_the_regions_ratio_and_says_so() -> None:
    # Tokyo's NAT gateway costs 0.062, 1.378 x us-east-1's 0.045; gp3 there was not read.
    tokyo = fixed_price("ap-northeast-1", "ebs_gp3_storage")
    assert tokyo.usd == pytest.approx(0.08 * 0.062 / 0.045)
    assert tokyo.substituted
    assert tokyo.region == "ap-northeast-1"
    assert "1.378, the ratio of nat_gateway" in tokyo.source


def test_a_load_balancer_unit_follows_the_load_balancer() -> None:
    # Frankfurt's ALB is 0.027 an hour, 1.2 x us-east-1's.
    assert fixed_price("eu-central-1", "alb_lcu").usd == pytest.approx(0.008 * 1.2)


def test_prices_that_are_equal_everywhere_are_not_scaled() -> None:
    paris = fixed_price("eu-west-3", "eks_control_plane_standard")
    assert (paris.usd, paris.substituted) == (0.10, True)
    assert fixed_price("eu-west-3", "public_ipv4").usd == 0.005


def test_spain_has_no_prices_of_its_own_and_takes_irelands() -> None:
    spain = fixed_price("eu-south-2", "nat_gateway")
    assert (spain.usd, spain.region, spain.substituted) == (0.048, "eu-south-2", True)
    assert spain.source.startswith("eu-west-1's: ")


def test_every_item_has_a_price_in_every_region_that_has_instances() -> None:
    for region in regions():
        for item in fixed_items():
            price = fixed_price(region, item)
            reference = fixed_price("us-east-1", item).usd
            # The widest ratio among prices that were read is 4.9, of transfer from Sydney to another region.
            assert reference <= price.usd <= reference * 5, (region, item)
            assert (price.region, price.item) == (region, item)


def test_an_unknown_region_or_item_says_what_was_meant() -> None:
    with pytest.raises(UnknownFact, match="did you mean us-east-1"):
        fixed_price("us-east1", "alb")
    with pytest.raises(UnknownFact, match="did you mean nat_gateway"):
        fixed_price("us-east-1", "natgateway")


def test_the_band_of_derived_prices_holds_eight_of_ten_that_were_read_beside_their_stand_in() -> None:
    low, high = stand_in_band()
    assert 0.5 < low < 1 < high < 1.5
    # Seoul's ALB costs what us-east-1's does while its NAT costs 1.31 x: the worst case, outside the band.
    assert low > 0.0225 / (0.0225 * 0.059 / 0.045)
    # Frankfurt's gp3 is 1.03 x what its NAT would give: inside.
    assert low < 0.0952 / (0.08 * 0.052 / 0.045) < high


def test_a_price_read_or_equal_everywhere_is_a_point_and_a_derived_one_has_the_band() -> None:
    assert fixed_price("eu-central-1", "ebs_gp3_storage").band == (1.0, 1.0)
    assert fixed_price("eu-west-3", "eks_control_plane_standard").band == (1.0, 1.0)
    assert fixed_price("ap-northeast-1", "ebs_gp3_storage").band == stand_in_band()
    assert fixed_price("eu-south-2", "nat_gateway").band == stand_in_band()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("us-east-1,alb,hour,0.0225", "us-east-1,alb,hour,0", r"fixed_prices\.csv:2: usd is 0; a price is above 0"),
        ("us-east-1,alb,hour,0.0225", "us-east-1,alb,hour,-1", r"fixed_prices\.csv:2: usd is -1, below 0"),
        ("us-east-1,alb,hour,0.0225", "us-east-1,alb,hour,free", r"fixed_prices\.csv:2: usd should be a number"),
        ("us-east-1,alb,hour", "us-east-1,albs,hour", r"fixed_prices\.csv:2: unknown fixed price 'albs'; did you mean"),
        ("us-east-1,nat_gateway,", "us-west-9,nat_gateway,", r"us-east-1 has no row for item nat_gateway"),
    ],
)
def test_a_price_file_with_a_bad_price_or_without_an_item_names_the_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (DATA / "fixed_prices.csv").read_text()
    assert old in text
    broken = tmp_path / "fixed_prices.csv"
    broken.write_text(text.replace(old, new))
    with pytest.raises(InvalidTable, match=message):
        read_fixed_prices(broken)
