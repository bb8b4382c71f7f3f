"""``replay``: the month's forecast under a trace, against the mean of many simulated months of the same fleets."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from planning.commands.common import UsageError, as_json, positive
from planning.facts.traces import InvalidTrace, Trace, read_trace
from planning.stackfile import read_stack

if TYPE_CHECKING:
    from planning.replay import Floats, Replays
    from planning.trace_forecast import TierForecast, TraceForecast

#: Enough that the mean is known to a per cent or two where a month hangs on what two nodes were bought as.
_REPLAYS = 100

#: Replicas at the peak, over all replays: some 40 bytes each, and as many again while they change.
_MOST_NODES = 1_000_000

#: What takes longer than this shows how far it is.
_PATIENCE_S = 2.0


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    command.add_argument("stackfile", type=Path, metavar="STACKFILE")
    command.add_argument(
        "--trace",
        type=Path,
        required=True,
        metavar="FILE.csv",
        help="columns minute, hour or t_start_s; requests, input_tokens, output_tokens; "
        "or one line per request: t_s (seconds), input_tokens, output_tokens",
    )
    command.add_argument("--scale", type=_factor, default=1.0, help="times the stack's requestsPerDay (1)")
    command.add_argument(
        "--replays", type=positive, default=_REPLAYS, help=f"months simulated ({_REPLAYS}, 5 to 15 seconds)"
    )
    command.add_argument("--seed", type=_seed, default=0, help="of the simulation: the same one, the same months (0)")


def _factor(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


@dataclass(frozen=True, slots=True, eq=False)
class _Tier:
    """A tier's months, all its deployments together."""

    forecast: TierForecast
    months: tuple[Replays, ...]

    def total(self, figure: str) -> Floats:
        """A figure of every month."""
        values: list[Floats] = [getattr(month, figure) for month in self.months]
        return sum(values[1:], start=values[0])

    def mean(self, figure: str) -> float:
        """Over the months."""
        return float(self.total(figure).mean())

    def share_of_requests(self, figure: str) -> float:
        """Mean of a count of requests over all of them: of the roles of a tier, the one where it is larger."""
        return max(float(getattr(month, figure).mean()) / (month.requests or 1.0) for month in self.months)


def run(arguments: argparse.Namespace) -> str:
    """Return what the command prints."""
    trace = _trace(arguments.trace)
    stack = read_stack(arguments.stackfile)
    from planning.trace_forecast import trace_forecast  # noqa: PLC0415 (numpy is slow to import)

    forecast = trace_forecast(stack.region, stack.values, trace, arguments.scale, stack.encrypted)
    _check_size(arguments, forecast)
    tiers = _play(forecast, arguments.replays, arguments.seed)
    return _data(arguments, forecast, tiers) if arguments.json else _text(arguments, forecast, tiers)


def _trace(path: Path) -> Trace:
    """Read a trace. Raises ``UsageError``."""
    try:
        return read_trace(path)
    except InvalidTrace as error:
        raise UsageError(f"--trace {path}: {len(error.problems)} problem(s)\n{error}") from None
    except OSError as error:
        raise UsageError(
            f"--trace {path}: {error.strerror}; name a CSV file, for example one of planning/facts/data/traces"
        ) from None


def _check_size(arguments: argparse.Namespace, forecast: TraceForecast) -> None:
    """Refuse fleets whose nodes do not fit into memory."""
    busiest = {
        tier.name: max(float(one.load.replicas.max()) for one in tier.deployments) * arguments.replays
        for tier in forecast.tiers
    }
    tier, nodes = max(busiest.items(), key=lambda entry: entry[1])
    if nodes > _MOST_NODES:
        share = _MOST_NODES / nodes
        raise UsageError(
            f"--scale {arguments.scale:g}, --replays {arguments.replays:,}: {nodes:,.0f} nodes of tier {tier} at the "
            f"peak, {nodes - _MOST_NODES:,.0f} more than can be played; use --scale {arguments.scale * share:.2g}"
            + (f" or --replays {int(arguments.replays * share)}" if arguments.replays * share >= 1 else "")
        )


def _play(forecast: TraceForecast, replays: int, seed: int) -> tuple[_Tier, ...]:
    import numpy as np  # noqa: PLC0415 (slow to import)

    from planning.replay import replay  # noqa: PLC0415 (as above)

    count = sum(len(tier.deployments) for tier in forecast.tiers)
    seeds = iter(np.random.SeedSequence(seed).spawn(count))
    tiers: list[_Tier] = []
    done = 0
    with _progress(f"{replays:,} months") as progress:
        for tier in forecast.tiers:
            months: list[Replays] = []
            for deployment in tier.deployments:
                before = done
                months.append(
                    replay(
                        deployment,
                        replays,
                        next(seeds),
                        lambda share, before=before: progress((before + share) / count),
                    )
                )
                done += 1
            tiers.append(_Tier(tier, tuple(months)))
    return tuple(tiers)


class _Told(Protocol):
    def __call__(self, share: float, /) -> None: ...


