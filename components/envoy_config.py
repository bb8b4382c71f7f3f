"""What every Envoy of the stack has in common, as parts of its bootstrap. Pure.

Each drops the routing headers that clients send, answers its own errors as OpenAI does, gives up on silence and not on
long answers, logs failures only, and opens no admin interface to anybody.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import yaml

from components.names import ENVOY_METRICS_PORT, PROJECT, ROUTER_PORT, ROUTER_READY_PORT

ENVOY_CONFIG_KEY: Final = "envoy.yaml"

DESTINATION_HEADER: Final = "x-gateway-destination-endpoint"

ROUTING_HEADERS: Final = (
    # Where a request, its prefill or its cache comes from is the picker's to say: each of these, believed from a
    # client, makes Envoy or the engine's sidecar call an address of the client's choice.
    DESTINATION_HEADER,
    "x-gateway-destination-endpoint-subset",
    "x-envoy-original-dst-host",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-data-parallel-rank",
    "x-kv-cache-source-host-port",
    # Queue, priority and model of a request are the tier's to say: a client that names its own flow gets its own queue.
    "x-llm-d-inference-fairness-id",
    "x-gateway-inference-fairness-id",
    "x-llm-d-inference-objective",
    "x-gateway-inference-objective",
    "x-llm-d-model-name-rewrite",
    "x-gateway-model-name-rewrite",
)
"""Names as in llm-d-router ebab687 (2026-08-22): pkg/epp/metadata/consts.go, pkg/common/routing/common.go."""

CONNECT_TIMEOUT: Final = "5s"
"""What is in the same VPC answers in milliseconds; the chart's 1000 s would hold a request on a dead spot node."""
_UNLIMITED: Final = 40_000
"""Connections and requests of a cluster, as in the chart: the picker's queue is the limit, Envoy's default of 1024
would refuse what the plan lets it hold."""
_BUFFER_BYTES: Final = 32_768
"""Per connection, as in the chart: bodies are streamed to the picker, so this bounds memory and no request."""

METRICS_PATH: Final = "/stats/prometheus"
_ADMIN: Final = "@envoy-admin"
"""A cluster, by a name that no tier can have, and its address: an abstract socket, which is no file and no port."""

Part = dict[str, Any]
"""A piece of a bootstrap."""


def bootstrap(
    listener: Part,
    clusters: Sequence[Part],
    monitors: Sequence[Part] = (),
    actions: Sequence[Part] = (),
    *,
    metrics: bool = False,
) -> str:
    """Give the bootstrap of an Envoy with a readiness listener beside ``listener``, as YAML.

    ``monitors`` and ``actions`` say what it does when overloaded, beside a bound on its connections. With ``metrics``
    another listener shows its metrics. They are a page of the admin interface, which could also stop Envoy: so that is
    within reach of the pod alone, and nothing but this page is passed on to it.
    """
    connections = named_typed(
        "envoy.resource_monitors.global_downstream_max_connections",
        "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=_UNLIMITED,
    )
    overload = {"resource_monitors": [connections, *monitors]} | ({"actions": list(actions)} if actions else {})
    seen = ([_metrics_listener()], [_admin_cluster()]) if metrics else ([], [])
    return to_yaml(
        {
            **({"admin": {"address": _ADMIN_ADDRESS}} if metrics else {}),
            "static_resources": {
                "listeners": [_ready_listener(), listener, *seen[0]],
                "clusters": [*clusters, *seen[1]],
            },
            "overload_manager": overload,
        }
    )


def typed(message: str, **fields: object) -> Part:
    """Give a configuration of Envoy's type ``message``."""
    return {"@type": f"type.googleapis.com/envoy.{message}", **fields}


def named_typed(name: str, message: str, **fields: object) -> Part:
    """Give an extension of that name with its configuration."""
    return {"name": name, "typed_config": typed(message, **fields)}


def request_listener(
    name: str,
    routes: Sequence[Part],
    filters: Sequence[Part],
    replies: Sequence[Part],
    *,
    host: Mapping[str, object] | None = None,
    route_table: Mapping[str, object] | None = None,
) -> Part:
    """Give the listener of requests. ``filters`` run before routing; ``replies`` rewrite Envoy's own errors.

    ``host`` and ``route_table`` add fields to the virtual host and to the route configuration.
    """
    manager = typed(
        _MANAGER,
        stat_prefix="requests",
        early_header_mutation_extensions=[
            named_typed(
                "envoy.http.early_header_mutation.header_mutation",
                "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                mutations=[{"remove": header} for header in ROUTING_HEADERS],
            )
        ],
        use_remote_address=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT",
        common_http_protocol_options={
            # The load balancer closes its idle connections; if Envoy did, a request could meet the closing one.
            "idle_timeout": "0s",
            "headers_with_underscores_action": "DROP_HEADER",
        },
        route_config={
            "name": name,
            "virtual_hosts": [{"name": name, "domains": ["*"], "routes": list(routes), **(host or {})}],
            **(route_table or {}),
        },
        http_filters=[*filters, _router_filter()],
        local_reply_config={"mappers": list(replies)},
        access_log=[_error_log()],
    )
    return _listener("requests", ROUTER_PORT, manager)


