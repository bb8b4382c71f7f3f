"""Where Karpenter put a tier's pods, against where the plan priced them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planning.facts.instances import instance_type
from planning.plan import CapacityType, PoolMember, TierPlan

_ZONE = "topology.kubernetes.io/zone"
_INSTANCE_TYPE = "node.kubernetes.io/instance-type"
_CAPACITY_TYPE = "karpenter.sh/capacity-type"
_GPU_NAME = "karpenter.k8s.aws/instance-gpu-name"
_GPU_COUNT = "karpenter.k8s.aws/instance-gpu-count"


@dataclass(frozen=True, slots=True)
class Launched:
    """A node that Karpenter launched, as its NodeClaim is labelled."""

    node_claim: str
    instance_type: str
    gpu_name: str | None
    gpu_count: int
    capacity_type: str
    zone: str
    usd_per_hour: float
    """What the market takes for it."""

    @classmethod
    def of(cls, node_claim: Mapping[str, Any], usd_per_hour: float) -> Launched:
        """Read a NodeClaim."""
        labels = node_claim["metadata"]["labels"]
        return cls(
            node_claim=node_claim["metadata"]["name"],
            instance_type=labels[_INSTANCE_TYPE],
            gpu_name=labels.get(_GPU_NAME),
            gpu_count=int(labels.get(_GPU_COUNT, 0)),
            capacity_type=labels[_CAPACITY_TYPE],
            zone=labels[_ZONE],
            usd_per_hour=usd_per_hour,
        )


@dataclass(frozen=True, slots=True)
class Planned:
    """The nodes that one Deployment of a tier may run on."""

    stack: str
    workload: str
    tier: TierPlan
    capacity_types: tuple[CapacityType, ...]
    """In the order in which they are wanted."""
    zones: tuple[str, ...]

    def offering(self, instance_type: str) -> PoolMember | None:
        """The plan's prices of a type; None when the plan does not have it."""
        return next((one for one in self.tier.offerings if one.instance_type == instance_type), None)

    def usd_per_hour(self, instance_type: str, capacity_type: str) -> float | None:
        """What the plan pays for a node; None when it does not have it."""
        offering = self.offering(instance_type)
        if offering is None or capacity_type not in self.capacity_types:
            return None
        return offering.spot_usd_per_hour if capacity_type == "spot" else offering.on_demand_usd_per_hour

    @property
    def cheapest(self) -> tuple[PoolMember, float]:
        """The offering that the plan expects first, and its price."""
        first = self.capacity_types[0]
        priced = [
            (price, position)
            for position, one in enumerate(self.tier.offerings)
            if (price := self.usd_per_hour(one.instance_type, first)) is not None
        ]
        price, position = min(priced)
        return self.tier.offerings[position], price

    def objections(self, launched: Launched) -> list[str]:
        """Say what about a node is not as planned; nothing when all of it is."""
        offering = self.offering(launched.instance_type)
        if offering is None:
            types = ", ".join(self.tier.instance_types)
            return [f"{launched.instance_type} is none of the plan's types ({types})"]
        facts = instance_type(launched.instance_type)
        reasons: list[str] = []
        if (launched.gpu_name, offering.gpu) != (facts.gpu_name_label, facts.gpu):
            reasons.append(
                f"its GPU is {launched.gpu_name}, the plan's {offering.gpu}, labelled {facts.gpu_name_label}"
            )
        if launched.gpu_count != self.tier.gpus_per_replica:
            reasons.append(f"it has {launched.gpu_count} GPUs, a replica {self.tier.gpus_per_replica}")
        if launched.capacity_type not in self.capacity_types:
            reasons.append(f"it is {launched.capacity_type}, planned is {' or '.join(self.capacity_types)}")
        elif self.usd_per_hour(launched.instance_type, launched.capacity_type) is None:
            reasons.append(f"the plan has no {launched.capacity_type} price for {launched.instance_type}")
        if launched.zone not in self.zones:
            reasons.append(f"it is in {launched.zone}, planned are {', '.join(self.zones)}")
        return reasons


@dataclass(frozen=True, slots=True)
class Placement:
    """A node and the plan that it was launched for."""

    planned: Planned
    launched: Launched

    @property
    def objections(self) -> list[str]:
        """What is not as planned."""
        return self.planned.objections(self.launched)

    @property
    def row(self) -> tuple[str, ...]:
        """One line of the report."""
        planned, launched = self.planned, self.launched
        cheapest, least = planned.cheapest
        price = planned.usd_per_hour(launched.instance_type, launched.capacity_type)
        gpus = f"{planned.tier.gpus_per_replica} x {cheapest.gpu}" if cheapest.gpu else "CPU"
        return (
            f"{planned.stack}/{planned.workload}",
            f"{gpus}, {cheapest.instance_type} {planned.capacity_types[0]}",
            f"{least:.4f}",
            launched.instance_type,
            launched.capacity_type,
            launched.zone,
            f"{launched.usd_per_hour:.4f}",
            "not planned" if price is None else f"{price:.4f}",
            "" if price is None else f"{100 * (launched.usd_per_hour / price - 1):+.1f} %",
        )


COLUMNS = ("tier", "planned", "USD/h", "launched", "capacity", "zone", "USD/h", "plan for it", "difference", "nodes")
"""Of the report: rows of :attr:`Placement.row`, and how many nodes were like it.

The first price is the plan's for its cheapest offering, the last that for the type that was launched, at the median
zone; the difference is what the zone made of it.
"""


def report(rows: Iterable[Sequence[str]]) -> str:
    """The plan against what was launched, in dollars, as a table in Markdown."""
    lines = [COLUMNS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"
