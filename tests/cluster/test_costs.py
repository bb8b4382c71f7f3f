"""What nodes cost by pool and tier, and the month of a stack, as Prometheus' own rule engine counts them.

Node and pod series are made up; that kube-state-metrics writes them so is its documentation's word.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from components.dashboards.costs import PER_MILLION, POOL_USD, TIER_USD, cost_rules
from components.dashboards.month import PROJECTED, SO_FAR, month_rules, spend_rule
from planning.plan import PoolMember
from planning.rates import StackRates, TierRate
from tests.cluster.build import Tools
from tests.cluster.promql import Expected, Groups, check
from tests.components.plans import FAST, FORECAST

# Prices whose sums are exact whatever their order, in which Prometheus does not promise to add.
TIER = replace(FAST, offerings=(PoolMember("g6.xlarge", "L4", 0.25, 0.75), PoolMember("g6e.xlarge", "L40S", None, 2.0)))


def rate(tier: str, usd_per_hour: float) -> TierRate:
    return TierRate(tier, ("shared",), usd_per_hour, usd_per_hour, usd_per_hour, 0.5, 730.0, 1.0)


#: Two tiers on one pool, three quarters of whose cost is forecast to be the first one's.
RATES = StackRates((rate("fast", 0.375), rate("chat", 0.125)), other_usd_per_hour=0.5)


COST: Groups = [{"name": "cost", "rules": [*cost_rules([TIER], RATES), spend_rule(RATES)]}]


def node(name: str, instance_type: str, capacity: str, pool: str = "shared", values: str = "1+0x20") -> dict[str, str]:
    labels = {
        "node": name,
        "label_node_kubernetes_io_instance_type": instance_type,
        "label_karpenter_sh_capacity_type": capacity,
        "label_karpenter_sh_nodepool": pool,
    }
    text = ",".join(f'{key}="{value}"' for key, value in labels.items() if value)
    return {f"kube_node_labels{{{text}}}": values}


def pod(name: str, tier: str, on: str, gpus: int = 1, *, phase: str = "Running", cpu: int = 3) -> dict[str, str]:
    identity = f'namespace="llm",pod="{name}"'
    requested = "kube_pod_container_resource_requests"
    requests = {"cpu": cpu, "nvidia_com_gpu": gpus}
    return {
        f'kube_pod_labels{{{identity},label_llm_d_ai_tier="{tier}"}}': "1+0x20",
        f'kube_pod_status_phase{{{identity},phase="{phase}"}}': "1+0x20",
        **{
            f'{requested}{{{identity},container="vllm",node="{on}",resource="{resource}"}}': f"{amount}+0x20"
            for resource, amount in requests.items()
            if amount
        },
    }


def by_tier(samples: dict[str, float], pool: str = "shared") -> Expected:
    expected = {f'{TIER_USD}{{pool="{pool}",tier="{tier}"}}': usd for tier, usd in samples.items()}
    return Expected(TIER_USD, "5m", expected)


def by_pool(samples: dict[str, float]) -> Expected:
    return Expected(POOL_USD, "5m", {f'{POOL_USD}{{pool="{pool}"}}': usd for pool, usd in samples.items()})


def test_a_pool_costs_what_its_nodes_cost_at_the_plans_prices(tools: Tools, tmp_path: Path) -> None:
    nodes = (
        node("a", "g6.xlarge", "spot")
        | node("b", "g6.xlarge", "spot")
        | node("c", "g6e.xlarge", "on-demand")
        | node("d", "g6.xlarge", "on-demand", "other")
        | node("system", "m7g.large", "", "")
    )
    # Two at 0.25 and one at 2; the system node is no pool's.
    check(tools, tmp_path, COST, nodes, [by_pool({"shared": 2.5, "other": 0.75})])


def test_a_node_that_kube_state_metrics_shows_twice_costs_once(tools: Tools, tmp_path: Path) -> None:
    once = node("a", "g6e.xlarge", "on-demand")
    again = {name.replace("{", '{instance="the one before",'): values for name, values in once.items()}
    check(tools, tmp_path, COST, once | again, [by_pool({"shared": 2.0})])


def test_a_tier_pays_for_the_nodes_that_its_pods_are_on(tools: Tools, tmp_path: Path) -> None:
    series = (
        node("a", "g6.xlarge", "spot")
        | node("b", "g6e.xlarge", "on-demand")
        | pod("fast-1", "fast", "a")
        | pod("chat-1", "chat", "b")
    )
    check(tools, tmp_path, COST, series, [by_tier({"fast": 0.25, "chat": 2.0})])


def test_a_node_of_several_tiers_is_split_by_gpus_and_without_any_by_cpu(tools: Tools, tmp_path: Path) -> None:
    series = node("a", "g6e.xlarge", "on-demand") | pod("fast-1", "fast", "a", 3) | pod("chat-1", "chat", "a", cpu=99)
    check(tools, tmp_path, COST, series, [by_tier({"fast": 1.5, "chat": 0.5})])
    series = node("a", "g6e.xlarge", "on-demand") | pod("fast-1", "fast", "a", 0) | pod("chat-1", "chat", "a", 0, cpu=9)
    check(tools, tmp_path, COST, series, [by_tier({"fast": 0.5, "chat": 1.5})])


def test_an_idle_node_goes_by_what_the_pools_tiers_pay_already(tools: Tools, tmp_path: Path) -> None:
    series = (
        node("a", "g6.xlarge", "spot")
        | node("b", "g6.xlarge", "on-demand")
        | node("idle", "g6e.xlarge", "on-demand")
        | pod("fast-1", "fast", "a")
        | pod("chat-1", "chat", "b")
    )
    # 3 USD, one to three as 0.25 to 0.75.
    check(tools, tmp_path, COST, series, [by_tier({"fast": 0.75, "chat": 2.25}), by_pool({"shared": 3.0})])


def test_a_pool_without_pods_goes_by_the_forecast_and_one_without_nodes_costs_nothing(
    tools: Tools, tmp_path: Path
) -> None:
    check(tools, tmp_path, COST, node("a", "g6e.xlarge", "on-demand"), [by_tier({"fast": 1.5, "chat": 0.5})])
    check(tools, tmp_path, COST, {'up{job="x"}': "1+0x20"}, [by_tier({"fast": 0, "chat": 0})])


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_pays_for_nothing(phase: str, tools: Tools, tmp_path: Path) -> None:
    series = node("a", "g6.xlarge", "spot") | pod("fast-1", "fast", "a") | pod("chat-1", "chat", "a", 7, phase=phase)
    check(tools, tmp_path, COST, series, [by_tier({"fast": 0.25, "chat": 0})])


def test_a_million_tokens_cost_what_the_tier_cost_meanwhile(tools: Tools, tmp_path: Path) -> None:
    """Half an hour at 2 USD, of which 10 minutes passed without a token: 1,000 tokens a second for the other 20."""
    series = node("a", "g6e.xlarge", "on-demand", values="1+0x60") | pod("fast-1", "fast", "a")
    series = {name: values.replace("x20", "x60") for name, values in series.items()} | {
        'vllm:prompt_tokens_total{namespace="llm",tier="fast",pod="fast-1"}': "0+24000x40 960000+0x20",
        'vllm:generation_tokens_total{namespace="llm",tier="fast",pod="fast-1"}': "0+6000x40 240000+0x20",
        # A prefill pod's tokens are counted where they are answered.
        'vllm:prompt_tokens_total{namespace="llm",tier="fast",role="prefill",pod="fast-2"}': "0+24000x60",
    }
    # 1 USD for 1.2 million. The rate of tokens over five minutes lags, so the window's ends differ by some samples.
    near = Expected(f'abs({PER_MILLION}:1h{{tier="fast"}} - 1 / 1.2) < bool 0.03', "30m", {'{tier="fast"}': 1})
    check(tools, tmp_path, COST, series, [near])


MONTH = {f'{POOL_USD}{{pool="shared"}}': "2+0x20000"}
SPEND: Groups = [{"name": "cost", "rules": [spend_rule(RATES)]}]


def month(name: str, at: str, usd: float, retention_days: int = 35) -> Expected:
    """One of the rules of the month, evaluated once: they are slow, and nothing else reads them."""
    rules = {rule["record"]: rule["expr"] for rule in month_rules(FORECAST, retention_days)}
    expression = rules[name].replace(SO_FAR, f"({rules[SO_FAR]})")
    # Both ends of the time are counted: a quarter of an hour too much.
    return Expected(f"abs({expression} - {usd}) < bool {0.011 * usd}", at, {"{}": 1})


def test_the_month_so_far_has_its_fixed_costs_and_ends_at_the_rate_of_the_week(tools: Tools, tmp_path: Path) -> None:
    """2 USD an hour of nodes and 0.5 of everything else, from the first hour of January on: 744 hours."""
    expected = [month(SO_FAR, "4d", 2.5 * 96), month(PROJECTED, "4d", 2.5 * 744)]
    check(tools, tmp_path, SPEND, MONTH, expected, interval="4m")


def test_a_new_month_begins_at_nothing_and_knows_the_rate_of_the_last_week(tools: Tools, tmp_path: Path) -> None:
    """February, 24 hours old; it has 672."""
    expected = [month(SO_FAR, "32d", 2.5 * 24), month(PROJECTED, "32d", 2.5 * 672)]
    check(tools, tmp_path, SPEND, MONTH, expected, interval="4m")


def test_hours_that_prometheus_no_longer_keeps_count_as_the_mean_of_those_it_has(tools: Tools, tmp_path: Path) -> None:
    """With a retention of two days the rule reads two, of a month that is four days old."""
    expected = [month(SO_FAR, "4d", 2.5 * 96, retention_days=2)]
    check(tools, tmp_path, SPEND, MONTH, expected, interval="4m")
