"""A stack's pools and tiers under the real Karpenter, in a cluster of their own.

Karpenter is the AWS provider in its kwok flavour: it decides as in production and calls AWS for all but instances,
which it keeps to itself. A node appears 30 s after its launch, and kwok plays its kubelet. So nothing here proves that
EC2 launches what Karpenter asks for, or that a node boots and joins.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from components.names import POOL_LABEL
from planning.plan import Plan, TierPlan
from planning.stack import plan_config
from planning.stackfile import read_stack, stack_path
from tests import harness
from tests.cluster.aws_stub import Aws, aws
from tests.cluster.build import Tools
from tests.cluster.client import Client, Object, is_true
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.cluster.placement import Launched, Placement, Planned
from tests.cluster.processes import Process, answers, free_ports, wait_until
from tests.cluster.stack import define
from tests.emulators import moto

NODE_APPEARS_S: Final = 30
"""The kwok flavour's own delay from the launch of an instance to its node."""

NODE_CLAIM: Final = ("karpenter.sh/v1", "NodeClaim")
NODE_CLASS: Final = ("karpenter.k8s.aws/v1", "EC2NodeClass")
NODE_POOL: Final = ("karpenter.sh/v1", "NodePool")

_ENGINES_NEED: Final = frozenset({"Namespace", "ServiceAccount", "PriorityClass", "PodDisruptionBudget"})

_PODS_OF_A_NODE: Final = 29
"""Of g4dn.xlarge, the least of any type in a plan."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One Deployment of a tier, and what the plan says of it."""

    manifest: Mapping[str, Any]
    planned: Planned
    replicas: int
    """As planned at least; one where a tier may sleep."""

    @property
    def name(self) -> str:
        """The Deployment's name."""
        return str(self.manifest["metadata"]["name"])


@dataclass
class KarpenterStack:
    """A stack whose pools the real Karpenter serves."""

    plan: Plan
    plane: ControlPlane
    aws: Aws
    workloads: dict[str, Workload]
    karpenter: Process
    _starts: Callable[[], Process] = field(repr=False)

    @property
    def client(self) -> Client:
        """The cluster's administrator."""
        return self.plane.client

    def restart_karpenter(self) -> None:
        """Start Karpenter anew: it asks for prices when it starts, and then only every twelve hours."""
        self.plane.processes.stop(self.karpenter)
        self.karpenter = self._starts()

    def scale(self, replicas: Mapping[str, int]) -> None:
        """Ask for so many replicas of each workload."""
        for name, count in replicas.items():
            self.client.scale(name, self._namespace(name), count)

    def pods(self, workload: str) -> list[Object]:
        """List a workload's pods that are not on their way out."""
        labels = self.workloads[workload].manifest["spec"]["selector"]["matchLabels"]
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        pods = self.client.objects("v1", "Pod", self._namespace(workload), labels=selector)
        return [
            pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and _owner(pod).startswith(f"{workload}-")
        ]

    def node_claims(self) -> list[Object]:
        """List what Karpenter has launched or is about to."""
        return self.client.objects(*NODE_CLAIM)

    def wait_running(self, replicas: Mapping[str, int], *, left_over: int = 0) -> None:
        """Wait until so many replicas of each workload run and, but for those ``left_over``, no others are there."""

        def running() -> bool:
            self.karpenter.check()
            phases = {name: Counter(pod["status"].get("phase") for pod in self.pods(name)) for name in replicas}
            return phases == {
                name: Counter({"Running": count, "Pending": left_over}) for name, count in replicas.items()
            }

        wait_until(running, f"{dict(replicas)} pods run", seconds=NODE_APPEARS_S + 60, every=0.5)

    def placements(self) -> list[Placement]:
        """Where the running pods of all workloads are, one for each pod."""
        claims = {claim.get("status", {}).get("nodeName"): claim for claim in self.node_claims()}
        return [
            Placement(workload.planned, self._launched(claims[pod["spec"]["nodeName"]]))
            for name, workload in self.workloads.items()
            for pod in self.pods(name)
        ]

    def remove_spare_nodes(self) -> int:
        """Take away nodes without a replica, and give their number.

        A tier whose GPU one of the zones does not have may get one: Karpenter gives up the spread over zones when it
        tries that zone, and orders a node in another one when it looks again and the first are still starting.
        """
        used = {pod["spec"].get("nodeName") for name in self.workloads for pod in self.pods(name)}
        spare = [one for one in self.node_claims() if one.get("status", {}).get("nodeName") not in used]
        self._remove(spare)
        return len(spare)

    def clear(self) -> None:
        """Scale everything to nothing and take every node away, as somebody would who deletes the claims."""
        self.scale(dict.fromkeys(self.workloads, 0))
        wait_until(lambda: not any(map(self.pods, self.workloads)), "all pods are gone", seconds=30)
        self._remove(self.node_claims())

    def complaints(self) -> list[str]:
        """Errors in Karpenter's log but for pods that fit nowhere: it refuses budgets that the API server took."""
        errors = [line for line in self.karpenter.text().splitlines() if '"level":"ERROR"' in line]
        return [line for line in errors if '"message":"could not schedule pod"' not in line]

    def _remove(self, node_claims: Sequence[Object]) -> None:
        names = {claim["metadata"]["name"] for claim in node_claims}
        for name in names:
            self.client.delete(*NODE_CLAIM, name)

        def gone() -> bool:
            return not names & {claim["metadata"]["name"] for claim in self.node_claims()}

        wait_until(gone, f"nodes {names} are gone", seconds=60, every=0.5)

    def _launched(self, claim: Object) -> Launched:
        launched = Launched.of(claim, 0.0)
        price = self.aws.market.usd_per_hour(launched.instance_type, launched.capacity_type, launched.zone)
        assert price is not None, f"{launched} is not on the market"
        return Launched.of(claim, price)

    def _namespace(self, workload: str) -> str:
        return str(self.workloads[workload].manifest["metadata"]["namespace"])


