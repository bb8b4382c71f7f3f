"""Envoy's bootstrap and the picker's configuration, as text.

Proven here: what they say, and, where an ``envoy`` is on PATH, that it takes the bootstrap. The picker's configuration
was loaded by llm-d-router ebab687 (2026-08-22) when it was written; a later picker may refuse it, and no test here
would know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.router_config import endpoint_selector, envoy_bootstrap, picker_arguments, picker_config
from planning.plan import TierPlan
from tests.components.plans import FAST, QUALITY, SMALL, SPLIT, TIERS
from tests.envoy import complaints, needs_envoy


def envoy(tier: TierPlan) -> dict[str, Any]:
    return yaml.safe_load(envoy_bootstrap(tier))


def picker(tier: TierPlan) -> dict[str, Any]:
    return yaml.safe_load(picker_config(tier))


def named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [one for one in items if one["name"] == name]
    return found


def manager(tier: TierPlan, listener: str = "requests") -> dict[str, Any]:
    found = named(envoy(tier)["static_resources"]["listeners"], listener)
    return found["filter_chains"][0]["filters"][0]["typed_config"]


def routes(tier: TierPlan) -> list[dict[str, Any]]:
    return manager(tier)["route_config"]["virtual_hosts"][0]["routes"]


def plugin(tier: TierPlan, kind: str) -> dict[str, Any]:
    (found,) = [one for one in picker(tier)["plugins"] if one["type"] == kind]
    return found


def asks_no_picker(route: dict[str, Any]) -> bool:
    return route["typed_per_filter_config"]["envoy.filters.http.ext_proc"]["disabled"] is True


# Envoy ---------------------------------------------------------------------------------------------------------------


@needs_envoy
@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_envoy_takes_the_bootstrap(tier: TierPlan, tmp_path: Path) -> None:
    assert complaints(envoy_bootstrap(tier), tmp_path) == ""


def test_a_request_fails_when_the_picker_is_down() -> None:
    picker_filter = named(manager(FAST)["http_filters"], "envoy.filters.http.ext_proc")["typed_config"]
    assert picker_filter["failure_mode_allow"] is False, "else Envoy sends it wherever the client's header says"


def test_envoy_holds_a_request_longer_than_the_picker_may() -> None:
    picker_filter = named(manager(FAST)["http_filters"], "envoy.filters.http.ext_proc")["typed_config"]
    assert picker_filter["message_timeout"] == f"{FAST.timeouts.envoy_message_s}s"
    assert FAST.timeouts.envoy_message_s > FAST.timeouts.router_hold_s


@pytest.mark.parametrize(
    "header",
    [
        "x-gateway-destination-endpoint",
        "x-gateway-destination-endpoint-subset",
        "x-envoy-original-dst-host",
        "x-prefiller-host-port",
        "x-kv-cache-source-host-port",
        "x-data-parallel-host-port",
        "x-llm-d-inference-fairness-id",
    ],
)
def test_a_client_cannot_say_where_its_request_goes_or_waits(header: str) -> None:
    (extension,) = manager(SPLIT)["early_header_mutation_extensions"]
    assert {"remove": header} in extension["typed_config"]["mutations"]


def test_headers_are_removed_before_any_route_or_filter_sees_them() -> None:
    (extension,) = manager(FAST)["early_header_mutation_extensions"]
    assert extension["name"] == "envoy.http.early_header_mutation.header_mutation"


def test_only_v1_reaches_a_replica() -> None:
    to_replicas = [one for one in routes(FAST) if "route" in one]
    assert [one["match"] for one in to_replicas] == [{"prefix": "/v1/"}]
    last = routes(FAST)[-1]
    assert last["match"] == {"prefix": "/"}
    assert last["direct_response"] == {"status": 404}
    assert asks_no_picker(last), "the picker answers 500 while the tier sleeps"


def test_the_model_list_is_answered_while_the_tier_sleeps() -> None:
    listing = routes(QUALITY)[0]
    assert listing["match"]["path"] == "/v1/models"
    assert listing["match"]["headers"] == [{"name": ":method", "string_match": {"exact": "GET"}}]
    assert asks_no_picker(listing)
    body = json.loads(listing["direct_response"]["body"]["inline_string"])
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["quality", "meta-llama/Llama-3.3-70B-Instruct"]
    assert all(model["object"] == "model" and {"created", "owned_by"} <= model.keys() for model in body["data"])


def test_each_model_is_answered_by_its_name() -> None:
    answers = {one["match"].get("path"): one for one in routes(QUALITY)}
    for name in QUALITY.served_model_names:
        body = json.loads(answers[f"/v1/models/{name}"]["direct_response"]["body"]["inline_string"])
        assert body["id"] == name


def test_an_answer_may_stream_for_ever_and_silence_ends_it_before_the_load_balancer_would() -> None:
    (route,) = [one["route"] for one in routes(FAST) if "route" in one]
    assert route == {"cluster": "engine", "timeout": "0s", "idle_timeout": f"{FAST.timeouts.envoy_message_s}s"}
    assert FAST.timeouts.envoy_message_s < FAST.timeouts.alb_idle_s
    assert manager(FAST)["common_http_protocol_options"]["idle_timeout"] == "0s"


def test_a_dead_replica_is_given_up_after_seconds() -> None:
    engine = named(envoy(FAST)["static_resources"]["clusters"], "engine")
    assert engine["connect_timeout"] == "5s"
    assert engine["type"] == "ORIGINAL_DST"
    assert engine["original_dst_lb_config"]["http_header_name"] == "x-gateway-destination-endpoint"


def test_an_idle_connection_is_closed_before_the_engine_closes_it() -> None:
    engine = named(envoy(FAST)["static_resources"]["clusters"], "engine")
    (options,) = engine["typed_extension_protocol_options"].values()
    assert options["common_http_protocol_options"]["idle_timeout"] == "4s", "vLLM's server closes after 5 s"


def test_health_is_answered_on_a_port_of_its_own_and_nothing_else_is() -> None:
    health, _ = manager(FAST, "ready")["http_filters"]
    assert health["typed_config"]["pass_through_mode"] is False
    assert health["typed_config"]["headers"] == [{"name": ":path", "string_match": {"exact": "/ready"}}]
    assert manager(FAST, "ready")["route_config"]["virtual_hosts"] == []


def test_there_is_no_admin_interface() -> None:
    assert "admin" not in envoy(FAST)


def statuses(filter_: dict[str, Any]) -> Iterator[tuple[str, int]]:
    parts = filter_["and_filter"]["filters"] if "and_filter" in filter_ else [filter_]
    for part in parts:
        comparison = part["status_code_filter"]["comparison"]
        yield comparison["op"], comparison["value"]["default_value"]


def reply(tier: TierPlan, status: int) -> dict[str, Any]:
    """Give the mapper that Envoy would take: the first that matches."""
    operators = {"EQ": int.__eq__, "GE": int.__ge__, "LE": int.__le__}
    mappers = manager(tier)["local_reply_config"]["mappers"]
    return next(one for one in mappers if all(operators[op](status, value) for op, value in statuses(one["filter"])))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "invalid_request_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
        (504, "server_error"),
    ],
)
def test_every_error_of_the_router_has_the_shape_of_openais(status: int, kind: str) -> None:
    error = reply(FAST, status)["body_format_override"]["json_format"]["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == kind
    assert error["message"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_that_passes_says_when_to_come_back(status: int) -> None:
    (header,) = reply(FAST, status)["headers_to_add"]
    assert header["header"] == {"key": "retry-after", "value": str(FAST.timeouts.polling_interval_s)}


def test_a_missing_picker_is_a_503_that_clients_retry() -> None:
    assert reply(FAST, 500)["status_code"] == 503


def test_only_failures_are_logged_and_never_a_query_or_a_key() -> None:
    (log,) = manager(FAST)["access_log"]
    assert list(statuses(log["filter"])) == [("GE", 500)]
    fields = json.dumps(log["typed_config"]["log_format"])
    assert "AUTHORIZATION" not in fields.upper()
    assert "%PATH(NQ)%" in fields


# Endpoint picker -----------------------------------------------------------------------------------------------------


def test_the_picker_holds_requests() -> None:
    # Without the gate it logs a warning, ignores the section and holds nothing.
    assert picker(FAST)["featureGates"] == ["flowControl"]
    limits = {"maxRequests": "1000", "maxBytes": "512Mi"}
    assert picker(FAST)["flowControl"] == {
        "defaultRequestTTL": "60s",
        "noEndpointRequestTTL": "660s",
        **limits,
        "defaultPriorityBand": limits,
        "saturationDetector": {"pluginRef": "utilization-detector"},
    }


def test_one_busy_replica_does_not_stop_the_tier_by_default() -> None:
    assert plugin(QUALITY, "utilization-detector")["parameters"] == {
        "queueDepthThreshold": QUALITY.router.queue_depth_threshold,
        "kvCacheUtilThreshold": 0.95,
        "metricsStalenessThreshold": "2s",
    }


@pytest.mark.parametrize("tier", [tier for tier in TIERS if tier.vllm], ids=lambda tier: tier.name)
def test_a_replica_that_is_full_is_no_candidate(tier: TierPlan) -> None:
    """The detector filters too, where a profile names it. Of the pool it takes an average, which one can lift."""
    detector = picker(tier)["flowControl"]["saturationDetector"]
    for profile in picker(tier)["schedulingProfiles"]:
        scorers = [position for position, one in enumerate(profile["plugins"]) if "weight" in one]
        assert profile["plugins"].index(detector) < min(scorers)


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_whatever_is_referred_to_is_declared_before(tier: TierPlan) -> None:
    config = picker(tier)
    declared = [one["type"] for one in config["plugins"]]
    assert len(declared) == len(set(declared))
    references = [one["pluginRef"] for profile in config["schedulingProfiles"] for one in profile["plugins"]]
    references.append(config["flowControl"]["saturationDetector"]["pluginRef"])
    assert set(references) <= set(declared), "the picker exits on a name that it does not know"
    if "disagg-profile-handler" in declared:
        assert declared.index("prefix-based-pd-decider") < declared.index("disagg-profile-handler")


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_a_cached_prefix_outweighs_one_measure_of_load(tier: TierPlan) -> None:
    for profile in picker(tier)["schedulingProfiles"]:
        weights = {one["pluginRef"]: one["weight"] for one in profile["plugins"] if "weight" in one}
        prefix = weights.pop("prefix-cache-scorer")
        assert weights
        assert all(prefix > other for other in weights.values())


def test_a_disaggregated_tier_prefills_long_new_prompts_remotely() -> None:
    config = picker(SPLIT)
    assert SPLIT.disaggregation is not None
    assert plugin(SPLIT, "prefix-based-pd-decider")["parameters"] == {
        "nonCachedTokens": SPLIT.disaggregation.non_cached_tokens
    }
    handler = plugin(SPLIT, "disagg-profile-handler")["parameters"]
    assert handler == {"deciders": {"prefill": "prefix-based-pd-decider"}}
    profiles = {one["name"]: one["plugins"][0]["pluginRef"] for one in config["schedulingProfiles"]}
    assert profiles == {"prefill": "prefill-filter", "decode": "decode-filter"}


def test_llama_cpp_is_routed_by_what_the_picker_sent_and_not_by_metrics_it_may_not_read() -> None:
    config = picker(SMALL)
    assert SMALL.llama_cpp is not None
    assert config["dataLayer"] == {"injectDefaults": False}
    assert plugin(SMALL, "concurrency-detector")["parameters"] == {"maxConcurrency": SMALL.llama_cpp.parallel_slots}
    assert not {"queue-scorer", "kv-cache-utilization-scorer"} & {one["type"] for one in config["plugins"]}
    assert plugin(SMALL, "approx-prefix-cache-producer")["parameters"]["autoTune"] is False


def test_the_picker_chooses_among_the_tiers_pods_of_either_role() -> None:
    assert endpoint_selector(SPLIT) == "llm-d.ai/tier=split"
    arguments = picker_arguments(SPLIT)
    assert "--endpoint-selector=llm-d.ai/tier=split" in arguments
    assert "--endpoint-target-ports=8000" in arguments


def test_the_picker_leaves_as_soon_as_its_last_answer_has_ended() -> None:
    assert "--drain-timeout=0s" in picker_arguments(FAST)


def test_the_picker_opens_neither_profiles_nor_tracing() -> None:
    assert {"--enable-pprof=false", "--tracing=false", "--metrics-endpoint-auth=false"} <= set(picker_arguments(FAST))


def test_limits_and_time_outs_are_the_plans() -> None:
    tier = replace(
        FAST,
        router=replace(FAST.router, max_held_requests=7, max_held_bytes_mib=9, queue_depth_threshold=3),
        timeouts=replace(FAST.timeouts, router_queue_s=11, router_hold_s=13),
    )
    flow = picker(tier)["flowControl"]
    assert (flow["defaultRequestTTL"], flow["noEndpointRequestTTL"]) == ("11s", "13s")
    assert (flow["maxRequests"], flow["maxBytes"]) == ("7", "9Mi")
    assert plugin(tier, "utilization-detector")["parameters"]["queueDepthThreshold"] == 3
