"""The plan as one HTML page that opens from disk: no network, no script, light and dark, desktop, phone and paper."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape
from pathlib import Path

from planning.cents import bill_in_cents
from planning.details import Details, Place, TierCurve, TierHours, TierPlaces
from planning.plan import Alternative, Plan, TierCost, TierPlan
from planning.report import figures
from planning.report.charts import (
    Bar,
    Dot,
    Swing,
    curve_chart,
    hours_chart,
    range_chart,
    scatter_chart,
    tornado_chart,
    waterfall_chart,
)
from planning.report.claims import claims
from planning.report.figures import cents, hardware, price_age, replicas, sentence

#: Charts as they stand on a desktop and on a phone; the style sheet shows one of them.
_WIDE, _NARROW = 820.0, 330.0

#: How many reasons of what does not serve a tier are shown.
_MISSES = 5

_STYLE = Path(__file__).with_name("style.css")


def page(plan: Plan, details: Details, stack: str) -> str:
    """The whole page as text."""
    sections = (
        _section("tiers", "Tiers", _tiers(plan)),
        _section("bill", "The bill", _bill(plan)),
        _section("savings", "From the baseline to this month", _savings(plan)),
        _section("range", "What the range comes from", _range(plan)),
        _section("hours", "The month by the hour", _hours(plan, details)),
        _section("latency", "Throughput and latency of a replica", _curves(plan, details)),
        _section("choices", "What else each tier could run on", _choices(plan, details)),
        _section("warnings", "What to watch out for", _warnings(plan)),
        _section("assumptions", "Assumptions and sources", _assumptions(details)),
    )
    title = escape(f"{stack}: {money(plan.forecast.total.expected)} a month")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f'<meta name="color-scheme" content="light dark">\n<title>{title}</title>\n<style>\n{_style()}</style>\n'
        "</head>\n"
        f"<body>\n{_header(plan, stack)}\n<main>\n" + "\n".join(sections) + f"\n</main>\n{_footer(plan, stack)}\n"
        "</body>\n</html>\n"
    )


@cache
def _style() -> str:
    return _STYLE.read_text()


def money(usd: float) -> str:
    """Dollars with the minus sign of print."""
    return figures.money(usd).replace("-", "−")


def _section(anchor: str, heading: str, content: Iterable[str]) -> str:
    # A figure stays on the line of its unit.
    body = "\n".join(content).replace(" %", "\N{NO-BREAK SPACE}%")
    return f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{escape(heading)}</h2>\n{body}\n</section>'


def _paragraph(text: str, style: str) -> str:
    return f'<p class="{style}">{escape(text)}</p>'


def _figure(caption: str, *charts: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{''.join(charts)}</figure>"


def _both(wide: str, narrow: str) -> str:
    return f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'


def _table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = (), wide: bool = True
) -> str:
    """A table in a box that scrolls where the page is narrow. Cells are HTML; the first of a row names it."""

    def style(column: int, *, of_cell: bool = True) -> str:
        # On phones a wide table's cells stand below each other, each beside its column's name.
        name = f' data-head="{escape(heads[column])}"' if wide and of_cell else ""
        return (' class="number"' if column in numbers else "") + name

    head = "".join(
        f'<th scope="col"{style(column, of_cell=False)}>{escape(name)}</th>' for column, name in enumerate(heads)
    )
    body = "".join(
        "<tr>"
        + f'<th scope="row">{first}</th>'
        + "".join(f"<td{style(column)}>{cell}</td>" for column, cell in enumerate(rest, 1))
        + "</tr>\n"
        for first, *rest in rows
    )
    said = escape(caption)
    return (
        f'<div class="scroll" role="region" aria-label="{said}" tabindex="0">'
        f'<table class="{"wide-table" if wide else "narrow-table"}"><caption>{said}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def _fact(name: str, value: str, more: str = "") -> str:
    small = f"<small>{escape(more)}</small>" if more else ""
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}{small}</dd></div>"


def _header(plan: Plan, stack: str) -> str:
    forecast = plan.forecast
    total, baseline = forecast.total, forecast.baseline_usd

    def chart(width: float) -> str:
        return range_chart(total.low, total.expected, total.high, baseline, width, forecast.budget_usd)

    facts = [
        _fact("low", money(total.low)),
        _fact("high", money(total.high)),
        _fact("baseline", money(baseline)),
        _fact("saved", f"{_saved(total.expected, baseline)}", f"{_saved(total.high, baseline)} at the high end"),
        *(
            _fact(
                f"with {what_if.name}",
                money(what_if.expected_usd),
                f"baseline {money(what_if.baseline_usd)}, {what_if.saved_percent:.0f} % saved",
            )
            for what_if in forecast.what_ifs
        ),
    ]
    if forecast.budget_usd is not None:
        facts.insert(0, _fact("budget", money(forecast.budget_usd), figures.budget_use(forecast)))
    over = (
        f'<p class="over">Over budget by {money(forecast.over_budget_usd)}.</p>\n' if forecast.over_budget_usd else ""
    )
    notes = [f"Baseline: {forecast.baseline_description}."]
    count = len(plan.warnings) + len(plan.advice)
    link = f' <a href="#warnings">{count} things to watch out for</a>.' if count else ""
    return (
        f"<header>\n<h1>Projected month of stack {escape(stack)} in {escape(plan.region)}</h1>\n{over}"
        f'<div class="headline">\n<p class="month">{money(total.expected)} <small>expected, 730 hours</small></p>\n'
        f'<dl class="facts">{"".join(facts)}</dl>\n'
        + _figure(
            "The month between its low and its high end, against the baseline", _both(chart(1080), chart(_NARROW))
        )
        + f'\n<p class="note">{escape(" ".join(notes))}{link}</p>\n</div>\n</header>'
    )


def _saved(usd: float, baseline: float) -> str:
    return f"{100 * (1 - usd / baseline):.0f} %"


def _tiers(plan: Plan) -> Iterator[str]:
    costs = {cost.tier: cost for cost in plan.forecast.tiers}
    yield '<div class="cards">'
    for tier in plan.tiers:
        yield _card(tier, costs[tier.name])
    yield "</div>"
    yield _paragraph(
        "Latencies are 95th percentiles of one replica at its largest rate, projected, of the engine; network and HTTP "
        "come on top. Dollars per million tokens are compute over input and output tokens: at this stack's load, and "
        "with every replica at its largest rate all the time.",
        "note",
    )


def _card(tier: TierPlan, cost: TierCost) -> str:
    serving = tier.serving
    kinds = len(tier.instance_types)
    pairs = [
        _pair("replica", hardware(tier), f"{serving.requests_per_second:.2g} requests a second at most"),
        _pair("replicas", _replicas(tier), "p prefill, d decode" if tier.disaggregation else ""),
        _pair("capacity", f"{100 * cost.spot_share:.0f} % spot", f"of {kinds} instance type{'s'[: kinds != 1]}"),
        _pair("used", f"{100 * cost.utilization:.0f} %" if cost.million_tokens else "no traffic", ""),
    ]
    if tier.scale_to_zero:
        wait = f"set the client's time-out to {tier.timeouts.client_s:,} s or more"
        pairs.append(_pair("first request after sleep", f"about {tier.timeouts.cold_start_s:,} s", wait))
    for name, value, target in (
        ("first token", serving.ttft_ms, tier.ttft_target_ms),
        ("each further token", serving.tpot_ms, tier.tpot_target_ms),
    ):
        pairs.append(_pair(name, f"{value:,.0f} of {target:,.0f} ms", ""))
        share = f"width:{min(100, 100 * value / target):.0f}%"
        pairs.append(f'<dd class="meter" aria-hidden="true"><span style="{share}"></span></dd>')
    per_million = f"${cost.usd_per_million_tokens:,.2f}" if cost.million_tokens else "–"
    pairs.append(_pair("per million tokens", per_million, "at this load"))
    quoted = cost.article_usd_per_million_tokens
    beside = "" if quoted is None else f"the article has ${quoted:.2f}"
    pairs.append(_pair("with full replicas", f"${cost.usd_per_million_tokens_saturated:,.3f}", beside))
    if cost.api_usd is not None:
        even = cost.break_even_requests_per_day
        pays = f"own replicas pay from {even:,.0f} requests a day" if even else "own replicas never pay"
        pairs.append(_pair("at the API's prices", money(cost.api_usd), pays))
    checkpoint = tier.checkpoint
    loss = f"{checkpoint.quality_loss_percent:.1f} %" if checkpoint.quality_loss_percent else "nothing"
    return (
        f'<article class="card"><h3>{escape(tier.name)}</h3><p class="sub">{escape(tier.model_id)}</p>'
        f'<p class="price">{money(cost.expected_usd)} <small>a month</small></p>'
        f'<p class="sub">{money(cost.low_usd)} to {money(cost.high_usd)}</p><dl class="pairs">{"".join(pairs)}</dl>'
        f'<p class="note">{escape(checkpoint.method)} checkpoint {escape(checkpoint.repository)}, expected to lose '
        f"{loss} of the 16-bit scores: {escape(checkpoint.quality_loss_source)}.</p></article>"
    )


def _replicas(tier: TierPlan) -> str:
    least, most = tier.replicas.minimum, tier.replicas.maximum
    if tier.replicas.paused is not None:
        return f"{tier.replicas.paused}, paused"
    return f"{least} at any hour" if least == most and not tier.disaggregation else replicas(tier).replace("-", " to ")


def _pair(name: str, value: str, more: str) -> str:
    small = f"<small>{escape(more)}</small>" if more else ""
    return f"<dt>{escape(name)}</dt><dd>{escape(value)}{small}</dd>"


def _bill(plan: Plan) -> Iterator[str]:
    bill = bill_in_cents(plan.forecast)
    lines = list(zip(plan.forecast.items, bill.items, strict=True))

    def row(name: str, basis: str, amount: int) -> str:
        return f'<tr><th scope="row">{escape(name)}{_basis(basis)}</th><td class="number">{cents(amount)}</td></tr>\n'

    def total(name: str, amount: int, style: str) -> str:
        return f'<tr class="{style}"><th scope="row">{escape(name)}</th><td class="number">{cents(amount)}</td></tr>\n'

    def table(caption: str, body: Iterable[str]) -> str:
        return (
            f'<div class="sheet"><table><caption>{escape(caption)}</caption><thead><tr>'
            '<th scope="col">item, and what it is counted from</th><th scope="col" class="number">a month</th>'
            f"</tr></thead>\n<tbody>\n{''.join(body)}"
            "</tbody></table></div>"
        )

    compute: list[str] = []
    for tier in plan.tiers:
        compute.append(total(tier.name, bill.by_tier.get(tier.name, 0), "group"))
        compute += [
            row(item.name.removeprefix(f"{tier.name}: "), item.basis, amount)
            for item, amount in lines
            if item.tier == tier.name and item.category == "compute" and amount
        ]
    fixed = [row(item.name, item.basis, amount) for item, amount in lines if item.category == "fixed" and amount]
    yield _paragraph(
        "Quantity times price, with the price's date. Items are rounded so that they add up to the cent.", "lead"
    )
    yield '<div class="two">'
    yield table("Compute", [*compute, total("compute", bill.compute, "sum")])
    yield table("Fixed", [*fixed, total("fixed", bill.fixed, "sum")])
    yield "</div>"
    yield f'<p class="total"><span>expected month</span><span>{cents(bill.total)}</span></p>'


def _savings(plan: Plan) -> Iterator[str]:
    forecast = plan.forecast
    bars = [Bar("baseline", "baseline", 0.0, forecast.baseline_usd)]
    before = forecast.baseline_usd
    for step in forecast.savings:
        kind = "added" if step.monthly_usd > before + 0.005 else "saved"
        bars.append(Bar(step.lever, kind, before, step.monthly_usd))
        before = step.monthly_usd
    bars.append(Bar("expected", "expected", 0.0, forecast.total.expected))
    yield _paragraph(f"Baseline: {forecast.baseline_description}.", "lead")
    yield '<div class="sheet">'
    yield _figure(
        "<strong>Each lever in turn</strong>, dollars a month. Filled bars take off; dashed bars add to the month.",
        _both(waterfall_chart(bars, 1040), waterfall_chart(bars, _NARROW)),
    )
    yield "</div>"
    rows = [("baseline", money(forecast.baseline_usd), "", "", "", "", "")]
    rows += [
        (
            escape(step.lever),
            money(step.monthly_usd),
            money(step.saved_usd) if step.saved_usd >= -0.005 else _added(step.saved_usd),
            f"{step.saved_percent:.0f} %".replace("-", "−"),
            f"{step.cumulative_percent:.0f} %",
            "needed" if step.alone_usd is None else money(step.alone_usd),
            escape(step.claimed),
        )
        for step in forecast.savings
    ]
    heads = ("lever", "month after", "saved", "of the month before", "in all", "alone", "quoted")
    yield '<div class="tier">' + _table("Savings, step by step", heads, rows, numbers=range(1, 7)) + "</div>"
    yield _paragraph(
        "Steps add up. Alone: what the month would cost more with only this lever off; these do not add up, as levers "
        "overlap. Right-sizing is in the baseline already; alone: on an L4 up to 13B, else on 40 GB A100s.",
        "note",
    )
    names = {tier.name for tier in plan.tiers}
    told = (
        (
            f"{escape(claim.name)}{_basis(sentence(claim.why, names))}",
            f"{claim.quoted_percent:.0f} %",
            f"{claim.ours_percent:.0f} %",
        )
        for claim in claims(plan)
    )
    heads = ("saved, and why they differ", "quoted", "here")
    yield '<div class="tier">' + _table("Beside the article", heads, told, numbers=(1, 2), wide=False) + "</div>"


def _basis(text: str) -> str:
    return f'<span class="basis">{escape(text)}</span>'


def _added(saved_usd: float) -> str:
    return f'<span class="added-ink">adds {money(-saved_usd)}</span>'


def _range(plan: Plan) -> Iterator[str]:
    forecast = plan.forecast
    total = forecast.total
    yield _paragraph(
        f"Each uncertainty alone, the widest first. They are independent, so together they make {money(total.low)} to "
        f"{money(total.high)}, less than the sum of all.",
        "lead",
    )
    swings = [Swing(driver.name, driver.low_usd, driver.high_usd) for driver in forecast.drivers]
    if swings:
        yield '<div class="sheet">'
        yield _figure(
            "<strong>Change of the expected month</strong>, dollars: filled less, dashed more",
            _both(tornado_chart(swings, total.expected, 1040), tornado_chart(swings, total.expected, _NARROW)),
        )
        yield "</div>"
    rows = (
        (
            f"{escape(driver.name)}{_basis(sentence(driver.why))}",
            money(driver.low_usd),
            f"+{money(driver.high_usd)}",
        )
        for driver in forecast.drivers
    )
    heads = ("uncertainty, and how its ends are set", "low", "high")
    yield '<div class="tier">' + _table("Drivers of the range", heads, rows, numbers=(1, 2), wide=False) + "</div>"


def _left_out(plan: Plan, details: Details) -> str:
    """What is to be said of the tiers that have no charts."""
    drawn = len(details.hours)
    left_out = len(plan.tiers) - drawn
    if not left_out:
        return ""
    return f" Drawn are the {drawn} dearest tiers; {left_out} are left out here and are in the bill above."


def _hours(plan: Plan, details: Details) -> Iterator[str]:
    yield _paragraph(
        "From Monday 00:00 in the schedule's timezone. Replicas and dollars are means of each hour; a tier's dollars "
        f"are its month, spread over the hours as its replicas are.{_left_out(plan, details)}",
        "lead",
    )
    for hours in details.hours:
        yield _tier_hours(hours)


def _tier_hours(hours: TierHours) -> str:
    panels = (
        _figure("<strong>Requests</strong> an hour", hours_chart(hours.requests, "requests an hour")),
        _figure("<strong>Replicas</strong>", hours_chart(hours.replicas, "replicas", least_step=1.0)),
        _figure("<strong>Dollars</strong> an hour", hours_chart(hours.usd, "dollars an hour", sign="$")),
    )
    return (
        f'<div class="sheet tier"><h3>{escape(hours.tier)}</h3>'
        f'<p class="note">Profile {escape(hours.profile)}: {escape(hours.profile_source)}.</p>'
        f'<div class="panels">{"".join(panels)}</div></div>'
    )


def _curves(plan: Plan, details: Details) -> Iterator[str]:
    yield _paragraph(
        "More requests at a time make a replica cheaper a token and slower for each. The dot is where it is planned to "
        f"run at most: the largest load whose 95th percentiles meet the target.{_left_out(plan, details)}",
        "lead",
    )
    for curve in details.curves:
        yield _tier_curve(plan.tier(curve.tier), curve)


def _tier_curve(tier: TierPlan, curve: TierCurve) -> str:
    at = curve.chosen.concurrency
    limit = float(curve.most_sequences) if curve.most_sequences else None
    panels = (
        _figure(
            "<strong>Output tokens</strong> a second",
            curve_chart(
                [(point.concurrency, point.output_tokens_per_second) for point in curve.points],
                (at, curve.chosen.output_tokens_per_second),
                "output tokens a second",
                limit=limit,
            ),
        ),
        _figure(
            "<strong>First token</strong>, 95th percentile, ms",
            curve_chart(
                [(point.concurrency, point.ttft_p95_ms) for point in curve.points],
                (at, curve.chosen.ttft_p95_ms),
                "milliseconds to the first token",
                target=tier.ttft_target_ms,
                limit=limit,
            ),
        ),
        _figure(
            "<strong>Each further token</strong>, 95th percentile, ms",
            curve_chart(
                [(point.concurrency, point.tpot_p95_ms) for point in curve.points],
                (at, curve.chosen.tpot_p95_ms),
                "milliseconds for each further token",
                target=tier.tpot_target_ms,
                limit=limit,
            ),
        ),
    )
    apart = tier.disaggregation
    note = f"{tier.checkpoint.method} on {hardware(tier)}; {tier.serving.source}."
    if apart is not None:
        note += (
            " Drawn with prefill and decode in one pod; apart, the scaler holds "
            f"{apart.prefill.concurrency_target:.1f} requests in a prefill pod and "
            f"{apart.decode.concurrency_target:.1f} in a decode pod."
        )
    return (
        f'<div class="sheet tier"><h3>{escape(tier.name)}</h3>{_paragraph(note, "note")}'
        f'<div class="panels">{"".join(panels)}</div></div>'
    )


def _choices(plan: Plan, details: Details) -> Iterator[str]:
    yield _paragraph(
        "One replica's price an hour, over the mix of spot and on-demand that its pool expects, against the output "
        "tokens a second that it carries within the target. Dotted lines join equal dollars per million output tokens. "
        "A tier with little traffic takes the cheapest replica, not the cheapest token." + _left_out(plan, details),
        "lead",
    )
    for places in details.places:
        others = [other for other in plan.alternatives if other.tier == places.tier]
        yield _tier_places(plan.tier(places.tier), places, others)


def _tier_places(tier: TierPlan, places: TierPlaces, others: Sequence[Alternative]) -> str:
    shown: list[tuple[str, Place]] = [("1", places.chosen)]
    shown += [(str(number), place) for number, place in enumerate(places.rivals, 2)]
    dots = [
        Dot(mark, place.usd_per_hour, place.output_tokens_per_second, place is places.chosen) for mark, place in shown
    ]
    rows = (
        (
            f"{mark}. {escape(place.label)}",
            f"${place.usd_per_hour:.3f}",
            f"{place.output_tokens_per_second:,.3g}"
            if place.output_tokens_per_second < 100
            else f"{place.output_tokens_per_second:,.0f}",
            money(place.monthly_usd),
            escape(place.reason) or "<strong>chosen</strong>",
        )
        for mark, place in shown
    )
    chart = _figure(
        "Price and throughput of a replica; the filled dot is the choice",
        scatter_chart(dots, "dollars an hour", "output tokens a second"),
    )
    heads = ("place", "an hour", "tokens/s", "a month", "why not")
    table = _table(f"Places that serve {tier.name}", heads, rows, numbers=(1, 2, 3))
    types = ", ".join(
        f"{offering.instance_type} ("
        + ("" if offering.spot_usd_per_hour is None else f"{offering.spot_usd_per_hour:.3f} spot, ")
        + f"{offering.on_demand_usd_per_hour:.3f})"
        for offering in tier.offerings
    )
    mixed = [other for other in others if other.monthly_usd is not None and other.reason.startswith("mixing")]
    lost = [other for other in others if other.monthly_usd is None]
    told = [f"{other.description}: {other.reason}" for other in (*mixed, *lost[:_MISSES])]
    if len(lost) > _MISSES:
        told.append(f"{len(lost) - _MISSES} more that do not serve it, in plan --json")
    misses = f'<p class="note">Not: {escape("; ".join(told))}.</p>' if told else ""
    return (
        f'<div class="sheet tier"><h3>{escape(tier.name)}</h3>'
        f'<p class="note">Its nodes, dollars an hour: {escape(types)}.</p>'
        f'<div class="side">{chart}<div>{table}{misses}</div></div></div>'
    )


def _lines(warning: str) -> str:
    """A warning as a sentence; one of several lines, which the style sheet keeps, as it is."""
    return warning[:1].upper() + warning[1:] if "\n" in warning else sentence(warning)


def _warnings(plan: Plan) -> Iterator[str]:
    def listed(lines: Sequence[str], style: str) -> str:
        return f'<ul class="{style}">' + "".join(f"<li>{escape(_lines(line))}</li>" for line in lines) + "</ul>"

    yield listed(plan.warnings, "plain") if plan.warnings else _paragraph("Nothing.", "lead")
    if plan.advice:
        yield '<h3 class="tier" id="better-not">Better not</h3>'
        yield listed(plan.advice, "plain advice")


def _assumptions(details: Details) -> Iterator[str]:
    rows = ((escape(one.name), escape(one.value), escape(one.source)) for one in details.assumptions)
    yield _table("What the month rests on", ("assumption", "value", "source"), rows)
    prices = (
        (escape(price.what), escape(price.price), escape(price.as_of), escape(price.source)) for price in details.prices
    )
    heads = ("price", "US dollars", "as of", "source")
    yield '<div class="tier">' + _table("Prices used", heads, prices) + "</div>"


def _footer(plan: Plan, stack: str) -> str:
    forecast = plan.forecast
    return (
        f"<footer><p>Generated from stack {escape(stack)}, region {escape(plan.region)}, {len(plan.tiers)} "
        f"tier{'s'[: len(plan.tiers) != 1]}. Prices: {escape(price_age(forecast.prices_as_of))}; "
        f"{escape(forecast.price_source)}. US dollars without tax.</p></footer>"
    )
