"""Zones and addresses of the VPC."""

from __future__ import annotations

import ipaddress

from planning.plan import ExistingVpc, NetworkPlan, OidcPlan
from planning.private_endpoints import interface_endpoints
from problems import NAMESPACE, Problem
from settings import Network

#: Letters of three zones that new accounts see, where they are not a, b, c. AWS documentation, recalled, not verified;
#: ``network.zones`` overrides it. us-west-1 gives new accounts two zones only.
_ZONE_LETTERS = {"ca-central-1": "abd", "ap-northeast-1": "acd", "us-west-1": "ac"}

_MOST_ZONES = 3

#: What EKS takes for Services where nobody says: one of the two, so that it does not overlap the VPC (Amazon EKS API,
#: KubernetesNetworkConfigRequest). No VPC is large enough to overlap both.
_SERVICE_BLOCKS = ("172.20.0.0/16", "10.100.0.0/16")

#: The bridge of Docker on nodes that have it; Amazon EKS' network requirements advise against an overlap: "no route to
#: host" for what lies behind it.
_DOCKER_BRIDGE = ipaddress.IPv4Network("172.17.0.0/16")

#: Overlaps nothing of AWS' or Kubernetes'.
_FREE_BLOCK = ipaddress.IPv4Network("10.42.0.0/16")

#: Prefix lengths. AWS allows no VPC above /16; below /20 a quarter has no room for pods. A VPC of one's own must hold
#: two subnets of /27, the least in which AWS puts a load balancer.
_OWN_BLOCK, _EXISTING_BLOCK = (16, 20), (16, 26)

#: The VPC CNI keeps a spare interface full of addresses on each node (its default WARM_ENI_TARGET of 1), so that a node
#: takes up to two; an interface of the largest types has 50.
_ADDRESSES_PER_NODE = 100

#: AWS keeps five addresses of every subnet.
_RESERVED_ADDRESSES = 5


def addresses_of(nodes: int) -> int:
    """Most addresses of the private subnets that so many nodes take with their pods."""
    return nodes * _ADDRESSES_PER_NODE


def zones_of(region: str, settings: Network) -> tuple[str, ...]:
    """The zones of the stack: as set, or three of the region."""
    return settings.zones or tuple(region + letter for letter in _ZONE_LETTERS.get(region, "abc"))


def service_cidr(vpc_cidr: str) -> str:
    """The block of Kubernetes Services that does not overlap the VPC's."""
    vpc = ipaddress.IPv4Network(vpc_cidr)
    return next(block for block in _SERVICE_BLOCKS if not ipaddress.IPv4Network(block).overlaps(vpc))


def network_problems(region: str, settings: Network, least_zones: int) -> list[Problem]:
    """Everything that AWS or the cluster would refuse of zones, blocks and a VPC of one's own.

    ``least_zones``: for EKS and for the replicas that must be apart. Whether a zone has the GPUs is not known here: the
    facts hold offerings by region.
    """
    return [
        *_zone_problems(region, settings, least_zones),
        *_block_problems(settings),
        *_existing_vpc_problems(settings),
    ]


def _zone_problems(region: str, settings: Network, least: int) -> list[Problem]:
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
                "name each zone once" if len(set(settings.zones)) <= _MOST_ZONES else f"name {_MOST_ZONES} of them",
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


def _block_problems(settings: Network) -> list[Problem]:
    path, vpc = f"{NAMESPACE}:network.vpcCidr", ipaddress.IPv4Network(settings.vpc_cidr)
    problems: list[Problem] = []
    shortest, longest = _OWN_BLOCK if settings.vpc_id is None else _EXISTING_BLOCK
    if not shortest <= vpc.prefixlen <= longest:
        why = "AWS allows no VPC above /16, and pods take their addresses from it"
        near = ipaddress.IPv4Network((vpc.network_address, max(shortest, min(longest, vpc.prefixlen))), strict=False)
        near = _FREE_BLOCK if near.overlaps(_DOCKER_BRIDGE) else near
        limit = f"must be a /{shortest} to /{longest}: {why}"
        problems.append(Problem(path, settings.vpc_cidr, limit, f"the nearest that works is {near}"))
    if vpc.overlaps(_DOCKER_BRIDGE):
        limit = f"overlaps {_DOCKER_BRIDGE}, the bridge of Docker on a node, behind which nothing is reached"
        problems.append(Problem(path, settings.vpc_cidr, limit, f"choose another block, for example {_FREE_BLOCK}"))
    return problems


