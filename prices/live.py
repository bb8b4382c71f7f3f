"""Opt-in live prices of one plan: read before it is made, and never a reason for it to fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime

from planning.facts.instances import instance_types
from planning.price_dates import LivePrices
from prices.aws import Clients, clients, read_market
from prices.market import PriceError, live_offerings, require_complete
from reading import read

#: A preview waits this long at most for the next page of an answer to be asked for, and for one answer.
_PATIENCE_S, _ANSWER_S = 15.0, 5.0


def _clients(region: str) -> Clients:
    return clients(region, attempts=2, read_timeout_s=_ANSWER_S)


def live_prices(
    region: object,
    config: Mapping[str, object],
    now: datetime,
    make_clients: Callable[[str], Clients] = _clients,
) -> LivePrices | None:
    """Today's prices for a stack whose configuration has ``prices: {live: true}``; None for any other.

    Whatever fails, the snapshot's prices stand and a warning says why. Never raises.
    """
    settings = read(region, config).settings if config.get("prices") else None
    if settings is None or not settings.prices.live:
        return None
    started = time.monotonic()

    def in_time(what: str) -> None:
        if time.monotonic() - started > _PATIENCE_S:
            raise PriceError(f"AWS took over {_PATIENCE_S:.0f} s, up to {what}")

    try:
        types = tuple(instance_types())
        market = read_market(make_clients(settings.region), settings.region, types, now, in_time, fixed=False)
        require_complete(market, types)
        return LivePrices(live_offerings(market), "")
    except Exception as error:  # whatever it is, a preview goes on
        reason = str(error) if isinstance(error, PriceError) else repr(error)
        return LivePrices((), f"live prices could not be read, the snapshot's are used: {reason}")
