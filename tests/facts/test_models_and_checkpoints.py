"""The catalogue of models and their checkpoints, against published figures."""

from __future__ import annotations

import pytest

from planning.facts.checkpoints import all_checkpoints, checkpoints
from planning.facts.models import kv_bytes_per_token, model, models
from planning.facts.table import DATA, UnknownFact, read_table


def methods(model_id: str) -> list[str]:
    return [checkpoint.method for checkpoint in checkpoints(model_id)]


def test_llama_2_7b_keeps_524288_bytes_a_token_as_vllm_logged() -> None:
    # 115,056 tokens in 56.18 GiB
    assert kv_bytes_per_token(layers=32, kv_heads=32, head_dim=128) == pytest.approx(56.18 * 2**30 / 115_056, rel=1e-3)
    assert kv_bytes_per_token(layers=32, kv_heads=32, head_dim=128) == 524_288


def test_llama_3_1_8b_is_as_in_its_published_configuration() -> None:
    llama = model("meta-llama/Llama-3.1-8B-Instruct")
    assert (llama.layers, llama.hidden_size, llama.attention_heads, llama.kv_heads) == (32, 4096, 32, 8)
    assert (llama.vocab_size, llama.max_context, llama.tied_embeddings) == (128_256, 131_072, False)
    assert llama.params_billion == 8.03
    assert llama.kv_bytes_per_token_bf16 == 131_072
    assert llama.gated
    assert llama.sliding_window is None


def test_only_deepseeks_cache_is_a_latent_and_far_smaller_than_its_heads() -> None:
    latent = {model_id for model_id, architecture in models().items() if architecture.uses_latent_attention}
    assert latent == {"deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-R1"}
    # (kv_lora_rank 512 + rope 64) x 61 layers x 2 bytes, DeepSeek-V3's configuration
    assert model("deepseek-ai/DeepSeek-V3").kv_bytes_per_token_bf16 == (512 + 64) * 61 * 2


def test_gemma_and_gpt_oss_keep_only_some_layers_global() -> None:
    assert (model("google/gemma-3-27b-it").sliding_window, model("google/gemma-3-27b-it").layers) == (1024, 62)
    assert model("google/gemma-3-27b-it").global_attention_layers == 10
    assert model("openai/gpt-oss-20b").global_attention_layers == 12
    for architecture in models().values():
        has_window = architecture.sliding_window is not None
        assert has_window == (architecture.global_attention_layers < architecture.layers), architecture.model_id


def test_a_model_without_experts_uses_all_its_parameters() -> None:
    for architecture in models().values():
        dense = architecture.experts == 1
        assert dense == (architecture.active_params_billion == architecture.params_billion), architecture.model_id


def test_a_gate_that_has_been_on_and_off_counts_as_on() -> None:
    assert model("mistralai/Mixtral-8x7B-Instruct-v0.1").gated
    assert not model("Qwen/Qwen3-8B").gated


def test_the_16_bit_checkpoint_is_the_models_own_repository_at_two_bytes_a_parameter() -> None:
    own = checkpoints("meta-llama/Llama-3.1-70B-Instruct")[0]
    assert own.method == "fp16"
    assert own.repository == "meta-llama/Llama-3.1-70B-Instruct"
    assert own.weights_gb == pytest.approx(141.1, abs=0.05)


def test_models_released_quantised_have_no_16_bit_checkpoint() -> None:
    assert methods("openai/gpt-oss-120b") == ["mxfp4"]
    assert methods("deepseek-ai/DeepSeek-V3") == ["fp8"]
    assert methods("deepseek-ai/DeepSeek-R1") == ["fp8", "awq"]
    assert sum("fp16" not in methods(model_id) for model_id in models()) == 4


def test_a_quantised_repository_of_the_same_owner_does_not_hide_the_16_bit_one() -> None:
    # meta-llama/Llama-3.1-405B-Instruct-FP8 is Meta's own, but not the model's own repository.
    assert methods("meta-llama/Llama-3.1-405B-Instruct")[0] == "fp16"


def test_w8a8_is_called_int8_and_8_bit_gptq_keeps_its_name() -> None:
    assert "int8" in methods("meta-llama/Llama-3.1-8B-Instruct")
    assert "gptq8" in methods("01-ai/Yi-34B-Chat")
    assert not any(checkpoint.method == "w8a8" for own in all_checkpoints().values() for checkpoint in own)


def test_the_70b_awq_checkpoint_is_the_one_that_exists() -> None:
    # TheBloke stopped before Llama 3.1; the 39.8 GB agree with the repository's list of shards.
    (awq,) = (own for own in checkpoints("meta-llama/Llama-3.1-70B-Instruct") if own.method == "awq")
    assert awq.repository == "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4"
    assert awq.weights_gb == 39.8
    assert awq.verified


def test_a_checkpoint_whose_source_asks_to_verify_is_not_verified() -> None:
    unseen = {own.repository for each in all_checkpoints().values() for own in each if not own.verified}
    assert "hugging-quants/Meta-Llama-3.1-8B-Instruct-GPTQ-INT4" in unseen
    assert "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8" not in unseen


def test_every_checkpoint_belongs_to_a_model_of_the_catalogue() -> None:
    listed = read_table(DATA / "checkpoints.csv", ("base_model_id",), lambda row: row.name("base_model_id"))
    assert set(listed) <= set(models())
    native = {"openai/gpt-oss-20b", "openai/gpt-oss-120b", "deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-R1"}
    assert sum(len(own) for own in all_checkpoints().values()) == len(listed) + len(models()) - len(native)


def test_gguf_sizes_are_those_of_the_published_files() -> None:
    # bartowski's table for Llama-3.1-70B
    sizes = {own.method: own.weights_gb for own in checkpoints("meta-llama/Llama-3.1-70B-Instruct")}
    assert sizes["gguf-q4_k_m"] == 42.52
    assert sizes["gguf-q8_0"] == 74.98


def test_checkpoints_of_an_unknown_model_say_which_was_meant() -> None:
    with pytest.raises(UnknownFact, match="did you mean Qwen/Qwen3-8B"):
        checkpoints("Qwen/Qwen-3-8B")
