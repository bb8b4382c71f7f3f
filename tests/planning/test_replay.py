"""The simulated month against hand-counted cases, against a second simulation that follows each request, and as a
command.

None of this proves that a cluster does the same: see the module's own list of what it shares with the forecast.
"""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planning.__main__ import main
from planning.cold_start import ColdStart
from planning.facts.instances import monthly_interruption
from planning.facts.traces import Trace, read_trace, trace, trace_names
from planning.replay import LOOK_S, Deployment, Load, Offer, Replays, month_of, open_looks, replay
from planning.stackfile import read_stack
from planning.trace_forecast import TraceForecast, trace_forecast
from settings import WorkingHours, open_hours
from tests.planning.replay_reference import Figures, Month

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT / "planning" / "facts" / "data" / "traces"
MONTH_H = 730.0
PER_HOUR = 3600 // LOOK_S
COLD = ColdStart(node_s=60, image_s=167, engine_s=65)

SPOT = Offer(1.0, 0.8, 0.002, on_demand=False)
DEARER_SPOT = Offer(1.5, 0.5, 0.001, on_demand=False)
ON_DEMAND = Offer(3.0, 1.0, 0.0, on_demand=True)
STEADY = Offer(1.0, 1.0, 0.0, on_demand=False)


def deployment(replicas: list[float], concurrency: float = 5.0, stay_s: float = 20.0, **changes: Any) -> Deployment:
    """One whose load is so many replicas in each hour."""
    load = np.repeat(np.array(replicas), PER_HOUR)
    rate = concurrency / stay_s
    values: dict[str, Any] = {
        "load": Load(load * rate * LOOK_S, load),
        "is_open": np.ones(len(load), dtype=bool),
        "requests_per_second": rate,
        "concurrency": concurrency,
        "target": max(1.0, concurrency),
        "burstiness": 1.0,
        "minimum": 1,
        "working_hours": 1,
        "maximum": None,
        "floor": 0,
        "may_sleep": False,
        "cooldown_s": 600.0,
        "node_idle_s": 300.0,
        "cold_start": COLD,
        "offers": (SPOT, DEARER_SPOT, ON_DEMAND),
        "floor_offer": ON_DEMAND,
        "image_usd": 0.0,
    }
    return Deployment(**{**values, **changes})


