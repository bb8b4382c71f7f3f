"""Configuration of a tier's router, as text: Envoy's bootstrap and the endpoint picker's plugins. Pure.

Three defaults of the upstream chart are wrong for us and differ here. Envoy fails closed and drops the routing headers
that clients send: else a forged ``x-gateway-destination-endpoint`` reaches any address in the cluster while the picker
is down. The saturation detector is set explicitly: its default counts a replica as full when its metrics are 200 ms
old, and lets one busy replica of three stop the whole tier. Only ``/v1/`` is routed: ``/metrics`` of the replicas is
nobody's business outside.
"""

from __future__ import annotations

import json
from typing import Any, Final

import yaml

from components.names import (
    ENGINE_PORT,
    PICKER_METRICS_PORT,
    PROJECT,
    ROUTER_PORT,
    ROUTER_READY_PORT,
    TIER_LABEL,
)
from planning.plan import TierPlan

PICKER_PORT: Final = 9002
"""Where the picker answers Envoy; the chart's port."""
PICKER_HEALTH_PORT: Final = 9003

ENVOY_CONFIG_KEY: Final = "envoy.yaml"
PICKER_CONFIG_KEY: Final = "picker.yaml"
PICKER_CONFIG_DIRECTORY: Final = "/etc/picker"

_DESTINATION_HEADER: Final = "x-gateway-destination-endpoint"

