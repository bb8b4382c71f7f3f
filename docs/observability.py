"""``docs/observability.md``: what each panel and alert says, made from the rules and the dashboard themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from components.dashboards import objectives
from components.dashboards.overview import MODEL_ROUTER_PANELS, PANELS
from components.dashboards.rules import SPOT_MARGIN, SPOT_NODE_HOURS, rule_groups
from planning.stack import plan_config
from planning.stackfile import read_stack
from settings import Observability

_STACK = Path(__file__).parents[1] / "Pulumi.dev.yaml"

_KEPT_DAYS = Observability().retention_days

_TEXT = """# Observability

Made from `components/dashboards` by `make docs`. Prometheus always runs: every wake-up of a sleeping tier reads it.
Grafana comes with it unless `observability.grafana` is off. Both are inside the cluster:

```sh
kubectl -n monitoring port-forward svc/prometheus-grafana 3000:80          # http://localhost:3000, user admin
kubectl -n monitoring get secret prometheus-grafana -o jsonpath='{.data.admin-password}' | base64 -d
kubectl -n monitoring port-forward svc/prometheus-kube-prometheus-prometheus 9090   # rules, alerts, make actuals
```

## Alerts

Alerts show in Prometheus (`/alerts`) and in Grafana. With `observability.alertmanagerUrl` Prometheus sends them to an
Alertmanager of yours outside the cluster. Severity `critical`: requests are lost or soon will be; `warning`: latency or
money, in hours or days. *For* is how long it must hold. Seconds are those of the stack `dev`. Alerts that begin with
`ModelRouter`, and panels that begin with *By model field*, are there with `routing.byModelField` only.

| alert | severity | for | says | what to do |
|---|---|---|---|---|
"""

_AWAY = """
### When Prometheus itself is away

Replicas then stay as they are: what serves goes on serving, nothing grows, and
**no sleeping tier wakes**; its requests are held and fail after the router's hold (`make timeouts`). Prometheus cannot
say so itself. Three things can:

- `Watchdog` always fires. Sent to `observability.alertmanagerUrl`, it is a dead man's switch: route it to a service
  that raises alarm when it *stops* (healthchecks.io, Dead Man's Snitch, PagerDuty's heartbeat and the like), and every
  break on the way is heard of, a lost cluster included:

  ```yaml
  route:
    receiver: people
    routes:
      - matchers: [alertname = "Watchdog"]
        receiver: dead-mans-switch
        group_interval: 1m
        repeat_interval: 1m
  receivers:
    - name: people # as you have it
    - name: dead-mans-switch
      webhook_configs: [{url_file: /etc/alertmanager/dead-mans-switch, send_resolved: false}]
  ```

  Without an Alertmanager nobody is told. Alerts of several stacks are told apart by their label `stack`.
- `kubectl -n llm get scaledobject` shows `FALLBACK True` for tiers that never sleep while KEDA cannot read Prometheus.
  The others have no fallback: KEDA takes one for activity, and would start every sleeping tier.
- `PrometheusWasAway` says it afterwards, for an hour.

Its volume is bounded before it is full (samples go first), it runs with `system-cluster-critical` on the on-demand
system nodes, and its samples outlive its pod.
"""


def _objectives() -> str:
    def bounds(values: tuple[float, ...]) -> str:
        return ", ".join(f"{value:g}" for value in values)

    rows = "\n".join(
        f"| `{burn.alert}` | {burn.rate:g} | {100 * burn.slow_share:.0f} % | {burn.long} and {burn.short} |"
        for burn in objectives.BURNS
    )
    return f"""
### Slow requests

Targets (`tiers[].slo`) hold at the 95th percentile, so 5 of 100 requests may be slow. The *burn rate* is the share that
is slow over those 5 %; at 1 a month's slow requests are used up as the month ends. Rates and windows are those of
Google's SRE Workbook (chapter 5); with a budget of 5 % a rate ends at 20, where every request is slow, and all three
stay below:

| alert | burn rate | slow requests | over the last |
|---|---|---|---|
{rows}

The long window says that it matters, the short one that it goes on. Fewer than 20 requests in the long window raise
nothing.

vLLM counts requests under fixed bounds. A request counts as slow **from the first bound at or above the target**: a
target of 2 s to the first token counts from 2.5 s, so requests between the two pass as good. The other way requests
that met the target would raise alarm. Choose a bound as target and the count is exact (seconds):

