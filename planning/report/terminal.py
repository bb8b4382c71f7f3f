"""The plan as tables of at most 100 columns: cost first, then tiers, savings and warnings."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from planning.cents import bill_in_cents
from planning.plan import CostItem, Plan, TierCost, TierPlan
from planning.report.claims import article_rows, claims
from planning.report.figures import budget_use, cents, first_wait, hardware, money, price_age, replicas

WIDTH = 100
_BAR = 16

#: How many instance types of a pool, and reasons of what does not serve a tier, the report shows.
_TYPES, _MISSES = 6, 2


def report(plan: Plan, stack: str, *, color: bool) -> str:
    """The whole report as text, ``color`` with terminal escapes."""
    console = _console(color=color)
    _month(console, plan, stack)
    _tiers(console, plan)
    _bill(console, plan)
    _savings(console, plan)
    _article(console, plan)
    _alternatives(console, plan)
    _warnings(console, plan)
    return _text(console)


def _console(*, color: bool) -> Console:
    return Console(
        file=io.StringIO(),
        width=WIDTH,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
    )


def _text(console: Console) -> str:
    output = console.file
    assert isinstance(output, io.StringIO)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"))
    console.print()


def _wrapped(console: Console, text: str, *, first: str = "  ", rest: str = "  ", style: str = "") -> None:
    for line in textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False):
        console.print(Text(line, style=style))


def _table(*columns: tuple[str, str], gap: int = 2) -> Table:
    """A table with plain rules; each column is its heading and ``left`` or ``right``. Cells that are too wide wrap."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap - 1, 0, 0), header_style="bold", show_edge=False)
    for name, justify in columns:
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    return table


def _month(console: Console, plan: Plan, stack: str) -> None:
    forecast = plan.forecast
    total, baseline = forecast.total, forecast.baseline_usd
    console.print(Text(f"Projected month of stack {stack} in {plan.region} (730 hours)", style="bold"))
    console.print()
    line = Text("  ")
    line.append(f"{money(total.expected)} expected", style="bold green")
    line.append(f"   {money(total.low)} low   {money(total.high)} high")
    console.print(line)
    saved, worst = 100 * (1 - total.expected / baseline), 100 * (1 - total.high / baseline)
    console.print(f"  {money(baseline)} baseline   {saved:.0f} % saved, {worst:.0f} % at the high end")
    _wrapped(console, f"Baseline: {forecast.baseline_description}.", style="dim")
    if forecast.budget_usd is not None:
        over = "bold red" if forecast.over_budget_usd else ""
        _wrapped(console, f"Budget: {money(forecast.budget_usd)} a month, {budget_use(forecast)}", style=over)
    moved = "; ".join(
        f"{driver.name} {money(driver.low_usd)} to +{money(driver.high_usd)}"
        for driver in forecast.drivers
        if driver.high_usd - driver.low_usd >= 0.5
    )
    if moved:
        _wrapped(console, f"The range comes from: {moved}.", style="dim")
    _wrapped(
        console,
        f"Prices of {plan.region}, {price_age(forecast.prices_as_of)}: {forecast.price_source}.",
        style="dim",
    )
    for what_if in forecast.what_ifs:
        _wrapped(
            console,
            f"With {what_if.name}: {money(what_if.expected_usd)} expected, "
            f"{money(what_if.baseline_usd)} baseline, {what_if.saved_percent:.0f} % saved",
        )


