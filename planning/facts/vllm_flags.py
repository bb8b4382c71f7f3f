"""The command-line flags that the pinned vLLM accepts."""

from __future__ import annotations

import json
from functools import cache

from pydantic import BaseModel

from planning.facts.table import DATA

VLLM_VERSION = "0.33.0"
"""The version whose argument parser was dumped, 2026-11-22."""


class _Flag(BaseModel):
    flags: tuple[str, ...]


class _Dump(BaseModel):
    flags: tuple[_Flag, ...]


@cache
def flags() -> frozenset[str]:
    """Every flag of ``vllm serve``, long and short, negated forms included (``--no-…``)."""
    text = (DATA / f"vllm-{VLLM_VERSION}-serve-flags.json").read_text(encoding="utf-8")
    return frozenset(name for flag in _Dump.model_validate(json.loads(text)).flags for name in flag.flags)
