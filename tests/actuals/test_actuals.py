"""The month so far against the forecast, with a stub of Prometheus' query API in this process.

That the queries are PromQL and count what they should is shown where a Prometheus is at hand; here, what is made of its
answers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from actuals.__main__ import main
from actuals.comparison import compare, compare_stack, compare_tiers
from actuals.prometheus import Seen
from planning.plan import Plan
from planning.rates import stack_rates
from planning.stack import plan_config
from planning.stackfile import read_stack

ROOT = Path(__file__).resolve().parents[2]
DEV = str(ROOT / "Pulumi.dev.yaml")
NOW = datetime(2026, 11, 11, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def plan() -> Plan:
    stack = read_stack(Path(DEV))
    return plan_config(stack.region, stack.values, stack.encrypted)[1]


def seen(
    hours: float,
    *,
    pool_usd: Mapping[str, float] | None = None,
    tier_usd: Mapping[str, float] | None = None,
    million_tokens: Mapping[str, float] | None = None,
    spot_share: Mapping[str, float] | None = None,
) -> Seen:
    return Seen(hours, pool_usd or {}, tier_usd or {}, million_tokens or {}, spot_share or {})


@contextmanager
def prometheus(answers: Mapping[str, Mapping[str, float]], asked: list[dict[str, str]]) -> Iterator[str]:
    """A Prometheus that gives values by pool or tier to the query in which one of the keys of ``answers`` stands."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
            asked.append(query)
            nothing: Mapping[str, float] = {}
            values = next((given for part, given in answers.items() if part in query["query"]), nothing)
            label = "tier" if "by (tier)" in query["query"] else "pool"
            result: list[dict[str, Any]] = [
                {"metric": {label: name} if name else {}, "value": [NOW.timestamp(), str(value)]}
                for name, value in values.items()
            ]
            body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_forecast_of_all_hours_is_the_nodes_lines_of_the_bill(plan: Plan) -> None:
    rows = compare(plan, seen(730))
    of_nodes = [item for item in plan.forecast.items if item.name.endswith((": nodes", " floor", "interruptions"))]
    assert sum(row.forecast_usd for row in rows) == pytest.approx(sum(item.usd for item in of_nodes))
    assert {tier for row in rows for tier in row.tiers} == {tier.name for tier in plan.tiers}
    assert {row.actual_usd for row in rows} == {0.0}


def test_half_the_hours_are_held_against_half_the_month_and_the_rate_goes_on(plan: Plan) -> None:
    pool = plan.node_pools[0].name
    row = compare(plan, seen(365, pool_usd={pool: 10.0}, spot_share={pool: 0.4}))[0]
    assert row.forecast_usd == pytest.approx(row.forecast_month_usd / 2)
    assert row.month_at_this_rate_usd == pytest.approx(20)
    assert row.spot_share == 0.4
    assert row.forecast_spot_share == pytest.approx(plan.forecast.tiers[0].spot_share)


def test_nodes_of_a_pool_that_is_not_in_the_plan_are_shown(plan: Plan) -> None:
    stray = compare(plan, seen(100, pool_usd={"left-over": 5.0}))[-1]
    assert (stray.pool, stray.tiers, stray.forecast_usd, stray.actual_usd) == ("left-over", (), 0, 5.0)


def test_a_tier_is_held_against_its_nodes_and_tokens(plan: Plan) -> None:
    cost = plan.forecast.tiers[0]
    row = compare_tiers(plan, seen(73, tier_usd={cost.tier: 3.0}, million_tokens={cost.tier: 6.0}))[0]
    assert (row.tier, row.actual_usd, row.usd_per_million_tokens) == (cost.tier, 3.0, 0.5)
    assert row.month_at_this_rate_usd == pytest.approx(30)
    assert row.forecast_million_tokens == pytest.approx(cost.million_tokens / 10)
    assert row.forecast_usd / row.forecast_million_tokens == pytest.approx(row.forecast_usd_per_million_tokens)
    assert row.forecast_usd_per_million_tokens < cost.usd_per_million_tokens, "that has disks and images too"


def test_a_tier_that_slept_cost_nothing_and_has_no_price_of_tokens(plan: Plan) -> None:
    row = compare_tiers(plan, seen(73))[0]
    assert (row.actual_usd, row.million_tokens, row.usd_per_million_tokens) == (0.0, 0.0, None)


def test_the_stack_has_its_fixed_costs_in_every_hour(plan: Plan) -> None:
    """A month in which the nodes cost what was forecast is the forecast month."""
    nodes = sum(tier.usd_per_month for tier in stack_rates(plan.tiers, plan.forecast).tiers)
    stack = compare_stack(plan, seen(73, pool_usd={"fast": nodes / 10}))
    assert stack.month_at_this_rate_usd == pytest.approx(plan.forecast.total.expected)
    assert stack.so_far_usd == pytest.approx(plan.forecast.total.expected / 10)
    assert stack.budget_usd == plan.forecast.budget_usd


def test_the_month_so_far_is_asked_minute_by_minute_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[dict[str, str]] = []
    answers: dict[str, dict[str, float]] = {
        "sum(up)": {"": 200.0},
        "pool_usd_per_hour": {"fast": 12.5},
        "tier_usd_per_hour": {"fast": 12.5},
        "tokens_per_second": {"fast": 50.0},
        'capacity="spot"': {"fast": 30.0},
        "pool_nodes": {"fast": 40.0},
    }
    with prometheus(answers, asked) as url:
        assert main([DEV, "--prometheus", url], NOW) == 0
        table = capsys.readouterr().out
        assert main([DEV, "--prometheus", url, "--json"], NOW) == 0
    # Ten and a half days since the first of the month.
    assert all(f"[{252 * 3600}s:60s]" in query["query"] for query in asked)
    assert {float(query["time"]) for query in asked} == {NOW.timestamp()}
    assert "November 2026: nodes in the 200 of 252 h that were seen" in table
    assert "$12.50" in table
    assert "$0.25" in table
    assert "75 %" in table
    assert "budget $800" in table
    assert max(map(len, table.splitlines())) <= 120
    data = json.loads(capsys.readouterr().out)
    assert (data["hoursSeen"], data["hoursPassed"]) == (200, 252)
    assert data["pools"][0]["actual_usd"] == data["tiers"][0]["actual_usd"] == 12.5
    assert data["tiers"][0]["usd_per_million_tokens"] == 0.25
    assert data["pools"][0]["spot_share"] == 0.75


def test_without_samples_or_without_prometheus_there_is_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    with prometheus({}, []) as url:
        assert main([DEV, "--prometheus", url], NOW) == 2
        assert "has no sample since 2026-11-01" in capsys.readouterr().err
    assert main([DEV, "--prometheus", url], NOW) == 2
    assert "no Prometheus answers" in capsys.readouterr().err
