"""What the nodes of each pool have cost, asked of Prometheus' HTTP API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import requests

from components.dashboards.costs import POOL_USD

_TIMEOUT_S = 60.0
_STEP_S = 60


class NoFigures(Exception):
    """Prometheus does not answer, or has nothing of this stack."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What Prometheus has of a stretch of time."""

    hours: float
    """In which it ran."""
    usd: Mapping[str, float]
    """Cost of nodes in them, by pool; a pool that had none is left out."""


def seen(url: str, begins: datetime, ends: datetime) -> Seen:
    """Ask for the nodes' cost between two moments. Raises :class:`NoFigures`.

    Minute by minute, and not as a mean over the time: a pool without nodes has no sample.
    """
    window = f"[{int((ends - begins).total_seconds())}s:{_STEP_S}s]"
    per_hour = f"* {_STEP_S} / 3600"
    hours = _vector(url, f"count_over_time(sum(up){window}) {per_hour}", ends)
    if not hours:
        raise NoFigures(f"Prometheus at {url} has no sample since {begins:%Y-%m-%d}")
    usd = _vector(url, f"sum by (pool) (sum_over_time({POOL_USD}{window})) {per_hour}", ends)
    return Seen(hours[""], usd)


def _vector(url: str, query: str, at: datetime) -> dict[str, float]:
    """Values by the label ``pool``."""
    try:
        response = requests.get(
            f"{url.rstrip('/')}/api/v1/query", params={"query": query, "time": at.timestamp()}, timeout=_TIMEOUT_S
        )
        answer: dict[str, Any] = response.json()
    except (requests.RequestException, ValueError) as error:
        raise NoFigures(f"no Prometheus answers at {url} ({type(error).__name__})") from None
    if answer.get("status") != "success":
        raise NoFigures(f"Prometheus at {url} refuses the query: {answer.get('error', response.status_code)}")
    return {one["metric"].get("pool", ""): float(one["value"][1]) for one in answer["data"]["result"]}
