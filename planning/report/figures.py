"""How figures are written, in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Collection

from planning.plan import Forecast, TierPlan


def money(usd: float) -> str:
    """Dollars as people read them: whole above 100, cents below."""
    sign = "-" if usd < -0.005 else ""
    return f"{sign}${abs(usd):,.0f}" if abs(usd) >= 100 else f"{sign}${abs(usd):,.2f}"


def sentence(text: str, names: Collection[str] = ()) -> str:
    """A remark as a sentence: a large letter, unless it starts with a name, and a full stop."""
    first = text if text.split(" ", maxsplit=1)[0].rstrip(":,") in names else text[:1].upper() + text[1:]
    return first if first.endswith((".", "!", "?")) else f"{first}."


def cents(amount: int) -> str:
    """Whole cents as dollars."""
    return f"{'-' if amount < 0 else ''}${abs(amount) / 100:,.2f}"


def price_age(prices_as_of: str) -> str:
    """How old the oldest price is, in words."""
    return "some without a date" if prices_as_of == "undated" else f"the oldest of {prices_as_of}"


def hardware(tier: TierPlan) -> str:
    """What one replica runs on."""
    return f"{tier.gpus_per_replica} x {tier.gpu}" if tier.gpu else f"CPU {tier.instance_types[0]}"


def replicas(tier: TierPlan) -> str:
    """From least to most, by role where prefill (p) and decode (d) are apart; those of a paused tier alone."""
    if tier.replicas.paused is not None:
        return f"paused {tier.replicas.paused}"
    apart = tier.disaggregation
    if apart is not None:
        prefill, decode = apart.prefill.replicas, apart.decode.replicas
        return f"{prefill.minimum}-{prefill.maximum}p {decode.minimum}-{decode.maximum}d"
    return f"{tier.replicas.minimum}-{tier.replicas.maximum}"


def budget_use(forecast: Forecast) -> str:
    """How the month stands to its budget; nothing without one."""
    used = forecast.budget_used_percent
    if used is None:
        return ""
    figure = "the high end" if forecast.budget_compare == "high" else "the expected month"
    if forecast.over_budget_usd:
        return f"over by {money(forecast.over_budget_usd)}: {figure} is {used:.0f} % of it"
    return f"{used:.0f} % used by {figure}"


def first_wait(tier: TierPlan) -> str:
    """What the first request at a tier that sleeps must expect; nothing where a replica is always kept."""
    if not tier.scale_to_zero or tier.replicas.paused is not None:
        return ""
    waits = tier.timeouts
    return f"about {waits.cold_start_s:,} s for a start; set the client's time-out to {waits.client_s:,} s or more"
