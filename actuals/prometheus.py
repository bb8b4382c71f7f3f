"""What nodes have cost, by pool and by tier, and the tokens that they gave, asked of Prometheus' HTTP API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import requests

from components.dashboards.costs import POOL_NODES, POOL_USD, TIER_USD, TOKENS

_TIMEOUT_S = 60.0
_STEP_S = 60
_HOURS = f"{_STEP_S} / 3600"


class NoFigures(Exception):
    """Prometheus does not answer, or has nothing of this stack."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What Prometheus has of a stretch of time. A pool without nodes and a tier without tokens are left out."""

    hours: float
    """In which it ran."""
    pool_usd: Mapping[str, float]
    """Cost of nodes in them, by pool."""
    tier_usd: Mapping[str, float]
    """The same split among tiers."""
    million_tokens: Mapping[str, float]
    """Input and output tokens, million, by tier."""
    spot_share: Mapping[str, float]
    """Of a pool's node hours."""


def seen(url: str, begins: datetime, ends: datetime) -> Seen:
    """Ask for nodes, their cost and tokens between two moments. Raises :class:`NoFigures`.

    Minute by minute, and not as a mean over the time: a pool without nodes has no sample.
    """
    window = f"[{int((ends - begins).total_seconds())}s:{_STEP_S}s]"

    def total(label: str, series: str, factor: str) -> dict[str, float]:
        return _vector(url, f"sum by ({label}) (sum_over_time({series}{window})) * {factor}", ends, label)

    hours = _vector(url, f"count_over_time(sum(up){window}) * {_HOURS}", ends)
    if not hours:
        raise NoFigures(f"Prometheus at {url} has no sample since {begins:%Y-%m-%d}")
    nodes = total("pool", POOL_NODES, _HOURS)
    on_spot = total("pool", f'{POOL_NODES}{{capacity="spot"}}', _HOURS)
    return Seen(
        hours=hours[""],
        pool_usd=total("pool", POOL_USD, _HOURS),
        tier_usd=total("tier", TIER_USD, _HOURS),
        million_tokens=total("tier", TOKENS, f"{_STEP_S} / 1e6"),
        spot_share={pool: on_spot.get(pool, 0.0) / amount for pool, amount in nodes.items() if amount},
    )


def _vector(url: str, query: str, at: datetime, label: str = "") -> dict[str, float]:
    """Values by ``label``."""
    try:
        response = requests.get(
            f"{url.rstrip('/')}/api/v1/query", params={"query": query, "time": at.timestamp()}, timeout=_TIMEOUT_S
        )
        answer: dict[str, Any] = response.json()
    except (requests.RequestException, ValueError) as error:
        raise NoFigures(f"no Prometheus answers at {url} ({type(error).__name__})") from None
    if answer.get("status") != "success":
        raise NoFigures(f"Prometheus at {url} refuses the query: {answer.get('error', response.status_code)}")
    return {one["metric"].get(label, ""): float(one["value"][1]) for one in answer["data"]["result"]}
