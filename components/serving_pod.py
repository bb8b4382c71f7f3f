"""What the engine pods of all tiers have in common, as typed arguments. It creates no resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_kubernetes as k8s

from components.names import (
    API_KEY_SECRET,
    API_KEY_SECRET_KEY,
    CAPACITY_LABEL,
    EFA_RESOURCE,
    ENGINE_PORT,
    GPU_RESOURCE,
    NODE_IMAGE_LABEL,
    POOL_LABEL,
    SERVING_PRIORITY_CLASS,
    engine_service_account,
)
from planning.plan import PodResources, TierPlan, Timeouts

CACHE_DIRECTORY: Final = "/cache"
"""The home directory of engines and their only place to write beside ``/tmp`` and ``/dev/shm``."""
SCRATCH: Final = "temporary"
SCRATCH_DIRECTORY: Final = "/tmp"
METRICS_PORT_NAME: Final = "engine"
"""Name of the engine's own port: probes and the PodMonitor find it by this, also behind a sidecar."""

ENGINE_TOKEN: Final = "frugal-llm:serving:Engine"
"""One type for every engine component. The type is part of what Pulumi knows a child by: with one for each engine, a
tier that moves to another engine would make its service account and Service again, under names that are taken."""

STARTUP_PERIOD_S: Final = 2
"""Requests are held for the first ready replica, so a start is looked at often."""


@dataclass(frozen=True, kw_only=True)
class EngineArgs:
    """What an engine component is built from, whichever engine it is."""

    tier: TierPlan
    namespace: pulumi.Input[str]
    node_image_label: str
    """``Plan.node_image_label``: pods run on nodes of this image only, so that a new one rolls them."""
    bucket: pulumi.Input[str]
    """The weights bucket, already filled; with a shared store it also takes the KV blocks."""
    region: str
    api_key: bool
    """The namespace holds an API key that clients must send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodUser:
    """Who a pod's processes run as."""

    user: int
    group: int


VLLM_USER: Final = PodUser(user=2000, group=0)
"""User ``vllm`` of the image; its files belong to group 0."""
NOBODY: Final = PodUser(user=65532, group=65532)
"""For images that expect no user of their own."""


def gib(amount: float) -> str:
    """Give a Kubernetes quantity for ``amount`` GiB, in whole MiB: the API server would rewrite a fraction of a Gi."""
    return f"{round(amount * 1024)}Mi"


def cores(amount: float) -> str:
    """Give a Kubernetes quantity for ``amount`` CPUs, in whole millicores."""
    return f"{round(amount * 1000)}m"


def requirements(resources: PodResources, efa_interfaces: int = 0) -> k8s.core.v1.ResourceRequirementsArgs:
    """Give requests and limits of an engine container, with so many Elastic Fabric Adapters.

    Memory is limited to what is requested, so that a pod that needs more than planned fails alone and at once instead
    of when its neighbour grows. CPU has no limit: throttling would show up as latency while the node idles.
    """
    devices = {GPU_RESOURCE: resources.gpus, EFA_RESOURCE: efa_interfaces}
    gpus = {name: str(count) for name, count in devices.items() if count}
    return k8s.core.v1.ResourceRequirementsArgs(
        requests={
            "cpu": cores(resources.cpu_cores),
            "memory": gib(resources.memory_gib),
            "ephemeral-storage": gib(resources.cache_gib),
            **gpus,
        },
        limits={"memory": gib(resources.memory_gib), **gpus},
    )


def container_security() -> k8s.core.v1.SecurityContextArgs:
    """Give a container's part of Pod Security ``restricted``, and a root file system nobody can write to."""
    return k8s.core.v1.SecurityContextArgs(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=k8s.core.v1.CapabilitiesArgs(drop=["ALL"]),
    )


def pod_security(user: PodUser) -> k8s.core.v1.PodSecurityContextArgs:
    """Give the pod's part of Pod Security ``restricted``."""
    return k8s.core.v1.PodSecurityContextArgs(
        run_as_non_root=True,
        run_as_user=user.user,
        run_as_group=user.group,
        seccomp_profile=k8s.core.v1.SeccompProfileArgs(type="RuntimeDefault"),
    )


def variable(name: str, value: str) -> k8s.core.v1.EnvVarArgs:
    """Give an environment variable with a plain value."""
    return k8s.core.v1.EnvVarArgs(name=name, value=value)


def secret_variable(name: str, secret: str, key: str) -> k8s.core.v1.EnvVarArgs:
    """Give an environment variable whose value the kubelet reads from a Secret: it is in no manifest and no state."""
    selector = k8s.core.v1.SecretKeySelectorArgs(name=secret, key=key)
    return k8s.core.v1.EnvVarArgs(name=name, value_from=k8s.core.v1.EnvVarSourceArgs(secret_key_ref=selector))


