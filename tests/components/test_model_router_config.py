"""Envoys that route by the body's model, on the real Envoy with stubs in place of the tiers' routers.

Proven here: what Envoy does with bodies, headers and answers. Not proven: the load balancer before it, the cluster's
DNS behind it, and the image, which is of an Envoy one minor older than the one that runs here.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests
import yaml

from components.envoy_config import METRICS_PATH, ROUTING_HEADERS
from components.model_router_config import ARGUMENTS, envoy_bootstrap
from planning.plan import ModelRouterPlan
from tests.cluster.processes import Process, Processes, free_ports, wait_until
from tests.components.known_metrics import ENVOY as ENVOY_METRICS
from tests.components.plans import BY_MODEL as TIERS
from tests.components.plans import FAST, QUALITY
from tests.components.plans import MODEL_ROUTER as PLAN
from tests.envoy import complaints, needs_envoy, start_before

LLAMA_8B, LLAMA_70B = FAST.model_id, QUALITY.model_id
MODELS = dict(PLAN.tier_of_model)
LIMIT = 2**20
CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


# What it says ---------------------------------------------------------------------------------------------------------


def bootstrap(plan: ModelRouterPlan = PLAN) -> dict[str, Any]:
    return yaml.safe_load(envoy_bootstrap(plan, TIERS))


def with_times(**seconds: int) -> ModelRouterPlan:
    return replace(PLAN, timeouts=replace(PLAN.timeouts, **seconds))


def tier_clusters() -> list[dict[str, Any]]:
    return [one for one in bootstrap()["static_resources"]["clusters"] if one["name"] in {tier.name for tier in TIERS}]


def manager(plan: ModelRouterPlan = PLAN) -> dict[str, Any]:
    (listener,) = [one for one in bootstrap(plan)["static_resources"]["listeners"] if one["name"] == "requests"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def routes(plan: ModelRouterPlan = PLAN) -> list[dict[str, Any]]:
    (host,) = manager(plan)["route_config"]["virtual_hosts"]
    return host["routes"]


def test_a_request_may_wait_as_long_as_planned_and_a_connection_is_kept_as_long() -> None:
    found = bootstrap(with_times(idle_s=3000, connection_s=6))
    text = json.dumps(found)
    assert set(re.findall(r'"idle_timeout": "(\d+s)"', text)) == {"3000s", "0s"}
    assert set(re.findall(r'"max_connection_duration": "(\d+s)"', text)) == {"6s"}
    assert all(one["route"]["timeout"] == "0s" for one in routes() if "route" in one)


def test_a_lost_router_is_noticed_within_the_planned_time() -> None:
    for cluster in tier_clusters():
        probes = cluster["upstream_connection_options"]["tcp_keepalive"]
        seconds = probes["keepalive_time"] + probes["keepalive_interval"] * probes["keepalive_probes"]
        assert seconds == PLAN.timeouts.lost_router_s == 25


def test_no_request_is_sent_twice() -> None:
    assert "retry" not in json.dumps(bootstrap()).replace("retry-after", "").replace("; retry.", "")


def test_each_tiers_router_is_called_by_its_service() -> None:
    addresses = {
        one["name"]: one["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        for one in tier_clusters()
    }
    assert addresses == {
        tier: {"address": f"{tier}-router.llm.svc.cluster.local", "port_value": 80}
        for tier in ("fast", "quality", "small")
    }


def test_a_list_of_models_that_is_too_long_for_an_error_is_left_out_of_it() -> None:
    many = MODELS | {f"somebody/a-model-with-a-long-name-{number:03d}": "fast" for number in range(60)}
    assert all("Models: fast, quality, small" in one for one in refusals(PLAN))
    assert all("Models: GET /v1/models lists them" in one for one in refusals(replace(PLAN, tier_of_model=many)))


def refusals(plan: ModelRouterPlan) -> list[str]:
    bodies = [one["direct_response"]["body"]["inline_string"] for one in routes(plan) if "direct_response" in one]
    found = [json.loads(body)["error"]["message"] for body in bodies if "model_not_found" in body]
    assert len(found) == 2
    return found


@needs_envoy
@pytest.mark.parametrize("models", [5, 300])
def test_envoy_takes_the_bootstrap(models: int, tmp_path: Path) -> None:
    # 300 models make answers of 40 KB; without a word of its own Envoy takes 4.
    more = {f"somebody/a-model-with-a-long-name-{number:03d}": "small" for number in range(models - len(MODELS))}
    plan = replace(PLAN, tier_of_model=MODELS | more)
    assert complaints(envoy_bootstrap(plan, TIERS), tmp_path) == ""


# What it does ---------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """One request as a tier's router got it."""

    tier: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """The caller's port."""


