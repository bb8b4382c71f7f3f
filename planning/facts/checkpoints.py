"""Checkpoints: the weights of a model in one quantisation, in a repository that exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from planning.facts.models import models
from planning.facts.table import DATA, Row, UnknownFact, read_table

_METHOD_OF_CSV = {"w8a8": "int8"}
"""The repositories say ``w8a8``, people and settings say ``int8``."""

_BYTES_PER_16_BIT_PARAMETER = 2

#: Bits per weight of the quantised linear layers. Scales and zeros of group 128 are counted: w4a16 4 + 16/128, AWQ and
#: GPTQ with packed zeros 4 + 16/128 + 4/128, MXFP4 4 + 8/32, NVFP4 4 + 8/16 (the formats' definitions; Marlin README).
#: Embeddings, lm_head and norms stay at 16 bits in all of them.
BITS_PER_WEIGHT = {
    "fp16": 16.0,
    "fp8": 8.0,
    "int8": 8.0,
    "w4a16": 4.125,
    "awq": 4.156,
    "gptq": 4.156,
    "nvfp4": 4.5,
    "mxfp4": 4.25,
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One set of weights."""

    base_model_id: str
    method: str
    """``fp16`` (16-bit, bf16 or fp16), ``fp8``, ``int8``, ``gptq``, ``gptq8``, ``awq``, ``w4a16``, ``nvfp4``, ``mxfp4``
    or ``gguf-`` and llama.cpp's name in lower case (``gguf-q4_k_m``)."""
    repository: str
    """On Hugging Face. A GGUF repository holds one file, or set of parts, per quantisation."""
    weights_gb: float
    """10^9 bytes; mostly computed from the architecture (``source`` says which)."""
    verified: bool
    """False where the source asks to verify that the repository exists or how large it is."""
    source: str


@cache
def all_checkpoints() -> Mapping[str, tuple[Checkpoint, ...]]:
    """Per model of the catalogue: its own 16-bit weights, then the quantised checkpoints of ``data/checkpoints.csv``.

    A model released quantised (DeepSeek-V3 and R1 in fp8, gpt-oss in mxfp4) has no 16-bit checkpoint: its own
    repository is the quantised one.
    """
    quantised: dict[str, list[Checkpoint]] = {}
    for row in read_table(DATA / "checkpoints.csv", _COLUMNS, _checkpoint):
        quantised.setdefault(row.base_model_id, []).append(row)
    of_model: dict[str, tuple[Checkpoint, ...]] = {}
    for model_id, architecture in models().items():
        listed = quantised.get(model_id, [])
        released_quantised = any(checkpoint.repository == model_id for checkpoint in listed)
        own = () if released_quantised else (_own_checkpoint(model_id, architecture.params_billion),)
        of_model[model_id] = (*own, *listed)
    return MappingProxyType(of_model)


def checkpoints(model_id: str) -> tuple[Checkpoint, ...]:
    """All checkpoints of a catalogue model, 16-bit first. Raises ``UnknownFact`` of kind ``model``."""
    try:
        return all_checkpoints()[model_id]
    except KeyError:
        raise UnknownFact("model", model_id, models()) from None


_COLUMNS = ("base_model_id", "method", "repo", "weights_gb", "source")


def _own_checkpoint(model_id: str, params_billion: float) -> Checkpoint:
    return Checkpoint(
        base_model_id=model_id,
        method="fp16",
        repository=model_id,
        weights_gb=params_billion * _BYTES_PER_16_BIT_PARAMETER,
        verified=True,
        source="the model's own release; size derived: parameters x 2 bytes",
    )


def _checkpoint(row: Row) -> Checkpoint:
    method = row.name("method")
    source = row.name("source")
    return Checkpoint(
        base_model_id=row.name("base_model_id"),
        method=_METHOD_OF_CSV.get(method, method),
        repository=row.name("repo"),
        weights_gb=row.number("weights_gb"),
        verified="verify" not in source,
        source=source,
    )
