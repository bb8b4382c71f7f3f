"""The choice of a tier's fleet against brute force and against Mélange's integer program, on small random markets.

Not proven here: speeds and prices themselves, which both sides take as given; the month of a tier that sleeps, which
``test_traffic_and_month`` holds against a simulation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp

from planning.facts.checkpoints import checkpoints
from planning.facts.instances import Offering, monthly_interruption, offerings
from planning.facts.models import model
from planning.fleet import Availability, Fleet, NodeCosts, Policy, TierFleet
from planning.mixing import Kind, Mix, cheapest_mix
from planning.options import Demand, Market, Option, hosts_pod, sustains, sustains_on_cpu
from planning.root_volume import RootVolume, VolumePrices, root_volume
from planning.serving import Target, Workload
from planning.traffic import Bursts, Shape

LLAMA_8B, LLAMA_70B = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-70B-Instruct"
METHODS = {"fp16", "fp8", "awq"}
POLICY = Policy()
#: Chance moves no replica here: the hours are counted by hand.
COSTS = NodeCosts(VolumePrices(0.0001, 0.00005), 0.045, node_idle_s=300.0, cooldown_s=600.0, load_window_s=math.inf)
PEAK_WITHIN_HOUR = 1.1
NAMES = (
    *("g4dn.xlarge", "g5.xlarge", "g5.2xlarge", "g6.xlarge", "g6.4xlarge", "g6e.xlarge", "g7e.2xlarge"),
    *("g5.12xlarge", "g6.12xlarge", "g6e.12xlarge", "g7e.12xlarge"),
)
EAST = {offering.instance.name: offering for offering in offerings("us-east-1")}


@st.composite
def markets(draw: st.DrawFn) -> Market:
    """One to five instance types at prices of their own."""
    chosen = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    result: list[Offering] = []
    for name in chosen:
        on_demand = EAST[name].on_demand_usd_per_hour * draw(st.floats(0.5, 2))
        spot = draw(st.none() | st.floats(0.1, 1.1).map(lambda share, price=on_demand: share * price))
        result.append(
            replace(
                EAST[name],
                on_demand_usd_per_hour=on_demand,
                spot_usd_per_hour=spot,
                interruption_class=draw(st.sampled_from(("<5%", "10-15%", ">20%"))),
                zones=4,
                zones_at_on_demand_price=draw(st.integers(0, 2)),
            )
        )
    return Market(result)


def shaped(rates: Sequence[float], peak: float) -> tuple[Shape, float]:
    """A shape of these requests an hour, all of one length, with the same burst in every hour; and requests a day."""
    mean = sum(rates) / len(rates)
    weights = tuple(rate / mean if mean else 1.0 for rate in rates)
    bursts = Bursts(peak, 600, 600)  # no longer than any window, so that every window sees one
    return Shape("", weights, weights, weights, lambda _: bursts, 1.0, ""), 24 * mean


@st.composite
def tiers(draw: st.DrawFn, least: int = 1) -> TierFleet:
    """A tier with some replicas always kept, on a market of its own; a week of six hours' rates, repeated."""
    market = draw(markets())
    architecture = model(draw(st.sampled_from((LLAMA_8B, LLAMA_70B))))
    demand = Demand(
        architecture=architecture,
        checkpoints=tuple(
            entry for entry in checkpoints(architecture.model_id) if entry.method in {"fp8", "awq", "fp16"}
        ),
        workload=Workload(draw(st.integers(100, 3000)), draw(st.integers(20, 400))),
        target=Target(draw(st.integers(500, 5000)), draw(st.integers(25, 150))),
        max_model_len=8192,
        kv_cache_dtype="auto",
    )
    rates = draw(st.lists(st.floats(0, 40_000), min_size=6, max_size=6)) * 28
    minimum = draw(st.integers(least, 3))
    kept = Availability(minimum, 0, draw(st.integers(0, minimum)))
    return TierFleet(demand, kept, *shaped(rates, PEAK_WITHIN_HOUR), (True,) * 168, market, COSTS)


def needed(tier: TierFleet, requests_per_second: float) -> list[int]:
    """Replicas of each hour, for its busiest ten minutes."""
    loads = [rate * PEAK_WITHIN_HOUR / 3600 for rate in tier.requests_per_hour]
    return [max(tier.availability.minimum, math.ceil(load / requests_per_second - 1e-9)) for load in loads]


