"""Traces: the shipped ones against their papers, a user's own with all its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from planning.facts.table import UnknownFact
from planning.facts.traces import InvalidTrace, read_trace, trace, trace_names

HEADER = "minute,requests,input_tokens,output_tokens\n"
REQUESTS = "t_s,input_tokens,output_tokens\n"
TIMES = "minute, hour, t_start_s for steps, or t_s where each line is one request"


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
        (1, f"a time column is missing: one of {TIMES}"),
        (1, "column input_tokens is missing"),
        (1, "column output_tokens is missing"),
    ]


def test_two_time_columns_are_one_too_many(tmp_path: Path) -> None:
    text = "minute,hour,requests,input_tokens,output_tokens\n0,0,1,1,1\n"
    assert problems(written(tmp_path, text)) == [(1, f"more than one time column: one of {TIMES}")]


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


def test_a_number_that_no_sum_of_could_hold_is_refused(tmp_path: Path) -> None:
    assert problems(written(tmp_path, HEADER + "0,1e308,1,1\n1,1,1,1\n")) == [(2, "requests is 1e+308, above 1e+15")]


def test_an_empty_trace_and_a_single_second_are_refused(tmp_path: Path) -> None:
    assert problems(written(tmp_path, HEADER)) == [(1, "no line after the header")]
    one = written(tmp_path, "t_start_s,requests,input_tokens,output_tokens\n0,1,1,1\n")
    assert problems(one) == [(2, "the length of a step follows from two lines or more")]


def test_a_trace_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / "none.csv")


def test_single_requests_are_summed_over_minutes_and_the_last_one_is_left_out(tmp_path: Path) -> None:
    text = REQUESTS + "100,10,1\n100,20,2\n159.9,30,3\n160,40,4\n300.5,50,5\n340,60,6\n"
    mine = read_trace(written(tmp_path, text))
    assert mine.step_seconds == 60
    assert mine.requests == (3, 1, 0, 1)
    assert mine.input_tokens == (60, 40, 0, 50)
    assert mine.output_tokens == (6, 4, 0, 5)


def test_requests_of_a_single_minute_are_one_step(tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, REQUESTS + "7,10,1\n66.9,20,2\n")).requests == (2,)


def test_bad_requests_are_reported_together(tmp_path: Path) -> None:
    text = REQUESTS + "1760000009,1,1\n1760000008,1,1\nnan,1,1\n1760000009,-1,\n"
    assert problems(written(tmp_path, text)) == [
        (3, "t_s 1760000008 comes before 1760000009"),
        (4, "t_s should be a finite number, not 'nan'"),
        (5, "input_tokens is -1, below 0"),
        (5, "output_tokens is empty"),
    ]
    assert problems(written(tmp_path, REQUESTS)) == [(1, "no line after the header")]


def test_times_of_requests_in_milliseconds_are_refused(tmp_path: Path) -> None:
    (one,) = problems(written(tmp_path, REQUESTS + "0,1,1\n604800000,1,1\n"))
    assert one == (3, "t_s goes from 0 to 604800000, 7,000 days, more than 366: it should be in seconds")


def test_times_of_requests_with_counts_of_steps_are_refused(tmp_path: Path) -> None:
    text = "t_s,requests,input_tokens,output_tokens\n0,1,1,1\n"
    assert problems(written(tmp_path, text)) == [
        (1, "t_s is the time of one request, requests counts those of a step: use t_start_s")
    ]


def test_steps_without_a_count_say_how_single_requests_are_written(tmp_path: Path) -> None:
    assert problems(written(tmp_path, "t_start_s,input_tokens,output_tokens\n0,1,1\n")) == [
        (1, "column requests is missing; where each line is one request, t_s is its time in seconds")
    ]


def test_columns_in_upper_case_are_named_as_they_are_written(tmp_path: Path) -> None:
    why = "lower case without spaces is needed"
    assert problems(written(tmp_path, "T_s, input_tokens,output_tokens\n0,1,1\n")) == [
        (1, f"column t_s is missing: it is written 'T_s', {why}"),
        (1, f"column input_tokens is missing: it is written ' input_tokens', {why}"),
    ]


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_separator_is_named(separator: str, name: str, tmp_path: Path) -> None:
    text = HEADER.replace(",", separator) + separator.join("0111") + "\n"
    assert problems(written(tmp_path, text)) == [(1, f"columns are separated by {name}; write commas")]


@pytest.mark.parametrize("step_s", [7, 2400, 7200])
def test_steps_that_do_not_fit_into_an_hour_are_refused(step_s: int, tmp_path: Path) -> None:
    lines = "".join(f"{step * step_s},1,1,1\n" for step in range(3))
    ((line, text),) = problems(written(tmp_path, HEADER.replace("minute", "t_start_s") + lines))
    assert (line, text.partition(",")[0]) == (3, f"a step is {step_s} s")


def test_a_trace_without_requests_is_refused(tmp_path: Path) -> None:
    assert problems(written(tmp_path, HEADER + "0,0,0,0\n1,0,0,0\n")) == [(1, "no requests in any of its 2 steps")]
    # A day, and a part of an hour that is not used.
    text = HEADER + "".join(f"{30 * step},{int(step == 48)},1,1\n" for step in range(49))
    assert problems(written(tmp_path, text)) == [(1, "no requests in any of its 48 steps")]


@pytest.mark.parametrize(("content", "says"), [(b"\x80\xff", "UTF-8"), (b"a" * 200_000 + b"\n", "field larger")])
def test_what_is_no_csv_file_is_no_trace(content: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_bytes(content)
    ((line, text),) = problems(file)
    assert line == 1
    assert says in text


def test_many_problems_are_told_in_short(tmp_path: Path) -> None:
    with pytest.raises(InvalidTrace) as caught:
        read_trace(written(tmp_path, HEADER + "0,-1,-1,-1\n1,x,1,1\n"))
    assert caught.value.in_short() == (
        "4 problems: line 2: requests is -1, below 0; line 2: input_tokens is -1, below 0; "
        "line 2: output_tokens is -1, below 0; 1 more"
    )
