"""The kubelet of every node, as far as serving needs one: it runs a pod's containers as processes on the pod's address.

It follows the pod as the API server has it: native sidecars first, startup and readiness probes at their periods,
``preStop`` sleeps, SIGTERM, the grace period, then SIGKILL; sidecars end after the containers they serve. No probe
kills: liveness is not asked, and a start may take as long as it likes. It pulls no image, mounts nothing but ConfigMaps
and enforces no resources. A container that ends by itself is an error of the test; one that a test kills is started
again. What a container's command is on this machine, the caller says; and which ports its program opens on all
addresses, so that each pod has others.
"""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc

from tests.cluster.client import Client, Object, Refused
from tests.cluster.network import pod_addresses
from tests.cluster.prometheus import pod_label

_LOOK_S: Final = 0.1
_SERVING: Final = b"\x08\x01"
"""``HealthCheckResponse{status: SERVING}`` of grpc.health.v1."""

Command = tuple[list[str], Mapping[str, str]]
"""What runs for a container, and its environment beside PATH."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container that is about to run."""

    pod: Object
    spec: Mapping[str, Any]
    address: str
    directory: Path
    """The container's own; its ConfigMaps stand under it at their mount paths."""
    ports: Mapping[int, int]
    """Where the pod's ports are here, as far as they are elsewhere."""

    @property
    def name(self) -> str:
        """The container's name in its pod."""
        return str(self.spec["name"])


Runtime = Callable[[Container], Command]


@dataclass
class _Pod:
    """A pod that runs here."""

    object: Object
    address: str
    ports: Mapping[int, int]
    thread: threading.Thread | None = None
    deleted: threading.Event = field(default_factory=threading.Event)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    killed: dict[str, float] = field(default_factory=dict)
    """When each container that a test has killed is started again, by the monotonic clock."""


