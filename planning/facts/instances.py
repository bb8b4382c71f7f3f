"""EC2 instance types, what they cost in a region, and how often their spot capacity is taken back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from types import MappingProxyType

from planning.facts.table import (
    CPU_ARCHITECTURES,
    DATA,
    MIB_PER_GIB,
    CpuArchitecture,
    InvalidCell,
    Row,
    UnknownFact,
    parse_rows,
    read_table,
    rows_by_region,
)

#: The price files that ``python -m planning prices refresh`` writes.
INSTANCE_PRICES, SPOT_RANGES = "instance_prices.csv", "spot_ranges.csv"

#: A price marked ``od:derived`` is us-east-1's times the ratio that the region's other sizes of the family show. Left
#: out one by one, the 375 prices read beside a sibling are within this of what the siblings give.
DERIVED_ON_DEMAND_ERROR = 0.001


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One EC2 instance type as Karpenter sees it."""

    name: str
    family: str
    gpu: str | None
    """Name as in ``gpus``; None: a CPU type."""
    gpu_count: int
    gpu_memory_gib_each: float
    """0 for a CPU type."""
    vcpu: int
    memory_gib: float
    local_nvme_gb: float
    allocatable_cpu: float
    """Cores left for pods after kubelet's reserve."""
    allocatable_memory_gib: float
    """Left after VM overhead (7.5 %), kubelet's reserve (255 MiB + 11 MiB a pod) and the eviction threshold."""
    gpu_name_label: str | None
    """Value of ``karpenter.k8s.aws/instance-gpu-name``: ``a100`` is two GPUs, told apart by the memory label."""
    gpu_memory_label_mib: int | None
    """Value of ``karpenter.k8s.aws/instance-gpu-memory``."""
    network_baseline_mbps: int | None
    """Megabits a second that last; small sizes burst above it for minutes."""
    arch: CpuArchitecture
    efa_interfaces: int
    """Elastic Fabric Adapters, of which a pod may ask for some as ``vpc.amazonaws.com/efa``; not looked up for CPU
    types."""


@dataclass(frozen=True, slots=True)
class Offering:
    """An instance type in a region. Prices are USD per hour, Linux, shared tenancy, without tax."""

    instance: InstanceType
    region: str
    on_demand_usd_per_hour: float
    spot_usd_per_hour: float | None
    """Median over the zones; None: not read, which is not the same as not offered."""
    spot_min_usd_per_hour: float | None
    """Cheapest zone."""
    spot_max_usd_per_hour: float | None
    """Dearest zone."""
    zones: int | None
    """Zones with a spot price; None when no spot price was read."""
    zones_at_on_demand_price: int | None
    """Zones whose spot price is within 3 % of on-demand: they have no spare capacity."""
    interruption_class: str | None
    """AWS Spot Advisor, June 2025; None: the type is not in it (newer families)."""
    spot_savings_percent: float | None
    """AWS Spot Advisor's saving over on-demand, June 2025: an estimate where no spot price was read."""
    source: str
    as_of: date | None
    """Oldest date among the row's prices."""

    @property
    def derived(self) -> bool:
        """The on-demand price was not read in this region: us-east-1's times the family's ratio."""
        return "od:derived" in self.source


@dataclass(frozen=True, slots=True)
class MonthlyInterruption:
    """Probability that a spot instance is taken back within a month, as a range."""

    low: float
    expected: float
    high: float


# The classes are AWS Spot Advisor's: share of instances interrupted during the last month. ">20%" has no published
# upper end: 30 % expected and 50 % at worst are this program's assumption.
_INTERRUPTION_OF_CLASS = {
    "<5%": MonthlyInterruption(0.0, 0.025, 0.05),
    "5-10%": MonthlyInterruption(0.05, 0.075, 0.10),
    "10-15%": MonthlyInterruption(0.10, 0.125, 0.15),
    "15-20%": MonthlyInterruption(0.15, 0.175, 0.20),
    ">20%": MonthlyInterruption(0.20, 0.30, 0.50),
}
_WORST_CLASS = ">20%"


def monthly_interruption(interruption_class: str | None) -> MonthlyInterruption:
    """The probability range of a Spot Advisor class. An unknown class (None) counts as the worst.

    Raises ``UnknownFact`` of kind ``interruption class`` for a text that is no class.
    """
    try:
        return _INTERRUPTION_OF_CLASS[interruption_class or _WORST_CLASS]
    except KeyError:
        raise UnknownFact("interruption class", str(interruption_class), _INTERRUPTION_OF_CLASS) from None


def regions(directory: Path = DATA) -> tuple[str, ...]:
    """The regions with prices. Raises ``InvalidTable``."""
    return tuple(_price_rows(directory))


def offerings(region: str, directory: Path = DATA) -> tuple[Offering, ...]:
    """Every whole-GPU and CPU type priced in the region, from the price files of a directory.

    Raises ``UnknownFact`` of kind ``region``, and ``InvalidTable`` for a row of the region that is none.
    Left out: fractions of a GPU, and types without an on-demand price (see ``_offered``).
    """
    if region not in _price_rows(directory):
        raise UnknownFact("region", region, regions(directory))
    return _offerings(region, directory)


