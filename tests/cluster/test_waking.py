"""Sleeping tiers under the real KEDA, HPA, Prometheus, Envoy and picker: they wake, lose nobody, and sleep again.

What `serving.py` says of nodes and of the picker's ancestor holds for all of this. Prometheus and KEDA look as often as
in production; only the half hour after which the stack puts a tier to sleep is seconds here.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from planning.cold_start import LOAD_WINDOW_S
from tests.cluster.build import Tools
from tests.cluster.callers import Outcome, Request, Traffic, all_answered, report, send_all, traffic
from tests.cluster.figures import Record, record_figure
from tests.cluster.processes import wait_until
from tests.cluster.serving import Pace, ServingStack, recorded, serving_stack

START_S = 3.0
IDLE_S = 3
WAKE_S = 15
"""What router, Prometheus, KEDA and scheduler may add to the engine's own start."""
OVERLOAD = 8
"""Times what one replica is planned for: the mean of the load window passes one replica's after an eighth of it."""
LEAST_AT_ONCE = 4
MORE_THAN_ONE = 1.25
"""Replicas' worth of load."""


@pytest.fixture(scope="module")
def stack(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServingStack]:
    """Give the dev stack, whose tiers may grow, and one of which never sleeps."""
    pace = Pace(start_s=START_S, idle_s=IDLE_S)
    recording = recorded(
        "dev", fast={"maxReplicas": 3}, quality={"minReplicas": 1, "maxReplicas": 2}, batch={"maxReplicas": 2}
    )
    with serving_stack(tools, tmp_path_factory.mktemp("waking"), recording, pace) as started:
        yield started


def mixed(tier: str, count: int, tokens: int = 5) -> list[Request]:
    """Give requests of which every other one is streamed."""
    return [Request(model=tier, stream=number % 2 == 0, tokens=tokens) for number in range(count)]


def test_fifty_mixed_requests_to_a_sleeping_tier_are_all_answered(stack: ServingStack, record_property: Record) -> None:
    stack.wait_asleep("fast")

    outcomes = send_all(stack.router("fast"), mixed("fast", 50, tokens=10))

    record_figure(record_property, report(f"0 to 1, the engine starts in {START_S:g} s", outcomes))
    all_answered(outcomes)
    times_s = [one.total_s for one in outcomes]
    assert min(times_s) >= START_S
    # Fifty on one replica are four rounds of its slots.
    assert max(times_s) <= START_S + WAKE_S + 4 * 10 * stack.pace.token_s + 1


def test_a_tier_of_llama_cpp_wakes_too(stack: ServingStack, record_property: Record) -> None:
    wait_until(lambda: stack.wanted("batch") == 0, "batch sleeps", seconds=60)

    outcomes = send_all(stack.router("batch"), mixed("batch", 4))

    record_figure(record_property, report("llama.cpp's tier from 0", outcomes))
    all_answered(outcomes)
    # More at once than a replica has slots wait in it, and none is refused.
    all_answered(send_all(stack.router("batch"), mixed("batch", 50)))


def test_twenty_held_requests_that_one_replica_can_serve_start_one(stack: ServingStack) -> None:
    """While the first replica starts, the autoscaler looks with all twenty held: that must not count as load."""
    stack.wait_asleep("fast")
    most: list[int] = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            most[0] = max(most[0], stack.wanted("fast"))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        outcomes = send_all(stack.router("fast"), mixed("fast", 20))
        # And two polls more.
        time.sleep(2 * 5)
    finally:
        done.set()
        watching.join()

    all_answered(outcomes)
    assert most[0] == 1


