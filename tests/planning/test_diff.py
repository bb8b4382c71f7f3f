"""What changes between two stack files. The money of every step is held against a stack file planned with just that."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from planning.__main__ import main
from planning.stack import plan_config
from planning.stackfile import read_stack

ROOT = Path(__file__).resolve().parents[2]
PROD, DEV = ROOT / "Pulumi.prod.yaml", ROOT / "Pulumi.dev.yaml"
ONE_OF_EACH = {"minReplicas: 2": "minReplicas: 1"}


def variant(path: Path, replacements: dict[str, str], of: Path = PROD) -> Path:
    text = of.read_text(encoding="utf-8")
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path


def expected_usd(path: Path) -> float:
    stack = read_stack(path)
    return plan_config(stack.region, stack.values)[1].forecast.total.expected


def diff(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    assert main(["diff", *map(str, arguments)]) == code
    out, err = capsys.readouterr()
    return err if code else out


def data(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    return json.loads(diff(capsys, *arguments, "--json"))


def test_the_headline_says_what_the_month_was_and_will_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    single = variant(tmp_path / "Pulumi.prod.yaml", ONE_OF_EACH)
    before, after = expected_usd(PROD), expected_usd(single)
    headline = diff(capsys, PROD, single).splitlines()[0]
    percent = f"{100 * (after / before - 1):.1f}".replace("-", "−")
    assert headline == (f"## Projected month: ${before:,.0f} → ${after:,.0f} (−${before - after:,.0f}, {percent} %)")


def test_each_step_is_the_month_of_the_stack_file_with_the_settings_up_to_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    network = {"natGateways: per-zone": "natGateways: single"}
    both = variant(tmp_path / "both.yaml", network | ONE_OF_EACH)
    first, last = data(capsys, PROD, both)["why"][0], data(capsys, PROD, both)["why"][-1]
    assert first["paths"] == ["frugal-llm:network.natGateways"]
    only_network = expected_usd(variant(tmp_path / "network.yaml", network))
    assert first["month_usd"] == pytest.approx(only_network, abs=0.005)
    assert first["usd"] == pytest.approx(only_network - expected_usd(PROD), abs=0.01)
    assert last["month_usd"] == pytest.approx(expected_usd(both), abs=0.005)


@pytest.mark.parametrize("stacks", [(PROD, DEV), (DEV, PROD)], ids=str)
def test_the_steps_add_up_to_the_change_of_the_month(
    capsys: pytest.CaptureFixture[str], stacks: tuple[Path, Path]
) -> None:
    found = data(capsys, *stacks)
    before, after = map(expected_usd, stacks)
    assert found["changeUsd"] == pytest.approx(after - before, abs=0.01)
    assert sum(step["usd"] for step in found["why"]) == pytest.approx(found["changeUsd"])
    # A line of the bill that changed by less than a cent or a per cent is left out.
    left_out = after - before - sum(item["after_usd"] - item["before_usd"] for item in found["items"])
    assert abs(left_out) <= 0.01 * max(before, after)


def test_settings_that_cannot_be_planned_alone_are_one_step_with_the_next(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # An on-demand floor of 2 needs a minimum of 2: minReplicas 1 alone is no stack.
    floor = variant(
        tmp_path / "a.yaml", {"minReplicas: 2\n    - name": "minReplicas: 2\n      onDemandFloor: 2\n    - name"}
    )
    lower = variant(
        tmp_path / "b.yaml", {"minReplicas: 2\n      onDemandFloor: 2": "minReplicas: 1\n      onDemandFloor: 1"}, floor
    )
    (step,) = data(capsys, floor, lower)["why"]
    assert {path.rpartition(".")[2] for path in step["paths"]} == {"minReplicas", "onDemandFloor"}


def test_tiers_are_told_apart_by_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {tier["tier"]: tier["kind"] for tier in data(capsys, PROD, DEV)["tiers"]}
    assert kinds == {"fast": "changed", "quality": "changed", "batch": "added"}
    kinds = {tier["tier"]: tier["kind"] for tier in data(capsys, DEV, PROD)["tiers"]}
    assert kinds["batch"] == "removed"


def test_settings_are_listed_with_both_values_and_without_effect_if_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = diff(capsys, PROD, variant(tmp_path / "b.yaml", {"monthlyUsd: 5000": "monthlyUsd: 6000"}))
    assert "| `frugal-llm:budget.monthlyUsd` | `5000` | `6000` |" in text
    assert "Without effect on the month: `frugal-llm:budget.monthlyUsd`." in text
    assert "(no change)" in text


def test_equal_stacks_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "The settings are equal: nothing changes." in diff(capsys, PROD, PROD)


def test_warnings_are_new_or_gone_and_not_both_for_another_figure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = data(capsys, PROD, variant(tmp_path / "b.yaml", ONE_OF_EACH))
    assert sum("single spot replica" in warning for warning in found["newWarnings"]) == 2
    # Both stacks say what their limits would cost, with other figures.
    assert not any("worst price" in warning for warning in found["newWarnings"] + found["goneWarnings"])


def test_a_stack_over_its_budget_is_compared_and_warned_of(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = diff(capsys, PROD, variant(tmp_path / "b.yaml", {"monthlyUsd: 5000": "monthlyUsd: 2000"}))
    over = expected_usd(PROD) - 2000
    assert text.splitlines()[0].endswith(f"(no change): over budget by ${over:,.0f}, the preview fails")
    lines = text[text.index("- over budget: frugal-llm:budget.monthlyUsd is 2000") :].splitlines()
    assert lines[0].endswith("the least change first:")
    assert re.match(r"  - [\d,]+ USD a month, giving up ", lines[1])
    assert any(line.startswith("  - or raise the budget to ") for line in lines)
    assert max(map(len, lines)) < 400
    # The budget moves no money: there is nothing to say under Why.
    assert "### Why" not in text


def test_only_a_soft_budget_lets_the_preview_go_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    soft = variant(tmp_path / "b.yaml", {"monthlyUsd: 5000": "monthlyUsd: 2000, whenExceeded: warn"})
    headline = diff(capsys, PROD, soft).splitlines()[0]
    assert "over budget by $" in headline
    assert "fails" not in headline
    assert data(capsys, PROD, soft)["overBudget"] is True
    assert data(capsys, soft, PROD)["overBudget"] is False
    assert "over budget" not in diff(capsys, soft, PROD).splitlines()[0]


def test_money_as_data_is_in_whole_cents(capsys: pytest.CaptureFixture[str]) -> None:
    def amounts(value: Any, name: str = "") -> Iterator[float]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from amounts(inner, key)
        elif isinstance(value, list):
            for inner in value:
                yield from amounts(inner, name)
        elif name in {"usd", "before_usd", "after_usd", "month_usd", "low", "expected", "high", "changeUsd"}:
            yield value

    found = data(capsys, PROD, DEV)
    usd = list(amounts(found))
    assert len(usd) > 20
    assert all(amount == round(amount, 2) for amount in usd)
    added = sum(round(100 * step["usd"]) for step in found["why"])
    assert added == round(100 * found["changeUsd"])


def test_markdown_has_no_colours_and_every_row_of_a_table_as_many_cells(capsys: pytest.CaptureFixture[str]) -> None:
    text = diff(capsys, PROD, DEV)
    assert "\x1b" not in text
    tables = text.split("\n\n")
    for table in tables:
        cells = {line.count("|") for line in table.splitlines() if line.startswith("|")}
        assert len(cells) <= 1


# Errors ------------------------------------------------------------------------------------------------------------


def test_a_mistake_ends_with_2_and_the_name_of_the_file_it_is_in(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = variant(tmp_path / "broken.yaml", {"tpotMs: 80": "tpotMs: -1"})
    message = diff(capsys, PROD, broken, code=2)
    assert str(broken) in message
    assert str(PROD) not in message
    assert "slo.tpotMs" in message
    assert "no such file" in diff(capsys, tmp_path / "none.yaml", PROD, code=2)


def test_one_of_two_things_to_compare_with_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ((PROD,), (PROD, DEV, "--against", "HEAD")):
        assert "name a second stack file, or with --against" in diff(capsys, *arguments, code=2)


# Git ---------------------------------------------------------------------------------------------------------------


def git(directory: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a stack in a folder of it, committed with two replicas, and one replica in the work tree."""
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    git(tmp_path, "init", "-q", "-b", "trunk")
    (stacks / "Pulumi.yaml").write_text("name: frugal-llm\nconfig:\n  frugal-llm:tags: {default: {team: a}}\n")
    variant(stacks / "Pulumi.prod.yaml", {})
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "two replicas")
    variant(stacks / "Pulumi.prod.yaml", ONE_OF_EACH)
    return stacks


