"""What only the page of the report shows: hours, curves, places, prices and assumptions. A plan does without them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from planning.bill import Levers, StackBills, TierBill, TierDemand
from planning.demands import quality_loss
from planning.facts.fixed_prices import fixed_items, fixed_price
from planning.facts.instances import Offering, monthly_interruption
from planning.fixed import BYTES_PER_INPUT_TOKEN, BYTES_PER_OUTPUT_TOKEN, LOG_GB_PER_MONTH
from planning.fleet import Fleet
from planning.options import load_model
from planning.price_dates import PriceUse
from planning.root_volume import root_volume
from planning.serving import LoadModel
from planning.speed import COST_BAND, COST_BAND_LLAMA_CPP, COST_BAND_THIN
from planning.spot import PESSIMISTIC_SHARE_OF_ON_DEMAND, spot_usd_per_hour
from planning.tiers import speed_source, why_not
from planning.traffic import HOURS_PER_MONTH

#: Tiers that hours, curves and places are worked out for: more charts than that nobody looks at.
MOST_DRAWN = 12

#: GPU models (or CPU families) beside the chosen one that are worked out for the page.
_PLACES = 8

#: Points of a curve, from one running request (or less, where less is planned) to so many times the planned number.
_POINTS, _BEYOND = 32, 4.0


@dataclass(frozen=True, slots=True)
class TierHours:
    """The hours of a tier's traffic shape, from Monday 00:00 local time; whole weeks."""

    tier: str
    profile: str
    profile_source: str
    requests: tuple[float, ...]
    """Of each hour."""
    replicas: tuple[float, ...]
    """Mean of each hour; prefill and decode replicas together."""
    usd: tuple[float, ...]
    """Of each hour. The tier's month, spread as its replicas are: starts and idling out count where replicas serve."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One replica at one mean number of running requests."""

    concurrency: float
    output_tokens_per_second: float
    ttft_p95_ms: float
    tpot_p95_ms: float


@dataclass(frozen=True, slots=True)
class TierCurve:
    """How a tier's replica trades latency for throughput, and where it is planned to run."""

    tier: str
    points: tuple[CurvePoint, ...]
    chosen: CurvePoint
    most_sequences: int
    """The engine's limit of running requests."""


@dataclass(frozen=True, slots=True)
class Place:
    """One way to serve a tier: a replica's price and what it carries within the target."""

    label: str
    usd_per_hour: float
    """Expected, over the mix of its pool."""
    output_tokens_per_second: float
    """At its largest rate within the target."""
    monthly_usd: float
    reason: str
    """Why it was not chosen; empty for the chosen one."""


@dataclass(frozen=True, slots=True)
class TierPlaces:
    """The chosen place of a tier and its rivals, cheapest first."""

    tier: str
    chosen: Place
    rivals: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class UsedPrice:
    """A price that the plan used."""

    what: str
    price: str
    as_of: str
    source: str


