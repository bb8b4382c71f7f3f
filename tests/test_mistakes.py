"""Deliberate mistakes that schemas and chart defaults catch, and the table of all of them.

The others are made before the real parts, in `tests/cluster/test_mistakes.py`.
"""

from __future__ import annotations

import pytest

from tests import harness
from tests.charts.check import unknown_values
from tests.mistakes import MISTAKES, STACK, Mistake, Tier
from tests.schemas.checker import problems


def caught_by(tier: Tier) -> pytest.MarkDecorator:
    chosen = [one for one in MISTAKES if one.caught_by is tier]
    return pytest.mark.parametrize("mistake", chosen, ids=lambda one: f"{one.kind}-{one.what}")


def test_there_are_forty_mistakes_and_every_tier_catches_some() -> None:
    assert len(MISTAKES) >= 40
    assert len({(one.kind, one.name, one.what) for one in MISTAKES}) == len(MISTAKES)
    assert {one.caught_by for one in MISTAKES} == set(Tier)


@caught_by(Tier.SCHEMA)
def test_a_schema_refuses(mistake: Mistake) -> None:
    right = mistake.chosen_from(harness.kubernetes_objects(harness.record(STACK, preview=False)))
    assert problems(right) == []
    assert mistake.is_said_in("\n".join(problems(mistake.made_in(right))))


@caught_by(Tier.CHART)
def test_a_charts_defaults_do_not_know(mistake: Mistake) -> None:
    releases = {one.name: one for one in harness.helm_releases(harness.record(STACK, preview=False))}
    release = releases[mistake.name]
    assert unknown_values(release.chart, release.values) == []
    assert mistake.is_said_in("\n".join(unknown_values(release.chart, mistake.made_in(release.values))))
