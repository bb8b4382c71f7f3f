"""The memory model against published sizes and vLLM's start-up logs. The logs end at vLLM 0.27: it proves nothing about
newer ones.
"""

from dataclasses import replace

import pytest

from planning.facts.checkpoints import BITS_PER_WEIGHT, Checkpoint, all_checkpoints, checkpoints
from planning.facts.gpus import gpu
from planning.facts.gpus import gpus as catalogue_gpus
from planning.facts.logged_models import logged_model
from planning.facts.models import model
from planning.memory import (
    GIB,
    NON_TORCH_GIB,
    activation_gib,
    communication_gib,
    fit,
    kv_bytes_per_sequence,
    kv_bytes_per_token,
    kv_shards,
    visible_gib,
    weight_bytes,
    weight_gib_per_gpu,
)

LLAMA_8B, LLAMA_70B, LLAMA_405B = (f"meta-llama/Llama-3.1-{size}-Instruct" for size in ("8B", "70B", "405B"))


def checkpoint(model_id: str, method: str) -> Checkpoint:
    return next(entry for entry in checkpoints(model_id) if entry.method == method)


@pytest.mark.parametrize(
    ("model_id", "method", "gpu_name", "gpus", "fits"),
    [
        (LLAMA_70B, "w4a16", "A100-80GB", 1, True),
        (LLAMA_70B, "fp16", "A100-80GB", 1, False),
        (LLAMA_70B, "fp16", "A100-80GB", 2, True),
        (LLAMA_405B, "fp8", "H100", 8, True),
        (LLAMA_405B, "fp16", "H100", 8, False),
        (LLAMA_8B, "fp16", "T4", 1, False),
    ],
)
def test_what_is_known_to_fit_fits_and_what_is_known_not_to_does_not(
    model_id: str, method: str, gpu_name: str, gpus: int, fits: bool
) -> None:
    memory = fit(model(model_id), checkpoint(model_id, method), gpu(gpu_name), gpus, max_model_len=8192)
    assert memory.fits is fits
    assert bool(memory.reason) is not fits


@pytest.mark.parametrize(
    ("model_id", "bytes_per_token"), [(LLAMA_8B, 131_072), (LLAMA_70B, 327_680), ("Qwen/Qwen3-32B", 262_144)]
)
def test_kv_bytes_per_token_are_those_of_the_architecture(model_id: str, bytes_per_token: int) -> None:
    assert kv_bytes_per_token(model(model_id), "auto") == bytes_per_token
    assert kv_bytes_per_token(model(model_id), "fp8") == bytes_per_token / 2


def test_sliding_windows_stop_growing() -> None:
    gemma = model("google/gemma-3-27b-it")
    short, long = (kv_bytes_per_sequence(gemma, "auto", tokens) for tokens in (1024, 2048))
    everything_global = gemma.kv_bytes_per_token_bf16
    assert short == pytest.approx(1024 * everything_global)
    # 10 of 62 layers keep the second thousand.
    assert long - short == pytest.approx(1024 * everything_global * 10 / 62)


def test_latent_attention_is_held_whole_by_every_gpu() -> None:
    assert kv_shards(model("deepseek-ai/DeepSeek-V3"), 8) == 1
    assert kv_shards(model(LLAMA_70B), 4) == 4
    # Four KV heads on eight GPUs are copied.
    assert kv_shards(model("Qwen/Qwen3-30B-A3B"), 8) == 4


def test_computed_weights_are_the_published_sizes() -> None:
    compared = 0
    for model_id, entries in all_checkpoints().items():
        for entry in entries:
            # DeepSeek's hold a draft head too, gpt-oss keeps attention and Gemma its vision tower at 16 bits.
            if entry.method in BITS_PER_WEIGHT and not model_id.startswith(("deepseek", "openai", "google")):
                compared += 1
                computed = weight_bytes(model(model_id), entry).total / 1e9
                assert computed == pytest.approx(entry.weights_gb, rel=0.03, abs=0.1), entry.repository
    assert compared > 50