@dataclass
class Tiers:
    """The stubs' common memory."""

    seen: list[Seen] = field(default_factory=list)
    more: threading.Event = field(default_factory=threading.Event)
    """Set: a stream goes on after its first event."""
    left: threading.Event = field(default_factory=threading.Event)
    """Set: the caller of a held request has gone."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tier: str
    tiers: Tiers

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        chunked = self.headers["Transfer-Encoding"] == "chunked"
        body = self._chunks() if chunked else self.rfile.read(int(self.headers["Content-Length"] or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.tiers.seen.append(Seen(self.tier, self.path, headers, body, self.client_address[1]))
        match headers.get("x-test"):
            case "stream":
                self._stream()
            case "hold":
                self.connection.settimeout(10)
                if self.connection.recv(1) == b"":
                    self.tiers.left.set()
                self.close_connection = True
            case "hang up":
                self.close_connection = True
            case "full":
                self._answer(429, b'{"error": {"code": "overloaded"}}', {"Retry-After": "5"})
            case _:
                self._answer(200, json.dumps({"tier": self.tier}).encode(), {})

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in (b"data: 1\n\n", b"data: [DONE]\n\n"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.tiers.more.wait(10)
        self.wfile.write(b"0\r\n\r\n")


Body = dict[str, Any] | str | bytes | Iterator[bytes]


@dataclass(frozen=True)
class Front:
    """A running Envoy and what stands behind it."""

    url: str
    metrics_url: str
    process: Process
    tiers: Tiers
    ports: dict[str, int]
    """Where each tier's router listens."""

    def post(self, body: Body, headers: dict[str, str] | None = None, *, stream: bool = False) -> requests.Response:
        data = json.dumps(body) if isinstance(body, dict) else body
        return requests.post(self.url + CHAT, data=data, headers={**JSON, **(headers or {})}, timeout=20, stream=stream)

    def reached(self, body: Body, headers: dict[str, str] | None = None) -> str:
        """Give the tier that a request reaches."""
        answer = self.post(body, headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["tier"]


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    running = Processes(tmp_path_factory.mktemp("envoy"))
    yield running
    running.stop_all()


def started(processes: Processes, name: str, bootstrap: str, ports: dict[str, int]) -> tuple[dict[str, str], Process]:
    def address_of(service: str) -> tuple[str, int]:
        return "127.0.0.1", ports[service.removesuffix("-router")]

    return start_before(processes, name, bootstrap, address_of, ARGUMENTS)


@pytest.fixture(scope="module")
def shared(processes: Processes) -> Iterator[Front]:
    tiers = Tiers()
    servers = {}
    for tier in ("fast", "quality"):
        handler = type("TierHandler", (Handler,), {"tier": tier, "tiers": tiers})
        servers[tier] = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threads = [threading.Thread(target=one.serve_forever, args=(0.02,)) for one in servers.values()]
    for thread in threads:
        thread.start()
    # Nobody listens where the router of the tier small should.
    ports = {tier: server.server_port for tier, server in servers.items()} | {"small": free_ports(1)[0]}
    try:
        urls, process = started(processes, "front", envoy_bootstrap(PLAN, TIERS), ports)
        yield Front(urls["requests"], urls["metrics"], process, tiers, ports)
    finally:
        # Its connections end, and with them the threads of the stubs.
        processes.stop_all()
        for server, thread in zip(servers.values(), threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def front(shared: Front) -> Front:
    shared.tiers.seen.clear()
    shared.tiers.more.clear()
    shared.tiers.left.clear()
    return shared


@needs_envoy
@pytest.mark.parametrize(("model", "tier"), [*MODELS.items()][:2] + [*MODELS.items()][3:])
def test_the_model_finds_its_tier(front: Front, model: str, tier: str) -> None:
    body = {"messages": [{"role": "user", "content": "model"}], "model": model}
    assert front.reached(body) == tier
    assert front.tiers.seen[0].path == CHAT
    assert json.loads(front.tiers.seen[0].body) == body, "passed on as it came"


@needs_envoy
def test_an_unknown_model_is_refused_as_openai_does_with_the_models_there_are(front: Front) -> None:
    answer = front.post({"model": "gpt-6"})
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {
        "error": {
            "message": f"The model does not exist in this stack. Models: fast, quality, small, {LLAMA_8B}, {LLAMA_70B}",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
    assert front.tiers.seen == []


@needs_envoy
@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"model": None},
        {"model": ["quality"]},
        {"nested": {"model": "quality"}},
        "model: quality",
        '{"model": "quality", ',
        '["model", "quality"]',
        '{"model": "quality", "deep": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "",
    ],
    ids=["missing", "null", "list", "nested", "no JSON", "cut off", "array", "too deep", "empty"],
)
def test_a_body_without_a_model_goes_to_the_default_tier_which_answers_as_always(front: Front, body: Body) -> None:
    assert front.reached(body) == "fast"


@needs_envoy
@pytest.mark.parametrize(
    ("content_type", "tier"),
    [
        ("application/json; charset=utf-8", "quality"),
        ("Application/JSON", "quality"),
        ("application/x-www-form-urlencoded", "fast"),
        ("application/jsonl", "fast"),
    ],
)
def test_only_json_is_read(front: Front, content_type: str, tier: str) -> None:
    assert front.reached({"model": "quality"}, {"Content-Type": content_type}) == tier


@needs_envoy
def test_a_body_of_just_the_limit_arrives_whole(front: Front) -> None:
    frame = json.dumps({"model": "quality", "prompt": ""})
    body = frame[:-2] + "x" * (LIMIT - len(frame)) + frame[-2:]
    assert len(body) == LIMIT
    assert front.reached(body) == "quality"
    assert len(front.tiers.seen[0].body) == LIMIT


@needs_envoy
@pytest.mark.parametrize("bytes_over", [1, LIMIT])
def test_a_longer_body_is_refused_with_the_limit_and_the_way_out(front: Front, bytes_over: int) -> None:
    answer = front.post("x" * (LIMIT + bytes_over))
    assert answer.status_code == 413
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "request_too_large")
    assert "over 1 MiB" in error["message"]
    assert "X-Model-Tier" in error["message"]
    assert front.tiers.seen == []


