"""Published measurements: complete, typed and honest about what the sources left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from planning.facts.gpus import gpus
from planning.facts.measurements import kv_cache_logs, measured_architectures, measurements
from planning.facts.models import model
from planning.facts.table import InvalidTable


def test_a_published_row_is_read_as_printed() -> None:
    # TensorRT-LLM's performance page of v0.14: Llama 3.1 405B in fp8 on eight H200, 1000 in and 1000 out.
    first = measurements()[0]
    assert (first.model, first.quantization, first.gpu, first.gpu_count) == ("llama-3.1-405b", "fp8", "H200", 8)
    assert (first.input_tokens, first.output_tokens, first.output_tokens_per_s) == (1000, 1000, 3391.04)
    assert first.concurrency is None
    assert first.ttft_p50_ms is None


def test_every_measured_gpu_is_a_known_one() -> None:
    assert len(measurements()) == 3393
    assert {row.gpu for row in measurements()} <= set(gpus())


def test_three_measured_models_have_no_architecture_and_all_others_have() -> None:
    unknown = {row.model for row in measurements()} - set(measured_architectures())
    assert unknown == {"nemotron-super-49b", "nemotron-3-nano-30b-a3b", "gemma-4-26b-a4b"}


def test_a_short_name_of_a_catalogue_model_stands_for_that_model() -> None:
    assert measured_architectures()["llama-3-8b"] == model("meta-llama/Llama-3.1-8B-Instruct")
    assert measured_architectures()["deepseek-v3"].uses_latent_attention


def test_a_model_that_is_only_measured_has_its_architecture_but_no_context_or_licence() -> None:
    llama2 = measured_architectures()["llama-2-7b"]
    assert llama2.kv_bytes_per_token_bf16 == 524_288
    assert (llama2.max_context, llama2.license) == (0, "")
    assert not llama2.uses_latent_attention


def test_kv_gib_and_tokens_of_a_log_agree_with_the_architecture() -> None:
    # Llama-3.1-8B on H100, vLLM logs: within 0.2 % for standard attention.
    logs = [log for log in kv_cache_logs() if log.kv_tokens and log.kv_gib_reported and log.kv_cache_dtype == "auto"]
    llama = [log for log in logs if log.model == "meta-llama/Llama-3.1-8B-Instruct"]
    assert llama
    for log in llama:
        assert log.kv_gib_reported is not None
        assert log.kv_tokens is not None
        bytes_per_token = log.kv_gib_reported * 1024.0**3 * log.gpu_count / log.kv_tokens
        assert bytes_per_token == pytest.approx(131_072, rel=0.002), log.source


def test_there_are_65_logs_and_blank_cells_are_none() -> None:
    assert len(kv_cache_logs()) == 65
    assert sum(log.max_num_seqs is None for log in kv_cache_logs()) == 57
    assert any((log.cuda_graph_gib_reported or 0) < 0 for log in kv_cache_logs())


def test_a_file_of_ones_own_is_read_with_the_same_columns(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    header = (
        "model,quantization,gpu,gpu_count,engine,engine_version,input_tokens,output_tokens,concurrency,output_tokens_per_s,"
        "total_tokens_per_s,ttft_p50_ms,ttft_p99_ms,tpot_p50_ms,tpot_p99_ms,source,source_date,notes\n"
    )
    file.write_text(header + "llama-3.1-8b,fp8,L4,1,vLLM,0.33.0,1000,200,16,300,,,,,,mine,,\n")
    (row,) = measurements(file)
    assert (row.gpu, row.concurrency, row.output_tokens_per_s, row.notes) == ("L4", 16, 300, "")
    file.write_text(header + "llama-3.1-8b,fp8,L4,one,vLLM,,,,,,,,,,,,,\n")
    with pytest.raises(InvalidTable, match="2: gpu_count should be a number, not 'one'"):
        measurements(file)
