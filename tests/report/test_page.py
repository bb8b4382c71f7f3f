"""The HTML page: complete, sound and on its own. How it looks in a browser is tested beside this."""

import html
import os
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from planning.__main__ import main
from planning.details import MOST_DRAWN, Details
from planning.outputs import bill_details
from planning.plan import Plan
from planning.report.page import page
from planning.report.terminal import report
from planning.stack import detailed_plan
from tests.planning.test_stack import ROOT, config, planned

EVIL = "<script>alert('x')</script>"
SECTIONS = ("tiers", "bill", "savings", "range", "hours", "latency", "choices", "warnings", "assumptions")
VOID = {"meta", "rect", "line", "circle", "path"}


@cache
def shown(stack: str) -> tuple[Plan, Details, str]:
    region, values = config(stack)
    plan, details = detailed_plan(region, values)
    return plan, details, page(plan, details, stack)


class Reader(HTMLParser):
    """Tags in order and text; fails on tags that are not closed where they should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


@pytest.fixture(scope="module", params=["dev", "staging", "prod"])
def stack(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_section_is_there_in_order_with_sound_markup(stack: str) -> None:
    plan, _, text = shown(stack)
    reader = Reader(text)
    assert [heading["id"] for heading in reader.all("h2")] == list(SECTIONS)
    assert len(reader.all("h1")) == 1
    ids = [attributes["id"] for _, attributes in reader.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {attributes["aria-labelledby"] for attributes in reader.all("section")}
    assert labelled == set(SECTIONS)
    assert text.startswith("<!doctype html>")
    assert reader.all("html")[0]["lang"] == "en"
    for warning in (*plan.warnings, *plan.advice):
        assert warning[1:] in html.unescape(text).replace("\N{NO-BREAK SPACE}%", " %")


def test_the_page_asks_for_nothing_and_runs_nothing(stack: str) -> None:
    text = shown(stack)[2]
    reader = Reader(text)
    tags = {tag for tag, _ in reader.seen}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attributes in reader.seen:
        assert not {"src", "srcset", "data", "action", "onclick", "onload", "xlink:href"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_charts_and_tables_say_what_they_are(stack: str) -> None:
    text = shown(stack)[2]
    reader = Reader(text)
    svgs = reader.all("svg")
    assert len(svgs) >= 10
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in svgs)
    assert text.count("<figcaption>") == text.count("<figure>")
    assert len(reader.all("caption")) == len(reader.all("table"))
    assert all(head.get("scope") in {"col", "row"} for head in reader.all("th"))


def test_the_page_carries_the_bill_to_the_cent(stack: str) -> None:
    plan, _, text = shown(stack)
    bill = text[text.index('id="bill"') : text.index('id="savings"')]
    rows = re.findall(
        r'<tr(?: class="(\w+)")?><th scope="row">(.*?)</th><td class="number">\$([\d,]+\.\d\d)</td>', bill
    )
    cents = [(style, round(100 * float(amount.replace(",", "")))) for style, _, amount in rows]
    items = sum(amount for style, amount in cents if style == "")
    groups = sum(amount for style, amount in cents if style == "group")
    compute, fixed = [amount for style, amount in cents if style == "sum"]
    assert items == compute + fixed == round(100 * plan.forecast.total.expected)
    assert groups == compute
    assert f"${items / 100:,.2f}</span></p>" in bill


def test_the_hours_of_a_tier_add_up_to_its_month(stack: str) -> None:
    plan, details, _ = shown(stack)
    costs = {cost.tier: cost.expected_usd for cost in plan.forecast.tiers}
    for hours in details.hours:
        assert len(hours.requests) == len(hours.replicas) == len(hours.usd)
        assert len(hours.usd) % 168 == 0
        assert sum(hours.usd) / len(hours.usd) * 730 == pytest.approx(costs[hours.tier])


def test_the_planned_point_lies_on_its_curve_and_meets_the_target(stack: str) -> None:
    plan, details, _ = shown(stack)
    for curve in details.curves:
        tier = plan.tier(curve.tier)
        assert curve.chosen.concurrency == pytest.approx(tier.serving.concurrency)
        assert curve.chosen.ttft_p95_ms == pytest.approx(tier.serving.ttft_ms)
        assert curve.chosen.tpot_p95_ms <= tier.tpot_target_ms
        tokens = [point.output_tokens_per_second for point in curve.points]
        assert tokens == sorted(tokens)
        assert curve.points[0].concurrency < curve.chosen.concurrency < curve.points[-1].concurrency


def test_no_place_is_cheaper_than_the_chosen_one_and_each_has_a_reason() -> None:
    details = shown("prod")[1]
    for places in details.places:
        labels = [place.label for place in (places.chosen, *places.rivals)]
        assert len(labels) == len(set(labels))
        assert len(places.rivals) >= 3
        for place in places.rivals:
            assert place.reason
            # Fleets within 0.2 % are chosen among by their loss of quality.
            assert place.monthly_usd >= 0.998 * places.chosen.monthly_usd


def test_assumptions_and_prices_have_sources_and_dates(stack: str) -> None:
    _, details, text = shown(stack)
    assert all(one.source for one in details.assumptions)
    assert all(price.source and re.fullmatch(r"\d{4}-\d\d-\d\d|undated", price.as_of) for price in details.prices)
    assert {"spot interruptions", "high end of spot prices", "control plane logs"} <= {
        one.name for one in details.assumptions
    }
    assert html.escape(details.prices[0].source) in text


def test_the_article_stands_beside_ours() -> None:
    text = html.unescape(shown("prod")[2]).replace("\N{NO-BREAK SPACE}", " ")
    for quoted in ("60 %", "80 %", "90 %", "93 %", "70 %", "the article has $0.05", "the article has $0.40"):
        assert quoted in text


def test_the_month_stands_beside_its_budget() -> None:
    plan, details, text = shown("prod")
    used = round(100 * plan.forecast.total.expected / 5000)
    assert f"<dt>budget</dt><dd>$5,000<small>{used} % used by the expected month</small></dd>" in text
    assert "; budget $5,000" in text
    assert f"  Budget: $5,000 a month, {used} % used by the expected month\n" in report(plan, "prod", color=False)
    assert 'class="over"' not in text
    none = replace(plan, forecast=replace(plan.forecast, budget_usd=None))
    assert "<dt>budget</dt>" not in page(none, details, "prod")
    assert "Budget:" not in report(none, "prod", color=False)
    ample = replace(plan, forecast=replace(plan.forecast, budget_usd=1e6))
    assert "budget $1,000,000, beyond this scale" in page(ample, details, "prod")


def test_a_month_over_a_soft_budget_says_so_at_the_top() -> None:
    region, values = config("prod")
    budget = {"monthlyUsd": 2000, "compare": "high", "whenExceeded": "warn"}
    plan, details = detailed_plan(region, {**values, "budget": budget})
    over = f"${plan.forecast.total.high - 2000:,.0f}"
    text = page(plan, details, "prod")
    assert text.index(f"Over budget by {over}.") < text.index('class="headline"')
    top = " ".join(report(plan, "prod", color=False).split("\nTiers")[0].split())
    assert f"Budget: $2,000 a month, over by {over}: the high end is " in top
    assert bill_details(plan)["budget"] == {
        "monthlyUsd": 2000,
        "compare": "high",
        "usedPercent": round(plan.forecast.total.high / 20, 2),
    }
    # What would fit stands line by line.
    printed = report(plan, "prod", color=False)
    assert re.search(r"\n {8}(- |or raise)", printed)
    assert max(map(len, printed.splitlines())) <= 100


def test_tiers_that_sleep_say_how_long_the_first_request_waits() -> None:
    plan, _, text = shown("dev")
    printed = " ".join(report(plan, "dev", color=False).split())
    for tier in plan.tiers:
        waits = tier.timeouts
        assert tier.scale_to_zero
        assert f"{tier.name} may sleep: the first request then waits about {waits.cold_start_s} s" in printed
        assert f"about {waits.cold_start_s} s<small>set the client&#x27;s time-out to {waits.client_s} s" in text
    assert "may sleep" not in report(planned("prod"), "prod", color=False)
    assert "first request after sleep" not in shown("prod")[2]


def test_names_cannot_carry_markup() -> None:
    """Settings refuse such names; the page does not rely on it."""
    plan, details, _ = shown("prod")
    tier = replace(plan.tiers[0], name=EVIL, model_id=EVIL)
    forecast = replace(
        plan.forecast,
        tiers=tuple(
            replace(cost, tier=EVIL if cost.tier == plan.tiers[0].name else cost.tier) for cost in plan.forecast.tiers
        ),
        items=tuple(
            replace(item, tier=EVIL, name=EVIL) if item.tier == plan.tiers[0].name else item
            for item in plan.forecast.items
        ),
        baseline_description=EVIL,
    )
    evil = replace(plan, tiers=(tier, *plan.tiers[1:]), forecast=forecast, warnings=(EVIL,), region=EVIL)
    swapped = replace(
        details,
        hours=tuple(replace(one, tier=EVIL) for one in details.hours[:1]),
        curves=tuple(replace(one, tier=EVIL) for one in details.curves[:1]),
        places=tuple(replace(one, tier=EVIL) for one in details.places[:1]),
    )
    text = page(evil, swapped, EVIL)
    assert "<script" not in text
    assert "script" not in {tag for tag, _ in Reader(text).seen}
    assert text.count("&lt;script&gt;") > 10


def test_many_tiers_are_all_in_the_bill_and_the_dearest_are_drawn() -> None:
    plan, details, _ = shown("prod")
    first, cost = plan.tiers[0], plan.forecast.tiers[0]
    names = [f"tier-{number}" for number in range(200)]
    own = [item for item in plan.forecast.items if item.tier == first.name]
    fixed = [item for item in plan.forecast.items if item.tier is None]
    items = (*(replace(item, tier=name, name=f"{name}: {item.name}") for name in names for item in own), *fixed)
    many = replace(
        plan,
        tiers=tuple(replace(first, name=name) for name in names),
        forecast=replace(
            plan.forecast,
            items=items,
            tiers=tuple(replace(cost, tier=name, expected_usd=float(number)) for number, name in enumerate(names)),
            total=replace(plan.forecast.total, expected=sum(item.usd for item in items)),
        ),
    )
    swapped = replace(
        details,
        hours=tuple(replace(details.hours[0], tier=name) for name in names[:MOST_DRAWN]),
        curves=tuple(replace(details.curves[0], tier=name) for name in names[:MOST_DRAWN]),
        places=tuple(replace(details.places[0], tier=name) for name in names[:MOST_DRAWN]),
    )
    text = page(many, swapped, "many")
    assert f"{200 - MOST_DRAWN} are left out here" in text
    assert text.count("requests an hour, hour by hour") == 2 * MOST_DRAWN
    assert len(Reader(text).all("article")) == 200
    assert len(text) < 2_000_000


def test_charts_are_worked_out_for_the_dearest_tiers_only() -> None:
    region, values = config("dev")
    one = next(tier for tier in values["tiers"] if tier["name"] == "fast")
    many = [
        {**one, "name": f"tier-{number}", "traffic": {**one["traffic"], "requestsPerDay": 1_000 + 100 * number}}
        for number in range(MOST_DRAWN + 2)
    ]
    changed: dict[str, Any] = {**values, "tiers": many, "routing": {}, "budget": {}}
    plan, details = detailed_plan(region, changed)
    drawn = {hours.tier for hours in details.hours}
    assert len(drawn) == MOST_DRAWN
    assert drawn == {curve.tier for curve in details.curves} == {places.tier for places in details.places}
    costs = {cost.tier: cost.expected_usd for cost in plan.forecast.tiers}
    assert min(costs[name] for name in drawn) >= max(usd for name, usd in costs.items() if name not in drawn)


def test_a_tier_without_requests_is_shown_at_its_cost() -> None:
    region, values = config("dev")
    quiet = [{**tier, "traffic": {**tier["traffic"], "requestsPerDay": 0}} for tier in values["tiers"]]
    changed: dict[str, Any] = {**values, "tiers": quiet}
    plan, details = detailed_plan(region, changed)
    text = page(plan, details, "dev")
    Reader(text)
    assert text.count("<dd>no traffic</dd>") == len(plan.tiers)
    assert "$0.00<small>at this load" not in text
    lines = report(plan, "dev", color=False).splitlines()
    first = next(line for line in lines if line.startswith("quality"))
    assert first.split()[-1] == "-"
    assert sum("no traffic" in line for line in lines) == len(plan.tiers)
    assert "nan" not in re.findall(r"[a-z]+", text[text.index("<body>") :])


def test_the_command_writes_the_page_whole_and_prints_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "month.html"
    out.write_text("old")
    assert main(["report", str(ROOT / "Pulumi.prod.yaml"), "--html", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text().endswith("</html>\n")
    assert [file.name for file in tmp_path.iterdir()] == ["month.html"]
    assert out.stat().st_mode & 0o777 == 0o644


def test_a_page_needs_the_name_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for named, says in (
        ("", "--html is empty: name a file, for example month.html\n"),
        (str(tmp_path), f"--html {tmp_path} is a directory: name a file, for example {tmp_path}/month.html\n"),
    ):
        assert main(["report", str(ROOT / "Pulumi.dev.yaml"), "--html", named]) == 2
        assert capsys.readouterr().err == says
    assert not list(tmp_path.iterdir())


def test_without_html_the_terminal_report_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(ROOT / "Pulumi.dev.yaml")]) == 0
    printed = capsys.readouterr().out
    assert main(["plan", str(ROOT / "Pulumi.dev.yaml")]) == 0
    assert printed == capsys.readouterr().out


def test_a_page_that_cannot_be_written_is_one_message_and_leaves_the_old_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "missing" / "month.html"
    assert main(["report", str(ROOT / "Pulumi.dev.yaml"), "--html", str(nowhere)]) == 2
    assert capsys.readouterr().err == f"--html {nowhere}: cannot be written: No such file or directory\n"
    out = tmp_path / "month.html"
    out.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", full)
    assert main(["report", str(ROOT / "Pulumi.dev.yaml"), "--html", str(out)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert out.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["month.html"]
