"""`make smoke` against a stack of our own in this process.

Not proven here: that a load balancer, a router or an engine answers as the stub does.
"""

from __future__ import annotations

import json
import time

import pytest

from smoke.__main__ import main
from smoke.checks import Seen, smoke
from smoke.endpoint import Endpoint
from tests.smoke.stub import Stack, serving


def seen(stack: Stack) -> dict[str, Seen]:
    with serving(stack) as url:
        endpoint = Endpoint(url, "X-Model-Tier", timeout_s=10, api_key=None)
        return {one.check: one for one in smoke(endpoint)}


def test_every_promise_of_a_sound_stack_is_seen() -> None:
    stack = Stack()
    rows = seen(stack)
    assert list(rows) == [
        "GET /v1/models",
        "unknown tier -> 400",
        "tier fast",
        "tier fast again",
        "tier quality",
        "tier quality again",
        "no header: default tier",
        "stream",
        "over-long body -> 400",
    ]
    assert all(row.ok for row in rows.values())
    assert rows["unknown tier -> 400"].found == "X-Model-Tier must be one of: fast, quality"
    assert rows["over-long body -> 400"].status == 400
    assert rows["tier quality"].tokens == 16
    assert {header for path, header in stack.asked if path == "/v1/chat/completions"} == {"fast", "quality", None}


def test_where_the_model_field_chooses_each_other_tier_is_asked_for_by_its_name_alone() -> None:
    stack = Stack(by_model=True)
    rows = seen(stack)
    assert list(rows)[-1] == "no header: model quality"
    assert all(row.ok for row in rows.values())
    assert stack.asked[-1] == ("/v1/chat/completions", None)


def test_a_held_request_shows_its_wait_and_sleeping_tiers_start_side_by_side() -> None:
    began = time.monotonic()
    rows = seen(Stack(sleeping={"fast": 1.0, "quality": 1.0, "batch": 1.0}))
    took = time.monotonic() - began
    for tier in ("fast", "quality", "batch"):
        first, again = rows[f"tier {tier}"], rows[f"tier {tier} again"]
        assert first.ok
        assert first.last_byte_s is not None
        assert again.last_byte_s is not None
        assert first.last_byte_s >= 1.0 > again.last_byte_s
        waited = float(first.found.split("; ")[1].split(" s longer")[0])
        assert waited == pytest.approx(first.last_byte_s - again.last_byte_s, abs=0.06)
    # One after the other, the starts alone would take 3 s.
    assert took < 3.0


def test_a_stream_shows_its_first_byte_apart_from_its_last() -> None:
    row = seen(Stack(tokens_apart_s=0.05))["stream"]
    assert row.first_byte_s is not None
    assert row.last_byte_s is not None
    # Sixteen tokens, 50 ms after each.
    assert row.last_byte_s - row.first_byte_s >= 0.75
    assert row.tokens == 16
    assert row.found.startswith("17 events")


def test_a_stream_that_is_cut_is_no_success() -> None:
    row = seen(Stack(cut_streams=True))["stream"]
    assert (row.ok, row.found) == (False, "cut: no [DONE] at the end")


def test_an_unknown_tier_that_is_served_is_no_success_and_the_tiers_are_asked_for() -> None:
    rows = seen(Stack(refuses_unknown_tiers=False))
    assert not rows["unknown tier -> 400"].ok
    assert "--tier" in rows["each tier"].found


def test_a_body_that_is_taken_though_it_is_over_long_is_no_success() -> None:
    assert not seen(Stack(max_body_bytes=100_000_000))["over-long body -> 400"].ok


def test_the_command_prints_a_table_and_says_by_its_exit_code_whether_all_is_as_promised(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving(Stack()) as url:
        assert main([url]) == 0
        assert main([url.removesuffix("/v1") + "/", "--json"]) == 0
    table, _, data = capsys.readouterr().out.partition("[\n")
    assert f"{url}: 9 checks, all as promised" in table
    assert max(map(len, table.splitlines())) <= 100
    assert {row["ok"] for row in json.loads("[" + data)} == {True}
    with serving(Stack(cut_streams=True)) as url:
        assert main([url]) == 1
    assert "1 not as promised" in capsys.readouterr().out


def test_the_key_comes_from_the_environment_and_is_never_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "wrong-canary")
    with serving(Stack(api_key="right-canary")) as url:
        assert main([url]) == 1
        refused = capsys.readouterr()
        assert "401" in refused.out
        monkeypatch.setenv("API_KEY", "right-canary")
        assert main([url]) == 0
    assert "canary" not in refused.out + refused.err + "".join(capsys.readouterr())


def test_an_address_where_nothing_listens_is_told_and_not_retried(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Stack()) as url:
        pass
    assert main([url]) == 1
    assert "no answer: ConnectionError" in capsys.readouterr().out


def test_what_is_no_url_is_a_wrong_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["ftp://example.com"])
    assert stopped.value.code == 2
    assert "no http or https URL" in capsys.readouterr().err
