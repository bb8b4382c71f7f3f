"""Time-outs in the order that a held request, a starting pod and a draining pod need."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.__main__ import main
from planning.cold_start import ColdStart, llama_cpp_cold_start, vllm_cold_start
from planning.plan import Timeouts
from planning.stack import plan_config
from planning.stackfile import read_stack
from planning.timeouts import (
    model_router_order,
    model_router_problems,
    model_router_table,
    model_router_timeouts,
    timeout_order,
    timeout_problems,
    timeout_table,
    timeouts,
)
from problems import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]

#: From a small GGUF file to a model of a trillion parameters in 16 bit.
WEIGHTS_GB = st.floats(0.1, 2000)
COLD_STARTS = st.one_of(
    st.builds(vllm_cold_start, WEIGHTS_GB),
    st.builds(llama_cpp_cold_start, WEIGHTS_GB, network_mbps=st.floats(500, 100_000)),
)

EIGHT_BILLION = vllm_cold_start(16)


def broken(times: Timeouts, *, spot: bool = True) -> list[tuple[str, str]]:
    return [(order.longer, order.shorter) for order in timeout_order(times, spot=spot) if not order.holds]


def planned(stack: str, **changes: Any) -> Any:
    read = read_stack(ROOT / f"Pulumi.{stack}.yaml")
    return plan_config(read.region, {**read.values, **changes}, read.encrypted)


@given(COLD_STARTS, st.floats(1, 3))
def test_whatever_the_cold_start_only_awss_own_limit_can_break_the_order(start: ColdStart, patience: float) -> None:
    times = timeouts(start, patience * start.total_s)
    too_long = times.alb_idle_s > 4000
    assert broken(times) == ([("AWS' most for ALB idle", "ALB idle")] if too_long else [])
    # Half of what AWS allows, less the margins of Envoy and load balancer and a minute of rounding.
    assert start.total_s <= 1870 or too_long


@given(COLD_STARTS)
def test_a_held_request_outlasts_the_start_that_it_waits_for_at_every_hop(start: ColdStart) -> None:
    times = timeouts(start, 3600)
    assert start.total_s < times.router_hold_s < times.envoy_message_s < times.alb_idle_s <= times.client_s


@given(COLD_STARTS)
def test_a_pod_gets_twice_the_planned_time_to_load_before_anything_gives_it_up(start: ColdStart) -> None:
    times = timeouts(start, 3600)
    assert times.startup_probe_s > 2 * start.engine_s
    assert times.progress_deadline_s > start.node_s + start.image_s + times.startup_probe_s - 10


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"client_s": 1}, ("client", "ALB idle")),
        ({"alb_idle_s": 700, "client_s": 700, "envoy_message_s": 700}, ("ALB idle", "Envoy")),
        ({"envoy_message_s": 60}, ("Envoy", "router hold")),
        ({"startup_probe_s": 100}, ("startup probe", "cold start")),
        ({"progress_deadline_s": 100}, ("progress deadline", "startup probe")),
        ({"cooldown_s": 60}, ("cooldown", "cold start")),
        ({"shutdown_s": 95}, ("grace", "preStop + shutdown")),
        ({"grace_s": 600}, ("spot's notice less 10 s", "grace")),
        ({"polling_interval_s": 3600}, ("router hold", "polling")),
    ],
)
def test_a_broken_order_is_found_by_both_names(change: dict[str, int], names: tuple[str, str]) -> None:
    times = timeouts(EIGHT_BILLION, 600)
    assert broken(times) == []
    assert names in broken(replace(times, **change))


def test_a_long_grace_is_no_mistake_without_spot() -> None:
    assert broken(replace(timeouts(EIGHT_BILLION, 600), grace_s=600), spot=False) == []


def test_a_grace_that_spot_does_not_give_is_refused_with_both_ways_out() -> None:
    with pytest.raises(ConfigurationError) as raised:
        planned("prod", scaling={"graceSeconds": 111})
    (problem, *_) = raised.value.problems
    assert str(problem).startswith(
        "frugal-llm:scaling.graceSeconds is 111: spot's notice less 10 s 110 s >= grace 111 s does not hold"
    )
    assert "set 110 or less, or buy on-demand only (capacity.spot: false)" in str(problem)
    assert {one.path for one in raised.value.problems} == {"frugal-llm:scaling.graceSeconds"}


def test_without_spot_running_answers_get_the_grace_that_is_asked_for() -> None:
    _, plan = planned("prod", scaling={"graceSeconds": 540}, capacity={"spot": False}, budget={})
    for tier in plan.tiers:
        times = tier.timeouts
        assert (times.grace_s, times.shutdown_s) == (540, 540 - times.pre_stop_s - 5)
    _, shorter = planned("prod", scaling={"graceSeconds": 40})
    assert {tier.timeouts.shutdown_s for tier in shorter.tiers} == {20}


def test_a_broken_order_of_a_plan_names_both_times_the_tier_and_the_way_out() -> None:
    settings, plan = planned("dev")
    slow = vllm_cold_start(2000)
    tiers = {0: replace(plan.tiers[0], timeouts=timeouts(slow, 3600))}
    (problem,) = timeout_problems(settings, tiers)
    assert str(problem).startswith("frugal-llm:tiers[0].model is ")
    # 60 s for the node, 167 for the image, 45 and 2,400 for the weights: twice that in minutes, and 200 s of margins.
    assert "AWS' most for ALB idle 4,000 s >= ALB idle 5,600 s does not hold for tier fast" in str(problem)
    assert "smaller weights" in str(problem)


def test_a_cooldown_below_the_cold_start_is_refused_with_the_least_that_works() -> None:
    with pytest.raises(ConfigurationError) as raised:
        planned("dev", scaling={"idleCooldownMinutes": 1})
    message = str(raised.value)
    assert "frugal-llm:scaling.idleCooldownMinutes is 1: cooldown 60 s >= cold start" in message
    least = max(map(int, re.findall(r"set (\d+) or more, or leave it out", message)))
    _, plan = planned("dev", scaling={"idleCooldownMinutes": least})
    assert {tier.timeouts.cooldown_s for tier in plan.tiers} == {60 * least}
    assert least - 1 < max(tier.timeouts.cold_start_s for tier in plan.tiers) / 60 <= least


def test_the_command_prints_every_timeout_of_every_tier_with_what_it_follows_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = str(ROOT / "Pulumi.prod.yaml")
    assert main(["timeouts", file]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert main(["timeouts", file, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    _, plan = planned("prod")
    assert list(data) == [tier.name for tier in plan.tiers]
    for tier in plan.tiers:
        assert re.search(rf"time-out .* {tier.name} .*becomes", printed)
        lines = data[tier.name]["timeouts"]
        assert [line["seconds"] for line in lines] == [line.seconds for line in timeout_table(tier.timeouts)]
        assert sorted(line["seconds"] for line in lines) == sorted(
            getattr(tier.timeouts, field) for field in Timeouts.__slots__
        )
        assert all(line["followsFrom"] for line in lines)
        assert all(relation["holds"] for relation in data[tier.name]["order"])


@given(st.lists(COLD_STARTS, min_size=1, max_size=4), st.integers(30, 540))
def test_the_envoys_that_route_by_model_fit_between_the_load_balancer_and_any_tiers(
    starts: list[ColdStart], grace_s: int
) -> None:
    tiers = [timeouts(start, 3600, grace_s) for start in starts]
    times = model_router_timeouts(tiers)
    assert [order for order in model_router_order(times, tiers) if not order.holds] == []
    assert max(one.envoy_message_s for one in tiers) + 50 == times.idle_s == max(one.alb_idle_s for one in tiers) - 50
    assert times.drain_s == grace_s - 5


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"idle_s": 920}, ("ALB idle", "idle")),
        ({"idle_s": 600}, ("idle", "a tier's Envoy")),
        ({"keepalive_probes": 200}, ("idle", "lost router")),
        ({"connection_s": 15}, ("a tier's preStop", "connection")),
        ({"drain_s": 104}, ("drain", "a tier's preStop + shutdown")),
        ({"grace_s": 105}, ("grace", "drain")),
    ],
)
def test_a_broken_order_of_the_envoys_that_route_by_model_is_refused_with_the_setting(
    change: dict[str, int], names: tuple[str, str]
) -> None:
    _, plan = planned("prod", routing={"defaultTier": "fast", "byModelField": True})
    assert model_router_problems(plan.model_router, plan.tiers) == []
    broken = replace(plan.model_router, timeouts=replace(plan.model_router.timeouts, **change))
    problems = model_router_problems(broken, plan.tiers)
    longer, shorter = map(re.escape, names)
    assert any(re.search(rf"is true: {longer} [\d,]+ s >=? {shorter} [\d,]+ s does", str(one)) for one in problems)
    assert {one.path for one in problems} == {"frugal-llm:routing.byModelField"}


def test_the_command_has_the_envoys_that_route_by_model_where_there_are_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "Pulumi.field.yaml"
    text = (ROOT / "Pulumi.prod.yaml").read_text()
    file.write_text(text.replace("defaultTier: fast", "defaultTier: fast, byModelField: true"))
    assert file.read_text() != text
    assert main(["timeouts", str(file)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert re.search("time-out .* routing.byModelField .*becomes", printed)
    assert main(["timeouts", str(file), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    _, plan = planned("prod", routing={"defaultTier": "fast", "byModelField": True})
    assert list(data) == [*(tier.name for tier in plan.tiers), "routing.byModelField"]
    found = data["routing.byModelField"]
    assert {line["name"]: line["seconds"] for line in found["timeouts"]} == {
        # The longest of the tiers' Envoys, of the tier quality, is 820 s; it has 920 s in the load balancer.
        "idle": 870,
        "connection": 7,
        "lost router": 25,
        "drain": 105,
        "grace": 110,
    }
    assert [line.seconds for line in model_router_table(plan.model_router.timeouts)] == [870, 7, 25, 105, 110]
    assert all(relation["holds"] for relation in found["order"])
    # What holds for the tiers is as it is without the setting.
    assert main(["timeouts", str(ROOT / "Pulumi.prod.yaml"), "--json"]) == 0
    del data["routing.byModelField"]
    assert json.loads(capsys.readouterr().out) == data


def test_the_command_refuses_a_stack_whose_order_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "Pulumi.hasty.yaml"
    dev = (ROOT / "Pulumi.dev.yaml").read_text()
    file.write_text(dev.replace("idleCooldownMinutes: 30", "idleCooldownMinutes: 1"))
    assert main(["timeouts", str(file)]) == 2
    assert "idleCooldownMinutes" in capsys.readouterr().err
