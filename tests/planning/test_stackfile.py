"""A stack file is read as Pulumi reads it.

Not proven here: that Pulumi's own reader (Go) agrees on every corner of YAML; those below are what a person meets.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planning.stackfile import ENCRYPTED, StackFile, StackFileError, read_stack, stack_names, stack_path
from reading import read as settings_read


def write(directory: Path, stack: str, project: str | None = None) -> Path:
    """Write a stack file, and a project file beside it when one is given."""
    (directory / "Pulumi.yaml").write_text(project or "name: frugal-llm\n", encoding="utf-8")
    path = directory / "Pulumi.dev.yaml"
    path.write_text(stack, encoding="utf-8")
    return path


def read(directory: Path, stack: str, project: str | None = None) -> StackFile:
    return read_stack(write(directory, stack, project))


def test_values_are_those_of_the_programs_namespace_without_it(tmp_path: Path) -> None:
    stack = read(tmp_path, "config:\n  aws:region: us-east-2\n  frugal-llm:budget: {monthlyUsd: 6000}\n")
    assert stack.stack_name == "dev"
    assert stack.region == "us-east-2"
    assert stack.values == {"budget": {"monthlyUsd": 6000}}


def test_defaults_of_the_project_apply_where_the_stack_says_nothing(tmp_path: Path) -> None:
    project = """
name: frugal-llm
config:
  budget: {type: object, default: {monthlyUsd: 100}}
  routing: {type: object, default: {header: X-Tier}, description: how to route}
  frugal-llm:plain: 7
  undecided: {type: string}
  aws:region: {value: eu-west-1}
"""
    stack = read(tmp_path, "config:\n  frugal-llm:budget: {monthlyUsd: 6000}\n", project)
    assert stack.values == {"budget": {"monthlyUsd": 6000}, "routing": {"header": "X-Tier"}, "plain": 7}
    assert stack.region == "eu-west-1"


def test_a_project_file_need_not_be_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("config:\n  frugal-llm:budget: 1\n", encoding="utf-8")
    assert read_stack(path).values["budget"] == 1
    assert read_stack(path).stack_name == "mine"


def test_encrypted_values_are_accepted_unread(tmp_path: Path) -> None:
    text = "config:\n  frugal-llm:token: {secure: v1:abc}\n  frugal-llm:notify: {hooks: [{secure: v1:def}]}\n"
    stack = read(tmp_path, text + "encryptionsalt: v1:xyz\n")
    assert stack.encrypted == {"token", "notify"}
    assert stack.values == {"token": ENCRYPTED, "notify": {"hooks": [ENCRYPTED]}}
    assert stack.secret_keys == {"frugal-llm:token", "frugal-llm:notify"}
    assert "v1:" not in json.dumps(stack.engine_config())


def test_a_key_declared_secret_is_one_even_in_clear(tmp_path: Path) -> None:
    project = "name: frugal-llm\nconfig:\n  token: {type: string, secret: true}\n"
    assert read(tmp_path, "config:\n  frugal-llm:token: abc\n", project).secret_keys == {"frugal-llm:token"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18:00", "18:00"),  # YAML 1.1 would make it 1080
        ("on", "on"),
        ("no", "no"),
        ("2026-11-22", "2026-11-22"),
        ('"1.30"', "1.30"),
        ("true", True),
        ("0.85", 0.85),
        ("1e6", 1e6),
        ("-3", -3),
        ("~", None),
    ],
)
def test_scalars_are_read_as_the_engine_reads_them(tmp_path: Path, text: str, value: object) -> None:
    assert read(tmp_path, f"config:\n  frugal-llm:x: {text}\n").values["x"] == value


def test_the_engine_gets_texts_as_they_are_and_everything_else_as_json(tmp_path: Path) -> None:
    stack = read(tmp_path, "config:\n  frugal-llm:a: plain\n  frugal-llm:b: [1, {c: 2}]\n  frugal-llm:d: true\n")
    assert stack.engine_config() == {"frugal-llm:a": "plain", "frugal-llm:b": '[1, {"c": 2}]', "frugal-llm:d": "true"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("config: [", "line 1 is not YAML"),
        ("config:\n  a:b: 1\n  a:b: 2\n", r"line 3 is not YAML: the key 'a:b' stands twice"),
        ("- config\n", "holds a list; it must be a mapping"),
        ("config: 3\n", "`config:` holds the value 3"),
        ("config:\n  aws:region: [a]\n", "aws:region holds a list"),
        ("config: {}\nbudget: {monthlyUsd: 1}\n", "does not read 'budget' .* into config: as frugal-llm:budget"),
        ("frugal-llm:budget: {monthlyUsd: 1}\n", "does not read 'frugal-llm:budget' .* move it into config:$"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_the_file_and_the_way_out(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(StackFileError, match=says) as caught:
        read_stack(path)
    assert str(path) in str(caught.value)


def test_keys_that_nothing_reads_are_kept_for_the_planner_to_name(tmp_path: Path) -> None:
    stack = read(tmp_path, "config:\n  tiers: []\n  frugal-lm:budget: {}\n  frugal_llm:tags: {}\n")
    assert stack.values == {":tiers": [], "frugal-lm:budget": {}, "frugal_llm:tags": {}}
    assert [str(problem) for problem in settings_read(stack.region, stack.values).problems[:3]] == [
        "tiers: is not read: it has no namespace; write frugal-llm:tiers",
        "frugal-lm:budget: is not read: nothing has this namespace; write frugal-llm:budget",
        "frugal_llm:tags: is not read: nothing has this namespace; write frugal-llm:tags",
    ]


def test_what_pulumi_and_other_programs_read_is_nobodys_business_here(tmp_path: Path) -> None:
    keys = "aws:region: us-east-2, pulumi:disable-default-providers: [aws], kubernetes:context: x, my-llm:tiers: 1"
    text = f"secretsprovider: awskms://k\nencryptedkey: a\nencryptionsalt: b\nenvironment: [dev]\nconfig: {{{keys}}}\n"
    assert read(tmp_path, text).values == {}


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(StackFileError, match="there is no such file"):
        read_stack(tmp_path / "Pulumi.dev.yaml")


def test_an_unknown_stack_is_answered_with_those_there_are(tmp_path: Path) -> None:
    write(tmp_path, "config: {}\n")
    assert stack_names(tmp_path) == ["dev"]
    assert stack_path("dev", tmp_path) == tmp_path / "Pulumi.dev.yaml"
    with pytest.raises(StackFileError, match=r"no stack 'prd' here .* stacks: dev"):
        stack_path("prd", tmp_path)
