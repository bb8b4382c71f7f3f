"""Every resource of the program through the provider servers, as an engine would bring it: made, compared, gone.

Not proven: what the engine makes of the answers (`test_with_engine`, where there is one).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from offline import wire
from offline.recording import Recording, Resource
from tests.engine.serving import Served, provider_servers
from tests.engine.world import CLUSTER, REMOTE_CLUSTER


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with provider_servers(tmp_path_factory.mktemp("providers")) as running:
        yield running


@pytest.fixture(scope="module")
def stubs(served: Served) -> dict[str, Any]:
    return {
        package: provider_pb2_grpc.ResourceProviderStub(grpc.insecure_channel(f"127.0.0.1:{port}"))
        for package, port in served.ports.items()
    }


def made_by_providers(recording: Recording) -> list[Resource]:
    return [one for one in recording.resources if one.needs_provider]


def urn_of(resource: Resource) -> str:
    """Give the cluster's own URN for the component that makes it."""
    return resource.urn.replace(REMOTE_CLUSTER, CLUSTER)


def package_of(resource: Resource) -> str:
    return "aws" if resource.type == REMOTE_CLUSTER else resource.package


def test_a_stack_is_previewed_with_nothing_made(stubs: dict[str, Any], served: Served, preview: Recording) -> None:
    before = len(served.calls())
    for one in made_by_providers(preview):
        answer = stubs[package_of(one)].Create(
            provider_pb2.CreateRequest(urn=urn_of(one), properties=wire.to_struct(dict(one.inputs)), preview=True)
        )
        assert answer.id == ""
        assert wire.from_struct(answer.properties).items() >= dict(one.inputs).items(), one.urn
    assert len(served.calls()) == before


def test_a_stack_is_made_stays_as_it_is_and_goes(stubs: dict[str, Any], update: Recording) -> None:
    made: list[tuple[Resource, str]] = []
    for one in made_by_providers(update):
        provider, urn = stubs[package_of(one)], urn_of(one)
        news = wire.to_struct(dict(one.inputs))
        checked = provider.Check(provider_pb2.CheckRequest(urn=urn, news=news, randomSeed=b"seed")).inputs
        answer = provider.Create(provider_pb2.CreateRequest(urn=urn, properties=checked, timeout=600))
        assert answer.id
        again = provider.Check(provider_pb2.CheckRequest(urn=urn, news=news, olds=checked, randomSeed=b"other")).inputs
        difference = provider.Diff(
            provider_pb2.DiffRequest(id=answer.id, urn=urn, old_inputs=checked, olds=answer.properties, news=again)
        )
        assert difference.changes == provider_pb2.DiffResponse.DIFF_NONE, urn
        made.append((one, answer.id))
    for one, id_ in reversed(made):
        stubs[package_of(one)].Delete(provider_pb2.DeleteRequest(urn=urn_of(one), id=id_, timeout=600))