@contextmanager
def karpenter_stack(
    tools: Tools, directory: Path, stack: str, *, one_launch_template: bool = False, **values: object
) -> Generator[KarpenterStack]:
    """Start a cluster and Karpenter, and apply the pools and engines of a stack as the program emits them.

    ``values`` replace those of the stack file. Engines have no replicas yet. ``one_launch_template`` says that every
    node takes the same number of pods: Karpenter makes a launch template for each number, EC2 chooses over all of them,
    and the kwok flavour takes the first, which is any, and looks for the cheapest in that one alone.
    """
    file = read_stack(stack_path(stack, harness.ROOT))
    _, plan = plan_config(file.region, {**file.values, **values})
    recording = harness.record_with(stack, preview=False, **values)
    objects = harness.kubernetes_objects(recording)
    classes = [one for one in objects if one["kind"] == "EC2NodeClass"]
    pools = [one for one in objects if one["kind"] == "NodePool"]
    cluster_name = classes[0]["spec"]["securityGroupSelectorTerms"][0]["tags"]["karpenter.sh/discovery"]
    node_role = str(classes[0]["spec"]["role"])
    if one_launch_template:
        classes = [_taking(one, _PODS_OF_A_NODE) for one in classes]
    with (
        moto() as emulator,
        control_plane(tools, directory) as plane,
        aws(
            emulator.endpoint,
            region=plan.region,
            zones=plan.network.zones,
            cluster_name=cluster_name,
            node_role=node_role,
        ) as region,
    ):
        define(plane.client, "karpenter.sh", "karpenter.k8s.aws", "autoscaling.x-k8s.io")
        plane.start_kwok()
        count = itertools.count(1)

        def start() -> Process:
            return _start_karpenter(plane, region, cluster_name, next(count))

        workloads = {one.name: one for one in _workloads(stack, plan, objects)}
        running = KarpenterStack(plan, plane, region, workloads, start(), start)
        for manifest in (*(one for one in objects if one["kind"] in _ENGINES_NEED), *classes, *pools):
            if manifest["metadata"].get("namespace", "llm") == "llm":
                plane.client.apply(manifest)
        for workload in workloads.values():
            plane.client.apply({**workload.manifest, "spec": {**workload.manifest["spec"], "replicas": 0}})
        for manifest in (*classes, *pools):
            name = (manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])
            plane.client.wait_for(*name, None, is_true("Ready"), "is Ready", seconds=60)
        yield running


def _taking(node_class: Object, pods: int) -> Object:
    return {**node_class, "spec": {**node_class["spec"], "kubelet": {"maxPods": pods}}}


def _start_karpenter(plane: ControlPlane, region: Aws, cluster_name: str, number: int) -> Process:
    metrics, health = free_ports(2)
    environment = {
        "KUBECONFIG": str(plane.kubeconfig),
        "CLUSTER_NAME": cluster_name,
        "CLUSTER_ENDPOINT": plane.url,
        "INTERRUPTION_QUEUE": cluster_name,
        "SYSTEM_NAMESPACE": "kube-system",
        "DISABLE_LEADER_ELECTION": "true",
        "DISABLE_DRY_RUN": "true",
        "METRICS_PORT": str(metrics),
        "HEALTH_PROBE_PORT": str(health),
        # 1 s and 10 s by default: how long Karpenter waits for more pods before it orders nodes.
        "BATCH_IDLE_DURATION": "1s",
        "BATCH_MAX_DURATION": "3s",
        "AWS_REGION": region.region,
        "AWS_ENDPOINT_URL": region.url,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    karpenter = plane.processes.start(f"karpenter-{number}", [plane.tools["karpenter"]], environment)
    answers(karpenter, f"http://127.0.0.1:{health}/readyz")
    return karpenter


def _workloads(stack: str, plan: Plan, objects: list[Object]) -> list[Workload]:
    found = []
    for one in objects:
        pod = one["spec"]["template"]["spec"] if one["kind"] == "Deployment" else {}
        tier = one["metadata"].get("labels", {}).get("llm-d.ai/tier")
        if tier and POOL_LABEL in pod.get("nodeSelector", {}) and pod["nodeSelector"][POOL_LABEL] in _pools(plan):
            found.append(_workload(stack, plan, plan.tier(tier), one))
    return found


def _pools(plan: Plan) -> set[str]:
    return {pool.name for pool in plan.node_pools}


def _workload(stack: str, plan: Plan, tier: TierPlan, manifest: Object) -> Workload:
    name, floor = manifest["metadata"]["name"], tier.replicas.on_demand_floor
    (pool,) = (pool for pool in plan.node_pools if pool.name == tier.node_pool)
    is_floor = name == f"{tier.name}-floor"
    planned = Planned(stack, name, tier, ("on-demand",) if is_floor else pool.capacity_types, zones=plan.network.zones)
    replicas = floor if is_floor else max(1, tier.replicas.minimum - floor)
    return Workload(manifest, planned, replicas)


def _owner(pod: Object) -> str:
    return str(pod["metadata"]["ownerReferences"][0]["name"])
