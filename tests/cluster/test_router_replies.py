"""What a tier's Envoy answers by itself, by running it with the program's own configuration and a stub of a picker.

The stub says what llm-d's picker says, in the words that were seen when it ran (llm-d-router ebab687, 2026-08-22), and
nothing else of it is here. That answers of replicas pass is not shown: there is none.
"""

from __future__ import annotations

import copy
import functools
import http.client
import json
import socket
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import trustme
import yaml

from tests import harness
from tests.cluster.processes import Processes, free_ports
from tests.envoy import needs_envoy, start_envoy

pytestmark = needs_envoy

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "Hello"}]})
RETRY_AFTER_S = "5"
"""One look of the autoscaler, in every stack."""


@functools.cache
def rendered() -> dict[str, Any]:
    """Give the bootstrap of the dev stack's tier fast, as the program emits it."""
    maps = harness.kubernetes_objects(harness.record("dev", preview=False), "ConfigMap")
    (text,) = [one["data"]["envoy.yaml"] for one in maps if one["metadata"]["name"].startswith("fast-router-envoy-")]
    return yaml.safe_load(text)


# The stub ------------------------------------------------------------------------------------------------------------


def _field(number: int, content: bytes | int) -> bytes:
    """Encode a field of a protobuf message: a number, or bytes with their length, below 2^14."""
    value = content if isinstance(content, int) else len(content)
    size = bytes([value]) if value < 128 else bytes([value & 127 | 128, value >> 7])
    if isinstance(content, int):
        return bytes([number << 3]) + size
    return bytes([number << 3 | 2]) + size + content


def immediate(status: int, text: str) -> bytes:
    """Give ``envoy.service.ext_proc.v3.ProcessingResponse`` with an ``immediate_response``."""
    return _field(7, _field(1, _field(1, status)) + _field(3, text.encode()))


Says = Callable[[grpc.ServicerContext], bytes]


@dataclass
class StubPicker:
    """Answers every request with what it is told to say, at its first message."""

    port: int
    says: Says = field(default=lambda _: immediate(503, ""))
    asked: int = 0

    def process(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        next(requests)
        self.asked += 1
        yield self.says(context)


def _serving(_request: bytes, _context: grpc.ServicerContext) -> bytes:
    """Answer ``grpc.health.v1.HealthCheckResponse``."""
    return _field(1, 1)


@contextmanager
def picker() -> Iterator[StubPicker]:
    """Run the stub over TLS with a certificate of its own, as the picker does."""
    certificate = trustme.CA().issue_cert("localhost")
    key, chain = certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes()
    (port,) = free_ports(1)
    stub = StubPicker(port)
    server = grpc.server(ThreadPoolExecutor(8))
    # The stubs of grpc want a signature that takes anything.
    behaviors: tuple[Any, Any] = (stub.process, _serving)
    process = grpc.stream_stream_rpc_method_handler(behaviors[0])
    serving = grpc.unary_unary_rpc_method_handler(behaviors[1])
    services = {
        "envoy.service.ext_proc.v3.ExternalProcessor": {"Process": process},
        "grpc.health.v1.Health": {"Check": serving},
    }
    for service, methods in services.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(key, chain)]))
    server.start()
    try:
        yield stub
    finally:
        server.stop(0).wait()


# The router ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def error(self) -> dict[str, Any]:
        """What stands under ``error`` of OpenAI's shape, which the whole body must be."""
        assert self.headers["content-type"] == "application/json"
        (key, found), *rest = json.loads(self.body).items()
        assert (key, rest) == ("error", [])
        assert found.keys() == {"message", "type", "param", "code"}
        assert found["message"]
        return found


@dataclass(frozen=True)
class Router:
    port: int

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        reply = Reply(answer.status, found, answer.read().decode())
        connection.close()
        return reply

    def chat(self, headers: dict[str, str] | None = None) -> Reply:
        return self.ask("POST", CHAT, headers, BODY)


Change = Callable[[dict[str, Any]], None]
"""Changes the settings of the connections that requests come by."""


