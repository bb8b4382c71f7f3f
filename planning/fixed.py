"""What the stack costs without a single model node: control plane, system nodes, network, disks, logs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from planning.cluster import system_architectures
from planning.facts.eks_versions import KUBERNETES_VERSION, eks_version
from planning.facts.fixed_prices import BILLED_GB_PER_GB, REFERENCE_REGION, fixed_price
from planning.facts.instances import DERIVED_ON_DEMAND_ERROR, Offering
from planning.plan import CostItem, ModelRouterPlan, RouterPlan, SystemNodesPlan
from planning.price_dates import PriceUse
from planning.system_pods import DAEMONS, SYSTEM_PODS
from planning.traffic import DAYS_PER_MONTH, HOURS_PER_MONTH

SYSTEM_VOLUME_GIB = 50

#: General purpose, the one on Graviton and the one on x86.
SYSTEM_FAMILIES = ("m7g", "m7i")

#: Assumptions of this program, not measured: control plane logs of a quiet cluster, and bytes on the wire of a token in
#: a request (UTF-8 English) and in a streamed answer (one server-sent event a token).
LOG_GB_PER_MONTH = 10.0
BYTES_PER_INPUT_TOKEN, BYTES_PER_OUTPUT_TOKEN = 4.5, 250.0

#: Assumption, not measured: what one system node pulls once through NAT, of Karpenter, KEDA, Prometheus, Grafana,
#: Envoy, the picker, the EKS add-ons and the AWS CLI.
SYSTEM_IMAGES_GB = 3.0

#: One LCU is 1 GB an hour, or 25 new connections a second, or 3,000 open ones (AWS Elastic Load Balancing pricing):
#: with a connection for each request, open ones bind only for answers that take over 3,000 / 25 = 120 s on average.
_LCU_GB_PER_HOUR, _LCU_CONNECTIONS_PER_SECOND = 1.0, 25.0

#: A file goes to the bucket in parts of 8 MiB (the AWS CLI's default), each one request; an engine reads about as much
#: at once.
_PART_BYTES = 8 * 2**20

#: Days that a block of the shared KV store is paid for: a rule of one day acts at the midnight after, so in 1.5 days on
#: average, and the version that it leaves behind goes by the same rule.
_KV_DAYS_KEPT = 2 * 1.5

#: Tokens of one object of the shared KV store: vLLM's default block. That a replica's ranks share it is assumed.
_KV_TOKENS_PER_OBJECT = 16


def router_plan(peak_requests_per_second: float, concurrency: float) -> RouterPlan:
    """Size a tier's router: bounds on held requests, and what Envoy and the picker request.

    Held requests cover a minute of the peak, at least 100; bodies of 64 KiB on average bound their memory. Envoy 1.40
    took 64 MiB, and 46 KiB more for each request it held, of 16 or of 60 KiB; twice the one and 64 KiB are planned.
    """
    held = max(100, math.ceil(peak_requests_per_second * 60))
    held_mib = max(64, math.ceil(held * 64 / 1024))
    return RouterPlan(
        envoy_cpu_millicores=100 + math.ceil(peak_requests_per_second),
        envoy_memory_mib=128 + held_mib,
        picker_cpu_millicores=150 + 2 * math.ceil(peak_requests_per_second),
        picker_memory_mib=256 + held_mib,
        max_held_requests=held,
        max_held_bytes_mib=held_mib,
        queue_depth_threshold=max(4, math.ceil(concurrency / 4)),
    )


def system_nodes(
    routers: tuple[RouterPlan, ...], offerings: tuple[Offering, ...], model_router: ModelRouterPlan | None = None
) -> tuple[SystemNodesPlan, Offering]:
    """The cheapest on-demand group of at least two equal nodes that holds all system pods, and what a node is.

    Of a processor that every image of theirs is known to exist for.
    """
    architectures = system_architectures()
    cpu = sum(pod.replicas * pod.cpu_millicores for pod in SYSTEM_PODS.values())
    memory = sum(pod.replicas * pod.memory_mib for pod in SYSTEM_PODS.values())
    router_cpu = [router.envoy_cpu_millicores + router.picker_cpu_millicores for router in routers]
    router_memory = [router.envoy_memory_mib + router.picker_memory_mib for router in routers]
    cpu += sum(router_cpu)
    memory += sum(router_memory)
    # On one of the nodes must be room for the largest once more: a router's successor is there before it goes. So each
    # is filled to that much less, however the pods spread.
    successor_cpu, successor_memory = max(router_cpu, default=0), max(router_memory, default=0)
    if model_router is not None:
        cpu += model_router.replicas * model_router.cpu_millicores
        memory += model_router.replicas * model_router.memory_mib
    nodes = [one for one in offerings if one.instance.family in SYSTEM_FAMILIES and one.instance.arch in architectures]
    most_cpu = max(one.instance.allocatable_cpu for one in nodes)
    choices: list[tuple[float, int, Offering]] = []
    for offering in nodes:
        instance = offering.instance
        room_cpu = instance.allocatable_cpu * 1000 - DAEMONS.cpu_millicores
        room_memory = instance.allocatable_memory_gib * 1024 - DAEMONS.memory_mib
        if room_cpu > successor_cpu and room_memory > successor_memory:
            room_cpu, room_memory = room_cpu - successor_cpu, room_memory - successor_memory
        elif instance.allocatable_cpu < most_cpu:
            # Where a router outgrows every node, the largest is what there is.
            continue
        count = max(2, math.ceil(cpu / room_cpu), math.ceil(memory / room_memory))
        choices.append((count * offering.on_demand_usd_per_hour, count, offering))
    _, count, chosen = min(choices, key=lambda choice: choice[:2])
    plan = SystemNodesPlan(
        instance_type=chosen.instance.name,
        cpu_architecture=chosen.instance.arch,
        count=count,
        maximum=count + 1,
        volume_gib=SYSTEM_VOLUME_GIB,
    )
    return plan, chosen


@dataclass(frozen=True, slots=True)
class KvStoreUsage:
    """What a tier's replicas write to the KV store that they share."""

    tier: str
    gb_per_day: float
    tokens_per_day: float
    hit_tokens_per_day: float
    """Prompt tokens that are read from a cache; counted as if all came from this one."""


