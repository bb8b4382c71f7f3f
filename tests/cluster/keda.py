"""The real KEDA: operator, metrics adapter and admission webhook as processes beside the control plane."""

from __future__ import annotations

import base64
from typing import Any, Final

import yaml

from components.names import KEDA_NAMESPACE
from tests.cluster.client import is_true
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import answers, free_ports

_ADAPTER: Final = "keda-metrics-apiserver"
_EXTERNAL_METRICS: Final = "v1beta1.external.metrics.k8s.io"


def start_keda(plane: ControlPlane) -> None:
    """Start all three; their definitions and namespace are there already (``stack.apply_stack`` sees to it)."""
    pair = plane.authority.pair("keda")
    certificates = plane.directory / "keda"
    certificates.mkdir()
    for name, file in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", plane.authority.ca)):
        (certificates / name).write_bytes(file.read_bytes())
    # Watching all namespaces is asked for by a variable that is set and empty.
    environment = {
        "KUBECONFIG": str(plane.kubeconfig),
        "POD_NAMESPACE": KEDA_NAMESPACE,
        "KEDA_CLUSTER_OBJECT_NAMESPACE": KEDA_NAMESPACE,
        "WATCH_NAMESPACE": "",
    }
    metrics, health, service, adapter_port, adapter_metrics, webhook, webhook_metrics, webhook_health = free_ports(8)

    operator = plane.processes.start(
        "keda-operator",
        [
            plane.tools["keda-operator"],
            "--leader-elect=false",
            f"--metrics-bind-address=127.0.0.1:{metrics}",
            f"--health-probe-bind-address=127.0.0.1:{health}",
            f"--metrics-service-bind-address=127.0.0.1:{service}",
            f"--cert-dir={certificates}",
            "--enable-cert-rotation=false",
        ],
        environment,
    )
    plane.processes.start(
        "keda-adapter",
        [
            plane.tools["keda-adapter"],
            f"--secure-port={adapter_port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={certificates}",
            f"--tls-cert-file={pair.certificate}",
            f"--tls-private-key-file={pair.key}",
            f"--port={adapter_metrics}",
            f"--metrics-service-address=127.0.0.1:{service}",
            "--metrics-service-grpc-authority=localhost",
            *(
                f"--{flag}={plane.kubeconfig}"
                for flag in ("authentication-kubeconfig", "authorization-kubeconfig", "lister-kubeconfig")
            ),
        ],
        environment,
    )
    webhooks = plane.processes.start(
        "keda-webhooks",
        [
            plane.tools["keda-webhooks"],
            f"--port={webhook}",
            f"--metrics-bind-address=127.0.0.1:{webhook_metrics}",
            f"--health-probe-bind-address=127.0.0.1:{webhook_health}",
            f"--cert-dir={certificates}",
        ],
        environment,
    )
    answers(operator, f"http://127.0.0.1:{health}/readyz")
    answers(webhooks, f"http://127.0.0.1:{webhook_health}/readyz")
    _serve_external_metrics(plane, adapter_port)
    _admit_by_webhook(plane, webhook)


def _serve_external_metrics(plane: ControlPlane, port: int) -> None:
    """Let the API server find the adapter without a pod: by the name of the loopback interface."""
    metadata = {"name": _ADAPTER, "namespace": KEDA_NAMESPACE}
    spec: dict[str, Any] = {"type": "ExternalName", "externalName": "localhost"}
    plane.client.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    spec = {
        "group": "external.metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {**metadata, "port": port},
    }
    kind = ("apiregistration.k8s.io/v1", "APIService")
    plane.client.apply({"apiVersion": kind[0], "kind": kind[1], "metadata": {"name": _EXTERNAL_METRICS}, "spec": spec})
    plane.client.wait_for(*kind, _EXTERNAL_METRICS, None, is_true("Available"), "is available", seconds=60)


def _admit_by_webhook(plane: ControlPlane, port: int) -> None:
    """Register the webhook as its own sources do, but by address, and failing closed: a test must hear of it."""
    (file,) = plane.tools["keda-webhook-config"].glob("*validation_webhooks.yaml")
    configuration = next(one for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one)
    bundle = base64.b64encode(plane.authority.ca.read_bytes()).decode()
    for hook in configuration["webhooks"]:
        path = hook["clientConfig"].pop("service")["path"]
        hook["clientConfig"] = {"url": f"https://localhost:{port}{path}", "caBundle": bundle}
        hook["failurePolicy"] = "Fail"
    plane.client.apply(configuration)
