"""The endpoint picker as far as it can be had: Gateway API Inference Extension 1.5.0, which llm-d's 0.11 descends from.

llm-d's own picker is in no registry that serves sources, so its ancestor runs with the rendered configuration. It is
fair for plugins, weights, flow control and metrics; it says nothing of llm-d's flags, rights and strictness.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import Process, answers, free_ports

_ANCESTORS_API: Final = "inference.networking.x-k8s.io/v1alpha1"


def as_ancestor(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give a tier's picker configuration as the ancestor takes it. All differences stand here:

    - the API group has llm-d's name now;
    - one time-out holds a request whether or not the tier has replicas, so it is the longer of the two;
    - the saturation detector has moved from the top into ``flowControl``.

    The plugins that tell prefill from decode, or count a replica's requests themselves, are llm-d's own: only the
    configuration of vLLM's ordinary tiers can be loaded.
    """
    changed = copy.deepcopy(dict(config))
    changed["apiVersion"] = _ANCESTORS_API
    control = changed["flowControl"]
    control["defaultRequestTTL"] = control.pop("noEndpointRequestTTL")
    changed["saturationDetector"] = control.pop("saturationDetector")
    return changed


@dataclass(frozen=True, slots=True)
class Picker:
    """One that runs."""

    process: Process
    port: int
    """Of the gRPC service that Envoy asks."""
    metrics_url: str


def start_picker(plane: ControlPlane, tier: str, config: Mapping[str, Any], namespace: str) -> Picker:
    """Start a tier's picker over an InferencePool of the tier's engines: its selector mode does not work in 1.5.0."""
    pool = {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": tier, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"llm-d.ai/tier": tier}},
            "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": f"{tier}-router", "port": {"number": 9002}, "failureMode": "FailClose"},
        },
    }
    plane.client.apply(pool)
    file = plane.directory / f"{tier}-picker.yaml"
    file.write_text(yaml.safe_dump(as_ancestor(config)), encoding="utf-8")
    port, health, metrics = free_ports(3)
    process = plane.processes.start(
        f"{tier}-picker",
        [
            plane.tools["picker"],
            f"--pool-name={tier}",
            f"--pool-namespace={namespace}",
            f"--config-file={file}",
            f"--grpc-port={port}",
            f"--grpc-health-port={health}",
            f"--metrics-port={metrics}",
            "--metrics-endpoint-auth=false",
        ],
        {"KUBECONFIG": str(plane.kubeconfig), "NAMESPACE": namespace, "POD_NAME": f"{tier}-router-5d4f8c7b9-x2x4z"},
    )
    url = f"http://127.0.0.1:{metrics}/metrics"
    answers(process, url)
    return Picker(process, port, url)
