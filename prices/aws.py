"""The calls to AWS: instance offerings, on-demand prices, spot prices, and some fixed prices.

Permissions: ``ec2:DescribeInstanceTypeOfferings``, ``ec2:DescribeSpotPriceHistory``, ``pricing:GetProducts``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol, cast

from prices.explain import explained
from prices.market import Market, PriceError
from problems import did_you_mean

#: The Price List has endpoints in few regions; this one answers for all.
_PRICE_LIST_REGION = "us-east-1"

Progress = Callable[[str], None]


class Paginator(Protocol):
    """What is used of botocore's paginators."""

    def paginate(self, **arguments: object) -> Iterable[Mapping[str, Any]]:
        """Give every page of an answer."""
        ...


class Client(Protocol):
    """What is used of botocore's clients."""

    def get_paginator(self, operation_name: str) -> Paginator:
        """Give the paginator of an operation."""
        ...


class Clients(NamedTuple):
    """The two services that know prices."""

    ec2: Client
    pricing: Client


def clients(region: str, *, attempts: int, read_timeout_s: float) -> Clients:
    """Make the clients. Nothing is called yet. Raises ``PriceError`` for a region that AWS does not have.

    ``attempts`` of each call, with growing waits between them (botocore's standard retries), when AWS is throttling.
    """
    import boto3  # noqa: PLC0415 (slow to import, and most runs read no live price)
    from botocore.config import Config  # noqa: PLC0415

    with explained(region, "credentials", PriceError):
        session = boto3.session.Session()
        known = session.get_available_regions("ec2")
        if region not in known:
            raise PriceError(f"region {region!r} is no AWS region; {did_you_mean(region, known)}")
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts}, connect_timeout=3, read_timeout=read_timeout_s
        )
        return Clients(
            cast(Client, session.client("ec2", region_name=region, config=config)),
            cast(Client, session.client("pricing", region_name=_PRICE_LIST_REGION, config=config)),
        )


def read_market(
    of: Clients,
    region: str,
    types: Sequence[str],
    now: datetime,
    progress: Progress = lambda _: None,
    *,
    fixed: bool = True,
) -> Market:
    """Read what a region offers of ``types`` and at which prices, and with ``fixed`` the fixed ones. Raises
    ``PriceError``.

    ``progress`` is told before each page what is read; it may raise to give up.
    """
    zones = _zones(of.ec2, region, types, progress)
    if not zones:
        raise PriceError(f"region {region}: AWS offers none of the {len(types)} instance types that are known here")
    spot = _spot(of.ec2, region, sorted(zones), now, progress)
    on_demand = _on_demand(of.pricing, region, set(types), progress)
    other = _fixed(of.pricing, region, progress) if fixed else {}
    return Market(region, now.date(), zones, on_demand, spot, other)


def _zones(ec2: Client, region: str, types: Sequence[str], progress: Progress) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    pages = _pages(
        ec2,
        region,
        "ec2:DescribeInstanceTypeOfferings",
        "describe_instance_type_offerings",
        progress,
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": list(types)}],
    )
    for page in pages:
        for offering in page["InstanceTypeOfferings"]:
            if _is_zone(region, offering["Location"]):
                found.setdefault(offering["InstanceType"], set()).add(offering["Location"])
    return {instance_type: frozenset(places) for instance_type, places in found.items()}


def _is_zone(region: str, place: str) -> bool:
    """Local Zones (``us-east-1-atl-2a``) and Wavelength Zones have longer names and other prices."""
    return re.fullmatch(re.escape(region) + "[a-z]", place) is not None


def _spot(
    ec2: Client, region: str, types: Sequence[str], now: datetime, progress: Progress
) -> dict[str, dict[str, float]]:
    """The price now in every zone: history from now on gives the last price before it."""
    newest: dict[tuple[str, str], tuple[datetime, float]] = {}
    pages = _pages(
        ec2,
        region,
        "ec2:DescribeSpotPriceHistory",
        "describe_spot_price_history",
        progress,
        InstanceTypes=list(types),
        ProductDescriptions=["Linux/UNIX"],
        StartTime=now,
    )
    for page in pages:
        for entry in page["SpotPriceHistory"]:
            zone, instance_type = entry["AvailabilityZone"], entry["InstanceType"]
            if not _is_zone(region, zone):
                continue
            price = _usd(entry["SpotPrice"], f"spot price of {instance_type} in {zone}")
            before = newest.get((instance_type, zone))
            if before is None or entry["Timestamp"] > before[0]:
                newest[instance_type, zone] = (entry["Timestamp"], price)
    spot: dict[str, dict[str, float]] = {}
    for (instance_type, zone), (_, price) in newest.items():
        spot.setdefault(instance_type, {})[zone] = price
    return spot


