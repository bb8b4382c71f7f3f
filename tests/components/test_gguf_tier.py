"""A llama.cpp tier as the program asks for it. That the image runs on both CPU architectures is not proven here."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from components.gguf_tier import GgufTier, llama_server_arguments
from components.serving_pod import EngineArgs
from planning.plan import LlamaCppLimits
from tests.components.plans import FAST, SMALL
from tests.components.serving import (
    BUCKET,
    engine_of,
    environment,
    flag,
    object_of,
    pod_of,
    pods_that_can_write_to_their_image,
    refusals,
    restricted_violations,
    tier_recording,
)
from tests.harness import Recording, default_provider_users, duplicate_urns, kubernetes_objects

# Long options of llama-server, from tools/server/README.md of ggml-org/llama.cpp at 00dc8057a (autumn 2026).
LLAMA_SERVER_OPTIONS = {
    "--alias",
    "--cache-ram",
    "--ctx-size",
    "--host",
    "--metrics",
    "--model",
    "--no-slots",
    "--no-webui",
    "--offline",
    "--parallel",
    "--port",
    "--threads",
}


@pytest.fixture(scope="module")
def small() -> Recording:
    return tier_recording(GgufTier, EngineArgs, SMALL)


def test_a_tier_is_the_same_kinds_of_objects_as_a_vllm_tier(small: Recording) -> None:
    assert sorted((one["kind"], one["metadata"]["name"]) for one in kubernetes_objects(small)) == [
        ("Deployment", "small-engine"),
        ("NetworkPolicy", "small-engine"),
        ("PodDisruptionBudget", "small-engine"),
        ("PodMonitor", "small-engine"),
        ("Service", "small-engine"),
        ("ServiceAccount", "small-engine"),
    ]


def test_kubernetes_accepts_every_object(small: Recording) -> None:
    assert refusals(small) == []


def test_pod_security_restricted_accepts_the_pod_and_its_image_is_read_only(small: Recording) -> None:
    assert restricted_violations(pod_of(small, "small-engine")) == []
    assert pods_that_can_write_to_their_image(small) == []


def test_everything_uses_the_given_provider_and_no_name_stands_twice(small: Recording) -> None:
    assert default_provider_users(small) == []
    assert duplicate_urns(small) == []


def test_the_autoscaler_owns_the_number_of_replicas(small: Recording) -> None:
    assert "replicas" not in object_of(small, "Deployment", "small-engine")["spec"]


def test_a_floor_runs_on_demand_beside_it() -> None:
    tier = replace(SMALL, replicas=replace(SMALL.replicas, minimum=1, on_demand_floor=1))
    floor = object_of(tier_recording(GgufTier, EngineArgs, tier), "Deployment", "small-floor")["spec"]
    assert floor["replicas"] == 1
    assert floor["template"]["spec"]["nodeSelector"]["karpenter.sh/capacity-type"] == "on-demand"


def test_the_pod_goes_to_its_cpu_pool_and_tolerates_that_one_only(small: Recording) -> None:
    pod = pod_of(small, "small-engine")
    assert pod["nodeSelector"] == {
        "frugal-llm/pool": "cpu",
        "frugal-llm/node-image": "al2023-v20260714-1.36",
        "frugal-llm/capacity": "elastic",
    }
    assert pod["tolerations"] == [
        {"key": "frugal-llm/pool", "operator": "Equal", "value": "cpu", "effect": "NoSchedule"}
    ]


def test_the_limits_of_the_plan_arrive_one_by_one(small: Recording) -> None:
    container = engine_of(small, "small-engine")
    assert {name: flag(container, name) for name in ("--threads", "--parallel", "--ctx-size", "--host", "--port")} == {
        "--threads": "15",
        "--parallel": "2",
        "--ctx-size": "16384",
        "--host": "0.0.0.0",
        "--port": "8000",
    }


def test_every_flag_is_in_the_servers_documentation() -> None:
    given = llama_server_arguments(LlamaCppLimits(threads=1, parallel_slots=1, context_tokens=512), ("small",))
    assert {text.partition("=")[0] for text in given} <= LLAMA_SERVER_OPTIONS


def test_clients_may_name_the_tier_or_the_model(small: Recording) -> None:
    assert flag(engine_of(small, "small-engine"), "--alias") == "small,meta-llama/Llama-3.1-8B-Instruct"


def test_no_memory_is_used_beside_what_was_planned_and_no_prompt_is_shown(small: Recording) -> None:
    given = engine_of(small, "small-engine")["args"]
    assert "--cache-ram=0" in given, "8 GiB by default"
    assert {"--no-slots", "--no-webui"} <= set(given)


def test_weights_are_downloaded_before_the_server_starts(small: Recording) -> None:
    (download,) = pod_of(small, "small-engine")["initContainers"]
    assert download["args"] == [
        "s3",
        "cp",
        "--recursive",
        "--no-progress",
        f"s3://{BUCKET}/bartowski/Meta-Llama-3.1-8B-Instruct-GGUF/gguf-q4_k_m/",
        "/models/",
    ]
    assert "restartPolicy" not in download, "not a sidecar: it ends"
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod_of(small, "small-engine")["volumes"]}
    assert volumes["weights"] == {"sizeLimit": "8192Mi"}


def test_the_server_reads_the_weights_and_cannot_change_them(small: Recording) -> None:
    mounts = {mount["name"]: mount for mount in engine_of(small, "small-engine")["volumeMounts"]}
    assert mounts["weights"] == {"name": "weights", "mountPath": "/models", "readOnly": True}


def test_the_start_finds_the_first_part_of_a_model_in_parts(small: Recording, tmp_path: Path) -> None:
    """Run the very command line with another directory and a server that prints what it was given."""
    container = engine_of(small, "small-engine")
    for part in ("b-00002-of-00002.gguf", "b-00001-of-00002.gguf"):
        (tmp_path / part).touch()
    server = tmp_path / "llama-server"
    server.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    server.chmod(0o755)
    command = [
        text.replace("/models", str(tmp_path)).replace("/app/llama-server", str(server))
        for text in container["command"]
    ]
    run = subprocess.run(
        [*command, *container["args"]], check=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert run.stdout.splitlines() == ["--model", f"{tmp_path}/b-00001-of-00002.gguf", *container["args"]]


def test_no_gpu_is_asked_for(small: Recording) -> None:
    assert engine_of(small, "small-engine")["resources"] == {
        "requests": {"cpu": "15000m", "memory": "9216Mi", "ephemeral-storage": "8192Mi"},
        "limits": {"memory": "9216Mi"},
    }


def test_the_whole_drain_is_before_the_signal_that_cuts_streams(small: Recording) -> None:
    sleep = engine_of(small, "small-engine")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sleep == SMALL.timeouts.pre_stop_s + SMALL.timeouts.shutdown_s == 105
    assert sleep < pod_of(small, "small-engine")["terminationGracePeriodSeconds"] <= 110


def test_the_api_key_guards_metrics_too_so_prometheus_is_given_it(small: Recording) -> None:
    assert environment(engine_of(small, "small-engine"))["LLAMA_API_KEY"] == {
        "secretKeyRef": {"name": "api-key", "key": "key"}
    }
    (endpoint,) = object_of(small, "PodMonitor", "small-engine")["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": {"name": "api-key", "key": "key"}}


def test_without_an_api_key_nobody_needs_one() -> None:
    keyless = tier_recording(GgufTier, EngineArgs, SMALL, api_key=False)
    assert "LLAMA_API_KEY" not in environment(engine_of(keyless, "small-engine"))
    (endpoint,) = object_of(keyless, "PodMonitor", "small-engine")["spec"]["podMetricsEndpoints"]
    assert "authorization" not in endpoint


def test_a_tier_planned_for_another_engine_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tier fast is planned for vllm, not for llama\.cpp"):
        tier_recording(GgufTier, EngineArgs, FAST)
