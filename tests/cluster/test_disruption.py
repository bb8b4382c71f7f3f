"""What becomes of nodes under the real Karpenter: limits, empty ones, fallback to on-demand, spot that is taken back.

Pools and pods are as the program emits them. The kwok flavour cannot answer that EC2 has no capacity: that there is no
spot is said by a market without spot prices. Its nodes take 30 s to appear, which every figure includes; a
real node takes longer until a replica serves, and the plan's cold start says how long.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Sequence

import pytest

from components.names import NODE_IMAGE_LABEL
from tests import harness
from tests.cluster.build import Tools
from tests.cluster.client import Object
from tests.cluster.figures import Record, record_figure, record_placements
from tests.cluster.karpenter import NODE_CLAIM, NODE_CLASS, NODE_POOL, KarpenterStack, karpenter_stack
from tests.cluster.placement import Placement
from tests.cluster.processes import wait_until

_IDLE_S = 15
"""In place of the 300 that a stack has by default: the tests wait for it."""

_LOOK_S = 10 + 15
"""Karpenter looks for nodes to disrupt every 10 s, and 15 s later whether what it found still holds."""

_TERMINATION_S = 20
"""From there until the node and its claim are gone; the kwok flavour takes nodes away every 5 s."""

_WARNING_S = 120
"""EC2 takes a spot instance back two minutes after its warning."""


@pytest.fixture(scope="module")
def dev(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Generator[KarpenterStack]:
    """Give the dev stack, whose empty nodes are kept for seconds and not for minutes."""
    directory = tmp_path_factory.mktemp("disruption-dev")
    scaling = {"idleCooldownMinutes": 30, "nodeIdleMinutes": _IDLE_S / 60}
    with karpenter_stack(tools, directory, "dev", one_launch_template=True, scaling=scaling) as stack:
        yield stack


@pytest.fixture(scope="module")
def prod(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Generator[KarpenterStack]:
    """Give the prod stack, just as the program emits it."""
    with karpenter_stack(tools, tmp_path_factory.mktemp("disruption-prod"), "prod") as stack:
        yield stack


def test_a_pool_stops_at_its_limit_and_the_replica_that_is_left_over_says_why(dev: KarpenterStack) -> None:
    """The limit is what the budget pays for."""
    dev.clear()
    (pool,) = (pool for pool in dev.plan.node_pools if pool.name == "fast")
    most = pool.gpu_limit // pool.gpu_count
    dev.scale({"fast-engine": most + 1})

    reason = wait_until(lambda: _refusal(dev, dev.pods("fast-engine")), "Karpenter refuses a replica", seconds=60)

    assert "all available instance types exceed limits for nodepool" in reason
    dev.wait_running({"fast-engine": most}, left_over=1)
    assert len(dev.node_claims()) == most


def test_a_pod_that_fits_no_node_of_its_pool_gets_the_reason_in_an_event(dev: KarpenterStack) -> None:
    """Here it asks for twice the GPUs of a node."""
    template = dev.workloads["quality-engine"].manifest["spec"]["template"]
    (container,) = template["spec"]["containers"]
    resources = {kind: {**amounts, "nvidia.com/gpu": "2"} for kind, amounts in container["resources"].items()}
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "too-large", "namespace": "llm"},
        "spec": {**template["spec"], "containers": [{**container, "resources": resources}]},
    }
    dev.client.apply(pod)
    try:
        reason = wait_until(lambda: _refusal(dev, [pod]), "Karpenter refuses the pod", seconds=60)
    finally:
        dev.client.delete("v1", "Pod", "too-large", "llm")

    assert "no instance type has enough resources" in reason
    assert "nvidia.com/gpu" in reason


def test_karpenter_complains_of_a_budget_that_the_api_server_took(dev: KarpenterStack) -> None:
    """So its log is the place to look for complaints about the pools, and one without errors says something."""
    assert dev.complaints() == []
    emitted = dev.client.get(*NODE_POOL, "fast")
    assert emitted is not None
    never = [{"nodes": "1", "schedule": "0 99 * * *", "duration": "1h"}]
    _set_budgets(dev, "fast", never)
    try:
        wait_until(lambda: any("budget" in line for line in dev.complaints()), "Karpenter complains", seconds=60)
    finally:
        _set_budgets(dev, "fast", emitted["spec"]["disruption"]["budgets"])


def test_empty_nodes_go_together_after_the_planned_delay_and_not_before(
    dev: KarpenterStack, record_property: Record
) -> None:
    """Their disruption budget lets all of them go: each costs money and serves nobody."""
    dev.clear()
    every = dict.fromkeys(dev.workloads, 1)
    dev.scale(every)
    dev.wait_running(every)
    assert {pool.consolidate_after_s for pool in dev.plan.node_pools} == {_IDLE_S}

    dev.scale(dict.fromkeys(every, 0))
    wait_until(lambda: not any(map(dev.pods, every)), "all replicas are gone", seconds=30)
    emptied = time.monotonic()
    marked_s: dict[str, float] = {}

    def all_gone() -> bool:
        claims = dev.node_claims()
        for claim in claims:
            if "deletionTimestamp" in claim["metadata"]:
                marked_s.setdefault(claim["metadata"]["name"], time.monotonic() - emptied)
        return not claims

    wait_until(all_gone, "all nodes are gone", seconds=_IDLE_S + 2 * _LOOK_S + _TERMINATION_S)
    gone_s = time.monotonic() - emptied
    first_s, last_s = min(marked_s.values()), max(marked_s.values())

    record_figure(
        record_property,
        f"{len(every)} empty nodes: taken {first_s:.0f} to {last_s:.0f} s after their last replica, gone after "
        f"{gone_s:.0f} s (planned delay {_IDLE_S} s, Karpenter's own look {_LOOK_S} s)",
    )
    assert first_s >= _IDLE_S - 1
    assert last_s - first_s <= _LOOK_S, "the budget for empty nodes held some of them back"


def test_without_spot_every_tier_runs_on_its_cheapest_on_demand_offering(
    dev: KarpenterStack, record_property: Record
) -> None:
    """The market has no spot price for any type of the plan, and Karpenter reads it anew."""
    dev.clear()
    spot = dict(dev.aws.market.spot)
    dev.aws.market.spot.clear()
    try:
        dev.restart_karpenter()
        every = dict.fromkeys(dev.workloads, 1)
        dev.scale(every)
        dev.wait_running(every)
        placements = dev.placements()
        dev.clear()
    finally:
        dev.aws.market.spot.update(spot)
        dev.restart_karpenter()

    record_placements(record_property, placements)
    assert len(placements) == len(every)
    for each in placements:
        cheapest = min(one.on_demand_usd_per_hour for one in each.planned.tier.offerings)
        assert each.objections == []
        assert each.launched.capacity_type == "on-demand"
        assert each.launched.usd_per_hour == pytest.approx(cheapest)


@pytest.mark.parametrize("interruptions", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_spot_nodes_that_are_taken_back_are_drained_and_their_replicas_placed_anew_within_the_warning(
    prod: KarpenterStack, interruptions: int, record_property: Record
) -> None:
    """From EC2's message in the queue to a replica's new place on a node; all nodes of a tier are taken at once."""
    prod.clear()
    wanted = {name: workload.replicas for name, workload in prod.workloads.items()}
    prod.scale(wanted)
    placed_s: list[float] = []
    drained_s: list[float] = []
    while len(placed_s) < interruptions:
        prod.wait_running(wanted)
        prod.remove_spare_nodes()  # no replacement may find one
        on_spot = [each for each in prod.placements() if each.launched.capacity_type == "spot"]
        taken = on_spot[: interruptions - len(placed_s)]
        placed, drained = _take_back(prod, taken)
        placed_s += placed
        drained_s.append(drained)
    prod.wait_running(wanted)

    record_figure(
        record_property,
        f"{len(placed_s)} spot interruptions: replacements placed after {min(placed_s):.0f} to {max(placed_s):.0f} s, "
        f"nodes drained and gone after {min(drained_s):.0f} to {max(drained_s):.0f} s (limit {_WARNING_S} s)",
    )
    assert len(placed_s) == interruptions
    assert max(placed_s + drained_s) < _WARNING_S
    assert [each.objections for each in prod.placements() if each.objections] == []


def test_a_new_image_rolls_the_engines_and_each_serves_on_a_new_node_before_an_old_one_goes(
    prod: KarpenterStack, record_property: Record
) -> None:
    """Node class, pool and Deployment are applied as `pulumi up` does; readiness is kwok's, an engine loads longer."""
    prod.clear()
    count = prod.workloads["fast-engine"].replicas
    prod.scale({"fast-engine": count})
    prod.wait_running({"fast-engine": count})
    old = {claim["metadata"]["name"] for claim in prod.node_claims()}
    update = harness.record_with("prod", preview=False, capacity={"amiAlias": "al2023@v20261001"})
    started = time.monotonic()
    for kind, name in (("EC2NodeClass", "fast"), ("NodePool", "fast"), ("Deployment", "fast-engine")):
        (manifest,) = (one for one in harness.kubernetes_objects(update, kind) if one["metadata"]["name"] == name)
        prod.client.apply(manifest)
    serving: list[int] = []

    def rolled() -> bool:
        phases = Counter(pod["status"].get("phase") for pod in prod.pods("fast-engine"))
        serving.append(phases["Running"])
        return not old & {claim["metadata"]["name"] for claim in prod.node_claims()}

    wait_until(rolled, f"nodes {old} are empty and gone", seconds=180 + 120 * count, every=0.25)
    prod.wait_running({"fast-engine": count})

    record_figure(
        record_property, f"a new image on {count} replicas, one by one: {time.monotonic() - started:.0f} s in all"
    )
    assert min(serving) == count, "an old replica went before a new one ran"
    images = {claim["metadata"]["labels"][NODE_IMAGE_LABEL] for claim in prod.node_claims()}
    assert images == {"al2023-v20261001-1.36"}


