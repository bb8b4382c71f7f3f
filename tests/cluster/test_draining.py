"""Replicas that end under load: spot that is taken back, a new model, a router that moves.

Karpenter's own part in an interruption, the notice and the new node, is shown by ``test_disruption``; here its drain is
repeated by the same calls, and the node is taken away when its replica has ended, which must be within two minutes. The
model servers end as vLLM is documented to; that vLLM does is not shown.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
import requests

from tests.cluster.build import Tools
from tests.cluster.callers import Request, Traffic, all_answered, report, send_all, traffic
from tests.cluster.figures import Record, record_figure
from tests.cluster.processes import wait_until
from tests.cluster.serving import Pace, ServingStack, recorded, serving_stack

NOTICE_S = 120
"""EC2 takes a spot instance back two minutes after its notice."""
PACE = Pace(start_s=2.0, idle_s=3)


@pytest.fixture(scope="module")
def stack(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServingStack]:
    """Give the dev stack, whose first tier may grow to three replicas."""
    recording = recorded("dev", fast={"maxReplicas": 3})
    with serving_stack(tools, tmp_path_factory.mktemp("draining"), recording, PACE) as started:
        yield started


def load(stack: ServingStack) -> AbstractContextManager[Traffic]:
    """Three streams and a whole answer by turns, of up to eight seconds, two a second, by the tier's name: about what
    one replica is planned for, so that the router's queue has room for all that comes while there is none."""
    chance = random.Random(0)

    def request(number: int) -> Request:
        return Request(model="fast", stream=number % 4 != 0, tokens=chance.randint(1, round(8 / PACE.token_s)))

    return traffic(stack.router_url("fast"), request, per_second=2)


@pytest.mark.parametrize("interruptions", [3, pytest.param(100, marks=pytest.mark.soak)])
def test_no_request_is_lost_when_spot_takes_a_node_back(
    stack: ServingStack, record_property: Record, interruptions: int
) -> None:
    """The node of one of two replicas, and of the only one: then requests are held until the next is ready."""
    gone_s: list[float] = []
    with load(stack) as sent:
        for number in range(interruptions):
            replicas = 2 - number % 2
            stack.pause("fast", replicas)
            pod = stack.wait_ready("fast", replicas, seconds=NOTICE_S)[0]
            time.sleep(2)
            noticed = time.monotonic()
            node = stack.drain(pod["spec"]["nodeName"])
            wait_until(lambda pod=pod: stack.has_ended(pod), "the replica has ended", seconds=NOTICE_S)
            gone_s.append(time.monotonic() - noticed)
            stack.lose(node)
            stack.bring_node(like=node)
            stack.wait_ready("fast", replicas, seconds=NOTICE_S)
    outcomes = sent.outcomes

    record_figure(
        record_property,
        report(f"{interruptions} nodes taken back, ended {min(gone_s):.0f} to {max(gone_s):.0f} s later", outcomes),
    )
    all_answered(outcomes)


def test_no_request_fails_while_the_model_is_changed(stack: ServingStack, record_property: Record) -> None:
    """The engines roll, and the router with them, since it lists the models and has their time-outs."""
    stack.pause("fast", 2)
    stack.wait_ready("fast", 2)
    replicas = {pod["metadata"]["name"] for pod in stack.ready_engines("fast")}
    router = stack.router_pod("fast")
    changed = recorded("dev", fast={"maxReplicas": 3, "model": "Qwen/Qwen3-8B"})
    with load(stack) as sent:
        time.sleep(2)
        # Longer than a pod that ends goes on before it is told to.
        longest = Request(model="fast", stream=True, tokens=round(30 / PACE.token_s))
        with ThreadPoolExecutor() as pool:
            streamed = pool.submit(send_all, stack.router("fast"), [longest])
            stack.update(changed)
            time.sleep(2)
            outcomes = streamed.result()
    outcomes += sent.outcomes

    record_figure(record_property, report("a new model on two replicas, a stream of 30 s among them", outcomes))
    all_answered(outcomes)
    assert stack.router_pod("fast") != router
    assert not replicas & {pod["metadata"]["name"] for pod in stack.ready_engines("fast")}
    models = requests.get(f"{stack.router('fast')}/v1/models", timeout=5).json()
    assert [model["id"] for model in models["data"]] == ["fast", "Qwen/Qwen3-8B"]