def _tiers(console: Console, plan: Plan) -> None:
    _heading(console, "Tiers")
    table = _table(
        ("tier", "left"),
        ("runs", "left"),
        ("on", "left"),
        ("replicas", "right"),
        ("TTFT ms", "right"),
        ("TPOT ms", "right"),
        ("a month", "right"),
        ("$/M tokens", "right"),
        gap=1,
    )
    costs = {cost.tier: cost for cost in plan.forecast.tiers}
    for tier in plan.tiers:
        cost = costs[tier.name]
        table.add_row(
            _cell(tier.name, 10),
            _cell(tier.model_id.rpartition("/")[2], 21),
            _cell(hardware(tier), 18),
            _cell(replicas(tier), 9),
            f"{tier.serving.ttft_ms:,.0f}",
            f"{tier.serving.tpot_ms:,.0f}",
            money(cost.expected_usd),
            f"{cost.usd_per_million_tokens:.2f}" if cost.million_tokens else "-",
        )
        table.add_row(
            "",
            _cell(f"{tier.checkpoint.method}, {tier.serving.requests_per_second:.2g} req/s", 21),
            f"{100 * cost.spot_share:.0f} % spot of {len(tier.instance_types)}",
            f"{100 * cost.utilization:.0f} % used" if cost.million_tokens else "no traffic",
            f"of {tier.ttft_target_ms:,.0f}",
            f"of {tier.tpot_target_ms:,.0f}",
            _cell(_cost_range(cost), 13),
            _cell(f"{cost.usd_per_million_tokens_saturated:.3f} full", 11),
            style="dim",
        )
    console.print(table)
    _wrapped(
        console,
        "Latencies are 95th percentiles of one replica at its largest rate (req/s), projected, of the engine: network "
        "and HTTP come on top. $/M tokens: compute over input and output tokens at this stack's load; full: with every "
        "replica at its largest rate all the time."
        + (" Replicas with p prefill, those with d decode." if any(tier.disaggregation for tier in plan.tiers) else ""),
        style="dim",
    )
    for tier in plan.tiers:
        choice, cost = tier.checkpoint, costs[tier.name]
        loss = f"{choice.quality_loss_percent:.1f} % of the 16-bit scores" if choice.quality_loss_percent else "nothing"
        _wrapped(console, f"{tier.name} is expected to lose {loss} ({choice.quality_loss_source}).", style="dim")
        if first_wait(tier):
            _wrapped(console, f"{tier.name} may sleep: the first request then waits {first_wait(tier)}.")
        if cost.api_usd is not None:
            even = cost.break_even_requests_per_day
            pays = f"pays from {even:,.0f} requests a day" if even else "never pays"
            line = f"{tier.name} would be {money(cost.api_usd)} at the API's prices; serving it yourself {pays}."
            _wrapped(console, line, style="dim")


def _cell(text: str, width: int) -> str:
    """A cell that wraps at spaces and hyphens, so that a long name is still all there."""
    return "\n".join(textwrap.wrap(text, width)) or text


def _cost_range(cost: TierCost) -> str:
    return f"{cost.low_usd:,.0f}-{cost.high_usd:,.0f}"


def _bill(console: Console, plan: Plan) -> None:
    _heading(console, "Bill")
    table = _table(("item", "left"), ("a month", "right"), ("from", "left"))
    bill = bill_in_cents(plan.forecast)

    def subtotal(name: str, amount: int) -> None:
        table.add_row(Text(name, style="bold"), Text(cents(amount), style="bold"), "")

    def items(category: str) -> list[tuple[CostItem, int]]:
        pairs = zip(plan.forecast.items, bill.items, strict=True)
        return [(item, amount) for item, amount in pairs if item.category == category and amount]

    for category, amount in (("compute", bill.compute), ("fixed", bill.fixed)):
        for item, usd in items(category):
            table.add_row(_cell(item.name, 40), cents(usd), item.basis)
        subtotal(category, amount)
    subtotal("expected", bill.total)
    console.print(table)


