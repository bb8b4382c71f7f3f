"""Zones and addresses of the VPC."""

from __future__ import annotations

import ipaddress

from planning.plan import NetworkPlan
from settings import NAMESPACE, Network, Problem

#: Letters of three zones that new accounts see, where they are not a, b, c. AWS documentation, recalled, not verified;
#: ``network.zones`` overrides it. us-west-1 gives new accounts two zones only.
_ZONE_LETTERS = {"ca-central-1": "abd", "ap-northeast-1": "acd", "us-west-1": "ac"}


_MOST_ZONES = 3


def zones_of(region: str, settings: Network) -> tuple[str, ...]:
    """The zones of the stack: as set, or three of the region."""
    return settings.zones or tuple(region + letter for letter in _ZONE_LETTERS.get(region, "abc"))


def zone_problems(region: str, settings: Network, least: int) -> list[Problem]:
    """Zones of another region, twice the same, or too few for EKS and for the replicas that must be apart."""
    problems = [
        Problem(f"{NAMESPACE}:network.zones[{position}]", zone, f"is no zone of {region}", f"for example {region}a")
        for position, zone in enumerate(settings.zones)
        if not zone.startswith(region) or len(zone) != len(region) + 1
    ]
    if len(settings.zones) > _MOST_ZONES or len(set(settings.zones)) < len(settings.zones):
        problems.append(
            Problem(
                f"{NAMESPACE}:network.zones",
                list(settings.zones),
                f"at most {_MOST_ZONES} different zones: each takes a quarter of the VPC, the last quarter is public",
                "name each zone once",
            )
        )
    if settings.zones and len(set(settings.zones)) < least:
        problems.append(
            Problem(
                f"{NAMESPACE}:network.zones",
                list(settings.zones),
                f"EKS and replicas apart from each other need {least} different zones",
                "name more zones or leave the key out",
            )
        )
    return problems


def network_plan(region: str, settings: Network) -> NetworkPlan:
    """Cut the VPC: a quarter of it for the pods of each zone, the public subnets out of the last quarter.

    Pods take VPC addresses, so private subnets are as large as can be; a public subnet holds a NAT gateway and load
    balancer nodes only (AWS wants a /27 at least).
    """
    zones = zones_of(region, settings)
    vpc = ipaddress.IPv4Network(settings.vpc_cidr, strict=False)
    quarters = list(vpc.subnets(prefixlen_diff=2))
    public = list(quarters[3].subnets(prefixlen_diff=4))
    return NetworkPlan(
        vpc_cidr=str(vpc),
        zones=zones,
        public_cidrs=tuple(str(block) for block in public[: len(zones)]),
        private_cidrs=tuple(str(block) for block in quarters[: len(zones)]),
        nat_gateways=len(zones) if settings.nat_gateways == "per-zone" else 1,
        # Images come from registries outside AWS and weights through the free S3 gateway endpoint: nothing flows to an
        # AWS service that an interface endpoint (7.30 USD a month and zone) would carry for less than NAT.
        interface_endpoints=(),
    )
