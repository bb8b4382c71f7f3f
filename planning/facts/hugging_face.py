"""Architectures from a Hugging Face ``config.json``: parameters counted from the shapes that it names.

Shapes are those of the published modelling code (transformers) of each ``model_type``. An unknown type is an error:
counting with another model's shapes would give a number that looks right.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from planning.facts.checkpoints import BITS_PER_WEIGHT, Checkpoint
from planning.facts.models import Architecture

Config = Mapping[str, object]

#: Families by how their layers are shaped.
_DENSE = (
    "cohere",
    "cohere2",
    "exaone",
    "gemma",
    "gemma2",
    "gemma3_text",
    "granite",
    "internlm2",
    "llama",
    "ministral3",
    "mistral",
    "olmo2",
    "olmo3",
    "phi3",
    "qwen2",
    "qwen2_5_vl_text",
    "qwen2_vl_text",
    "qwen3",
    "qwen3_vl_text",
    "seed_oss",
    "smollm3",
    "starcoder2",
)
_EXPERTS = (
    "dots1",
    "glm4_moe",
    "gpt_oss",
    "llama4_text",
    "minimax_m2",
    "mixtral",
    "olmoe",
    "qwen2_moe",
    "qwen3_moe",
    "qwen3_vl_moe_text",
)
_LATENT = ("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "kimi_k2")
_LINEAR_ATTENTION = ("qwen3_5_moe_text", "qwen3_5_text", "qwen3_next")
_MAMBA = ("bamba", "granitemoehybrid", "nemotron_h")
_GEMMA_4 = ("gemma4_text",)
KNOWN_TYPES = tuple(sorted((*_DENSE, *_EXPERTS, *_LATENT, *_LINEAR_ATTENTION, *_MAMBA, *_GEMMA_4)))

#: Multimodal types whose language model is not named by a ``model_type`` of its own.
_TEXT_TYPES = {
    "gemma3": "gemma3_text",
    "kimi_k25": "kimi_k2",
    "llama4": "llama4_text",
    "mistral3": "mistral",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
}
_TIED_BY_DEFAULT = ("gemma", "cohere")
"""Types whose configuration class ties the embeddings when the file does not say."""

_WITH_BIAS = ("qwen2", "qwen2_moe", "qwen2_vl_text", "qwen2_5_vl_text", "gpt_oss", "starcoder2", "seed_oss")
_TWO_MATRICES = ("nemotron_h", "starcoder2")
"""Feed-forwards without a gate: up and down only."""

#: Largest numbers that are believed, far above any published model: a slip of the keyboard is no architecture, and
#: layers are counted one by one.
_LARGEST = 2**20
_LARGEST_OF = {
    "num_hidden_layers": 2**10,
    "vocab_size": 2**24,
    "max_position_embeddings": 2**32,
    "sliding_window": 2**32,
    "attention_chunk_size": 2**32,
}


class ConfigError(ValueError):
    """A ``config.json`` that no architecture can be read from: one sentence with the way out."""


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """What a ``config.json`` says."""

    architecture: Architecture
    checkpoint: Checkpoint
    """The model's own release: 16 bit, or the method of its ``quantization_config``."""


@dataclass(slots=True)
class _Count:
    """Parameters so far, and what they mean for memory."""

    total: float = 0.0
    routed: float = 0.0
    active_routed: float = 0.0
    unquantised: float = 0.0
    replicated: float = 0.0
    kv_bytes: int = 0
    global_kv_bytes: int = 0
    global_layers: int = 0
    state_bytes: int = 0
    missing: list[str] = field(default_factory=list[str])


def is_config_path(text: str) -> bool:
    """Whether a model is named by a file: it ends with ``.json`` or is a directory that holds ``config.json``."""
    return text.endswith(".json") or (Path(text) / "config.json").is_file()