def _savings(console: Console, plan: Plan) -> None:
    _heading(console, "Savings, step by step from the baseline")
    table = _table(
        ("lever", "left"),
        ("month after", "right"),
        ("saved", "right"),
        ("of before", "right"),
        ("in all", "right"),
        ("alone", "right"),
        ("quoted", "right"),
        ("", "left"),
    )
    baseline = plan.forecast.baseline_usd
    table.add_row("baseline", money(baseline), "", "", "", "", "", _bar(baseline, baseline))
    for step in plan.forecast.savings:
        table.add_row(
            step.lever,
            money(step.monthly_usd),
            money(step.saved_usd),
            f"{step.saved_percent:.0f} %",
            f"{step.cumulative_percent:.0f} %",
            "needed" if step.alone_usd is None else money(step.alone_usd),
            step.claimed,
            _bar(step.monthly_usd, baseline),
        )
    console.print(table)
    _wrapped(
        console,
        "Steps add up. Alone: what the month would cost more with only this lever off; these do not add up, levers "
        "overlap. Right-sizing is in the baseline already; alone: on an L4 up to 13B, else on 40 GB A100s. Quoted: "
        "what people print for the lever.",
        style="dim",
    )


def _article(console: Console, plan: Plan) -> None:
    _heading(console, "Beside the article")
    for claim in claims(plan):
        first = f"  {claim.name}: {claim.quoted_percent:.0f} % quoted, {claim.ours_percent:.0f} % here; "
        _wrapped(console, claim.why, first=first, rest="    ")
    console.print()
    table = _table(("$ per million tokens", "left"), ("at this load", "right"), ("full", "right"), ("article", "right"))
    for tier, *prices in article_rows(plan):
        table.add_row(tier, *prices)
    console.print(table)
    _wrapped(
        console,
        "Article: its routing table, for models of 7 to 8B and of 70B; it gives no load, so full replicas are the fair "
        "comparison.",
        style="dim",
    )


def _bar(value: float, whole: float) -> Text:
    return Text("█" * max(1, round(_BAR * min(1.0, value / whole))), style="cyan")


def _alternatives(console: Console, plan: Plan) -> None:
    _heading(console, "Choices")
    for tier in plan.tiers:
        _wrapped(console, f"{tier.name} runs on {_choices(tier)}")
        others = [other for other in plan.alternatives if other.tier == tier.name]
        lost = [other for other in others if other.monthly_usd is None]
        for other in [other for other in others if other.monthly_usd is not None] + lost[:_MISSES]:
            month = f"{money(other.monthly_usd)} a month, " if other.monthly_usd is not None else ""
            _wrapped(
                console, f"- not {other.description}: {month}{other.reason}", first="    ", rest="      ", style="dim"
            )
        if len(lost) > _MISSES:
            _wrapped(
                console, f"- nor {len(lost) - _MISSES} more that do not serve it (--json lists them)", first="    "
            )


def _choices(tier: TierPlan) -> str:
    """Instance types with their hourly prices, spot first."""
    prices: list[str] = []
    for offering in tier.offerings:
        spot = "" if offering.spot_usd_per_hour is None else f"{offering.spot_usd_per_hour:.3f} spot, "
        prices.append(f"{offering.instance_type} ({spot}{offering.on_demand_usd_per_hour:.3f})")
    return ", ".join(prices[:_TYPES]) + (f" and {len(prices) - _TYPES} more" if len(prices) > _TYPES else "")


def _warnings(console: Console, plan: Plan) -> None:
    _heading(console, "Warnings")
    for warning in plan.warnings:
        first, *rest = warning.split("\n")
        _wrapped(console, first, first="  ! ", rest="    ", style="yellow")
        for line in rest:
            text = line.lstrip()
            margin = " " * (4 + len(line) - len(text))
            _wrapped(console, text, first=margin, rest=f"{margin}  ", style="yellow")
    if plan.advice:
        _heading(console, "Better not")
    for line in plan.advice:
        _wrapped(console, line, first="  - ", rest="    ")


def plain_table(
    headline: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], *, color: bool
) -> str:
    """One table under a headline; columns as ``(heading, left or right)``."""
    console = _console(color=color)
    _wrapped(console, headline, first="", rest="", style="bold")
    console.print()
    table = _table(*columns)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    return _text(console)