def test_a_stack_is_compared_with_what_it_was_at_a_revision(
    capsys: pytest.CaptureFixture[str], repository: Path
) -> None:
    found = data(capsys, repository / "Pulumi.prod.yaml", "--against", "HEAD")
    assert found["before"]["expected"] == pytest.approx(expected_usd(PROD), abs=0.005)
    assert found["before"]["file"].endswith("Pulumi.prod.yaml at HEAD")
    assert {step["paths"][0].rpartition(".")[2] for step in found["why"]} == {"minReplicas"}


def test_the_project_file_of_that_revision_counts(capsys: pytest.CaptureFixture[str], repository: Path) -> None:
    (repository / "Pulumi.yaml").write_text("name: frugal-llm\nconfig:\n  frugal-llm:tags: {default: {team: b}}\n")
    variant(repository / "Pulumi.prod.yaml", {"  frugal-llm:tags: {environment: prod}": ""})
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "another team")
    (repository / "Pulumi.yaml").write_text("name: frugal-llm\n")
    found = data(capsys, repository / "Pulumi.prod.yaml", "--against", "trunk")
    assert [change for change in found["settings"] if "tags" in change["path"]] == [
        {"path": "frugal-llm:tags.team", "before": "b", "after": None}
    ]


def test_a_models_own_architecture_is_read_as_it_was(capsys: pytest.CaptureFixture[str], repository: Path) -> None:
    published = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (repository / "mine").mkdir()
    (repository / "mine" / "config.json").write_text(json.dumps(published))
    file = repository / "Pulumi.own.yaml"
    given = yaml.safe_load(PROD.read_text(encoding="utf-8"))
    tier = given["config"]["frugal-llm:tiers"][0]
    tier |= {"model": "own/qwen-7b", "architecture": "mine"}
    file.write_text(yaml.safe_dump(given))
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "a model of our own")
    assert "The settings are equal" in diff(capsys, file, "--against", "HEAD")
    (repository / "mine" / "config.json").write_text(json.dumps({**published, "num_hidden_layers": 14}))
    (change,) = data(capsys, file, "--against", "HEAD")["settings"]
    assert change["path"] == "frugal-llm:tiers[fast].architecture"