_ROUTING_HEADERS: Final = (
    # Where a request, its prefill or its cache comes from is the picker's to say: each of these, believed from a
    # client, makes Envoy or the engine's sidecar call an address of the client's choice.
    _DESTINATION_HEADER,
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

_CONNECT_TIMEOUT: Final = "5s"
"""A replica in the same VPC answers in milliseconds; the chart's 1000 s would hold a request on a dead spot node."""
_ENGINE_IDLE_TIMEOUT: Final = "4s"
"""Below the 5 s after which vLLM's and llama.cpp's HTTP servers close an idle connection: the side that sends must
close first, or a request meets a closing connection and is lost."""
_UNLIMITED: Final = 40_000
"""Connections and requests of a cluster, as in the chart: the picker's queue is the limit, Envoy's default of 1024
would refuse what the plan lets it hold."""
_BUFFER_BYTES: Final = 32_768
"""Per connection, as in the chart: bodies are streamed to the picker, so this bounds memory and no request."""
_WINDOW_BYTES: Final = 65_536
_CONNECTION_WINDOW_BYTES: Final = 1_048_576
"""HTTP/2 windows towards the picker, as in the chart."""

_KV_CACHE_THRESHOLD: Final = 0.95
"""Share of its KV cache at which a replica counts as full. The default of 0.8 would leave a fifth of the cache that
the plan counts on unused; not load-tested."""
_METRICS_STALENESS: Final = "2s"
"""The picker's own default for other uses; its detector's 200 ms counts a replica as full whenever a long prompt
delays one scrape."""
_MAX_PREFIX_TOKENS: Final = 131_072
_PREFIXES_PER_REPLICA: Final = 31_250
"""Defaults of the picker, written down because the index lives in memory that the plan sizes."""
_PREFIX_WEIGHT: Final = 2
_LOAD_WEIGHT: Final = 1
"""A cached prefix outweighs one measure of load; with 2 to 1 to 1, 81 % of requests of a prefix met their cache."""


def endpoint_selector(tier: TierPlan) -> str:
    """Label selector of the pods that the picker chooses among: all engine pods of the tier, of either role."""
    return f"{TIER_LABEL}={tier.name}"


def picker_arguments(tier: TierPlan) -> tuple[str, ...]:
    """Command line of the endpoint picker."""
    return (
        f"--endpoint-selector={endpoint_selector(tier)}",
        f"--endpoint-target-ports={ENGINE_PORT}",
        f"--config-file={PICKER_CONFIG_DIRECTORY}/{PICKER_CONFIG_KEY}",
        f"--grpc-port={PICKER_PORT}",
        f"--grpc-health-port={PICKER_HEALTH_PORT}",
        f"--metrics-port={PICKER_METRICS_PORT}",
        # The network policy says who may scrape; tokens would need cluster-wide rights to review them.
        "--metrics-endpoint-auth=false",
        "--enable-pprof=false",
        "--tracing=false",
        "--zap-encoder=json",
        # Below the default of 2, which writes three lines for every request.
        "--v=1",
        # The preStop sleep has kept new requests away; from here on only running answers are waited for.
        "--drain-timeout=0s",
    )


def picker_config(tier: TierPlan) -> str:
    """Plugins, queue limits and time-outs of the endpoint picker, as its YAML file.

    The picker exits on any field it does not know. Without the ``flowControl`` gate it would only warn, and hold
    nothing.
    """
    detector = _saturation_detector(tier)
    # As a filter it keeps requests from a replica that is full by itself. Without it a prefix that many ask for fills
    # one replica to where the pool's average counts as full, and the others, which are not, get nothing either.
    not_full = {"pluginRef": detector["type"]}
    if tier.disaggregation is not None:
        plugins, profiles = _disaggregated(tier.disaggregation.non_cached_tokens, not_full)
    elif tier.llama_cpp is not None:
        plugins, profiles = _by_own_count(not_full)
    else:
        plugins, profiles = _by_engine_metrics(not_full)
    limits = {
        "maxRequests": str(tier.router.max_held_requests),
        "maxBytes": f"{tier.router.max_held_bytes_mib}Mi",
    }
    config: dict[str, Any] = {
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "featureGates": ["flowControl"],
        "flowControl": {
            "defaultRequestTTL": f"{tier.timeouts.router_queue_s}s",
            "noEndpointRequestTTL": f"{tier.timeouts.router_hold_s}s",
            **limits,
            # All requests share one priority band, whose own default of 1 GB would bind before the limit above.
            "defaultPriorityBand": limits,
            "saturationDetector": {"pluginRef": detector["type"]},
        },
        "plugins": [*plugins, detector],
        "schedulingProfiles": profiles,
    }
    if tier.llama_cpp is not None:
        config["dataLayer"] = {"injectDefaults": False}
    return _yaml(config)


def envoy_bootstrap(tier: TierPlan) -> str:
    """Envoy's bootstrap for the tier's router pod, as YAML.

    No admin interface is opened: it could stop Envoy, and nothing here reads it.
    """
    return _yaml(
        {
            "static_resources": {
                "listeners": [_ready_listener(), _request_listener(tier)],
                "clusters": [_engine_cluster(), _picker_cluster()],
            },
            "overload_manager": {
                "resource_monitors": [
                    {
                        "name": "envoy.resource_monitors.global_downstream_max_connections",
                        "typed_config": _typed(
                            "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                            max_active_downstream_connections=_UNLIMITED,
                        ),
                    }
                ]
            },
        }
    )


# --- endpoint picker ------------------------------------------------------------------------------------------------


def _profile(name: str, *plugins: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "plugins": list(plugins)}


def _scorer(name: str, weight: int) -> dict[str, Any]:
    return {"pluginRef": name, "weight": weight}


def _prefix_producer(**parameters: object) -> dict[str, Any]:
    return {
        "type": "approx-prefix-cache-producer",
        "parameters": {
            "maxPrefixTokensToMatch": _MAX_PREFIX_TOKENS,
            "lruCapacityPerServer": _PREFIXES_PER_REPLICA,
            **parameters,
        },
    }


def _by_engine_metrics(not_full: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    plugins = [
        _prefix_producer(),
        {"type": "prefix-cache-scorer"},
        {"type": "queue-scorer"},
        {"type": "kv-cache-utilization-scorer"},
        {"type": "max-score-picker"},
    ]
    profile = _profile(
        "default",
        not_full,
        _scorer("prefix-cache-scorer", _PREFIX_WEIGHT),
        _scorer("queue-scorer", _LOAD_WEIGHT),
        _scorer("kv-cache-utilization-scorer", _LOAD_WEIGHT),
        {"pluginRef": "max-score-picker"},
    )
    return plugins, [profile]


def _by_own_count(not_full: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    plugins = [
        # Nothing of the engine's metrics is there to tune the index by.
        _prefix_producer(autoTune=False),
        {"type": "prefix-cache-scorer"},
        {"type": "active-request-scorer"},
        {"type": "max-score-picker"},
    ]
    profile = _profile(
        "default",
        not_full,
        _scorer("prefix-cache-scorer", _PREFIX_WEIGHT),
        _scorer("active-request-scorer", _LOAD_WEIGHT),
        {"pluginRef": "max-score-picker"},
    )
    return plugins, [profile]


def _disaggregated(
    non_cached_tokens: int, not_full: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    plugins = [
        _prefix_producer(),
        {"type": "prefix-cache-scorer"},
        {"type": "queue-scorer"},
        {"type": "prefill-filter"},
        {"type": "decode-filter"},
        {"type": "max-score-picker"},
        {"type": "prefix-based-pd-decider", "parameters": {"nonCachedTokens": non_cached_tokens}},
        # After its decider: a name must be declared before it is referred to.
        {"type": "disagg-profile-handler", "parameters": {"deciders": {"prefill": "prefix-based-pd-decider"}}},
    ]
    profiles = [
        _profile(
            role,
            {"pluginRef": f"{role}-filter"},
            not_full,
            _scorer("prefix-cache-scorer", _PREFIX_WEIGHT),
            _scorer("queue-scorer", _LOAD_WEIGHT),
            {"pluginRef": "max-score-picker"},
        )
        for role in ("prefill", "decode")
    ]
    return plugins, profiles


def _saturation_detector(tier: TierPlan) -> dict[str, Any]:
    """Say when a replica is full, by what its metrics show; a replica of llama.cpp by what the picker sent it.

    llama-server answers ``/metrics`` between two batches, which a long prompt on a CPU makes seconds long, and only to
    who holds the clients' key. Its metrics would be stale just when it works, and stale counts as full.
    """
    if tier.llama_cpp is not None:
        return {"type": "concurrency-detector", "parameters": {"maxConcurrency": tier.llama_cpp.parallel_slots}}
    return {
        "type": "utilization-detector",
        "parameters": {
            "queueDepthThreshold": tier.router.queue_depth_threshold,
            "kvCacheUtilThreshold": _KV_CACHE_THRESHOLD,
            "metricsStalenessThreshold": _METRICS_STALENESS,
        },
    }


# --- Envoy ----------------------------------------------------------------------------------------------------------


def _typed(message: str, **fields: object) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/envoy.{message}", **fields}


def _listener(name: str, port: int, manager: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _router_filter() -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": _typed("extensions.filters.http.router.v3.Router", suppress_envoy_headers=True),
    }


def _ready_listener() -> dict[str, Any]:
    health_check = {
        "name": "envoy.filters.http.health_check",
        "typed_config": _typed(
            "extensions.filters.http.health_check.v3.HealthCheck",
            pass_through_mode=False,
            headers=[{"name": ":path", "string_match": {"exact": "/ready"}}],
        ),
    }
    manager = _typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="ready",
        route_config={"name": "ready", "virtual_hosts": []},
        http_filters=[health_check, _router_filter()],
    )
    return _listener("ready", ROUTER_READY_PORT, manager)


def _request_listener(tier: TierPlan) -> dict[str, Any]:
    manager = _typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="requests",
        early_header_mutation_extensions=[
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": _typed(
                    "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                    mutations=[{"remove": header} for header in _ROUTING_HEADERS],
                ),
            }
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
            "name": tier.name,
            "virtual_hosts": [{"name": tier.name, "domains": ["*"], "routes": _routes(tier)}],
            # A test header that the picker puts on every answer.
            "response_headers_to_remove": ["x-went-into-resp-headers"],
        },
        http_filters=[_picker_filter(tier), _router_filter()],
        local_reply_config={"mappers": _error_replies(tier)},
        access_log=[_error_log()],
    )
    return _listener("requests", ROUTER_PORT, manager)