def read_config(path: Path, name: str = "") -> PublishedModel:
    """Read a ``config.json`` or the directory that holds it; ``name`` is the model's id (the path without one).

    Raises ``ConfigError``.
    """
    file = path / "config.json" if path.is_dir() else path
    config = _json_object(file)
    beside = file.with_name("hf_quant_config.json")
    if "quantization_config" not in config and beside.is_file():
        # ModelOpt's older releases state the method in a file of its own.
        stated = _json_object(beside).get("quantization")
        if isinstance(stated, dict):
            config["quantization_config"] = {"quant_method": "modelopt", **cast(dict[str, object], stated)}
    try:
        return published_model(config, name or str(path), source=str(file))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def _json_object(file: Path) -> dict[str, object]:
    try:
        parsed: object = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file} is not there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file} is not JSON: line {error.lineno}: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        # Nested too deep, or a number of thousands of digits.
        raise ConfigError(f"{file} is no config.json: {error}") from None
    if not isinstance(parsed, dict):
        raise ConfigError(f"{file} holds no JSON object, so it is no config.json")
    return dict(cast(Config, parsed))


def published_model(config: Config, name: str, source: str = "config.json") -> PublishedModel:
    """Architecture and own checkpoint of a parsed ``config.json``. Raises ``ConfigError``."""
    architecture = architecture_of(config, name, source)
    method = _method(config)
    bits = BITS_PER_WEIGHT[method]
    embeddings = architecture.vocab_size * architecture.hidden_size * (1 if architecture.tied_embeddings else 2) / 1e9
    kept = embeddings + architecture.unquantised_billion
    quantised = architecture.params_billion - kept
    if method == "mxfp4":
        quantised = architecture.routed_billion
    weights_gb = quantised * bits / 8 + (architecture.params_billion - quantised) * 2
    checkpoint = Checkpoint(name, method, name, weights_gb, verified=True, source=f"computed from {source}")
    return PublishedModel(architecture, checkpoint)


