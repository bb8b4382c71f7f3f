"""A stack that serves: its routers, autoscaler and monitoring for real, model servers that only play at it.

Every object of the program is applied to the real API server and acted upon by the real Deployment controller,
scheduler, HPA and KEDA; Envoy and the picker run with the configuration of their ConfigMaps and the arguments of their
pods. :class:`_LocalChanges` lists what is not as the program emits it, ``picker.py`` what the picker's ancestor needs.
Nodes are there already: that Karpenter brings them, and when, is shown by ``test_placement`` and ``test_disruption``.

What else is not as in production: the HPA looks every 2 s and not every 15, rules are evaluated every 5 s and not every
30, nodes have no taints, there is no API key, no readiness gate of a load balancer, and a kubelet that ``kubelet.py``
describes. Envoy is of the version that is shipped.
"""

from __future__ import annotations

import copy
import itertools
import os
import sysconfig
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import requests
import yaml

from components.envoy_config import ENVOY_CONFIG_KEY
from components.names import (
    NAME_LABEL,
    PICKER_METRICS_PORT,
    POOL_LABEL,
    ROUTER_PORT,
    SERVING_NAMESPACE,
    SYSTEM_POOL,
    TIER_LABEL,
    engine_deployment,
    router_service,
)
from components.router_config import (
    PICKER_CONFIG_DIRECTORY,
    PICKER_CONFIG_KEY,
    PICKER_HEALTH_PORT,
    PICKER_PORT,
)
from offline.recording import Recording
from planning.stackfile import read_stack, stack_path
from problems import NAMESPACE
from tests import harness
from tests.cluster.build import Tools
from tests.cluster.client import Client, Object, is_true
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.cluster.keda import start_keda
from tests.cluster.kubelet import Command, Container, Kubelet, Runtime
from tests.cluster.network import own_network
from tests.cluster.picker import ancestors_arguments, as_ancestor, endpoint_pool
from tests.cluster.processes import wait_until
from tests.cluster.prometheus import Prometheus, start_prometheus
from tests.cluster.stack import apply_stack, define_picker
from tests.envoy import ENVOY

DEPLOYMENT: Final = ("apps/v1", "Deployment")
SCALED_OBJECT: Final = ("keda.sh/v1alpha1", "ScaledObject")
_PAUSED: Final = "autoscaling.keda.sh/paused-replicas"
_PYTHON: Final = Path(sysconfig.get_path("scripts")) / "python"
_PICKERS_PORTS: Final = (PICKER_PORT, PICKER_HEALTH_PORT, PICKER_METRICS_PORT)
_NODES_OF_A_POOL: Final = 5
_STALE_S: Final = 10.0
"""How long the load balancer may go on sending to a router that is told to end: assumed. A router goes on for 15 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What goes faster here than in production, where tests would wait for it and learn nothing."""

    start_s: float = 3.0
    """From the start of an engine's process to its first answer."""
    token_s: float = 0.02
    idle_s: int | None = None
    """Cooldown and the autoscaler's window; None: as emitted, half an hour."""


