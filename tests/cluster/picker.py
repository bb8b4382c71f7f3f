"""The endpoint picker as far as it can be had: Gateway API Inference Extension 1.5.0, which llm-d's 0.11 descends from.

llm-d's own picker is in no registry that serves sources, so its ancestor runs with the rendered configuration. It is
fair for plugins, weights, flow control and metrics; it says nothing of llm-d's flags, rights and strictness.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from components.names import ENGINE_PORT, TIER_LABEL, router_service
from components.router_config import PICKER_PORT
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import Process, answers, free_ports

_ANCESTORS_API: Final = "inference.networking.x-k8s.io/v1alpha1"
_LLM_DS_OWN: Final = "active-request-scorer"


def as_ancestor(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give a tier's picker configuration as the ancestor takes it. All differences stand here:

    - the API group has llm-d's name now;
    - one time-out holds a request whether or not the tier has replicas, so it is the longer of the two;
    - the saturation detector has moved from the top into ``flowControl``.

    - a tier of llama.cpp has one scorer less: the one that counts a replica's requests is llm-d's own, as is the
      switch that keeps the picker from asking replicas for their metrics.

    The plugins that tell prefill from decode are llm-d's own too: a disaggregated tier's configuration is not loaded.
    """
    changed = copy.deepcopy(dict(config))
    changed["apiVersion"] = _ANCESTORS_API
    control = changed["flowControl"]
    control["defaultRequestTTL"] = control.pop("noEndpointRequestTTL")
    changed["saturationDetector"] = control.pop("saturationDetector")
    changed.pop("dataLayer", None)
    changed["plugins"] = [one for one in changed["plugins"] if one["type"] != _LLM_DS_OWN]
    for profile in changed["schedulingProfiles"]:
        profile["plugins"] = [one for one in profile["plugins"] if one["pluginRef"] != _LLM_DS_OWN]
    return changed


ANCESTORS_METRICS: Final[Mapping[str, str]] = {
    "inference_extension_(flow_control_.*)": "llm_d_epp_$1",
    "inference_objective_running_requests": "llm_d_epp_request_running",
    "inference_objective_(request_.*)": "llm_d_epp_$1",
    "inference_pool_ready_pods": "llm_d_epp_ready_endpoints",
}
"""Names of the ancestor's series, as patterns, and those under which llm-d has them."""


def ancestors_arguments(arguments: Sequence[str], tier: str, namespace: str, config: Path) -> list[str]:
    """Give a picker's command line as the ancestor takes it.

    Its selector mode does not work, so it is given a pool; and it knows no drain time-out.
    """
    unknown = ("--endpoint-selector=", "--endpoint-target-ports=", "--drain-timeout=", "--config-file=")
    kept = [one for one in arguments if not one.startswith(unknown)]
    return [f"--pool-name={tier}", f"--pool-namespace={namespace}", f"--config-file={config}", *kept]


def endpoint_pool(tier: str, namespace: str) -> dict[str, Any]:
    """Give the pool of a tier's engines: who the ancestor chooses among, where llm-d is told by its command line."""
    picker = {"name": router_service(tier), "port": {"number": PICKER_PORT}, "failureMode": "FailClose"}
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": tier, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {TIER_LABEL: tier}},
            "targetPorts": [{"number": ENGINE_PORT}],
            "endpointPickerRef": picker,
        },
    }


@dataclass(frozen=True, slots=True)
class Picker:
    """One that runs."""

    process: Process
    port: int
    """Of the gRPC service that Envoy asks."""
    metrics_url: str


def start_picker(plane: ControlPlane, tier: str, config: Mapping[str, Any], namespace: str) -> Picker:
    """Start a tier's picker alone, to see whether it takes its configuration."""
    plane.client.apply(endpoint_pool(tier, namespace))
    file = plane.directory / f"{tier}-picker.yaml"
    file.write_text(yaml.safe_dump(as_ancestor(config)), encoding="utf-8")
    port, health, metrics = free_ports(3)
    ports = (f"--grpc-port={port}", f"--grpc-health-port={health}", f"--metrics-port={metrics}")
    arguments = (*ports, "--metrics-endpoint-auth=false")
    process = plane.processes.start(
        f"{tier}-picker",
        [
            plane.tools["picker"],
            *ancestors_arguments(arguments, tier, namespace, file),
        ],
        {"KUBECONFIG": str(plane.kubeconfig), "NAMESPACE": namespace, "POD_NAME": f"{tier}-router-5d4f8c7b9-x2x4z"},
    )
    url = f"http://127.0.0.1:{metrics}/metrics"
    answers(process, url)
    return Picker(process, port, url)
