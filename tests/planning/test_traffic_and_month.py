"""Shapes against the published figures of their traces, and the month against hand-counted cases."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planning.facts.traces import Trace, trace
from planning.month import ReplicaMonth, ScalingRule, replica_month, replicas_for, scatter
from planning.traffic import (
    HOURS_PER_MONTH,
    Bursts,
    from_trace,
    growing,
    profile_choices,
    profile_names,
    shape,
    with_peak,
)
from settings import Traffic, WorkingHours, open_hours

ALWAYS = (True,) * 168


def rule(**changes: object) -> ScalingRule:
    values: dict[str, object] = {
        "requests_per_second_per_replica": 1.0,
        "minimum": 0,
        "working_hours": 0,
        "follows_load": True,
        "may_sleep": True,
        "cold_start_s": 300.0,
        "cooldown_s": 600.0,
        "node_idle_s": 300.0,
    }
    return ScalingRule(**{**values, **changes})  # type: ignore[arg-type]


def month_of(load: Sequence[float], working: Sequence[float], scaling: ScalingRule) -> ReplicaMonth:
    """The month of requests of one length."""
    return replica_month(load, load, working, scaling)


def awake_hours(month: ReplicaMonth) -> float:
    return sum(month.by_hour) / len(month.by_hour) * HOURS_PER_MONTH


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
    assert week.bursts(0.5).peak >= 1


def test_office_hours_has_no_request_outside_working_hours() -> None:
    hours = open_hours(WorkingHours(start="0 9 * * 1-5", end="0 17 * * 1-5"))
    weights = shape("office-hours", hours).weights
    assert all((weight > 0) == is_open for weight, is_open in zip(weights, hours, strict=True))


def test_office_hours_without_a_schedule_are_monday_to_friday_from_8_to_18() -> None:
    weights = shape("office-hours", ALWAYS).weights
    at_work = [day * 24 + hour for day in range(5) for hour in range(8, 18)]
    assert [hour for hour, weight in enumerate(weights) if weight] == at_work


def test_every_choice_of_a_profile_is_one_of_another_shape() -> None:
    choices = profile_choices()
    assert "servegen_m_large" in choices
    assert {shape(name, ALWAYS).name for name in choices} == set(profile_names())
    assert len(choices) == len(profile_names())


def test_a_trace_file_is_a_profile_of_its_requests_alone(tmp_path: Path) -> None:
    """As the shipped traces: the lengths of its requests change nothing."""
    lines = ["hour,requests,input_tokens,output_tokens"]
    lines += [f"{hour},{1 + hour % 24},{1000 if hour % 24 == 3 else 1},0" for hour in range(48)]
    (tmp_path / "week.csv").write_text("\n".join(lines))
    week = shape(str(tmp_path / "week.csv"), ALWAYS)
    assert week.name == "week"
    assert week.prompts == week.answers == week.weights
    assert week.weights[:24] == pytest.approx([(1 + hour) / 12.5 for hour in range(24)])
    (tmp_path / "week.csv").write_text("\n".join([lines[0], "0,5,5,5"]))
    assert set(shape(str(tmp_path / "week.csv"), ALWAYS).weights) == {1.0}


def test_requests_whose_tokens_nobody_counted_have_one_length() -> None:
    known = trace("servegen_m_large_10min")
    none = (0.0,) * len(known.requests)
    alike = from_trace(replace(known, input_tokens=known.requests, output_tokens=known.requests))
    unknown = from_trace(replace(known, input_tokens=none, output_tokens=none))
    assert unknown.prompts == unknown.answers == unknown.weights == alike.weights
    assert unknown.bursts(0.5).peak == alike.bursts(0.5).peak
    # Of short requests nobody counts the answers.
    assert from_trace(replace(known, output_tokens=none)).bursts(0.0).peak == alike.bursts(0.0).peak


def test_a_trace_finer_than_the_autoscaler_looks_has_the_bursts_that_it_sees() -> None:
    """Each second of a quarter of a minute alike: the same as one step of 15 s."""
    chance = np.random.default_rng(5)
    coarse = tuple(chance.poisson(20, 2 * 3600 // 15).astype(float))
    fine = tuple(value / 15 for value in coarse for _ in range(15))
    looks, seconds = (
        from_trace(Trace("", step_s, requests=load, input_tokens=load, output_tokens=load, source=""))
        for step_s, load in ((15.0, coarse), (1.0, fine))
    )
    assert seconds.bursts(0.5).peak == pytest.approx(looks.bursts(0.5).peak)
    assert seconds.bursts(0.5).lasts_s == pytest.approx(looks.bursts(0.5).lasts_s)


def test_an_hour_long_trace_tells_no_hours_apart_but_its_bursts() -> None:
    week = from_trace(trace("azure2023_conv_minute"))
    assert set(week.weights) == {1.0}
    assert week.bursts(0.5).peak > 1


def test_a_flat_load_of_two_and_a_half_replicas_holds_three_all_month() -> None:
    month = month_of([2.5 * 3600] * 168, ALWAYS, rule(minimum=1))
    assert month.node_hours == pytest.approx(3 * HOURS_PER_MONTH)
    assert month.starts == 0


def test_without_autoscaling_the_peak_is_held_all_month() -> None:
    load = [0.5 * 3600] * 167 + [4 * 3600]
    month = month_of(load, ALWAYS, rule(minimum=1, follows_load=False, may_sleep=False))
    assert month.node_hours == pytest.approx(4 * HOURS_PER_MONTH)


def test_autoscaling_pays_for_each_hour_what_it_needs_and_for_starting_it() -> None:
    load = [0.5 * 3600] * 167 + [4 * 3600]
    month = month_of(load, ALWAYS, rule(minimum=1))
    serving = (167 * 1 + 4) * HOURS_PER_MONTH / 168
    # Three replicas start once a week, within the busy hour; each leaves an idle node for 300 s.
    wasted = 3 * HOURS_PER_MONTH / 168 * 300 / 3600
    # After the busy hour, three replicas stay for the window of 600 s.
    serving += 3 * HOURS_PER_MONTH / 168 * 600 / 3600
    assert awake_hours(month) == pytest.approx(serving)
    assert month.node_hours == pytest.approx(serving + wasted)


def test_a_tier_without_traffic_sleeps_all_month() -> None:
    assert month_of([0.0] * 168, ALWAYS, rule()).node_hours == 0


def test_working_hours_keep_a_replica_while_nobody_asks() -> None:
    hours = open_hours(WorkingHours(start="0 8 * * 1-5", end="0 18 * * 1-5"))
    month = month_of([0.0] * 168, hours, rule(working_hours=1))
    # Ten hours on five days, and the cooldown of 600 s after each closing.
    assert awake_hours(month) == pytest.approx(5 * (10 + 600 / 3600) / 168 * HOURS_PER_MONTH)
    # Each of five mornings starts one replica.
    assert month.starts == pytest.approx(5 * HOURS_PER_MONTH / 168)


@pytest.mark.parametrize("per_hour", [0.5, 4.0, 12.0])
def test_the_awake_share_of_a_sleeping_tier_is_what_a_simulation_counts(per_hour: float) -> None:
    """An event simulation of its own: Poisson arrivals, a wake-up each time none came for the cooldown."""
    scaling = rule()
    month = month_of([per_hour] * 168, ALWAYS, scaling)
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
    assert awake_hours(month) / HOURS_PER_MONTH == pytest.approx(awake_s / now, rel=0.03)
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
    month = month_of(rates, hours, scaling)
    assert month.node_hours == pytest.approx(node_hours * HOURS_PER_MONTH / count, rel=0.03)
    assert month.starts == pytest.approx(starts * HOURS_PER_MONTH / count, rel=0.1, abs=1)


def test_working_hours_count_by_the_minute() -> None:
    hours = open_hours(WorkingHours(start="30 8 * * 1-5", end="0 18 * * 1-5"))
    month = month_of([0.0] * 168, hours, rule(working_hours=1))
    assert awake_hours(month) == pytest.approx(5 * (9.5 + 600 / 3600) / 168 * HOURS_PER_MONTH)


def test_the_busiest_load_window_of_an_hour_decides_its_replicas() -> None:
    assert replicas_for(0.95 * 3600, rule()) == 1
    assert replicas_for(0.95 * 3600, rule(bursts=Bursts(1.16, 600, 3600))) == 2
    assert replicas_for(0.0, rule()) == 0
    assert replicas_for(3600.0, rule()) == 1


def test_more_traffic_never_takes_fewer_hours() -> None:
    hours = [month_of([rate] * 168, ALWAYS, rule()).node_hours for rate in (0, 0.1, 1, 5, 20, 100, 1000, 5000, 20000)]
    assert hours == sorted(hours)
    assert math.isclose(hours[-1], 6 * HOURS_PER_MONTH)


@pytest.mark.parametrize("window_s", [600.0, 2250.0, 3600.0])
@pytest.mark.parametrize(("load", "concurrency", "stay_s"), [(0.9, 24, 16), (1.5, 4, 60), (4.5, 4, 60), (8.5, 32, 40)])
def test_the_autoscalers_window_holds_what_a_simulation_of_it_holds(
    load: float, concurrency: int, stay_s: float, window_s: float
) -> None:
    """Requests that come at random and stay for exponential times, looked at every 15 s: the mean of the last 300 s
    over the target, up at once, down to the most of the window. Not proven: that such a look is what Kubernetes takes.
    """
    chance, runs, looks = np.random.default_rng(3), 64, 5 * 240
    stays = math.exp(-15 / stay_s)
    running = chance.poisson(load * concurrency, runs)
    last = np.tile(running, (20, 1))
    asked = np.tile(np.full(runs, math.ceil(load)), (round(window_s / 15), 1))
    held, hours, starts = asked[0], 0.0, 0.0
    for look in range(looks):
        running = chance.binomial(running, stays) + chance.poisson(load * concurrency * (1 - stays), runs)
        last[look % len(last)] = running
        asked[look % len(asked)] = np.maximum(1, np.ceil(last.mean(axis=0) / concurrency - 1e-9))
        before, held = held, asked.max(axis=0)
        if look >= 2 * 240:
            hours += held.mean() / 240
            starts += np.maximum(held - before, 0).mean()
    per_second = concurrency / stay_s
    scaling = rule(
        requests_per_second_per_replica=per_second,
        minimum=1,
        may_sleep=False,
        cooldown_s=window_s,
        node_idle_s=0.0,
        scatter=scatter(1.0, stay_s, 300.0, per_second),
    )
    month = month_of([load * per_second * 3600] * 168, ALWAYS, scaling)
    assert month.by_hour[0] == pytest.approx(hours / 3, rel=0.03)
    assert month.starts / HOURS_PER_MONTH == pytest.approx(starts / 3, rel=0.25, abs=0.1)


@pytest.mark.parametrize("window_s", [2250.0, 3600.0])
@pytest.mark.parametrize("hours", [1, 4, 12, 20])
def test_peak_and_length_of_bursts_tell_what_a_window_holds(hours: int, window_s: float) -> None:
    """Parts of a public trace, each repeated for ever: the mean over time of the busiest load of the last window.

    3 % off on average, a fifth at most: in a part with one large surge, peak and length say less.
    """
    whole = trace("servegen_m_large_10min")
    errors: list[float] = []
    for first in range(0, 1800, 200):
        part = whole.requests[first : first + 6 * hours]
        load = [value for value in part for _ in range(20)]
        count = round(window_s / 30)
        around = [*load[-count:], *load] if len(load) > count else [*load, *load]
        held = [max(around[at : at + count + 1]) for at in range(len(load))]
        bursts = from_trace(replace(whole, requests=part, input_tokens=part, output_tokens=part)).bursts(0.5)
        assert bursts.period_s == hours * 3600
        errors.append(bursts.held(window_s) / (sum(held) / sum(load)) - 1)
    assert sum(map(abs, errors)) / len(errors) < 0.04
    assert max(map(abs, errors)) < 0.2


def test_a_peak_may_be_set_and_keeps_the_order_of_hours() -> None:
    given = shape("servegen_m_large", ALWAYS)
    steeper = with_peak(given, 3.0)
    assert steeper.peak_over_mean == pytest.approx(3.0)
    assert sum(steeper.weights) / len(steeper.weights) == pytest.approx(1)
    order = sorted(range(336), key=given.weights.__getitem__)
    assert order == sorted(range(336), key=steeper.weights.__getitem__)
    assert with_peak(given, 1.2).peak_over_mean == pytest.approx(1.2)


def test_a_flat_week_has_no_peak_to_stretch() -> None:
    with pytest.raises(ValueError, match="between"):
        with_peak(shape("flat", ALWAYS), 2.0)


def test_growth_tilts_the_month_and_keeps_its_mean() -> None:
    grown = growing(shape("flat", ALWAYS), 20.0)
    assert sum(grown.weights) / len(grown.weights) == pytest.approx(1)
    # 672 of the month's 730 hours are shown.
    assert grown.weights[-1] / grown.weights[0] == pytest.approx(1.2 ** (671 / 730))
    traffic = Traffic(requestsPerDay=1000, inputTokens=9, outputTokens=9, growthPercentPerMonth=20)
    days = [1000 * 1.2 ** (day / 1000) for day in range(1000)]
    assert traffic.mean_requests_per_day == pytest.approx(sum(days) / len(days), rel=1e-3)


def test_users_on_three_continents_leave_no_quiet_hour() -> None:
    assert shape("global", ALWAYS).peak_over_mean < 1.1 < shape("servegen_m_large", ALWAYS).peak_over_mean


def test_a_batch_window_has_its_requests_outside_working_hours() -> None:
    hours = open_hours(WorkingHours(start="0 9 * * 1-5", end="0 17 * * 1-5"))
    weights = shape("batch-window", hours).weights
    assert all((weight > 0) != is_open for weight, is_open in zip(weights, hours, strict=True))
    always = shape("batch-window", ALWAYS).weights
    assert {hour % 24 for hour, weight in enumerate(always) if weight} == {22, 23, 0, 1, 2, 3, 4, 5}
