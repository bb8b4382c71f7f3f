"""What a client sees, whatever it sends and whatever happens to the router: before the real Envoy and the real picker.

The picker is the ancestor of the shipped one; ``picker.py`` says in what it differs. So a request that waits for
a busy replica too long is told so with another status there, and its own reason for dropping is in no header.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from components.envoy_config import ENVOY_CONFIG_KEY
from components.model_router_config import ARGUMENTS
from components.names import MODEL_ROUTER, NAME_LABEL, PROJECT, SERVING_NAMESPACE
from tests import harness
from tests.cluster.build import Tools
from tests.cluster.callers import Outcome, Request, all_answered, report, send, send_all, session
from tests.cluster.figures import Record, record_figure
from tests.cluster.load_balancer import balancer_bootstrap
from tests.cluster.processes import free_ports, wait_until
from tests.cluster.serving import Pace, ServingStack, recorded, serving_stack
from tests.envoy import start_before, start_envoy

DESTINATION = "x-gateway-destination-endpoint"
MODEL_ID = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.fixture(scope="module")
def stack(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServingStack]:
    """Give the dev stack, whose first tier may grow to three replicas."""
    recording = recorded("dev", fast={"maxReplicas": 3})
    with serving_stack(tools, tmp_path_factory.mktemp("requests"), recording, Pace(start_s=0.5, idle_s=3)) as started:
        yield started


@pytest.fixture(scope="module")
def asleep(stack: ServingStack) -> str:
    """Give the router of a tier that is kept asleep."""
    stack.pause("quality", 0)
    stack.wait_asleep("quality")
    return stack.router("quality")


@pytest.fixture(scope="module")
def serving(stack: ServingStack) -> str:
    """Give the router of a tier that is kept at three replicas."""
    stack.pause("fast", 3)
    stack.wait_ready("fast", 3)
    return stack.router("fast")


def error_of(outcome: Outcome) -> dict[str, str | None]:
    """Give the error of an answer in OpenAI's shape."""
    assert outcome.headers["content-type"].startswith("application/json")
    error = json.loads(outcome.text)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


# A sleeping tier ------------------------------------------------------------------------------------------------------


def test_a_sleeping_tier_lists_its_models(asleep: str) -> None:
    listed = requests.get(f"{asleep}/v1/models", timeout=5)
    assert [model["id"] for model in listed.json()["data"]] == ["quality", "Qwen/Qwen3-32B"]
    assert requests.get(f"{asleep}/metrics", timeout=5).status_code == requests.codes.not_found


def test_a_client_that_leaves_while_it_is_held_leaves_the_queue(stack: ServingStack, asleep: str) -> None:
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(send_all, asleep, [Request(model="quality", patience_s=3) for _ in range(7)])
        wait_until(lambda: stack.held("quality") == 7, "seven are held", seconds=3)
        assert not any(one.answered for one in sent.result())
    wait_until(lambda: stack.held("quality") == 0, "nobody is held", seconds=3)


def test_a_full_queue_refuses_at_once_and_keeps_those_it_holds(
    stack: ServingStack, asleep: str, record_property: Record
) -> None:
    most = stack.most_held("quality")
    beyond = 15
    requests_ = [Request(model="quality", stream=number % 2 == 0) for number in range(most + beyond)]
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(send_all, asleep, requests_)
        wait_until(lambda: stack.held("quality") == most, "the queue is full", seconds=10)
        time.sleep(3)
        released = time.monotonic()
        stack.pause("quality", None)
        outcomes = sent.result()
    stack.pause("quality", 0)

    refused = [one for one in outcomes if one.status != 200]
    record_figure(record_property, report(f"{most} held and {beyond} too many", outcomes))
    assert len(refused) == beyond
    for one in refused:
        assert one.status == 429, "llm-d's own picker says 503 here"
        assert one.sent + one.total_s < released, "at once, while the others are held"
        assert one.headers["retry-after"] == "5"
        assert error_of(one)["code"] == "overloaded"
    all_answered([one for one in outcomes if one not in refused])
    stack.wait_asleep("quality")