def month_usd(tier: TierFleet, option: Option, pool: Sequence[Offering]) -> float:
    """The month counted hour by hour, from the definitions."""
    counts = needed(tier, option.load.requests_per_second)
    start_s, hours, starts = option.cold_start.total_s, 0.0, 0
    for before, now in zip((counts[-1], *counts), counts, strict=False):
        # Down only after the window of 600 s; up on new nodes, which idle out one day.
        hours += now + max(0, before - now) * 600 / 3600
        starts += max(0, now - before)
    hours = (hours + starts * 300 / 3600) * 730 / 168
    # Each hour goes to the cheapest spot offering that has capacity; what is left, to the cheapest on-demand one.
    on_demand = min(offering.on_demand_usd_per_hour for offering in pool)
    left, price, interruptions = 1.0, 0.0, 0.0
    spots = [offering for offering in pool if offering.spot_usd_per_hour is not None]
    for offering in sorted(spots, key=lambda offering: (offering.spot_usd_per_hour, offering.instance.name)):
        monthly = monthly_interruption(offering.interruption_class).expected
        share = left * (1 - monthly) * (1 - (offering.zones_at_on_demand_price or 0) / 4)
        left -= share
        price += share * (offering.spot_usd_per_hour or 0)
        interruptions += share * -math.log(1 - monthly) / 730
    price += left * on_demand
    floor_hours = tier.availability.on_demand_floor * 730
    interrupted = (hours - floor_hours) * interruptions
    restarts = interrupted * start_s / 3600
    return (
        (hours - floor_hours + restarts) * price
        + floor_hours * on_demand
        # Every type here has NVMe: a root volume of 30 GiB at the free throughput.
        + (hours + restarts) * 30 * 0.0001
        + (starts * 730 / 168 + interrupted) * 10 * 0.045
    )


def brute_force(tier: TierFleet, market: Market) -> float | None:
    """The cheapest month over every option and every pool that it may have; None when nothing serves."""
    best: float | None = None
    for option in dict.fromkeys((*tier.survey.options(tuned=True), *tier.survey.options(tuned=False))):
        peak = max(tier.requests_per_hour) * PEAK_WITHIN_HOUR / 3600
        rate = min(option.load.requests_per_second, peak / tier.availability.minimum)
        own = min(option.offerings, key=lambda offering: offering.on_demand_usd_per_hour)
        members = [
            offering
            for gpu, offered in market.of_size(option.gpus)
            for offering in offered
            if hosts_pod(offering.instance, option.resources)
            and (gpu is option.gpu or sustains(option, tier.demand, gpu, rate))
        ]
        others = [offering for offering in members if offering is not own]
        for size in range(len(others) + 1):
            for some in itertools.combinations(others, size):
                usd = month_usd(tier, option, (own, *some))
                best = usd if best is None else min(best, usd)
    return best


@settings(max_examples=150)
@given(tiers())
def test_the_fleet_is_within_one_per_cent_of_brute_force(tier: TierFleet) -> None:
    choice = tier.choose(POLICY)
    best = brute_force(tier, tier.market)
    assert (choice is None) == (best is None)
    if choice is not None and best is not None:
        assert choice.usd <= best * 1.01 + 0.01
        # The month itself, too, is what the definitions give.
        assert choice.usd == pytest.approx(month_usd(tier, choice.option, choice.pool), rel=1e-6)


def melange(kinds: Sequence[Kind], requests_per_second: float, at_least: int, slices: int = 8) -> float:
    """USD an hour of Mélange's program (arXiv 2404.14527, section 5).

    Minimise the sum of c_j B_j, over whole numbers B_j of replicas of kind j and an assignment A_ij of load slices i to
    kinds: every slice to one kind, sum_j A_ij = 1; within what the kind's replicas carry, sum_i A_ij r_i / T_j <= B_j.
    """
    count = len(kinds)
    cost = np.array([0.0] * (slices * count) + [kind.usd_per_hour for kind in kinds])
    assigned = np.zeros((slices, len(cost)))
    carried = np.zeros((count, len(cost)))
    for i, j in itertools.product(range(slices), range(count)):
        assigned[i, i * count + j] = 1
        carried[j, i * count + j] = requests_per_second / slices / kinds[j].requests_per_second
        carried[j, slices * count + j] = -1
    replicas = np.array([0.0] * (slices * count) + [1.0] * count)
    constraints = [LinearConstraint(assigned, 1, 1), LinearConstraint(carried, -np.inf, 0)]
    constraints.append(LinearConstraint(replicas, at_least, np.inf))
    return float(milp(cost, constraints=constraints, integrality=np.ones(len(cost))).fun)