@pytest.mark.soak
def test_nodes_that_drift_for_another_reason_are_replaced_one_at_a_time_while_the_tier_serves(
    prod: KarpenterStack, record_property: Record
) -> None:
    """As the pool's budget for drifted nodes says: here the class alone has changed, and no pod with it."""
    prod.clear()
    wanted = {"fast-engine": prod.workloads["fast-engine"].replicas}
    prod.scale(wanted)
    prod.wait_running(wanted)
    old = {claim["metadata"]["name"] for claim in prod.node_claims()}
    started = time.monotonic()
    prod.client.patch(*NODE_CLASS, "fast", None, {"spec": {"tags": {"team": "another"}}})
    seen: list[tuple[int, int]] = []

    def replaced() -> bool:
        claims = prod.node_claims()
        going = sum("deletionTimestamp" in claim["metadata"] for claim in claims)
        serving = sum(pod["status"].get("phase") == "Running" for pod in prod.pods("fast-engine"))
        seen.append((going, serving))
        return not old & {claim["metadata"]["name"] for claim in claims}

    wait_until(replaced, f"nodes {old} are replaced", seconds=len(old) * 120, every=0.25)
    prod.wait_running(wanted)

    record_figure(record_property, f"{len(old)} drifted nodes, one by one: {time.monotonic() - started:.0f} s in all")
    assert max(going for going, _ in seen) == 1
    assert min(serving for _, serving in seen) >= len(old) - 1


