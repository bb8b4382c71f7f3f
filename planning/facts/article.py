"""What the article says whose scenario this project takes up: quoted, never computed with, not checked.

Known here are these figures alone; of its batches neither the model, nor the GPU, nor the lengths.
"""

from __future__ import annotations

ARTICLE_L4_USD_PER_MONTH = 350.0
ARTICLE_TOKENS_PER_SECOND = {1: 45, 8: 320, 32: 1100, 64: 1800, 128: 2200}
"""Output tokens by batch."""
ARTICLE_USD_PER_MILLION_TOKENS = {"7-8B": 0.05, "70B": 0.40}