@pytest.mark.parametrize(
    ("model_id", "version", "sequences", "batched_tokens", "logged_gib"),
    [
        # facts/data/vllm_kv_cache_logs.csv, column activation_gib_reported
        (LLAMA_8B, (0, 11), 1024, 8192, 4.76),
        ("Qwen/Qwen3-0.6B", (0, 11), 1024, 8192, 5.56),
        ("openai/gpt-oss-120b", (0, 11), 1024, 8192, 7.38),
        ("meta-llama/Llama-3.2-3B-Instruct", (0, 8), 192, 2048, 0.90),
    ],
)
def test_activation_peaks_are_those_that_vllm_logged(
    model_id: str, version: tuple[int, ...], sequences: int, batched_tokens: int, logged_gib: float
) -> None:
    peak = activation_gib(model(model_id), 1, sequences, batched_tokens, vllm=version)
    assert peak == pytest.approx(logged_gib, rel=0.05)


def test_a_long_prefill_peaks_in_the_forward_pass_as_vllm_logged() -> None:
    # The V100 row of the same file: 32,768 tokens at once in vLLM 0.8, 4.35 GiB.
    qwen = logged_model("Qwen/Qwen2.5-7B-Instruct")
    assert qwen is not None
    assert activation_gib(qwen, 1, 256, 32768, vllm=(0, 8)) == pytest.approx(4.35, rel=0.01)


@pytest.mark.parametrize(
    ("dtype", "compression"),
    # The ratios that vLLM's turboquant/config.py states for heads of 128 (nothing for the others is published there).
    [("turboquant_k8v4", 2.6), ("turboquant_4bit_nc", 3.8), ("turboquant_3bit_nc", 4.9), ("fp8", 2.0)],
)
def test_cache_dtypes_compress_as_vllm_states(dtype: str, compression: float) -> None:
    qwen = replace(model("Qwen/Qwen3-32B"), layers=10_000, global_attention_layers=10_000)
    shrunk = kv_bytes_per_token(qwen, "auto") / kv_bytes_per_token(qwen, dtype)
    # Boundary layers at 16 bit are lost among so many.
    assert shrunk == pytest.approx(compression, rel=0.03)


def test_turboquant_keeps_two_layers_at_each_end_in_16_bit() -> None:
    qwen = model("Qwen/Qwen3-8B")
    compressed = 2 * qwen.kv_heads * (128 / 2 + 128 / 2 + 6)
    expected = 4 * 2 * qwen.kv_heads * 128 * 2 + 32 * compressed / 2
    assert kv_bytes_per_token(qwen, "turboquant_4bit_nc") == pytest.approx(expected)


def test_weights_on_each_gpu_are_those_that_vllm_logged() -> None:
    # Column weights_gib_reported: MLA's down-projections and routers lie whole on all 8 GPUs.
    deepseek = model("deepseek-ai/DeepSeek-R1")
    assert weight_gib_per_gpu(deepseek, checkpoint(deepseek.model_id, "fp8"), 8) == pytest.approx(79.58, rel=0.005)
    qwen = model("Qwen/Qwen3-235B-A22B")
    assert weight_gib_per_gpu(qwen, checkpoint(qwen.model_id, "fp16"), 4) == pytest.approx(109.61, rel=0.005)
    gpt = model("openai/gpt-oss-120b")
    assert weight_gib_per_gpu(gpt, checkpoint(gpt.model_id, "mxfp4"), 1) == pytest.approx(64.38, rel=0.01)


def test_one_gpu_holds_nothing_whole_beyond_its_share_and_pads_mxfp4_experts() -> None:
    gpt = model("openai/gpt-oss-120b")

    def items(gpus: int) -> dict[str, float]:
        memory = fit(gpt, checkpoint(gpt.model_id, "mxfp4"), gpu("H100"), gpus, max_model_len=8192)
        return {item.name: item.gib_per_gpu for item in memory.items}

    one, two = items(1), items(2)
    assert not {"weights, held whole by every GPU", "communication"} & one.keys()
    # 64.38 GiB logged (vllm_kv_cache_logs.csv) of a checkpoint of 60.8 GiB (OpenAI's model card).
    assert one["weights, padding of experts"] == pytest.approx(64.38 - 60.8, rel=0.1)
    # Halves of 1,440 go to 1,536: the same share of padding.
    assert two["weights, padding of experts"] == pytest.approx(one["weights, padding of experts"] / 2)
    # 36 routers of 2,880 x 128 and 73 norms of 2,880 at 16 bit: half of them lie on each GPU beyond its share.
    assert two["weights, held whole by every GPU"] == pytest.approx((36 * 128 + 73) * 2880 * 2 / 2 / GIB, rel=0.01)


