"""Shapes against the published figures of their traces, and the month against hand-counted cases."""

import math
import random

import pytest

from planning.facts.traces import trace
from planning.month import ScalingRule, replica_month, replicas_for
from planning.traffic import HOURS_PER_MONTH, from_trace, profile_names, shape
from settings import WorkingHours, open_hours

ALWAYS = (True,) * 168


def rule(**changes: object) -> ScalingRule:
    values: dict[str, object] = {
        "requests_per_second_per_replica": 1.0,
        "peak_within_hour": 1.0,
        "minimum": 0,
        "working_hours": 0,
        "follows_load": True,
        "may_sleep": True,
        "cold_start_s": 300.0,
        "cooldown_s": 600.0,
        "node_idle_s": 300.0,
    }
    return ScalingRule(**{**values, **changes})  # type: ignore[arg-type]


def test_m_large_peaks_at_the_published_1_86_times_its_mean() -> None:
    assert shape("servegen_m_large", ALWAYS).peak_over_mean == pytest.approx(1.86, abs=0.01)
    assert min(shape("servegen_m_large", ALWAYS).weights) == pytest.approx(0.30, abs=0.02)


def test_m_small_and_deepseek_peak_as_published() -> None:
    assert shape("servegen_m_small", ALWAYS).peak_over_mean == pytest.approx(2.06, abs=0.01)
    assert shape("servegen_deepseek_r1", ALWAYS).peak_over_mean == pytest.approx(2.19, abs=0.01)


@pytest.mark.parametrize("name", profile_names())
def test_every_shape_has_whole_weeks_and_a_mean_of_one(name: str) -> None:
    week = shape(name, open_hours(WorkingHours()))
    assert len(week.weights) % 168 == 0
    assert sum(week.weights) / len(week.weights) == pytest.approx(1)
    assert week.peak_within_hour >= 1


def test_office_hours_has_no_request_outside_working_hours() -> None:
    hours = open_hours(WorkingHours(start="0 9 * * 1-5", end="0 17 * * 1-5"))
    weights = shape("office-hours", hours).weights
    assert all((weight > 0) == is_open for weight, is_open in zip(weights, hours, strict=True))


def test_an_hour_long_trace_tells_no_hours_apart_but_its_bursts() -> None:
    week = from_trace(trace("azure2023_conv_minute"))
    assert set(week.weights) == {1.0}
    assert week.peak_within_hour > 1


def test_a_flat_load_of_two_and_a_half_replicas_holds_three_all_month() -> None:
    month = replica_month([2.5 * 3600] * 168, ALWAYS, rule(minimum=1))
    assert month.node_hours == pytest.approx(3 * HOURS_PER_MONTH)
    assert month.starts == 0


def test_without_autoscaling_the_peak_is_held_all_month() -> None:
    load = [0.5 * 3600] * 167 + [4 * 3600]
    month = replica_month(load, ALWAYS, rule(minimum=1, follows_load=False, may_sleep=False))
    assert month.node_hours == pytest.approx(4 * HOURS_PER_MONTH)


def test_autoscaling_pays_for_each_hour_what_it_needs_and_for_starting_it() -> None:
    load = [0.5 * 3600] * 167 + [4 * 3600]
    month = replica_month(load, ALWAYS, rule(minimum=1))
    serving = (167 * 1 + 4) * HOURS_PER_MONTH / 168
    # Three replicas start once a week; each wastes a cold start and an idle node, 600 s together.
    wasted = 3 * HOURS_PER_MONTH / 168 * 600 / 3600
    # After the busy hour, three replicas stay for the window of 600 s.
    serving += 3 * HOURS_PER_MONTH / 168 * 600 / 3600
    assert month.serving_hours == pytest.approx(serving)
    assert month.node_hours == pytest.approx(serving + wasted)


def test_a_tier_without_traffic_sleeps_all_month() -> None:
    assert replica_month([0.0] * 168, ALWAYS, rule()).node_hours == 0


def test_working_hours_keep_a_replica_while_nobody_asks() -> None:
    hours = open_hours(WorkingHours(start="0 8 * * 1-5", end="0 18 * * 1-5"))
    month = replica_month([0.0] * 168, hours, rule(working_hours=1))
    # Ten hours on five days, and the cooldown of 600 s after each closing.
    assert month.serving_hours == pytest.approx(5 * (10 + 600 / 3600) / 168 * HOURS_PER_MONTH)
    # Each of five mornings starts one replica.
    assert month.starts == pytest.approx(5 * HOURS_PER_MONTH / 168)


