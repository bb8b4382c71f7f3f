"""Prices of everything that is no instance: control plane, NAT, load balancer, disks, traffic, logs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from types import MappingProxyType

from planning.facts.instances import regions
from planning.facts.table import DATA, InvalidCell, InvalidTable, Problem, Row, UnknownFact, read_table

#: AWS counts storage and transfer in units of 2^30 bytes: S3's FAQ bills 10 TB as 10,995,116,277,760 bytes, and a
#: volume of 40 GiB is 40 GB-months (aws_ebs_volume in infracost's golden files).
BILLED_GB_PER_GB = 1e9 / 2**30

REFERENCE_REGION = "us-east-1"
"""Every item has a price here."""

# A price that was not read for a region is us-east-1's times the regional ratio of a price that was. Which price stands
# in is chosen by what the two regions with both show: Frankfurt's gp3 is 1.19 x us-east-1's and its NAT 1.16 x, but its
# S3 1.07 x; Tokyo's log ingestion is 1.52 x (NAT 1.38 x) and its log storage 1.10 x (S3 1.09 x). None: the same price
# everywhere.
_STANDS_IN: Mapping[str, str | None] = {
    "alb": "nat_gateway",
    "alb_lcu": "alb",
    "cloudwatch_logs_ingest": "nat_gateway",
    "cloudwatch_logs_insights_scan": "cloudwatch_logs_ingest",
    "cloudwatch_logs_storage": "s3_standard_storage",
    "data_transfer_inter_az": None,
    "data_transfer_internet_out": None,
    "data_transfer_other_region_out": None,
    "ebs_gp3_iops_over_3000": "ebs_gp3_storage",
    "ebs_gp3_storage": "nat_gateway",
    "ebs_gp3_throughput_over_125": "ebs_gp3_storage",
    "eks_auto_mode_markup": None,
    "eks_control_plane_extended": None,
    "eks_control_plane_standard": None,
    "kms_key": None,
    "nat_gateway": None,
    "nat_gateway_data": "nat_gateway",
    "nlb": "alb",
    "nlb_lcu": "alb_lcu",
    "public_ipv4": None,
    "s3_get_requests": "s3_standard_storage",
    "s3_put_requests": "s3_standard_storage",
    "s3_standard_storage": "nat_gateway",
    "vpc_gateway_endpoint_s3": None,
    "vpc_interface_endpoint": "nat_gateway",
    "vpc_interface_endpoint_data": None,
}

# A region with no fixed prices at all takes a neighbour's: Spain's C7g, M7g and M7i cost what Ireland's do, to 0.1 %.
_NEIGHBOUR = {"eu-south-2": "eu-west-1"}

# What costs the same in every region that was read. NAT gateways and transfer do not, and have no stand-in: a region
# whose own price was not read takes us-east-1's for them, with the band of derived prices.
_SAME_EVERYWHERE = frozenset(
    {
        "data_transfer_inter_az",
        "eks_auto_mode_markup",
        "eks_control_plane_extended",
        "eks_control_plane_standard",
        "kms_key",
        "public_ipv4",
        "vpc_gateway_endpoint_s3",
        "vpc_interface_endpoint_data",
    }
)

_FREE = frozenset({"vpc_gateway_endpoint_s3"})


@dataclass(frozen=True, slots=True)
class FixedPrice:
    """A list price."""

    item: str
    unit: str
    """What ``usd`` buys: ``hour``, ``GB processed``, ``GB-month``, … AWS counts a GB as 2^30 bytes."""
    usd: float
    region: str
    """The region asked for, also when the price is substituted."""
    source: str
    as_of: date | None
    """None: the source has no date."""
    substituted: bool
    """Derived from another region's price, because the region's own was not read; ``source`` says how."""
    band: tuple[float, float] = (1.0, 1.0)
    """Where the true price lies over ``usd``, 80 % band: wider than a point only for a price that a ratio gave."""


def fixed_items() -> tuple[str, ...]:
    """The names of all items."""
    return tuple(_read()[REFERENCE_REGION])


@cache
def fixed_price(region: str, item: str) -> FixedPrice:
    """The item's price in the region; derived and marked ``substituted`` when it was not read.

    Raises ``UnknownFact`` of kind ``region`` or ``fixed price``, and ``InvalidTable``.
    """
    prices = _read()
    if region not in prices and region not in regions():
        raise UnknownFact("region", region, regions())
    if item not in prices[REFERENCE_REGION]:
        raise UnknownFact("fixed price", item, prices[REFERENCE_REGION])
    own = prices.get(region, {}).get(item)
    if own is not None:
        return own
    if region in _NEIGHBOUR:
        neighbour = fixed_price(_NEIGHBOUR[region], item)
        source = f"{neighbour.region}'s: {neighbour.source}"
        return replace(neighbour, region=region, source=source, substituted=True, band=_band(item))
    return _substitute(region, prices[REFERENCE_REGION][item])


def _substitute(region: str, reference: FixedPrice) -> FixedPrice:
    stand_in = _STANDS_IN.get(reference.item)
    if stand_in is None:
        source = f"{REFERENCE_REGION}'s, taken as the same everywhere: {reference.source}"
        return replace(reference, region=region, source=source, substituted=True, band=_band(reference.item))
    ratio = fixed_price(region, stand_in).usd / fixed_price(REFERENCE_REGION, stand_in).usd
    source = f"{REFERENCE_REGION}'s x {ratio:.3f}, the ratio of {stand_in}: {reference.source}"
    return replace(
        reference,
        region=region,
        usd=reference.usd * ratio,
        source=source,
        substituted=True,
        band=_band(reference.item),
    )


def _band(item: str) -> tuple[float, float]:
    """80 % band of a price over the one that a ratio gives it; a point for what costs the same everywhere."""
    return (1.0, 1.0) if item in _SAME_EVERYWHERE else stand_in_band()


@cache
def stand_in_band() -> tuple[float, float]:
    """How far the ratio of a stand-in is off: the first and last decile of price over derived price.

    Over every item and region that were read together with their stand-in. No such price has a part in its own
    derivation, so each is a case that was left out. Prices that a source took from their stand-in prove nothing.
    """
    prices = _read()
    ratios: list[float] = []
    for region, items in prices.items():
        for item, price in items.items():
            stand_in = _STANDS_IN[item]
            if region == REFERENCE_REGION or stand_in not in items or price.source.startswith("assumed"):
                continue
            reference = prices[REFERENCE_REGION]
            derived = reference[item].usd * items[stand_in].usd / reference[stand_in].usd
            ratios.append(price.usd / derived)
    if len(ratios) < _LEAST_RATIOS:
        return 1.0, 1.0
    deciles = statistics.quantiles(ratios, n=10, method="inclusive")
    return min(1.0, deciles[0]), max(1.0, deciles[-1])


_LEAST_RATIOS = 10


def read_fixed_prices(path: Path = DATA / "fixed_prices.csv") -> Mapping[str, Mapping[str, FixedPrice]]:
    """The file at ``path`` by region, then item.

    Raises ``InvalidTable`` for cells that are no prices, items that nobody asks for, and items missing in the reference
    region; ``OSError``.
    """
    by_region: dict[str, dict[str, FixedPrice]] = {}
    for price in read_table(path, _COLUMNS, _fixed_price):
        by_region.setdefault(price.region, {})[price.item] = price
    missing = [item for item in _STANDS_IN if item not in by_region.get(REFERENCE_REGION, {})]
    if missing:
        problems = (Problem(1, f"{REFERENCE_REGION} has no row for item {item}") for item in missing)
        raise InvalidTable(path, tuple(problems))
    return MappingProxyType(by_region)


@cache
def _read() -> Mapping[str, Mapping[str, FixedPrice]]:
    return read_fixed_prices()


_COLUMNS = ("region", "item", "unit", "usd", "source", "as_of")


def _fixed_price(row: Row) -> FixedPrice:
    item = row.name("item")
    if item not in _STANDS_IN:
        raise InvalidCell(str(UnknownFact("fixed price", item, _STANDS_IN)))
    return FixedPrice(
        item=item,
        unit=row.name("unit"),
        usd=row.number("usd") if item in _FREE else row.price("usd"),
        region=row.name("region"),
        source=row.name("source"),
        as_of=row.date("as_of"),
        substituted=False,
    )