@dataclass
class ServingStack:
    """One that serves."""

    plane: ControlPlane
    kubelet: Kubelet
    prometheus: Prometheus
    pickers: Mapping[str, Mapping[str, Any]]
    """The picker's configuration of each tier, as the program emits it."""
    pace: Pace
    _here: _LocalChanges
    _emitted: Mapping[tuple[str, str], Object]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def tiers(self) -> tuple[str, ...]:
        """Names of the tiers, in the order of the stack file."""
        return tuple(self.pickers)

    @property
    def client(self) -> Client:
        """The cluster's administrator."""
        return self.plane.client

    def router(self, tier: str) -> str:
        """Give the base URL of a tier's router, once it is ready."""

        def ready() -> list[Object]:
            self.kubelet.check()
            return self._ready_routers(tier)

        return _url(wait_until(ready, f"the router of {tier} is ready", seconds=60)[0])

    def router_pod(self, tier: str) -> str:
        """Give the name of a tier's router pod."""
        (pod,) = self._ready_routers(tier)
        return str(pod["metadata"]["name"])

    def engines(self, tier: str) -> list[Object]:
        """List a tier's engine pods, those that end included."""
        return self.client.objects("v1", "Pod", SERVING_NAMESPACE, labels=f"{TIER_LABEL}={tier}")

    def ready_engines(self, tier: str) -> list[Object]:
        """List those that serve and are not told to end."""
        return self._ready(f"{TIER_LABEL}={tier}")

    def wanted(self, tier: str) -> int:
        """Give the replicas that the autoscaler asks of the tier's Deployment."""
        deployment = self.client.get(*DEPLOYMENT, engine_deployment(tier), SERVING_NAMESPACE)
        assert deployment is not None
        return int(deployment["spec"]["replicas"])

    def planned_concurrency(self, tier: str) -> float:
        """Give the requests at once that the autoscaler is told one replica is for."""
        return float(self._running(tier)["threshold"])

    def load(self, tier: str) -> float:
        """Give what the autoscaler reads as load, in replicas."""
        return self.prometheus.value(self._running(tier)["query"]) / self.planned_concurrency(tier)

    def _running(self, tier: str) -> Mapping[str, str]:
        scaled = self.client.get(*SCALED_OBJECT, engine_deployment(tier), SERVING_NAMESPACE)
        assert scaled is not None
        (running,) = (one for one in scaled["spec"]["triggers"] if one["name"] == "running")
        return running["metadata"]

    def address_of(self, service: str) -> tuple[str, int]:
        """Give where a router's Service leads."""
        host, _, port = self.router(service.removesuffix("-router")).removeprefix("http://").partition(":")
        return host, int(port)

    def held(self, tier: str) -> int:
        """Give how many requests the tier's router holds at this moment."""
        metrics = self.kubelet.at(self.router_pod(tier), PICKER_METRICS_PORT)
        text = requests.get(f"http://{metrics}/metrics", timeout=5).text
        queues = [one for one in text.splitlines() if one.startswith("inference_extension_flow_control_queue_size{")]
        return sum(int(float(line.split()[-1])) for line in queues)

    def router_limits_mib(self, tier: str) -> dict[str, float]:
        """Give the memory that each container of a tier's router may take."""
        router = self.client.get(*DEPLOYMENT, router_service(tier), SERVING_NAMESPACE)
        assert router is not None
        pod = router["spec"]["template"]["spec"]
        return {
            one["name"]: float(one["resources"]["limits"]["memory"].removesuffix("Mi"))
            for one in (*pod["initContainers"], *pod["containers"])
        }

    def most_held(self, tier: str) -> int:
        """Give how many requests the tier's router may hold."""
        return int(self.pickers[tier]["flowControl"]["maxRequests"])

    def queue_threshold(self, tier: str) -> int:
        """Give how many requests that wait in a replica make it count as full."""
        plugins = {one["type"]: one.get("parameters") for one in self.pickers[tier]["plugins"]}
        return int(plugins["utilization-detector"]["queueDepthThreshold"])

    def slots(self, tier: str) -> int:
        """Give how many requests a replica of vLLM works on at once."""
        deployment = self.client.get(*DEPLOYMENT, engine_deployment(tier), SERVING_NAMESPACE)
        assert deployment is not None
        arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        return next(int(one.partition("=")[2]) for one in arguments if one.startswith("--max-num-seqs="))

    def wait_asleep(self, tier: str, *, seconds: float = 90) -> None:
        """Wait until nothing of the tier runs."""
        wait_until(lambda: self.wanted(tier) == 0, f"{tier} is scaled to zero", seconds=seconds)
        wait_until(lambda: not self.engines(tier), f"{tier} has no pods", seconds=60)

    def wait_ready(self, tier: str, replicas: int, *, seconds: float = 60) -> list[Object]:
        """Wait until exactly so many replicas serve, and give them."""

        def ready() -> list[Object] | None:
            self.kubelet.check()
            pods = self.ready_engines(tier)
            return pods if len(pods) == replicas and len(self.engines(tier)) == replicas else None

        pods = wait_until(ready, f"{tier} has {replicas} replicas", seconds=seconds)
        assert pods is not None
        return pods

    def pause(self, tier: str, replicas: int | None) -> None:
        """Have KEDA keep so many replicas whatever the load; None: it follows the load again."""
        change = {"metadata": {"annotations": {_PAUSED: None if replicas is None else str(replicas)}}}
        self.client.patch(*SCALED_OBJECT, engine_deployment(tier), SERVING_NAMESPACE, change)

    def drain(self, name: str) -> Object:
        """Do what Karpenter does to a node that EC2 takes back: nobody new comes, and whoever is there is evicted."""
        node = self.client.patch("v1", "Node", name, None, {"spec": {"unschedulable": True}})
        for pod in self.client.objects("v1", "Pod", SERVING_NAMESPACE, fields=f"spec.nodeName={name}"):
            self.client.evict(pod["metadata"]["name"], SERVING_NAMESPACE)
        return node

    def has_ended(self, pod: Object) -> bool:
        """Say whether a pod is gone."""
        self.kubelet.check()
        metadata = pod["metadata"]
        found = self.client.get("v1", "Pod", metadata["name"], SERVING_NAMESPACE)
        return found is None or found["metadata"]["uid"] != metadata["uid"]

    def lose(self, node: Object) -> None:
        """Take a node away with all that still runs there."""
        self.kubelet.lose(node["metadata"]["name"])
        self.client.delete("v1", "Node", node["metadata"]["name"])

    def bring_node(self, *, like: Object) -> None:
        """Bring another node as the one that was lost."""
        name = f"{like['metadata']['name'].partition('-again')[0]}-again{next(self._numbers)}"
        labels = {**like["metadata"]["labels"], "kubernetes.io/hostname": name}
        _bring_node(self.client, name, labels, like["status"]["capacity"])

    def update(self, recording: Recording) -> None:
        """Bring the tiers to what another recording says, all at once, and wait until they are there.

        Pulumi gives an immutable ConfigMap that has changed another name; so does this.
        """
        renamed: dict[str, str] = {}
        updated: list[str] = []
        for manifest in _of_tiers(harness.kubernetes_objects(recording)):
            name, new = manifest["metadata"]["name"], copy.deepcopy(manifest)
            same = manifest == self._emitted[manifest["kind"], name]
            if manifest["kind"] == "ConfigMap":
                if not same:
                    renamed[name] = new["metadata"]["name"] = f"{name}-{next(self._numbers)}"
            else:
                for volume in new["spec"]["template"]["spec"].get("volumes", ()):
                    source = volume.get("configMap", {})
                    same = same and source.get("name") not in renamed
                    source["name"] = renamed.get(source.get("name"), source.get("name"))
                if not same:
                    updated.append(name)
            if not same:
                self.client.apply(self._here.changed(new) or new)
        for name in updated:
            self.client.wait_for(*DEPLOYMENT, name, SERVING_NAMESPACE, _rolled_out, "is rolled out", seconds=180)

    def router_url(self, tier: str) -> Callable[[], str]:
        """Give what finds the tier's router for each request, as a load balancer does: the one that is ready."""
        found = self.router(tier)
        seen = time.monotonic()

        def url() -> str:
            nonlocal found, seen
            if time.monotonic() - seen > _STALE_S:
                ready = self._ready_routers(tier)
                found = _url(ready[0]) if ready else found
                seen = time.monotonic()
            return found

        return url

    def _ready_routers(self, tier: str) -> list[Object]:
        return self._ready(f"{NAME_LABEL}={router_service(tier)}")

    def _ready(self, labels: str) -> list[Object]:
        pods = self.client.objects("v1", "Pod", SERVING_NAMESPACE, labels=labels)
        return [pod for pod in pods if is_true("Ready")(pod) and "deletionTimestamp" not in pod["metadata"]]