@dataclass(frozen=True, slots=True)
class FixedUsage:
    """What the fixed items are counted from. GB are 10^9 bytes."""

    region: str
    zones: int
    nat_gateways: int
    """Of the stack's own: none in a VPC that is there. What flows through somebody else's is counted as through one."""
    public_load_balancer: bool
    system_nodes: SystemNodesPlan
    system_node: Offering
    prometheus_gib: int
    checkpoints_gb: float
    """Weights in the bucket, filled once."""
    requests_per_month: float
    gb_per_month: float
    """Requests and answers on the wire."""
    answers_gb_per_month: float
    control_plane_logs: bool
    log_retention_days: int
    interface_endpoints: int = 0
    """Services with one, in every zone."""
    kubernetes_version: str = KUBERNETES_VERSION
    own_secrets_key: bool = True
    kv_stores: tuple[KvStoreUsage, ...] = ()
    pod_hops: int = 1
    """From pod to pod on the way of a request: to the engine from its router, and to that from the model router, as if
    no request had the header."""


@dataclass(frozen=True, slots=True)
class FixedCosts:
    """The fixed items of a month, each to the cent, and the prices they used."""

    items: tuple[CostItem, ...]
    prices: tuple[PriceUse, ...]
    """One for each item."""
    less_usd: float
    """What the month may be lower by, because prices were derived for the region: not above 0."""
    more_usd: float
    """The same upwards."""

    @property
    def usd(self) -> float:
        """Their sum."""
        return sum(item.usd for item in self.items)


