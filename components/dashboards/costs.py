"""Recording rules for what the nodes of each pool cost: real nodes and hours, at the plan's prices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from components import tier_queries
from planning.plan import TierPlan

NODE_LABELS: Final = ("node.kubernetes.io/instance-type", "karpenter.sh/capacity-type", "karpenter.sh/nodepool")
"""Labels of nodes that kube-state-metrics must show; it shows none unasked."""

PRICE: Final = "frugal_llm:price_usd_per_hour"
POOL_USD: Final = "frugal_llm:pool_usd_per_hour"
"""USD an hour of all nodes of a pool, from the moment Kubernetes knows them until they are gone."""

_TYPE, _CAPACITY, _POOL = ("label_" + label.translate(str.maketrans("./-", "___")) for label in NODE_LABELS)


def cost_rules(tiers: Sequence[TierPlan]) -> list[dict[str, Any]]:
    """Give the price of every type that a pool may launch, and with it the rate of every pool.

    EC2's spot price moves and the plan's does not: the bill says what was paid, this says of which pool, and today.
    """
    return [*_prices(tiers), {"record": POOL_USD, "expr": _rate()}]


def _rate() -> str:
    nodes = f'kube_node_labels{{{_POOL}!=""}}'
    priced = f"{nodes} * on ({_TYPE}, {_CAPACITY}) group_left () {PRICE}"
    return f'sum by (pool) (label_replace({priced}, "pool", "$1", "{_POOL}", "(.+)"))'


def _prices(tiers: Sequence[TierPlan]) -> Iterator[dict[str, Any]]:
    """One series a type and capacity type, whichever tiers have it; a type without a known spot price has no series."""
    members = {member.instance_type: member for tier in tiers for member in tier.offerings}
    for instance_type, member in sorted(members.items()):
        for capacity, usd in (("on-demand", member.on_demand_usd_per_hour), ("spot", member.spot_usd_per_hour)):
            if usd is not None:
                yield {
                    "record": PRICE,
                    "expr": f"vector({tier_queries.number(usd)})",
                    "labels": {_TYPE: instance_type, _CAPACITY: capacity},
                }