def start_router(processes: Processes, picker_port: int, *changes: Change) -> Router:
    """Start Envoy with the rendered bootstrap, on ports that are free here."""
    bootstrap = copy.deepcopy(rendered())
    resources = bootstrap["static_resources"]
    listeners = {one["name"]: one for one in resources["listeners"]}
    for listener, port in zip(listeners.values(), free_ports(len(listeners)), strict=True):
        listener["address"]["socket_address"]["port_value"] = port
    (cluster,) = [one for one in resources["clusters"] if one["name"] == "picker"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = picker_port
    for change in changes:
        change(listeners["requests"]["filter_chains"][0]["filters"][0]["typed_config"])
    port = listeners["requests"]["address"]["socket_address"]["port_value"]
    start_envoy(processes, f"router-{port}", bootstrap)
    return Router(port)


def fails_open(manager: dict[str, Any]) -> None:
    manager["http_filters"][0]["typed_config"]["failure_mode_allow"] = True


def keeps_headers(manager: dict[str, Any]) -> None:
    del manager["early_header_mutation_extensions"]


def hurries(manager: dict[str, Any]) -> None:
    manager["http_filters"][0]["typed_config"]["message_timeout"] = "0.2s"
    (route,) = [one["route"] for one in manager["route_config"]["virtual_hosts"][0]["routes"] if "route" in one]
    route["idle_timeout"] = "2s"


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Generator[Processes]:
    started = Processes(tmp_path_factory.mktemp("routers"))
    try:
        yield started
    finally:
        started.stop_all()


@pytest.fixture(scope="module")
def alone(processes: Processes) -> Router:
    """Give a router whose picker is down and whose tier has no replica."""
    return start_router(processes, free_ports(1)[0])


@pytest.fixture(scope="module")
def beside(processes: Processes) -> Generator[tuple[Router, StubPicker]]:
    """Give a router with the stub beside it."""
    with picker() as stub:
        yield start_router(processes, stub.port), stub


# Without a picker ----------------------------------------------------------------------------------------------------


def test_without_its_picker_a_request_is_refused_for_a_while(alone: Router) -> None:
    reply = alone.chat()
    assert (reply.status, reply.headers["retry-after"]) == (503, RETRY_AFTER_S)
    assert (reply.error["type"], reply.error["code"]) == ("server_error", "router_unavailable")


@pytest.mark.parametrize(
    ("changes", "reached"),
    [((), False), ((fails_open,), False), ((keeps_headers,), False), ((fails_open, keeps_headers), True)],
    ids=["as-it-is", "fails-open", "keeps-headers", "both"],
)
def test_and_goes_nowhere_that_the_client_names_by_either_of_two_safeguards(
    processes: Processes, changes: tuple[Change, ...], reached: bool
) -> None:
    router = start_router(processes, free_ports(1)[0], *changes)
    with socket.create_server(("127.0.0.1", 0)) as named, ThreadPoolExecutor(1) as client:
        named.settimeout(2)
        address = f"127.0.0.1:{named.getsockname()[1]}"
        # Without a body: whether Envoy fails open depends on how much of one it has streamed by then.
        asked = client.submit(router.ask, "GET", "/v1/files", {"x-gateway-destination-endpoint": address})
        try:
            connection, _ = named.accept()
            connection.close()
            assert reached
        except TimeoutError:
            assert not reached
        assert asked.result().status == 503


def test_models_are_listed_all_the_same(alone: Router) -> None:
    listed = alone.ask("GET", "/v1/models")
    assert (listed.status, listed.headers["content-type"]) == (200, "application/json")
    names = [model["id"] for model in json.loads(listed.body)["data"]]
    assert names == ["fast", "meta-llama/Llama-3.1-8B-Instruct"]
    for name in names:
        assert json.loads(alone.ask("GET", f"/v1/models/{name}").body)["id"] == name
    assert alone.ask("GET", "/v1//models").body == listed.body
    assert alone.ask("POST", "/v1/models", body="{}").status == 503, "what is no GET is the replicas' to answer"


@pytest.mark.parametrize("path", ["/v1", "/", "/metrics", "/health", "/v2/models", "/v1/../metrics", "/v1beta/models"])
def test_a_path_that_is_not_served_is_a_404_that_says_what_is(alone: Router, path: str) -> None:
    for method in ("GET", "POST"):
        reply = alone.ask(method, path, body="{}")
        assert reply.status == 404
        assert (reply.error["type"], reply.error["code"]) == ("invalid_request_error", "not_found")
        assert "/v1/models" in reply.error["message"]
        assert "retry-after" not in reply.headers


# With one that refuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "text", "kind", "code"),
    [
        (400, "inference error: BadRequest - prompt is missing", "invalid_request_error", "bad_request"),
        (413, "inference error: PayloadTooLarge - too large", "invalid_request_error", "bad_request"),
        (429, "inference error: ResourceExhausted - request timed out in queue", "rate_limit_error", "overloaded"),
        (
            503,
            "inference error: ServiceUnavailable - request timed out in queue and no endpoints are available",
            "server_error",
            "unavailable",
        ),
        (503, 'no endpoints available: "request" rejected pre-queue', "server_error", "unavailable"),
    ],
)
def test_a_refusal_of_the_picker_keeps_its_status_and_words(
    beside: tuple[Router, StubPicker], status: int, text: str, kind: str, code: str
) -> None:
    router, stub = beside
    stub.says = lambda _: immediate(status, text)
    reply = router.chat()
    assert reply.status == status
    assert reply.error == {"message": text, "type": kind, "param": None, "code": code}
    assert reply.headers.get("retry-after") == (RETRY_AFTER_S if status in {429, 503} else None)