def architecture_of(config: Config, name: str, source: str = "config.json") -> Architecture:
    """Count an architecture from a parsed ``config.json``. Raises ``ConfigError``."""
    text, kind = _language_model(config)
    reader = _Reader(text)
    layers = reader.integer("num_hidden_layers", "n_layer", default=len(reader.names("layers_block_type")) or None)
    hidden = reader.integer("hidden_size")
    heads = reader.integer("num_attention_heads")
    vocab = reader.integer("vocab_size")
    latent = kind in _LATENT
    kv_heads = heads if latent else reader.integer("num_key_value_heads", default=heads)
    if latent:
        for needed in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim"):
            reader.integer(needed)
        head_dim = reader.integer("v_head_dim")
    else:
        head_dim = reader.integer("head_dim", default=max(hidden // heads, 1))
        if text.get("head_dim") is None:
            reader.demand_multiple("hidden_size", hidden, "num_attention_heads", heads, "or state head_dim")
        reader.demand_multiple("num_attention_heads", heads, "num_key_value_heads", kv_heads)
    tied = _tied(config, reader, kind)
    experts, chosen = _experts(reader, kind)
    max_context = reader.integer("max_position_embeddings", default=0)
    kept = _kept(config)
    reader.raise_problems(kind)
    shapes = _Shapes(kind, reader, layers, hidden, heads, kv_heads, head_dim, experts, chosen)
    reader.raise_problems(kind)
    count = _Count()
    # Every layer reads the same fields, so the first ones name all that is wrong.
    for index in range(layers):
        shapes.add_layer(count, index, attention_kept="self_attn" in kept, shared_kept="shared_expert" in kept)
    reader.raise_problems(kind)
    vision = _vision(config, hidden)
    embeddings = vocab * hidden * (1 if tied else 2)
    total = count.total + vision.parameters + embeddings + hidden
    active = total - count.routed + count.active_routed
    window = shapes.window if count.global_layers < shapes.attention_layers else None
    return Architecture(
        model_id=name,
        params_billion=total / 1e9,
        active_params_billion=active / 1e9,
        layers=layers,
        hidden_size=hidden,
        attention_heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=vocab,
        tied_embeddings=tied,
        experts=max(experts, 1),
        experts_per_token=max(chosen, 1),
        sliding_window=window,
        global_attention_layers=count.global_layers if window else layers,
        max_context=max_context,
        license="",
        gated=False,
        kv_bytes_per_token_bf16=count.kv_bytes,
        source=source,
        notes="",
        uses_latent_attention=latent,
        global_kv_bytes_per_token_bf16=count.global_kv_bytes,
        state_bytes_per_sequence=count.state_bytes,
        intermediate_size=shapes.widest,
        routed_billion=count.routed / 1e9,
        unquantised_billion=(count.unquantised + vision.parameters + hidden) / 1e9,
        replicated_billion=(count.replicated + hidden) / 1e9,
        image_token_values=vision.token_values,
        encoder_values=vision.peak_values,
    )


def _experts(reader: _Reader, kind: str) -> tuple[int, int]:
    """Routed experts, and those that one token visits; 0 of a dense model."""
    has_experts = kind in _EXPERTS
    numbers = ("num_local_experts", "num_experts", "n_routed_experts")
    experts = reader.integer(*numbers, default=None if has_experts else 0, least=1 if has_experts else 0)
    if experts <= 1 and not has_experts:
        return experts, 0
    visited = ("num_experts_per_tok", "top_k_experts", "experts_per_token")
    chosen = reader.integer(*visited)
    if chosen > experts:
        reader.problems.append(
            f"{reader.named(visited)} is {chosen:,}, {chosen - experts:,} more than the {experts:,} experts of "
            f"{reader.named(numbers)}"
        )
    return experts, chosen


class _Reader:
    """Values of a configuration; remembers what is not there, and what cannot be."""

    def __init__(self, config: Config, prefix: str = "") -> None:
        self.config, self.prefix = config, prefix
        self.missing: dict[str, None] = {}
        self.problems: list[str] = []

    def named(self, names: Sequence[str]) -> str:
        """The first of ``names`` that has a value; the first one when none has."""
        return next((name for name in names if self.config.get(name) is not None), names[0])

    def integer(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """The whole number of the first of ``names`` that has a value.

        What is missing or wrong is remembered, and 1 stands for it: no division fails before it is told.
        """
        name = self.named(names)
        value = self.config.get(name)
        if value is None:
            if default is None:
                self.missing[" or ".join(names)] = None
                return 1
            return default
        most = _LARGEST_OF.get(name, _LARGEST)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and least <= value <= most and value == int(value):
            return int(value)
        self.wrong(name, value, f"a whole number from {least:,} to {most:,}")
        return 1

    def names(self, name: str, known: Sequence[str] = ()) -> Sequence[str]:
        """A list of names, of those that are ``known`` where there are such; empty when there is none."""
        values = self._list(name, "names")
        for value in values:
            if not isinstance(value, str) or (known and value not in known):
                self.wrong(name, value, f"one of {', '.join(known)}" if known else "a name", part=True)
                return ()
        return cast(Sequence[str], values)

    def numbers(self, name: str) -> Sequence[int]:
        """A list of places, counted from 0; empty when there is none."""
        values = self._list(name, "whole numbers")
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
                self.wrong(name, value, f"a whole number from 0 to {_LARGEST:,}", part=True)
                return ()
        return cast(Sequence[int], values)

    def text(self, name: str) -> str:
        """A text; empty when there is none."""
        value = self.config.get(name)
        if value is None or isinstance(value, str):
            return value or ""
        self.wrong(name, value, "a text")
        return ""

    def flag(self, name: str) -> bool | None:
        """True or false; None when neither is said."""
        value = self.config.get(name)
        if value is None or isinstance(value, bool):
            return value
        self.wrong(name, value, "true or false")
        return None

    def section(self, name: str) -> Config | None:
        """An object of its own inside the configuration; None when there is none. Raises ``ConfigError``."""
        value = self.config.get(name)
        if value is None or isinstance(value, dict):
            return cast(Config | None, value)
        raise ConfigError(f"{self.prefix}{name} is {_shown(value)}; it must be an object or left out")

    def _list(self, name: str, of: str) -> Sequence[object]:
        value = self.config.get(name)
        if value is None or isinstance(value, list):
            return cast(Sequence[object], value or ())
        self.wrong(name, value, f"a list of {of}")
        return ()

    def demand_multiple(self, name: str, value: int, divisor_name: str, divisor: int, way_out: str = "") -> None:
        """Remember it as a problem when ``value`` is no multiple of ``divisor``; nothing when either is not known."""
        if value % divisor and not self.problems and not self.missing:
            nearest = max(value // divisor, 1) * divisor
            self.problems.append(
                f"{self.prefix}{name} {value:,} is no multiple of {divisor_name} {divisor:,}; the nearest is "
                f"{nearest:,}{', ' if way_out else ''}{way_out}"
            )

    def wrong(self, name: str, value: object, wanted: str, *, part: bool = False) -> None:
        """Remember a value that cannot be, once."""
        told = f"{self.prefix}{name} {'holds' if part else 'is'} {_shown(value)}; it must be {wanted}"
        if told not in self.problems:
            self.problems.append(told)

    def raise_problems(self, kind: str) -> None:
        """Raise ``ConfigError`` with all that is missing or wrong; return when nothing is."""
        told = [f"model_type {kind} needs {', '.join(self.missing)}, which the file does not give"] * bool(self.missing)
        told += self.problems
        if told:
            raise ConfigError(f"{'; '.join(told)}. Take what the model's repository publishes")


def _shown(value: object) -> str:
    """A value as JSON writes it, cut to what fits in a message."""
    try:
        text = json.dumps(value)
    except ValueError:
        # Python does not write numbers of thousands of digits.
        text = "a number too long to print"
    return text if len(text) <= 40 else text[:39] + "…"


class _Shapes:
    """The layers of one family."""

    def __init__(
        self,
        kind: str,
        reader: _Reader,
        layers: int,
        hidden: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        experts: int,
        chosen: int,
    ) -> None:
        self.kind, self.reader, self.hidden = kind, reader, hidden
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.experts, self.chosen = experts, chosen
        windows = ("sliding_window", "attention_chunk_size")
        # Qwen2 and Qwen3 state a window that ``use_sliding_window`` switches off.
        off = reader.flag("use_sliding_window") is False
        self.window = 0 if off else reader.integer(*windows, default=0, least=0)
        self.kinds = self._layer_kinds(layers)
        if len(self.kinds) != layers and not reader.problems and not reader.missing:
            of_layers = "hybrid_override_pattern", "layer_types", "layers_block_type"
            reader.problems.append(
                f"{reader.named(of_layers)} names {len(self.kinds):,} layers, num_hidden_layers says {layers:,}"
            )
        self.attention_layers = sum(1 for name in self.kinds if name in {"global", "local"})
        self.matrices = 2 if kind in _TWO_MATRICES else 3
        self.widest = self._width_of_expert() if experts > 1 else self._dense_width()

    def _layer_kinds(self, layers: int) -> Sequence[str]:
        """Per layer ``global``, ``local``, ``state``, ``mlp`` or ``experts``."""
        reader, kind = self.reader, self.kind
        if kind == "nemotron_h":
            pattern = reader.text("hybrid_override_pattern")
            named = reader.names("layers_block_type", tuple(_KIND_OF_LAYER_TYPE))
            if not pattern and not named and not reader.problems:
                reader.missing["hybrid_override_pattern or layers_block_type"] = None
            marks = {"M": "state", "*": "global", "E": "experts", "-": "mlp"}
            if not marks.keys() >= set(pattern):
                reader.wrong("hybrid_override_pattern", pattern, f"made of {' '.join(marks)}")
                return []
            return [marks[mark] for mark in pattern] or [_KIND_OF_LAYER_TYPE[name] for name in named]
        known = tuple(_KIND_OF_LAYER_TYPE)
        types = reader.names("layer_types", known) or reader.names("layers_block_type", known)
        if types:
            kinds = [_KIND_OF_LAYER_TYPE[name] for name in types]
            return kinds if self.window else ["global" if name == "local" else name for name in kinds]
        if kind in _LINEAR_ATTENTION:
            every = reader.integer("full_attention_interval", default=4)
            return ["global" if (index + 1) % every == 0 else "state" for index in range(layers)]
        if kind == "bamba":
            attending = reader.numbers("attn_layer_indices")
            return ["global" if index in attending else "state" for index in range(layers)]
        if not self.window:
            return ["global"] * layers
        period = reader.integer("sliding_window_pattern", default=_GLOBAL_EVERY.get(kind, 0), least=0)
        if not period:
            return ["local"] * layers
        return ["global" if (index + 1) % period == 0 else "local" for index in range(layers)]

    def _dense_width(self) -> int:
        if self.kind == "nemotron_h" and "-" not in self.reader.text("hybrid_override_pattern"):
            return self.reader.integer("moe_intermediate_size", "intermediate_size")
        if self.kind == "llama4_text":
            return self.reader.integer("intermediate_size_mlp", "intermediate_size")
        return self.reader.integer("intermediate_size", "shared_intermediate_size", "moe_intermediate_size")

    def _width_of_expert(self) -> int:
        return self.reader.integer("moe_intermediate_size", "intermediate_size")

    def add_layer(self, count: _Count, index: int, *, attention_kept: bool, shared_kept: bool) -> None:
        """Add the parameters and caches of one layer; what is kept stays at 16 bit in the quantised release."""
        kind = self.kinds[index]
        norms = 2 * self.hidden
        count.total += norms
        count.unquantised += norms
        count.replicated += norms
        before = count.total
        if kind in {"global", "local"}:
            self._add_attention(count, local=kind == "local")
            count.unquantised += count.total - before if attention_kept else 0
        elif kind == "state":
            self._add_state(count)
        if self.kind == "nemotron_h":
            if kind == "experts":
                self._add_experts(count)
            elif kind == "mlp":
                count.total += 2 * self.hidden * self._dense_width()
            return
        before, routed, unquantised = count.total, count.routed, count.unquantised
        self._add_feed_forward(count, index)
        if shared_kept and count.routed > routed:
            # All but the routed experts, and but the router, which is counted as kept already.
            count.unquantised += count.total - before - (count.routed - routed) - (count.unquantised - unquantised)

    def _add_attention(self, count: _Count, *, local: bool) -> None:
        hidden, heads = self.hidden, self.heads
        if self.kind in _LATENT:
            self._add_latent_attention(count)
            return
        kv_heads, head_dim = self.kv_heads, self.head_dim
        values = 2
        if self.kind in _GEMMA_4 and not local:
            head_dim = self.reader.integer("global_head_dim", default=head_dim)
            kv_heads = self.reader.integer("num_global_key_value_heads", default=kv_heads)
            self.reader.demand_multiple("num_attention_heads", heads, "num_global_key_value_heads", kv_heads)
            values = 1 if self.reader.flag("attention_k_eq_v") else 2
        gate = 2 if self.reader.flag("attn_output_gate") or self.kind == "qwen3_next" else 1
        count.total += hidden * heads * head_dim * (1 + gate) + values * hidden * kv_heads * head_dim
        if self.kind in _WITH_BIAS:
            count.total += (heads + 2 * kv_heads) * head_dim
        kv_bytes = 2 * kv_heads * head_dim * 2
        count.kv_bytes += kv_bytes
        if not local:
            count.global_kv_bytes += kv_bytes
            count.global_layers += 1

    def _add_latent_attention(self, count: _Count) -> None:
        reader, hidden, heads = self.reader, self.hidden, self.heads
        latent, rope = reader.integer("kv_lora_rank"), reader.integer("qk_rope_head_dim")
        nope, value = reader.integer("qk_nope_head_dim"), reader.integer("v_head_dim")
        query = reader.integer("q_lora_rank", default=0, least=0)
        down = hidden * (query + latent + rope)
        # The sparse indexer of DeepSeek-V3.2: queries from the latent, one key, a weight per head.
        index_heads = reader.integer("index_n_heads", default=0, least=0)
        index_dim = reader.integer("index_head_dim", default=0, least=0)
        indexer = (query * index_heads * index_dim) + hidden * (index_dim + index_heads) if index_heads else 0
        up = (query or hidden) * heads * (nope + rope) + latent * heads * (nope + value) + heads * value * hidden
        count.total += down + indexer + up
        count.replicated += down + indexer
        kv_bytes = 2 * (latent + rope) + (132 if index_heads else 0)
        count.kv_bytes += kv_bytes
        count.global_kv_bytes += kv_bytes
        count.global_layers += 1

    def _add_state(self, count: _Count) -> None:
        """Gated delta net or Mamba-2: projections, convolution, and the state of one sequence."""
        reader, hidden = self.reader, self.hidden
        if self.kind in _LINEAR_ATTENTION:
            value_heads = reader.integer("linear_num_value_heads")
            key = reader.integer("linear_num_key_heads") * reader.integer("linear_key_head_dim")
            value = value_heads * reader.integer("linear_value_head_dim")
            mixed = 2 * key + value
            count.total += hidden * (mixed + value + 2 * value_heads) + value * hidden
            kernel = reader.integer("linear_conv_kernel_dim", default=4)
            state = value * reader.integer("linear_key_head_dim")
        else:
            mamba_heads = reader.integer("mamba_num_heads", "mamba_n_heads")
            inner = mamba_heads * reader.integer("mamba_head_dim", "mamba_d_head")
            states = reader.integer("ssm_state_size", "mamba_d_state")
            mixed = inner + 2 * reader.integer("n_groups", "mamba_n_groups") * states
            count.total += hidden * (mixed + inner + mamba_heads) + inner * hidden
            kernel = reader.integer("conv_kernel", "mamba_d_conv", default=4)
            state = inner * states
        count.total += mixed * kernel
        wide = reader.config.get("mamba_ssm_dtype") or reader.config.get("mamba_ssm_cache_dtype")
        count.state_bytes += mixed * (kernel - 1) * 2 + state * (4 if wide == "float32" else 2)

    def _add_feed_forward(self, count: _Count, index: int) -> None:
        reader = self.reader
        if self.experts <= 1:
            count.total += self.matrices * self.hidden * self._dense_width()
            return
        first_dense = reader.integer("first_k_dense_replace", default=0, least=0)
        step = reader.integer("decoder_sparse_step", "interleave_moe_layer_step", default=1)
        if index < first_dense or (index + 1) % step or index in reader.numbers("mlp_only_layers"):
            count.total += self.matrices * self.hidden * self._dense_width()
            return
        if self.kind in _GEMMA_4:
            count.total += 3 * self.hidden * self._dense_width()
        self._add_experts(count)

    def _add_experts(self, count: _Count) -> None:
        reader, hidden = self.reader, self.hidden
        # Nemotron's latent experts work between two projections of their own.
        latent = reader.integer("moe_latent_size", default=0, least=0)
        inside = latent or hidden
        expert = self.matrices * inside * self._width_of_expert()
        router = hidden * self.experts
        widths = ("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size")
        shared = reader.integer(*widths, default=0, least=0)
        if not shared:
            per_shared = self._width_of_expert()
            shared = reader.integer("n_shared_experts", "num_shared_experts", default=0, least=0) * per_shared
        if self.kind == "llama4_text":
            shared = self._width_of_expert()
        if self.kind == "granitemoehybrid":
            shared = reader.integer("shared_intermediate_size", default=0, least=0)
        routed = self.experts * expert
        if self.kind == "gpt_oss":
            routed += self.experts * (2 * self._width_of_expert() + hidden)
        count.total += routed + router + self.matrices * hidden * shared + 2 * hidden * latent
        count.routed += routed
        count.active_routed += routed * self.chosen / max(self.experts, 1)
        count.unquantised += router
        count.replicated += router


_KIND_OF_LAYER_TYPE = {
    "sliding_attention": "local",
    "chunked_attention": "local",
    "linear_attention": "state",
    "mamba": "state",
    "moe": "experts",
    "mlp": "mlp",
    "full_attention": "global",
    "attention": "global",
}


#: Every how many layers one is global where the file names no types: defaults of the configuration classes.
_GLOBAL_EVERY = {"cohere2": 4, "gemma2": 2, "gemma3_text": 6, "gpt_oss": 2, "llama4_text": 4}


def _language_model(config: Config) -> tuple[Config, str]:
    """The part that holds the language model, and its type."""
    outer = config.get("model_type")
    whole = _Reader(config)
    nested = whole.section("text_config") or whole.section("llm_config")
    text = nested or config
    kind = str(text.get("model_type") or _TEXT_TYPES.get(str(outer), outer))
    if kind not in KNOWN_TYPES:
        kind = _TEXT_TYPES.get(kind, kind)
    if outer is None and nested is None:
        raise ConfigError("it names no model_type, so it is no model's config.json")
    if kind not in KNOWN_TYPES:
        known = ", ".join(KNOWN_TYPES)
        raise ConfigError(f"model_type {kind} is not known; known are {known}")
    return text, kind


def _kept(config: Config) -> str:
    """Modules that the quantised release leaves at 16 bit, as ``quantization_config`` names them, in one text."""
    quantization = _Reader(_quantization(config) or {}, "quantization_config.")
    names = quantization.names("ignore") or quantization.names("modules_to_not_convert")
    if quantization.problems:
        raise ConfigError("; ".join(quantization.problems))
    return " ".join(names)


def _quantization(config: Config) -> Config | None:
    """What says how the release is quantised, wherever it stands; None when nothing does."""
    whole = _Reader(config)
    text = whole.section("text_config") or {}
    return whole.section("quantization_config") or _Reader(text, "text_config.").section("quantization_config")


def _tied(config: Config, reader: _Reader, kind: str) -> bool:
    stated = reader.flag("tie_word_embeddings")
    if stated is None:
        outer = config.get("tie_word_embeddings")
        stated = outer if isinstance(outer, bool) else None
    return kind.startswith(_TIED_BY_DEFAULT) if stated is None else stated


@dataclass(frozen=True, slots=True)
class _Vision:
    parameters: float = 0.0
    token_values: int = 0
    peak_values: int = 0


def _vision(config: Config, text_hidden: int) -> _Vision:
    """A vision transformer: attention and feed-forward of its layers, and the mergers into image tokens."""
    vision = _Reader(config).section("vision_config")
    if vision is None:
        return _Vision()
    reader = _Reader(vision, "vision_config.")
    hidden = reader.integer("hidden_size", "vt_hidden_size", default=0)
    layers = reader.integer("depth", "num_hidden_layers", "vt_num_hidden_layers", default=0)
    wide = reader.integer("intermediate_size", "vt_intermediate_size", default=4 * hidden)
    gated = 3 if "silu" in str(reader.config.get("hidden_act")) or vision.get("model_type") == "gemma4_vision" else 2
    patches = reader.integer("spatial_merge_size", default=1) ** 2
    merged = patches * hidden
    mergers = 1 + len(reader.numbers("deepstack_visual_indexes"))
    out = reader.integer("out_hidden_size", default=hidden)
    reader.raise_problems("of vision_config")
    return _Vision(
        parameters=layers * (4 * hidden**2 + gated * hidden * wide) + mergers * (merged * merged + merged * out),
        token_values=text_hidden * mergers,
        peak_values=patches * (4 * hidden + gated * wide),
    )


def _method(config: Config) -> str:
    """The quantisation of the model's own release, from ``quantization_config``."""
    quantization = _quantization(config)
    if not quantization:
        return "fp16"
    method = str(quantization.get("quant_method", ""))
    if method in {"fp8", "mxfp4", "awq"}:
        return method
    if method == "fbgemm_fp8":
        return "fp8"
    if method == "gptq" and quantization.get("bits", 4) == 4:
        return "gptq"
    if method in {"modelopt", "modelopt_fp4", "compressed-tensors"}:
        return _method_of_groups(quantization)
    raise ConfigError(
        f"quantization_config names {method or 'no method'}; known are awq, compressed-tensors, fp8, gptq (4 bit), "
        "modelopt, mxfp4"
    )


def _method_of_groups(quantization: Config) -> str:
    """compressed-tensors and ModelOpt describe groups of layers by bits and type."""
    algorithm = str(quantization.get("quant_algo", "")).lower()
    if algorithm in {"fp8", "nvfp4"}:
        return algorithm
    groups = quantization.get("config_groups")
    first: object = next(iter(cast(Config, groups).values()), {}) if isinstance(groups, dict) else {}
    group = cast(Config, first) if isinstance(first, dict) else {}
    weights = group.get("weights")
    parts = cast(Config, weights) if isinstance(weights, dict) else {}
    bits, kind = parts.get("num_bits"), parts.get("type")
    named = {(8, "float"): "fp8", (8, "int"): "int8", (4, "float"): "nvfp4", (4, "int"): "w4a16"}
    for pair, name in named.items():
        if (bits, kind) == pair:
            return name
    raise ConfigError(f"quantization_config holds weights of {bits} bit {kind}, which is not known")


def divisors(heads: int, kv_heads: int, largest: int = 8) -> tuple[int, ...]:
    """The tensor parallel sizes up to ``largest`` that divide the heads, and the KV heads or are a multiple of them."""
    return tuple(
        size for size in range(1, largest + 1) if heads % size == 0 and math.gcd(size, kv_heads) in {size, kv_heads}
    )