@settings(max_examples=60)
@given(tiers())
def test_fleet_or_reported_mix_is_never_above_melange_on_the_same_profiles(tier: TierFleet) -> None:
    choice = tier.choose(POLICY)
    if choice is None:
        return
    kinds = [tier.kind(tier.fleet(option, POLICY)) for option in tier.survey.options()]
    peak = max(tier.requests_per_hour) * PEAK_WITHIN_HOUR / 3600
    static = 730 * melange(kinds, peak, tier.availability.minimum)
    mixed = tier.mix(choice, POLICY)
    offered = min(choice.usd, mixed.usd) if mixed else choice.usd
    assert offered <= static * 1.01


KINDS = st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)), min_size=1, max_size=4).map(
    lambda pairs: [Kind(str(number), rate, usd) for number, (rate, usd) in enumerate(pairs)]
)


@given(KINDS, st.floats(0.1, 30), st.integers(1, 4))
def test_the_cheapest_mix_is_the_optimum_of_the_integer_program(kinds: list[Kind], load: float, at_least: int) -> None:
    rates, prices = [kind.requests_per_second for kind in kinds], [kind.usd_per_hour for kind in kinds]
    covered = LinearConstraint([rates, [1.0] * len(kinds)], lb=[load, at_least])
    optimum = milp(prices, constraints=covered, integrality=[1] * len(kinds)).fun
    mix = cheapest_mix(kinds, load, at_least=at_least, below_usd_per_hour=math.inf)
    assert mix is not None
    assert mix.usd_per_hour == pytest.approx(optimum, rel=1e-6)
    assert mix.requests_per_second >= load * (1 - 1e-6)
    assert mix.size >= at_least
    assert cheapest_mix(kinds, load, at_least=at_least, below_usd_per_hour=mix.usd_per_hour) is None


def test_one_large_and_one_small_replica_beat_two_large_ones() -> None:
    large, small = Kind("large", 10.0, 5.0), Kind("small", 3.0, 2.0)
    mix = cheapest_mix([large, small], 12.0, at_least=1, below_usd_per_hour=math.inf)
    assert mix == Mix(((large, 1), (small, 1)))
    assert str(mix) == "1 x (large) + 1 x (small)"


def fixed_tier(requests_per_hour: float, **availability: int) -> TierFleet:
    kept = {"minimum": 1, "working_hours": 0, "on_demand_floor": 0, **availability}
    architecture = model(LLAMA_8B)
    demand = Demand(
        architecture=architecture,
        checkpoints=checkpoints(LLAMA_8B)[:2],
        workload=Workload(900, 150),
        target=Target(1000, 80),
        max_model_len=8192,
        kv_cache_dtype="auto",
    )
    market = Market([EAST[name] for name in ("g4dn.xlarge", "g5.xlarge", "g6.xlarge", "g6e.xlarge")])
    hours = tuple(hour % 24 in range(8, 18) for hour in range(168))
    return TierFleet(demand, Availability(**kept), *shaped([requests_per_hour] * 168, 1.0), hours, market, COSTS)


def chosen(tier: TierFleet, policy: Policy = POLICY) -> Fleet:
    fleet = tier.choose(policy)
    assert fleet is not None
    return fleet


def test_the_on_demand_floor_pays_the_on_demand_price() -> None:
    fleet = chosen(fixed_tier(100, minimum=2, on_demand_floor=1))
    cheapest = min(offering.on_demand_usd_per_hour for offering in fleet.pool)
    assert fleet.floor_usd == pytest.approx(730 * cheapest)
    assert fleet.nodes_usd == pytest.approx(730 * fleet.price.usd_per_hour)


def test_a_root_volume_costs_its_size_and_what_it_does_beyond_the_free_throughput() -> None:
    prices = VolumePrices.of("us-east-1")
    # List prices: 0.08 USD a GB-month, 0.04 a MBps-month above 125; AWS counts a GiB of a volume as a GB.
    assert prices.usd_per_hour(RootVolume(80, 600)) * 730 == pytest.approx(80 * 0.08 + 475 * 0.04)
    assert root_volume([EAST["g6.xlarge"]]) == RootVolume(30, 125)
    assert root_volume([EAST["c8g.2xlarge"]]).mib_per_second == 125
    without_nvme = replace(EAST["g6.xlarge"], instance=replace(EAST["g6.xlarge"].instance, local_nvme_gb=0.0))
    assert root_volume([EAST["g5.xlarge"], without_nvme]).mib_per_second == 600