def test_what_it_cannot_hold_and_its_own_failures_are_503s_that_clients_retry(
    beside: tuple[Router, StubPicker],
) -> None:
    router, stub = beside

    def fails(context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")
        raise AssertionError("abort raises")

    def has_no_replica(_: grpc.ServicerContext) -> bytes:
        return immediate(500, "inference error: Internal - no pods available in datastore")

    for says in (has_no_replica, fails):
        stub.says = says
        reply = router.chat()
        assert (reply.status, reply.headers["retry-after"]) == (503, RETRY_AFTER_S)
        assert (reply.error["type"], reply.error["code"]) == ("server_error", "router_unavailable")


def test_models_and_paths_that_are_not_served_do_not_trouble_it(beside: tuple[Router, StubPicker]) -> None:
    router, stub = beside
    before = stub.asked
    assert router.ask("GET", "/v1/models").status == 200
    assert router.ask("GET", "/metrics").status == 404
    assert stub.asked == before
    stub.says = lambda _: immediate(429, "full")
    router.chat()
    assert stub.asked == before + 1


def test_a_request_is_held_with_no_byte_until_the_picker_decides(beside: tuple[Router, StubPicker]) -> None:
    router, stub = beside

    def holds(_: grpc.ServicerContext) -> bytes:
        time.sleep(3)
        return immediate(503, "held")

    stub.says = holds
    with socket.create_connection(("127.0.0.1", router.port), timeout=1.5) as one:
        one.sendall(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode()
        )
        with pytest.raises(TimeoutError):
            one.recv(1)
        one.settimeout(10)
        assert one.recv(4096).startswith(b"HTTP/1.1 503 ")


@pytest.mark.slow
def test_a_picker_that_never_decides_is_given_up_after_silence_and_not_by_the_messages_time_out(
    processes: Processes,
) -> None:
    """Envoy 1.39.1 does not look at ``message_timeout`` while bodies are streamed in full duplex.

    What ends the request is the route's idle time-out, after once more its time. In the stacks it is the load
    balancer's, which therefore gives up first.
    """
    with picker() as stub:

        def forgets(_: grpc.ServicerContext) -> bytes:
            time.sleep(8)
            return immediate(503, "too late")

        stub.says = forgets
        router = start_router(processes, stub.port, hurries)
        begun = time.monotonic()
        reply = router.chat()
        lasted_s = time.monotonic() - begun
    assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (504, "unavailable", RETRY_AFTER_S)
    assert lasted_s >= 2
