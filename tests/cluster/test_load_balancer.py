"""The Ingress of every stack, translated as its controller documents and followed by a real Envoy before stub routers.

No ALB and no controller has read it: that theirs do the same is what their documents and source say, and
`tests/cluster/load_balancer.py` names what is not played. The routers are stubs that say who they are.
"""

from __future__ import annotations

import copy
import functools
import http.client
import json
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.names import ROUTER_PORT
from tests import harness
from tests.cluster.load_balancer import (
    FixedResponse,
    TargetGroup,
    balancer_bootstrap,
    listener_rules,
    read_annotations,
)
from tests.cluster.processes import Processes, free_ports
from tests.envoy import needs_envoy, start_envoy

pytestmark = needs_envoy

HEADER = "X-Model-Tier"
PREFIX = "alb.ingress.kubernetes.io/"
HOST = "llm.example.com"
CERTIFICATE = "arn:aws:acm:us-east-2:111122223333:certificate/0123abcd"
OIDC = {
    "issuer": "https://idp.example.com",
    "authorizationEndpoint": "https://idp.example.com/authorize",
    "tokenEndpoint": "https://idp.example.com/token",
    "userInfoEndpoint": "https://idp.example.com/userinfo",
    "secretName": "sign-in",
}
GUARDED = {
    "ingressScheme": "internet-facing",
    "certificateArn": CERTIFICATE,
    "host": HOST,
    "webAclArn": "arn:aws:wafv2:us-east-2:111122223333:regional/webacl/llm/1234abcd",
}


@functools.cache
def ingress_of(stack: str) -> dict[str, Any]:
    (found,) = harness.kubernetes_objects(harness.record(stack, preview=False), "Ingress")
    return found


def ingress_with(**network: object) -> dict[str, Any]:
    (found,) = harness.kubernetes_objects(harness.record_with("dev", preview=False, network=network), "Ingress")
    return found


def tier_names(stack: str) -> list[str]:
    return list(harness.record(stack, preview=False).outputs["plan"])


# What stands behind and before it -----------------------------------------------------------------------------------


class StubRouter(BaseHTTPRequestHandler):
    """Says which Service it is and what reached it. ``/v1/silent/2`` is answered after 2 s."""

    protocol_version = "HTTP/1.1"
    service: str

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/v1/silent/"):
            time.sleep(float(self.path.rpartition("/")[2]))
        seen = {"service": self.service, "path": self.path, "headers": [list(one) for one in self.headers.items()]}
        body = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        with suppress(BrokenPipeError):  # cut while it was silent
            self.end_headers()
            self.wfile.write(body)


@dataclass
class StubRouters:
    """One for each Service that is asked for."""

    servers: dict[str, ThreadingHTTPServer] = field(default_factory=dict)

    def address_of(self, service: str) -> tuple[str, int]:
        assert service not in self.servers, "asked for twice: a Service and port are one target group"
        handler = type("Router", (StubRouter,), {"service": service})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.servers[service] = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return "127.0.0.1", server.server_port

    def stop(self) -> None:
        for server in self.servers.values():
            server.shutdown()
            server.server_close()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def service(self) -> str:
        """The Service that answered."""
        assert self.status == 200, (self.status, self.body)
        return self.json["service"]


