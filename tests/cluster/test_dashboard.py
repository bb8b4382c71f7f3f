"""Every query of the dashboard, and ``make actuals``, answered by a real Prometheus that holds a made-up hour.

Samples are written by promtool, recorded series by the stack's own rules over them, layer by layer. What the panels
show is printed to ``build/dashboard.md``. No Grafana has drawn them.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import requests
import yaml

from actuals import prometheus as asked
from components.dashboards.costs import POOL_USD, PRICE, TIER_USD
from components.dashboards.overview import MODEL_ROUTER_PANELS, PANELS, Panel, Query
from components.dashboards.rules import rule_groups
from planning.plan import Plan, TierPlan
from planning.rates import stack_rates
from planning.stack import plan_config
from planning.stackfile import read_stack, stack_path
from tests import harness
from tests.cluster import made_up_hour as hour
from tests.cluster.build import Tools
from tests.cluster.processes import Process, Processes, answers, free_ports
from tests.components.known_metrics import EXISTING, PROMETHEUS

BEGINS: Final = int(datetime(2025, 6, 10, 12, tzinfo=UTC).timestamp())
ENDS: Final = BEGINS + hour.SECONDS
_REPORT: Final = Path(__file__).parents[2] / "build" / "dashboard.md"


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Give the staging stack's plan, with a second tier on the pool of its first."""
    file = read_stack(stack_path("staging", harness.ROOT))
    values = dict(file.values)
    tiers = list(values["tiers"])  # type: ignore[arg-type]
    values["tiers"] = [*tiers, {**tiers[0], "name": "chat", "onDemandFloor": 0}]
    return plan_config(file.region, values, file.encrypted)[1]


def _type(tier: TierPlan, position: int = 0) -> str:
    return [member.instance_type for member in tier.offerings if member.spot_usd_per_hour is not None][position]


@pytest.fixture(scope="module")
def nodes(plan: Plan) -> list[hour.Node]:
    """Two tiers on a pool with an idle node, one of them on demand; the others alone on theirs."""
    fast, chat = plan.tier("fast"), plan.tier("chat")
    assert fast.node_pool == chat.node_pool, "they share a pool"
    return [
        hour.Node("fast-0", "fast", _type(fast), "on-demand", "fast"),
        hour.Node("chat-0", "fast", _type(fast), "spot", "chat"),
        hour.Node("idle", "fast", _type(fast, 1), "spot", None),
        *(hour.Node(f"{name}-0", name, _type(plan.tier(name)), "spot", name) for name in ("quality", "batch")),
    ]


