"""Configuration of a tier's router, as text: Envoy's bootstrap and the endpoint picker's plugins. Pure.

Three defaults of the upstream chart are wrong for us and differ here. Envoy fails closed and drops the routing headers
that clients send: else a forged ``x-gateway-destination-endpoint`` reaches any address in the cluster while the picker
is down. The saturation detector is set explicitly: its default counts a replica as full when its metrics are 200 ms
old, and lets one busy replica of three stop the whole tier. Only ``/v1/`` is routed: ``/metrics`` of the replicas is
nobody's business outside.
"""

from __future__ import annotations

from typing import Any, Final

from components import envoy_config as envoy
from components.names import ENGINE_PORT, PICKER_METRICS_PORT, TIER_LABEL
from planning.plan import TierPlan

PICKER_PORT: Final = 9002
"""Where the picker answers Envoy; the chart's port."""
PICKER_HEALTH_PORT: Final = 9003

PICKER_CONFIG_KEY: Final = "picker.yaml"
PICKER_CONFIG_DIRECTORY: Final = "/etc/picker"

_ENGINE_IDLE_TIMEOUT: Final = "4s"
"""Below the 5 s after which vLLM's and llama.cpp's HTTP servers close an idle connection: the side that sends must
close first, or a request meets a closing connection and is lost."""
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
        plugins, profiles = _by_own_count()
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
    return envoy.to_yaml(config)


def envoy_bootstrap(tier: TierPlan) -> str:
    """Envoy's bootstrap for the tier's router pod, as YAML."""
    listener = envoy.request_listener(
        tier.name,
        _routes(tier),
        [_picker_filter(tier)],
        _error_replies(tier),
        # A test header that the picker puts on every answer.
        route_table={"response_headers_to_remove": ["x-went-into-resp-headers"]},
    )
    return envoy.bootstrap(listener, [_engine_cluster(), _picker_cluster()])


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


def _by_own_count() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    plugins = [
        # Nothing of the engine's metrics is there to tune the index by.
        _prefix_producer(autoTune=False),
        {"type": "prefix-cache-scorer"},
        {"type": "active-request-scorer"},
        {"type": "max-score-picker"},
    ]
    profile = _profile(
        "default",
        # Not the detector too: as a filter of counts it leaves nobody when all are full, and the request is refused at
        # once, where llama-server would have queued it.
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


def _routes(tier: TierPlan) -> list[envoy.Part]:
    """Model list from Envoy itself, so that it answers while the tier sleeps; ``/v1/`` to a replica; 404 for the rest.

    The picker holds a request only when it can read a prompt in its body: a GET at zero would get a 500.
    """
    disabled = envoy.typed("extensions.filters.http.ext_proc.v3.ExtProcPerRoute", disabled=True)
    without_picker = {"typed_per_filter_config": {"envoy.filters.http.ext_proc": disabled}}
    return [
        *({**answer, **without_picker} for answer in envoy.model_list(tier.served_model_names)),
        # Silence ends here before the load balancer ends it: this answer says why and when to retry.
        {"match": {"prefix": "/v1/"}, **envoy.route("engine", tier.timeouts.envoy_message_s)},
        # Written out, because without a route the picker would be asked first, and answer 500 while the tier sleeps.
        {"match": {"prefix": "/"}, "direct_response": {"status": 404}, **without_picker},
    ]


def _picker_filter(tier: TierPlan) -> envoy.Part:
    return {
        "name": "envoy.filters.http.ext_proc",
        "typed_config": envoy.typed(
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
            # Envoy 1.39.1 does not look at it while bodies are streamed in full duplex: the picker's own TTL bounds a
            # hold, and the route's idle time-out what a picker never answers. It stands for a version that looks.
            message_timeout=f"{tier.timeouts.envoy_message_s}s",
        ),
    }


def _error_replies(tier: TierPlan) -> list[envoy.Part]:
    """Errors that Envoy or the picker answers, in the shape and with the words OpenAI clients understand.

    First match wins. ``Retry-After`` is one poll of the scaler: sooner nothing changes.
    """
    retry_after_s = tier.timeouts.polling_interval_s
    overloaded = envoy.error(envoy.REASON, "rate_limit_error", "overloaded")
    bad_request = envoy.error(envoy.REASON, "invalid_request_error", "bad_request")
    no_replica = envoy.error("No replica could be chosen for the request; retry.", "server_error", "router_unavailable")
    unavailable = envoy.error(envoy.REASON, "server_error", "unavailable")
    return [
        envoy.reply(envoy.on_status(404), envoy.NOT_FOUND),
        envoy.reply(envoy.on_status(429), overloaded, retry_after_s=retry_after_s),
        envoy.reply(envoy.on_status_between(400, 499), bad_request),
        # The picker is restarting, or has no replica for a request that it cannot hold: both pass, so 503.
        envoy.reply(envoy.on_status(500), no_replica, retry_after_s=retry_after_s, status=503),
        envoy.reply(envoy.on_status_between(501, 599), unavailable, retry_after_s=retry_after_s),
    ]


def _engine_cluster() -> envoy.Part:
    return {
        "name": "engine",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": envoy.CONNECT_TIMEOUT,
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": envoy.DESTINATION_HEADER},
        "circuit_breakers": envoy.unlimited(),
        "typed_extension_protocol_options": envoy.http_options(
            common_http_protocol_options={"idle_timeout": _ENGINE_IDLE_TIMEOUT},
            explicit_http_config={"http_protocol_options": {}},
        ),
    }


def _picker_cluster() -> envoy.Part:
    return {
        "name": "picker",
        "type": "STATIC",
        "connect_timeout": envoy.CONNECT_TIMEOUT,
        "circuit_breakers": envoy.unlimited(),
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
            "typed_config": envoy.typed(
                "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                common_tls_context={"alpn_protocols": ["h2"]},
            ),
        },
        "typed_extension_protocol_options": envoy.http_options(
            explicit_http_config={
                "http2_protocol_options": {
                    "initial_stream_window_size": _WINDOW_BYTES,
                    "initial_connection_window_size": _CONNECTION_WINDOW_BYTES,
                }
            },
        ),
        "load_assignment": envoy.endpoint("picker", "127.0.0.1", PICKER_PORT),
    }