@dataclass(frozen=True)
class Balancer:
    port: int
    services: Sequence[str]

    def ask(self, path: str = "/v1/chat/completions", *headers: tuple[str, str], host: str | None = None) -> Reply:
        """Send a request as it is written here: nothing is normalised, joined or left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest("GET", path, skip_host=host is not None)
        for name, value in (*([("Host", host)] if host is not None else []), *headers):
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        reply = Reply(
            answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
        )
        connection.close()
        return reply


Start = Callable[[dict[str, Any]], Balancer]


@contextmanager
def started(directory: Path) -> Iterator[Start]:
    processes = Processes(directory)
    stubs: list[StubRouters] = []

    def start(ingress: dict[str, Any]) -> Balancer:
        routers = StubRouters()
        stubs.append(routers)
        (port,) = free_ports(1)
        start_envoy(processes, f"balancer-{port}", balancer_bootstrap(ingress, routers.address_of, port))
        return Balancer(port, tuple(routers.servers))

    try:
        yield start
    finally:
        processes.stop_all()
        for routers in stubs:
            routers.stop()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Generator[Start]:
    with started(tmp_path_factory.mktemp("balancer")) as starting:
        yield starting


@pytest.fixture(scope="module")
def dev(start: Start) -> Balancer:
    return start(ingress_of("dev"))


# Rules, in every stack -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", harness.stack_names())
def test_the_header_finds_each_tier_and_without_it_the_default_one_answers(stack: str, start: Start) -> None:
    balancer, tiers = start(ingress_of(stack)), tier_names(stack)
    assert len(tiers) >= 2
    assert {tier: balancer.ask("/v1/models", (HEADER, tier)).service for tier in tiers} == {
        tier: f"{tier}-router" for tier in tiers
    }
    assert balancer.ask("/v1/models").service == "fast-router", "routing.defaultTier of every stack file"
    assert balancer.ask("/v1/models", (HEADER, "none-of-them")).status == 400


@pytest.mark.parametrize("stack", harness.stack_names())
def test_every_target_is_a_service_of_the_program_and_its_pods_listen_there(stack: str) -> None:
    # The controller makes no rule at all when one Service or port is missing.
    recording = harness.record(stack, preview=False)
    services = {
        one["metadata"]["name"]: one["spec"]["ports"] for one in harness.kubernetes_objects(recording, "Service")
    }
    groups = {rule.action for rule in listener_rules(ingress_of(stack)) if isinstance(rule.action, TargetGroup)}
    assert groups
    for group in groups:
        (port,) = [one for one in services[group.service_name] if one["port"] == group.service_port]
        assert port["targetPort"] in {ROUTER_PORT, "http"}


# What counts as the header -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [HEADER, "x-model-tier", "X-MODEL-TIER"])
@pytest.mark.parametrize("value", ["quality", "Quality", "QUALITY"])
def test_case_makes_no_difference_in_name_and_value(dev: Balancer, name: str, value: str) -> None:
    assert dev.ask("/v1/models", (name, value)).service == "quality-router"


@pytest.mark.parametrize("value", ["gpt-4", "fast-router", "fastest", "fas", "fast,quality", "*", "?ast"])
def test_any_other_value_is_refused_in_the_shape_of_openais_errors_with_the_tiers_names(
    dev: Balancer, value: str
) -> None:
    reply = dev.ask("/v1/chat/completions", (HEADER, value))
    assert (reply.status, reply.headers["content-type"]) == (400, "application/json")
    assert reply.json == {
        "error": {
            "message": "X-Model-Tier must be one of: fast, quality, batch",
            "type": "invalid_request_error",
            "param": "X-Model-Tier",
            "code": "unknown_tier",
        }
    }


def test_an_empty_value_is_refused_too(dev: Balancer) -> None:
    """``*`` is documented as zero or more characters. Whether an ALB looks at an empty header at all is not."""
    assert dev.ask("/v1/models", (HEADER, "")).status == 400


def test_of_two_values_the_first_tier_of_the_list_wins_as_rules_are_tried_before_values(dev: Balancer) -> None:
    for values in (("quality", "fast"), ("fast", "quality"), ("unknown", "fast")):
        assert dev.ask("/v1/models", *((HEADER, value) for value in values)).service == "fast-router"
    assert dev.ask("/v1/models", (HEADER, "batch"), (HEADER, "quality")).service == "quality-router"
    assert dev.ask("/v1/models", (HEADER, "unknown"), (HEADER, "other")).status == 400


def test_a_header_name_with_underscores_is_dropped_and_so_the_default_tier_answers(dev: Balancer) -> None:
    assert dev.ask("/v1/models", ("X_Model_Tier", "quality")).service == "fast-router"


def test_the_router_sees_the_request_as_the_client_sent_it(dev: Balancer) -> None:
    seen = dev.ask("/v1/models?limit=1", (HEADER, "Quality"), ("x-all-values-of-x-model-tier", "fast")).json
    assert seen["path"] == "/v1/models?limit=1"
    assert [value for name, value in seen["headers"] if name.lower() == "x-model-tier"] == ["Quality"]
    assert not [name for name, _ in seen["headers"] if name.lower().startswith(("x-all-values", "x-envoy"))]


# What counts as the path ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1?x=1", "/v1/models", "/v1/chat/completions", "/v1/a/../b"])
def test_v1_and_all_below_it_are_routed(dev: Balancer, path: str) -> None:
    assert dev.ask(path, (HEADER, "quality")).service == "quality-router"


@pytest.mark.parametrize("header", [(), ((HEADER, "quality"),), ((HEADER, "unknown"),)], ids=["none", "tier", "other"])
@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/health", "/v2/models", "/v1beta/models", "/v1beta", "/V1/models", "/x/v1/models",
             "/v1/../metrics"]
)  # fmt: skip
def test_anything_else_is_the_load_balancers_own_404(
    dev: Balancer, path: str, header: tuple[tuple[str, str], ...]
) -> None:
    reply = dev.ask(path, *header)
    assert (reply.status, reply.body) == (404, ""), "the controller's default action has no body"


# Variants ------------------------------------------------------------------------------------------------------------


def test_with_a_host_certificate_and_web_acl_only_that_host_is_served(start: Start) -> None:
    ingress = ingress_with(**GUARDED)
    common = read_annotations(ingress)
    assert (common.protocol, common.certificate_arn, common.scheme) == ("HTTPS", CERTIFICATE, "internet-facing")
    assert common.wafv2_acl_arn == GUARDED["webAclArn"]
    balancer = start(ingress)
    for host in (HOST, "LLM.Example.COM"):
        assert balancer.ask("/v1/models", (HEADER, "quality"), host=host).service == "quality-router"
        assert balancer.ask("/v1/models", host=host).service == "fast-router"
        assert balancer.ask("/v1/models", (HEADER, "unknown"), host=host).status == 400
    for host in ("other.example.com", f"x.{HOST}", f"{HOST}.evil.com", "llmxexample.com"):
        assert balancer.ask("/v1/models", (HEADER, "quality"), host=host).status == 404


@pytest.mark.parametrize(
    ("unauthenticated", "status", "location"),
    [("authenticate", 302, "https://idp.example.com/authorize"), ("deny", 401, None)],
)
def test_with_oidc_whoever_is_not_signed_in_reaches_no_rule(
    start: Start, unauthenticated: str, status: int, location: str | None
) -> None:
    ingress = ingress_with(certificateArn=CERTIFICATE, oidc={**OIDC, "onUnauthenticated": unauthenticated})
    assert read_annotations(ingress).auth_session_timeout == 7 * 24 * 3600
    balancer = start(ingress)
    requests: list[tuple[tuple[str, str], ...]] = [(), ((HEADER, "quality"),), ((HEADER, "unknown"),)]
    for headers in requests:
        reply = balancer.ask("/v1/models", *headers)
        assert (reply.status, reply.headers.get("location")) == (status, location)
    # The controller signs nobody in before its own 404.
    assert balancer.ask("/metrics").status == 404
    session = ("Cookie", "a=b; AWSELBAuthSessionCookie-0=x")
    assert balancer.ask("/v1/models", session, (HEADER, "quality")).service == "quality-router"
    assert balancer.ask("/v1/models", session, (HEADER, "unknown")).status == 400


def test_the_rule_without_the_header_may_lead_to_a_service_that_is_no_tiers(start: Start) -> None:
    forward = {"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": "front", "servicePort": 80}]}}
    balancer = start(changed(annotations={"actions.default-tier": json.dumps(forward)}))
    assert "front" in balancer.services
    assert balancer.ask().service == "front"
    assert balancer.ask("/v1/models", (HEADER, "fast")).service == "fast-router"


# Time-outs and health ------------------------------------------------------------------------------------------------


def router_configs(stack: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Give Envoy's bootstrap and the picker's configuration of each tier."""
    objects = harness.kubernetes_objects(harness.record(stack, preview=False), "ConfigMap")
    # The names end with a hash of what is in them.
    texts = {one["metadata"]["name"].rpartition("-")[0]: next(iter(one["data"].values())) for one in objects}
    for tier in tier_names(stack):
        yield yaml.safe_load(texts[f"{tier}-router-envoy"]), yaml.safe_load(texts[f"{tier}-router-picker"])


