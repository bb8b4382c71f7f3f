"""Configuration of the Envoys that route by the ``model`` field of the body, as text. Pure.

Envoy's ``json_to_metadata`` reads the field, and for that the whole body: nothing goes on before the last byte has
come. What it cannot read, or has no ``model``, goes to the default tier, which answers as it would without this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from components import envoy_config as envoy
from components.names import HTTP_PORT, SERVING_NAMESPACE, router_service
from planning.plan import ModelRouterPlan, ModelRouterTimeouts, TierPlan

ARGUMENTS: Final = ("--concurrency", "1")
"""One worker reads one body at a time: a body of many small values takes a hundred times its size to read, and the
planned memory holds one of them."""

_METADATA: Final = "frugal-llm.body"
_FIELD: Final = "model"
_JSON: Final = r"(?i)application/json\s*(;.*)?"
_HEAP_SHARE: Final = 0.9
"""Of the container's memory; the rest is for stacks and what the allocator keeps beside."""
_GIVE_BACK, _REFUSE = 0.7, 0.95
"""Shares of that heap at which Envoy gives free memory back, and answers new requests with 503."""
_NAMED_BYTES: Final = 1024
"""Most that an error says of the models; a longer list is left out."""


def envoy_bootstrap(plan: ModelRouterPlan, tiers: Sequence[TierPlan]) -> str:
    """Envoy's bootstrap, as YAML."""
    routes = _routes(plan)
    listener = envoy.request_listener(
        "models",
        routes,
        [_model_filter()],
        _error_replies(plan, tiers),
        # Without it the listener's own small buffer would bound the body.
        host={"request_body_buffer_limit": plan.max_body_mib * 2**20},
        # Envoy takes 4 KiB unless told more.
        route_table={"max_direct_response_body_size_bytes": max(map(_answer_bytes, routes))},
    )
    heap = envoy.named_typed(
        "envoy.resource_monitors.fixed_heap",
        "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
        max_heap_size_bytes=round(plan.memory_mib * 2**20 * _HEAP_SHARE),
    )
    actions = [
        {
            "name": f"envoy.overload_actions.{action}",
            "triggers": [{"name": heap["name"], "threshold": {"value": share}}],
        }
        for action, share in (("shrink_heap", _GIVE_BACK), ("stop_accepting_requests", _REFUSE))
    ]
    return envoy.bootstrap(
        listener, [_tier_cluster(tier, plan.timeouts) for tier in tiers], [heap], actions, metrics=True
    )


def _model_filter() -> envoy.Part:
    rule = {"selectors": [{"key": _FIELD}], "on_present": {"metadata_namespace": _METADATA, "key": _FIELD}}
    return envoy.named_typed(
        "envoy.filters.http.json_to_metadata",
        "extensions.filters.http.json_to_metadata.v3.JsonToMetadata",
        request_rules={"rules": [rule], "allow_content_types_regex": {"regex": _JSON}},
    )


def _routes(plan: ModelRouterPlan) -> list[envoy.Part]:
    """Model list of all tiers; the tier of the body's model; 404 for a model of no tier; without one the default."""
    idle_s = plan.timeouts.idle_s
    unknown = envoy.json_answer(404, _unknown_model(plan))
    disabled = envoy.typed("config.route.v3.FilterConfig", disabled=True)
    return [
        *envoy.model_list(plan.tier_of_model),
        {"match": envoy.get({"prefix": "/v1/models/"}), **unknown},
        *(
            {"match": _body_has({"string_match": {"exact": model}}), **envoy.route(tier, idle_s)}
            for model, tier in plan.tier_of_model.items()
        ),
        {"match": _body_has({"present_match": True}), **unknown},
        {"match": {"prefix": "/v1/"}, **envoy.route(plan.default_tier, idle_s)},
        {
            "match": {"prefix": "/"},
            **envoy.json_answer(404, envoy.NOT_FOUND),
            # A body that goes nowhere is not read.
            "typed_per_filter_config": {"envoy.filters.http.json_to_metadata": disabled},
        },
    ]


def _body_has(value: envoy.Part) -> envoy.Part:
    field = {"filter": _METADATA, "path": [{"key": _FIELD}], "value": value}
    return {"prefix": "/v1/", "dynamic_metadata": [field]}


def _unknown_model(plan: ModelRouterPlan) -> envoy.Part:
    names = ", ".join(plan.tier_of_model)
    known = names if len(names.encode()) <= _NAMED_BYTES else "GET /v1/models lists them"
    message = f"The model does not exist in this stack. Models: {known}"
    return envoy.error(message, "invalid_request_error", "model_not_found", param=_FIELD)


def _answer_bytes(route: envoy.Part) -> int:
    answer = route.get("direct_response")
    return len(answer["body"]["inline_string"].encode()) if answer else 0


def _error_replies(plan: ModelRouterPlan, tiers: Sequence[TierPlan]) -> list[envoy.Part]:
    """Errors of Envoy's own in the shape of OpenAI's. First match wins; a 404 is one already."""
    too_large = envoy.error(
        f"The body is over {plan.max_body_mib} MiB, the most that is read for its model. With the header "
        f"{plan.routing_header} naming the tier it may be longer.",
        "invalid_request_error",
        "request_too_large",
    )
    bad_request = envoy.error(envoy.REASON, "invalid_request_error", "bad_request")
    # The tier's router is restarting, or this Envoy is short of memory: both pass.
    unavailable = envoy.error(
        "The tier's router could not take the request; retry.", "server_error", "router_unavailable"
    )
    return [
        envoy.reply(envoy.on_status(413), too_large),
        envoy.reply(envoy.on_status_between(400, 403), bad_request),
        envoy.reply(envoy.on_status_between(405, 499), bad_request),
        envoy.reply(
            envoy.on_status_between(500, 599),
            unavailable,
            retry_after_s=min(tier.timeouts.polling_interval_s for tier in tiers),
        ),
    ]


def _tier_cluster(tier: TierPlan, times: ModelRouterTimeouts) -> envoy.Part:
    address = f"{router_service(tier.name)}.{SERVING_NAMESPACE}.svc.cluster.local"
    connections = {"max_connection_duration": f"{times.connection_s}s"}
    return {
        "name": tier.name,
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_ONLY",
        "connect_timeout": envoy.CONNECT_TIMEOUT,
        "circuit_breakers": envoy.unlimited(),
        # A router whose node is lost says no goodbye, and what waits for its answer would wait for silence to end it.
        "upstream_connection_options": {
            "tcp_keepalive": {
                "keepalive_time": times.keepalive_idle_s,
                "keepalive_interval": times.keepalive_interval_s,
                "keepalive_probes": times.keepalive_probes,
            }
        },
        "typed_extension_protocol_options": envoy.http_options(
            common_http_protocol_options=connections, explicit_http_config={"http_protocol_options": {}}
        ),
        "load_assignment": envoy.endpoint(tier.name, address, HTTP_PORT),
    }