@contextmanager
def serving_stack(tools: Tools, directory: Path, recording: Recording, pace: Pace) -> Generator[ServingStack]:
    """Start a recorded stack in a network of its own, and wait until its routers are ready and its tiers asleep."""
    with own_network(), control_plane(tools, directory) as plane:
        plane.start_kwok(pods=False)
        define_picker(plane.client)
        pods = directory / "pods"
        kubelet = Kubelet(plane.new_client, SERVING_NAMESPACE, pods, _runtime(plane, pace), _PICKERS_PORTS)
        try:
            yield _start(plane, kubelet, recording, pace)
        finally:
            kubelet.stop()


def _start(plane: ControlPlane, kubelet: Kubelet, recording: Recording, pace: Pace) -> ServingStack:
    manifests = harness.kubernetes_objects(recording)
    pickers = {
        one["metadata"]["name"].partition("-router")[0]: yaml.safe_load(one["data"][PICKER_CONFIG_KEY])
        for one in manifests
        if one["kind"] == "ConfigMap" and PICKER_CONFIG_KEY in one["data"]
    }
    here = _LocalChanges(pace)
    changed = [manifest for one in manifests if (manifest := here.changed(one))]
    prometheus = start_prometheus(
        plane.processes, plane.tools["prometheus"] / "prometheus", plane.directory, kubelet.targets, changed
    )
    here.prometheus_url = prometheus.url
    apply_stack(plane.client, recording, {"keda": lambda: start_keda(plane)}, here.changed)
    for tier in pickers:
        plane.client.apply(endpoint_pool(tier, SERVING_NAMESPACE))
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            _bring_nodes(plane.client, manifest)
    kubelet.start()
    emitted = {(one["kind"], one["metadata"]["name"]): one for one in _of_tiers(manifests)}
    stack = ServingStack(plane, kubelet, prometheus, pickers, pace, here, emitted)
    for tier in pickers:
        stack.router(tier)
    return stack


