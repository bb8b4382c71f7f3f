"""The memory model against vLLM's logs. Most constants were chosen with these logs in sight; logs of other models, kept
out of the repository, gave smaller errors.
"""

import csv
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from planning import memory
from planning.__main__ import main
from planning.facts.logged_models import shape_name
from planning.facts.measurements import KvCacheLog, kv_cache_logs
from planning.facts.table import DATA
from planning.memory import gpu_name, visible_gib_named
from planning.memory_evaluation import LogPrediction, evaluate_logs, predict, vllm_version

LOGS = DATA / "vllm_kv_cache_logs.csv"


def test_the_cache_is_predicted_within_the_contract() -> None:
    evaluation = evaluate_logs()
    assert evaluation.median_ape <= 2
    assert evaluation.p90_ape <= 8
    assert len(evaluation.predictions) >= 56


def test_logits_that_several_gpus_gather_are_counted() -> None:
    # Since 0.17 the sampler does not sort, and what it leaves over shows the gathered logits: 1.2 GiB of DeepSeek-R1.
    judged = [
        each
        for each in evaluate_logs().predictions
        if each.log.gpu == "H200" and each.log.gpu_count > 1 and vllm_version(each.log.vllm_version) >= (0, 17)
        if each.log.model.startswith(("deepseek", "nvidia"))
    ]
    assert len(judged) >= 7
    for each in judged:
        assert abs(each.error_percent) < 0.5, each.log


#: Constants that were fitted to these logs, with the values that each may take. The others stay as they are: visible
#: memory is what torch reports, padding and copies of hidden states were read from other columns.
FITTED = {
    "_SORTING_COPIES": (9.1, 9.4, 9.7, 10.0),
    "_LOGITS_COPIES": (3.5, 4.0, 4.5, 5.0),
    "_GATHERED_LOGITS_COPIES": (1.5, 2.0, 2.5, 3.0),
    "_EXPERT_WORKSPACE_COPIES": (1.0, 1.5, 1.9, 2.3),
    "_NVLINK_GIB_PER_DOUBLING": (0.1, 0.2, 0.3, 0.4),
    "_NCCL_GIB": (0.0, 0.12, 0.25, 0.5),
    "NON_TORCH_GIB": (0.08, 0.13, 0.2),
    "_CUDA_GRAPHS_GIB": (0.3, 0.45, 0.6, 0.75),
    "_CUDA_GRAPHS_GIB_PER_PEER": (0.1, 0.14, 0.18),
}