@contextmanager
def _progress(what: str) -> Iterator[_Told]:
    """A bar on the terminal for what takes longer than a moment; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 (slow to import)
    from rich.progress import Progress  # noqa: PLC0415 (as above)

    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=1.0)
    begin = time.monotonic()

    def tell(share: float) -> None:
        if time.monotonic() - begin > _PATIENCE_S:
            bar.start()
        bar.update(task, completed=share)

    try:
        yield tell
    finally:
        bar.stop()


def _months(forecast: TraceForecast, tiers: tuple[_Tier, ...]) -> Floats:
    """The whole bill of every month."""
    return sum((tier.total("usd") for tier in tiers[1:]), start=tiers[0].total("usd") + forecast.fixed_usd)


def _data(arguments: argparse.Namespace, forecast: TraceForecast, tiers: tuple[_Tier, ...]) -> str:
    import numpy as np  # noqa: PLC0415 (slow to import)

    months = _months(forecast, tiers)
    replayed = float(months.mean())
    low, high = np.percentile(months, (10, 90)).tolist()
    return as_json(
        {
            "forecast_usd": round(forecast.usd, 2),
            "replayed_usd": round(replayed, 2),
            "error": round((forecast.usd - replayed) / replayed, 5),
            "replayed_p10_usd": round(low, 2),
            "replayed_p90_usd": round(high, 2),
            "standard_error": round(_standard_error(months), 5),
            "fixed_usd": round(forecast.fixed_usd, 2),
            "replays": arguments.replays,
            "seed": arguments.seed,
            "scale": arguments.scale,
            "tiers": {tier.forecast.name: _tier_data(tier) for tier in tiers},
        }
    )


def _tier_data(tier: _Tier) -> dict[str, object]:
    replayed, hours = tier.mean("usd"), tier.mean("node_hours")
    return {
        "forecast_usd": round(tier.forecast.usd, 2),
        "replayed_usd": round(replayed, 2),
        "error": round((tier.forecast.usd - replayed) / replayed, 5) if replayed else 0.0,
        "forecast_node_hours": round(tier.forecast.node_hours, 1),
        "replayed_node_hours": round(hours, 1),
        "replayed_serving_hours": round(tier.mean("serving_hours"), 1),
        "forecast_starts": round(tier.forecast.starts, 1),
        "replayed_starts": round(tier.mean("starts"), 1),
        "replayed_interruptions": round(tier.mean("interruptions"), 2),
        "replayed_on_demand_share": round(tier.mean("on_demand_hours") / hours, 4) if hours else 0.0,
        "waited_share_of_requests": round(tier.share_of_requests("waited"), 6),
        "above_capacity_share_of_requests": round(tier.share_of_requests("above_capacity"), 6),
    }


def _standard_error(months: Floats) -> float:
    """Of the mean, as a share of it, if the months were drawn apart: evenly spread draws make it less."""
    return float(months.std() / math.sqrt(len(months)) / months.mean())


def _text(arguments: argparse.Namespace, forecast: TraceForecast, tiers: tuple[_Tier, ...]) -> str:
    import numpy as np  # noqa: PLC0415 (slow to import)

    from planning.report.terminal import plain_table  # noqa: PLC0415 (rich is slow to import, and data needs none of it)

    months = _months(forecast, tiers)
    bills: list[tuple[str, ...]] = []
    doings: list[tuple[str, ...]] = []

    def money(name: str, expected: float, played: Floats) -> tuple[str, ...]:
        mean = float(played.mean())
        low, high = np.percentile(played, (10, 90)).tolist()
        error = f"{100 * (expected - mean) / mean:+.1f} %" if mean else ""
        return name, f"{expected:,.0f}", f"{mean:,.0f}", error, f"{low:,.0f} to {high:,.0f}"

    for tier in tiers:
        told, hours = tier.forecast, tier.mean("node_hours")
        bills.append(money(told.name, told.usd, tier.total("usd")))
        doings.append(
            (
                told.name,
                f"{told.node_hours:,.0f} / {hours:,.0f}",
                f"{told.starts:,.0f} / {tier.mean('starts'):,.0f}",
                f"{tier.mean('interruptions'):,.1f}",
                f"{100 * tier.mean('on_demand_hours') / hours:.0f} %" if hours else "",
                f"{100 * tier.share_of_requests('waited'):.2f} %",
                f"{100 * tier.share_of_requests('above_capacity'):.2f} %",
            )
        )
    fixed = f"{forecast.fixed_usd:,.0f}"
    bills.append(("fixed costs", fixed, fixed, "", ""))
    bills.append(money("total", forecast.usd, months))
    scale = "" if arguments.scale == 1 else f" x {arguments.scale:g}"
    headline = (
        f"The month under {arguments.trace.stem}{scale}: forecast against the mean of {len(months):,} replays "
        f"(error of the mean at most {100 * _standard_error(months):.1f} %)"
    )
    color = sys.stdout.isatty()
    first = plain_table(
        headline, _columns("USD a month", "forecast", "replayed", "error", "p10 to p90"), bills, color=color
    )
    second = plain_table(
        "What the replicas did (forecast / replayed)",
        _columns("", "node hours", "starts", "interruptions", "on-demand", "waited", "above plan"),
        doings,
        color=color,
    )
    return f"{first}\n{second}\n{_NOTES}"


def _columns(first: str, *others: str) -> list[tuple[str, str]]:
    return [(first, "left"), *((name, "right") for name in others)]


_NOTES = """\
Waited: requests that found no replica serving. Above plan: requests in minutes with more load than
the serving replicas are planned for.
The mean may lie outside p10 to p90: in a rare month nodes are dear for long, when spot is not to
be had, and few such months move the mean but no percentile.
Forecast and replay share the chosen fleets, a replica's planned rate and start time, prices, and what
Spot Advisor's classes say of capacity and interruptions. They do not share which replicas are held
and which nodes are bought when: the forecast works that out, the replay plays it.
"""