def _routes(tier: TierPlan) -> list[dict[str, Any]]:
    """Model list from Envoy itself, so that it answers while the tier sleeps; ``/v1/`` to a replica; 404 for the rest.

    The picker holds a request only when it can read a prompt in its body: a GET at zero would get a 500.
    """
    models = [{"id": name, "object": "model", "created": 0, "owned_by": PROJECT} for name in tier.served_model_names]
    answers: list[tuple[str, dict[str, Any]]] = [("/v1/models", {"object": "list", "data": models})]
    answers += [(f"/v1/models/{model['id']}", model) for model in models]
    return [
        *(_model_answer(path, answer) for path, answer in answers),
        {
            "match": {"prefix": "/v1/"},
            "route": {
                "cluster": "engine",
                # An answer may take as long as it streams; only silence on both sides ends it, here before the load
                # balancer does: this answer says why and when to retry.
                "timeout": "0s",
                "idle_timeout": f"{tier.timeouts.envoy_message_s}s",
            },
        },
        # Written out, because without a route the picker would be asked first, and answer 500 while the tier sleeps.
        {"match": {"prefix": "/"}, "direct_response": {"status": 404}, "typed_per_filter_config": _without_picker()},
    ]


def _without_picker() -> dict[str, Any]:
    disabled = _typed("extensions.filters.http.ext_proc.v3.ExtProcPerRoute", disabled=True)
    return {"envoy.filters.http.ext_proc": disabled}