def _on_demand(pricing: Client, region: str, types: set[str], progress: Progress) -> dict[str, float]:
    """Linux, shared tenancy, nothing installed: Karpenter's filters (its ``pkg/providers/pricing``)."""
    filters = {
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
        "productFamily": "Compute Instance",
    }
    found: dict[str, set[float]] = {}
    for product in _products(pricing, region, "AmazonEC2", filters, progress):
        name = product["product"]["attributes"].get("instanceType", "")
        if name in types:
            found.setdefault(name, set()).update(_unit_prices(product, f"on-demand price of {name}"))
    several = {name: sorted(prices) for name, prices in found.items() if len(prices) != 1}
    if several:
        named = "; ".join(f"{name}: {', '.join(f'{usd:g}' for usd in usd_s)}" for name, usd_s in several.items())
        raise PriceError(f"the Price List gives {region} not one on-demand price a type, but {named}")
    return {name: next(iter(prices)) for name, prices in found.items()}


#: Fixed prices as Infracost filters them (its ``internal/resources/aws`` at 95ba4f49): service, product family, further
#: attribute, and the usage type after its region's prefix.
_FIXED_PRODUCTS: Mapping[str, tuple[str, str, Mapping[str, str], str]] = {
    "nat_gateway": ("AmazonEC2", "NAT Gateway", {}, "NatGateway-Hours"),
    "nat_gateway_data": ("AmazonEC2", "NAT Gateway", {}, "NatGateway-Bytes"),
    "alb": ("AWSELB", "Load Balancer-Application", {"locationType": "AWS Region"}, "LoadBalancerUsage"),
    "alb_lcu": ("AWSELB", "Load Balancer-Application", {"locationType": "AWS Region"}, "LCUUsage"),
    "ebs_gp3_storage": ("AmazonEC2", "Storage", {"volumeApiName": "gp3"}, "EBS:VolumeUsage.gp3"),
    "eks_control_plane_standard": ("AmazonEKS", "Compute", {}, "AmazonEKS-Hours:perCluster"),
}


def _fixed(pricing: Client, region: str, progress: Progress) -> dict[str, float]:
    """Items for which the Price List has exactly one price above 0; the others stay as they are."""
    answers: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    prices: dict[str, float] = {}
    for item, (service, family, further, usage) in _FIXED_PRODUCTS.items():
        key = (service, family)
        if key not in answers:
            filters = {"regionCode": region, "productFamily": family, **further}
            answers[key] = list(_products(pricing, region, service, filters, progress))
        usage_type = re.compile(rf"(?:(?:EU|[A-Z]+\d+)-)?{re.escape(usage)}")
        matching = [
            product
            for product in answers[key]
            if usage_type.fullmatch(product["product"]["attributes"].get("usagetype", ""))
        ]
        try:
            found = {usd for product in matching for usd in _unit_prices(product, item)}
        except PriceError:
            continue
        if len(found) == 1:
            prices[item] = found.pop()
    return prices


def _products(
    pricing: Client, region: str, service: str, filters: Mapping[str, str], progress: Progress
) -> Iterator[Mapping[str, Any]]:
    pages = _pages(
        pricing,
        region,
        "pricing:GetProducts",
        "get_products",
        progress,
        ServiceCode=service,
        Filters=[{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters.items()],
    )
    for page in pages:
        for text in page["PriceList"]:
            yield json.loads(text)


def _unit_prices(product: Mapping[str, Any], what: str) -> set[float]:
    """The different USD prices of a product's on-demand terms."""
    return {
        _usd(dimension["pricePerUnit"].get("USD", ""), what)
        for term in product["terms"].get("OnDemand", {}).values()
        for dimension in term["priceDimensions"].values()
    }


def _usd(text: str, what: str) -> float:
    try:
        usd = float(text)
    except ValueError:
        raise PriceError(f"AWS gives {text!r} as {what}, which is no number of USD") from None
    if not 0 < usd < float("inf"):
        raise PriceError(f"AWS gives {text} as {what}; a price is above 0")
    return usd


def _pages(
    client: Client, region: str, permission: str, operation: str, progress: Progress, **arguments: object
) -> Iterator[Mapping[str, Any]]:
    number = 1
    progress(f"{permission}, page {number}")
    with explained(region, permission, PriceError):
        for page in client.get_paginator(operation).paginate(**arguments):
            yield page
            number += 1
            progress(f"{permission}, page {number}")