def instance_type(name: str) -> InstanceType:
    """The instance type of that name, offered anywhere. Raises ``UnknownFact`` of kind ``instance type``."""
    try:
        return instance_types()[name]
    except KeyError:
        raise UnknownFact("instance type", name, instance_types()) from None


@cache
def instance_types() -> Mapping[str, InstanceType]:
    """All instance types by name that are offered in some region."""
    types: dict[str, InstanceType] = {}
    for region in regions():
        for offering in offerings(region):
            types.setdefault(offering.instance.name, offering.instance)
    return MappingProxyType(types)


@dataclass(frozen=True, slots=True)
class _Price:
    region: str
    instance_type: str
    gpu: str | None
    gpu_count: float
    gpu_memory_gib_each: float
    vcpu: int
    memory_gib: float
    local_nvme_gb: float
    on_demand_usd_per_hour: float | None
    spot_usd_per_hour: float | None
    source: str
    as_of: date | None


@dataclass(frozen=True, slots=True)
class _SpotRange:
    lowest: float
    highest: float
    zones: int
    zones_at_on_demand_price: int | None


@dataclass(frozen=True, slots=True)
class _SpotAdvice:
    interruption_class: str
    savings_percent: float | None


@dataclass(frozen=True, slots=True)
class _Node:
    """What Karpenter's documentation says of an instance type."""

    family: str
    arch: CpuArchitecture
    gpu_name_label: str | None
    gpu_memory_label_mib: int | None
    network_baseline_mbps: int | None
    allocatable_cpu: float
    allocatable_memory_gib: float
    efa_interfaces: int


@cache
def _offerings(region: str, directory: Path) -> tuple[Offering, ...]:
    nodes = _nodes()
    ranges = dict(parse_rows(directory / SPOT_RANGES, _range_rows(directory).get(region, ()), _spot_range))
    advice = dict(parse_rows(_ADVICE, _advice_rows().get(region, ()), _advice))
    return tuple(
        _offering(
            price,
            _instance_type(price, nodes[price.instance_type]),
            ranges.get(price.instance_type),
            advice.get(price.instance_type),
        )
        for price in parse_rows(directory / INSTANCE_PRICES, _price_rows(directory)[region], _price)
        if _offered(price)
    )


def _offering(price: _Price, instance: InstanceType, zones: _SpotRange | None, advice: _SpotAdvice | None) -> Offering:
    assert price.on_demand_usd_per_hour is not None  # _offered
    spot = price.spot_usd_per_hour
    return Offering(
        instance=instance,
        region=price.region,
        on_demand_usd_per_hour=price.on_demand_usd_per_hour,
        spot_usd_per_hour=spot,
        spot_min_usd_per_hour=zones.lowest if zones else spot,
        spot_max_usd_per_hour=zones.highest if zones else spot,
        zones=zones.zones if zones else None,
        zones_at_on_demand_price=zones.zones_at_on_demand_price if zones else None,
        interruption_class=advice.interruption_class if advice else None,
        spot_savings_percent=advice.savings_percent if advice else None,
        source=price.source,
        as_of=price.as_of,
    )


def _instance_type(price: _Price, node: _Node) -> InstanceType:
    return InstanceType(
        name=price.instance_type,
        family=node.family,
        gpu=price.gpu,
        gpu_count=int(price.gpu_count),
        gpu_memory_gib_each=price.gpu_memory_gib_each,
        vcpu=price.vcpu,
        memory_gib=price.memory_gib,
        local_nvme_gb=price.local_nvme_gb,
        allocatable_cpu=node.allocatable_cpu,
        allocatable_memory_gib=node.allocatable_memory_gib,
        gpu_name_label=node.gpu_name_label,
        gpu_memory_label_mib=node.gpu_memory_label_mib,
        network_baseline_mbps=node.network_baseline_mbps,
        arch=node.arch,
        efa_interfaces=node.efa_interfaces,
    )


def _offered(price: _Price) -> bool:
    # g6f and gr6f hold a fraction of an L4. EC2 reports 0 GPUs for them, so Karpenter's node has nvidia.com/gpu 0 and a
    # GPU pod stays Pending (karpenter-provider-aws #8368, #8324).
    fraction_of_a_gpu = price.gpu is not None and price.gpu_count < 1
    # p5e is sold as Capacity Blocks and spot: no source has an on-demand price, so there is nothing to fall back to or
    # to compare with.
    return not fraction_of_a_gpu and price.on_demand_usd_per_hour is not None


@cache
def _price_rows(directory: Path) -> Mapping[str, tuple[Row, ...]]:
    return rows_by_region(directory / INSTANCE_PRICES, _PRICE_COLUMNS)


@cache
def _range_rows(directory: Path) -> Mapping[str, tuple[Row, ...]]:
    return rows_by_region(directory / SPOT_RANGES, _RANGE_COLUMNS)


@cache
def _advice_rows() -> Mapping[str, tuple[Row, ...]]:
    return rows_by_region(_ADVICE, _ADVICE_COLUMNS)