@pytest.mark.parametrize("per_hour", [0.5, 4.0, 12.0])
def test_the_awake_share_of_a_sleeping_tier_is_what_a_simulation_counts(per_hour: float) -> None:
    """An event simulation of its own: Poisson arrivals, a wake-up each time none came for the cooldown."""
    scaling = rule()
    month = replica_month([per_hour] * 168, ALWAYS, scaling)
    random_hours, awake_s, paid_s, starts = random.Random(1), 0.0, 0.0, 0
    now, end = 0.0, 20_000 * 3600.0
    while now < end:
        asleep = random_hours.expovariate(per_hour / 3600)
        now += asleep + scaling.cold_start_s
        starts += asleep > scaling.node_idle_s
        paid_s += min(asleep, scaling.node_idle_s) + scaling.cold_start_s
        up_since = now
        while (gap := random_hours.expovariate(per_hour / 3600)) < scaling.cooldown_s:
            now += gap
        now += scaling.cooldown_s
        awake_s += now - up_since
    assert month.serving_hours / HOURS_PER_MONTH == pytest.approx(awake_s / now, rel=0.03)
    assert month.node_hours / HOURS_PER_MONTH == pytest.approx((awake_s + paid_s) / now, rel=0.03)
    assert month.starts / HOURS_PER_MONTH == pytest.approx(starts / now * 3600, rel=0.03)


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("cooldown_s", [600.0, 3600.0])
@pytest.mark.parametrize("per_day", [5, 100, 1000])
@pytest.mark.parametrize("profile", ["office-hours", "servegen_m_large"])
def test_a_week_that_sleeps_at_night_pays_what_a_simulation_pays(
    profile: str, per_day: float, cooldown_s: float, kept: int
) -> None:
    """Requests one by one over 60 weeks: KEDA's cooldown after the last one and after closing time, cold starts, nodes
    that idle out. Not proven: several replicas, which the hand-counted months show.
    """
    hours = open_hours(WorkingHours(start="0 8 * * 1-5", end="0 18 * * 1-5"))
    rates = [per_day / 24 * weight for weight in shape(profile, hours).weights]
    scaling = rule(cooldown_s=cooldown_s, working_hours=kept)
    chance, count = random.Random(2), 60 * 168
    busy: list[tuple[float, float]] = []
    for hour in range(count):
        rate = rates[hour % len(rates)]
        moment = hour * 3600 + (chance.expovariate(rate / 3600) if rate else 3600)
        while moment < (hour + 1) * 3600:
            busy.append((moment, moment))
            moment += chance.expovariate(rate / 3600)
        if kept and hours[hour % 168]:
            busy.append((hour * 3600, (hour + 1) * 3600))
    node_hours, starts, ordered, asleep_from = 0.0, 0, 0.0, -math.inf
    for begins, ends in sorted(busy):
        if begins > asleep_from:
            # The node of the last time idles out, or is still there.
            gone = asleep_from + scaling.node_idle_s
            node_hours += (min(begins, gone) - ordered) / 3600 if starts else 0.0
            starts += begins > gone
            ordered, asleep_from = begins, begins + scaling.cold_start_s + cooldown_s
        asleep_from = max(asleep_from, ends + cooldown_s)
    node_hours += (asleep_from - ordered) / 3600
    month = replica_month(rates, hours, scaling)
    assert month.node_hours == pytest.approx(node_hours * HOURS_PER_MONTH / count, rel=0.03)
    assert month.starts == pytest.approx(starts * HOURS_PER_MONTH / count, rel=0.1, abs=1)


def test_working_hours_count_by_the_minute() -> None:
    hours = open_hours(WorkingHours(start="30 8 * * 1-5", end="0 18 * * 1-5"))
    month = replica_month([0.0] * 168, hours, rule(working_hours=1))
    assert month.serving_hours == pytest.approx(5 * (9.5 + 600 / 3600) / 168 * HOURS_PER_MONTH)


def test_the_busiest_ten_minutes_of_an_hour_decide_its_replicas() -> None:
    assert replicas_for(0.95 * 3600, rule()) == 1
    assert replicas_for(0.95 * 3600, rule(peak_within_hour=1.16)) == 2
    assert replicas_for(0.0, rule()) == 0
    assert replicas_for(3600.0, rule()) == 1


def test_more_traffic_never_takes_fewer_hours() -> None:
    hours = [
        replica_month([rate] * 168, ALWAYS, rule()).node_hours for rate in (0, 0.1, 1, 5, 20, 100, 1000, 5000, 20000)
    ]
    assert hours == sorted(hours)
    assert math.isclose(hours[-1], 6 * HOURS_PER_MONTH)