def test_no_item_is_too_small_to_be_seen() -> None:
    for gpus in (2, 4):
        memory = fit(model(LLAMA_70B), checkpoint(LLAMA_70B, "fp16"), gpu("H200"), gpus, max_model_len=8192)
        assert all(item.gib_per_gpu >= 0.005 for item in memory.items)
        weights = sum(item.gib_per_gpu for item in memory.items if item.name.startswith("weights"))
        assert weights == pytest.approx(
            weight_gib_per_gpu(model(LLAMA_70B), checkpoint(LLAMA_70B, "fp16"), gpus), rel=1e-9
        )


@pytest.mark.parametrize(("gpus", "logged_gib"), [(2, 0.25), (8, 0.21)])
def test_memory_outside_torch_over_pcie_is_what_vllm_logged(gpus: int, logged_gib: float) -> None:
    # Column non_torch_gib_reported: two RTX 4090 and eight L40S.
    assert NON_TORCH_GIB + communication_gib(gpus, nvlink=False) == pytest.approx(logged_gib, abs=0.05)


def test_a_gpu_shows_no_more_memory_than_ec2_reports_of_it_and_little_less() -> None:
    for name, each in catalogue_gpus().items():
        # ECC takes a sixteenth of a T4 (16 GiB: nvidia-smi shows 15,360 MiB); the others keep theirs beside.
        least = 0.9 if name == "T4" else 0.98
        assert least * each.memory_gib <= visible_gib(each) <= each.memory_gib, name


def test_recurrent_state_counts_once_a_sequence_whatever_its_length() -> None:
    hybrid = logged_model("Qwen/Qwen3.5-35B-A3B")
    assert hybrid is not None
    short, long = (kv_bytes_per_sequence(hybrid, "auto", tokens) for tokens in (1000, 2000))
    # 10 of 40 layers attend, with 2 KV heads of 256.
    assert long - short == 1000 * 10 * 2 * 2 * 256 * 2
    assert short - (long - short) == hybrid.state_bytes_per_sequence > 30 * 32 * 128 * 128 * 4


@pytest.mark.parametrize(
    ("model_id", "gpu_name", "batched_tokens", "logged_kv_gib"),
    [(LLAMA_8B, "A100-40GB", 8192, 19.28), ("Qwen/Qwen3-8B", "A100-40GB", 2048, 18.69)],
)
def test_kv_cache_left_over_is_what_vllm_logged_within_one_percent(
    model_id: str, gpu_name: str, batched_tokens: int, logged_kv_gib: float
) -> None:
    memory = fit(
        model(model_id),
        checkpoint(model_id, "fp16"),
        gpu(gpu_name),
        1,
        max_model_len=40960,
        max_num_seqs=256,
        max_num_batched_tokens=batched_tokens,
        gpu_memory_utilization=0.9,
    )
    # The logs are of vLLM 0.9 and 0.15, which did not yet count CUDA graphs inside its share, and sorted to sample.
    items = {item.name: item.gib_per_gpu for item in memory.items}
    sorting = activation_gib(model(model_id), 1, 256, batched_tokens, vllm=(0, 15))
    then = memory.kv_gib_per_gpu + items["CUDA graphs"] + items["activations"] - sorting
    assert then == pytest.approx(logged_kv_gib, rel=0.01)


def test_items_add_up_to_the_memory_of_the_gpu() -> None:
    memory = fit(model(LLAMA_70B), checkpoint(LLAMA_70B, "w4a16"), gpu("A100-80GB"), 1, max_model_len=8192)
    # 79.15 GiB is what torch reports of an 80 GB A100.
    assert sum(item.gib_per_gpu for item in memory.items) == pytest.approx(79.15)
    assert memory.weights_gib == pytest.approx(39.5e9 / GIB, rel=0.01)
