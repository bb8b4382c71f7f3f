"""Recordings as fixtures: each stack and mode is run once per session, and only when a test asks for it."""

from __future__ import annotations

import os

import hypothesis
import pytest

# A shared machine is slow at times: that is no property of the code. Every run has the same examples: a change
# is judged by what it changed; HYPOTHESIS_PROFILE=explore looks for new ones.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
pytest.register_assert_rewrite("tests.harness")

from tests import harness  # noqa: E402 (after the rewrite is registered)
from tests.cluster import figures  # noqa: E402
from tests.harness import Recording  # noqa: E402


@pytest.fixture(params=harness.stack_names() or ["dev"])  # without a stack file, fail and do not skip
def stack(request: pytest.FixtureRequest) -> str:
    """Give the name of each stack of the repository in turn."""
    return request.param


@pytest.fixture
def preview(stack: str) -> Recording:
    """Give the preview of each stack in turn."""
    return harness.record(stack, preview=True)


@pytest.fixture
def update(stack: str) -> Recording:
    """Give the update of each stack in turn, with sample values for what providers compute."""
    return harness.record(stack, preview=False)


@pytest.fixture(scope="session")
def dev_preview() -> Recording:
    """Give the preview of the dev stack."""
    return harness.record("dev", preview=True)


@pytest.fixture(scope="session")
def dev_update() -> Recording:
    """Give the update of the dev stack."""
    return harness.record("dev", preview=False)


@pytest.fixture(scope="session")
def prod_preview() -> Recording:
    """Give the preview of the prod stack."""
    return harness.record("prod", preview=True)


@pytest.fixture(scope="session")
def prod_update() -> Recording:
    """Give the update of the prod stack."""
    return harness.record("prod", preview=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the cluster tests measured."""
    figures.show(terminalreporter)