def test_a_trace_of_a_stacks_own_is_read_as_it_was(capsys: pytest.CaptureFixture[str], repository: Path) -> None:
    header = "hour,requests,input_tokens,output_tokens\n"
    (repository / "week.csv").write_text(header + "".join(f"{hour},{1 + hour},1,1\n" for hour in range(24)))
    file = repository / "Pulumi.own.yaml"
    given = yaml.safe_load(PROD.read_text(encoding="utf-8"))
    given["config"]["frugal-llm:tiers"][0]["traffic"]["profile"] = "./week.csv"
    file.write_text(yaml.safe_dump(given))
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "a trace of our own")
    assert "The settings are equal" in diff(capsys, file, "--against", "HEAD")
    (repository / "week.csv").write_text(header + "".join(f"{hour},1,1,1\n" for hour in range(24)))
    (change,) = data(capsys, file, "--against", "HEAD")["settings"]
    assert change["path"] == "frugal-llm:tiers[fast].traffic.profile"


@pytest.mark.parametrize(
    ("file", "revision", "says"),
    [
        ("Pulumi.prod.yaml", "nope", "--against nope: there is no such revision here"),
        ("Pulumi.prod.yaml", "--output=x", "there is no such revision here"),
        ("Pulumi.new.yaml", "HEAD", "--against HEAD: stacks/Pulumi.new.yaml did not exist then"),
    ],
)
def test_what_git_does_not_have_is_said(
    capsys: pytest.CaptureFixture[str], repository: Path, file: str, revision: str, says: str
) -> None:
    variant(repository / "Pulumi.new.yaml", {})
    assert says in diff(capsys, repository / file, f"--against={revision}", code=2)


def test_outside_git_there_is_no_revision(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "is in no git repository" in diff(capsys, variant(tmp_path / "a.yaml", {}), "--against", "HEAD", code=2)
