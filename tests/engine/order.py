"""A stand-in for the engine's destroy: every order that the graph allows, through the small world.

The engine deletes in parallel, so what the graph does not forbid may happen. Whatever stands against a deletion is
something that is still there, or something that is gone: it is enough to look at each deletion as early as it may come,
when all that need not go before it is there, and as late, when nothing is left but what it requires.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from offline.recording import Recording, Resource
from tests.engine.world import CLUSTER, REMOTE_CLUSTER, Refused, Thing, World


@dataclass(frozen=True)
class Destroy:
    """A recorded stack that exists, and what its graph lets be deleted when."""

    recording: Recording
    cut: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    """What a resource is taken not to require although it does, by URN."""

    def without(self, firsts: Collection[Resource], seconds: Collection[Resource]) -> Destroy:
        """Let no one of ``firsts`` require one of ``seconds``; what else each requires, and what requires it, stays."""
        targets = frozenset(one.urn for one in seconds)
        return Destroy(self.recording, {one.urn: targets for one in firsts})

    def refusals(self, of: Collection[Resource] | None = None) -> Iterator[str]:
        """Say which deletions, all or those ``of`` some resources, the world refuses in an order the graph allows."""
        for one in self.recording.resources if of is None else of:
            if not _exists(one):
                continue
            early = [each for each in self.recording.resources if one.urn not in self._upstream[each.urn]]
            late = [each for each in self.recording.resources if each is one or each.urn in self._upstream[one.urn]]
            for state in (early, late):
                try:
                    self._holding(state).delete(one.urn, one.id)
                except Refused as refused:
                    yield str(refused)

    def all(self) -> World:
        """Delete everything, dependents first, and give what is left. Raises ``Refused``."""
        world = built(self.recording)
        for one in reversed(self.recording.resources):
            if _exists(one):
                world.delete(one.urn, one.id)
        return world

    @cached_property
    def _upstream(self) -> Mapping[str, frozenset[str]]:
        closures: dict[str, frozenset[str]] = {}
        for one in self.recording.resources:  # in dependency order
            direct = frozenset(one.requires) & self.recording.by_urn.keys()
            closures[one.urn] = direct.union(*(closures[urn] for urn in direct)) - self.cut.get(one.urn, frozenset())
        return closures

    def _holding(self, resources: Collection[Resource]) -> World:
        world = World(_thing(one) for one in self.recording.resources if _exists(one))
        for one in resources:
            if _exists(one):
                world.put(_thing(one))
        return world


def built(recording: Recording) -> World:
    """Make the world of a recorded stack, in its order. Raises ``Refused`` when the order is wrong."""
    world = World()
    for one in recording.resources:
        if _exists(one):
            world.create(_thing(one))
    return world


def _thing(resource: Resource) -> Thing:
    inputs = dict(resource.inputs)
    if resource.type == REMOTE_CLUSTER:  # the cluster is its child in the cloud, and goes with it
        return Thing(resource.urn, CLUSTER, resource.id, {**inputs, "subnetIds": inputs.get("privateSubnetIds")})
    return Thing(resource.urn, resource.type, resource.id, inputs)


def _exists(resource: Resource) -> bool:
    return resource.kind != "component" and not resource.is_provider