def test_a_body_that_is_no_request_is_refused_and_wakes_nobody(stack: ServingStack, asleep: str) -> None:
    for body in ("not JSON", "{}"):
        refused = requests.post(f"{asleep}/v1/chat/completions", data=body, timeout=5)
        assert refused.status_code == 400
        assert refused.json()["error"]["type"] == "invalid_request_error"
    assert stack.held("quality") == 0


# Behind the load balancer's rules ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def balancer(stack: ServingStack) -> str:
    """Give an Envoy that follows the rules of the stack's Ingress; no ALB and no controller has read them."""
    ingress = stack.client.get("networking.k8s.io/v1", "Ingress", PROJECT, SERVING_NAMESPACE)
    assert ingress is not None
    (port,) = free_ports(1)
    start_envoy(stack.plane.processes, "balancer", balancer_bootstrap(ingress, stack.address_of, port))
    return f"http://127.0.0.1:{port}"


def test_the_header_chooses_the_tier_and_without_it_the_default_tier_answers(
    stack: ServingStack, serving: str, balancer: str
) -> None:
    assert serving
    chosen: list[tuple[str, dict[str, str]]] = [
        ("fast", {"X-Model-Tier": "fast"}),
        ("batch", {"x-model-tier": "BATCH"}),
        ("fast", {}),
    ]
    outcomes = send_all(balancer, [Request(model=tier, headers=headers) for tier, headers in chosen])
    all_answered(outcomes)
    for (tier, _), outcome in zip(chosen, outcomes, strict=True):
        assert outcome.replica.startswith(f"{tier}-engine-")


def test_an_unknown_tier_is_told_the_names_of_those_there_are(balancer: str) -> None:
    (outcome,) = send_all(balancer, [Request(model="fast", headers={"X-Model-Tier": "premium"})])
    assert outcome.status == 400
    assert error_of(outcome)["code"] == "unknown_tier"
    assert str(error_of(outcome)["message"]).endswith("fast, quality, batch")


# By the model field ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_model(stack: ServingStack) -> str:
    """Give the Envoy that the stack would have with ``routing.byModelField``, before the routers that run here."""
    routing = {"defaultTier": "fast", "byModelField": True}
    objects = harness.kubernetes_objects(harness.record_with("dev", preview=False, routing=routing), "ConfigMap")
    (config,) = (one for one in objects if one["metadata"].get("labels", {}).get(NAME_LABEL) == MODEL_ROUTER)
    urls, _ = start_before(
        stack.plane.processes, "front", config["data"][ENVOY_CONFIG_KEY], stack.address_of, ARGUMENTS
    )
    return urls["requests"]


def test_without_a_header_the_model_field_chooses_and_a_sleeping_tier_is_held_for(
    stack: ServingStack, serving: str, asleep: str, by_model: str
) -> None:
    assert serving
    assert asleep
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(send_all, by_model, [Request(model="Qwen/Qwen3-32B", stream=True) for _ in range(5)])
        at_once = send_all(by_model, [Request(model=name) for name in ("fast", MODEL_ID, "gpt-4o")])
        wait_until(lambda: stack.held("quality") == 5, "five are held", seconds=10)
        stack.pause("quality", None)
        held = sent.result()
    stack.pause("quality", 0)

    by_name, by_id, unknown = at_once
    all_answered([by_name, by_id, *held])
    assert {one.replica.partition("-")[0] for one in (by_name, by_id)} == {"fast"}, (
        "the default tier of two with this id"
    )
    assert {one.replica.partition("-")[0] for one in held} == {"quality"}
    assert unknown.status == 404
    assert error_of(unknown)["code"] == "model_not_found"
    stack.wait_asleep("quality")


# A forged destination -------------------------------------------------------------------------------------------------


