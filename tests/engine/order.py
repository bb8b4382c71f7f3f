"""A stand-in for the engine's destroy: every order that the graph allows, through the small world.

The engine deletes in parallel, so what the graph does not forbid may happen. Whatever stands against a deletion is
something that is still there, or something that is gone: it is enough to look at each deletion as early as it may come,
when all that need not go before it is there, and as late, when nothing is left but what it requires.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from offline.recording import Recording, Resource
from tests.engine.world import CLUSTER, REMOTE_CLUSTER, Refused, Thing, World


@dataclass(frozen=True)
class Destroy:
    """A recorded stack that exists, and what its graph lets be deleted when."""

    recording: Recording
    edges: Mapping[str, frozenset[str]]
    """What each resource requires directly, by URN."""

    @classmethod
    def of(cls, recording: Recording) -> Destroy:
        """Take a stack as it was recorded."""
        known = recording.by_urn
        return cls(recording, {one.urn: frozenset(one.requires) & known.keys() for one in recording.resources})

    def without(self, firsts: Collection[Resource], seconds: Collection[Resource]) -> Destroy:
        """Cut every way by which one of ``firsts`` requires one of ``seconds``."""
        targets = {one.urn for one in seconds}
        cut = {
            one.urn: frozenset(
                urn
                for urn in self.edges[one.urn]
                if urn not in targets and not targets & self.recording.upstream(self.recording.by_urn[urn])
            )
            for one in firsts
        }
        return Destroy(self.recording, {**self.edges, **cut})

    def refusals(self) -> Iterator[str]:
        """Say what the world refuses in some order that the graph allows."""
        for one in self.recording.resources:
            if not _exists(one):
                continue
            early = [each for each in self.recording.resources if one.urn not in self._upstream[each.urn]]
            late = [each for each in self.recording.resources if each is one or each.urn in self._upstream[one.urn]]
            for state in (early, late):
                try:
                    _holding(state).delete(one.urn, one.id)
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
            direct = self.edges[one.urn]
            closures[one.urn] = direct.union(*(closures[urn] for urn in direct))
        return closures


def built(recording: Recording) -> World:
    """Make the world of a recorded stack, in its order. Raises ``Refused`` when the order is wrong."""
    world = World()
    for one in recording.resources:
        if _exists(one):
            world.create(_thing(one))
    return world


def _holding(resources: Collection[Resource]) -> World:
    world = World()
    for one in resources:
        if _exists(one):
            world.put(_thing(one))
    return world


def _thing(resource: Resource) -> Thing:
    inputs = dict(resource.inputs)
    if resource.type == REMOTE_CLUSTER:  # the cluster is its child in the cloud, and goes with it
        return Thing(resource.urn, CLUSTER, resource.id, {**inputs, "subnetIds": inputs.get("privateSubnetIds")})
    return Thing(resource.urn, resource.type, resource.id, inputs)


def _exists(resource: Resource) -> bool:
    return resource.kind != "component" and not resource.is_provider