@cache
def _nodes() -> Mapping[str, _Node]:
    nodes = dict(read_table(DATA / "gpu_instances.csv", _GPU_NODE_COLUMNS, _gpu_node))
    nodes.update(read_table(DATA / "cpu_instances.csv", _CPU_NODE_COLUMNS, _cpu_node))
    return nodes


_ADVICE = DATA / "spot_interruptions.csv"
_PRICE_COLUMNS = (
    "region",
    "instance_type",
    "gpu",
    "gpu_count",
    "gpu_memory_gib_each",
    "vcpu",
    "memory_gib",
    "local_nvme_gb",
    "on_demand_usd_per_hour",
    "spot_usd_per_hour",
    "source",
    "as_of",
)
_RANGE_COLUMNS = ("region", "instance_type", "az_count", "spot_min", "spot_max", "az_at_on_demand_price")
_ADVICE_COLUMNS = ("region", "instance_type", "savings_over_on_demand_pct", "interruption_frequency")
_NODE_COLUMNS = ("instance_type", "instance_family", "network_baseline_mbps", "allocatable_cpu", "allocatable_memory")
_GPU_NODE_COLUMNS = (*_NODE_COLUMNS, "gpu_name_label", "gpu_memory_label_mib", "efa_interfaces")
_CPU_NODE_COLUMNS = (*_NODE_COLUMNS, "arch")


def _price(row: Row) -> _Price:
    instance_type = row.name("instance_type")
    if instance_type not in _nodes():
        raise InvalidCell(str(UnknownFact("instance type", instance_type, _nodes())))
    return _Price(
        region=row.name("region"),
        instance_type=instance_type,
        gpu=row.optional(row.name, "gpu"),
        gpu_count=row.number("gpu_count"),
        gpu_memory_gib_each=row.optional(row.number, "gpu_memory_gib_each") or 0.0,
        vcpu=row.integer("vcpu"),
        memory_gib=row.number("memory_gib"),
        local_nvme_gb=row.number("local_nvme_gb"),
        on_demand_usd_per_hour=row.optional(row.price, "on_demand_usd_per_hour"),
        spot_usd_per_hour=row.optional(row.price, "spot_usd_per_hour"),
        source=row.name("source"),
        as_of=row.date("as_of"),
    )


def _spot_range(row: Row) -> tuple[str, _SpotRange]:
    lowest, highest = row.price("spot_min"), row.price("spot_max")
    if lowest > highest:
        raise InvalidCell(f"spot_min {lowest:g} is above spot_max {highest:g}")
    return (
        row.name("instance_type"),
        _SpotRange(
            lowest=lowest,
            highest=highest,
            zones=row.integer("az_count"),
            zones_at_on_demand_price=row.optional(row.integer, "az_at_on_demand_price"),
        ),
    )


def _advice(row: Row) -> tuple[str, _SpotAdvice]:
    interruption_class = row.choice("interruption_frequency", tuple(_INTERRUPTION_OF_CLASS))
    # p5.48xlarge in Canada has a saving of -62 %: the feed caught the on-demand cut of June 2025 before its own spot
    # prices. EC2 never charges more than on-demand for spot, so such a figure says nothing.
    savings = row.number("savings_over_on_demand_pct", least=-100.0)
    return (
        row.name("instance_type"),
        _SpotAdvice(interruption_class=interruption_class, savings_percent=savings if savings >= 0 else None),
    )


def _gpu_node(row: Row) -> tuple[str, _Node]:
    # Every priced GPU type is x86; g5g (Graviton with a T4G) is not priced.
    return row.name("instance_type"), _node(
        row,
        arch="amd64",
        gpu_name_label=row.name("gpu_name_label"),
        gpu_memory_label_mib=row.integer("gpu_memory_label_mib"),
        efa_interfaces=row.integer("efa_interfaces"),
    )


def _cpu_node(row: Row) -> tuple[str, _Node]:
    arch = row.choice("arch", CPU_ARCHITECTURES)
    return row.name("instance_type"), _node(row, arch=arch, gpu_name_label=None, gpu_memory_label_mib=None)


def _node(
    row: Row,
    *,
    arch: CpuArchitecture,
    gpu_name_label: str | None,
    gpu_memory_label_mib: int | None,
    efa_interfaces: int = 0,
) -> _Node:
    return _Node(
        family=row.name("instance_family"),
        arch=arch,
        gpu_name_label=gpu_name_label,
        gpu_memory_label_mib=gpu_memory_label_mib,
        network_baseline_mbps=row.optional(row.integer, "network_baseline_mbps"),
        allocatable_cpu=_with_suffix(row, "allocatable_cpu", "m") / 1000,
        allocatable_memory_gib=_with_suffix(row, "allocatable_memory", "Mi") / MIB_PER_GIB,
        efa_interfaces=efa_interfaces,
    )


def _with_suffix(row: Row, column: str, suffix: str) -> int:
    """A Kubernetes quantity in the one unit that Karpenter's documentation uses for it."""
    text = row.name(column)
    digits = text.removesuffix(suffix)
    if not (text.endswith(suffix) and digits.isdecimal()):
        raise InvalidCell(f"{column} should be as 123{suffix}, not {text!r}")
    return int(digits)