class Kubelet:
    """Runs the pods of one namespace, on whichever node they were scheduled."""

    def __init__(
        self,
        client: Callable[[], Client],
        namespace: str,
        directory: Path,
        runtime: Runtime,
        ports_of_all_addresses: Collection[int],
    ) -> None:
        self._new_client, self._namespace, self._runtime = client, namespace, runtime
        self._moved = ({port: port + 10 * number for port in ports_of_all_addresses} for number in itertools.count())
        self._directory = directory
        directory.mkdir()
        self.targets = directory / "targets.json"
        """What runs where, for Prometheus."""
        self._addresses = pod_addresses()
        self._pods: dict[str, _Pod] = {}
        self._stopping = threading.Event()
        self._failures: list[str] = []
        self._watcher = threading.Thread(target=self._watch, name="kubelet", daemon=True)

    def start(self) -> None:
        """Begin to look for pods."""
        self._watcher.start()

    def stop(self) -> None:
        """Kill what runs."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join()
        for pod in self._pods.values():
            pod.deleted.set()
            self._kill(pod)

    def check(self) -> None:
        """Raise when a container ended by itself or the kubelet could not do its work."""
        assert not self._failures, "\n".join(self._failures)

    def at(self, name: str, port: int) -> str:
        """Give host and port under which a port of a pod is reached."""
        return _at(self._named(name), port)

    def process(self, name: str, container: str) -> int:
        """Give the process of a pod's container, by its number."""
        return self._named(name).processes[container].pid

    def kill(self, name: str, container: str, *, down_s: float) -> None:
        """Kill a pod's container, and start it again after a while."""
        pod = self._named(name)
        pod.killed[container] = time.monotonic() + down_s
        pod.processes[container].kill()

    def _named(self, name: str) -> _Pod:
        return next(pod for pod in self._pods.values() if pod.object["metadata"]["name"] == name)

    def lose(self, node: str) -> None:
        """Take a node away, as EC2 does in the end: whatever runs on it is gone at once."""
        for pod in list(self._pods.values()):
            if pod.object["spec"]["nodeName"] == node:
                pod.deleted.set()
                self._kill(pod)

    def _watch(self) -> None:
        client = self._new_client()
        while not self._stopping.wait(_LOOK_S):
            with suppress(Refused):
                for pod in client.objects("v1", "Pod", self._namespace):
                    self._look_at(pod)
                self._tell_prometheus()

    def _look_at(self, pod: Object) -> None:
        uid, metadata = pod["metadata"]["uid"], pod["metadata"]
        if uid in self._pods:
            if "deletionTimestamp" in metadata:
                self._pods[uid].deleted.set()
        elif pod["spec"].get("nodeName"):
            here = self._pods[uid] = _Pod(pod, next(self._addresses), next(self._moved))
            if "deletionTimestamp" in metadata:
                here.deleted.set()
            here.thread = threading.Thread(target=self._run_or_tell, args=[here], name=metadata["name"], daemon=True)
            here.thread.start()

    def _tell_prometheus(self) -> None:
        targets = [
            {"targets": [_at(pod, port["containerPort"])], "labels": _labels(pod, port)}
            for pod in self._pods.values()
            if pod.thread and pod.thread.is_alive()
            for container in pod.object["spec"]["containers"]
            for port in container.get("ports") or ()
        ]
        text = json.dumps(targets)
        if not self.targets.exists() or self.targets.read_text(encoding="utf-8") != text:
            new = self.targets.with_suffix(".new")
            new.write_text(text, encoding="utf-8")
            new.rename(self.targets)

    def _run_or_tell(self, pod: _Pod) -> None:
        try:
            self._run(pod)
        except Exception as error:
            if not self._stopping.is_set():
                self._failures.append(f"{pod.object['metadata']['name']}: {error!r}")
        finally:
            self._kill(pod)

    def _run(self, pod: _Pod) -> None:
        client, spec = self._new_client(), pod.object["spec"]
        sidecars = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
        self._report(client, pod, ready=False)
        for container in (*sidecars, *spec["containers"]):
            self._start(pod, container)
        probes = [_Probe.of(one, pod) for one in (*sidecars, *spec["containers"])]
        was_ready = False
        while not pod.deleted.wait(_LOOK_S):
            self._restart(pod)
            self._notice_ends(pod)
            ready = all(tuple(probe.holds() for probe in probes))  # each at its own time, whatever the others say
            if ready != was_ready:
                self._report(client, pod, ready=ready)
                was_ready = ready
        self._terminate(pod, sidecars)
        if not self._stopping.is_set():
            self._forget(client, pod)

    def _start(self, pod: _Pod, container: Mapping[str, Any]) -> None:
        directory = self._directory / pod.object["metadata"]["name"] / container["name"]
        directory.mkdir(parents=True, exist_ok=True)
        self._mount(pod, container, directory)
        command, environment = self._runtime(Container(pod.object, container, pod.address, directory, pod.ports))
        with (directory / "log").open("ab") as log:
            pod.processes[container["name"]] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=dict(environment)
            )

    def _restart(self, pod: _Pod) -> None:
        for name, due in list(pod.killed.items()):
            if time.monotonic() >= due:
                containers = (*(pod.object["spec"].get("initContainers") or ()), *pod.object["spec"]["containers"])
                self._start(pod, next(one for one in containers if one["name"] == name))
                del pod.killed[name]

    def _mount(self, pod: _Pod, container: Mapping[str, Any], directory: Path) -> None:
        volumes = {one["name"]: one for one in pod.object["spec"].get("volumes") or ()}
        for mount in container.get("volumeMounts") or ():
            if source := volumes.get(mount["name"], {}).get("configMap"):
                config = self._new_client().get("v1", "ConfigMap", source["name"], self._namespace)
                assert config is not None, f"no ConfigMap {source['name']}"
                target = directory / mount["mountPath"].lstrip("/")
                target.mkdir(parents=True, exist_ok=True)
                for name, text in config["data"].items():
                    (target / name).write_text(text, encoding="utf-8")

    def _notice_ends(self, pod: _Pod) -> None:
        for name, process in pod.processes.items():
            if process.poll() is not None and name not in pod.killed and not pod.deleted.is_set():
                log = self._directory / pod.object["metadata"]["name"] / name / "log"
                tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{tail}")

    def _terminate(self, pod: _Pod, sidecars: list[Mapping[str, Any]]) -> None:
        spec = pod.object["spec"]
        deadline = time.monotonic() + spec["terminationGracePeriodSeconds"]
        names = {one["name"] for one in sidecars}
        waits = {
            one["name"]: ((one.get("lifecycle") or {}).get("preStop") or {}).get("sleep", {}).get("seconds", 0)
            for one in spec["containers"]
        }
        began = time.monotonic()
        for name, seconds in sorted(waits.items(), key=lambda item: item[1]):
            self._sleep(pod, min(began + seconds, deadline))
            pod.processes[name].terminate()
        for name in (*waits, *names):
            process = pod.processes[name]
            if name in names:
                process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))

    def _sleep(self, pod: _Pod, until: float) -> None:
        """Wait, unless the pod's node is lost or the test is over."""
        while time.monotonic() < until and not self._stopping.is_set():
            if all(process.poll() is not None for process in pod.processes.values()):
                return
            time.sleep(_LOOK_S)

    def _kill(self, pod: _Pod) -> None:
        for process in pod.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def _report(self, client: Client, pod: _Pod, *, ready: bool) -> None:
        """Put into the pod's status what a kubelet would."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = pod.object["metadata"]["name"]
        is_ready = {"status": str(ready), "lastTransitionTime": now}
        kinds = {"Initialized": {"status": "True"}, "ContainersReady": is_ready, "Ready": is_ready}
        conditions = [{"type": kind, **state} for kind, state in kinds.items()]
        scheduled = {"type": "PodScheduled", "status": "True"}
        status = {
            "phase": "Running",
            "podIP": pod.address,
            "podIPs": [{"ip": pod.address}],
            "startTime": now,
            "conditions": [scheduled, *conditions],
        }
        with suppress(Refused):  # it may be gone already
            client.patch("v1", "Pod", name, self._namespace, {"status": status}, part="status")

    def _forget(self, client: Client, pod: _Pod) -> None:
        client.remove("v1", "Pod", pod.object["metadata"]["name"], self._namespace)


def _at(pod: _Pod, port: int) -> str:
    return f"{pod.address}:{pod.ports.get(port, port)}"


def _labels(pod: _Pod, port: Mapping[str, Any]) -> dict[str, str]:
    metadata = pod.object["metadata"]
    found = {"namespace": metadata["namespace"], "pod_name": metadata["name"], "pod_container_port_name": port["name"]}
    found |= {f"pod_label_{name}": value for name, value in metadata["labels"].items()}
    found |= {"pod_is_behind_services": str(not pod.deleted.is_set())}
    return {pod_label(name): value for name, value in found.items()}


@dataclass
class _Probe:
    """The probes of one container: the first that passes is ``startup``, then ``readiness`` decides."""

    startup: Mapping[str, Any] | None
    readiness: Mapping[str, Any] | None
    pod: _Pod
    ports: Mapping[str, int]
    _next_s: float = 0.0
    _failed: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _ready: bool = False

    @classmethod
    def of(cls, container: Mapping[str, Any], pod: _Pod) -> _Probe:
        """Read a container's probes."""
        ports = {str(port.get("name")): int(port["containerPort"]) for port in container.get("ports") or ()}
        return cls(container.get("startupProbe"), container.get("readinessProbe"), pod, ports)

    def holds(self) -> bool:
        """Look, when it is time to, and say whether the container is ready."""
        now = time.monotonic()
        if now < self._next_s:
            return self._ready
        if self.startup:
            self._next_s = now + self.startup.get("periodSeconds", 10)
            if not self._passes(self.startup):
                return False
            self.startup = None  # a kubelet asks for readiness right after
        if not self.readiness:
            return True
        self._next_s = now + self.readiness.get("periodSeconds", 10)
        if self._passes(self.readiness):
            self._ready, self._failed = True, itertools.count(1)
        elif next(self._failed) >= self.readiness.get("failureThreshold", 3):
            self._ready = False
        return self._ready

    def _passes(self, probe: Mapping[str, Any]) -> bool:
        seconds = probe.get("timeoutSeconds", 1)
        if get := probe.get("httpGet"):
            at = _at(self.pod, self.ports.get(get["port"], get["port"]))
            connection = http.client.HTTPConnection(at, timeout=seconds)
            try:
                connection.request("GET", get.get("path", "/"))
                return 200 <= connection.getresponse().status < 400
            except OSError:
                return False
            finally:
                connection.close()
        service = probe["grpc"].get("service", "").encode()
        with grpc.insecure_channel(_at(self.pod, probe["grpc"]["port"])) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            try:
                return check(b"\x0a" + bytes([len(service)]) + service, timeout=seconds) == _SERVING
            except grpc.RpcError:
                return False
