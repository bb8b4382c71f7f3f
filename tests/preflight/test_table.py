"""How the rows are shown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from preflight.rows import Row
from preflight.table import show

COMMAND = (
    "aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-DB2E81BA --region us-east-1"
)
ROWS = [
    Row("quota: Running On-Demand G and VT instances", "36 vCPUs", "8", "fail", "ask AWS for 36", COMMAND),
    Row("EKS version", "1.36", "1.36", "ok"),
    Row("AMI", "al2023@v20260903", "not checked", "unknown", "allow ssm:GetParameters"),
]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_verdicts_are_words_commands_are_whole_lines_and_nothing_is_wider_than_the_terminal(width: int) -> None:
    out = io.StringIO()
    show(ROWS, "Stack prod", Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert f"[1] {COMMAND}" in lines
    assert all(len(line) <= width for line in lines if COMMAND not in line)
    verdicts = [
        word for line in lines for word in ("ok", "unknown", "fail") if line.lstrip("│ ").startswith(f"{word} ")
    ]
    assert verdicts == ["ok", "unknown", "fail"]  # what failed stands last
    assert lines[-1] == "1 ok, 1 unknown, 1 fail"