def _existing_vpc_problems(settings: Network) -> list[Problem]:
    subnets = {"privateSubnetIds": settings.private_subnet_ids, "publicSubnetIds": settings.public_subnet_ids}
    path = f"{NAMESPACE}:network"
    if settings.vpc_id is None:
        return [
            Problem(f"{path}.{key}", list(ids), "are subnets of a VPC of your own", f"name it: {path}.vpcId")
            for key, ids in subnets.items()
            if ids
        ]
    given = settings.model_fields_set
    needed = {
        "vpc_cidr": ("vpcCidr", "its block is needed for network policies and against overlaps"),
        "zones": ("zones", "name the zone of each subnet, in their order"),
        "private_subnet_ids": ("privateSubnetIds", "nodes and pods need one in each zone"),
    }
    problems = [
        Problem(f"{path}.{key}", None, f"is missing beside vpcId: {why}", "add it")
        for field, (key, why) in needed.items()
        if field not in given
    ]
    if "nat_gateways" in given or settings.private_endpoints:
        key = "natGateways" if "nat_gateways" in given else "privateEndpoints"
        limit = "says nothing with vpcId: your VPC has its own ways out, and the stack makes none in it"
        problems.append(Problem(f"{path}.{key}", None, limit, "leave it out"))
    if settings.ingress_scheme == "internet-facing" and not settings.public_subnet_ids:
        limit = "is missing: an internet-facing load balancer stands in public subnets"
        problems.append(Problem(f"{path}.publicSubnetIds", None, limit, "add one for each zone"))
    for key, ids in subnets.items():
        if ids and (len(ids) != len(settings.zones) or len(set(ids)) < len(ids)):
            limit = f"{len(settings.zones)} zones need as many different subnets, one in each"
            problems.append(Problem(f"{path}.{key}", list(ids), limit, "name them in the order of zones"))
    both = sorted(set(settings.private_subnet_ids) & set(settings.public_subnet_ids))
    if both:
        limit = "is both private and public: nodes have no public addresses, so they need a subnet behind NAT"
        problems.append(Problem(f"{path}.publicSubnetIds", both[0], limit, "give each kind its own"))
    return problems


def network_plan(region: str, settings: Network) -> NetworkPlan:
    """Cut the VPC: a quarter of it for the pods of each zone, the public subnets out of the last quarter.

    Pods take VPC addresses, so private subnets are as large as can be; a public subnet holds a NAT gateway and load
    balancer nodes only (AWS wants a /27 at least). A VPC of one's own is left as it is.
    """
    zones, vpc = zones_of(region, settings), ipaddress.IPv4Network(settings.vpc_cidr)
    if settings.vpc_id is not None:
        existing = ExistingVpc(settings.vpc_id, settings.private_subnet_ids, settings.public_subnet_ids)
        return NetworkPlan(str(vpc), zones, (), (), 0, (), existing, _oidc(settings))
    quarters = list(vpc.subnets(prefixlen_diff=2))
    public = list(quarters[3].subnets(prefixlen_diff=4))
    return NetworkPlan(
        vpc_cidr=str(vpc),
        zones=zones,
        public_cidrs=tuple(str(block) for block in public[: len(zones)]),
        private_cidrs=tuple(str(block) for block in quarters[: len(zones)]),
        nat_gateways=len(zones) if settings.nat_gateways == "per-zone" else 1,
        interface_endpoints=interface_endpoints(region, len(zones), private=settings.private_endpoints),
        oidc=_oidc(settings),
    )


def _oidc(settings: Network) -> OidcPlan | None:
    wanted = settings.oidc
    if wanted is None:
        return None
    return OidcPlan(
        issuer=wanted.issuer,
        authorization_endpoint=wanted.authorization_endpoint,
        token_endpoint=wanted.token_endpoint,
        user_info_endpoint=wanted.user_info_endpoint,
        secret_name=wanted.secret_name,
        scope=wanted.scope,
        session_s=round(3600 * wanted.session_hours),
        on_unauthenticated=wanted.on_unauthenticated,
    )


def address_problem(network: NetworkPlan, nodes: int) -> Problem | None:
    """The block that is too small for ``nodes`` at once, with the nearest that is not.

    The private subnets of a VPC that is there have at most all of its block: their sizes are not known here.
    """
    vpc, zones = ipaddress.IPv4Network(network.vpc_cidr), len(network.zones)
    needed = nodes * _ADDRESSES_PER_NODE

    def room(prefix: int) -> int:
        subnets = 2 ** (32 - prefix) if network.existing else zones * 2 ** (32 - prefix - 2)
        return subnets - zones * _RESERVED_ADDRESSES

    if needed <= room(vpc.prefixlen):
        return None
    larger = [prefix for prefix in range(vpc.prefixlen - 1, _OWN_BLOCK[0] - 1, -1) if needed <= room(prefix)]
    hold, choose = ("can hold at most", "bring subnets of") if network.existing else ("hold", "choose")
    return Problem(
        f"{NAMESPACE}:network.vpcCidr",
        network.vpc_cidr,
        f"the private subnets {hold} {room(vpc.prefixlen):,} addresses; {nodes} nodes, which the stack may grow to, "
        f"take up to {needed:,}",
        f"{choose} a /{larger[0]}"
        if larger
        else "lower maxReplicas or budget.monthlyUsd: no block of a VPC is larger than a /16",
    )
