"""Alerts on Prometheus itself, which every wake-up reads.

That it is away it cannot say itself. ``Watchdog`` always fires, so that whoever receives alerts can tell silence from
peace; ``PrometheusWasAway`` says it afterwards.
"""

from __future__ import annotations

from typing import Any, Final

from components.dashboards.rule import alert
from components.names import MONITORING_NAMESPACE

SCRAPE_INTERVAL_S: Final = 30
"""How often Prometheus scrapes what wakes nobody, itself among it."""

_AWAY_MINUTES: Final = 5
_OWN: Final = f'namespace="{MONITORING_NAMESPACE}"'
_VOLUME: Final = f'{_OWN},persistentvolumeclaim=~"prometheus-.*"'
_FREE: Final = 0.1


def watching_alerts() -> list[dict[str, Any]]:
    """Give the alerts on Prometheus and its volume."""
    seen = f"sum(count_over_time(prometheus_build_info{{{_OWN}}}[1h]))"
    missed = (3600 - 60 * _AWAY_MINUTES) // SCRAPE_INTERVAL_S
    # Not in the first hour of a stack, which has no samples from before.
    before = f"sum(count_over_time(prometheus_build_info{{{_OWN}}}[1h] offset 1h)) > 0"
    free = f"kubelet_volume_stats_available_bytes{{{_VOLUME}}} / kubelet_volume_stats_capacity_bytes{{{_VOLUME}}}"
    return [
        alert(
            "Watchdog",
            "vector(1)",
            after="0s",
            severity="none",
            summary="Prometheus evaluates rules",
            description="Always fires. Where it stops arriving, Prometheus or the way from it is down: no sleeping "
            "tier wakes and no other alert comes.",
        ),
        alert(
            "PrometheusWasAway",
            f"{seen} < {missed} and on () {before}",
            after="0s",
            severity="warning",
            summary=f"Prometheus missed more than {_AWAY_MINUTES} minutes of the last hour",
            description="Meanwhile no sleeping tier woke; replicas that ran stayed. Look why its pod ended "
            "(`kubectl -n monitoring describe pod`): memory, its node, its volume.",
        ),
        alert(
            "PrometheusVolumeFills",
            f"{free} < {_FREE}",
            after="15m",
            severity="critical",
            summary="Prometheus' volume has {{ $value | humanizePercentage }} left",
            description="A full volume stops it, and with it every wake-up. Grow its claim (`kubectl -n monitoring "
            "edit pvc`: gp3 grows in use) and set observability.storageGib to the same.",
        ),
        alert(
            "PrometheusKeepsLessThanAsked",
            f"increase(prometheus_tsdb_size_retentions_total{{{_OWN}}}[1d]) > 0",
            after="0s",
            severity="warning",
            summary="Prometheus drops samples before their time, for room",
            description="The month so far then lacks its first days. Grow its claim and observability.storageGib, or "
            "lower observability.retentionDays.",
        ),
        alert(
            "RuleEvaluationFails",
            f"sum by (rule_group) (increase(prometheus_rule_evaluation_failures_total{{{_OWN}}}[15m])) > 0",
            after="5m",
            severity="warning",
            summary="Rules of {{ $labels.rule_group }} fail",
            description="Their figures and alerts are missing. Prometheus' page /rules shows the error; two series "
            "where one is expected is the usual one.",
        ),
    ]