- to the first token: {bounds(objectives.TTFT.bounds_s)}
- per output token: {bounds(objectives.TPOT.bounds_s)}

The time to the first token is the engine's: a wait in the router, for a cold start, is not in it
(`WakeTakesLongerThanPlanned` and `RouterQueueGrows` watch that). llama.cpp has neither histogram: its tiers have no
such alert.

### Money

`SpotShareBelowPlan` compares the spot share of a pool's node hours of the last day with the forecast's; it says nothing
under {SPOT_NODE_HOURS} node hours, and fires {100 * SPOT_MARGIN:.0f} points below. `MonthAboveBudget` exists only with
`budget.monthlyUsd`, and holds the calendar month against it: what it cost so far, and its rest at the rate of the last
seven days, fixed costs included.
"""


_COST = f"""
## What it costs

Every figure is **real nodes and hours at the plan's prices** (the bill says what EC2 charged). A node costs from the
moment Kubernetes knows it until it is gone. Tiers may share a pool, so each node is split by what the pods on it
request (GPUs, else CPU); nodes without a pod go as the pool's tiers pay already, and a pool without any pod as the
forecast splits it. The tiers of a pool add up to the pool: `frugal_llm:tier_usd_per_hour`.

A million tokens cost what the tier's nodes cost while it read and wrote them, idle hours included; the forecast beside
it is of nodes too, so it is lower than the one of the preview, which has disks and images. Tokens are those of answered
requests, input and output; cached input counts, except in llama.cpp, which does not count it.

The month: nodes as they are; fixed costs, disks and images as planned. It ends where the rest of it costs as the last
seven days did. Prometheus keeps {_KEPT_DAYS} days unless `observability.retentionDays` says otherwise; under 31, days
that are gone count as the mean of those that are there.

`make actuals STACK=s PROMETHEUS=url` prints the month so far against the forecast of the same hours: by tier with
tokens and USD per million, by pool with its spot share, and the stack with its fixed costs.

## Panels

`Tier` at the top chooses; figures of pools and of the month are the stack's whatever is chosen. `make test-cluster`
runs every query against a real Prometheus over a made-up hour and writes what each shows to `build/dashboard.md`; no
Grafana has drawn them there.

| panel | unit | says |
|---|---|---|
"""

_NOT_HERE = """
Not here: HTTP statuses as the load balancer sees them (CloudWatch has them; a tier's router shows the metrics of its
picker, not of its Envoy), and latency of llama.cpp beyond the router's time to first token.
"""


def observability_page() -> str:
    """Give the page."""
    alerts = "\n".join(_alerts())
    panels = "\n".join(
        f"| {panel.title} | {_UNITS[panel.unit]} | {panel.description} |" for panel in (*PANELS, *MODEL_ROUTER_PANELS)
    )
    return f"{_TEXT}{alerts}\n{_AWAY}{_objectives()}{_COST}{panels}\n{_NOT_HERE}"


_UNITS = {
    "reqps": "requests/s",
    "short": "",
    "s": "s",
    "percentunit": "%",
    "percent": "%",
    "currencyUSD": "USD",
}


def _alerts() -> Iterator[str]:
    """One row an alert, whichever tiers have it."""
    stack = read_stack(_STACK)
    plan = plan_config(stack.region, stack.values, stack.encrypted)[1]
    groups = rule_groups(plan.tiers, plan.forecast, _KEPT_DAYS, by_model=True)
    rules = (rule for group in groups for rule in group["rules"])
    for rule in {rule["alert"]: rule for rule in rules if "alert" in rule}.values():
        text, labels = rule["annotations"], rule["labels"]
        says = _plain(text["summary"])
        if "tier" in labels:
            says = says.replace(f"tier {labels['tier']}", "tier *tier*")
        yield f"| `{rule['alert']}` | {labels['severity']} | {rule['for']} | {says} | {text['description']} |"


def _plain(summary: str) -> str:
    """Write the templates of a summary as what stands there: ``{{ $labels.tier }}`` as *tier*."""
    words = summary.replace("{{ $value | humanizePercentage }}", "*n* %").replace("{{ $value | humanize }}", "*n*")
    words = words.replace("{{ $value }}", "*n*")
    return words.replace("{{ $labels.", "*").replace(" }}", "*")
