"""Which AWS services get an interface endpoint: those whose traffic through NAT costs more than the endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from planning.facts.fixed_prices import fixed_price
from planning.traffic import HOURS_PER_MONTH


@dataclass(frozen=True, slots=True)
class Service:
    """An AWS service that nodes and controllers call."""

    name: str
    """As in the endpoint's name ``com.amazonaws.<region>.<name>``."""
    most_gb_per_month: float
    """Upper bound of what flows to and from it; assumed, not measured."""
    why: str
    """What the bound counts."""


# Weights and the layers of ECR's images flow through the S3 gateway endpoint, which is free; images of other registries
# come from the internet. What is left are API calls. Logs of the control plane do not leave from the VPC.
SERVICES = (
    Service("ec2", 45.0, "Karpenter's and the CNI's calls: 1 MB every minute is 44 GB"),
    Service("ecr.api", 5.0, "tokens: 100 KB for each of 50,000 node starts"),
    Service("ecr.dkr", 10.0, "manifests of the add-ons' images: 200 KB for each of 50,000 node starts"),
    Service("eks", 5.0, "Karpenter's and joining nodes' calls: 100 KB for each of 50,000"),
    Service("eks-auth", 5.0, "credentials: 10 KB an hour for each of 500 pods are 4 GB"),
    Service("elasticloadbalancing", 5.0, "the load balancer controller: 100 KB every minute are 4 GB"),
    Service("sqs", 1.0, "Karpenter's queue: a poll of 5 KB every 20 s is 0.7 GB"),
    Service("sts", 1.0, "nothing here assumes a role by itself: Pod Identity goes to eks-auth"),
)


def endpoint_usd(region: str, zones: int, gb_per_month: float) -> float:
    """A month of one service's endpoint with an interface in each zone, USD: hours and data."""
    hours = zones * HOURS_PER_MONTH * fixed_price(region, "vpc_interface_endpoint").usd
    return hours + gb_per_month * fixed_price(region, "vpc_interface_endpoint_data").usd


def nat_usd(region: str, gb_per_month: float) -> float:
    """The same traffic through a NAT gateway that is there anyway, USD."""
    return gb_per_month * fixed_price(region, "nat_gateway_data").usd


def interface_endpoints(
    region: str, zones: int, *, private: bool, services: tuple[Service, ...] = SERVICES
) -> tuple[str, ...]:
    """The services whose endpoint pays even at the most that may flow; with ``private`` all of them."""
    return tuple(
        service.name
        for service in services
        if private
        or endpoint_usd(region, zones, service.most_gb_per_month) < nat_usd(region, service.most_gb_per_month)
    )
