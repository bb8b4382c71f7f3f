"""A strict schema of the JSON arguments of ``vllm serve``, of our own: its parser looks at the outermost fields only.

Field names as in vLLM's sources: ``vllm/config/kv_transfer.py``, ``distributed/kv_transfer/kv_connector/v1/
multi_connector.py``, ``v1/kv_offload/tiering/obj/`` (0.33.0, 2026-11-22; the last again in the public repository,
2026-11-27). Only what the program uses is known here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["kv_producer", "kv_consumer", "kv_both"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ObjectStore(_Strict):
    """Where the bucket is; without keys, AWS' default chain gives them."""

    bucket: Annotated[str, Field(min_length=1)]
    region: Annotated[str, Field(min_length=1)]
    endpoint_override: Annotated[str, Field(pattern=r"^https://[a-z0-9.-]+$")]
    scheme: Literal["https"]  # the default is http


class ObjectTier(_Strict):
    """A second tier behind host memory."""

    type: Literal["obj"]
    prefix: Annotated[str, Field(pattern=r"^[^/].*[^/]$")]
    store_config: ObjectStore


class HostMemory(_Strict):
    """Blocks in the pod's own memory."""

    spec_name: Literal["CPUOffloadingSpec"]
    cpu_bytes_to_use: Annotated[int, Field(gt=0)]


class Tiers(_Strict):
    """Host memory, and behind it the bucket."""

    spec_name: Literal["TieringOffloadingSpec"]
    cpu_bytes_to_use: Annotated[int, Field(gt=0)]
    secondary_tiers: Annotated[list[ObjectTier], Field(min_length=1)]


class Offloading(_Strict):
    """The connector that keeps blocks outside the GPU."""

    kv_connector: Literal["OffloadingConnector"]
    kv_role: Literal["kv_both"]
    kv_connector_extra_config: Annotated[HostMemory | Tiers, Field(discriminator="spec_name")]


class Nixl(_Strict):
    """The connector that moves blocks between pods; ``kv_both`` is deprecated for it."""

    kv_connector: Literal["NixlConnector"]
    kv_role: Literal["kv_producer", "kv_consumer"]


class Connectors(_Strict):
    """Blocks are loaded from the first that has them, so NIXL comes first."""

    connectors: tuple[Nixl, Offloading]


class KvTransferConfig(_Strict):
    """The argument's value."""

    kv_connector: Literal["MultiConnector"]
    kv_role: Literal["kv_both"]
    kv_load_failure_policy: Literal["recompute"]  # the default fails the request
    kv_connector_extra_config: Connectors


class LoaderConfig(_Strict):
    """``--model-loader-extra-config`` of the load format ``runai_streamer``."""

    memory_limit: Annotated[int, Field(ge=0)]
    distributed: bool = False