def _set_budgets(stack: KarpenterStack, pool: str, budgets: list[dict[str, str]]) -> None:
    stack.client.patch(*NODE_POOL, pool, None, {"spec": {"disruption": {"budgets": budgets}}})


def _take_back(stack: KarpenterStack, taken: Sequence[Placement]) -> tuple[list[float], float]:
    """Interrupt nodes; give the seconds until each replica is placed anew, and until the last of the nodes is gone."""
    names = {each.launched.node_claim for each in taken}
    workloads = Counter(each.planned.workload for each in taken)
    before = {_uid(pod) for workload in workloads for pod in stack.pods(workload)}
    sent = time.monotonic()
    for name in names:
        claim = stack.client.get(*NODE_CLAIM, name)
        assert claim is not None
        stack.aws.warn_of_interruption(claim["status"]["providerID"].rpartition("/")[2])
    placed: dict[str, float] = {}

    def all_placed() -> bool:
        for workload in workloads:
            for pod in stack.pods(workload):
                if _uid(pod) not in before and "nodeName" in pod["spec"]:
                    placed.setdefault(_uid(pod), time.monotonic() - sent)
        return len(placed) == len(taken)

    def all_gone() -> bool:
        return not names & {claim["metadata"]["name"] for claim in stack.node_claims()}

    wait_until(all_placed, f"{len(taken)} replicas have a new place", seconds=_WARNING_S, every=0.25)
    wait_until(all_gone, f"{names} are drained and gone", seconds=_WARNING_S, every=0.25)
    return list(placed.values()), time.monotonic() - sent


def _refusal(stack: KarpenterStack, pods: Sequence[Object]) -> str:
    """Karpenter's own words on why one of the pods has no node; empty while it has said nothing."""
    return next(
        (
            event["message"]
            for pod in pods
            for event in stack.client.events(pod["metadata"]["name"], reason="FailedScheduling")
            if "karpenter" in (event.get("source", {}).get("component"), event.get("reportingComponent"))
        ),
        "",
    )


def _uid(pod: Object) -> str:
    return str(pod["metadata"]["uid"])