def test_models_that_the_constants_were_not_fitted_to_are_predicted_within_the_contract(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_model: dict[str, list[KvCacheLog]] = {}
    for each in evaluate_logs().predictions:
        by_model.setdefault(shape_name(each.log.model), []).append(each.log)

    def errors(logs: Iterable[KvCacheLog]) -> list[float]:
        return [abs(each.error_percent) for each in map(predict, logs) if isinstance(each, LogPrediction)]

    def score(logs: Sequence[KvCacheLog], name: str, value: float) -> float:
        monkeypatch.setattr(memory, name, value)
        # Cut, so that the logs that no constant explains do not steer.
        return sum(min(error, 20) for error in errors(logs))

    left_out: list[float] = []
    for name, own in by_model.items():
        others = [log for other, logs in by_model.items() if other != name for log in logs]
        for constant, values in FITTED.items():
            monkeypatch.setattr(memory, constant, values[0])
        for constant, values in [*FITTED.items()] * 2:
            best = min(values, key=lambda value, constant=constant: score(others, constant, value))
            monkeypatch.setattr(memory, constant, best)
        left_out += errors(own)
    assert len(by_model) >= 24
    # 1.2 % and 6.8 %. Which terms there are was still decided with every model in sight: that it does not leave out.
    assert statistics.median(left_out) <= 1.5
    assert statistics.quantiles(left_out, n=10, method="inclusive")[8] <= 8


def test_repeats_of_a_configuration_count_once() -> None:
    evaluation = evaluate_logs()
    worst = max(evaluation.predictions, key=lambda each: abs(each.error_percent))
    repeated = replace(evaluation, predictions=(*evaluation.predictions, *[worst] * 100))
    assert repeated.median_ape > 50
    assert repeated.configurations == evaluation.configurations < len(evaluation.predictions)
    assert repeated.configuration_median_ape == evaluation.configuration_median_ape


def test_rows_are_left_out_for_general_reasons_only() -> None:
    evaluation = evaluate_logs()
    assert set(evaluation.left_out) <= {
        "no NVIDIA GPU",
        "no KV cache size logged",
        "utilization not logged",
        "memory of the GPU neither logged nor known",
        "architecture not known and weights not logged",
    }
    assert len(evaluation.predictions) + sum(map(len, evaluation.left_out.values())) == len(kv_cache_logs())


def test_results_of_the_same_start_are_not_read() -> None:
    for log in kv_cache_logs():
        without = replace(
            log, activation_gib_reported=None, non_torch_gib_reported=None, cuda_graph_gib_reported=None, kv_tokens=None
        )
        first, second = predict(log), predict(without)
        if isinstance(first, LogPrediction):
            assert isinstance(second, LogPrediction)
            assert first.predicted_gib == second.predicted_gib


def test_a_model_that_nobody_knows_takes_its_logged_weights() -> None:
    log = next(log for log in kv_cache_logs() if log.model == "Qwen/Qwen3-8B")
    unknown = predict(replace(log, model="someone/unheard-of-8b"))
    assert isinstance(unknown, LogPrediction)
    assert not unknown.from_architecture
    # The same vocabulary happens to be the median one.
    assert unknown.predicted_gib == pytest.approx(log.kv_gib_reported, rel=0.02)
    assert predict(replace(log, model="someone/unheard-of-8b", weights_gib_reported=None)) == (
        "architecture not known and weights not logged"
    )


@pytest.mark.parametrize(
    ("text", "version"), [("0.11.2+rhai1", (0, 11, 2)), ("~0.9.2/0.10.0", (0, 9, 2)), ("0.6.x", (0, 6)), ("", (0, 33))]
)
def test_versions_are_read_from_what_logs_say(text: str, version: tuple[int, ...]) -> None:
    assert vllm_version(text) == version


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("NVIDIA A100 80GB PCIe", "A100-80GB-PCIe"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("h200-sxm", "H200"),
        ("Unheard-Of", "Unheard-Of"),
    ],
)
def test_gpus_are_known_by_the_names_that_people_write(text: str, name: str) -> None:
    assert gpu_name(text) == name


def test_an_unknown_gpu_is_taken_by_the_memory_in_its_name_or_left_out() -> None:
    assert visible_gib_named("RTX-4060-Ti-16GB") == pytest.approx(15.84)
    log = next(log for log in kv_cache_logs() if log.gpu_memory_gib_reported is None and log.gpu == "H200")
    assert predict(replace(log, gpu="Unheard-Of")) == "memory of the GPU neither logged nor known"


def test_the_command_gives_the_keys_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--kv-cache-logs", str(LOGS), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["rows"] == len(data["predictions"])
    assert data["median_ape"] <= data["p90_ape"]
    assert len({(row["model"], row["gpu"], row["gpu_count"]) for row in data["predictions"]}) == data["configurations"]
    assert data["configuration_median_ape"] <= data["configuration_p90_ape"]
    assert data["left_out"] == sum(reason["rows"] for reason in data["left_out_reasons"])
    assert main(["evaluate", "--kv-cache-logs", str(LOGS)]) == 0
    assert "Left out" in capsys.readouterr().out


def test_files_that_cannot_be_evaluated_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LOGS.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    amd = next(row for row in rows if "MI300X" in row)
    for name, lines, expected in (
        ("none.csv", None, "cannot be read"),
        ("columns.csv", [["model", "gpu"]], "column quantization is missing"),
        ("empty.csv", [header], "it has no rows"),
        ("amd.csv", [header, amd], "1 x no NVIDIA GPU"),
    ):
        path = tmp_path / name
        if lines is not None:
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(lines)
        assert main(["evaluate", "--kv-cache-logs", str(path)]) == 2
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gpu_memory_utilization": 90.0}, "utilization is no share"),
        ({"gpu_memory_utilization": 0.0}, "utilization is no share"),
        ({"gpu_count": 0}, "number of GPUs is none that a replica has"),
        ({"gpu_count": 10**9}, "number of GPUs is none that a replica has"),
    ],
)
def test_figures_that_no_start_can_have_are_a_reason(change: dict[str, float], reason: str) -> None:
    log = next(one for one in kv_cache_logs() if isinstance(predict(one), LogPrediction))
    assert predict(replace(log, **change)) == reason  # pyrefly: ignore