@dataclass
class Server:
    """Prometheus over a directory of blocks, which it reads when it starts."""

    tools: Tools
    processes: Processes
    directory: Path
    url: str = ""
    _running: Process | None = None

    def restart(self) -> None:
        """Start it again on what is there now."""
        if self._running:
            self.processes.stop(self._running)
        (port,) = free_ports(1)
        # It counts failures of rules once it has some.
        own = {"groups": [{"name": "own", "rules": [{"record": "own", "expr": "vector(1)"}]}]}
        (self.directory / "own.yaml").write_text(yaml.safe_dump(own))
        (self.directory / "prometheus.yaml").write_text("rule_files: [own.yaml]\n")
        self._running = self.processes.start(
            "prometheus",
            [
                self.tools["prometheus"] / "prometheus",
                "--config.file=prometheus.yaml",
                f"--storage.tsdb.path={self.blocks}",
                "--storage.tsdb.retention.time=10y",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
        )
        self.url = f"http://127.0.0.1:{port}"
        answers(self._running, f"{self.url}/-/ready", seconds=60)

    @property
    def blocks(self) -> Path:
        """Where the samples are."""
        return self.directory / "data"

    def write(self, *command: str | Path) -> None:
        """Have promtool write blocks."""
        tool = [self.tools["prometheus"] / "promtool", "tsdb", "create-blocks-from", *command]
        run = subprocess.run(tool, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Give the series of an expression at the end of the hour."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expression, "time": ENDS}, timeout=30).json()
        assert answer["status"] == "success", f"{expression}\n{answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        """Give the one value of an expression."""
        (series,) = self.ask(expression)
        return float(series["value"][1])

    def by(self, label: str, expression: str) -> dict[str, float]:
        """Give the values of an expression by a label."""
        return {series["metric"].get(label, ""): float(series["value"][1]) for series in self.ask(expression)}


def _layers(groups: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Recording rules in the order in which they read each other: those of a layer read only layers before it."""
    rules = [rule for group in groups for rule in group["rules"] if "record" in rule]
    reads: dict[str, set[str]] = {}
    for rule in rules:
        found = set(re.findall(r"frugal_llm:[\w:]+", rule["expr"]))
        reads[rule["record"]] = reads.get(rule["record"], set()) | found

    def depth(name: str) -> int:
        return 1 + max((depth(other) for other in reads[name]), default=0)

    deepest = max(map(depth, reads))
    return [[rule for rule in rules if depth(rule["record"]) == level] for level in range(1, deepest + 1)]


@pytest.fixture(scope="module")
def server(
    tools: Tools, plan: Plan, nodes: list[hour.Node], tmp_path_factory: pytest.TempPathFactory
) -> Generator[Server]:
    directory = tmp_path_factory.mktemp("prometheus")
    processes = Processes(directory)
    found = Server(tools, processes, directory)
    samples, rules = directory / "hour.txt", directory / "rules.yaml"
    samples.write_text(hour.open_metrics(plan, nodes, BEGINS))
    found.write("openmetrics", samples, found.blocks)
    try:
        found.restart()
        for layer in _layers(rule_groups(plan.tiers, plan.forecast, 35)):
            rules.write_text(yaml.safe_dump({"groups": [{"name": "layer", "interval": "30s", "rules": layer}]}))
            span = (f"--start={BEGINS}", f"--end={ENDS}", f"--output-dir={found.blocks}")
            found.write("rules", f"--url={found.url}", *span, rules)
            found.restart()
        yield found
    finally:
        processes.stop_all()


def _expression(query: Query) -> str:
    """Grafana puts in what is chosen for the variable; here every tier."""
    return query.expression.replace("$tier", ".*")


QUERIES: Final = [(panel, query) for panel in (*PANELS, *MODEL_ROUTER_PANELS) for query in panel.queries]


def test_the_hour_has_only_series_that_exist(plan: Plan, nodes: list[hour.Node]) -> None:
    assert set(hour.names(plan, nodes)) <= EXISTING


@pytest.mark.parametrize(
    ("panel", "query"), QUERIES, ids=[f"{panel.title}: {query.legend}" for panel, query in QUERIES]
)
def test_every_query_of_the_dashboard_is_answered(panel: Panel, query: Query, server: Server) -> None:
    found = server.ask(_expression(query))
    assert found, "Grafana would draw nothing"
    for series in found:
        value = float(series["value"][1])
        assert math.isfinite(value)
        assert panel.least is None or value >= panel.least
        used = set(re.findall(r"{{(\w+)}}", query.legend))
        assert used <= series["metric"].keys(), "the legend names a label that the series does not have"


def _shown(server: Server, title: str, legend: str) -> dict[str, float]:
    """What a query of a panel shows, by its first label."""
    (query,) = (query for panel, query in QUERIES if panel.title == title and query.legend == legend)
    return server.by((re.findall(r"{{(\w+)}}", legend) or [""])[0], _expression(query))


def test_traffic_and_tokens_are_those_of_the_hour(server: Server, plan: Plan) -> None:
    everybody = [tier.name for tier in plan.tiers]
    vllm = [tier.name for tier in plan.tiers if tier.engine == "vllm"]
    of_all: dict[str, tuple[str, float, list[str]]] = {
        "Requests": ("{{tier}}", hour.REQUESTS_PER_SECOND, everybody),
        "By model field: requests": ("{{envoy_cluster_name}}", hour.REQUESTS_PER_SECOND, everybody),
        "Held in the router": ("{{tier}}", hour.QUEUE, everybody),
        "Refused and failed, by status": ("{{tier}} 429", hour.REFUSED_PER_SECOND, everybody),
        "Output tokens": ("{{tier}} vLLM", hour.REQUESTS_PER_SECOND * hour.OUTPUT_TOKENS, vllm),
        "Input tokens": ("{{tier}} llama.cpp", hour.REQUESTS_PER_SECOND * hour.INPUT_TOKENS, ["batch"]),
        "Prefix cache hits": ("{{tier}}", hour.HIT_SHARE, vllm),
        "Waiting in replicas": ("{{tier}} in vLLM", hour.WAITING, vllm),
    }
    for title, (legend, value, tiers) in of_all.items():
        assert _shown(server, title, legend) == pytest.approx(dict.fromkeys(tiers, value), rel=1e-3), title


def test_two_of_a_hundred_requests_are_slow_and_three_fifths_of_what_may_be_are_left(server: Server) -> None:
    slow = server.by("objective", 'frugal_llm:slow_share:1h{tier="fast"}')
    assert slow == pytest.approx({"ttft": hour.SLOW_SHARE, "tpot": hour.SLOW_SHARE}, rel=1e-3)
    left = server.by("objective", 'frugal_llm:slow_budget_left{tier="fast"}')
    assert left == pytest.approx({"ttft": 0.6, "tpot": 0.6}, rel=1e-3)


def _prices(plan: Plan) -> Mapping[tuple[str, str], float]:
    members = [member for tier in plan.tiers for member in tier.offerings]
    on_demand = {(member.instance_type, "on-demand"): member.on_demand_usd_per_hour for member in members}
    spot = {(one.instance_type, "spot"): one.spot_usd_per_hour for one in members if one.spot_usd_per_hour is not None}
    return on_demand | spot


def test_pools_cost_what_their_nodes_do(server: Server, plan: Plan, nodes: list[hour.Node]) -> None:
    prices = _prices(plan)
    expected: dict[str, float] = {}
    for node in nodes:
        expected[node.pool] = expected.get(node.pool, 0) + prices[node.instance_type, node.capacity]
    assert _shown(server, "Cost by pool", "{{pool}}") == pytest.approx(expected, abs=1e-5)
    assert len(server.ask(PRICE)) == len(prices)


def test_the_tiers_of_a_pool_add_up_to_it_and_the_idle_node_goes_by_their_own(
    server: Server, plan: Plan, nodes: list[hour.Node]
) -> None:
    of_tiers = server.by("pool", f"sum by (pool) ({TIER_USD})")
    assert of_tiers == pytest.approx(server.by("pool", POOL_USD), abs=1e-6)
    prices = _prices(plan)
    own = {node.tier: prices[node.instance_type, node.capacity] for node in nodes if node.pool == "fast"}
    shown = _shown(server, "Cost by tier", "{{tier}}")
    assert shown["fast"] / shown["chat"] == pytest.approx(own["fast"] / own["chat"], rel=1e-4)
    assert shown["fast"] + shown["chat"] == pytest.approx(sum(own.values()), abs=1e-5)


def test_a_million_tokens_cost_the_tiers_nodes_over_its_tokens(server: Server) -> None:
    million_an_hour = hour.REQUESTS_PER_SECOND * (hour.INPUT_TOKENS + hour.OUTPUT_TOKENS) * 3600 / 1e6
    expected = {tier: usd / million_an_hour for tier, usd in _shown(server, "Cost by tier", "{{tier}}").items()}
    # The rate of tokens is over five minutes and lags behind the cost by half of them, when the hour begins.
    assert _shown(server, "Cost of a million tokens", "{{tier}} last 1h") == pytest.approx(expected, rel=0.05)


def test_the_forecast_beside_the_actual_cost_is_the_plans(server: Server, plan: Plan) -> None:
    rates = stack_rates(plan.tiers, plan.forecast).tiers
    expected = {rate.tier: rate.usd_per_hour for rate in rates}
    assert _shown(server, "Cost by tier", "{{tier}} forecast") == pytest.approx(expected, abs=1e-6)


def test_the_month_has_an_hour_of_nodes_and_fixed_costs_and_goes_on_like_it(server: Server, plan: Plan) -> None:
    other = stack_rates(plan.tiers, plan.forecast).other_usd_per_hour
    hourly = sum(server.by("pool", POOL_USD).values()) + other
    # Quarters of an hour, both ends counted.
    assert server.value("frugal_llm:month_usd:so_far") == pytest.approx(hourly, rel=0.26)
    # 10 June, 13:00: 720 - 229 hours are left.
    left = server.value("frugal_llm:month_usd:projected") - server.value("frugal_llm:month_usd:so_far")
    assert left == pytest.approx(hourly * 491, rel=1e-3)
    assert server.value("frugal_llm:budget_usd") == plan.forecast.budget_usd


def test_actuals_reads_the_same_hour(server: Server, plan: Plan) -> None:
    seen = asked.seen(server.url, datetime.fromtimestamp(BEGINS, UTC), datetime.fromtimestamp(ENDS, UTC))
    assert seen.hours == pytest.approx(1, abs=0.02)
    assert seen.pool_usd == pytest.approx(server.by("pool", POOL_USD), rel=0.02)
    assert seen.tier_usd == pytest.approx(server.by("tier", f"sum by (tier) ({TIER_USD})"), rel=0.02)
    million_an_hour = hour.REQUESTS_PER_SECOND * (hour.INPUT_TOKENS + hour.OUTPUT_TOKENS) * 3600 / 1e6
    expected = dict.fromkeys((tier.name for tier in plan.tiers), million_an_hour)
    assert seen.million_tokens == pytest.approx(expected, rel=0.05)
    assert seen.spot_share == pytest.approx({"fast": 2 / 3, "quality": 1, "batch": 1})


def test_prometheus_has_the_series_of_its_own_that_alerts_read(server: Server) -> None:
    text = requests.get(f"{server.url}/metrics", timeout=10).text
    names = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if not line.startswith("#")}
    assert sorted(PROMETHEUS - names) == []


def test_what_the_dashboard_shows_is_written_down(server: Server) -> None:
    lines = ["| panel | series | value | unit |", "|---|---|---|---|"]
    for panel, query in QUERIES:
        for series in server.ask(_expression(query)):
            legend = re.sub(r"{{(\w+)}}", lambda found, of=series["metric"]: of[found[1]], query.legend)
            lines.append(f"| {panel.title} | {legend} | {float(series['value'][1]):.4g} | {panel.unit} |")
    _REPORT.parent.mkdir(exist_ok=True)
    _REPORT.write_text("\n".join(lines) + "\n")
    assert len(lines) > len(QUERIES)
