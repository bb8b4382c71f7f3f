"""Strict models of two configurations whose own readers run only in a cluster: the endpoint picker's file, and vLLM's
``--kv-transfer-config``.

Fields were read on 2026-11-27 in llm-d/llm-d-router ebab687 (2026-08-21; ``apix/config/v1alpha1`` and each plugin's
parameters) and in vllm-project/vllm (``vllm/config/kv_transfer.py``, ``vllm/v1/kv_offload/cpu/spec.py`` and
``tiering``: the newest stored files, no release). Plugins that this program does not use are left out. The picker
itself refuses unknown fields; vLLM does too at the top and in the tiers' arguments, and ignores them elsewhere.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel


class _Strict(BaseModel):
    """No unknown fields, and no text where a number is meant."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _CamelCase(_Strict):
    """As the picker writes its fields."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=False, validate_by_alias=True)


Duration = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]


# --- endpoint picker ------------------------------------------------------------------------------------------------


class _PrefixProducerParameters(_CamelCase):
    auto_tune: bool = True
    block_size_tokens: int = 0
    max_prefix_tokens_to_match: int = 0
    lru_capacity_per_server: int = 0


class _PrefixProducer(_CamelCase):
    type: Literal["approx-prefix-cache-producer"]
    parameters: _PrefixProducerParameters


class _UtilizationParameters(_CamelCase):
    queue_depth_threshold: Annotated[int, Field(gt=0)]
    kv_cache_util_threshold: Annotated[float, Field(gt=0, lt=1)]
    metrics_staleness_threshold: Duration
    headroom: float = 0.0


class _UtilizationDetector(_CamelCase):
    type: Literal["utilization-detector"]
    parameters: _UtilizationParameters


class _ConcurrencyParameters(_CamelCase):
    max_concurrency: Annotated[int, Field(gt=0)]
    headroom: float = 0.0
    concurrency_mode: Literal["requests", "tokens", "hybrid"] = "requests"


class _ConcurrencyDetector(_CamelCase):
    type: Literal["concurrency-detector"]
    parameters: _ConcurrencyParameters


class _DeciderParameters(_CamelCase):
    non_cached_tokens: Annotated[int, Field(ge=0)]
    prompt_tokens: int = 0


class _Decider(_CamelCase):
    type: Literal["prefix-based-pd-decider"]
    parameters: _DeciderParameters


class _Deciders(_CamelCase):
    prefill: str = ""
    encode: str = ""


class _HandlerParameters(_CamelCase):
    stage_order: Literal["decode-first", "prefill-first"] = "decode-first"
    deciders: _Deciders


class _DisaggregationHandler(_CamelCase):
    type: Literal["disagg-profile-handler"]
    parameters: _HandlerParameters


class _Plain(_CamelCase):
    type: Literal[
        "prefix-cache-scorer",
        "queue-scorer",
        "kv-cache-utilization-scorer",
        "active-request-scorer",
        "max-score-picker",
        "prefill-filter",
        "decode-filter",
    ]


_Plugin = Annotated[
    _PrefixProducer | _UtilizationDetector | _ConcurrencyDetector | _Decider | _DisaggregationHandler | _Plain,
    Field(discriminator="type"),
]


class _Reference(_CamelCase):
    plugin_ref: str


class _Weighted(_Reference):
    weight: Annotated[float, Field(gt=0)] | None = None


class _Profile(_CamelCase):
    name: str
    plugins: list[_Weighted]


class _Band(_CamelCase):
    max_requests: Quantity
    max_bytes: Quantity
    priority: int = 0


class _FlowControl(_CamelCase):
    default_request_ttl: Annotated[Duration, Field(alias="defaultRequestTTL")]
    no_endpoint_request_ttl: Annotated[Duration, Field(alias="noEndpointRequestTTL")]
    max_requests: Quantity
    max_bytes: Quantity
    default_priority_band: _Band
    saturation_detector: _Reference


class _DataLayer(_CamelCase):
    inject_defaults: bool = True


class PickerConfiguration(_CamelCase):
    """The picker's file. What is referred to must be declared, and before a plugin that names it."""

    api_version: Literal["llm-d.ai/v1alpha1"]
    kind: Literal["EndpointPickerConfig"]
    feature_gates: list[Literal["flowControl", "haPopulateNonLeaderDatastore"]]
    plugins: list[_Plugin]
    scheduling_profiles: list[_Profile]
    flow_control: _FlowControl
    data_layer: _DataLayer | None = None

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        declared: set[str] = set()
        for plugin in self.plugins:
            if isinstance(plugin, _DisaggregationHandler) and plugin.parameters.deciders.prefill not in declared:
                raise ValueError(f"decider {plugin.parameters.deciders.prefill} is not declared before its handler")
            declared.add(plugin.type)
        used = {one.plugin_ref for profile in self.scheduling_profiles for one in profile.plugins}
        missing = {*used, self.flow_control.saturation_detector.plugin_ref} - declared
        if missing:
            raise ValueError(f"not declared: {', '.join(sorted(missing))}")
        if "flowControl" not in self.feature_gates:
            raise ValueError("without the gate flowControl nothing is held")
        return self


# --- vLLM's KV transfer ---------------------------------------------------------------------------------------------


class _FileTier(_Strict):
    type: Literal["fs"]
    root_dir: Annotated[str, Field(pattern=r"^/")]
    n_read_threads: int = 16
    n_write_threads: int = 16


class _ObjectStore(_Strict):
    bucket: Annotated[str, Field(min_length=3)]
    endpoint_override: Annotated[str, Field(pattern=r"^https://")]
    region: str
    scheme: Literal["https"]


class _ObjectTier(_Strict):
    type: Literal["obj"]
    store_config: _ObjectStore
    prefix: str = ""
    io_threads: int = 4


class _MemoryStore(_Strict):
    spec_name: Literal["CPUOffloadingSpec"]
    cpu_bytes_to_use: Annotated[int, Field(gt=0)]


class _TieredStore(_Strict):
    spec_name: Literal["TieringOffloadingSpec"]
    cpu_bytes_to_use: Annotated[int, Field(gt=0)]
    secondary_tiers: Annotated[
        list[Annotated[_FileTier | _ObjectTier, Field(discriminator="type")]], Field(min_length=1)
    ]


class _Nixl(_Strict):
    kv_connector: Literal["NixlConnector"]
    kv_role: Literal["kv_producer", "kv_consumer"]


class _Offloading(_Strict):
    kv_connector: Literal["OffloadingConnector"]
    kv_role: Literal["kv_both"]
    kv_connector_extra_config: Annotated[_MemoryStore | _TieredStore, Field(discriminator="spec_name")]


class _Connectors(_Strict):
    connectors: tuple[_Nixl, _Offloading]


class TransferConfiguration(_Strict):
    """``--kv-transfer-config`` of a pod with prefill and decode apart: NIXL first, then the store."""

    model_config = ConfigDict(extra="forbid")
    kv_connector: Literal["MultiConnector"]
    kv_role: Literal["kv_both"]
    kv_load_failure_policy: Literal["recompute"]
    kv_connector_extra_config: _Connectors
