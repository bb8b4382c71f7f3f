"""``prices refresh``: today's prices of a region into the data files."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from planning.commands.common import UsageError, as_json
from planning.facts.table import DATA
from prices.aws import clients, read_market
from prices.files import Refresh, known_types, read_tables, refreshed, write_tables
from prices.market import Market, PriceError

_MOVERS_SHOWN = 8
_QUIET_S = 2.0


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    command.add_argument("action", choices=("refresh",), help="read today's prices from AWS into the data files")
    command.add_argument("--region", required=True, help="an AWS region, for example us-east-2")
    command.add_argument(
        "--output", type=Path, default=DATA, metavar="DIR", help="where the files go (planning/facts/data)"
    )


def run(arguments: argparse.Namespace) -> str:
    """Refresh the files and return what the command prints. Raises ``UsageError``; then nothing was written."""
    progress = _Progress()
    try:
        tables = read_tables(arguments.output)
        of = clients(arguments.region, attempts=8, read_timeout_s=30)
        market = read_market(of, arguments.region, known_types(tables), now(), progress)
        refresh = refreshed(tables, market)
        write_tables(refresh.tables, arguments.output)
    except PriceError as error:
        raise UsageError(f"prices refresh: {error}; no file was changed") from None
    except OSError as error:
        raise UsageError(f"prices refresh: --output {arguments.output}: {error}; no file was changed") from None
    finally:
        progress.clear()
    return as_json(_data(market, refresh)) if arguments.json else _summary(market, refresh, arguments.output)


def now() -> datetime:
    """The moment whose prices are read."""
    return datetime.now(UTC)


class _Progress:
    """One line on a terminal for what takes longer than two seconds."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown = False

    def __call__(self, text: str) -> None:
        if sys.stderr.isatty() and time.monotonic() - self._started > _QUIET_S:
            self._shown = True
            print(f"\r\x1b[Kreading {text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _summary(market: Market, refresh: Refresh, directory: Path) -> str:
    spot = sum(len(zones) for zones in market.spot.values())
    lines = [
        f"{market.region} on {market.day.isoformat()}: {len(market.on_demand)} on-demand prices, {spot} spot prices of "
        f"{len(market.spot)} types over zones, {len(market.fixed)} fixed prices",
        f"written to {directory}: " + ", ".join(f"{rows} rows of {name}" for name, rows in refresh.rows.items()),
    ]
    if refresh.came:
        lines.append(f"offered now: {', '.join(refresh.came)}")
    if refresh.gone:
        lines.append(f"not offered any more, rows removed: {', '.join(refresh.gone)}")
    lines.append(f"{len(refresh.changes)} prices changed" + (", the most:" if refresh.changes else ""))
    lines += [
        f"  {change.name:32} {change.before:10.4g} -> {change.after:<10.4g} {100 * (change.ratio - 1):+.0f} %"
        for change in refresh.changes[:_MOVERS_SHOWN]
    ]
    return "\n".join(lines) + "\n"


def _data(market: Market, refresh: Refresh) -> dict[str, object]:
    return {
        "region": market.region,
        "asOf": market.day.isoformat(),
        "onDemandPrices": len(market.on_demand),
        "spotPrices": sum(len(zones) for zones in market.spot.values()),
        "fixedPrices": sorted(market.fixed),
        "rowsWritten": dict(refresh.rows),
        "offeredNow": list(refresh.came),
        "notOfferedAnyMore": list(refresh.gone),
        "changes": [
            {"price": change.name, "before": change.before, "after": change.after} for change in refresh.changes
        ],
    }
