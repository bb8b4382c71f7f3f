"""Deliberate mistakes that the plan, schemas and chart defaults catch, and the table of all of them.

The others are made before the real parts, in `tests/cluster/test_mistakes.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from planning.__main__ import main
from tests import harness
from tests.charts.check import unknown_values
from tests.harness import ROOT
from tests.mistakes import MISTAKES, STACK, Mistake, Tier
from tests.schemas.checker import problems


def caught_by(tier: Tier) -> pytest.MarkDecorator:
    chosen = [one for one in MISTAKES if one.caught_by is tier]
    return pytest.mark.parametrize("mistake", chosen, ids=lambda one: f"{one.kind}-{one.what}")


def test_there_are_forty_mistakes_and_every_tier_catches_some() -> None:
    assert len(MISTAKES) >= 40
    assert len({(one.kind, one.name, one.what) for one in MISTAKES}) == len(MISTAKES)
    assert {one.caught_by for one in MISTAKES} == set(Tier)


@caught_by(Tier.PLAN)
def test_the_plan_refuses_with_exit_code_2(
    mistake: Mistake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = yaml.safe_load((ROOT / f"Pulumi.{mistake.name}.yaml").read_text(encoding="utf-8"))
    file = tmp_path / "Pulumi.wrong.yaml"
    file.write_text(yaml.safe_dump(mistake.made_in(right)), encoding="utf-8")
    assert main(["plan", str(file)]) == 2
    said = capsys.readouterr()
    assert mistake.is_said_in(said.err), said.err
    assert said.out == ""
    assert "canary" not in said.err, "a secret in clear is refused and not printed"


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