@dataclass
class _LocalChanges:
    """What a manifest becomes on one machine without clouds. All differences stand here:

    - nothing loads weights, so the Jobs are left out;
    - the picker is its ancestor (``picker.py``);
    - Prometheus has another address;
    - with a :class:`Pace`, tiers tire sooner.

    And :func:`_runtime` lets Envoy listen on its pod's address, where in a pod all addresses are the pod's, and moves
    the picker's ports, since it listens on all addresses and all pods share one network.
    """

    pace: Pace
    prometheus_url: str = ""

    def changed(self, manifest: Object) -> Object | None:
        """Give the manifest as it is applied here."""
        manifest = copy.deepcopy(manifest)
        match manifest["kind"]:
            case "Job":
                return None
            case "ConfigMap" if PICKER_CONFIG_KEY in manifest["data"]:
                text = yaml.safe_dump(as_ancestor(yaml.safe_load(manifest["data"][PICKER_CONFIG_KEY])))
                return {**manifest, "data": {PICKER_CONFIG_KEY: text}}
            case "ScaledObject":
                return self._scaled(manifest)
        return manifest

    def _scaled(self, manifest: Object) -> Object:
        spec = manifest["spec"]
        for trigger in spec["triggers"]:
            if trigger["type"] == "prometheus":
                trigger["metadata"]["serverAddress"] = self.prometheus_url
        if self.pace.idle_s is not None:
            spec |= {"cooldownPeriod": self.pace.idle_s, "initialCooldownPeriod": self.pace.idle_s}
            behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
            behavior["scaleDown"]["stabilizationWindowSeconds"] = self.pace.idle_s
        return manifest


def _of_tiers(manifests: list[Object]) -> list[Object]:
    """Give the Deployments of engines and routers, and the routers' ConfigMaps."""
    keys = {ENVOY_CONFIG_KEY, PICKER_CONFIG_KEY}
    return [one for one in manifests if one["kind"] == "Deployment" or keys & (one.get("data") or {}).keys()]


def _url(router: Object) -> str:
    return f"http://{router['status']['podIP']}:{ROUTER_PORT}"