def aws_environment(region: str) -> list[k8s.core.v1.EnvVarArgs]:
    """Give what every AWS SDK in a pod needs beside Pod Identity's own variables.

    The instance's metadata are one hop out of a pod's reach; without the switch each SDK waits for them in vain.
    """
    return [
        variable("AWS_REGION", region),
        variable("AWS_DEFAULT_REGION", region),
        variable("AWS_EC2_METADATA_DISABLED", "true"),
    ]


def api_key_environment(name: str, given: bool) -> list[k8s.core.v1.EnvVarArgs]:
    """Give the variable ``name`` with the clients' API key, or nothing when the stack has none."""
    return [secret_variable(name, API_KEY_SECRET, API_KEY_SECRET_KEY)] if given else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """The three probes of an engine container."""

    startup: k8s.core.v1.ProbeArgs
    readiness: k8s.core.v1.ProbeArgs
    liveness: k8s.core.v1.ProbeArgs


def probes(timeouts: Timeouts) -> Probes:
    """Give the probes of an engine; the other two wait until the first has passed.

    ``/health`` is 503 while llama.cpp loads and, in vLLM, when the engine is dead; it stays 200 while vLLM drains.
    """
    health = k8s.core.v1.HTTPGetActionArgs(path="/health", port=METRICS_PORT_NAME)
    failures = -(-timeouts.startup_probe_s // STARTUP_PERIOD_S)
    return Probes(
        startup=k8s.core.v1.ProbeArgs(
            http_get=health,
            period_seconds=STARTUP_PERIOD_S,
            timeout_seconds=5,
            failure_threshold=failures,
        ),
        # A late answer alone must not take a busy replica out and push its load onto the next one.
        readiness=k8s.core.v1.ProbeArgs(http_get=health, period_seconds=5, timeout_seconds=5, failure_threshold=3),
        # Three minutes without one answer in 10 s. A server that tokenizes long prompts answers late, and killing it
        # would throw away its cache and minutes of loading; a dead engine answers 503 throughout.
        liveness=k8s.core.v1.ProbeArgs(http_get=health, period_seconds=20, timeout_seconds=10, failure_threshold=9),
    )


def sleep_before_stop(seconds: int) -> k8s.core.v1.LifecycleArgs:
    """Keep a terminating engine serving for ``seconds`` before it hears of it.

    The endpoint picker drops a pod when it sees its deletion timestamp; without this sleep 2 of 201 requests came to a
    closed port, with 3 s none of 367.
    """
    sleep = k8s.core.v1.SleepActionArgs(seconds=seconds)
    return k8s.core.v1.LifecycleArgs(pre_stop=k8s.core.v1.LifecycleHandlerArgs(sleep=sleep))


_ZONE: Final = "topology.kubernetes.io/zone"
_HOST: Final = "kubernetes.io/hostname"


def beside(labels: Mapping[str, str]) -> k8s.core.v1.AffinityArgs:
    """Keep a pod in the zone of the pods that carry ``labels``; the first of them goes where there is capacity."""
    term = k8s.core.v1.PodAffinityTermArgs(
        topology_key=_ZONE, label_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=labels)
    )
    return k8s.core.v1.AffinityArgs(
        pod_affinity=k8s.core.v1.PodAffinityArgs(required_during_scheduling_ignored_during_execution=[term])
    )


def spread(
    labels: Mapping[str, str], over: Sequence[str] = (_ZONE, _HOST)
) -> list[k8s.core.v1.TopologySpreadConstraintArgs]:
    """Spread the pods that carry ``labels`` over zones and nodes as far as capacity allows.

    Karpenter plans for such a preference first, so two replicas come up in two zones when two zones have capacity.
    As a condition it would do harm: with spot sold out in one zone of three, the third replica and every further one
    would wait for that zone, and a second replica beside the first serves more than one that is pending.
    """
    return [
        k8s.core.v1.TopologySpreadConstraintArgs(
            max_skew=1,
            topology_key=key,
            # Else an elastic pod does not see the floor's, whose nodes it cannot go to, and joins them in their zone.
            node_affinity_policy="Ignore",
            when_unsatisfiable="ScheduleAnyway",
            label_selector=k8s.meta.v1.LabelSelectorArgs(match_labels=labels),
        )
        for key in over
    ]


def _toleration(pool: str, gpus: int) -> k8s.core.v1.TolerationArgs:
    if gpus:
        return k8s.core.v1.TolerationArgs(key=GPU_RESOURCE, operator="Exists", effect="NoSchedule")
    return k8s.core.v1.TolerationArgs(key=POOL_LABEL, operator="Equal", value=pool, effect="NoSchedule")


def writable_volume(name: str, size_gib: float) -> k8s.core.v1.VolumeArgs:
    """Give an empty directory on the node's disk."""
    return k8s.core.v1.VolumeArgs(name=name, empty_dir=k8s.core.v1.EmptyDirVolumeSourceArgs(size_limit=gib(size_gib)))


def scratch_volume() -> k8s.core.v1.VolumeArgs:
    """Give a small ``/tmp`` for programs that write a line or two under their home directory and fail without."""
    return writable_volume(SCRATCH, 0.25)