@contextmanager
def trap() -> Iterator[tuple[str, list[str]]]:
    """Listen where a client would like to be sent, and take down who came."""
    came: list[str] = []
    server = socket.create_server(("10.244.255.9", 8000))

    def listen() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            came.append("somebody")
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            connection.close()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield "10.244.255.9:8000", came
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_the_trap_takes_down_who_comes(serving: str) -> None:
    assert serving
    with trap() as (address, came):
        requests.get(f"http://{address}", timeout=5)
        assert came


@pytest.mark.parametrize("name", [DESTINATION, DESTINATION.title(), "x-envoy-original-dst-host"])
def test_a_forged_destination_is_not_followed(serving: str, name: str) -> None:
    with trap() as (address, came):
        outcomes = send_all(serving, [Request(model="fast", headers={name: address}) for _ in range(10)])
        all_answered(outcomes)
        assert not came


def test_while_the_picker_is_down_no_destination_is_followed_and_clients_are_told_to_retry(
    stack: ServingStack, serving: str
) -> None:
    with trap() as (address, came):
        stack.kubelet.kill(stack.router_pod("fast"), "picker", down_s=4)
        outcomes = send_all(serving, [Request(model="fast", headers={DESTINATION: address}) for _ in range(10)])
        assert not came
    for one in outcomes:
        assert one.status == 503
        assert one.headers["retry-after"] == "5"
        assert error_of(one)["code"] == "router_unavailable"
    stack.router("fast")
    wait_until(lambda: send_all(serving, [Request(model="fast")])[0].answered, "the picker is back", seconds=30)


def test_a_picker_that_dies_fails_what_it_holds_and_the_clients_retry_is_answered(
    stack: ServingStack, asleep: str, record_property: Record
) -> None:
    stack.wait_asleep("quality")
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(send_all, asleep, [Request(model="quality") for _ in range(10)])
        wait_until(lambda: stack.held("quality") == 10, "ten are held", seconds=5)
        stack.kubelet.kill(stack.router_pod("quality"), "picker", down_s=1)
        failed = sent.result()
    assert {one.status for one in failed} == {503}
    assert {error_of(one)["code"] for one in failed} == {"router_unavailable"}
    stack.pause("quality", None)
    retry_s = int(failed[0].headers["retry-after"])
    # As often as the page for clients says; the picker reads its pods anew when it starts.
    outcomes, retries = failed, 0
    while retries < 5 and not all(one.answered for one in outcomes):
        outcomes = send_all(asleep, [Request(model="quality", after_s=retry_s) for _ in range(10)])
        retries += 1
    stack.pause("quality", 0)
    record_figure(record_property, report(f"retry {retries} after {retry_s} s, of 10 that a picker held", outcomes))
    all_answered(outcomes)


# Replicas that serve --------------------------------------------------------------------------------------------------


def test_the_model_field_takes_the_tiers_name_and_the_models_id_and_nothing_else(serving: str) -> None:
    by_name, by_id, unknown = send_all(serving, [Request(model=name) for name in ("fast", MODEL_ID, "gpt-4o")])
    all_answered([by_name, by_id])
    assert unknown.status == 404
    assert error_of(unknown)["code"] == "model_not_found"


def test_a_prompt_beyond_the_models_length_gets_the_engines_own_error(serving: str) -> None:
    (outcome,) = send_all(serving, [Request(model="fast", prompt="word " * 9000)])
    assert outcome.status == 400
    assert "maximum context length is 8192" in str(error_of(outcome)["message"])


def test_a_stream_arrives_as_it_is_generated(serving: str) -> None:
    (outcome,) = send_all(serving, [Request(model="fast", stream=True, tokens=100)])
    all_answered([outcome])
    assert outcome.first_byte_s is not None
    assert outcome.first_byte_s < outcome.total_s / 4


def test_a_client_that_sends_slowly_is_answered(serving: str) -> None:
    request = Request(model="fast")
    body = json.dumps(request.body).encode()

    async def slowly() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 20):
            yield body[start : start + 20]
            await asyncio.sleep(0.3)

    async def sent() -> tuple[int, str]:
        async with session() as client, client.post(f"{serving}/v1/chat/completions", data=slowly()) as answer:
            return answer.status, await answer.text()

    status, text = asyncio.run(sent())
    assert status == 200
    assert '"usage"' in text


