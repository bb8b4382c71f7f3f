"""What the stack costs without a single model node: control plane, system nodes, network, disks, logs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planning.facts.fixed_prices import FixedPrice, fixed_price
from planning.facts.instances import Offering
from planning.plan import CostItem, RouterPlan, SystemNodesPlan
from planning.system_pods import DAEMONS, SYSTEM_PODS
from planning.traffic import HOURS_PER_MONTH

SYSTEM_VOLUME_GIB = 50

#: No public file shows an arm64 variant of the endpoint picker, so the system nodes stay x86.
_SYSTEM_FAMILIES = ("m7i",)

#: Assumptions of this program, not measured: control plane logs of a quiet cluster, and bytes on the wire of a token in
#: a request (UTF-8 English) and in a streamed answer (one server-sent event a token).
LOG_GB_PER_MONTH = 10.0
BYTES_PER_INPUT_TOKEN, BYTES_PER_OUTPUT_TOKEN = 4.5, 250.0

#: AWS KMS list price of a customer managed key, USD a month; recalled, not verified.
KMS_KEY_USD_PER_MONTH = 1.0

#: One LCU is 1 GB an hour, or 25 new connections a second (AWS Elastic Load Balancing pricing).
_LCU_GB_PER_HOUR, _LCU_CONNECTIONS_PER_SECOND = 1.0, 25.0


def router_plan(peak_requests_per_second: float, concurrency: float) -> RouterPlan:
    """Size a tier's router: bounds on held requests, and what Envoy and the picker request.

    Held requests cover a minute of the peak, at least 100; bodies of 64 KiB on average bound their memory.
    """
    held = max(100, math.ceil(peak_requests_per_second * 60))
    held_mib = max(64, math.ceil(held * 64 / 1024))
    return RouterPlan(
        envoy_cpu_millicores=100 + math.ceil(peak_requests_per_second),
        envoy_memory_mib=192,
        picker_cpu_millicores=150 + 2 * math.ceil(peak_requests_per_second),
        picker_memory_mib=256 + held_mib,
        max_held_requests=held,
        max_held_bytes_mib=held_mib,
        queue_depth_threshold=max(4, math.ceil(concurrency / 4)),
    )


def system_nodes(routers: tuple[RouterPlan, ...], offerings: tuple[Offering, ...]) -> tuple[SystemNodesPlan, float]:
    """The cheapest on-demand group of at least two equal nodes that holds all system pods, and its USD per hour."""
    cpu = sum(pod.replicas * pod.cpu_millicores for pod in SYSTEM_PODS.values())
    memory = sum(pod.replicas * pod.memory_mib for pod in SYSTEM_PODS.values())
    cpu += sum(router.envoy_cpu_millicores + router.picker_cpu_millicores for router in routers)
    memory += sum(router.envoy_memory_mib + router.picker_memory_mib for router in routers)
    choices: list[tuple[float, int, Offering]] = []
    for offering in offerings:
        instance = offering.instance
        if instance.family in _SYSTEM_FAMILIES:
            room_cpu = instance.allocatable_cpu * 1000 - DAEMONS.cpu_millicores
            room_memory = instance.allocatable_memory_gib * 1024 - DAEMONS.memory_mib
            count = max(2, math.ceil(cpu / room_cpu), math.ceil(memory / room_memory))
            choices.append((count * offering.on_demand_usd_per_hour, count, offering))
    usd, count, chosen = min(choices, key=lambda choice: choice[:2])
    plan = SystemNodesPlan(
        instance_type=chosen.instance.name,
        cpu_architecture=chosen.instance.arch,
        count=count,
        maximum=count + 1,
        volume_gib=SYSTEM_VOLUME_GIB,
    )
    return plan, usd


@dataclass(frozen=True, slots=True)
class FixedUsage:
    """What the fixed items are counted from."""

    region: str
    zones: int
    nat_gateways: int
    public_load_balancer: bool
    system_nodes: SystemNodesPlan
    system_usd_per_hour: float
    prometheus_gib: int
    checkpoints_gb: float
    """Weights in the bucket, filled once."""
    requests_per_month: float
    gb_per_month: float
    """Requests and answers on the wire."""
    answers_gb_per_month: float
    control_plane_logs: bool


@dataclass(frozen=True, slots=True)
class FixedCosts:
    """The fixed items of a month, and the prices they used."""

    items: tuple[CostItem, ...]
    prices: tuple[FixedPrice, ...]

    @property
    def usd(self) -> float:
        """Their sum."""
        return sum(item.usd for item in self.items)


def fixed_costs(usage: FixedUsage) -> FixedCosts:
    """Every item of the bill that does not depend on the models' nodes."""
    items: list[CostItem] = []
    prices: list[FixedPrice] = []

    def add(name: str, item: str, quantity: float, what: str) -> None:
        price = fixed_price(usage.region, item)
        prices.append(price)
        dated = price.as_of.isoformat() if price.as_of else "undated"
        derived = ", derived" if price.substituted else ""
        basis = f"{quantity:,.1f} {what} x {price.usd:.4g} ({dated}{derived})"
        items.append(CostItem(name, "fixed", None, quantity * price.usd, basis))

    hours = HOURS_PER_MONTH
    nodes = usage.system_nodes
    add("EKS control plane", "eks_control_plane_standard", hours, "hours")
    items.append(
        CostItem(
            "system nodes",
            "fixed",
            None,
            usage.system_usd_per_hour * hours,
            f"{nodes.count} x {nodes.instance_type} on-demand at {usage.system_usd_per_hour / nodes.count:.4f}",
        )
    )
    gib_as_gb = 2**30 / 1e9
    disks = nodes.count * nodes.volume_gib + usage.prometheus_gib
    add("disks of system nodes and Prometheus", "ebs_gp3_storage", disks * gib_as_gb, "GB")
    add("NAT gateways", "nat_gateway", usage.nat_gateways * hours, "hours")
    add(
        "public IPv4 addresses",
        "public_ipv4",
        (usage.nat_gateways + (usage.zones if usage.public_load_balancer else 0)) * hours,
        "hours",
    )
    add("load balancer", "alb", hours, "hours")
    connections = usage.requests_per_month / (hours * 3600) / _LCU_CONNECTIONS_PER_SECOND
    lcus = max(usage.gb_per_month / hours / _LCU_GB_PER_HOUR, connections)
    add("load balancer capacity units", "alb_lcu", lcus * hours, "LCU hours")
    # Router and engine are in another zone than their peer with this chance; both directions are charged.
    crossing = (usage.zones - 1) / usage.zones
    add("traffic between zones", "data_transfer_inter_az", 2 * 2 * crossing * usage.gb_per_month, "GB")
    add("weights bucket", "s3_standard_storage", usage.checkpoints_gb, "GB")
    add("weights through NAT, once", "nat_gateway_data", usage.checkpoints_gb, "GB")
    if usage.public_load_balancer:
        add("answers to the internet", "data_transfer_internet_out", usage.answers_gb_per_month, "GB")
    if usage.control_plane_logs:
        add("control plane logs", "cloudwatch_logs_ingest", LOG_GB_PER_MONTH, "GB assumed")
    items.append(CostItem("KMS key", "fixed", None, KMS_KEY_USD_PER_MONTH, "1 key, list price, not verified"))
    return FixedCosts(tuple(items), tuple(prices))
