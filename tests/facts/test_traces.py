"""Traces: the shipped ones against their papers, a user's own with all its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from planning.facts.table import UnknownFact
from planning.facts.traces import InvalidTrace, read_trace, trace, trace_names

HEADER = "minute,requests,input_tokens,output_tokens\n"


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.csv"
    file.write_text(text)
    return file


def problems(file: Path) -> list[tuple[int, str]]:
    with pytest.raises(InvalidTrace) as caught:
        read_trace(file)
    return [(problem.line, problem.text) for problem in caught.value.problems]


def test_azures_conversations_are_19366_in_an_hour_of_1155_tokens_in_and_211_out() -> None:
    azure = trace("azure2023_conv_minute")
    assert (azure.step_seconds, len(azure.requests)) == (60, 59)
    assert sum(azure.requests) == 19_366
    assert sum(azure.input_tokens) / sum(azure.requests) == pytest.approx(1155, abs=1)
    assert sum(azure.output_tokens) / sum(azure.requests) == pytest.approx(211, abs=1)


def test_the_peak_hour_of_servegens_large_model_is_1_86_times_its_mean() -> None:
    large = trace("servegen_m_large_hourly")
    assert (large.step_seconds, len(large.requests)) == (3600, 14 * 24)
    assert max(large.requests) / (sum(large.requests) / len(large.requests)) == pytest.approx(1.86, abs=0.01)


def test_the_ten_minute_trace_has_the_requests_of_the_hourly_one() -> None:
    fine, coarse = trace("servegen_deepseek_r1_10min"), trace("servegen_deepseek_r1_hourly")
    assert (fine.step_seconds, len(fine.requests)) == (600, 144)
    assert sum(fine.requests) == pytest.approx(sum(coarse.requests), rel=1e-4)


def test_all_shipped_traces_load_and_name_a_source_and_licence() -> None:
    assert len(trace_names()) == 8
    for name in trace_names():
        assert trace(name).name == name
        assert trace(name).source.endswith(("Apache-2.0", "CC-BY-4.0"))
        assert len(trace(name).requests) == len(trace(name).input_tokens) == len(trace(name).output_tokens)


def test_an_unknown_trace_says_what_was_meant() -> None:
    with pytest.raises(UnknownFact, match="did you mean servegen_m_large_hourly"):
        trace("servegen_m_large_hour")


def test_a_users_trace_may_have_other_columns_and_another_step(tmp_path: Path) -> None:
    text = "t_start_s,requests,note,input_tokens,output_tokens\n300,5,a,50,10\n600,0,b,0,0\n900,2.5,c,20,5\n"
    mine = read_trace(written(tmp_path, text))
    assert (mine.name, mine.step_seconds) == ("mine", 300)
    assert mine.requests == (5, 0, 2.5)
    assert mine.source.endswith("mine.csv")


def test_every_fifth_minute_is_a_step_of_five_minutes(tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, HEADER + "0,1,1,1\n5,1,1,1\n10,1,1,1\n")).step_seconds == 300


def test_all_missing_columns_are_named_together(tmp_path: Path) -> None:
    assert problems(written(tmp_path, "second,requests\n0,1\n")) == [
        (1, "a time column is missing: one of minute, hour, t_start_s is needed"),
        (1, "column input_tokens is missing"),
        (1, "column output_tokens is missing"),
    ]


def test_two_time_columns_are_one_too_many(tmp_path: Path) -> None:
    text = "minute,hour,requests,input_tokens,output_tokens\n0,0,1,1,1\n"
    assert problems(written(tmp_path, text)) == [
        (1, "more than one time column: one of minute, hour, t_start_s is needed")
    ]


def test_bad_cells_disorder_and_gaps_are_reported_together_in_the_order_of_lines(tmp_path: Path) -> None:
    text = HEADER + "0,1,1,1\n1,-3,1,many\n2,1,1,1\n5,1,1,1\n4,1,1,1\nx,1,1,1\n9,1,,1\n"
    assert problems(written(tmp_path, text)) == [
        (3, "requests is -3, below 0"),
        (3, "output_tokens should be a number, not 'many'"),
        (5, "gap: minute goes from 2 to 5, a step is 1"),
        (6, "minute 4 does not come after 5"),
        (7, "minute should be a number, not 'x'"),
        (8, "input_tokens is empty"),
    ]


def test_an_empty_trace_and_a_single_second_are_refused(tmp_path: Path) -> None:
    assert problems(written(tmp_path, HEADER)) == [(1, "no line after the header")]
    one = written(tmp_path, "t_start_s,requests,input_tokens,output_tokens\n0,1,1,1\n")
    assert problems(one) == [(2, "the length of a step follows from two lines or more")]


def test_a_trace_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / "none.csv")