class _Items:
    """Gathers items: each is quantity times price, rounded to the cent as a bill is."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._items: list[CostItem] = []
        self._prices: list[PriceUse] = []
        self._less = self._more = 0.0

    def add(self, name: str, item: str, quantity: float, what: str) -> None:
        """Add an item at a price of the region."""
        price = fixed_price(self._region, item)
        basis = f"{quantity:,.1f} {what} x {price.usd:.4g}"
        origin = ""
        if price.substituted:
            origin = ", derived" if price.band != (1.0, 1.0) else f", {REFERENCE_REGION}'s, the same everywhere"
        self._append(name, basis, PriceUse(item, price.as_of, quantity * price.usd), price.band, origin)

    def add_nodes(self, count: int, node: Offering, holds: str) -> None:
        """Add on-demand nodes that always run."""
        usd = node.on_demand_usd_per_hour
        basis = f"{count} x {HOURS_PER_MONTH:,.1f} hours of {node.instance.name} on-demand x {usd:.4f}, with {holds}"
        band = (1 - DERIVED_ON_DEMAND_ERROR, 1 + DERIVED_ON_DEMAND_ERROR) if node.derived else (1.0, 1.0)
        origin = ", derived" if node.derived else ""
        use = PriceUse(f"{node.instance.name} on-demand", node.as_of, count * HOURS_PER_MONTH * usd)
        self._append("system nodes", basis, use, band, origin)

    def _append(self, name: str, basis: str, use: PriceUse, band: tuple[float, float], origin: str) -> None:
        usd = round(use.usd, 2)
        dated = use.as_of.isoformat() if use.as_of else "undated"
        self._items.append(CostItem(name, "fixed", None, usd, f"{basis} ({dated}{origin})"))
        self._prices.append(use)
        self._less += usd * (band[0] - 1)
        self._more += usd * (band[1] - 1)

    def costs(self) -> FixedCosts:
        """Give what was gathered."""
        return FixedCosts(tuple(self._items), tuple(self._prices), self._less, self._more)


def fixed_costs(usage: FixedUsage) -> FixedCosts:
    """Every item of the bill that does not depend on the models' nodes, at list prices without free tiers.

    Not an item, because it is cents: Prometheus' scrapes across zones (0.1 MB from each replica every 30 s are 9 GB
    and 0.12 USD a month), key requests beyond the free 20,000, and the reads of weights at cold starts (100 GB are
    12,000 requests and half a cent).
    """
    items = _Items(usage.region)
    hours = HOURS_PER_MONTH
    nodes = usage.system_nodes
    # Never extended support: see `support_warnings`.
    kind = f"hours of Kubernetes {usage.kubernetes_version}"
    items.add("EKS control plane", "eks_control_plane_standard", hours, kind)
    routers = "routers, controllers and Prometheus"
    items.add_nodes(nodes.count, usage.system_node, routers)
    disks = nodes.count * nodes.volume_gib + usage.prometheus_gib
    items.add("disks of system nodes and Prometheus", "ebs_gp3_storage", disks, "GB")
    if usage.nat_gateways:
        items.add("NAT gateways", "nat_gateway", usage.nat_gateways * hours, "hours")
    addresses = usage.nat_gateways + (usage.zones if usage.public_load_balancer else 0)
    if addresses:
        items.add("public IPv4 addresses", "public_ipv4", addresses * hours, "hours")
    if usage.interface_endpoints:
        interfaces = usage.interface_endpoints * usage.zones
        items.add("interface endpoints", "vpc_interface_endpoint", interfaces * hours, "hours in a zone")
    items.add("load balancer", "alb", hours, "hours")
    on_the_wire = usage.gb_per_month * BILLED_GB_PER_GB
    connections = usage.requests_per_month / (hours * 3600) / _LCU_CONNECTIONS_PER_SECOND
    lcus = max(on_the_wire / hours / _LCU_GB_PER_HOUR, connections)
    items.add("load balancer capacity units", "alb_lcu", lcus * hours, "LCU hours")
    # Between the load balancer and its targets in the VPC AWS charges no transfer. The next pod is in another zone with
    # this chance; leaving the one and entering the other are charged.
    crossing = usage.pod_hops * (usage.zones - 1) / usage.zones
    items.add("traffic between zones", "data_transfer_inter_az", 2 * crossing * on_the_wire, "GB")
    weights = usage.checkpoints_gb * BILLED_GB_PER_GB
    items.add("weights bucket", "s3_standard_storage", weights, "GB")
    parts = usage.checkpoints_gb * 1e9 / _PART_BYTES / 1000
    items.add("weights bucket filled (once)", "s3_put_requests", parts, "thousand requests")
    items.add("weights through NAT (once)", "nat_gateway_data", weights, "GB")
    images = nodes.count * SYSTEM_IMAGES_GB * BILLED_GB_PER_GB
    items.add("system images through NAT (once)", "nat_gateway_data", images, "GB assumed")
    if usage.public_load_balancer:
        answers = usage.answers_gb_per_month * BILLED_GB_PER_GB
        items.add("answers to the internet", "data_transfer_internet_out", answers, "GB")
    if usage.control_plane_logs:
        items.add("control plane logs", "cloudwatch_logs_ingest", LOG_GB_PER_MONTH, "GB assumed")
        stored = LOG_GB_PER_MONTH * usage.log_retention_days / DAYS_PER_MONTH
        items.add("stored control plane logs", "cloudwatch_logs_storage", stored, "GB assumed")
    _add_kv_stores(items, usage.kv_stores)
    if usage.own_secrets_key:
        items.add("KMS key", "kms_key", 1.0, "key")
    return items.costs()


def support_warnings(today: date | None, kubernetes: str = KUBERNETES_VERSION) -> tuple[str, ...]:
    """What the calendar says of the stack's Kubernetes version, from three months before its standard support ends.

    Clusters have the upgrade policy STANDARD: at the end of standard support EKS upgrades them instead of charging for
    extended support (Amazon EKS API Reference, UpgradePolicyRequest, read on 2026-11-27).
    """
    version = eks_version(kubernetes)
    end = version.end_of_standard_support
    if today is None or (end - today).days > _SUPPORT_NOTICE_DAYS:
        return ()
    if today < end:
        said = f"ends on {end.isoformat()}: on that day EKS upgrades the control plane by itself, without the program"
        way_out = "raise cluster.kubernetesVersion before"
    else:
        said = f"ended on {end.isoformat()}: EKS upgrades the control plane by itself since, without the program"
        way_out = "raise cluster.kubernetesVersion to what the cluster has now: EKS takes no lower one"
    return (f"standard support of Kubernetes {version.version} {said}; {way_out}",)


_SUPPORT_NOTICE_DAYS = 90


def _add_kv_stores(items: _Items, stores: Sequence[KvStoreUsage]) -> None:
    """KV blocks in the bucket: every new token once, kept for the days that the bucket's rule leaves them."""
    for store in stores:
        stored = store.gb_per_day * BILLED_GB_PER_GB * _KV_DAYS_KEPT
        name = f"shared KV store of {store.tier}"
        items.add(name, "s3_standard_storage", stored, f"GB: each day's new blocks for {_KV_DAYS_KEPT:g} days,")
        per_month = DAYS_PER_MONTH / _KV_TOKENS_PER_OBJECT / 1000
        items.add(f"{name}, written", "s3_put_requests", store.tokens_per_day * per_month, "thousand blocks")
        items.add(f"{name}, read", "s3_get_requests", store.hit_tokens_per_day * per_month, "thousand blocks")
