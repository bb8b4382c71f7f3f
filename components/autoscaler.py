"""Replicas follow the load: KEDA wakes a sleeping tier, keeps it awake, and puts it back to sleep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_kubernetes as k8s

from components import tier_queries
from components.names import ENGINE, engine_deployment, role_deployment, tier_labels
from planning.cold_start import scale_down_window_s
from planning.plan import DisaggregationPlan, ReplicaRange, SchedulePlan, TierPlan

_FAILURES: Final = 3
"""Failed looks at Prometheus after which replicas stay as they are until it answers again."""
_NO_TOLERANCE: Final = "0"
"""The target is the load at which a replica just meets its latency, so the tier grows as soon as it is passed: with the
cluster's default it grows only when it is 10 % beyond it. Where the feature gate HPAConfigurableTolerance
(beta since Kubernetes 1.35) is off, the API server drops the field and the default stays."""


@dataclass(frozen=True, kw_only=True)
class TierAutoscalerArgs:
    """What the autoscaler of a tier is built from."""

    tier: TierPlan
    schedule: SchedulePlan | None
    """Working hours, during which a tier keeps ``replicas.working_hours``; None: none are kept."""
    prometheus_url: str
    namespace: pulumi.Input[str]
    workloads: Sequence[pulumi.Resource]
    """What is scaled: the tier's component. Its Deployments are named by convention, so that a preview knows them."""
    keda: pulumi.Resource
    """The release that scales and, on destroy, must still be there to clear the ScaledObject's finalizer."""


