"""Reading fact files: unknown names and bad files say what a person needs to mend them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from planning.facts.gpus import gpu
from planning.facts.models import model
from planning.facts.table import InvalidTable, Problem, Row, UnknownFact, read_header, read_table


def test_a_model_typed_without_its_owner_is_suggested() -> None:
    with pytest.raises(UnknownFact) as caught:
        model("llama-3.1-8b-instruct")
    assert caught.value.kind == "model"
    assert caught.value.name == "llama-3.1-8b-instruct"
    assert caught.value.nearest[0] == "meta-llama/Llama-3.1-8B-Instruct"
    assert "did you mean meta-llama/Llama-3.1-8B-Instruct" in str(caught.value)


def test_a_name_like_no_other_is_not_guessed_at() -> None:
    with pytest.raises(UnknownFact) as caught:
        gpu("Trainium")
    assert caught.value.nearest == ()
    assert str(caught.value) == "unknown gpu 'Trainium'"


def test_an_unknown_fact_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        gpu("a100")


def test_every_missing_column_is_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("b\n1\n")
    with pytest.raises(InvalidTable) as caught:
        read_table(file, ("a", "b", "c"), lambda row: row.line)
    assert caught.value.problems == (Problem(1, "column a is missing"), Problem(1, "column c is missing"))
    assert str(caught.value).splitlines()[0] == f"{file}:1: column a is missing"


def test_bad_cells_of_all_lines_are_named_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a\nten\n2\n-1\n\nnan\n1,2\n3.5\n")
    with pytest.raises(InvalidTable) as caught:
        read_table(file, ("a",), lambda row: row.integer("a"))
    assert caught.value.problems == (
        Problem(2, "a should be a number, not 'ten'"),
        Problem(4, "a is -1, below 0"),
        Problem(6, "a should be a finite number, not 'nan'"),
        Problem(8, "a should be a whole number, not '3.5'"),
    )


def test_a_line_cut_short_has_empty_cells_not_none(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a,b\n1\n")
    assert read_table(file, ("a", "b"), lambda row: row.text("b")) == ("",)


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("\ufeffa,b\n1,2\n")
    assert read_header(file) == ("a", "b")
    assert read_table(file, ("a",), lambda row: row.integer("a")) == (1,)


def test_an_undated_row_has_no_date() -> None:
    row = Row(2, {"known": "2026-07-09", "unknown": "undated", "blank": ""})
    assert row.date("known") == date(2026, 7, 9)
    assert row.date("unknown") is None
    assert row.date("blank") is None
