"""`python -m offline` says what a person needs and nothing else.

Not proven here: what it looks like in a terminal (colours, the spinner).
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from offline.__main__ import main

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: sample\n", encoding="utf-8")
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text("config:\n  sample:token: {secure: v1:abc}\n  sample:replicas: [1, 2]\n", encoding="utf-8")
    return path


@pytest.fixture
def offline(stack_file: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def command(name: str, *arguments: str | Path, program: str = "small") -> Result:
        code = main([name, str(stack_file), *map(str, arguments), "--program", str(PROGRAMS / f"{program}.py")])
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return command


def test_preview_prints_report_then_tree_then_outputs(offline: Command) -> None:
    result = offline("preview")
    assert result.code == 0
    assert result.err == ""
    parts = [
        "the report of the program",
        "warning: one thing to watch",
        "13 resources: 4 AWS, 3 Kubernetes objects, 1 Helm release, 1 EKS cluster, 1 component, 3 providers",
        "├─ Group  group\n│  ├─ sqs.Queue  group-queue-1",
        "eks.Cluster  cluster  (remote component: what its plugin creates inside is not listed, it counts as one)",
        "└─ Helm release  metrics  (metrics 1.2.3)",
        "3 stack outputs",
        "kubeconfig: [secret]",
        "vpc: known after pulumi up",
    ]
    positions = [result.out.find(part) for part in parts]
    assert -1 not in positions, parts[positions.index(-1)]
    assert positions == sorted(positions)


def test_preview_folds_many_siblings_of_a_type_unless_asked_for_all(offline: Command) -> None:
    folded, everything = offline("preview", program="many"), offline("preview", "--all", program="many")
    assert "ec2.Subnet × 60  subnet-0, subnet-1," in folded.out
    assert len(folded.out.splitlines()) < 25
    assert max(map(len, folded.out.splitlines())) <= 100
    assert "ec2.Subnet  subnet-59" in everything.out
    assert folded.out.count("243 resources") == everything.out.count("243 resources") == 1


def test_preview_as_json_is_only_json_and_without_secrets(offline: Command) -> None:
    result = offline("preview", "--json")
    document = json.loads(result.out)
    assert document["outputs"] == {
        "kubeconfig": "[secret]",
        "region": "eu-central-1",
        "vpc": "known after pulumi up",
    }
    assert len(document["resources"]) == 13
    assert "[encrypted]" not in result.out


@pytest.mark.parametrize("program", ["refuses", "exits"])
def test_a_configuration_error_is_its_message_alone_and_exit_code_2(offline: Command, program: str) -> None:
    result = offline("preview", program=program)
    assert result.code == 2
    assert result.out == ""
    assert result.err.splitlines()[-1].strip().endswith("sample:mode must be right")
    assert "Traceback" not in result.err


def test_a_bug_shows_its_traceback_from_the_programs_first_line_on(offline: Command) -> None:
    result = offline("preview", program="buggy")
    assert result.code == 1
    lines = result.err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "buggy.py" in lines[1]
    assert "return replicas // 0" in result.err
    assert lines[-1].startswith("ZeroDivisionError")
    assert "asyncio" not in result.err


def test_a_bug_in_an_apply_shows_where_it_is(offline: Command) -> None:
    result = offline("preview", program="buggy_later")
    assert result.code == 1
    assert "buggy_later.py" in result.err
    assert "KeyError: 'given!'" in result.err


def test_urns_that_stand_twice_are_refused_as_the_engine_does(offline: Command) -> None:
    result = offline("preview", program="twice")
    assert result.code == 2
    assert "duplicate resource URN urn:pulumi:dev::sample::sample:index:Pair$aws:sqs/queue:Queue::queue" in result.err


def test_what_cannot_be_answered_offline_is_said(offline: Command) -> None:
    result = offline("preview", program="asks")
    assert result.code == 1
    assert "cannot be previewed offline: the program calls aws:ec2/getAmi:getAmi" in result.err
    assert "Traceback" not in result.err


def test_an_unknown_stack_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", "no-such-stack"]) == 2
    assert "there is no stack 'no-such-stack' here" in capsys.readouterr().err


def test_manifests_are_one_file_an_object_in_the_programs_order(offline: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = offline("manifests", out)
    assert result.code == 0
    assert sorted(str(file.relative_to(out)) for file in out.rglob("*.*")) == [
        ".frugal-llm-manifests",
        "001-namespace-apps.yaml",
        "002-secret-apps-token.yaml",
        "003-configmap-apps-settings.yaml",
        "index.md",
        "releases/metrics.values.yaml",
        "releases/metrics.yaml",
    ]
    index = (out / "index.md").read_text()
    assert "| 002 | Secret apps/token | `002-secret-apps-token.yaml` | 001 |" in index
    release = yaml.safe_load((out / "releases/metrics.yaml").read_text())
    assert release == {
        "order": 4,
        "name": "metrics",
        "namespace": "apps",
        "chart": "metrics",
        "version": "1.2.3",
        "repo": "https://charts.example.org",
        "skipCrds": False,
    }


def test_manifests_hold_placeholders_and_no_secret(offline: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    offline("manifests", out)
    secret = yaml.safe_load((out / "002-secret-apps-token.yaml").read_text())
    assert secret["metadata"] == {"name": "token", "namespace": "apps"}, "an autonamed object takes the resource's name"
    assert secret["stringData"] == {"token": "[secret]"}
    values = yaml.safe_load((out / "releases/metrics.values.yaml").read_text())
    assert values == {"role": "${role.arn}", "password": "[secret]", "replicas": 2}
    assert "- `${vpc.id}`" in (out / "index.md").read_text()
    everything = "".join(file.read_text() for file in out.rglob("*") if file.is_file())
    assert "[encrypted]" not in everything
    assert base64.b64encode(b"[encrypted]").decode() not in everything


def test_manifests_with_samples_have_values_of_the_right_shape(offline: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    offline("manifests", out, "--samples")
    assert "vpc: vpc-" in (out / "003-configmap-apps-settings.yaml").read_text()
    assert "${" not in "".join(file.read_text() for file in out.rglob("*.yaml"))


def test_manifests_are_the_same_in_every_run_and_replace_those_of_the_last(offline: Command, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    offline("manifests", one)
    offline("manifests", two)
    offline("manifests", two, program="many")
    assert len(list(two.glob("*-deployment-apps-server-*.yaml"))) == 60
    assert not (two / "releases").exists()
    offline("manifests", two)
    files = sorted(file.relative_to(one) for file in one.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(two) for file in two.rglob("*") if file.is_file())
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes(), file


def test_manifests_leave_a_directory_alone_that_they_did_not_write(offline: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    result = offline("manifests", out)
    assert result.code == 2
    assert "holds files that were not written here (precious.txt)" in result.err
    assert [file.name for file in out.iterdir()] == ["precious.txt"]

    (out / "precious.txt").unlink()
    assert offline("manifests", out).code == 0
    (out / "precious.txt").write_text("added later")
    assert offline("manifests", out).code == 2
    assert (out / "precious.txt").read_text() == "added later"


@pytest.mark.slow
def test_two_processes_write_the_same_manifests(stack_file: Path, tmp_path: Path) -> None:
    """Hash seeds differ between processes, and with them the order of sets."""
    texts: list[dict[str, bytes]] = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        command = [sys.executable, "-m", "offline", "manifests", stack_file, out, "--program", PROGRAMS / "small.py"]
        subprocess.run(command, cwd=ROOT, env={"PYTHONHASHSEED": seed}, check=True, capture_output=True)
        texts.append({str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*.*")})
    assert texts[0] == texts[1]