def _rolled_out(deployment: Object) -> bool:
    wanted, status = deployment["spec"]["replicas"], deployment.get("status", {})
    seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return seen and all(status.get(key, 0) == wanted for key in ("replicas", "updatedReplicas", "availableReplicas"))


def _runtime(plane: ControlPlane, pace: Pace) -> Runtime:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}

    def command(container: Container) -> Command:
        arguments = [str(one) for one in container.spec.get("args") or ()]
        plain = {one["name"]: one["value"] for one in container.spec.get("env") or () if "value" in one}
        metadata = container.pod["metadata"]
        match container.name:
            case "envoy":
                file = container.directory / arguments[arguments.index("--config-path") + 1].lstrip("/")
                config = yaml.safe_load(file.read_text(encoding="utf-8"))
                for listener in config["static_resources"]["listeners"]:
                    listener["address"]["socket_address"]["address"] = container.address
                (picker,) = (one for one in config["static_resources"]["clusters"] if one["name"] == "picker")
                (endpoint,) = picker["load_assignment"]["endpoints"][0]["lb_endpoints"]
                endpoint["endpoint"]["address"]["socket_address"]["port_value"] = container.ports[PICKER_PORT]
                file.write_text(yaml.safe_dump(config), encoding="utf-8")
                arguments[arguments.index("--config-path") + 1] = str(file)
                return [str(ENVOY), *arguments], environment
            case "picker":
                file = container.directory / PICKER_CONFIG_DIRECTORY.lstrip("/") / PICKER_CONFIG_KEY
                tier = metadata["labels"][NAME_LABEL].removesuffix("-router")
                own = {
                    "NAMESPACE": SERVING_NAMESPACE,
                    "POD_NAME": metadata["name"],
                    "KUBECONFIG": str(plane.kubeconfig),
                }
                moved = [_moved(one, container.ports) for one in arguments]
                arguments = ancestors_arguments(moved, tier, SERVING_NAMESPACE, file)
                return [str(plane.tools["picker"]), *arguments], {**environment, **own}
            case _:
                server = [_PYTHON, "-m", "tests.cluster.model_server", "--address", container.address]
                server += ["--pod", metadata["name"], "--start-s", pace.start_s, "--token-s", pace.token_s, "--"]
                own = {"PYTHONPATH": str(harness.ROOT), **{key: plain[key] for key in plain if key.startswith("VLLM_")}}
                return [*map(str, server), *arguments], {**environment, **own}

    return command


def _moved(argument: str, ports: Mapping[int, int]) -> str:
    flag, _, value = argument.partition("=")
    return f"{flag}={ports[int(value)]}" if flag.endswith("-port") else argument


def _bring_nodes(client: Client, deployment: Object) -> None:
    """Bring nodes on which the Deployment's pods fit, one each, in two zones by turns."""
    pod = deployment["spec"]["template"]["spec"]
    pool = pod["nodeSelector"][POOL_LABEL]
    gpus = pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", "0")
    for number in range(1 if pool == SYSTEM_POOL else _NODES_OF_A_POOL):
        name = f"{pool}-{number}"
        labels = {**pod["nodeSelector"], "topology.kubernetes.io/zone": f"us-east-2{'ab'[number % 2]}"}
        labels["kubernetes.io/hostname"] = name
        room = {"cpu": "16", "memory": "256Gi", "ephemeral-storage": "1000Gi", "pods": "29", "nvidia.com/gpu": gpus}
        _bring_node(client, name, labels, room)


def _bring_node(client: Client, name: str, labels: Mapping[str, str], room: Mapping[str, str]) -> None:
    client.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
    client.patch("v1", "Node", name, None, {"status": {"capacity": room, "allocatable": room}}, part="status")


def recorded(stack: str, **changes: Mapping[str, object]) -> Recording:
    """Record a stack of the repository, some settings of whose tiers are ``changes``, by the tier's name."""
    tiers: Any = read_stack(stack_path(stack, harness.ROOT)).config[f"{NAMESPACE}:tiers"]
    return harness.record_with(
        stack, preview=False, tiers=[{**tier, **changes.get(tier["name"], {})} for tier in tiers]
    )
