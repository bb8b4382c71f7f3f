"""Recording rules for what nodes cost, by pool and by tier: real nodes and hours, at the plan's prices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from components.dashboards.rule import constant, record
from components.names import GPU_RESOURCE, SERVING_NAMESPACE, TIER_LABEL
from planning.plan import TierPlan
from planning.rates import StackRates

NODE_LABELS: Final = ("node.kubernetes.io/instance-type", "karpenter.sh/capacity-type", "karpenter.sh/nodepool")
"""Labels of nodes that kube-state-metrics must show; it shows none unasked."""
POD_LABELS: Final = (TIER_LABEL,)
"""The same of pods."""

PRICE: Final = "frugal_llm:price_usd_per_hour"
POOL_NODES: Final = "frugal_llm:pool_nodes"
"""Nodes of a pool, by ``capacity``: spot or on-demand."""
NODE_USD: Final = "frugal_llm:node_usd_per_hour"
"""USD an hour of a node, from the moment Kubernetes knows it until it is gone."""
POOL_USD: Final = "frugal_llm:pool_usd_per_hour"
TIER_USD: Final = "frugal_llm:tier_usd_per_hour"
"""USD an hour of a tier, by pool: the tiers of a pool add up to the pool."""
TOKENS: Final = "frugal_llm:tokens_per_second:rate5m"
"""Input and output tokens of a tier."""
PER_MILLION: Final = "frugal_llm:usd_per_million_tokens"
"""Followed by the window."""
PER_MILLION_WINDOWS: Final = ("1h", "1d")
"""What the tier costs now, and over a day with its idle hours, which the forecast has too."""

FORECAST_USD: Final = "frugal_llm:forecast_usd_per_hour"
"""USD an hour of a tier's nodes on the forecast's mean hour, by ``bound``: low, expected, high."""
FORECAST_PER_MILLION: Final = "frugal_llm:forecast_usd_per_million_tokens"
FORECAST_SHARE: Final = "frugal_llm:forecast_share_of_pool"
FORECAST_SPOT: Final = "frugal_llm:forecast_spot_share"
SPOT_SHARE: Final = "frugal_llm:spot_share:1d"
"""Share of spot in a pool's node hours of the last day."""

_REQUESTED: Final = "frugal_llm:tier_requests_on_node"
_ASSIGNED: Final = "frugal_llm:tier_usd_per_hour:on_its_nodes"


def series_label(label: str) -> str:
    """Name that kube-state-metrics gives a Kubernetes label or resource, without its prefix ``label_``."""
    return "".join(letter if letter.isalnum() else "_" for letter in label)


_TYPE, _CAPACITY, _POOL = (f"label_{series_label(label)}" for label in NODE_LABELS)


def cost_rules(tiers: Sequence[TierPlan], rates: StackRates) -> list[dict[str, Any]]:
    """Give the price of every type that a pool may launch, and with it the rate of every pool and tier.

    EC2's spot price moves and the plan's does not: the bill says what was paid, this says by whom, and today.
    """
    return [*_prices(tiers), *_forecast(rates), *_of_pools(), *_of_tiers()]


def _prices(tiers: Sequence[TierPlan]) -> Iterator[dict[str, Any]]:
    """One series a type and capacity type, whichever tiers have it; a type without a known spot price has no series."""
    members = {member.instance_type: member for tier in tiers for member in tier.offerings}
    for instance_type, member in sorted(members.items()):
        for capacity, usd in (("on-demand", member.on_demand_usd_per_hour), ("spot", member.spot_usd_per_hour)):
            if usd is not None:
                yield constant(PRICE, usd, {_TYPE: instance_type, _CAPACITY: capacity})


def _forecast(rates: StackRates) -> Iterator[dict[str, Any]]:
    for tier in rates.tiers:
        bounds = (
            ("low", tier.low_usd_per_hour),
            ("expected", tier.usd_per_hour),
            ("high", tier.high_usd_per_hour),
        )
        for bound, usd in bounds:
            yield constant(FORECAST_USD, usd, {"tier": tier.tier, "bound": bound})
        if tier.usd_per_million_tokens:
            yield constant(FORECAST_PER_MILLION, tier.usd_per_million_tokens, {"tier": tier.tier})
        for pool in tier.pools:
            yield constant(FORECAST_SHARE, rates.share(tier, pool), {"pool": pool, "tier": tier.tier})
    for pool in rates.pools:
        yield constant(FORECAST_SPOT, rates.spot_share(pool), {"pool": pool})


