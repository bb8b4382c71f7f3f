"""Prometheus' own ``promtool test rules``: its rule manager and query engine over made-up series, in made-up time."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.build import Tools

Groups = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Expected:
    """What an expression gives at a moment, by its labels."""

    expression: str
    at: str
    """Since the first sample, as ``15m``."""
    samples: Mapping[str, float]
    """By labels in braces, as PromQL writes them; empty: no series."""


def check(
    tools: Tools,
    directory: Path,
    groups: Groups,
    series: Mapping[str, str],
    expected: Sequence[Expected],
    *,
    interval: str = "30s",
) -> None:
    """Assert what expressions give when the rules ran over ``series`` (values in promtool's own notation).

    The first sample is of 1 January 1970. Rules are evaluated every ``interval``, and samples are as far apart.
    """
    (directory / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{**group, "interval": interval} for group in groups]})
    )
    test = {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": one.expression,
                "eval_time": one.at,
                "exp_samples": [{"labels": labels, "value": value} for labels, value in one.samples.items()],
            }
            for one in expected
        ],
    }
    file = directory / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": interval, "tests": [test]}))
    command = [tools["prometheus"] / "promtool", "test", "rules", file]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
