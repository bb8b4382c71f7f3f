"""A strict schema of the endpoint picker's configuration, of our own: llm-d's picker cannot be had to run here.

Fields, plugins, parameters and gates as read in llm-d-router ebab687 (2026-08-22): ``apix/config/v1alpha1/
endpointpickerconfig_types.go``, ``pkg/epp/config/loader/`` and each plugin under ``pkg/epp/framework/plugins/``. What
the program does not use is left out. Beyond the picker's own strictness, what it would take and not do is refused:
flow control without its gate, a weight or a parameter that nobody looks at, a name before its declaration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


Duration = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$")]
"""A text with a unit, as Go reads it: a number alone is refused."""
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?([munkMGTPE]|[KMGTPE]i|[eE][0-9]+)?$")]
"""As Kubernetes writes them: 512Mi, 1000, 2G."""
Gate = Annotated[str, Field(pattern=r"^(flowControl|haPopulateNonLeaderDatastore)(=(true|false))?$")]
Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


# --- plugins ---------------------------------------------------------------------------------------------------------


class _NoParameters(_Strict):
    pass


class _PrefixProducer(_Strict):
    auto_tune: bool = True
    block_size_tokens: Count = 64
    max_prefix_tokens_to_match: Annotated[int, Field(ge=0)]
    lru_capacity_per_server: Count


class _PrefixScorer(_Strict):
    prefix_match_info_producer_name: str = ""
    match_length_weight: Annotated[float, Field(ge=0, le=1)] = 0.0
    match_length_scale_tokens: Count = 8192


class _ActiveRequestScorer(_Strict):
    idle_threshold: Annotated[int, Field(ge=0)] = 0
    max_busy_score: Annotated[float, Field(ge=0, le=1)] = 1.0
    in_flight_load_producer_name: str = ""


class _MaxScorePicker(_Strict):
    max_num_of_endpoints: Count = 1


class _UtilizationDetector(_Strict):
    queue_depth_threshold: Count
    kv_cache_util_threshold: Share
    metrics_staleness_threshold: Duration
    headroom: Annotated[float, Field(ge=0)] = 0.0


class _ConcurrencyDetector(_Strict):
    max_concurrency: Count
    headroom: Annotated[float, Field(ge=0)] = 0.0
    concurrency_mode: Literal["requests", "tokens", "hybrid"] = "requests"
    max_token_concurrency: Count = 1_000_000
    in_flight_load_producer_name: str = ""


class _PrefixDecider(_Strict):
    non_cached_tokens: Count  # 0 switches disaggregation off, without a word
    prompt_tokens: Annotated[int, Field(ge=0)] = 0


class _Profiles(_Strict):
    decode: str = "decode"
    prefill: str = "prefill"


class _Deciders(_Strict):
    prefill: str  # left out, no prompt is ever prefilled elsewhere


class _DisaggregationHandler(_Strict):
    stage_order: Literal["decode-first"] = "decode-first"  # the other order takes no decider
    profiles: _Profiles = _Profiles()
    deciders: _Deciders


@dataclass(frozen=True, slots=True)
class _Kind:
    role: Literal["producer", "scorer", "filter", "picker", "detector", "decider", "handler"]
    parameters: type[_Strict] = _NoParameters


_PLUGINS: Final[Mapping[str, _Kind]] = {
    "approx-prefix-cache-producer": _Kind("producer", _PrefixProducer),
    "prefix-cache-scorer": _Kind("scorer", _PrefixScorer),
    "queue-scorer": _Kind("scorer"),
    "kv-cache-utilization-scorer": _Kind("scorer"),
    "active-request-scorer": _Kind("scorer", _ActiveRequestScorer),
    "prefill-filter": _Kind("filter"),
    "decode-filter": _Kind("filter"),
    "max-score-picker": _Kind("picker", _MaxScorePicker),
    "utilization-detector": _Kind("detector", _UtilizationDetector),
    "concurrency-detector": _Kind("detector", _ConcurrencyDetector),
    "prefix-based-pd-decider": _Kind("decider", _PrefixDecider),
    "disagg-profile-handler": _Kind("handler", _DisaggregationHandler),
}


# --- the file --------------------------------------------------------------------------------------------------------


class _Plugin(_Strict):
    type: str
    name: str = ""
    parameters: dict[str, Any] = {}

    @property
    def called(self) -> str:
        return self.name or self.type


class _Reference(_Strict):
    plugin_ref: str


class _ProfilePlugin(_Reference):
    weight: Annotated[float, Field(gt=0)] | None = None


class _Profile(_Strict):
    name: Annotated[str, Field(min_length=1)]
    plugins: Annotated[list[_ProfilePlugin], Field(min_length=1)]


class _Band(_Strict):
    max_bytes: Quantity
    max_requests: Quantity


class _FlowControl(_Band):
    default_request_ttl: Annotated[Duration, Field(alias="defaultRequestTTL")]
    no_endpoint_request_ttl: Annotated[Duration, Field(alias="noEndpointRequestTTL")]
    default_priority_band: _Band
    saturation_detector: _Reference


class _DataLayer(_Strict):
    inject_defaults: bool


class _Config(_Strict):
    api_version: Literal["llm-d.ai/v1alpha1"]
    kind: Literal["EndpointPickerConfig"]
    feature_gates: list[Gate] = []
    flow_control: _FlowControl | None = None
    plugins: list[_Plugin]
    scheduling_profiles: Annotated[list[_Profile], Field(min_length=1)]
    data_layer: _DataLayer | None = None


def picker_problems(text: str) -> list[str]:
    """List what the picker would end at, or take and not do; empty when the configuration is right."""
    try:
        config = _Config.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        return _told("", error)
    return [*_plugins(config), *_profiles(config), *_flow_control(config)]


def _told(where: str, error: ValidationError) -> list[str]:
    return [f"{where}{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]


def _plugins(config: _Config) -> Iterator[str]:
    declared: dict[str, _Kind] = {}
    for plugin in config.plugins:
        kind = _PLUGINS.get(plugin.type)
        if kind is None:
            yield f"plugins: {plugin.type} is no type of plugin"
            continue
        if plugin.called in declared:
            yield f"plugins: {plugin.called} is declared twice"
        try:
            parameters = kind.parameters.model_validate(plugin.parameters)
        except ValidationError as error:
            yield from _told(f"{plugin.called}.parameters.", error)
        else:
            if isinstance(parameters, _DisaggregationHandler):
                yield from _refers(parameters.deciders.prefill, "decider", declared, plugin.called)
                names = {profile.name for profile in config.scheduling_profiles}
                if missing := {parameters.profiles.decode, parameters.profiles.prefill} - names:
                    yield f"{plugin.called}: there is no profile {', '.join(sorted(missing))}"
        declared[plugin.called] = kind


def _refers(name: str, role: str, declared: Mapping[str, _Kind], where: str) -> Iterator[str]:
    if name not in declared:
        yield f"{where}: {name} is not declared before it"
    elif declared[name].role != role:
        yield f"{where}: {name} is a {declared[name].role} and no {role}"


def _declared(config: _Config) -> dict[str, _Kind]:
    return {plugin.called: _PLUGINS[plugin.type] for plugin in config.plugins if plugin.type in _PLUGINS}


def _profiles(config: _Config) -> Iterator[str]:
    declared = _declared(config)
    handlers = [name for name, kind in declared.items() if kind.role == "handler"]
    if len(handlers) > 1:
        yield f"plugins: more than one profile handler: {', '.join(handlers)}"
    if len(config.scheduling_profiles) > 1 and not handlers:
        yield "schedulingProfiles: the handler that is added by default takes one profile"
    names = [profile.name for profile in config.scheduling_profiles]
    if len(set(names)) < len(names):
        yield f"schedulingProfiles: a name stands twice: {', '.join(names)}"
    for profile in config.scheduling_profiles:
        roles = []
        for one in profile.plugins:
            kind = declared.get(one.plugin_ref)
            if kind is None:
                yield f"schedulingProfiles.{profile.name}: {one.plugin_ref} is not declared"
                continue
            roles.append(kind.role)
            if kind.role not in {"filter", "scorer", "picker"}:
                yield f"schedulingProfiles.{profile.name}: {one.plugin_ref} is a {kind.role}"
            if (one.weight is not None) != (kind.role == "scorer"):
                yield f"schedulingProfiles.{profile.name}: {one.plugin_ref} is a {kind.role} of weight {one.weight}"
        if roles.count("picker") != 1:
            yield f"schedulingProfiles.{profile.name}: has {roles.count('picker')} pickers"


def _flow_control(config: _Config) -> Iterator[str]:
    on = any(gate in {"flowControl", "flowControl=true"} for gate in config.feature_gates)
    if on != (config.flow_control is not None):
        yield "flowControl: gate and section stand one without the other: ignored, or all defaults"
    if config.flow_control is not None:
        detector = config.flow_control.saturation_detector.plugin_ref
        yield from _refers(detector, "detector", _declared(config), "flowControl.saturationDetector")