@needs_envoy
def test_what_is_not_read_for_its_model_has_no_such_limit(front: Front) -> None:
    upload = b"x" * (3 * LIMIT)
    assert front.reached(upload, {"Content-Type": "multipart/form-data; boundary=b"}) == "fast"
    assert len(front.tiers.seen[0].body) == len(upload)


@needs_envoy
def test_a_body_may_come_slowly_and_in_chunks(front: Front) -> None:
    def slowly() -> Iterator[bytes]:
        for part in (b'{"prompt": "', b"x" * 100_000, b'", "mod', b'el": "quality"', b"}"):
            yield part
            time.sleep(0.05)

    assert front.reached(slowly()) == "quality"
    assert front.tiers.seen[0].headers["transfer-encoding"] == "chunked"
    assert len(front.tiers.seen[0].body) == 100_034


@needs_envoy
def test_an_answer_streams_through_as_it_comes(front: Front) -> None:
    with front.post({"model": "quality", "stream": True}, {"X-Test": "stream"}, stream=True) as answer:
        lines = answer.iter_lines()
        # The stub sends the second event only when the first has arrived here.
        assert next(lines) == b"data: 1"
        front.tiers.more.set()
        assert [line for line in lines if line] == [b"data: [DONE]"]


@needs_envoy
def test_the_models_of_all_tiers_are_listed_whether_or_not_a_tier_is_there(front: Front) -> None:
    answer = requests.get(f"{front.url}/v1/models", timeout=5)
    assert answer.headers["Content-Type"] == "application/json"
    assert [model["id"] for model in answer.json()["data"]] == list(MODELS)
    for name in MODELS:
        # With the slash as it is, and escaped as OpenAI's SDK does.
        for path in (name, quote(name, safe="")):
            found = requests.get(f"{front.url}/v1/models/{path}", timeout=5)
            assert (found.status_code, found.json()["id"]) == (200, name)
    missing = requests.get(f"{front.url}/v1/models/gpt-6", timeout=5)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
    assert front.tiers.seen == []