def _of_pools() -> Iterator[dict[str, Any]]:
    nodes = f'kube_node_labels{{{_POOL}!=""}}'
    priced = f"{nodes} * on ({_TYPE}, {_CAPACITY}) group_left () {PRICE}"
    # A node once: for minutes after kube-state-metrics restarts, both its pods' series are there.
    yield record(NODE_USD, f"max by (pool, node) ({_renamed(priced, 'pool', _POOL)})")
    yield record(POOL_USD, f"sum by (pool) ({NODE_USD})")
    both = _renamed(_renamed(nodes, "pool", _POOL), "capacity", _CAPACITY)
    yield record(POOL_NODES, f"count by (pool, capacity) (max by (pool, capacity, node) ({both}))")
    day = f"sum by (pool) (sum_over_time({POOL_NODES}[1d]))"
    spot = f'sum by (pool) (sum_over_time({POOL_NODES}{{capacity="spot"}}[1d]))'
    yield record(SPOT_SHARE, f"({spot} or {day} * 0) / {day}")


def _of_tiers() -> Iterator[dict[str, Any]]:
    """Split each node by what the pods on it request, and what no pod is on by what the pool's tiers have already.

    GPUs where a pod has some, else CPU. A pool on which no pod is at all (nodes that come up, or idle before they go)
    is split as the forecast splits it.
    """
    yield record(_REQUESTED, f"sum by (node, tier) ({_requests_of_pods()})")
    on_node = f"{_REQUESTED} / on (node) group_left () sum by (node) ({_REQUESTED})"
    yield record(_ASSIGNED, f"sum by (pool, tier) ({on_node} * on (node) group_left (pool) {NODE_USD})")
    by_use = f"{_ASSIGNED} / on (pool) group_left () sum by (pool) ({_ASSIGNED})"
    share = f"({by_use} or on (pool) {FORECAST_SHARE})"
    # A tier that sleeps costs nothing, which is not the same as no figure.
    yield record(TIER_USD, f"{share} * on (pool) group_left () {POOL_USD} or {FORECAST_SHARE} * 0")
    yield record(TOKENS, _tokens())
    for window in PER_MILLION_WINDOWS:
        usd = f"sum by (tier) (sum_over_time({TIER_USD}[{window}]))"
        tokens = f"sum by (tier) (sum_over_time({TOKENS}[{window}]))"
        # Samples of both are equally far apart, and one that is not there is a zero.
        yield record(f"{PER_MILLION}:{window}", f"{usd} / 3600 / ({tokens} / 1e6 > 0)")


def _requests_of_pods() -> str:
    requested, pods = "kube_pod_container_resource_requests", f'namespace="{SERVING_NAMESPACE}"'

    def of(resource: str) -> str:
        return f'sum by (node, pod) ({requested}{{{pods},resource="{resource}",node!=""}})'

    tier = f"label_{series_label(TIER_LABEL)}"
    labelled = f'kube_pod_labels{{{pods},{tier}!=""}}'
    of_tier = f"max by (pod, tier) ({_renamed(labelled, 'tier', tier)})"
    # A pod that has ended keeps its requests here until it is deleted, but not its place.
    there = f'on (pod) (kube_pod_status_phase{{{pods},phase=~"Pending|Running"}} == 1)'
    amounts = f"({of(series_label(GPU_RESOURCE))} or {of('cpu')})"
    return f"({amounts} and {there}) * on (pod) group_left (tier) {of_tier}"


def _tokens() -> str:
    """A prefill pod's tokens are counted by the decode pod that answers."""

    def rate(metric: str) -> str:
        return f'sum by (tier) (rate({metric}{{namespace="{SERVING_NAMESPACE}",role!="prefill"}}[5m]))'

    engines = (
        ("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
        ("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"),
    )
    return " or ".join(f"({rate(read)} + {rate(written)})" for read, written in engines)


def _renamed(vector: str, label: str, source: str) -> str:
    return f'label_replace({vector}, "{label}", "$1", "{source}", "(.+)")'
