"""A disaggregated tier as the program asks for it. That KV blocks move, or reach a bucket, is not proven here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.disaggregated_tier import DisaggregatedTier
from components.serving_pod import EngineArgs
from planning.plan import TierPlan
from tests.components.plans import QUALITY, SPLIT
from tests.components.serving import (
    BUCKET,
    engine_of,
    environment,
    flag,
    json_flag,
    object_of,
    pod_of,
    pods_that_can_write_to_their_image,
    refusals,
    restricted_violations,
    tier_recording,
)
from tests.harness import Recording, default_provider_users, duplicate_urns, kubernetes_objects

ROLES = ("prefill", "decode")


def sharing() -> TierPlan:
    plan = SPLIT.disaggregation
    assert plan is not None
    return replace(SPLIT, disaggregation=replace(plan, shared_store="s3"))


@pytest.fixture(scope="module")
def split() -> Recording:
    return tier_recording(DisaggregatedTier, EngineArgs, SPLIT)


def test_a_tier_is_these_objects_and_no_more(split: Recording) -> None:
    assert sorted((one["kind"], one["metadata"]["name"]) for one in kubernetes_objects(split)) == [
        ("Deployment", "split-decode"),
        ("Deployment", "split-prefill"),
        ("NetworkPolicy", "split-engine"),
        ("PodDisruptionBudget", "split-decode"),
        ("PodDisruptionBudget", "split-prefill"),
        ("PodMonitor", "split-engine"),
        ("Service", "split-engine"),
        ("ServiceAccount", "split-engine"),
    ]


def test_kubernetes_accepts_every_object(split: Recording) -> None:
    assert refusals(split) == []


def test_pod_security_restricted_accepts_every_pod_and_images_are_read_only(split: Recording) -> None:
    assert [restricted_violations(pod_of(split, f"split-{role}")) for role in ROLES] == [[], []]
    assert pods_that_can_write_to_their_image(split) == []


def test_everything_uses_the_given_provider_and_no_name_stands_twice(split: Recording) -> None:
    assert default_provider_users(split) == []
    assert duplicate_urns(split) == []


def test_the_autoscaler_owns_both_numbers_of_replicas(split: Recording) -> None:
    assert ["replicas" in object_of(split, "Deployment", f"split-{role}")["spec"] for role in ROLES] == [False, False]


def test_the_router_tells_the_roles_apart_and_finds_both(split: Recording) -> None:
    for role in ROLES:
        labels = object_of(split, "Deployment", f"split-{role}")["spec"]["template"]["metadata"]["labels"]
        assert (labels["llm-d.ai/tier"], labels["llm-d.ai/role"]) == ("split", role)


def test_the_service_leads_to_pods_that_answer_requests(split: Recording) -> None:
    assert object_of(split, "Service", "split-engine")["spec"]["selector"]["llm-d.ai/role"] == "decode"


def test_each_role_has_the_limits_planned_for_it(split: Recording) -> None:
    limits = {
        role: (
            flag(engine_of(split, f"split-{role}"), "--max-num-seqs"),
            flag(engine_of(split, f"split-{role}"), "--max-num-batched-tokens"),
        )
        for role in ROLES
    }
    assert limits == {"prefill": ("16", "16384"), "decode": ("128", "2048")}


def test_both_roles_run_the_same_model_dtype_and_hash_seed(split: Recording) -> None:
    """NIXL compares them at its handshake; blocks are found by hash."""
    prefill, decode = (engine_of(split, f"split-{role}") for role in ROLES)
    assert prefill["args"][0] == decode["args"][0] == f"s3://{BUCKET}/RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic"
    assert prefill["image"] == decode["image"]
    assert flag(prefill, "--kv-cache-dtype") == flag(decode, "--kv-cache-dtype")
    assert [environment(container)["PYTHONHASHSEED"] for container in (prefill, decode)] == ["0", "0"]


def test_prefill_produces_and_decode_consumes(split: Recording) -> None:
    roles = {
        role: json_flag(engine_of(split, f"split-{role}"), "--kv-transfer-config")["kv_connector_extra_config"][
            "connectors"
        ][0]
        for role in ROLES
    }
    assert roles == {
        "prefill": {"kv_connector": "NixlConnector", "kv_role": "kv_producer"},
        "decode": {"kv_connector": "NixlConnector", "kv_role": "kv_consumer"},
    }


def test_the_handshake_names_the_pods_own_address(split: Recording) -> None:
    for role in ROLES:
        given = environment(engine_of(split, f"split-{role}"))
        assert given["VLLM_NIXL_SIDE_CHANNEL_HOST"]["fieldRef"]["fieldPath"] == "status.podIP"  # default: localhost
        assert given["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"
        assert {"name": "nixl", "containerPort": 5600} in engine_of(split, f"split-{role}")["ports"]


def test_requests_reach_decode_through_the_sidecar_and_prefill_directly(split: Recording) -> None:
    (sidecar,) = pod_of(split, "split-decode")["initContainers"]
    assert sidecar["restartPolicy"] == "Always", "a native sidecar outlives the engine's drain"
    assert sidecar["args"] == ["--port=8000", "--kv-connector=nixlv2", "--secure-proxy=false"]
    assert sidecar["ports"] == [{"name": "http", "containerPort": 8000}]
    # 8200 is where the sidecar looks for the engine when it is told nothing.
    assert flag(engine_of(split, "split-decode"), "--port") == "8200"
    assert flag(engine_of(split, "split-prefill"), "--port") == "8000"
    assert "initContainers" not in pod_of(split, "split-prefill")


def test_probes_and_metrics_look_at_the_engine_not_at_the_sidecar(split: Recording) -> None:
    for role, port in (("prefill", 8000), ("decode", 8200)):
        container = engine_of(split, f"split-{role}")
        assert {"name": "engine", "containerPort": port} in container["ports"]
        assert container["readinessProbe"]["httpGet"]["port"] == "engine"
    (endpoint,) = object_of(split, "PodMonitor", "split-engine")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "engine"


def requested(recording: Recording, deployment: str, resource: str) -> int:
    """Add up what a pod's containers request, in the unit of the quantity."""
    pod = pod_of(recording, deployment)
    containers = [*pod["containers"], *pod.get("initContainers", [])]
    return sum(int(one["resources"]["requests"][resource].rstrip("mMi")) for one in containers)


