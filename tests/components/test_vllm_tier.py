"""A vLLM tier as the program asks for it. That its pods start, fit their GPUs or answer in time is not proven here."""

from __future__ import annotations

from dataclasses import replace

import pulumi
import pytest

from components.serving_pod import EngineArgs
from components.vllm_tier import VllmTier
from tests.components.building import stand_in
from tests.components.plans import FAST, QUALITY, SMALL
from tests.components.serving import (
    BUCKET,
    NODE_IMAGE_LABEL,
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
from tests.harness import (
    Recording,
    component_under_test,
    default_provider_users,
    duplicate_urns,
    kubernetes_objects,
)


@pytest.fixture(scope="module")
def quality() -> Recording:
    return tier_recording(VllmTier, EngineArgs, QUALITY)


@pytest.fixture(scope="module")
def fast() -> Recording:
    return tier_recording(VllmTier, EngineArgs, FAST)


# --- the objects ----------------------------------------------------------------------------------------------------


def test_a_tier_is_these_objects_and_no_more(quality: Recording) -> None:
    assert sorted((one["kind"], one["metadata"]["name"]) for one in kubernetes_objects(quality)) == [
        ("Deployment", "quality-engine"),
        ("Deployment", "quality-floor"),
        ("NetworkPolicy", "quality-engine"),
        ("PodDisruptionBudget", "quality-engine"),
        ("PodMonitor", "quality-engine"),
        ("Service", "quality-engine"),
        ("ServiceAccount", "quality-engine"),
    ]


def test_kubernetes_accepts_every_object(quality: Recording, fast: Recording) -> None:
    assert refusals(quality) + refusals(fast) == []


def test_pod_security_restricted_accepts_every_pod(quality: Recording) -> None:
    assert restricted_violations(pod_of(quality, "quality-engine")) == []
    assert restricted_violations(pod_of(quality, "quality-floor")) == []


def test_nothing_can_write_to_the_image(quality: Recording) -> None:
    assert pods_that_can_write_to_their_image(quality) == []


def test_everything_uses_the_given_provider_and_no_name_stands_twice(quality: Recording) -> None:
    assert default_provider_users(quality) == []
    assert duplicate_urns(quality) == []


def test_a_preview_knows_everything_but_the_bucket() -> None:
    recording = tier_recording(VllmTier, EngineArgs, QUALITY, preview=True)
    unknown = [
        (resource.name, path)
        for resource in recording.of_type("kubernetes:apps/v1:Deployment")
        for path in resource.inputs.unknown_paths()
    ]
    address = ("spec", "template", "spec", "containers", 0, "args", 0)
    assert sorted(unknown) == [("quality-deployment", address), ("quality-floor", address)]


def test_a_tier_planned_for_another_engine_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tier small is planned for llama\.cpp, not for vLLM"):
        tier_recording(VllmTier, EngineArgs, SMALL)


# --- replicas -------------------------------------------------------------------------------------------------------


def test_the_autoscaler_owns_the_number_of_replicas(quality: Recording, fast: Recording) -> None:
    assert "replicas" not in object_of(quality, "Deployment", "quality-engine")["spec"]
    assert "replicas" not in object_of(fast, "Deployment", "fast-engine")["spec"]


def test_the_floor_is_fixed_and_never_on_spot_and_its_nodes_are_its_own(quality: Recording) -> None:
    """An elastic replica on the floor's node would leave its spot node empty and cost a second on-demand node."""
    floor = object_of(quality, "Deployment", "quality-floor")["spec"]
    assert floor["replicas"] == QUALITY.replicas.on_demand_floor == 1
    shared = {"frugal-llm/pool": "gpu-4", "frugal-llm/node-image": "al2023-v20260714-1.36"}
    assert floor["template"]["spec"]["nodeSelector"] == {
        **shared,
        "frugal-llm/capacity": "floor",
        "karpenter.sh/capacity-type": "on-demand",
    }
    assert pod_of(quality, "quality-engine")["nodeSelector"] == {**shared, "frugal-llm/capacity": "elastic"}


def test_a_tier_without_a_floor_has_one_deployment(fast: Recording) -> None:
    assert [one["metadata"]["name"] for one in kubernetes_objects(fast, "Deployment")] == ["fast-engine"]


def test_floor_and_elastic_pods_differ_only_in_where_they_run(quality: Recording) -> None:
    floor, elastic = pod_of(quality, "quality-floor"), pod_of(quality, "quality-engine")
    assert {**floor, "nodeSelector": {}} == {**elastic, "nodeSelector": {}}


def test_each_deployment_selects_its_own_pods_while_router_and_budget_see_all(quality: Recording) -> None:
    specs = [object_of(quality, "Deployment", name)["spec"] for name in ("quality-engine", "quality-floor")]
    selectors = [spec["selector"]["matchLabels"] for spec in specs]
    labels = [spec["template"]["metadata"]["labels"] for spec in specs]
    matches = [[selector.items() <= given.items() for given in labels] for selector in selectors]
    assert matches == [[True, False], [False, True]], "the autoscaler counts pods by its Deployment's selector"
    assert [given["llm-d.ai/tier"] for given in labels] == ["quality", "quality"]
    budget = object_of(quality, "PodDisruptionBudget", "quality-engine")["spec"]["selector"]["matchLabels"]
    service = object_of(quality, "Service", "quality-engine")["spec"]["selector"]
    assert all(wanted.items() <= given.items() for wanted in (budget, service) for given in labels)


def test_a_rollout_keeps_all_replicas_until_the_new_one_serves(quality: Recording) -> None:
    spec = object_of(quality, "Deployment", "quality-engine")["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert spec["progressDeadlineSeconds"] == QUALITY.timeouts.progress_deadline_s


def test_pulumi_is_as_patient_as_the_rollout(quality: Recording) -> None:
    timeouts = quality.named("quality-deployment").timeouts
    assert (timeouts.create, timeouts.update) == ("1220s", "1220s")


# --- the container --------------------------------------------------------------------------------------------------


def test_the_model_is_the_first_argument_and_comes_from_the_bucket(quality: Recording) -> None:
    assert engine_of(quality, "quality-engine")["args"][0] == (
        f"s3://{BUCKET}/RedHatAI/Llama-3.3-70B-Instruct-quantized.w4a16"
    )


def test_the_image_is_pinned_and_its_own_entry_point_is_used(quality: Recording) -> None:
    container = engine_of(quality, "quality-engine")
    assert container["image"] == "docker.io/vllm/vllm-openai:v0.33.0"
    assert "command" not in container


def test_gpus_are_requested_and_limited_and_memory_ends_where_it_was_planned(quality: Recording) -> None:
    assert engine_of(quality, "quality-engine")["resources"] == {
        "requests": {
            "cpu": "24000m",
            "memory": "98304Mi",
            "ephemeral-storage": "20480Mi",
            "nvidia.com/gpu": "4",
        },
        "limits": {"memory": "98304Mi", "nvidia.com/gpu": "4"},
    }


def test_the_pod_tolerates_gpu_nodes(quality: Recording) -> None:
    assert pod_of(quality, "quality-engine")["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]


def test_ranks_meet_in_shared_memory_of_the_planned_size(quality: Recording) -> None:
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod_of(quality, "quality-engine")["volumes"]}
    assert volumes == {
        "cache": {"sizeLimit": "20480Mi"},
        "temporary": {"sizeLimit": "20480Mi"},
        "shared-memory": {"medium": "Memory", "sizeLimit": "16384Mi"},
    }
    assert {mount["mountPath"] for mount in engine_of(quality, "quality-engine")["volumeMounts"]} == {
        "/cache",
        "/tmp",
        "/dev/shm",
    }


def test_a_single_gpu_has_no_shared_memory_volume(fast: Recording) -> None:
    assert [volume["name"] for volume in pod_of(fast, "fast-engine")["volumes"]] == ["cache", "temporary"]


def test_a_kv_store_in_host_memory_has_room_in_shared_memory_and_in_the_pods_limit() -> None:
    assert FAST.vllm is not None
    stored = replace(
        FAST,
        vllm=replace(FAST.vllm, kv_offload_gib=39.0),
        resources=replace(FAST.resources, memory_gib=12.0 + 39.0, shm_gib=39.0),
    )
    recording = tier_recording(VllmTier, EngineArgs, stored)
    engine = engine_of(recording, "fast-engine")
    assert flag(engine, "--kv-offloading-size") == "39"
    assert engine["resources"]["limits"]["memory"] == f"{51 * 1024}Mi"
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod_of(recording, "fast-engine")["volumes"]}
    assert volumes["shared-memory"] == {"medium": "Memory", "sizeLimit": f"{39 * 1024}Mi"}


def test_all_that_vllm_writes_goes_to_its_cache(quality: Recording) -> None:
    given = environment(engine_of(quality, "quality-engine"))
    assert {name: given[name] for name in ("HOME", "HF_HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR")} == {
        "HOME": "/cache",
        "HF_HOME": "/cache/huggingface",
        "VLLM_CACHE_ROOT": "/cache/vllm",
        "TRITON_CACHE_DIR": "/cache/triton",
    }


def test_vllm_calls_nobody_and_holds_no_hugging_face_token(quality: Recording) -> None:
    given = environment(engine_of(quality, "quality-engine"))
    assert given["HF_HUB_OFFLINE"] == "1"
    assert given["VLLM_NO_USAGE_STATS"] == "1"
    assert "HF_TOKEN" not in given


def test_vllm_outlasts_the_load_balancer_on_idle_connections(quality: Recording) -> None:
    # The default of 5 s answers reused connections with 502.
    keep_alive = environment(engine_of(quality, "quality-engine"))["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"]
    assert int(keep_alive) > QUALITY.timeouts.alb_idle_s


def test_the_engine_process_may_take_as_long_to_start_as_the_pod(quality: Recording) -> None:
    assert environment(engine_of(quality, "quality-engine"))["VLLM_ENGINE_READY_TIMEOUT_S"] == "580"


def test_the_api_key_is_read_from_its_secret_or_not_at_all(quality: Recording) -> None:
    assert environment(engine_of(quality, "quality-engine"))["VLLM_API_KEY"] == {
        "secretKeyRef": {"name": "api-key", "key": "key"}
    }
    keyless = tier_recording(VllmTier, EngineArgs, FAST, api_key=False)
    assert "VLLM_API_KEY" not in environment(engine_of(keyless, "fast-engine"))


def test_no_service_can_inject_variables_and_no_api_token_is_mounted(quality: Recording) -> None:
    pod = pod_of(quality, "quality-engine")
    assert pod["enableServiceLinks"] is False  # a Service called vllm would set VLLM_PORT, and vLLM would not start
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "quality-engine"
    assert pod["priorityClassName"] == "frugal-llm-serving"
    assert "vllm" not in {one["metadata"]["name"] for one in kubernetes_objects(quality, "Service")}


# --- start, health, drain -------------------------------------------------------------------------------------------


def test_a_start_may_take_as_long_as_planned(quality: Recording) -> None:
    probe = engine_of(quality, "quality-engine")["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= QUALITY.timeouts.startup_probe_s
    assert probe["httpGet"] == {"path": "/health", "port": "engine"}


def test_a_busy_server_is_not_killed(quality: Recording) -> None:
    probe = engine_of(quality, "quality-engine")["livenessProbe"]
    assert probe["timeoutSeconds"] >= 10
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 180


def test_a_ready_server_takes_requests_within_seconds(quality: Recording) -> None:
    container = engine_of(quality, "quality-engine")
    assert container["startupProbe"]["periodSeconds"] <= 5
    assert container["readinessProbe"]["periodSeconds"] <= 5
    assert container["readinessProbe"]["timeoutSeconds"] > 1, "the default of 1 s takes busy replicas out"


def test_the_drain_ends_before_the_pod_is_killed_and_that_before_spot_takes_the_node(quality: Recording) -> None:
    pod, container = pod_of(quality, "quality-engine"), engine_of(quality, "quality-engine")
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    shutdown = int(next(text for text in container["args"] if "shutdown-timeout" in text).partition("=")[2])
    assert sleep >= 3, "with no sleep 2 of 201 requests met a closed port, with 3 s none of 367"
    assert sleep + shutdown < pod["terminationGracePeriodSeconds"] <= 110


# --- placement ------------------------------------------------------------------------------------------------------


def test_replicas_prefer_other_zones_and_nodes_but_never_wait_for_them(quality: Recording) -> None:
    constraints = pod_of(quality, "quality-floor")["topologySpreadConstraints"]
    assert [(one["topologyKey"], one["maxSkew"], one["whenUnsatisfiable"]) for one in constraints] == [
        ("topology.kubernetes.io/zone", 1, "ScheduleAnyway"),
        ("kubernetes.io/hostname", 1, "ScheduleAnyway"),
    ]
    # The floor's replica and the first elastic one are the two that should not share a zone; each has nodes of its own.
    assert {one["nodeAffinityPolicy"] for one in constraints} == {"Ignore"}
    counted = constraints[0]["labelSelector"]["matchLabels"]
    for name in ("quality-engine", "quality-floor"):
        labels = object_of(quality, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
        assert counted.items() <= labels.items()


def test_a_single_replica_is_not_spread_so_that_it_goes_to_the_cheapest_zone(fast: Recording) -> None:
    """Karpenter settles a spread pod's zone before it compares prices, and asks EC2 for that zone only."""
    one = replace(FAST, replicas=replace(FAST.replicas, maximum=1))
    assert "topologySpreadConstraints" not in pod_of(tier_recording(VllmTier, EngineArgs, one), "fast-engine")
    assert FAST.replicas.maximum > 1
    assert "topologySpreadConstraints" in pod_of(fast, "fast-engine")


def test_a_replica_leaves_a_node_that_spot_takes_back(quality: Recording) -> None:
    """Karpenter 1.14 (`IsEvictable`) evicts no pod with the annotation: it would serve until the instance is gone."""
    for name in ("quality-engine", "quality-floor"):
        template = object_of(quality, "Deployment", name)["spec"]["template"]
        assert "karpenter.sh/do-not-disrupt" not in (template["metadata"].get("annotations") or {})


def test_a_new_node_image_is_a_new_template_so_a_ready_replica_comes_before_an_old_one_goes(quality: Recording) -> None:
    deployment = object_of(quality, "Deployment", "quality-engine")["spec"]
    assert deployment["template"]["spec"]["nodeSelector"]["frugal-llm/node-image"] == "al2023-v20260714-1.36"
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


# --- order ----------------------------------------------------------------------------------------------------------


def test_pods_come_after_their_identity_and_walls_and_go_before_them(quality: Recording) -> None:
    for name in ("quality-deployment", "quality-floor"):
        for first in ("service-account", "network-policy"):
            before = quality.named(f"quality-surroundings-{first}")
            assert quality.destroyed_before(quality.named(name), before), f"{name} and {first}"


def test_pods_go_before_what_the_tier_depends_on() -> None:
    def factory(opts: pulumi.ResourceOptions) -> None:
        pool = stand_in("pool", opts)
        args = EngineArgs(
            tier=FAST,
            namespace="llm",
            node_image_label=NODE_IMAGE_LABEL,
            bucket=BUCKET,
            region="us-east-2",
            api_key=False,
        )
        VllmTier("fast", args, pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[pool])))

    recording = component_under_test(factory)
    assert recording.destroyed_before(recording.named("fast-deployment"), recording.named("pool"))


def test_a_floor_of_two_is_two_replicas() -> None:
    tier = replace(QUALITY, replicas=replace(QUALITY.replicas, on_demand_floor=2))
    recording = tier_recording(VllmTier, EngineArgs, tier)
    assert object_of(recording, "Deployment", "quality-floor")["spec"]["replicas"] == 2