def request_manager(bootstrap: dict[str, Any]) -> dict[str, Any]:
    (listener,) = [one for one in bootstrap["static_resources"]["listeners"] if one["name"] == "requests"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


@pytest.mark.parametrize("stack", harness.stack_names())
def test_silence_is_borne_longer_than_any_router_holds_a_request(stack: str) -> None:
    idle_s = read_annotations(ingress_of(stack)).idle_timeout_s
    for bootstrap, picker in router_configs(stack):
        manager = request_manager(bootstrap)
        message_s = int(manager["http_filters"][0]["typed_config"]["message_timeout"].rstrip("s"))
        hold_s = int(picker["flowControl"]["noEndpointRequestTTL"].rstrip("s"))
        (route,) = [one["route"] for one in manager["route_config"]["virtual_hosts"][0]["routes"] if "route" in one]
        assert hold_s < message_s < idle_s
        assert int(route["idle_timeout"].rstrip("s")) <= idle_s
        assert manager["common_http_protocol_options"]["idle_timeout"] == "0s", "a router closes no connection first"


def test_a_silent_answer_comes_through_within_the_idle_time_out_and_is_cut_after_it(start: Start) -> None:
    balancer = start(changed(annotations={"load-balancer-attributes": "idle_timeout.timeout_seconds=2"}))
    assert balancer.ask("/v1/silent/1").status == 200
    assert balancer.ask("/v1/silent/8").status == 504


@pytest.mark.parametrize("stack", harness.stack_names())
def test_health_is_asked_where_each_router_answers_it_with_no_picker_and_no_replica(stack: str, tmp_path: Path) -> None:
    common = read_annotations(ingress_of(stack))
    processes = Processes(tmp_path)
    try:
        for number, (bootstrap, _) in enumerate(router_configs(stack)):
            listeners = bootstrap["static_resources"]["listeners"]
            ports = {one["name"]: one["address"]["socket_address"]["port_value"] for one in listeners}
            (health,) = [name for name, port in ports.items() if port == common.healthcheck_port]
            given = dict(zip(ports, free_ports(len(ports)), strict=True))
            for one in listeners:
                one["address"]["socket_address"]["port_value"] = given[one["name"]]
            router = start_envoy(processes, f"router-{number}", bootstrap)
            asked = Balancer(given[health], ())
            assert asked.ask(common.healthcheck_path).status == 200
            assert asked.ask("/v1/models").status == 404, "nothing else is answered there"
            processes.stop(router)
    finally:
        processes.stop_all()


# The translation itself ----------------------------------------------------------------------------------------------


def changed(
    annotations: dict[str, str | None] | None = None, paths: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Give the dev stack's Ingress with annotations changed (None removes one) and other paths."""
    ingress = copy.deepcopy(ingress_of("dev"))
    given = ingress["metadata"]["annotations"] | {f"{PREFIX}{key}": text for key, text in (annotations or {}).items()}
    if paths is not None:
        given = {key: text for key, text in given.items() if "conditions." not in key and "actions." not in key}
        given |= {f"{PREFIX}{key}": text for key, text in (annotations or {}).items()}
        ingress["spec"]["rules"][0]["http"]["paths"] = paths
    ingress["metadata"]["annotations"] = {key: text for key, text in given.items() if text is not None}
    return ingress


def path_to(name: str, path: str, kind: str = "Prefix", *, annotated: bool = True) -> dict[str, Any]:
    port: dict[str, Any] = {"name": "use-annotation"} if annotated else {"number": 80}
    return {"path": path, "pathType": kind, "backend": {"service": {"name": name, "port": port}}}


def says(text: str) -> str:
    response = {"contentType": "text/plain", "statusCode": "200", "messageBody": text}
    return json.dumps({"type": "fixed-response", "fixedResponseConfig": response})


def header_is(*values: str, name: str = HEADER) -> str:
    return json.dumps([{"field": "http-header", "httpHeaderConfig": {"httpHeaderName": name, "values": values}}])


def test_rules_are_tried_exact_before_prefix_the_longest_first_and_equal_ones_as_they_stand(start: Start) -> None:
    names = ["any", "short", "short-again", "long", "exact", "longer"]
    ingress = changed(
        annotations={f"actions.{name}": says(name) for name in names},
        paths=[
            path_to("any", "/v1/*", "ImplementationSpecific"),
            path_to("short", "/v1"),
            path_to("short-again", "/v1"),
            path_to("long", "/v1/chat"),
            path_to("exact", "/v1/chat", "Exact"),
            path_to("longer", "/v1/chat/completions/"),
        ],
    )
    answers = [rule.action for rule in listener_rules(ingress)]
    assert [one.message_body for one in answers if isinstance(one, FixedResponse)] == [
        "exact", "longer", "long", "short", "short-again", "any",
    ]  # fmt: skip
    balancer = start(ingress)
    assert {path: balancer.ask(path).body for path in ("/v1", "/v1/chat", "/v1/chat/", "/v1/chat/completions")} == {
        "/v1": "short",
        "/v1/chat": "exact",
        "/v1/chat/": "long",
        "/v1/chat/completions": "longer",
    }


def test_a_star_matches_any_text_and_a_question_mark_one_character(start: Start) -> None:
    ingress = changed(
        annotations={
            "actions.one": says("one"),
            "conditions.one": header_is("a?c", "x*.z"),
            "actions.both": says("both"),
            "conditions.both": json.dumps([*json.loads(header_is("k")), *json.loads(header_is("v", name="Other"))]),
        },
        paths=[path_to("one", "/v1"), path_to("both", "/v1")],
    )
    balancer = start(ingress)
    for value in ("abc", "AbC", "x.z", "xyy.Z"):
        assert balancer.ask("/v1", (HEADER, value)).body == "one"
    for value in ("ac", "abbc", "xyz", "yx.z"):
        assert balancer.ask("/v1", (HEADER, value)).status == 404
    assert balancer.ask("/v1", (HEADER, "k"), ("Other", "v")).body == "both"
    assert balancer.ask("/v1", (HEADER, "k")).status == 404


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"healthcheck-paths": "/ready"}, "healthcheck-paths"),
        ({"action.unknown-tier": "{}"}, "action.unknown-tier"),
        ({"actions.default-tier": None}, "there is no actions.default-tier"),
        ({"actions.fast-router": says("never")}, "would not look at"),
        ({"conditions.slow-router": header_is("slow")}, "would not look at"),
        ({"target-type": "instance"}, "target-type"),
        ({"listen-ports": '[{"HTTP":80},{"HTTPS":443}]'}, "listen-ports"),
        ({"load-balancer-attributes": "idle_timeout.timeout_seconds=4001"}, "4000"),
        ({"load-balancer-attributes": "idle_timeout.seconds=60"}, "idle_timeout.seconds"),
        ({"conditions.fast-router": header_is("a", "b", "c", "d")}, "at most 3 items"),
        ({"conditions.fast-router": header_is("")}, "at least 1 character"),
        ({"conditions.fast-router": header_is("x" * 129)}, "at most 128 characters"),
        ({"conditions.fast-router": header_is("a", name="x" * 41)}, "should match pattern"),
        ({"conditions.fast-router": header_is("*", "**", "***")}, "wildcards are too many"),
        ({"conditions.fast-router": header_is("a").replace("values", "regexValues")}, "regexValues"),
        ({"conditions.fast-router": header_is("a").replace("http-header", "query-string")}, "http-header"),
        ({"actions.unknown-tier": says("x" * 1025)}, "at most 1024 bytes"),
        ({"actions.unknown-tier": says("x").replace('"200"', '"302"')}, "should match pattern"),
        ({"actions.unknown-tier": says("x").replace("text/plain", "text/markdown")}, "text/plain"),
        ({"actions.default-tier": '{"type":"redirect"}'}, "redirect"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.replace(" ", "-"),
)
def test_what_a_load_balancer_or_its_controller_would_not_take_or_ignore_is_an_error(
    wrong: dict[str, str | None], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        balancer_bootstrap(changed(annotations=wrong), lambda _: ("127.0.0.1", 1), 1)


def test_more_than_five_values_or_a_hundred_rules_are_too_many() -> None:
    five = json.dumps([*json.loads(header_is("a", "b")), *json.loads(header_is("c", "d", name="Other"))])
    with pytest.raises(ValueError, match="6 values"):
        listener_rules(changed(annotations={"conditions.fast-router": five}))
    many = [path_to("answer", f"/v1/{number}") for number in range(101)]
    with pytest.raises(ValueError, match="101 rules"):
        listener_rules(changed(annotations={"actions.answer": says("x")}, paths=many))
    with pytest.raises(ValueError, match="has no wildcards"):
        listener_rules(changed(annotations={"actions.answer": says("x")}, paths=[path_to("answer", "/v1/*")]))