@pytest.mark.parametrize("cycles", [5, pytest.param(200, marks=pytest.mark.soak)])
def test_no_request_is_lost_while_tiers_wake_and_fall_asleep(
    stack: ServingStack, record_property: Record, cycles: int
) -> None:
    """Requests come at random moments: to tiers that sleep, start, serve, tire or are just being stopped."""
    tiers = ("fast", "batch")
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(cycled, stack, tier, -(-cycles // len(tiers)), seed=cycles) for tier in tiers]
        results = [one.result() for one in running]

    outcomes = [one for answers, _ in results for one in answers]
    seen = sum(wakes for _, wakes in results)
    record_figure(record_property, report(f"{seen} cycles 0 to 1 to 0", outcomes))
    all_answered(outcomes)
    assert seen >= cycles


def cycled(stack: ServingStack, tier: str, cycles: int, *, seed: int) -> tuple[list[Outcome], int]:
    """Send bursts until the tier has woken ``cycles`` times; give all outcomes and how often it woke."""
    chance = random.Random(f"{seed} {tier}")
    outcomes: list[Outcome] = []
    wakes, asleep = 0, stack.wanted(tier) == 0
    url = stack.router(tier)
    while wakes < cycles or not asleep:
        # From at once to long enough that it sleeps: cooldown, and what KEDA takes to see that nothing runs.
        next_burst = time.monotonic() + chance.uniform(0, 6 * IDLE_S)
        while time.monotonic() < next_burst:
            asleep = asleep or stack.wanted(tier) == 0
            time.sleep(0.2)
        if wakes >= cycles and asleep:
            break
        wakes, asleep = wakes + asleep, False
        burst = mixed(tier, chance.randint(1, 6), tokens=chance.randint(1, 60))
        outcomes += send_all(url, burst)
    return outcomes, wakes


def steady_load(stack: ServingStack, tier: str) -> AbstractContextManager[Traffic]:
    """Keep so many streams running that the tier needs more than one replica.

    A tier that is planned for a fraction of a request has no moment without one: at that it would count as idle, and
    the few seconds that a tier goes on being taken for busy here are soon over.
    """
    tokens = 100
    at_once = max(LEAST_AT_ONCE, OVERLOAD * stack.planned_concurrency(tier))
    request = Request(model=tier, stream=True, tokens=tokens)
    url = stack.router(tier)
    return traffic(lambda: url, lambda _: request, per_second=at_once / (tokens * stack.pace.token_s))


@pytest.mark.parametrize("away_s", [45, pytest.param(300, marks=pytest.mark.soak)])
def test_while_prometheus_is_away_what_sleeps_sleeps_and_what_serves_keeps_its_replicas(
    stack: ServingStack, record_property: Record, away_s: int
) -> None:
    """One tier is at zero. Two have two replicas because of their load, which goes on until Prometheus is back: one of
    them may sleep, the other never does."""
    stack.wait_asleep("fast")
    began = time.monotonic()

    def stay_as_they_are(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert [stack.wanted(tier) for tier in ("quality", "batch")] == [2, 2]
            time.sleep(1)

    with (
        steady_load(stack, "quality") as quality,
        steady_load(stack, "batch") as batch,
        ThreadPoolExecutor() as pool,
    ):
        for tier in ("batch", "quality"):
            wait_until(lambda tier=tier: stack.wanted(tier) == 2, f"{tier} has two replicas", seconds=LOAD_WINDOW_S)
        grown_s = time.monotonic() - began
        # Neither is about to go back to one when Prometheus goes: load of before may leave the window.
        for tier in ("batch", "quality"):
            wait_until(lambda tier=tier: stack.load(tier) > MORE_THAN_ONE, f"{tier} needs two", seconds=LOAD_WINDOW_S)
        record_figure(
            record_property, f"1 to 2 replicas {grown_s:.0f} s after at least {OVERLOAD} times the load of one began"
        )
        stack.prometheus.stop()
        patient = [replace(one, patience_s=2 * away_s + one.patience_s) for one in mixed("fast", 4)]
        held = pool.submit(send_all, stack.router("fast"), patient)
        stay_as_they_are(away_s)
        assert stack.wanted("fast") == 0
        assert not held.done()
        stack.prometheus.start()
        # What Prometheus did not see is not taken for no load.
        stay_as_they_are(10 * IDLE_S)
        outcomes = held.result()
    # What is too much for two replicas is told to come again; nobody is cut off.
    assert {one.status for one in (*quality.outcomes, *batch.outcomes)} <= {200, 429}
    all_answered([one for one in (*quality.outcomes, *batch.outcomes) if one.status != 429])

    record_figure(record_property, report(f"held while Prometheus was away for {away_s} s", outcomes))
    all_answered(outcomes)
    wait_until(lambda: stack.wanted("quality") == 1, "quality is back to one", seconds=60)
    wait_until(lambda: stack.wanted("batch") == 0, "batch sleeps", seconds=60)
