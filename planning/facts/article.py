"""What the article says whose scenario this project takes up: quoted, never computed with, not checked.

Known here are these figures alone; of its batches neither the model, nor the GPU, nor the lengths.
"""

from __future__ import annotations

ARTICLE_L4_USD_PER_MONTH = 350.0
ARTICLE_TOKENS_PER_SECOND = {1: 45, 8: 320, 32: 1100, 64: 1800, 128: 2200}
"""Output tokens by batch."""
ARTICLE_USD_PER_MILLION_TOKENS = {"7-8B": 0.05, "70B": 0.40}
ARTICLE_SAVED_PERCENT = {"spot nodes": 60, "quantisation": 80, "engine limits": 90, "tier routing": 93}
"""Of the first bill, after each step of the waterfall: 60 %, half of the rest, half again, 30 % of that."""
ARTICLE_HOURS_SAVED_PERCENT = 70
"""Of a dev stack's bill, by working hours and scale to zero."""

_BILLION = {"7-8B": (6.5, 8.5), "70B": (65.0, 75.0)}


def article_usd_per_million_tokens(params_billion: float) -> float | None:
    """What the article's routing table has for models of this size; None: nothing."""
    for name, (least, most) in _BILLION.items():
        if least <= params_billion <= most:
            return ARTICLE_USD_PER_MILLION_TOKENS[name]
    return None