def scratch_mount() -> k8s.core.v1.VolumeMountArgs:
    """Mount the volume of :func:`scratch_volume`."""
    return k8s.core.v1.VolumeMountArgs(name=SCRATCH, mount_path=SCRATCH_DIRECTORY)


def memory_volume(name: str, size_gib: float) -> k8s.core.v1.VolumeArgs:
    """Give an empty directory in memory; what is written there counts against the container's memory."""
    return k8s.core.v1.VolumeArgs(
        name=name, empty_dir=k8s.core.v1.EmptyDirVolumeSourceArgs(medium="Memory", size_limit=gib(size_gib))
    )


def engine_pod(
    tier: TierPlan,
    *,
    pool: str,
    image_label: str,
    user: PodUser,
    spread_over: Mapping[str, str],
    container: k8s.core.v1.ContainerArgs,
    volumes: Sequence[k8s.core.v1.VolumeArgs],
    init_containers: Sequence[k8s.core.v1.ContainerArgs] = (),
    on_demand_only: bool = False,
    in_the_zone_of: Mapping[str, str] | None = None,
) -> k8s.core.v1.PodSpecArgs:
    """Give the pod around an engine container, on nodes of ``pool``.

    ``on_demand_only`` keeps it off spot nodes, for a tier's uninterruptible floor. ``in_the_zone_of`` pods with these
    labels, its own among them, is where it must be; by default it goes to another zone than its like.
    """
    capacity = {CAPACITY_LABEL: "elastic"}
    if on_demand_only:
        capacity = {CAPACITY_LABEL: "floor", "karpenter.sh/capacity-type": "on-demand"}
    return k8s.core.v1.PodSpecArgs(
        service_account_name=engine_service_account(tier.name),
        # Pod Identity brings its own token; a token for the Kubernetes API would only serve who breaks in.
        automount_service_account_token=False,
        # A Service called vllm would set VLLM_PORT to tcp://…, and vLLM would not start.
        enable_service_links=False,
        priority_class_name=SERVING_PRIORITY_CLASS,
        # By the image too: a new one rolls the pods, each new pod ready before an old one goes. Without it Karpenter
        # would find the old nodes drifted and drain them, and their pods would be stopped before the next ones load.
        node_selector={POOL_LABEL: pool, NODE_IMAGE_LABEL: image_label, **capacity},
        tolerations=[_toleration(pool, tier.resources.gpus)],
        # Karpenter settles a spread pod's zone before it compares prices, and asks EC2 for that zone only.
        topology_spread_constraints=spread(spread_over, [_HOST] if in_the_zone_of else (_ZONE, _HOST))
        if tier.replicas.several
        else None,
        affinity=beside(in_the_zone_of) if in_the_zone_of else None,
        termination_grace_period_seconds=tier.timeouts.grace_s,
        security_context=pod_security(user),
        init_containers=list(init_containers) or None,
        containers=[container],
        volumes=list(volumes),
    )


def engine_deployment_spec(
    labels: Mapping[str, str],
    pod: k8s.core.v1.PodSpecArgs,
    timeouts: Timeouts,
    replicas: int | None = None,
) -> k8s.apps.v1.DeploymentSpecArgs:
    """Give the Deployment of engine pods with ``labels``, which must select no other Deployment's pods.

    Without ``replicas`` the autoscaler owns the number, and Pulumi leaves it alone.
    """
    return k8s.apps.v1.DeploymentSpecArgs(
        replicas=replicas,
        selector=k8s.meta.v1.LabelSelectorArgs(match_labels=labels),
        # A new version takes over only when it serves: it costs one replica more while it loads.
        strategy=k8s.apps.v1.DeploymentStrategyArgs(
            type="RollingUpdate",
            rolling_update=k8s.apps.v1.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
        ),
        progress_deadline_seconds=timeouts.progress_deadline_s,
        revision_history_limit=3,
        template=k8s.core.v1.PodTemplateSpecArgs(
            # Never `karpenter.sh/do-not-disrupt`: Karpenter then leaves the pod on a spot node that EC2 takes back, and
            # it is cut off. That no replica is moved to save money is the node pool's word: only empty nodes go.
            metadata=k8s.meta.v1.ObjectMetaArgs(labels=labels),
            spec=pod,
        ),
    )


def rollout_timeouts(timeouts: Timeouts) -> pulumi.CustomTimeouts:
    """Give Pulumi's patience with a Deployment: a cold start may take longer than its 10 minutes."""
    patience = f"{timeouts.progress_deadline_s}s"
    return pulumi.CustomTimeouts(create=patience, update=patience)


def engine_port(port: int = ENGINE_PORT) -> k8s.core.v1.ContainerPortArgs:
    """Give the container port on which an engine serves its API, ``/health`` and ``/metrics``."""
    return k8s.core.v1.ContainerPortArgs(name=METRICS_PORT_NAME, container_port=port)
