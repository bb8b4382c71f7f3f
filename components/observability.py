"""Prometheus, which wakes sleeping tiers and so always runs; rules and a dashboard beside it; Grafana if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import pulumi
import pulumi_kubernetes as k8s

from components import helm, versions
from components.dashboards.costs import NODE_LABELS, POD_LABELS
from components.dashboards.objectives import RULE_INTERVAL_S
from components.dashboards.overview import DASHBOARD_FILE, dashboard
from components.dashboards.rules import rule_groups
from components.dashboards.watching import SCRAPE_INTERVAL_S
from components.names import MONITORING_NAMESPACE, PROJECT, PROMETHEUS_RELEASE, PROMETHEUS_URL
from planning.plan import Forecast, TierPlan

_DASHBOARD_LABEL: Final = "grafana_dashboard"
"""Grafana's sidecar looks for ConfigMaps with it, in all namespaces."""
_PRIORITY: Final = "system-cluster-critical"
"""Without Prometheus no sleeping tier wakes: it goes last when a system node runs out of memory."""
_STORAGE_SHARE: Final = 0.8
"""Of the volume, for blocks of samples. A full volume stops Prometheus and with it every wake-up, and the write-ahead
log and a compaction need room beside the blocks."""
_INTERVAL: Final = f"{SCRAPE_INTERVAL_S}s"
"""For everything that wakes nobody; routers are scraped as often as the autoscaler looks."""

_WITHOUT_TARGETS: Final = (
    "alertmanager",
    "etcd",
    "kubeApiserverAvailability",
    "kubeApiserverBurnrate",
    "kubeApiserverHistogram",
    "kubeApiserverSlos",
    "kubeControllerManager",
    "kubePrometheusNodeRecording",
    "kubeProxy",
    "kubeSchedulerAlerting",
    "kubeSchedulerRecording",
    "network",
    "node",
    "nodeExporterAlerting",
    "nodeExporterRecording",
    "windows",
)
"""Rule groups of the chart over what EKS does not show or this stack does not scrape: their alerts on absence would
always fire."""


@dataclass(frozen=True, kw_only=True)
class ObservabilityArgs:
    """What monitoring is built from."""

    tiers: tuple[TierPlan, ...]
    forecast: Forecast
    """Of these tiers: what they cost is held against it."""
    grafana: bool
    retention_days: int
    storage_gib: int
    storage_class: pulumi.Input[str]
    """Of Prometheus' volume; ``WaitForFirstConsumer``, so that it is made where its pod is put."""
    system_ready: Sequence[pulumi.Resource]
    """``Cluster.system_ready``: nodes to run on, DNS, volumes."""
    by_model: bool = False
    """There are Envoys that route by model."""
    alertmanager_url: str | None = None
    """An Alertmanager outside this cluster that alerts are sent to."""


class Observability(pulumi.ComponentResource):
    """kube-prometheus-stack, small and with a volume of its own, the stack's alerts and its dashboard.

    There is no Alertmanager: one in this cluster could not say that the cluster is down. Alerts go to the one that the
    settings name, and show in Prometheus and in Grafana. ServiceMonitors, PodMonitors and PrometheusRules depend on
    ``release``, which brings their definitions.
    """

    release: k8s.helm.v3.Release
    prometheus_url: str

    def __init__(self, name: str, args: ObservabilityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:monitoring:Observability", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        namespace = k8s.core.v1.Namespace(
            f"{name}-namespace",
            metadata=k8s.meta.v1.ObjectMetaArgs(name=MONITORING_NAMESPACE),
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=list(args.system_ready))),
        )
        self.prometheus_url = PROMETHEUS_URL
        self.release = helm.release(
            f"{name}-prometheus",
            versions.KUBE_PROMETHEUS_STACK,
            _values(args),
            # PROMETHEUS_URL is made of this name.
            release_name=PROMETHEUS_RELEASE,
            namespace=MONITORING_NAMESPACE,
            parent=self,
            depends_on=[namespace, *args.system_ready],
        )
        k8s.apiextensions.CustomResource(
            f"{name}-rules",
            api_version="monitoring.coreos.com/v1",
            kind="PrometheusRule",
            metadata=k8s.meta.v1.ObjectMetaArgs(
                name=PROJECT, namespace=MONITORING_NAMESPACE, labels={"release": PROMETHEUS_RELEASE}
            ),
            spec={
                "groups": rule_groups(args.tiers, args.forecast, args.retention_days, by_model=args.by_model),
            },
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[self.release])),
        )
        if args.grafana:
            k8s.core.v1.ConfigMap(
                f"{name}-dashboard",
                metadata=k8s.meta.v1.ObjectMetaArgs(namespace=MONITORING_NAMESPACE, labels={_DASHBOARD_LABEL: "1"}),
                data={DASHBOARD_FILE: dashboard(by_model=args.by_model)},
                opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[namespace])),
            )
        self.register_outputs({"prometheus_url": self.prometheus_url})