def _model_answer(path: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "match": {"path": path, "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
        "direct_response": {"status": 200, "body": {"inline_string": json.dumps(answer)}},
        "response_headers_to_add": [
            {
                "header": {"key": "content-type", "value": "application/json"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
        "typed_per_filter_config": _without_picker(),
    }


def _picker_filter(tier: TierPlan) -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.ext_proc",
        "typed_config": _typed(
            "extensions.filters.http.ext_proc.v3.ExternalProcessor",
            failure_mode_allow=False,
            grpc_service={
                "envoy_grpc": {"cluster_name": "picker", "authority": f"localhost:{PICKER_PORT}"},
                # Of opening the stream, not of a hold.
                "timeout": "10s",
            },
            processing_mode={
                "request_header_mode": "SEND",
                "response_header_mode": "SEND",
                "request_body_mode": "FULL_DUPLEX_STREAMED",
                "response_body_mode": "FULL_DUPLEX_STREAMED",
                "request_trailer_mode": "SEND",
                "response_trailer_mode": "SEND",
            },
            # Envoy 1.40.0 does not look at it while bodies are streamed in full duplex: the picker's own TTL bounds a
            # hold, and the route's idle time-out what a picker never answers. It stands for a version that looks.
            message_timeout=f"{tier.timeouts.envoy_message_s}s",
        ),
    }


def _error_replies(tier: TierPlan) -> list[dict[str, Any]]:
    """Errors that Envoy or the picker answers, in the shape and with the words OpenAI clients understand.

    Without this they are plain text or empty. First match wins. ``Retry-After`` is one poll of the scaler: sooner
    nothing changes.
    """
    retry_after = {
        "header": {"key": "retry-after", "value": str(tier.timeouts.polling_interval_s)},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    reason = "%LOCAL_REPLY_BODY%"
    return [
        {
            "filter": _status(404),
            "body_format_override": _error(
                "Not found. This router serves /v1/ of an OpenAI-compatible API; GET /v1/models lists its models.",
                "invalid_request_error",
                "not_found",
            ),
        },
        {
            "filter": _status(429),
            "headers_to_add": [retry_after],
            "body_format_override": _error(reason, "rate_limit_error", "overloaded"),
        },
        {
            "filter": _status_between(400, 499),
            "body_format_override": _error(reason, "invalid_request_error", "bad_request"),
        },
        {
            # The picker is restarting, or has no replica for a request that it cannot hold: both pass, so 503.
            "filter": _status(500),
            "status_code": 503,
            "headers_to_add": [retry_after],
            "body_format_override": _error(
                "No replica could be chosen for the request; retry.", "server_error", "router_unavailable"
            ),
        },
        {
            "filter": _status_between(501, 599),
            "headers_to_add": [retry_after],
            "body_format_override": _error(reason, "server_error", "unavailable"),
        },
    ]


def _error(message: str, kind: str, code: str) -> dict[str, Any]:
    return {"json_format": {"error": {"message": message, "type": kind, "param": None, "code": code}}}


def _comparison(operator: str, status: int) -> dict[str, Any]:
    # Envoy wants a runtime key beside every such number; no runtime layer is configured, so the number stands.
    value = {"default_value": status, "runtime_key": f"router.status_{operator.lower()}_{status}"}
    return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}


def _status(status: int) -> dict[str, Any]:
    return _comparison("EQ", status)


def _status_between(least: int, most: int) -> dict[str, Any]:
    return {"and_filter": {"filters": [_comparison("GE", least), _comparison("LE", most)]}}


def _error_log() -> dict[str, Any]:
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
        "typed_config": _typed(
            "extensions.access_loggers.file.v3.FileAccessLog",
            path="/dev/stdout",
            log_format={"json_format": fields},
        ),
    }


def _unlimited() -> dict[str, Any]:
    limits = {"max_connections": _UNLIMITED, "max_pending_requests": _UNLIMITED, "max_requests": _UNLIMITED}
    return {"thresholds": [limits]}


def _http_options(**fields: object) -> dict[str, Any]:
    options = _typed("extensions.upstreams.http.v3.HttpProtocolOptions", **fields)
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}


def _engine_cluster() -> dict[str, Any]:
    return {
        "name": "engine",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": _CONNECT_TIMEOUT,
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": _DESTINATION_HEADER},
        "circuit_breakers": _unlimited(),
        "typed_extension_protocol_options": _http_options(
            common_http_protocol_options={"idle_timeout": _ENGINE_IDLE_TIMEOUT},
            explicit_http_config={"http_protocol_options": {}},
        ),
    }


def _picker_cluster() -> dict[str, Any]:
    return {
        "name": "picker",
        "type": "STATIC",
        "connect_timeout": _CONNECT_TIMEOUT,
        "circuit_breakers": _unlimited(),
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "10s",
                "unhealthy_threshold": 3,
                "healthy_threshold": 2,
                "reuse_connection": True,
                "grpc_health_check": {"service_name": "envoy.service.ext_proc.v3.ExternalProcessor"},
                "tls_options": {"alpn_protocols": ["h2"]},
            }
        ],
        # The picker makes its own certificate at every start, and both ends are in one pod: encrypted, not verified.
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": _typed(
                "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                common_tls_context={"alpn_protocols": ["h2"]},
            ),
        },
        "typed_extension_protocol_options": _http_options(
            explicit_http_config={
                "http2_protocol_options": {
                    "initial_stream_window_size": _WINDOW_BYTES,
                    "initial_connection_window_size": _CONNECTION_WINDOW_BYTES,
                }
            },
        ),
        "load_assignment": {
            "cluster_name": "picker",
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": {"socket_address": {"address": "127.0.0.1", "port_value": PICKER_PORT}}
                            }
                        }
                    ]
                }
            ],
        },
    }


class _Dumper(yaml.SafeDumper):
    """Writes repeated objects in full: Envoy's and the picker's readers are not asked to follow anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _yaml(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120)
