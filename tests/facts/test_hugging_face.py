"""Architectures counted from ``config.json``. The configurations are the published numbers of the repositories named;
a family is proven for the models here, not for every model of its type.
"""

import copy
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planning.__main__ import main
from planning.facts.hugging_face import ConfigError, architecture_of, divisors, published_model, read_config
from planning.facts.logged_models import logged_model, logged_models, shape_name
from planning.facts.models import model

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
}
QWEN_30B: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 48,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "sliding_window": None,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "max_position_embeddings": 40960,
}
DEEPSEEK_R1: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "hidden_size": 7168,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "vocab_size": 129280,
    "tie_word_embeddings": False,
    "max_position_embeddings": 163840,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}
GPT_OSS_20B: dict[str, Any] = {
    "model_type": "gpt_oss",
    "num_hidden_layers": 24,
    "hidden_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 2880,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "vocab_size": 201088,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
    "quantization_config": {"quant_method": "mxfp4"},
}
GEMMA_3_4B: dict[str, Any] = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "hidden_size": 2560,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "intermediate_size": 10240,
        "sliding_window": 1024,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
    },
    "vision_config": {"num_hidden_layers": 27, "hidden_size": 1152, "intermediate_size": 4304},
}
NEMOTRON_NANO: dict[str, Any] = {
    "model_type": "nemotron_h",
    "num_hidden_layers": 52,
    "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    "hidden_size": 2688,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "intermediate_size": 1856,
    "moe_intermediate_size": 1856,
    "moe_shared_expert_intermediate_size": 3712,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "num_experts_per_tok": 6,
    "mamba_num_heads": 64,
    "mamba_head_dim": 64,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
    "mamba_ssm_cache_dtype": "float32",
    "vocab_size": 131072,
    "tie_word_embeddings": False,
    "max_position_embeddings": 262144,
}


@pytest.mark.parametrize(
    ("config", "model_id"),
    [
        (LLAMA_8B, "meta-llama/Llama-3.1-8B-Instruct"),
        (QWEN_30B, "Qwen/Qwen3-30B-A3B"),
        (DEEPSEEK_R1, "deepseek-ai/DeepSeek-R1"),
        (GPT_OSS_20B, "openai/gpt-oss-20b"),
        (GEMMA_3_4B, "google/gemma-3-4b-it"),
    ],
)
def test_a_configuration_gives_the_catalogues_architecture(config: dict[str, Any], model_id: str) -> None:
    counted, listed = architecture_of(config, model_id), model(model_id)
    assert counted.params_billion == pytest.approx(listed.params_billion, rel=0.002)
    for name in (
        "layers",
        "kv_heads",
        "head_dim",
        "vocab_size",
        "tied_embeddings",
        "experts",
        "experts_per_token",
        "sliding_window",
        "global_attention_layers",
        "max_context",
        "kv_bytes_per_token_bf16",
        "uses_latent_attention",
    ):
        assert getattr(counted, name) == getattr(listed, name), name


def test_active_parameters_are_the_published_ones() -> None:
    assert architecture_of(QWEN_30B, "").active_params_billion == pytest.approx(3.353, rel=0.002)
    # DeepSeek's paper: 37 B, without the input embeddings (0.9 B).
    assert architecture_of(DEEPSEEK_R1, "").active_params_billion == pytest.approx(37 + 0.9, rel=0.02)


def test_a_hybrid_has_a_cache_in_its_attention_layers_and_a_state_in_the_others() -> None:
    nano = architecture_of(NEMOTRON_NANO, "")
    # NVIDIA: 31.6 B parameters, 3.6 B active with embeddings; 6 attention and 23 Mamba-2 layers.
    assert nano.params_billion == pytest.approx(31.6, rel=0.005)
    assert nano.active_params_billion == pytest.approx(3.6, rel=0.01)
    assert nano.kv_bytes_per_token_bf16 == 6 * 2 * 2 * 128 * 2
    assert nano.state_bytes_per_sequence == 23 * (64 * 64 * 128 * 4 + (4096 + 2 * 8 * 128) * 3 * 2)