@dataclass(frozen=True, slots=True)
class Assumption:
    """A figure that the month rests on."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Details:
    """Everything that the page shows beside the plan. Hours, curves and places are those of the dearest tiers."""

    hours: tuple[TierHours, ...]
    curves: tuple[TierCurve, ...]
    places: tuple[TierPlaces, ...]
    prices: tuple[UsedPrice, ...]
    assumptions: tuple[Assumption, ...]


def details(
    demands: Sequence[TierDemand], bills: StackBills, bill: Sequence[TierBill], fixed: Sequence[PriceUse]
) -> Details:
    """Work out what the page shows of a bill."""
    pairs = tuple(zip(demands, bill, strict=True))
    dearest = sorted(bill, key=lambda part: -part.usd)[:MOST_DRAWN]
    drawn = [(demand, part) for demand, part in pairs if part in dearest]
    return Details(
        hours=tuple(_hours(demand, part) for demand, part in drawn),
        curves=tuple(_curve(part) for _, part in drawn),
        places=tuple(_places(demand, part, bills) for demand, part in drawn),
        prices=tuple(_prices(bill, fixed, bills)),
        assumptions=tuple(_assumptions(pairs)),
    )


def _hours(demand: TierDemand, part: TierBill) -> TierHours:
    held = part.paid.month.by_hour
    whole = sum(held)
    usd_per_replica_hour = part.usd * len(held) / (HOURS_PER_MONTH * whole) if whole else 0.0
    return TierHours(
        tier=part.name,
        profile=demand.shape.name,
        profile_source=demand.shape.source,
        requests=part.search.requests_per_hour,
        replicas=held,
        usd=tuple(replicas * usd_per_replica_hour for replicas in held),
    )


def _curve(part: TierBill) -> TierCurve:
    option, demand = part.fleet.option, part.search.demand
    model, load = load_model(option, demand), option.load
    first, last = min(1.0, load.concurrency / _BEYOND), max(1.0, load.concurrency * _BEYOND)
    at = [first * (last / first) ** (step / (_POINTS - 1)) for step in range(_POINTS)]
    points = [_point(model, demand.workload.output_tokens, concurrency) for concurrency in at]
    limit = option.vllm.max_num_seqs if option.vllm else option.llama_cpp.parallel_slots if option.llama_cpp else 0
    return TierCurve(
        tier=part.name,
        # Where prompts alone keep the engine busy, a latency has no end.
        points=tuple(point for point in points if math.isfinite(point.ttft_p95_ms + point.tpot_p95_ms)),
        chosen=_point(model, demand.workload.output_tokens, load.concurrency),
        most_sequences=limit,
    )


def _point(model: LoadModel, output_tokens: float, concurrency: float) -> CurvePoint:
    load = model.at(concurrency)
    return CurvePoint(concurrency, load.requests_per_second * output_tokens, load.ttft_p95_ms, load.tpot_p95_ms)


def _places(demand: TierDemand, part: TierBill, bills: StackBills) -> TierPlaces:
    rivals = part.search.rivals(part.fleet, bills.policy(Levers()), demand.methods, _PLACES)
    # A checkpoint that several people publish is one place; the cheapest comes first.
    unlike = {fleet.option.label: fleet for fleet in reversed(rivals)}
    unlike.pop(part.fleet.option.label, None)
    chosen = _place(part.fleet, part, "")
    return TierPlaces(
        tier=part.name,
        chosen=replace(chosen, monthly_usd=part.usd),
        rivals=tuple(_place(fleet, part, why_not(fleet, part)) for fleet in rivals if fleet in unlike.values()),
    )


def _place(fleet: Fleet, part: TierBill, reason: str) -> Place:
    tokens = fleet.option.load.requests_per_second * part.search.demand.workload.output_tokens
    return Place(fleet.option.label, fleet.price.usd_per_hour, tokens, fleet.usd, reason)


def _prices(bill: Sequence[TierBill], fixed: Sequence[PriceUse], bills: StackBills) -> Iterator[UsedPrice]:
    """Prices of every instance type that may run, then those of the fixed items."""
    pools = {offering.instance.name: offering for part in bill for offering in part.fleet.pool}
    yield from (_instance_price(offering) for offering in pools.values())
    offered = {offering.instance.name: offering for offering in bills.market.offerings}
    for name, as_of in dict.fromkeys((use.name, use.as_of) for use in fixed):
        dated = as_of.isoformat() if as_of else "undated"
        if name in fixed_items():
            price = fixed_price(bills.region, name)
            derived = ", derived: not read for this region" if price.substituted else ""
            yield UsedPrice(f"{name}, {price.unit}", f"{price.usd:.4g}{derived}", dated, price.source)
        elif (node := offered.get(name.split(" ")[0])) and node.instance.name not in pools:
            yield _instance_price(node)


def _instance_price(offering: Offering) -> UsedPrice:
    spot = spot_usd_per_hour(offering)
    price = f"{offering.on_demand_usd_per_hour:.4f} on-demand"
    if spot is not None:
        low, high = spot_usd_per_hour(offering, "low"), spot_usd_per_hour(offering, "high")
        zones = f", {low:.3f} to {high:.3f} low to high" if low is not None and high is not None else ""
        price += f"; spot {spot:.3f}{zones}"
    interruptions = offering.interruption_class or "not listed: counted as the worst"
    return UsedPrice(
        f"{offering.instance.name}, an hour",
        f"{price}; interruption class {interruptions}",
        offering.as_of.isoformat() if offering.as_of else "undated",
        offering.source,
    )


def _assumptions(pairs: Sequence[tuple[TierDemand, TierBill]]) -> Iterator[Assumption]:
    def percent(band: tuple[float, float]) -> str:
        return f"{100 * (band[0] - 1):+.0f} % to {100 * (band[1] - 1):+.0f} % of a replica's cost"

    for demand, part in pairs:
        name, option, traffic = part.name, part.fleet.option, demand.settings.traffic
        shape, start = demand.shape, option.cold_start
        yield Assumption(
            f"{name}: speed",
            percent(option.cost_band),
            speed_source(option.measured)
            + (
                "; the band holds 80 % of measurements that had no part in the fit"
                if option.gpu
                else "; batches on CPUs are not measured, so the band is an allowance"
            ),
        )
        yield Assumption(
            f"{name}: requests",
            f"{traffic.mean_requests_per_day:,.0f} a day in the mean of the month; {traffic.input_tokens:,} tokens in, "
            f"{traffic.output_tokens:,} out",
            "the stack's settings",
        )
        workload = part.search.demand.workload
        yield Assumption(
            f"{name}: spread of lengths and arrivals",
            f"standard deviation over mean: prompts {workload.input_cv:g}, answers {workload.output_cv:g}, times "
            f"between arrivals {workload.arrival_cv:g}; {100 * workload.prefix_hit_rate:.0f} % of prompts cached",
            "the stack's settings or their defaults: Azure's conversations of 2023; gamma distributed",
        )
        yield Assumption(
            f"{name}: hours",
            f"{shape.name}; peak {max(shape.weights):.2f} x the mean hour, weeks {shape.week_to_week:.2f} x apart",
            shape.source,
        )
        yield Assumption(
            f"{name}: cold start",
            f"{start.total_s:,.0f} s: node {start.node_s:.0f}, image {start.image_s:.0f}, engine with weights "
            f"{start.engine_s:.0f}",
            "blogs of 2024-2025 (node, image) and result files of 2026 (engine); not measured here",
        )
        yield Assumption(
            f"{name}: idle before the last replica goes",
            f"{part.fleet.rule.cooldown_s:,.0f} s, the empty node {part.fleet.rule.node_idle_s:,.0f} s more",
            "the stack's settings, or where staying up costs as much as the next start",
        )
        loss = quality_loss(demand.settings, demand.architecture.params_billion, option.checkpoint)
        yield Assumption(f"{name}: loss of quality", f"{loss.percent:.1f} % of the 16-bit model's scores", loss.source)
        volume = root_volume(part.fleet.pool)
        yield Assumption(
            f"{name}: node disk", f"{volume.gib} GiB gp3, {volume.mib_per_second} MiB/s", "room for system and images"
        )
    thin, llama = percent(COST_BAND_THIN), percent(COST_BAND_LLAMA_CPP)
    yield Assumption(
        "bands of speed",
        f"well measured GPUs {percent(COST_BAND)}; others {thin}; llama.cpp {llama}",
        "published measurements against the formula, sources left out of the fit one by one; llama.cpp: an allowance",
    )
    worst = monthly_interruption(None)
    yield Assumption(
        "spot interruptions",
        f"the class's middle; without a class, or above 20 %: {100 * worst.low:.0f} to {100 * worst.high:.0f} % of "
        f"instances a month, {100 * worst.expected:.0f} % expected",
        "AWS Spot Advisor of June 2025; the end of its last class is this program's assumption",
    )
    yield Assumption(
        "spot capacity",
        "an offering is there with the chance that it is not taken back within a month, times the share of zones below "
        "the on-demand price; else the next, at last on-demand",
        "this program's model of EC2's price-capacity-optimised choice",
    )
    yield Assumption(
        "high end of spot prices",
        f"the dearest zone, at least {100 * PESSIMISTIC_SHARE_OF_ON_DEMAND:.0f} % of on-demand",
        "g6.xlarge in us-east-1 went from 0.105 USD (August 2024) to 0.362 (July 2026)",
    )
    yield Assumption(
        "bytes on the wire",
        f"{BYTES_PER_INPUT_TOKEN:g} a prompt token, {BYTES_PER_OUTPUT_TOKEN:g} an answer token",
        "assumed: English in UTF-8, one server-sent event a token",
    )
    yield Assumption("control plane logs", f"{LOG_GB_PER_MONTH:g} GB a month", "assumed for a quiet cluster")
    yield Assumption("a month", f"{HOURS_PER_MONTH:.0f} hours", "a year over twelve, as AWS counts")