def test_every_interruption_pays_a_cold_start() -> None:
    fleet = chosen(fixed_tier(100, minimum=3))
    interruptions = 3 * 730 * fleet.price.interruptions_per_hour
    assert fleet.restarts_usd == pytest.approx(
        interruptions * fleet.option.cold_start.total_s / 3600 * fleet.price.usd_per_hour
    )
    assert fleet.restarts_usd > 0


def test_without_scale_to_zero_one_replica_stays_and_the_working_hours_keep_theirs() -> None:
    tier = fixed_tier(0.0, minimum=0, working_hours=3)
    month = chosen(tier, Policy(scale_to_zero=False)).month
    # Three replicas in ten of 24 hours, else one; two of them stay for the window of 600 s after each closing.
    a_day = 3 * 10 + 1 * 14 + 2 * 600 / 3600
    assert sum(month.by_hour) * 730 / 168 == pytest.approx(a_day * 730 / 24)


def test_a_tier_that_is_cheaper_awake_stays_awake() -> None:
    seldom = chosen(fixed_tier(0.05, minimum=0))
    assert seldom.rule.may_sleep
    # A request every ten minutes with a cooldown of ten: it would start and stop all day.
    often = chosen(fixed_tier(20, minimum=0))
    assert not often.rule.may_sleep
    assert often.asleep_usd is not None
    assert often.usd < often.asleep_usd
    assert sum(often.month.by_hour) * 730 / 168 == pytest.approx(730)


def test_a_gpu_that_does_not_carry_the_planned_rate_is_not_in_the_pool() -> None:
    # At this load every replica runs at its limit. A T4 has 320 GB/s of memory bandwidth, an L40S 864: no pod that is
    # filled to the limit of the one runs on the other.
    tier = fixed_tier(100_000)
    for option in tier.survey.options():
        names = {offering.instance.name for offering in tier.fleet(option, POLICY).pool}
        assert option.gpu is not None
        if option.gpu.name == "L40S":
            assert names == {"g6e.xlarge"}


def test_a_cpu_type_is_judged_with_the_threads_and_slots_of_the_pod() -> None:
    architecture = model(LLAMA_8B)
    demand = Demand(
        architecture=architecture,
        checkpoints=tuple(entry for entry in checkpoints(LLAMA_8B) if entry.method == "gguf-q4_k_m"),
        workload=Workload(600, 150),
        target=Target(60_000, 150),
        max_model_len=4096,
        kv_cache_dtype="auto",
    )
    market = Market([EAST[name] for name in ("c8g.2xlarge", "c7g.2xlarge", "c8g.4xlarge")])
    options = {option.offerings[0].instance.name: option for option in market.survey(demand).options()}
    graviton4 = options["c8g.2xlarge"]
    rate = graviton4.load.requests_per_second
    # Graviton3 reads 307 GB/s and Graviton4 537: with the same threads it does not carry the same rate.
    assert not sustains_on_cpu(graviton4, demand, EAST["c7g.2xlarge"].instance, rate)
    # A larger node of the same processor runs the pod's own threads as fast, and no faster.
    assert sustains_on_cpu(graviton4, demand, EAST["c8g.4xlarge"].instance, rate * 0.99)
    assert not sustains_on_cpu(graviton4, demand, EAST["c8g.4xlarge"].instance, rate * 1.05)
    # The threads of a large node do not fit a small one.
    assert not sustains_on_cpu(options["c8g.4xlarge"], demand, EAST["c8g.2xlarge"].instance, rate * 0.1)


def test_no_option_carries_more_than_the_bound_that_prunes_it() -> None:
    for model_id in (LLAMA_8B, LLAMA_70B, "Qwen/Qwen3-30B-A3B"):
        for workload, target in ((Workload(900, 150), Target(1000, 80)), (Workload(60, 700, 0.5), Target(9000, 30))):
            demand = Demand(
                architecture=model(model_id),
                checkpoints=checkpoints(model_id),
                workload=workload,
                target=target,
                max_model_len=8192,
                kv_cache_dtype="auto",
            )
            survey = Market(tuple(EAST.values())).survey(demand)
            for way in survey.ways:
                option = survey.look(way)
                if isinstance(option, Option):
                    assert option.load.requests_per_second <= way.most_requests_per_second * 1.0001