def test_the_release_has_the_method_of_its_quantization_config() -> None:
    assert published_model(LLAMA_8B, "own/llama").checkpoint.method == "fp16"
    assert published_model(DEEPSEEK_R1, "own/r1").checkpoint.method == "fp8"
    # Hugging Face lists 13.8 GB of gpt-oss-20b's safetensors.
    assert published_model(GPT_OSS_20B, "own/oss").checkpoint.weights_gb == pytest.approx(13.8, rel=0.01)
    groups = {"group_0": {"weights": {"num_bits": 4, "type": "int"}}}
    config = {**LLAMA_8B, "quantization_config": {"quant_method": "compressed-tensors", "config_groups": groups}}
    assert published_model(config, "own/w4").checkpoint.method == "w4a16"


def test_modules_that_a_release_leaves_unquantised_count_at_16_bit() -> None:
    config = {**QWEN_30B, "quantization_config": {"quant_method": "fp8", "ignore": ["re:.*self_attn.*", "lm_head"]}}
    kept, plain = (
        published_model(config, ""),
        published_model({**config, "quantization_config": {"quant_method": "fp8"}}, ""),
    )
    attention = 48 * (2048 * 32 * 128 * 2 + 2 * 2048 * 4 * 128)
    assert kept.checkpoint.weights_gb - plain.checkpoint.weights_gb == pytest.approx(attention / 1e9)


def test_the_method_may_stand_in_a_file_of_modelopts_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    assert read_config(tmp_path, "own/llama").checkpoint.method == "nvfp4"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is not JSON: line 1"),
        ("[]", "holds no JSON object"),
        ("{}", "names no model_type"),
        (json.dumps({**LLAMA_8B, "model_type": "rwkv"}), "model_type rwkv is not known; known are bamba, "),
        (
            json.dumps({"model_type": "llama", "hidden_size": 8}),
            "needs num_hidden_layers or n_layer, num_attention_heads",
        ),
        (json.dumps({**LLAMA_8B, "quantization_config": {"quant_method": "hqq"}}), "names hqq; known are awq"),
    ],
)
def test_a_file_that_is_no_architecture_is_an_error_that_says_why(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json") as error:
        read_config(tmp_path)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("config", "field", "value", "expected"),
    [
        (LLAMA_8B, "num_attention_heads", 0, "num_attention_heads is 0; it must be a whole number from 1 to 1,048,576"),
        (LLAMA_8B, "num_key_value_heads", 0, "num_key_value_heads is 0; it must be"),
        (LLAMA_8B, "num_hidden_layers", 0, "num_hidden_layers is 0; it must be a whole number from 1 to 1,024"),
        (LLAMA_8B, "hidden_size", 1e400, "hidden_size is Infinity; it must be"),
        (LLAMA_8B, "hidden_size", 4096.5, "hidden_size is 4096.5; it must be a whole number"),
        (
            LLAMA_8B,
            "hidden_size",
            4100,
            "4,100 is no multiple of num_attention_heads 32; the nearest is 4,096",
        ),
        (LLAMA_8B, "num_key_value_heads", 7, "num_attention_heads 32 is no multiple of num_key_value_heads 7"),
        (LLAMA_8B, "tie_word_embeddings", "no", 'tie_word_embeddings is "no"; it must be true or false'),
        (LLAMA_8B, "quantization_config", "fp8", 'quantization_config is "fp8"; it must be an object or left out'),
        (QWEN_30B, "mlp_only_layers", ["a"], 'mlp_only_layers holds "a"; it must be a whole number from 0'),
        (
            QWEN_30B,
            "num_experts_per_tok",
            129,
            "is 129, 1 more than the 128 experts of num_experts",
        ),
        (GPT_OSS_20B, "layer_types", ["zebra"] * 24, 'layer_types holds "zebra"; it must be one of sliding_attention'),
        (GPT_OSS_20B, "layer_types", ["full_attention"], "layer_types names 1 layers, num_hidden_layers says 24"),
        (NEMOTRON_NANO, "hybrid_override_pattern", "MEZ", "it must be made of M * E -"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_limit(
    config: dict[str, Any], field: str, value: object, expected: str
) -> None:
    with pytest.raises(ConfigError) as error:
        published_model({**config, field: value}, "")
    assert expected in str(error.value)


NUMBERS = count()
CONFIGS = (LLAMA_8B, QWEN_30B, DEEPSEEK_R1, GPT_OSS_20B, GEMMA_3_4B, NEMOTRON_NANO)
#: ``...``: the field is not there.
ODD_VALUES = (..., 0, 1, 3, -1, 0.5, 1e400, 10**30, 10**6, "a", None, [], ["a"], [-1], {}, {"a": 1}, True)
ODD_FIELDS = ("layer_types", "layers_block_type", "mlp_only_layers", "text_config", "vision_config", "num_experts")


def fields(config: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inside = [path for name, value in config.items() if isinstance(value, dict) for path in fields(value, (name,))]
    return [(*above, name) for name in config] + inside


@st.composite
def odd_config(draw: st.DrawFn) -> dict[str, Any]:
    """A published configuration with one field taken away or made odd."""
    config = copy.deepcopy(draw(st.sampled_from(CONFIGS)))
    *above, name = draw(st.sampled_from([*fields(config), *((field,) for field in ODD_FIELDS)]))
    inside = config[above[0]] if above else config
    value = draw(st.sampled_from(ODD_VALUES))
    if value is ...:
        inside.pop(name, None)
    else:
        inside[name] = value
    return config


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd_config())
def test_fit_answers_every_odd_configuration_with_figures_or_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, Any]
) -> None:
    # A new name each time: the command reads a file once.
    file = tmp_path / f"{next(NUMBERS)}.json"
    file.write_text(json.dumps(config))
    code = main(["fit", "--model", str(file), "--gpu", "H100", "--max-model-len", "512", "--json"])
    out, err = capsys.readouterr()
    assert (code, bool(out), err.count("\n")) in {(0, True, 0), (2, False, 1)}


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd_config())
def test_a_stack_file_answers_odd_configurations_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, Any]
) -> None:
    stack = yaml.safe_load((Path(__file__).parents[2] / "Pulumi.dev.yaml").read_text())
    tier = stack["config"]["frugal-llm:tiers"][0]
    tier |= {"model": "own/odd", "architecture": "config.json", "quantization": "auto"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump(stack))
    code = main(["plan", str(tmp_path / "Pulumi.dev.yaml"), "--json"])
    out, err = capsys.readouterr()
    assert (code, bool(out), bool(err)) in {(0, True, False), (2, False, True)}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there"):
        read_config(tmp_path / "config.json")