def _values(args: ObservabilityArgs) -> dict[str, Any]:
    off = {"enabled": False}
    return {
        "alertmanager": off,
        # The control plane is AWS's and shows no metrics of these; the API server's own are too many for what they say.
        "kubeApiServer": off,
        "kubeControllerManager": off,
        "kubeEtcd": off,
        "kubeProxy": off,
        "kubeScheduler": off,
        "coreDns": off,
        # A pod on every GPU node for what kubelet and DCGM tell already.
        "nodeExporter": off,
        # Our own has a description and a test.
        "defaultRules": {"rules": dict.fromkeys(_WITHOUT_TARGETS, False), "disabled": {"Watchdog": True}},
        "kubelet": {"serviceMonitor": {"cAdvisorInterval": _INTERVAL}},
        "kube-state-metrics": {
            "nodeSelector": helm.ON_SYSTEM_NODES,
            "resources": helm.resources("kube-state-metrics"),
            "metricLabelsAllowlist": [f"nodes=[{','.join(NODE_LABELS)}]", f"pods=[{','.join(POD_LABELS)}]"],
        },
        "prometheusOperator": {
            "nodeSelector": helm.ON_SYSTEM_NODES,
            "resources": helm.resources("prometheus-operator"),
            # Its webhook checks rules and fails closed; the rules here are checked before they are sent.
            "admissionWebhooks": off,
            "tls": off,
            "prometheusConfigReloader": {"resources": helm.resources("prometheus-config-reloader")},
        },
        "prometheus": {"prometheusSpec": _prometheus_spec(args)},
        "grafana": _grafana_values() if args.grafana else off,
    }


def _prometheus_spec(args: ObservabilityArgs) -> dict[str, Any]:
    volume = {
        "storageClassName": args.storage_class,
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": f"{args.storage_gib}Gi"}},
    }
    # The chart's default takes only what carries the release's label.
    kinds = ("podMonitor", "probe", "rule", "scrapeConfig", "serviceMonitor")
    return {
        **{f"{kind}SelectorNilUsesHelmValues": False for kind in kinds},
        "scrapeInterval": _INTERVAL,
        "evaluationInterval": f"{RULE_INTERVAL_S}s",
        # On every alert that is sent.
        "externalLabels": {"stack": pulumi.get_stack()},
        "retention": f"{args.retention_days}d",
        "retentionSize": f"{int(args.storage_gib * 1024 * _STORAGE_SHARE)}MiB",
        "storageSpec": {"volumeClaimTemplate": {"spec": volume}},
        # Helm leaves claims behind, and with them a volume that is paid for.
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
        "nodeSelector": helm.ON_SYSTEM_NODES,
        "priorityClassName": _PRIORITY,
        "resources": helm.resources("prometheus"),
        **_alertmanagers(args.alertmanager_url),
    }


def _alertmanagers(url: str | None) -> dict[str, Any]:
    if url is None:
        return {}
    parts = urlsplit(url)
    found = {"scheme": parts.scheme, "path_prefix": parts.path or "/", "static_configs": [{"targets": [parts.netloc]}]}
    return {"additionalAlertManagerConfigs": [{**found, "api_version": "v2"}]}


def _grafana_values() -> dict[str, Any]:
    """Give Grafana without a volume: dashboards come from ConfigMaps, and the chart draws a password for ``admin``."""
    return {
        "enabled": True,
        "nodeSelector": helm.ON_SYSTEM_NODES,
        "resources": helm.resources("grafana"),
    }