class TierAutoscaler(pulumi.ComponentResource):
    """One ScaledObject for each Deployment of a tier that KEDA owns; the on-demand floor is not scaled.

    A tier is woken by the router's queue and grows with the requests that the router has on its replicas. vLLM's own
    metrics cannot wake it: there are none while it sleeps.
    """

    def __init__(self, name: str, args: TierAutoscalerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:scaling:TierAutoscaler", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self, depends_on=[args.keda, *args.workloads])
        for deployment, spec in _scaled(args).items():
            k8s.apiextensions.CustomResource(
                f"{name}-{deployment.removeprefix(f'{args.tier.name}-')}",
                api_version="keda.sh/v1alpha1",
                kind="ScaledObject",
                metadata=k8s.meta.v1.ObjectMetaArgs(
                    name=deployment,
                    namespace=args.namespace,
                    labels=tier_labels(args.tier.name, ENGINE),
                    annotations=_pause(args.tier.replicas),
                ),
                spec={"scaleTargetRef": {"name": deployment}, **spec},
                opts=child,
            )
        self.register_outputs({})


def _pause(replicas: ReplicaRange) -> dict[str, str] | None:
    """Give the annotation at which KEDA sets a number of replicas and leaves it; without it KEDA scales.

    While it is there KEDA runs no loop and no HPA exists (read in KEDA 2.21.0, ``scaledobject_controller.go``).
    """
    if replicas.paused is None:
        return None
    return {"autoscaling.keda.sh/paused-replicas": str(replicas.paused - replicas.on_demand_floor)}


def _scaled(args: TierAutoscalerArgs) -> dict[str, dict[str, Any]]:
    """Give how each Deployment is scaled, by its name."""
    tier = args.tier
    if tier.disaggregation is not None:
        return _roles(args, tier.disaggregation)
    triggers = [
        *_following_the_router(args, tier.replicas, tier.serving.autoscaler_target),
        *_clock(args, tier.replicas),
    ]
    return {engine_deployment(tier.name): _spec(args, tier.replicas, triggers)}


def _roles(args: TierAutoscalerArgs, plan: DisaggregationPlan) -> dict[str, dict[str, Any]]:
    """Decode comes first and goes last.

    The router sends a request as soon as any replica is there, of either role; with prefill alone it fails at once
    instead of being held. So queue and clock wake decode only, requests on decode wake prefill, and decode stays as
    long as a prefill replica is up. A long prompt that finds no prefill replica is prefilled where it is decoded.
    """
    name = args.tier.name
    decode, prefill = plan.decode, plan.prefill
    decode_triggers = [
        *_following_the_router(args, decode.replicas, decode.concurrency_target),
        _prometheus(args, "prefill-is-up", tier_queries.is_up(name, "prefill"), 1),
    ]
    prefill_triggers = [
        _prometheus(args, "decode-is-busy", tier_queries.is_running(name), 1),
        _prometheus(args, "prefilling", tier_queries.engine_load(name, "prefill"), prefill.concurrency_target),
    ]
    return {
        role_deployment(name, "decode"): _spec(
            args, decode.replicas, [*decode_triggers, *_clock(args, decode.replicas)]
        ),
        role_deployment(name, "prefill"): _spec(args, prefill.replicas, prefill_triggers),
    }


def _spec(args: TierAutoscalerArgs, replicas: ReplicaRange, triggers: list[dict[str, Any]]) -> dict[str, Any]:
    timeouts = args.tier.timeouts
    # The floor has a Deployment of its own; its replicas are part of every number in the plan.
    least = replicas.minimum - replicas.on_demand_floor
    # KEDA itself only wakes what sleeps and puts it back; beyond that the autoscaler asks, and KEDA's webhook warns of
    # times that nothing reads.
    asleep_or_not = {
        "pollingInterval": timeouts.polling_interval_s,
        "cooldownPeriod": timeouts.cooldown_s,
        # A new Deployment starts with one replica. It gets as long to be used as any other: without this KEDA stops it
        # in the middle of its first start.
        "initialCooldownPeriod": timeouts.cooldown_s,
    }
    return {
        **(asleep_or_not if least == 0 else {}),
        "minReplicaCount": least,
        # A tier whose floor is all it may have still needs a number that Kubernetes takes.
        "maxReplicaCount": max(1, replicas.maximum - replicas.on_demand_floor),
        **(_fallback() if least > 0 else {}),
        "advanced": {
            # Deleting the ScaledObject must not order nodes for replicas that slept.
            "restoreToOriginalReplicaCount": False,
            "horizontalPodAutoscalerConfig": {
                "behavior": {
                    # The load is an average of minutes already, and counted in replicas, so it cannot overshoot while
                    # the new ones start: no wait and no limit on the steps.
                    "scaleUp": {"stabilizationWindowSeconds": 0, "tolerance": _NO_TOLERANCE},
                    "scaleDown": {
                        "stabilizationWindowSeconds": scale_down_window_s(timeouts.cooldown_s),
                        "tolerance": _NO_TOLERANCE,
                    },
                }
            },
        },
        "triggers": triggers,
    }


def _fallback() -> dict[str, Any]:
    """Keep the replicas that are there while Prometheus is away, for what never sleeps.

    KEDA takes a trigger that has fallen back for active: every sleeping tier would start a replica (2.21, and seen).
    Without it a failed look changes nothing: KEDA does not scale a tier to zero or wake it by an error, and Kubernetes'
    autoscaler does not shrink by a metric that it cannot read.
    """
    # The number is not used by this behaviour, but 0 reads as: no replicas.
    return {"fallback": {"failureThreshold": _FAILURES, "behavior": "currentReplicas", "replicas": 1}}


def _following_the_router(args: TierAutoscalerArgs, replicas: ReplicaRange, concurrency: float) -> list[dict[str, Any]]:
    """Wake at the first held request, and grow with what runs.

    Kubernetes' autoscaler reads the queue as load too: at a threshold of the router's whole queue it never asks for a
    second replica because of it. How many requests piled up during a cold start says nothing about how many run at
    once.
    """
    tier, floor = args.tier, replicas.on_demand_floor
    # Of llama.cpp the router never runs more than there are slots: that they are too few shows in its queue alone.
    # vLLM queues by itself, and what waits there counts as running here.
    with_queue = tier.llama_cpp is not None
    running = (
        tier_queries.running_beyond(tier.name, floor, concurrency, with_queue=with_queue)
        if floor
        else tier_queries.running(tier.name, with_queue=with_queue)
    )
    return [
        _prometheus(args, "queue", tier_queries.queued(tier.name), tier.router.max_held_requests),
        _prometheus(args, "running", running, concurrency),
    ]


def _prometheus(args: TierAutoscalerArgs, name: str, query: str, threshold: float) -> dict[str, Any]:
    return {
        "type": "prometheus",
        "name": name,
        # Of the total, per replica. A fallback needs it to be said.
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": args.prometheus_url,
            "query": query,
            "threshold": tier_queries.number(threshold),
            "activationThreshold": "0",
            # No answer is an error, which keeps replicas as they are; the default takes it for zero.
            "ignoreNullValues": "false",
        },
    }


def _clock(args: TierAutoscalerArgs, replicas: ReplicaRange) -> list[dict[str, Any]]:
    """Keep the replicas of working hours, unless as many are kept at any hour."""
    if args.schedule is None or replicas.working_hours <= replicas.minimum:
        return []
    return [
        {
            "type": "cron",
            "name": "working-hours",
            "metadata": {
                "timezone": args.schedule.timezone,
                "start": args.schedule.start,
                "end": args.schedule.end,
                "desiredReplicas": str(replicas.working_hours - replicas.on_demand_floor),
            },
        }
    ]