_MANAGER: Final = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def _listener(name: str, port: int, manager: Part) -> Part:
    return {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _router_filter() -> Part:
    return named_typed(
        "envoy.filters.http.router", "extensions.filters.http.router.v3.Router", suppress_envoy_headers=True
    )


def _ready_listener() -> Part:
    health_check = named_typed(
        "envoy.filters.http.health_check",
        "extensions.filters.http.health_check.v3.HealthCheck",
        pass_through_mode=False,
        headers=[{"name": ":path", "string_match": {"exact": "/ready"}}],
    )
    manager = typed(
        _MANAGER,
        stat_prefix="ready",
        route_config={"name": "ready", "virtual_hosts": []},
        http_filters=[health_check, _router_filter()],
    )
    return _listener("ready", ROUTER_READY_PORT, manager)


def _metrics_listener() -> Part:
    page = {"match": get({"path": METRICS_PATH}), "route": {"cluster": _ADMIN}}
    manager = typed(
        _MANAGER,
        stat_prefix="metrics",
        route_config={
            "name": "metrics",
            "virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": [page]}],
        },
        http_filters=[_router_filter()],
    )
    # Also when Envoy is short of memory, and refuses everything else: then they are looked at.
    return _listener("metrics", ENVOY_METRICS_PORT, manager) | {"bypass_overload_manager": True}


# --- routes ---------------------------------------------------------------------------------------------------------


def route(cluster: str, idle_timeout_s: int) -> Part:
    """Give the route to ``cluster``. An answer may take as long as it streams; only silence on both sides ends it."""
    return {"route": {"cluster": cluster, "timeout": "0s", "idle_timeout": f"{idle_timeout_s}s"}}


def model_list(names: Iterable[str]) -> list[Part]:
    """Give routes to the list of models and to each of them, answered by Envoy itself: also while tiers sleep."""
    models = [{"id": name, "object": "model", "created": 0, "owned_by": PROJECT} for name in names]
    answers: list[tuple[str, Part]] = [("/v1/models", {"object": "list", "data": models})]
    answers += [(f"/v1/models/{model['id']}", model) for model in models]
    return [{"match": get({"path": path}), **json_answer(200, answer)} for path, answer in answers]


def get(match: Part) -> Part:
    """Narrow a route's match to GET."""
    return {**match, "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]}


def json_answer(status: int, answer: Part) -> Part:
    """Give an answer of Envoy's own; an error among them is still subject to the listener's replies."""
    return {
        "direct_response": {"status": status, "body": {"inline_string": json.dumps(answer)}},
        "response_headers_to_add": [_header("content-type", "application/json")],
    }


def _header(key: str, value: str) -> Part:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


# --- errors ---------------------------------------------------------------------------------------------------------

REASON: Final = "%LOCAL_REPLY_BODY%"
"""What Envoy or a filter had to say."""


def reply(on: Part, answer: Part, *, retry_after_s: int | None = None, status: int | None = None) -> Part:
    """Give the answer in place of Envoy's own where ``on`` matches; without one it is plain text or empty.

    ``status`` takes the place of the status.
    """
    return {
        "filter": on,
        **({} if status is None else {"status_code": status}),
        **({} if retry_after_s is None else {"headers_to_add": [_header("retry-after", str(retry_after_s))]}),
        "body_format_override": {"json_format": answer},
    }


def error(message: str, kind: str, code: str, *, param: str | None = None) -> Part:
    """Give an error in the shape and with the fields that OpenAI's clients understand."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


NOT_FOUND: Final = error(
    "Not found. This router serves /v1/ of an OpenAI-compatible API; GET /v1/models lists its models.",
    "invalid_request_error",
    "not_found",
)
"""The answer to every path but ``/v1/``."""


def _comparison(operator: str, status: int) -> Part:
    # Envoy wants a runtime key beside every such number; no runtime layer is configured, so the number stands.
    value = {"default_value": status, "runtime_key": f"router.status_{operator.lower()}_{status}"}
    return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}


def on_status(status: int) -> Part:
    """Match one status."""
    return _comparison("EQ", status)


def on_status_between(least: int, most: int) -> Part:
    """Match statuses from ``least`` to ``most``."""
    return {"and_filter": {"filters": [_comparison("GE", least), _comparison("LE", most)]}}


def _error_log() -> Part:
    """One line for each failed request, and no line for the others: prompts and keys never reach the log."""
    fields = {
        "time": "%START_TIME%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ)%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "milliseconds": "%DURATION%",
        "replica": "%UPSTREAM_HOST%",
        "request": "%REQ(X-REQUEST-ID)%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "filter": _comparison("GE", 500),
        "typed_config": typed(
            "extensions.access_loggers.file.v3.FileAccessLog",
            path="/dev/stdout",
            log_format={"json_format": fields},
        ),
    }


# --- clusters -------------------------------------------------------------------------------------------------------


def unlimited() -> Part:
    """Give circuit breakers that no request meets before the picker's queue is full."""
    limits = {"max_connections": _UNLIMITED, "max_pending_requests": _UNLIMITED, "max_requests": _UNLIMITED}
    return {"thresholds": [limits]}


def http_options(**fields: object) -> Part:
    """Give the HTTP options of a cluster."""
    options = typed("extensions.upstreams.http.v3.HttpProtocolOptions", **fields)
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}


def endpoint(cluster: str, address: str, port: int) -> Part:
    """Give a cluster's one address."""
    return _at(cluster, {"socket_address": {"address": address, "port_value": port}})


def _at(cluster: str, address: Part) -> Part:
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}


_ADMIN_ADDRESS: Final = {"pipe": {"path": _ADMIN}}


def _admin_cluster() -> Part:
    return {"name": _ADMIN, "load_assignment": _at(_ADMIN, _ADMIN_ADDRESS)}


# --- YAML -----------------------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Writes repeated objects in full: Envoy's and the picker's readers are not asked to follow anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def to_yaml(document: Part) -> str:
    """Write a configuration file."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120)