@needs_envoy
def test_a_client_cannot_say_where_its_request_goes_or_waits(front: Front) -> None:
    forged = dict.fromkeys(ROUTING_HEADERS, "169.254.169.254:80")
    assert front.reached({"model": "quality"}, {**forged, "Authorization": "Bearer key"}) == "quality"
    arrived = front.tiers.seen[0].headers
    assert not arrived.keys() & forged.keys()
    assert arrived["authorization"] == "Bearer key"


def raw_request(front: Front, path: str, test: str = "") -> socket.socket:
    """Send a request as it stands, where a client's library would tidy the path and wait for the answer."""
    where = urlsplit(front.url)
    body = json.dumps({"model": "quality"})
    lines = ["Host: x", "Content-Type: application/json", f"X-Test: {test}", f"Content-Length: {len(body)}"]
    connection = socket.create_connection((str(where.hostname), where.port or 0), timeout=5)
    connection.sendall("\r\n".join([f"POST {path} HTTP/1.1", *lines, "", body]).encode())
    return connection


@needs_envoy
@pytest.mark.parametrize("path", ["/metrics", "/", "/v2/chat/completions", "/v1/../metrics"])
def test_only_v1_is_routed(front: Front, path: str) -> None:
    with raw_request(front, path) as connection:
        answer = connection.recv(10_000).decode()
    assert answer.startswith("HTTP/1.1 404")
    assert '"code": "not_found"' in answer
    assert front.tiers.seen == []


@needs_envoy
def test_its_metrics_are_shown_and_what_else_its_admin_interface_can_do_is_not(front: Front) -> None:
    assert front.reached({"model": "quality"}) == "quality"
    assert front.post({"model": "gpt-6"}).status_code == 404

    def shown() -> dict[str, float]:
        text = requests.get(front.metrics_url + METRICS_PATH, params={"usedonly": ""}, timeout=5).text
        samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    of_requests = 'envoy_http_conn_manager_prefix="requests"'
    refused = f'envoy_http_downstream_rq_xx{{envoy_response_code_class="4",{of_requests}}}'
    # It looks at its memory for the first time after a second.
    wait_until(lambda: {name.partition("{")[0] for name in shown()} >= ENVOY_METRICS, "all are there", seconds=15)
    found = shown()
    assert found[refused] > 0
    assert found['envoy_cluster_upstream_rq_total{envoy_cluster_name="quality"}'] > 0
    for path in ("/", "/stats", "/config_dump", "/stats/prometheus/", "/stats/prometheus/../../config_dump"):
        connection = socket.create_connection(("127.0.0.1", urlsplit(front.metrics_url).port or 0), timeout=5)
        with connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 404"), path
    for path in ("/quitquitquit", "/stats/prometheus"):
        assert requests.post(front.metrics_url + path, timeout=5).status_code == 404
    front.process.check()