def test_a_replica_at_its_queue_limit_does_not_stop_the_other_two(
    stack: ServingStack, serving: str, record_property: Record
) -> None:
    """It is filled from beside the router, to twice its limit: the router stops at the limit."""
    full = stack.ready_engines("fast")[0]
    slots, threshold = stack.slots("fast"), stack.queue_threshold("fast")
    long = Request(model="fast", tokens=400)
    with ThreadPoolExecutor() as pool:
        direct = f"http://{full['status']['podIP']}:8000"
        flood = pool.submit(send_all, direct, [long] * (slots + 2 * threshold))
        wait_until(lambda: waiting(direct) == 2 * threshold, "its queue is full", seconds=5)
        outcomes = send_all(serving, [Request(model="fast", after_s=number * 0.05) for number in range(60)])
        assert waiting(direct) >= threshold, "it was full to the end"
        flood.result()

    record_figure(record_property, report("one of three replicas full", outcomes))
    all_answered(outcomes)
    assert max(one.total_s for one in outcomes) < 2
    assert full["metadata"]["name"] not in {one.replica for one in outcomes}


def waiting(url: str) -> int:
    """Give how many requests wait in a replica."""
    lines = requests.get(f"{url}/metrics", timeout=5).text.splitlines()
    return int(float(next(line.split()[-1] for line in lines if line.startswith("vllm:num_requests_waiting{"))))


def prefixes(run: str) -> list[str]:
    """Give five long beginnings that no request before had."""
    return [" ".join(f"{run}{number}-{word}" for word in range(900)) for number in range(5)]


def sent_by(url: str, requests_: Sequence[Request], at_once: int) -> list[Outcome]:
    """Send requests as so many clients would, each its next one when it has its answer."""

    async def sent() -> list[Outcome]:
        limit = asyncio.Semaphore(at_once)

        async def one(request: Request) -> Outcome:
            async with limit:
                return await send(client, url, request)

        async with session() as client:
            return list(await asyncio.gather(*map(one, requests_)))

    return asyncio.run(sent())


def test_requests_with_a_shared_prefix_reach_one_replica(serving: str, record_property: Record) -> None:
    texts = prefixes("affinity")
    first = {text: send_all(serving, [Request(model="fast", prompt=text)])[0].replica for text in texts}

    asked = [(text, Request(model="fast", prompt=f"{text} {number}")) for number in range(30) for text in texts]
    outcomes = sent_by(serving, [request for _, request in asked], at_once=6)

    all_answered(outcomes)
    met = Counter(text for (text, _), one in zip(asked, outcomes, strict=True) if one.replica == first[text])
    listed = ", ".join(f"{met[text] / 30:.2f}" for text in texts)
    record_figure(record_property, f"share of 5 prefixes' requests on the replica of their first answer: {listed}")
    assert min(met.values()) >= 0.9 * 30


def test_at_saturation_no_replica_is_starved(stack: ServingStack, serving: str, record_property: Record) -> None:
    """Five prefixes on three replicas, and half as many clients more than there are slots."""
    texts = prefixes("saturation")
    send_all(serving, [Request(model="fast", prompt=text) for text in texts])
    slots = 3 * stack.slots("fast")
    asked = [Request(model="fast", prompt=f"{texts[number % 5]} {number}", tokens=50) for number in range(9 * slots)]
    outcomes = sent_by(serving, asked, at_once=round(1.5 * slots))

    all_answered(outcomes)
    by_replica = Counter(one.replica for one in outcomes)
    mean = len(outcomes) / 3
    listed = ", ".join(f"{count / mean:.2f}" for count in sorted(by_replica.values()))
    record_figure(record_property, f"requests of each of 3 replicas at saturation, over their mean: {listed}")
    assert len(by_replica) == 3
    assert max(by_replica.values()) <= 1.5 * mean