def test_all_missing_fields_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        architecture_of({"model_type": "qwen3_moe"}, "")
    for field in ("hidden_size", "num_attention_heads", "vocab_size", "num_experts_per_tok"):
        assert field in str(error.value)


def test_parallel_sizes_divide_the_heads() -> None:
    assert divisors(64, 8) == (1, 2, 4, 8)
    # Qwen2.5-7B and Yi-34B.
    assert divisors(28, 4) == (1, 2, 4)
    assert divisors(56, 8) == (1, 2, 4, 8)


def test_names_of_logs_lose_what_does_not_change_the_shape() -> None:
    assert shape_name("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4") == "llama-3.1-70b"
    assert shape_name("RedHatAI/Qwen3-235B-A22B-Instruct-2507-FP8-dynamic") == "qwen3-235b-a22b"
    assert logged_model("unsloth/Phi-4-unsloth-bnb-4bit") is logged_models()["phi-4"]
    assert logged_model("Qwen/Qwen3-9999B") is None


def test_every_catalogue_model_has_the_same_architecture_in_the_logs_file() -> None:
    for name, logged in logged_models().items():
        assert logged.params_billion >= logged.routed_billion, name
    for model_id in ("Qwen/Qwen3-14B", "google/gemma-3-27b-it", "deepseek-ai/DeepSeek-V3", "01-ai/Yi-34B-Chat"):
        logged = logged_model(model_id)
        assert logged is not None
        assert logged.params_billion == pytest.approx(model(model_id).params_billion, rel=0.001)
