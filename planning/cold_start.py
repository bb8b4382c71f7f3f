"""How long a replica takes from the order of its node to its first answer, and how often the autoscaler looks."""

from __future__ import annotations

from dataclasses import dataclass

#: From the order of a node to a ready kubelet: 30 s (Bottlerocket) to 84 s (AL2023 on g4dn) in two blogs of 2024-2025;
#: the middle is planned.
NODE_READY_S = 60.0

#: The compressed vLLM image, GB, and the rate at which a node pulls and unpacks it: AWS's SOCI blog gives 4-6 minutes
#: for 15-20 GB, 60 MB/s.
VLLM_IMAGE_GB = 10.0
LLAMA_CPP_IMAGE_GB = 0.3
IMAGE_PULL_GB_PER_S = 0.06

#: Engine start with weights: 46 s median for 16 GB (8B on H100) and 63 to 221 s for 141 GB (70B on 8 GPUs), AccelMark
#: result files of 2026. A line through them: 45 s for compilation and graphs, 1.2 s a GB for weights.
ENGINE_START_S = 45.0
ENGINE_S_PER_GB = 1.2

#: vLLM reserves and pins the whole host-memory store of its KV cache before it answers: 55.4 s for 512 GiB on an H200
#: node, 0.1 s a GB for 20 to 500 GB (vllm-project/vllm pull request 51081 of 2026-08-04, read 2026-11-27). That is one
#: process without a model; of several GPUs each registers all of it, which nobody has timed, and pull request 54578 of
#: 2026-08-31 speaks of 60 s and more without saying for how much.
HOST_STORE_S_PER_GIB = 55.4 / 512

#: llama.cpp maps the file: start is the download at the node's rate and a few seconds.
LLAMA_CPP_START_S = 5.0

#: What the autoscaler counts as load: running requests on average over this time. As long as a start takes, about: a
#: shorter burst is over before a new replica helps, and an average of less is mostly chance.
LOAD_WINDOW_S = 300

#: The horizontal pod autoscaler's sync period, Kubernetes' default; the load window is read as often.
AUTOSCALER_LOOK_S = 15

#: Most that Kubernetes takes for a stabilisation window (autoscaling/v2).
_LONGEST_STABILIZATION_S = 3600

LEAST_COOLDOWN_S = 600
LONGEST_COOLDOWN_S = 3600


@dataclass(frozen=True, slots=True)
class ColdStart:
    """The parts of a cold start, seconds."""

    node_s: float
    image_s: float
    engine_s: float

    @property
    def total_s(self) -> float:
        """From the order of a node to the first answer."""
        return self.node_s + self.image_s + self.engine_s


def vllm_cold_start(weights_gb: float, host_store_gib: float = 0.0) -> ColdStart:
    """Cold start of a vLLM replica that streams ``weights_gb`` from the bucket and keeps KV blocks in host memory.

    A store behind the host's, in the bucket or in files, adds nothing: no block is read before a prompt asks for it,
    and what is asked for counts as that prompt's time to the first token.
    """
    engine_s = ENGINE_START_S + ENGINE_S_PER_GB * weights_gb + HOST_STORE_S_PER_GIB * host_store_gib
    return ColdStart(NODE_READY_S, VLLM_IMAGE_GB / IMAGE_PULL_GB_PER_S, engine_s)


def llama_cpp_cold_start(weights_gb: float, network_mbps: float) -> ColdStart:
    """Cold start of a llama.cpp replica that downloads ``weights_gb`` at the node's sustained network rate."""
    download = weights_gb * 8000 / network_mbps
    return ColdStart(NODE_READY_S, LLAMA_CPP_IMAGE_GB / IMAGE_PULL_GB_PER_S, LLAMA_CPP_START_S + download)


def scale_down_window_s(cooldown_s: float) -> float:
    """How long replicas stay after the load that they were for: the autoscaler's stabilisation window."""
    return min(cooldown_s, _LONGEST_STABILIZATION_S)