@needs_envoy
def test_an_error_of_the_tier_passes_as_it_is(front: Front) -> None:
    answer = front.post({"model": "quality"}, {"X-Test": "full"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    assert answer.json() == {"error": {"code": "overloaded"}}


@needs_envoy
def test_a_router_that_is_away_is_a_503_that_clients_retry(front: Front) -> None:
    answer = front.post({"model": "small"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["error"]["code"] == "router_unavailable"


@needs_envoy
def test_a_request_that_a_router_has_begun_is_never_sent_again(front: Front) -> None:
    asks_for_more = {"X-Test": "hang up", "X-Envoy-Retry-On": "5xx,reset", "X-Envoy-Max-Retries": "3"}
    assert front.post({"model": "quality"}, asks_for_more).status_code == 503
    assert len(front.tiers.seen) == 1


@needs_envoy
def test_a_client_that_leaves_while_it_is_held_is_not_held_any_longer(front: Front) -> None:
    with raw_request(front, CHAT, "hold"):
        wait_until(lambda: front.tiers.seen, "the tier holds the request", seconds=5)
        assert not front.tiers.left.is_set()
    assert front.tiers.left.wait(5)


@needs_envoy
def test_connections_are_not_kept_until_a_routers_old_pod_ends(front: Front, processes: Processes) -> None:
    urls, _ = started(processes, "brief", envoy_bootstrap(with_times(connection_s=1), TIERS), front.ports)
    url = urls["requests"]
    with replace(front, url=url).post({"model": "quality"}, {"X-Test": "stream"}, stream=True) as answer:
        lines = answer.iter_lines()
        assert next(lines) == b"data: 1"
        time.sleep(1.5)
        # Its connection is past its time, and an answer that runs is not cut.
        front.tiers.more.set()
        assert [line for line in lines if line] == [b"data: [DONE]"]
    for _ in range(2):
        replace(front, url=url).reached({"model": "quality"})
    time.sleep(1.5)
    replace(front, url=url).reached({"model": "quality"})
    first, second, third, last = [seen.connection for seen in front.tiers.seen]
    assert first != second == third != last, "a new one when its time is over, and the same before"


@needs_envoy
def test_silence_ends_a_request_after_the_tiers_time_out_and_not_after_envoys_own(
    front: Front, processes: Processes
) -> None:
    # Envoy's own is 5 minutes, less than some cold starts.
    urls, _ = started(processes, "hasty", envoy_bootstrap(with_times(idle_s=1), TIERS), front.ports)
    answer = replace(front, url=urls["requests"]).post({"model": "quality"}, {"X-Test": "hold"})
    assert answer.status_code == 504
    assert 0.9 < answer.elapsed.total_seconds() < 10
    assert answer.json()["error"]["code"] == "router_unavailable"


@needs_envoy
def test_the_body_that_takes_most_to_read_fits_into_the_planned_memory(front: Front) -> None:
    zeros = '{"model": "quality", "list": [' + "0," * ((LIMIT - 100) // 2) + "0]}"
    assert front.reached(zeros) == "quality"
    status = Path(f"/proc/{front.process.process.pid}/status").read_text()
    (peak_kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    assert 1024 * PLAN.memory_mib > int(peak_kib) > 1024 * 100, "it takes a hundred times its size"


@needs_envoy
def test_an_envoy_short_of_memory_says_when_to_come_back(tmp_path: Path) -> None:
    # Envoy itself takes more than half of this.
    plan = replace(PLAN, memory_mib=4)
    processes = Processes(tmp_path)
    try:
        ports = dict.fromkeys(("fast", "quality", "small"), free_ports(1)[0])
        urls, _ = started(processes, "small", envoy_bootstrap(plan, TIERS), ports)

        def refused() -> list[requests.Response]:
            answer = requests.post(
                urls["requests"] + CHAT, data=json.dumps({"model": "gpt-6"}), headers=JSON, timeout=5
            )
            return [answer] if answer.status_code != 404 else []

        (answer,) = wait_until(refused, "Envoy has looked at its memory", seconds=10)
        scraped = requests.get(urls["metrics"] + METRICS_PATH, timeout=5)
        assert "envoy_overload_envoy_resource_monitors_fixed_heap_pressure" in scraped.text, "how short, it still shows"
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json()["error"]["code"] == "router_unavailable"
    finally:
        processes.stop_all()
