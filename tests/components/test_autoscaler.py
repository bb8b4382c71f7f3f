"""The ScaledObjects of a tier. That KEDA and Kubernetes' autoscaler do what is said of them here, also with a failed
trigger, is shown by `tests/cluster/test_waking.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pulumi
import pytest

from components import tier_queries
from components.autoscaler import TierAutoscaler, TierAutoscalerArgs
from components.names import PROMETHEUS_URL
from planning.cold_start import LOAD_WINDOW_S
from planning.plan import ReplicaRange, SchedulePlan, TierPlan
from tests.components.building import stand_in
from tests.components.plans import FAST, QUALITY, SMALL, SPLIT, TIERS
from tests.harness import Recording, component_under_test, destroy_reachability, kubernetes_objects
from tests.schemas.checker import problems

OFFICE = SchedulePlan(timezone="Europe/Berlin", start="0 8 * * 1-5", end="0 18 * * 1-5")


def autoscaler(tier: TierPlan, schedule: SchedulePlan | None = None, *, preview: bool = False) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> pulumi.Resource:
        args = TierAutoscalerArgs(
            tier=tier,
            schedule=schedule,
            prometheus_url=PROMETHEUS_URL,
            namespace="llm",
            workloads=[stand_in("workload", opts)],
            keda=stand_in("keda", opts),
        )
        return TierAutoscaler(f"{tier.name}-autoscaler", args, opts)

    return component_under_test(factory, preview=preview)


def specs(tier: TierPlan, schedule: SchedulePlan | None = None) -> dict[str, dict[str, Any]]:
    found = kubernetes_objects(autoscaler(tier, schedule), "ScaledObject")
    assert all(one["metadata"]["name"] == one["spec"]["scaleTargetRef"]["name"] for one in found)
    return {one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in found}


def spec(tier: TierPlan, schedule: SchedulePlan | None = None) -> dict[str, Any]:
    (found,) = specs(tier, schedule).values()
    return found


def trigger(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [one for one in found["triggers"] if one["name"] == name]
    return one


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_keda_would_take_every_scaled_object(tier: TierPlan) -> None:
    for one in kubernetes_objects(autoscaler(tier, OFFICE), "ScaledObject"):
        assert problems(one) == []
        assert one["metadata"]["namespace"] == "llm"


def test_what_the_autoscaler_owns_is_scaled_and_the_floor_is_not() -> None:
    assert list(specs(QUALITY)) == ["quality-engine"]
    assert list(specs(SPLIT)) == ["split-decode", "split-prefill"]


def test_the_target_is_known_in_a_first_preview() -> None:
    (one,) = kubernetes_objects(autoscaler(FAST, preview=True), "ScaledObject")
    assert one["spec"]["scaleTargetRef"] == {"name": "fast-engine"}


# Pausing -----------------------------------------------------------------------------------------------------------


def annotations_of(tier: TierPlan) -> dict[str, Any]:
    found = kubernetes_objects(autoscaler(tier, OFFICE), "ScaledObject")
    return {one["metadata"]["name"]: one["metadata"].get("annotations") for one in found}


def paused(tier: TierPlan, replicas: int) -> TierPlan:
    return replace(tier, replicas=replace(tier.replicas, paused=replicas))


def test_a_tier_scales_unless_it_is_paused() -> None:
    assert annotations_of(FAST) == {"fast-engine": None}


def test_a_paused_tier_is_kept_at_its_replicas_by_keda_and_is_otherwise_scaled_as_before() -> None:
    assert annotations_of(paused(FAST, 0)) == {"fast-engine": {"autoscaling.keda.sh/paused-replicas": "0"}}
    assert spec(paused(FAST, 0), OFFICE) == spec(FAST, OFFICE), "the end of a pause removes an annotation and no more"


def test_the_floor_counts_among_the_paused_replicas() -> None:
    assert QUALITY.replicas.on_demand_floor == 1
    assert annotations_of(paused(QUALITY, 3)) == {"quality-engine": {"autoscaling.keda.sh/paused-replicas": "2"}}


def test_both_roles_of_a_disaggregated_tier_pause() -> None:
    expected = {"autoscaling.keda.sh/paused-replicas": "1"}
    assert annotations_of(paused(SPLIT, 1)) == {"split-decode": expected, "split-prefill": expected}


# Waking --------------------------------------------------------------------------------------------------------------


def test_the_first_held_request_wakes_a_sleeping_tier() -> None:
    queue = trigger(spec(FAST), "queue")
    assert queue["type"] == "prometheus"
    assert queue["metadata"]["query"] == tier_queries.queued("fast")
    assert queue["metadata"]["activationThreshold"] == "0"
    assert spec(FAST)["minReplicaCount"] == 0


def test_however_many_are_held_they_order_one_replica() -> None:
    threshold = float(trigger(spec(FAST), "queue")["metadata"]["threshold"])
    # desired = ceil(held / threshold), and the router holds no more than this.
    assert FAST.router.max_held_requests / threshold <= 1


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_no_metric_of_a_sleeping_tiers_own_pods_wakes_it(tier: TierPlan) -> None:
    for name, found in specs(tier).items():
        waking = found["triggers"][0]["metadata"]["query"]
        assert f'service="{tier.name}-router"' in waking, name
        assert "vllm:" not in waking, "there is none while it sleeps"


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_no_answer_is_an_error_and_never_zero(tier: TierPlan) -> None:
    for found in specs(tier).values():
        for one in found["triggers"]:
            assert one["metadata"]["ignoreNullValues"] == "false", one["name"]
            assert "or vector(0)" in one["metadata"]["query"], "absent until the first request"
            assert "rate(" not in one["metadata"]["query"], "of a gauge it means nothing"


def test_a_router_that_is_not_scraped_puts_no_tier_to_sleep() -> None:
    for name in ("queue", "running"):
        assert 'max(up{namespace="llm",service="fast-router"}) == 1' in trigger(spec(FAST), name)["metadata"]["query"]


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_without_prometheus_what_never_sleeps_keeps_its_replicas_and_what_sleeps_has_nothing_to_fall_back_to(
    tier: TierPlan,
) -> None:
    """KEDA takes a trigger that has fallen back for active, and would wake every sleeping tier."""
    for found in specs(tier).values():
        fallback = found.get("fallback")
        assert (fallback is None) == (found["minReplicaCount"] == 0)
        if fallback:
            assert fallback["behavior"] == "currentReplicas"
            assert fallback["replicas"] > 0, "with 0 KEDA takes an error for no load and scales to 0"
        assert all(one["metricType"] == "AverageValue" for one in found["triggers"] if one["type"] == "prometheus")


# Growing and shrinking -----------------------------------------------------------------------------------------------


def test_a_replica_more_comes_when_more_run_than_planned_for_each() -> None:
    running = trigger(spec(FAST), "running")
    assert running["metadata"]["query"] == tier_queries.running("fast")
    assert running["metadata"]["threshold"] == "24"


def test_a_tier_of_llama_cpp_grows_by_what_waits_for_its_slots() -> None:
    # The router sends a replica no more than it has slots, so a full one of one slot always runs one.
    query = trigger(spec(SMALL), "running")["metadata"]["query"]
    assert query == tier_queries.running("small", with_queue=True)
    assert tier_queries.QUEUED in query


def test_a_slow_tier_grows_beyond_the_fraction_of_a_request_that_fills_its_replica_on_average() -> None:
    idle = replace(SMALL, serving=replace(SMALL.serving, autoscaler_target=0.08))
    assert trigger(spec(idle), "running")["metadata"]["threshold"] == "0.08"


def test_the_numbers_are_the_plans() -> None:
    found = spec(FAST)
    assert (found["minReplicaCount"], found["maxReplicaCount"]) == (0, 8)
    assert (found["pollingInterval"], found["cooldownPeriod"]) == (5, 600)
    assert found["initialCooldownPeriod"] == 600


def test_a_tier_that_never_sleeps_has_no_times_of_waking_and_sleeping() -> None:
    # KEDA's webhook warns of them.
    assert {"pollingInterval", "cooldownPeriod", "initialCooldownPeriod"}.isdisjoint(spec(QUALITY))


def test_the_floors_replicas_are_counted_out_of_every_number() -> None:
    found = spec(QUALITY, OFFICE)
    assert (found["minReplicaCount"], found["maxReplicaCount"]) == (1, 5)
    assert trigger(found, "running")["metadata"]["query"] == tier_queries.running_beyond("quality", 1, 24.0)


def test_a_tier_that_is_all_floor_still_has_a_number_that_kubernetes_takes() -> None:
    fixed = replace(QUALITY, replicas=ReplicaRange(minimum=2, maximum=2, on_demand_floor=2, working_hours=2))
    assert (spec(fixed)["minReplicaCount"], spec(fixed)["maxReplicaCount"]) == (0, 1)


def test_a_peak_shorter_than_a_start_buys_no_node_because_the_load_is_an_average() -> None:
    assert "avg_over_time(" in trigger(spec(FAST), "running")["metadata"]["query"]
    assert FAST.timeouts.cold_start_s / 2 <= LOAD_WINDOW_S


def test_replicas_come_at_once_and_go_when_the_cooldown_is_over() -> None:
    behavior = spec(FAST)["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == FAST.timeouts.cooldown_s


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_a_tier_grows_as_soon_as_it_passes_its_target_and_not_10_percent_later(tier: TierPlan) -> None:
    # Kubernetes leaves replicas as they are within 10 % of the target unless told otherwise. That the cluster's version
    # honours the field (feature gate HPAConfigurableTolerance) is not proven here.
    for found in specs(tier).values():
        behavior = found["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert [behavior[way]["tolerance"] for way in ("scaleUp", "scaleDown")] == ["0", "0"]


def test_a_long_cooldown_keeps_to_what_kubernetes_takes() -> None:
    patient = replace(FAST, timeouts=replace(FAST.timeouts, cooldown_s=7200))
    behavior = spec(patient)["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 3600
    assert spec(patient)["cooldownPeriod"] == 7200


def test_an_end_of_the_autoscaler_orders_no_replicas() -> None:
    assert spec(FAST)["advanced"]["restoreToOriginalReplicaCount"] is False


# Working hours -------------------------------------------------------------------------------------------------------


def test_working_hours_keep_their_replicas() -> None:
    assert trigger(spec(FAST, OFFICE), "working-hours") == {
        "type": "cron",
        "name": "working-hours",
        "metadata": {
            "timezone": "Europe/Berlin",
            "start": "0 8 * * 1-5",
            "end": "0 18 * * 1-5",
            "desiredReplicas": "1",
        },
    }


@pytest.mark.parametrize(
    ("tier", "schedule", "because"),
    [
        (FAST, None, "there is no schedule"),
        (SMALL, OFFICE, "none are kept: desiredReplicas 0 does nothing"),
        (QUALITY, OFFICE, "as many are kept at any hour"),
    ],
)
def test_there_is_no_clock_without_a_reason(tier: TierPlan, schedule: SchedulePlan | None, because: str) -> None:
    assert {one["type"] for one in spec(tier, schedule)["triggers"]} == {"prometheus"}, because


# Disaggregated -------------------------------------------------------------------------------------------------------


def test_the_queue_wakes_decode_and_not_prefill() -> None:
    # With prefill alone the router answers 429 at once instead of holding (seen with llm-d-router ebab687).
    found = specs(SPLIT)
    assert [one["name"] for one in found["split-decode"]["triggers"]] == ["queue", "running", "prefill-is-up"]
    assert [one["name"] for one in found["split-prefill"]["triggers"]] == ["decode-is-busy", "prefilling"]


def test_working_hours_wake_decode_and_prefill_follows_it() -> None:
    plan = SPLIT.disaggregation
    assert plan is not None
    asleep_at_night = replace(
        plan,
        decode=replace(plan.decode, replicas=ReplicaRange(0, 4, 0, 2)),
        prefill=replace(plan.prefill, replicas=ReplicaRange(0, 2, 0, 1)),
    )
    office = replace(SPLIT, disaggregation=asleep_at_night)
    found = specs(office, OFFICE)
    assert trigger(found["split-decode"], "working-hours")["metadata"]["desiredReplicas"] == "2"
    assert {one["type"] for one in found["split-prefill"]["triggers"]} == {"prometheus"}, (
        "it would be up without decode"
    )


def test_prefill_wakes_when_something_runs_on_decode_and_decode_stays_as_long_as_prefill() -> None:
    found = specs(SPLIT)
    busy = trigger(found["split-prefill"], "decode-is-busy")["metadata"]
    assert (busy["query"], busy["threshold"]) == (tier_queries.is_running("split"), "1")
    stays = trigger(found["split-decode"], "prefill-is-up")["metadata"]
    assert (stays["query"], stays["threshold"]) == (tier_queries.is_up("split", "prefill"), "1")


def test_each_role_grows_by_its_own_load_within_its_own_limits() -> None:
    found = specs(SPLIT)
    assert trigger(found["split-decode"], "running")["metadata"]["threshold"] == "48"
    prefilling = trigger(found["split-prefill"], "prefilling")["metadata"]
    assert (prefilling["query"], prefilling["threshold"]) == (tier_queries.engine_load("split", "prefill"), "4")
    assert [(one["minReplicaCount"], one["maxReplicaCount"]) for one in found.values()] == [(2, 5), (1, 3)]


# Order ---------------------------------------------------------------------------------------------------------------


def test_on_destroy_it_goes_while_keda_clears_its_finalizer_and_before_what_it_scales() -> None:
    recording = autoscaler(FAST)
    assert destroy_reachability(recording, "fast-autoscaler-engine", "keda")
    assert destroy_reachability(recording, "fast-autoscaler-engine", "workload")
