"""The command line of ``vllm serve`` for a tier, flag by flag. Pure: limits and names in, texts out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from components.names import ENGINE_PORT
from planning.plan import Timeouts, VllmLimits

SSE_KEEP_ALIVE_S: Final = 15
"""vLLM sends a comment line to streaming clients at least this often while their prompt waits or is prefilled, so that
no proxy on the way takes the silence for a dead connection; off by default."""

_GIB: Final = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStore:
    """Where the replicas of a tier share KV blocks."""

    bucket: str
    prefix: str
    region: str


SHARED_DIRECTORY: Final = "/kv-cache"
"""Where a store of files is mounted."""


def serve_arguments(
    limits: VllmLimits, served_model_names: Sequence[str], timeouts: Timeouts, *, port: int = ENGINE_PORT
) -> list[str]:
    """Give the flags of ``vllm serve``; the model's address in the bucket goes before them, as the positional argument.

    There is no ``--quantization``: the method stands in the checkpoint, and naming one (``awq``) pins its slow kernel
    where vLLM would choose the fast one.
    """
    return [
        # Takes a list, so its values stand apart; the next flag ends it. Without it clients would have to name s3://….
        "--served-model-name",
        *served_model_names,
        f"--port={port}",
        "--load-format=runai_streamer",
        f"--model-loader-extra-config={_loader_config(limits)}",
        f"--tensor-parallel-size={limits.tensor_parallel_size}",
        f"--max-model-len={limits.max_model_len}",
        f"--max-num-seqs={limits.max_num_seqs}",
        f"--max-num-batched-tokens={limits.max_num_batched_tokens}",
        f"--gpu-memory-utilization={limits.gpu_memory_utilization:g}",
        f"--kv-cache-dtype={limits.kv_cache_dtype}",
        "--enable-prefix-caching",
        # vLLM's default, which the plan's limits rest on: a prompt may be longer than a step.
        "--enable-chunked-prefill",
        *_offloading_arguments(limits.kv_offload_gib),
        f"--shutdown-timeout={timeouts.shutdown_s}",
        f"--sse-keep-alive-interval={SSE_KEEP_ALIVE_S}",
    ]


def _offloading_arguments(kv_offload_gib: float) -> list[str]:
    """Give the flags that keep KV blocks in the pod's memory, of all ranks together, without another connector."""
    if not kv_offload_gib:
        return []
    return [f"--kv-offloading-size={kv_offload_gib:g}", "--kv-offloading-backend=native"]


def _loader_config(limits: VllmLimits) -> str:
    """Stream weights through a small buffer, each file once.

    ``memory_limit`` 0 is a buffer for the largest tensor (1 to 2 GiB). The default is 40 GB, and everything at once
    when distributed, which would count against the pod's memory and kill it while it loads. ``distributed`` lets each
    rank read its share and pass it on; otherwise every rank reads the whole checkpoint from the bucket.
    """
    config: dict[str, Any] = {"memory_limit": 0}
    if limits.tensor_parallel_size > 1:
        config["distributed"] = True
    return _compact(config)


def transfer_argument(
    role: Literal["prefill", "decode"],
    kv_store_gib: float,
    shared_store: SharedStore | Literal["file"] | None = None,
) -> str:
    """Give ``--kv-transfer-config`` for a pod that prefills for others, or that decodes what others prefilled.

    Two connectors work side by side: NIXL moves a prompt's KV blocks from the prefill pod to the decode pod, and the
    offloading connector keeps blocks that leave the GPU in ``kv_store_gib`` of the pod's own memory (with
    ``shared_store``, behind it in the bucket or in files). vLLM loads from the first connector that has the blocks and
    saves to both. ``--kv-offloading-size`` is no short cut for the second: it replaces the connector given here (vLLM
    0.33.0, ``config/vllm.py``, ``_post_init_kv_transfer_config``).

    The outer role is ``kv_both`` because both pods load and save through the offloading connector: on a pod that is
    no consumer vLLM would not hold freed blocks back from asynchronous loads. NIXL itself has a deprecation for
    ``kv_both`` and gets its one role. A failed transfer is computed again; the default is to fail the request.
    """
    nixl_role = "kv_producer" if role == "prefill" else "kv_consumer"
    config = {
        "kv_connector": "MultiConnector",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {
            "connectors": [
                {"kv_connector": "NixlConnector", "kv_role": nixl_role},
                {
                    "kv_connector": "OffloadingConnector",
                    "kv_role": "kv_both",
                    "kv_connector_extra_config": _offloading(kv_store_gib, shared_store),
                },
            ]
        },
    }
    return f"--kv-transfer-config={_compact(config)}"


def _offloading(kv_store_gib: float, shared_store: SharedStore | Literal["file"] | None) -> dict[str, Any]:
    memory = {"cpu_bytes_to_use": round(kv_store_gib * _GIB)}
    if shared_store is None:
        return {"spec_name": "CPUOffloadingSpec", **memory}
    tier = {"type": "fs", "root_dir": SHARED_DIRECTORY} if shared_store == "file" else _objects(shared_store)
    return {"spec_name": "TieringOffloadingSpec", **memory, "secondary_tiers": [tier]}


def _objects(shared_store: SharedStore) -> dict[str, Any]:
    suffix = "amazonaws.com.cn" if shared_store.region.startswith("cn-") else "amazonaws.com"
    store = {
        "bucket": shared_store.bucket,
        "region": shared_store.region,
        # vLLM insists on an endpoint, and its default scheme is http, which the bucket refuses.
        "endpoint_override": f"https://s3.{shared_store.region}.{suffix}",
        "scheme": "https",
    }
    return {"type": "obj", "prefix": shared_store.prefix, "store_config": store}


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