def test_the_kv_store_is_memory_on_top_of_the_pods_own_and_fits_shared_memory(split: Recording) -> None:
    for role in ROLES:
        assert requested(split, f"split-{role}", "memory") == (96 + 64) * 1024
        resources = engine_of(split, f"split-{role}")["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        volumes = {volume["name"]: volume["emptyDir"] for volume in pod_of(split, f"split-{role}")["volumes"]}
        # vLLM keeps the store in /dev/shm and refuses to start when it does not fit.
        assert volumes["shared-memory"] == {"medium": "Memory", "sizeLimit": f"{(16 + 64) * 1024}Mi"}


def test_the_sidecar_makes_the_pod_no_larger_than_planned(split: Recording) -> None:
    assert [requested(split, f"split-{role}", "cpu") for role in ROLES] == [24_000, 24_000]


def test_a_role_gets_as_many_gpus_as_it_has_ranks() -> None:
    plan = SPLIT.disaggregation
    assert plan is not None
    prefill = replace(plan.prefill, limits=replace(plan.prefill.limits, tensor_parallel_size=2), node_pool="gpu-2")
    tier = replace(SPLIT, disaggregation=replace(plan, prefill=prefill))
    recording = tier_recording(DisaggregatedTier, EngineArgs, tier)
    gpus = {role: engine_of(recording, f"split-{role}")["resources"]["limits"]["nvidia.com/gpu"] for role in ROLES}
    assert gpus == {"prefill": "2", "decode": "4"}
    pools = {role: pod_of(recording, f"split-{role}")["nodeSelector"]["frugal-llm/pool"] for role in ROLES}
    assert pools == {"prefill": "gpu-2", "decode": "gpu-4"}


def test_pods_of_the_tier_talk_to_each_other_on_any_port_and_to_no_other_pod(split: Recording) -> None:
    spec = object_of(split, "NetworkPolicy", "split-engine")["spec"]
    peers = {"podSelector": spec["podSelector"]}
    assert spec["podSelector"]["matchLabels"]["llm-d.ai/tier"] == "split"
    assert {"from": [peers]} in spec["ingress"]
    assert {"to": [peers]} in spec["egress"]
    callers = spec["ingress"][0]
    assert [port["port"] for port in callers["ports"]] == [8000, 8200]
    assert peers not in callers["from"]


def test_each_role_is_disrupted_one_pod_at_a_time(split: Recording) -> None:
    for role in ROLES:
        budget = object_of(split, "PodDisruptionBudget", f"split-{role}")["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"]["llm-d.ai/role"] == role


def test_a_shared_store_is_the_tiers_own_place_in_the_bucket() -> None:
    recording = tier_recording(DisaggregatedTier, EngineArgs, sharing())
    for role in ROLES:
        config = json_flag(engine_of(recording, f"split-{role}"), "--kv-transfer-config")
        (store,) = config["kv_connector_extra_config"]["connectors"][1]["kv_connector_extra_config"]["secondary_tiers"]
        assert store["prefix"] == "kv-cache/split"
        assert store["store_config"]["bucket"] == BUCKET


def test_a_store_of_files_is_the_claim_that_was_named_and_both_roles_write_to_it() -> None:
    plan = SPLIT.disaggregation
    assert plan is not None
    tier = replace(SPLIT, disaggregation=replace(plan, shared_store="file", shared_claim="kv-files"))
    recording = tier_recording(DisaggregatedTier, EngineArgs, tier)
    assert refusals(recording) == []
    for role in ROLES:
        pod, engine = pod_of(recording, f"split-{role}"), engine_of(recording, f"split-{role}")
        config = json_flag(engine, "--kv-transfer-config")
        (store,) = config["kv_connector_extra_config"]["connectors"][1]["kv_connector_extra_config"]["secondary_tiers"]
        (mount,) = [one for one in engine["volumeMounts"] if one["mountPath"] == store["root_dir"]]
        assert store == {"type": "fs", "root_dir": "/kv-cache"}
        (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
        assert volume["persistentVolumeClaim"] == {"claimName": "kv-files"}
        assert restricted_violations(pod) == []


def test_with_efa_both_roles_ask_for_adapters_and_stay_in_the_zone_that_efa_does_not_leave() -> None:
    """That UCX finds the adapters' driver in the image is not proven; without it blocks go over TCP."""
    plan = SPLIT.disaggregation
    assert plan is not None
    tier = replace(SPLIT, disaggregation=replace(plan, efa_interfaces=2))
    recording = tier_recording(DisaggregatedTier, EngineArgs, tier)
    assert refusals(recording) == []
    for role in ROLES:
        pod, resources = pod_of(recording, f"split-{role}"), engine_of(recording, f"split-{role}")["resources"]
        assert resources["requests"]["vpc.amazonaws.com/efa"] == resources["limits"]["vpc.amazonaws.com/efa"] == "2"
        (together,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert together["topologyKey"] == "topology.kubernetes.io/zone"
        own = object_of(recording, "Deployment", f"split-{role}")["spec"]["template"]["metadata"]["labels"]
        assert together["labelSelector"]["matchLabels"].items() <= own.items(), "else the first pod waits for ever"
        assert "llm-d.ai/role" not in together["labelSelector"]["matchLabels"], "prefill and decode are in one zone"
        assert [one["topologyKey"] for one in pod["topologySpreadConstraints"]] == ["kubernetes.io/hostname"]


def test_without_efa_replicas_spread_over_zones_and_ask_for_no_adapter(split: Recording) -> None:
    for role in ROLES:
        pod = pod_of(split, f"split-{role}")
        assert "affinity" not in pod
        assert "topology.kubernetes.io/zone" in [one["topologyKey"] for one in pod["topologySpreadConstraints"]]
        assert "vpc.amazonaws.com/efa" not in engine_of(split, f"split-{role}")["resources"]["limits"]


def test_before_the_bucket_exists_only_its_name_is_missing() -> None:
    recording = tier_recording(DisaggregatedTier, EngineArgs, sharing(), preview=True)
    for role in ROLES:
        unknown = recording.named(f"split-{role}").inputs.unknown_paths()
        arguments = recording.named(f"split-{role}").inputs["spec"]["template"]["spec"]["containers"][0]["args"]
        at = ("spec", "template", "spec", "containers", 0, "args")
        assert unknown == [(*at, 0), (*at, len(arguments) - 1)]


def test_a_tier_that_is_not_split_is_refused() -> None:
    with pytest.raises(ValueError, match="tier quality is not planned as disaggregated"):
        tier_recording(DisaggregatedTier, EngineArgs, QUALITY)
