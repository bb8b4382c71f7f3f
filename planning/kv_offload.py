"""Host memory for KV blocks that leave a replica's GPUs: as much as is asked for, or what its nodes leave unused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from planning.facts.instances import Offering
from planning.facts.models import Architecture
from planning.options import DAEMON_MEMORY_GIB, Demand, Option, kv_cache_gib
from planning.plan import PodResources
from settings import TierSettings

#: Of a node's memory that is left alone, so that a pod fits although the node turns out smaller than published.
#: Assumption of this program, not measured.
_SPARE_SHARE = 0.1

#: More than this is taken only when asked for: vLLM pins the whole store at its start, which delays the first answer
#: (``HOST_STORE_S_PER_GIB``), by 14 s here. Assumption of this program, not measured.
MOST_UNASKED_GIB = 128.0


def kv_offload_gib(settings: TierSettings, demand: Demand, option: Option, pool: Sequence[Offering]) -> float:
    """GiB of one replica's store on any node of its pool; 0 for none.

    As the settings ask. Where they say nothing, memory that the nodes have beside the pod costs nothing, and is taken
    where it can gain something: prompts come again (``prefixHitRate``), the store holds more than the GPUs do (vLLM
    copies every full block to it, so a smaller one knows nothing that they have forgotten), and the model's layers all
    keep the whole context (vLLM 0.33.0 divides the store of others by their kinds of layers, vllm-project/vllm issue
    56871).
    """
    if option.vllm is None or settings.disaggregation.enabled:
        return 0.0
    if settings.kv_offload_gib is not None:
        return settings.kv_offload_gib
    if not settings.traffic.prefix_hit_rate or not keeps_whole_context(demand.architecture):
        return 0.0
    spare = min(
        offering.instance.allocatable_memory_gib * (1 - _SPARE_SHARE) - DAEMON_MEMORY_GIB - option.resources.memory_gib
        for offering in pool
    )
    store = float(math.floor(min(spare, MOST_UNASKED_GIB)))
    return store if store > kv_cache_gib(option, demand) else 0.0


def keeps_whole_context(architecture: Architecture) -> bool:
    """Whether every layer keeps keys and values of every token, and not a window, a state or one latent vector."""
    return (
        architecture.sliding_window is None
        and not architecture.state_bytes_per_sequence
        and not architecture.uses_latent_attention
    )


def with_store(resources: PodResources, store_gib: float) -> PodResources:
    """What the pod requests with a store of ``store_gib``, which vLLM keeps in ``/dev/shm``."""
    return replace(resources, memory_gib=resources.memory_gib + store_gib, shm_gib=resources.shm_gib + store_gib)
