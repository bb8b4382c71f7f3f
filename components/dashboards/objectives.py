"""Latency objectives: which requests count as slow, how fast that uses up what may be slow, and the alerts on it.

A tier's targets are percentiles: 95 of 100 requests meet them, so 5 of 100 may be slow. The burn rate is the share that
is slow over that 5 %; at 1 a month's slow requests are used up just as the month ends. Alerts follow the multiwindow,
multi-burn-rate scheme of the SRE Workbook (Google, chapter 5 "Alerting on SLOs"): a long window so that it matters, and
a short one so that it ends when it is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from components.dashboards.rule import Severity, alert, constant, record
from components.names import SERVING_NAMESPACE
from components.tier_queries import number
from planning.plan import TierPlan

SLOW: Final = "frugal_llm:slow_requests:rate5m"
"""Requests a second over the bound, by tier and ``objective``."""
ANSWERED: Final = "frugal_llm:answered_requests:rate5m"
SLOW_SHARE: Final = "frugal_llm:slow_share"
"""Share of requests over the bound; followed by the window."""
SLOW_FROM: Final = "frugal_llm:slow_from_seconds"
"""The bound: the first that vLLM counts at or above the target."""
BUDGET_LEFT: Final = "frugal_llm:slow_budget_left"
"""Share of the slow requests of the last 30 days that may still come; below 0 there were too many."""

RULE_INTERVAL_S: Final = 30
"""How often Prometheus evaluates the rules: samples of a recorded rate are this far apart."""

_MAY_BE_SLOW: Final = 0.05
"""Targets hold at the 95th percentile (``tiers[].slo``)."""
_BUDGET_DAYS: Final = 30
_FEWEST: Final = 20
"""Requests of the long window below which no alert is raised: 5 % of fewer is not one request, and two slow ones of
three would page somebody."""

ANSWERING: Final = f'namespace="{SERVING_NAMESPACE}",role!="prefill"'
"""A prefill pod answers the router's sidecar, not a client: its times are a part of a decode pod's."""

# vllm-project/vllm 139b1c3, vllm/v1/metrics/buckets.py (read 2026-11): the first two of latency.
_TTFT_BOUNDS_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0),
    *(80.0, 160.0, 640.0, 2560.0),
)
_TPOT_BOUNDS_S: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)


@dataclass(frozen=True, slots=True)
class Objective:
    """A latency with a target, and the histogram of vLLM that has it."""

    name: str
    histogram: str
    bounds_s: tuple[float, ...]

    def slow_from_s(self, target_ms: float) -> float | None:
        """Give the first bound at or above the target; None beyond the last, where nothing can be counted.

        vLLM says how many requests were under each of its bounds and nothing between them. The bound above counts some
        slow requests as good (a target of 2 s counts from 2.5 s); the one below would raise alarm over good ones.
        """
        return next((bound for bound in self.bounds_s if bound * 1000 >= target_ms), None)


TTFT: Final = Objective("ttft", "vllm:time_to_first_token_seconds", _TTFT_BOUNDS_S)
TPOT: Final = Objective("tpot", "vllm:request_time_per_output_token_seconds", _TPOT_BOUNDS_S)


@dataclass(frozen=True, slots=True)
class Burn:
    """A burn rate to alert on."""

    alert: str
    rate: float
    long: str
    short: str
    after: str
    severity: Severity
    means: str

    @property
    def slow_share(self) -> float:
        """Share of requests that are slow at this rate."""
        return self.rate * _MAY_BE_SLOW


# The workbook's rates are for budgets of 0.1 %. With 5 % a rate cannot pass 1 / 5 % = 20, at which every request is
# slow; its three rates stay below that, so they are kept: 72 %, 30 % and 5 % of requests slow.
BURNS: Final = (
    Burn("LatencyBudgetBurnsFast", 14.4, "1h", "5m", "2m", "critical", "a month's slow requests are used up in 2 days"),
    Burn("LatencyBudgetBurns", 6, "6h", "30m", "5m", "warning", "a month's slow requests are used up in 5 days"),
    Burn("LatencyAboveTarget", 1, "3d", "6h", "30m", "warning", "the 95th percentile misses its target for days"),
)


def objective_rules(tiers: Sequence[TierPlan]) -> list[dict[str, Any]]:
    """Count slow requests for every objective of tiers on vLLM; llama.cpp has no histogram of either."""
    rules: list[dict[str, Any]] = []
    for tier in tiers:
        if tier.engine == "vllm":
            rules += _counted(tier, TTFT, tier.ttft_target_ms)
            rules += _counted(tier, TPOT, tier.tpot_target_ms)
    windows = dict.fromkeys(window for burn in BURNS for window in (burn.short, burn.long))
    return [*rules, *(record(f"{SLOW_SHARE}:{window}", _share(f"[{window}]")) for window in windows)]


def budget_left_rule(retention_days: int) -> dict[str, Any]:
    """Say what is left of the slow requests of 30 days, or of as many as Prometheus keeps."""
    whole = f"[{min(_BUDGET_DAYS, retention_days)}d:5m]"
    return record(BUDGET_LEFT, f"1 - {_share(whole)} / {number(_MAY_BE_SLOW)}")


def _counted(tier: TierPlan, objective: Objective, target_ms: float) -> Iterator[dict[str, Any]]:
    bound = objective.slow_from_s(target_ms)
    if bound is None:
        return
    labels = {"tier": tier.name, "objective": objective.name}

    def under(bound: str) -> str:
        series = f'{objective.histogram}_bucket{{{ANSWERING},tier="{tier.name}",le="{bound}"}}'
        return f"sum by (tier) (rate({series}[5m]))"

    yield constant(SLOW_FROM, bound, labels)
    # Python's client, which vLLM uses, writes bounds as Python does: 1.0, not 1.
    yield record(SLOW, f"{under('+Inf')} - {under(str(bound))}", labels)
    yield record(ANSWERED, under("+Inf"), labels)


def _share(window: str) -> str:
    return f"sum_over_time({SLOW}{window}) / (sum_over_time({ANSWERED}{window}) > 0)"


def objective_alerts() -> list[dict[str, Any]]:
    """One alert for each burn rate, for both objectives."""
    return [_burn_alert(burn) for burn in BURNS]


def _burn_alert(burn: Burn) -> dict[str, Any]:
    over = number(burn.slow_share)
    requests = f"sum_over_time({ANSWERED}[{burn.long}]) * {RULE_INTERVAL_S} >= {_FEWEST}"
    long, short = (f"{SLOW_SHARE}:{window} > {over}" for window in (burn.long, burn.short))
    return alert(
        burn.alert,
        f"{long} and {short} and {requests}",
        after=burn.after,
        severity=burn.severity,
        summary="{{ $value | humanizePercentage }} of tier {{ $labels.tier }}'s requests miss their "
        "{{ $labels.objective }} target",
        description=f"Over {100 * burn.slow_share:.0f} % in the last {burn.long} and {burn.short}; 5 % may: "
        f"{burn.means}. With a long queue raise maxReplicas; else compare tokens and hits with the plan and plan "
        "again with the traffic that arrives.",
    )
