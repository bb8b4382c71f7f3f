"""Architectures of models that appear in public vLLM logs: more than the catalogue serves by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from planning.facts.models import DETAIL_COLUMNS, Architecture, read_details
from planning.facts.table import DATA, Row, read_table

#: Parts of a repository's name that say nothing about the shape of the model: who tuned it, when, in which format.
_NOT_SHAPE = re.compile(
    r"[-_.](?:"
    r"instruct|chat|it|base|hf|meta|dynamic|static|block|quantized|quantization|quant|unsloth|bnb|4bit|8bit|gguf|exl2|"
    r"awq|gptq|marlin|autoround|w4a16|w8a8|w8a16|g128|int4|int8|fp4|fp8|nvfp4|mxfp4|bf16|fp16|kv|q\d(?:_k)?(?:_[msl0])?|"
    r"\d{4}|thinking|reasoning|autofp8|torchao|per|tensor|channel|symmetric|sym"
    r")(?=$|[-_.])"
)


@cache
def logged_models() -> Mapping[str, Architecture]:
    """Architectures by the shape part of their names (``data/logged_models.csv``)."""
    known: dict[str, Architecture] = {}
    for names, architecture in read_table(DATA / "logged_models.csv", _COLUMNS, _logged_model):
        known.update(dict.fromkeys(map(shape_name, names), architecture))
    return MappingProxyType(known)


def logged_model(name: str) -> Architecture | None:
    """The architecture of a model as a log names it, whatever its tuning or quantisation; None when not known."""
    return logged_models().get(shape_name(name))


def shape_name(name: str) -> str:
    """A model's name without its owner and all that does not change its shape."""
    text = re.sub(r"\s*\(.*\)$", "", name).rpartition("/")[2].casefold()
    text = re.sub(r"\.gguf$", "", text).removeprefix("meta-").removeprefix("nvidia-")
    while (shorter := _NOT_SHAPE.sub("", text)) != text:
        text = shorter
    return text


_COLUMNS = (
    *DETAIL_COLUMNS,
    "names",
    "global_kv_bytes_per_token_bf16",
    "uses_latent_attention",
    "state_bytes_per_sequence",
)


def _logged_model(row: Row) -> tuple[tuple[str, ...], Architecture]:
    names = tuple(row.name("names").split("|"))
    return names, replace(
        read_details(row, names[0]),
        uses_latent_attention=row.yes("uses_latent_attention"),
        global_kv_bytes_per_token_bf16=row.integer("global_kv_bytes_per_token_bf16"),
        state_bytes_per_sequence=row.integer("state_bytes_per_sequence"),
    )
