"""Architectures of the models that can be served by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType

from planning.facts.table import DATA, Row, UnknownFact, read_table


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers of a transformer that memory and speed follow from."""

    model_id: str
    """Hugging Face id: the catalogue's name."""
    params_billion: float
    """All parameters, in units of 10^9, embeddings included; of a vision model with its vision tower."""
    active_params_billion: float
    """Parameters used for one token; equal to ``params_billion`` without experts."""
    layers: int
    hidden_size: int
    attention_heads: int
    kv_heads: int
    """Nominal where ``uses_latent_attention``."""
    head_dim: int
    vocab_size: int
    tied_embeddings: bool
    """Input and output embedding are one matrix, counted once in ``params_billion``."""
    experts: int
    """Routed experts a layer; 1 without experts."""
    experts_per_token: int
    sliding_window: int | None
    """Tokens that a local layer keeps; None when every layer is global."""
    global_attention_layers: int
    """Layers that keep the whole context; the other layers keep ``sliding_window`` tokens."""
    max_context: int
    """Tokens, as in the published configuration; 0 when not stated (models that are only measured)."""
    license: str
    """Empty when not stated."""
    gated: bool
    """The repository answers only to a Hugging Face token (also where the gate has been on and off)."""
    kv_bytes_per_token_bf16: int
    """Cache of one token in all layers, 16-bit values, as if every layer were global (an upper bound for sliding
    windows)."""
    source: str
    notes: str
    uses_latent_attention: bool = False
    """The cache is a compressed latent (MLA), so its size does not follow from the heads and every GPU of a tensor
    parallel group holds all of it."""
    global_kv_bytes_per_token_bf16: int | None = None
    """The part of ``kv_bytes_per_token_bf16`` in layers that keep the whole context; None: by the share of layers."""
    state_bytes_per_sequence: int = 0
    """Recurrent state of linear-attention and Mamba layers in all layers: fixed, whatever the context."""
    intermediate_size: int = 0
    """Width of the widest feed-forward that one token passes (for experts, of one expert); 0: follows from the
    parameter count."""
    routed_billion: float = 0.0
    """Parameters of routed experts; 0: follows from total and active parameters."""
    unquantised_billion: float = 0.0
    """Parameters beside embeddings that quantised checkpoints keep at 16 bit: vision towers, routers, norms."""
    replicated_billion: float = 0.0
    """Parameters that every GPU of a tensor parallel group holds whole: MLA's down-projections, routers, norms."""
    image_token_values: int = 0
    """Values that the vision encoder hands over for one image token; 0 without one."""
    encoder_values: int = 0
    """Values alive at the vision encoder's peak, for one image token that it hands over."""


def kv_bytes_per_token(layers: int, kv_heads: int, head_dim: int) -> int:
    """Bytes of keys and values of one token in all layers at 2 bytes a value; not for latent attention (MLA)."""
    return 2 * layers * kv_heads * head_dim * 2


@cache
def models() -> Mapping[str, Architecture]:
    """The catalogue by model id (``data/models.csv``)."""
    rows = read_table(DATA / "models.csv", _COLUMNS, _architecture)
    return MappingProxyType({row.model_id: row for row in rows})


def model(model_id: str) -> Architecture:
    """The architecture of a catalogue model. Raises ``UnknownFact`` of kind ``model``."""
    try:
        return models()[model_id]
    except KeyError:
        raise UnknownFact("model", model_id, models()) from None


#: What every table of architectures gives, and what those add that tell sizes of tensors and lengths of windows.
SHAPE_COLUMNS = (
    "params_billion",
    "active_params_billion",
    "layers",
    "hidden_size",
    "attention_heads",
    "kv_heads",
    "head_dim",
    "vocab_size",
    "tied_embeddings",
    "experts",
    "experts_per_token",
    "source",
)
DETAIL_COLUMNS = (
    *SHAPE_COLUMNS,
    "sliding_window",
    "global_attention_layers",
    "max_context",
    "kv_bytes_per_token_bf16",
    "intermediate_size",
    "routed_billion",
    "unquantised_billion",
    "replicated_billion",
    "image_token_values",
    "encoder_values",
)
_COLUMNS = (*DETAIL_COLUMNS, "model_id", "license", "gated", "notes")


def read_shape(row: Row, model_id: str) -> Architecture:
    """The architecture of a row with ``SHAPE_COLUMNS``: plain attention in every layer, no context, no licence."""
    layers, kv_heads, head_dim = row.integer("layers"), row.integer("kv_heads"), row.integer("head_dim")
    return Architecture(
        model_id=model_id,
        params_billion=row.number("params_billion"),
        active_params_billion=row.number("active_params_billion"),
        layers=layers,
        hidden_size=row.integer("hidden_size"),
        attention_heads=row.integer("attention_heads"),
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=row.integer("vocab_size"),
        tied_embeddings=row.yes("tied_embeddings"),
        experts=row.integer("experts"),
        experts_per_token=row.integer("experts_per_token"),
        sliding_window=None,
        global_attention_layers=layers,
        max_context=0,
        license="",
        gated=False,
        kv_bytes_per_token_bf16=kv_bytes_per_token(layers, kv_heads, head_dim),
        source=row.name("source"),
        notes="",
    )


def read_details(row: Row, model_id: str) -> Architecture:
    """The architecture of a row with ``DETAIL_COLUMNS``; no licence stated."""
    return replace(
        read_shape(row, model_id),
        sliding_window=row.optional(row.integer, "sliding_window"),
        global_attention_layers=row.integer("global_attention_layers"),
        max_context=row.integer("max_context"),
        kv_bytes_per_token_bf16=row.integer("kv_bytes_per_token_bf16"),
        intermediate_size=row.integer("intermediate_size"),
        routed_billion=row.number("routed_billion"),
        unquantised_billion=row.number("unquantised_billion"),
        replicated_billion=row.number("replicated_billion"),
        image_token_values=row.integer("image_token_values"),
        encoder_values=row.integer("encoder_values"),
    )


def _architecture(row: Row) -> Architecture:
    known = read_details(row, row.name("model_id"))
    plain = kv_bytes_per_token(known.layers, known.kv_heads, known.head_dim)
    return replace(
        known,
        license=row.name("license"),
        gated=_gated(row),
        notes=row.text("notes"),
        uses_latent_attention=known.kv_bytes_per_token_bf16 != plain,
    )


def _gated(row: Row) -> bool:
    # "auto(verify)": Mistral's contact-information gate has been on and off. A token that is not needed does no harm,
    # a missing one stops the download.
    return row.choice("gated", ("manual", "auto", "auto(verify)", "no")) != "no"