SLEEPS: dict[str, Any] = {"may_sleep": True, "minimum": 0, "working_hours": 0}
WAVE = [2.4 + 1.8 * math.sin(hour / 2) for hour in range(12)]
CASES: dict[str, Deployment] = {
    "a load that comes and goes": deployment(WAVE),
    "a load that only chance changes": deployment([2.0] * 12),
    "bursts": deployment(WAVE, burstiness=3.0),
    "fewer than one request at a time": deployment([0.9] * 12, concurrency=1.3, stay_s=10.0),
    "an on-demand floor and a maximum": deployment(WAVE, floor=1, minimum=2, working_hours=2, maximum=3),
    "spot nodes that are taken back every few hours": deployment(
        [1.5] * 12, offers=(Offer(1.0, 1.0, 0.3, on_demand=False),)
    ),
    "a tier that sleeps": deployment([0.01, 0.015, 0.02] * 8, concurrency=0.3, **SLEEPS),
    "a tier that sleeps, in bursts": deployment([0.01, 0.015, 0.02] * 8, concurrency=0.3, burstiness=3.0, **SLEEPS),
    "a tier that wakes to much load": deployment([0.004, 0.004, 0.004, 1.5, 0.004, 0.004] * 4, 3.0, 30.0, **SLEEPS),
    "working hours": deployment(
        [0.02] * 24,
        3.0,
        30.0,
        is_open=np.arange(24 * PER_HOUR) < 10 * PER_HOUR,
        **{**SLEEPS, "working_hours": 2},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_many_months_at_once_agree_with_months_followed_request_by_request(case: str) -> None:
    """Within 2 % (starts 10 %, waiting requests 5 %) or three standard errors; the two share the meaning of a
    deployment, so that this proves the counting and not the physics. Starts in bursts are the least exact: the many
    months take a burst's requests for simultaneous, which moves the load more often.
    """
    subject = CASES[case]
    months = [Month(subject, seed).play() for seed in range(60)]
    played = replay(subject, 600, seed=1)
    for figure, tolerance in (
        ("usd", 0.02),
        ("node_hours", 0.02),
        ("serving_hours", 0.02),
        ("starts", 0.10),
        ("interruptions", 0.02),
        ("waited", 0.05),
    ):
        assert_same_mean(figure, months, played, tolerance)


@pytest.mark.parametrize("case", ["a load that comes and goes", "a tier that sleeps", "working hours"])
def test_a_few_months_at_once_agree_with_months_followed_request_by_request(case: str) -> None:
    subject = CASES[case]
    months = [Month(subject, seed).play() for seed in range(6)]
    played = replay(subject, 200, seed=1)
    for figure in ("node_hours", "serving_hours", "starts"):
        assert_same_mean(figure, months, played, 0.03)


def assert_same_mean(figure: str, months: list[Figures], played: Replays, tolerance: float) -> None:
    one_by_one = np.array([getattr(month, figure) for month in months])
    at_once = getattr(played, figure)
    error = math.hypot(one_by_one.std(ddof=1) / len(one_by_one) ** 0.5, at_once.std() / len(at_once) ** 0.5)
    # A count of nothing but rare events has no spread of its own in a few months.
    rare = 5.0 if figure in {"interruptions", "waited"} else 1e-9
    assert at_once.mean() == pytest.approx(one_by_one.mean(), rel=tolerance, abs=3 * error + rare), figure


def test_a_constant_load_holds_the_next_whole_number_of_replicas() -> None:
    for load, replicas in ((0.4, 1), (2.5, 3), (6.5, 7)):
        # So many requests at once that chance moves their mean by less than the distance to a whole number.
        played = replay(deployment([load] * 24, concurrency=2000.0, offers=(STEADY,)), 3, seed=0)
        assert played.node_hours == pytest.approx([replicas * MONTH_H] * 3)
        assert played.serving_hours == pytest.approx(played.node_hours)
        assert played.usd == pytest.approx(played.node_hours * STEADY.usd_per_hour)
        assert not played.starts.any()
        assert not played.above_capacity.any()


def test_load_beyond_the_maximum_waits_on_the_replicas_there_are() -> None:
    played = replay(deployment([2.5] * 24, concurrency=2000.0, offers=(STEADY,), maximum=2), 3, seed=0)
    assert played.node_hours == pytest.approx([2 * MONTH_H] * 3)
    assert played.above_capacity == pytest.approx([played.requests] * 3)


def test_a_step_of_load_costs_the_cold_start_and_the_window_and_the_idle_node() -> None:
    """One hour of twelve needs a second replica: it comes when the load window's mean says so, and is paid from its
    launch, through its hour, until the window has forgotten it and its node is removed.
    """
    played = replay(deployment([0.5] * 11 + [1.5], concurrency=4000.0, offers=(STEADY,)), 20, seed=0)
    months = MONTH_H / 12
    # The mean of five minutes passes one replica after half of them, and falls below it as long after the hour.
    hours = 12 + 1 + (600 + 300) / 3600
    assert played.starts == pytest.approx([months] * 20)
    assert played.node_hours.mean() == pytest.approx(hours * months, rel=0.005)
    waste = played.node_hours - played.serving_hours
    assert waste.mean() == pytest.approx((COLD.total_s + 300) / 3600 * months, rel=0.02)


def test_a_sleeping_tier_wakes_as_often_as_the_renewal_of_poisson_arrivals_says() -> None:
    """Sleep takes 1/rate, then a start, then the busy period of arrivals that each keep it up for the cooldown."""
    per_hour, cooldown_h, start_h = 3.0, 600 / 3600, COLD.total_s / 3600
    awake = (math.exp(per_hour * cooldown_h) - 1) / per_hour
    cycle = 1 / per_hour + start_h + awake
    # A replica that answers 3 requests an hour in a second each; the node goes at once.
    played = replay(deployment([per_hour / 3600] * 168, 1.0, 1.0, node_idle_s=0.0, offers=(STEADY,), **SLEEPS), 300, 0)
    assert played.starts.mean() == pytest.approx(MONTH_H / cycle, rel=0.01)
    assert played.serving_hours.mean() == pytest.approx(MONTH_H * awake / cycle, rel=0.01)
    assert played.node_hours.mean() == pytest.approx(MONTH_H * (awake + start_h) / cycle, rel=0.01)
    assert played.waited.mean() == pytest.approx(MONTH_H / cycle * (1 + per_hour * start_h), rel=0.01)


def test_a_tier_without_requests_sleeps_all_month() -> None:
    played = replay(deployment([0.0] * 168, **SLEEPS), 3, seed=0)
    assert not played.node_hours.any()
    assert not played.usd.any()


@pytest.mark.parametrize("interruption_class", ["<5%", ">20%"])
def test_spot_nodes_are_interrupted_at_the_rate_of_their_class(interruption_class: str) -> None:
    taken_back = monthly_interruption(interruption_class).expected
    hazard = -math.log1p(-taken_back) / MONTH_H
    played = replay(deployment([2.5] * 168, 2000.0, offers=(Offer(1, 1, hazard, on_demand=False),)), 400, seed=3)
    expected = hazard * 3 * MONTH_H
    error = math.sqrt(expected / 400 / (168 / MONTH_H))
    assert played.interruptions.mean() == pytest.approx(expected, abs=3 * error)
    # Each is a start on a new node, and the two minutes in which both are paid.
    assert played.starts.mean() == pytest.approx(played.interruptions.mean(), rel=0.05)
    assert played.node_hours.mean() - 3 * MONTH_H == pytest.approx(played.interruptions.mean() / 30, rel=0.05)


def test_nodes_are_bought_in_the_order_of_price_by_the_chance_of_capacity() -> None:
    played = replay(deployment([0.5] * 24, offers=(replace(SPOT, interruptions_per_hour=0.0), ON_DEMAND)), 1000, seed=0)
    assert played.usd.mean() == pytest.approx(MONTH_H * (0.8 * SPOT.usd_per_hour + 0.2 * ON_DEMAND.usd_per_hour), 0.005)
    assert played.on_demand_hours.mean() == pytest.approx(0.2 * MONTH_H, rel=0.02)


def test_without_a_fallback_a_node_is_waited_for_and_never_bought_on_demand() -> None:
    """One try in five finds capacity, and the next comes three minutes later: 12 minutes more on average, in which
    requests of 1.8 an hour wait that would not have waited for the start alone.
    """
    per_hour, tries_h = 1.8, (1 / 0.2 - 1) * 180 / 3600
    load = [per_hour / 3600] * 168
    played = replay(deployment(load, 1.0, 1.0, offers=(replace(STEADY, capacity=0.2),), **SLEEPS), 200, seed=0)
    # Some wake on a node that is still there.
    bought = played.starts.mean() * per_hour * (COLD.total_s / 3600 + tries_h)
    plenty = replay(deployment(load, 1.0, 1.0, offers=(STEADY,), **SLEEPS), 200, seed=0)
    at_once = plenty.starts.mean() * per_hour * COLD.total_s / 3600
    assert not played.on_demand_hours.any()
    assert played.waited.mean() / plenty.waited.mean() == pytest.approx(
        (1 + bought / played.starts.mean())
        / (1 + at_once / plenty.starts.mean())
        * played.starts.mean()
        / plenty.starts.mean(),
        rel=0.03,
    )


def test_every_month_pays_for_at_least_what_it_serves() -> None:
    for subject in CASES.values():
        played = replay(subject, 20, seed=0)
        assert (played.node_hours >= played.serving_hours - 1e-6).all()
        assert (played.on_demand_hours <= played.node_hours + 1e-6).all()
        cheapest = min(offer.usd_per_hour for offer in (*subject.offers, subject.floor_offer))
        assert (played.usd >= cheapest * played.node_hours - 1e-6).all()


def test_the_same_seed_gives_the_same_months_and_another_one_others() -> None:
    subject = CASES["a load that comes and goes"]
    first, again, other = (replay(subject, 10, seed).usd for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_a_trace_is_scaled_to_the_daily_requests_and_repeated_to_whole_weeks() -> None:
    for name in ("azure2023_code_minute", "servegen_deepseek_r1_10min", "servegen_m_large_hourly"):
        load = month_of(trace(name), 2400, requests_per_second=0.5, prefill_share=0.3)
        assert len(load.requests) == 4 * 168 * PER_HOUR
        assert load.requests.mean() * PER_HOUR == pytest.approx(100)
        # Lengths change when the replicas are busy, not how busy they are altogether.
        assert load.replicas.mean() == pytest.approx(100 / 3600 / 0.5, rel=0.02)


def test_longer_prompts_weigh_as_much_as_prefill_takes() -> None:
    steps = Trace("two hours", 3600, (100, 100), (100_000, 300_000), (10_000, 10_000), "made up")
    load = month_of(steps, 2400, requests_per_second=1.0, prefill_share=0.25)
    first, second = load.replicas[0], load.replicas[PER_HOUR]
    # Half and one and a half times the mean prompt, at a quarter of the time; answers are alike.
    assert second / first == pytest.approx((0.25 * 1.5 + 0.75) / (0.25 * 0.5 + 0.75))


def test_looks_are_open_in_the_part_of_an_hour_that_is_in_working_hours() -> None:
    looks = open_looks(open_hours(WorkingHours(start="30 8 * * 1-5", end="15 18 * * 1-5")), 7 * 24 * PER_HOUR)
    monday = np.flatnonzero(looks[: 24 * PER_HOUR]) / PER_HOUR
    assert (monday[0], monday[-1]) == (8.5, 18.25 - 1 / PER_HOUR)
    assert not looks[5 * 24 * PER_HOUR :].any()


def forecast(stack: str, name: str, scale: float = 1.0) -> TraceForecast:
    file = read_stack(ROOT / f"Pulumi.{stack}.yaml")
    return trace_forecast(file.region, file.values, trace(name), scale, file.encrypted)


def test_the_command_prints_both_bills_and_their_difference(capsys: pytest.CaptureFixture[str]) -> None:
    stack, file = str(ROOT / "Pulumi.prod.yaml"), str(TRACES / "servegen_m_large_hourly.csv")
    arguments = ["replay", stack, "--trace", file, "--replays", "5"]
    assert main([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["error"] == pytest.approx(data["forecast_usd"] / data["replayed_usd"] - 1, abs=1e-4)
    assert data["replayed_p10_usd"] <= data["replayed_usd"] <= data["replayed_p90_usd"]
    for figure in ("forecast_usd", "replayed_usd"):
        parts = sum(tier[figure] for tier in data["tiers"].values())
        assert parts + data["fixed_usd"] == pytest.approx(data[figure], abs=0.02)
    assert main(arguments) == 0
    text = capsys.readouterr()
    assert max(map(len, text.out.splitlines())) <= 102
    assert "\x1b" not in text.out + text.err
    assert "The mean may lie outside p10 to p90" in text.out


HEADER = "minute,requests,input_tokens,output_tokens\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("minute,requests,input_tokens\n0,1,1\n", "output_tokens is missing"),
        (f"{HEADER}0,1,1,1\n1,-2,1,1\n", "requests is -2"),
        (f"{HEADER}0,1,1,1\n1,1,1,1\n3,1,1,1\n", "gap"),
        (f"{HEADER}1,1,1,1\n0,1,1,1\n", "does not come after"),
        (HEADER, "no line after the header"),
        ("", "is missing"),
        (f"{HEADER}0,0,0,0\n1,0,0,0\n", "no requests in any of its 2 steps"),
    ],
)
def test_a_bad_trace_exits_with_2_and_says_where(
    content: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(content)
    assert main(["replay", str(ROOT / "Pulumi.dev.yaml"), "--trace", str(file)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert "bad.csv" in printed.err


def test_a_missing_trace_and_a_missing_stack_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(TRACES / "azure2023_conv_minute.csv")
    assert main(["replay", str(ROOT / "Pulumi.dev.yaml"), "--trace", "nowhere.csv"]) == 2
    assert "nowhere.csv: No such file" in capsys.readouterr().err
    assert main(["replay", "Pulumi.nowhere.yaml", "--trace", file]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--scale", "0"], ["--scale", "nan"], ["--scale", "-1"], ["--replays", "0"]])
def test_a_scale_or_number_of_replays_that_is_not_positive_is_refused(wrong: list[str]) -> None:
    file = str(TRACES / "azure2023_conv_minute.csv")
    with pytest.raises(SystemExit, match="2"):
        main(["replay", str(ROOT / "Pulumi.dev.yaml"), "--trace", file, *wrong])


def test_a_fleet_too_large_to_play_is_refused_with_what_could_be(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(TRACES / "azure2023_conv_minute.csv")
    assert main(["replay", str(ROOT / "Pulumi.prod.yaml"), "--trace", file, "--scale", "1e6"]) == 2
    assert "--scale" in capsys.readouterr().err


def test_a_tier_that_nothing_serves_exits_with_2_and_the_plans_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = tmp_path / "Pulumi.impossible.yaml"
    stack.write_text((ROOT / "Pulumi.prod.yaml").read_text().replace("tpotMs: 80", "tpotMs: 1"))
    assert main(["replay", str(stack), "--trace", str(TRACES / "azure2023_conv_minute.csv")]) == 2
    assert "no GPU in us-east-1 meets it" in capsys.readouterr().err


@pytest.mark.slow
def test_a_thousand_months_of_the_largest_stack_take_less_than_a_minute() -> None:
    found = forecast("prod", "servegen_m_large_hourly")
    begin = time.process_time()
    for tier in found.tiers:
        for subject in tier.deployments:
            assert replay(subject, 1000, seed=0).interruptions.any()
    # Of one core; two would do.
    assert time.process_time() - begin < 60


def test_a_trace_file_that_is_read_is_the_one_that_is_shipped() -> None:
    assert read_trace(TRACES / "azure2023_conv_minute.csv").requests == trace("azure2023_conv_minute").requests


# Forecast against replay ---------------------------------------------------------------------------------------------


def parts() -> list[Trace]:
    """Other traces out of the public ones: of other lengths, and from other days."""
    fine, hourly = trace("servegen_m_large_10min"), trace("servegen_m_small_hourly")

    def part(whole: Trace, first: int, count: int) -> Trace:
        return replace(
            whole,
            name=f"{whole.name} {first} to {first + count}",
            requests=whole.requests[first : first + count],
            input_tokens=whole.input_tokens[first : first + count],
            output_tokens=whole.output_tokens[first : first + count],
        )

    return [part(fine, 600, 36), part(fine, 144, 180), part(hourly, 24, 240)]


@pytest.mark.slow
@pytest.mark.parametrize(("stack", "scale"), [("prod", 20), ("staging", 20), ("dev", 20), ("dev", 1)])
@pytest.mark.parametrize("played", [*map(trace, trace_names()), *parts()], ids=lambda played: played.name)
def test_the_forecast_of_a_trace_is_within_5_percent_of_its_replay(played: Trace, stack: str, scale: float) -> None:
    """The whole bill. Nothing in either is fitted to a trace.

    Of a part of a day the forecast knows the mean, the peak and how long a burst lasts, and is within 10 % only.
    """
    file = read_stack(ROOT / f"Pulumi.{stack}.yaml")
    forecast = trace_forecast(file.region, file.values, played, scale, file.encrypted)
    months = [
        sum(replay(one, 24, seed=np.random.SeedSequence((place, 1))).usd.mean() for one in tier.deployments)
        for place, tier in enumerate(forecast.tiers)
    ]
    assert forecast.usd == pytest.approx(
        sum(months) + forecast.fixed_usd, rel=0.1 if " to 636" in played.name else 0.05
    )
