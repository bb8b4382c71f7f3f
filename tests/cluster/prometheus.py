"""The real Prometheus, told by the stack's own monitors what to scrape and by its own rules what to record.

The Prometheus operator is not here: what it makes of a ServiceMonitor, a PodMonitor and a PrometheusRule is made here,
for the fields that the stack uses. Debian's build does not ask the API server for pods; a file tells it of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests
import yaml

from tests.cluster.client import Object
from tests.cluster.picker import ANCESTORS_METRICS
from tests.cluster.processes import Process, Processes, answers, free_ports

_ENDPOINTS: Final = {"ServiceMonitor": "endpoints", "PodMonitor": "podMetricsEndpoints"}
_OF_ANCESTOR: Final = [
    {"source_labels": ["__name__"], "regex": old, "target_label": "__name__", "replacement": new}
    for old, new in ANCESTORS_METRICS.items()
]


@dataclass
class Prometheus:
    """One that runs, or ran."""

    processes: Processes
    command: list[str]
    url: str
    process: Process

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Give the elements of an instant vector. Raises ``AssertionError`` with Prometheus' own words."""
        response = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10)
        answer = response.json()
        assert answer["status"] == "success", answer.get("error")
        return answer["data"]["result"]

    def value(self, expression: str) -> float:
        """Give the one value of an expression; 0 when it has none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else 0.0

    def stop(self) -> None:
        """Take it away."""
        self.processes.stop(self.process)

    def start(self) -> None:
        """Bring it back, with what it had stored."""
        self.process = self.processes.start("prometheus", self.command)
        answers(self.process, f"{self.url}/-/ready")


def start_prometheus(
    processes: Processes, binary: Path, directory: Path, pods: Path, objects: Iterable[Object]
) -> Prometheus:
    """Start it over the monitors and rules among ``objects``; ``pods`` is the kubelet's file of what runs where."""
    objects = list(objects)
    groups = [group for one in objects if one["kind"] == "PrometheusRule" for group in one["spec"]["groups"]]
    (directory / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    config = {
        "global": {"evaluation_interval": "5s"},
        "rule_files": [str(directory / "rules.yaml")],
        "scrape_configs": [_job(one, pods) for one in objects if one["kind"] in _ENDPOINTS],
    }
    file = directory / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    (port,) = free_ports(1)
    command = [
        str(binary),
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    url = f"http://127.0.0.1:{port}"
    process = processes.start("prometheus", command)
    answers(process, f"{url}/-/ready")
    return Prometheus(processes, command, url, process)


def _job(monitor: Object, pods: Path) -> dict[str, Any]:
    """Scrape the pods that a monitor selects; the stack's Services select by the labels that they carry themselves."""
    of_service = monitor["kind"] == "ServiceMonitor"
    (endpoint,) = monitor["spec"][_ENDPOINTS[monitor["kind"]]]
    selected = {f"pod_label_{one}": value for one, value in monitor["spec"]["selector"]["matchLabels"].items()}
    # A pod that is told to end leaves its Services' endpoints, and goes on being a pod.
    selected |= {"pod_is_behind_services": "True"} if of_service else {}
    keep = [
        {"action": "keep", "source_labels": [pod_label(name)], "regex": value}
        for name, value in {**selected, "pod_container_port_name": endpoint["port"]}.items()
    ]
    named = [
        {"source_labels": [pod_label(source)], "target_label": label}
        for label, source in (("namespace", "namespace"), ("pod", "pod_name"))
    ]
    service = [{"target_label": "service", "replacement": monitor["metadata"]["name"]}] if of_service else []
    return {
        "job_name": monitor["metadata"]["name"],
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint["interval"],
        "metrics_path": endpoint["path"],
        "file_sd_configs": [{"files": [str(pods)]}],
        "relabel_configs": [*keep, *named, *service, *_relabelings(endpoint)],
        "metric_relabel_configs": _OF_ANCESTOR if of_service else [],
    }


def pod_label(name: str) -> str:
    """Give the label by which Prometheus' own discovery hands on what it found out about a pod."""
    return "__meta_kubernetes_" + "".join(letter if letter.isalnum() else "_" for letter in name)


def _relabelings(endpoint: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As the operator writes them: the same words with underscores."""
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return [{names.get(key, key): value for key, value in one.items()} for one in endpoint.get("relabelings") or ()]
