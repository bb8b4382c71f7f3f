"""Every tier of every stack, placed by the real Karpenter: on the nodes that the plan priced, the cheapest first.

It decides over EC2's instance types and zones as moto knows them, at the prices of the plan's facts. Not proved: that
EC2 has the capacity, or that today's prices are these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from itertools import product

import pytest

from tests import harness
from tests.cluster.build import Tools
from tests.cluster.figures import Record, record_figure, record_placements
from tests.cluster.karpenter import KarpenterStack, karpenter_stack
from tests.cluster.placement import Placement


@pytest.fixture(scope="module", params=harness.stack_names() or ["dev"])
def running(
    request: pytest.FixtureRequest, tools: Tools, tmp_path_factory: pytest.TempPathFactory
) -> Generator[KarpenterStack]:
    """Give each stack in turn, its pools served by Karpenter."""
    directory = tmp_path_factory.mktemp(f"placement-{request.param}")
    with karpenter_stack(tools, directory, request.param, one_launch_template=True) as stack:
        yield stack


@pytest.mark.parametrize("runs", [1, pytest.param(5, marks=pytest.mark.soak)])
def test_every_replica_gets_a_node_of_its_own_which_the_plan_priced_and_the_cheapest_to_be_had(
    running: KarpenterStack, runs: int, record_property: Record
) -> None:
    """Model and number of GPUs, capacity type and zone are the plan's.

    A tier of several replicas is spread over zones, which Karpenter settles before it looks at prices: there the
    cheapest is that of the zone.
    """
    wanted = {name: workload.replicas for name, workload in running.workloads.items()}
    offered = _offered(running)
    for _ in range(runs):
        running.scale(wanted)
        running.wait_running(wanted)
        placements = running.placements()
        record_placements(record_property, placements)

        assert Counter(each.planned.workload for each in placements) == wanted
        assert {each.launched: each.objections for each in placements if each.objections} == {}
        replicas_of_a_node = Counter(each.launched.node_claim for each in placements)
        assert max(replicas_of_a_node.values()) == 1, f"two replicas share a node: {placements}"
        for each in placements:
            cheapest = _cheapest(running, each, offered)
            assert (each.launched.capacity_type, each.launched.usd_per_hour) == (
                each.planned.capacity_types[0],
                pytest.approx(min(cheapest.values())),
            ), f"{each.launched} is not the cheapest of {cheapest}"
        assert _tiers_in_one_zone(placements, offered) == []
        _compare_prices(running, placements, record_property)
        spare = running.remove_spare_nodes()
        if spare:
            record_figure(
                record_property, f"{placements[0].planned.stack}: {spare} spare of {spare + len(placements)} nodes"
            )
        running.clear()


def test_karpenter_has_no_complaint_about_the_pools(running: KarpenterStack) -> None:
    """The API server takes budgets and requirements that Karpenter refuses later, in its log."""
    assert running.complaints() == []


def _tiers_in_one_zone(placements: Sequence[Placement], offered: set[tuple[str, str]]) -> list[str]:
    """Tiers whose replicas share a zone, floor included, though every zone has all of their types.

    Where a zone lacks some, Karpenter may try that one first and then give up the spread.
    """
    zones: dict[str, list[str]] = {}
    for each in placements:
        tier = each.planned.tier
        if tier.replicas.several and offered.issuperset(product(tier.instance_types, each.planned.zones)):
            zones.setdefault(tier.name, []).append(each.launched.zone)
    return [name for name, all_of_them in zones.items() if len(all_of_them) > 1 and len(set(all_of_them)) == 1]


def _compare_prices(running: KarpenterStack, placements: Sequence[Placement], record: Record) -> None:
    """The plan prices spot at the median zone; nothing may cost more than its choice in the dearest one."""
    launched = sum(each.launched.usd_per_hour for each in placements)
    planned = sum(each.planned.cheapest[1] for each in placements)
    dearest = sum(max(_zone_prices(running, each)) for each in placements)
    difference = 100 * (launched / planned - 1)
    record_figure(
        record,
        f"{placements[0].planned.stack}: launched {launched:.4f} USD/h, planned {planned:.4f} ({difference:+.1f} %); "
        f"the plan's choice in its dearest zones {dearest:.4f}",
    )
    assert launched <= dearest + 1e-9


def _zone_prices(running: KarpenterStack, each: Placement) -> list[float]:
    """What the plan's cheapest offering costs in each zone."""
    type_, capacity_type = each.planned.cheapest[0].instance_type, each.planned.capacity_types[0]
    prices = (running.aws.market.usd_per_hour(type_, capacity_type, zone) for zone in running.plan.network.zones)
    return [price for price in prices if price is not None]


def _offered(running: KarpenterStack) -> set[tuple[str, str]]:
    """Types and zones that EC2 offers."""
    pages = running.aws.client("ec2").get_paginator("describe_instance_type_offerings")
    found = pages.paginate(LocationType="availability-zone")
    return {(one["InstanceType"], one["Location"]) for page in found for one in page["InstanceTypeOfferings"]}


def _cheapest(running: KarpenterStack, each: Placement, offered: set[tuple[str, str]]) -> dict[str, float]:
    """Prices of all of the tier's types in the zones that a node may be in, of the capacity type wanted first."""
    tier, capacity_type = each.planned.tier, each.planned.capacity_types[0]
    zones = (each.launched.zone,) if tier.replicas.several else running.plan.network.zones
    return {
        f"{type_} in {zone}": price
        for type_ in tier.instance_types
        for zone in zones
        if (type_, zone) in offered
        and (price := running.aws.market.usd_per_hour(type_, capacity_type, zone)) is not None
    }
