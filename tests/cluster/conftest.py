"""The real parts as fixtures. What uses them is marked ``cluster``; a part that cannot be built fails, never skips."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.cluster.build import Tools
from tests.cluster.control_plane import ControlPlane, control_plane


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and "tools" in item.fixturenames:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def tools() -> Tools:
    """Give the binaries, each built when it is first needed and not there."""
    return Tools()


@pytest.fixture(scope="module")
def cluster(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Generator[ControlPlane]:
    """Give an empty cluster of a test module's own."""
    with control_plane(tools, tmp_path_factory.mktemp("cluster")) as started:
        yield started
