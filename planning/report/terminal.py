"""The plan as tables of at most 100 columns: cost first, then tiers, savings and warnings."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from planning.plan import Plan, TierCost, TierPlan

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
    """A table with plain rules; each column is its heading and ``left`` or ``right``."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap - 1, 0, 0), header_style="bold", show_edge=False)
    for name, justify in columns:
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    return table


def money(usd: float) -> str:
    """Dollars as people read them: whole above 100, cents below."""
    sign = "-" if usd < -0.005 else ""
    return f"{sign}${abs(usd):,.0f}" if abs(usd) >= 100 else f"{sign}${abs(usd):,.2f}"


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
    moved = "; ".join(
        f"{driver.name} {money(driver.low_usd)} to +{money(driver.high_usd)}"
        for driver in forecast.drivers
        if driver.high_usd - driver.low_usd >= 0.5
    )
    if moved:
        _wrapped(console, f"The range comes from: {moved}.", style="dim")
    for what_if in forecast.what_ifs:
        console.print(
            f"  With {what_if.name}: {money(what_if.expected_usd)} expected, "
            f"{money(what_if.baseline_usd)} baseline, {what_if.saved_percent:.0f} % saved"
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
            _shortened(tier.name, 10),
            _shortened(tier.model_id.rpartition("/")[2], 21),
            _shortened(_hardware(tier), 18),
            _replicas(tier),
            f"{tier.serving.ttft_ms:,.0f}",
            f"{tier.serving.tpot_ms:,.0f}",
            money(cost.expected_usd),
            f"{cost.usd_per_million_tokens:.2f}",
        )
        table.add_row(
            "",
            _shortened(f"{tier.checkpoint.method}, {tier.serving.requests_per_second:.2g} req/s", 21),
            f"{100 * cost.spot_share:.0f} % spot of {len(tier.instance_types)}",
            f"{100 * cost.utilization:.0f} % used",
            f"of {tier.ttft_target_ms:,.0f}",
            f"of {tier.tpot_target_ms:,.0f}",
            _cost_range(cost),
            f"{cost.usd_per_million_tokens_saturated:.3f} full",
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
        if cost.api_usd is not None:
            even = cost.break_even_requests_per_day
            pays = f"pays from {even:,.0f} requests a day" if even else "never pays"
            line = f"{tier.name} would be {money(cost.api_usd)} at the API's prices; serving it yourself {pays}."
            _wrapped(console, line, style="dim")


def _hardware(tier: TierPlan) -> str:
    return f"{tier.gpus_per_replica} x {tier.gpu}" if tier.gpu else f"CPU {tier.instance_types[0]}"


def _replicas(tier: TierPlan) -> str:
    apart = tier.disaggregation
    if apart is not None:
        prefill, decode = apart.prefill.replicas, apart.decode.replicas
        return f"{prefill.minimum}-{prefill.maximum}p {decode.minimum}-{decode.maximum}d"
    return f"{tier.replicas.minimum}-{tier.replicas.maximum}"


def _cost_range(cost: TierCost) -> str:
    return f"{cost.low_usd:,.0f}-{cost.high_usd:,.0f}"


def _bill(console: Console, plan: Plan) -> None:
    _heading(console, "Bill")
    table = _table(("item", "left"), ("a month", "right"), ("from", "left"))
    for item in plan.forecast.items:
        if item.usd >= 0.005:
            table.add_row(_shortened(item.name, 36), money(item.usd), _shortened(item.basis, 52))
    table.add_row(Text("expected", style="bold"), Text(money(plan.forecast.total.expected), style="bold"), "")
    console.print(table)


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


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
        _wrapped(console, warning, first="  ! ", rest="    ", style="yellow")
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
