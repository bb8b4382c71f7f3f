"""A Kubernetes control plane of the real binaries on the loopback interface, and kwok in place of kubelets.

Kubelets are not there: kwok sets nodes Ready and pods Running by itself, so no image is pulled and no probe is asked.
There is no network either: NetworkPolicies are taken, and enforced by nobody.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from tests.cluster.build import Tools
from tests.cluster.certificates import Authority, Pair
from tests.cluster.client import Client
from tests.cluster.processes import Process, Processes, answers, free_ports

_CONTROLLERS: Final = (
    "deployment-controller",
    "replicaset-controller",
    "job-controller",
    "horizontal-pod-autoscaler-controller",
    "endpointslice-controller",
    "endpoints-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "disruption-controller",
    "pod-garbage-collector-controller",
    "root-ca-certificate-publisher-controller",
    # Removes the taint not-ready: without it every pod stays pending.
    "node-lifecycle-controller",
    "resourcequota-controller",
)
"""Those that the stack's objects need; attaching volumes and routes belongs to clouds."""

_HPA_SYNC_S: Final = 2
"""The autoscaler's look, 15 s by default: tests would wait for it and learn nothing."""


@dataclass(frozen=True)
class ControlPlane:
    """One that runs."""

    tools: Tools
    directory: Path
    processes: Processes
    client: Client
    authority: Authority
    """Signs whoever serves or asks; its certificate is what everybody trusts."""
    administrator: Pair
    kubeconfig: Path
    """The administrator's."""

    @property
    def url(self) -> str:
        """Address of the API server."""
        return self.client.url

    def new_client(self) -> Client:
        """Give an administrator for another thread."""
        return Client.of(self.url, str(self.authority.ca), self.administrator)

    def start_kwok(self, *, pods: bool = True) -> Process:
        """Let kwok play the kubelet of every node; without ``pods`` it keeps nodes ready and leaves pods alone."""
        stages = self.directory / "stages.yaml"
        texts = (file.read_text(encoding="utf-8") for file in sorted(self.tools["kwok-stages"].iterdir()))
        documents = (document for text in texts for document in yaml.safe_load_all(text))
        kinds = {"Node", "Pod"} if pods else {"Node"}
        wanted = (one for one in documents if one["kind"] == "Stage" and one["spec"]["resourceRef"]["kind"] in kinds)
        stages.write_text(yaml.safe_dump_all(wanted), encoding="utf-8")
        (port,) = free_ports(1)
        kwok = self.processes.start(
            "kwok",
            [
                self.tools["kwok"],
                f"--config={stages}",
                f"--kubeconfig={self.kubeconfig}",
                "--manage-all-nodes=true",
                "--node-lease-duration-seconds=40",
                f"--server-address=127.0.0.1:{port}",
            ],
        )
        answers(kwok, f"http://127.0.0.1:{port}/healthz")
        return kwok


@contextmanager
def control_plane(tools: Tools, directory: Path) -> Generator[ControlPlane]:
    """Start etcd, kube-apiserver, kube-controller-manager and kube-scheduler in a fresh directory."""
    processes = Processes(directory)
    try:
        yield _start(tools, directory, processes)
    finally:
        processes.stop_all()


def _start(tools: Tools, directory: Path, processes: Processes) -> ControlPlane:
    binary = tools["controlplane"]
    authority, front = Authority(directory, "cluster"), Authority(directory, "front-proxy")
    serving = authority.pair("kube-apiserver")
    clients, peers, api, manager, scheduler = free_ports(5)
    url = f"https://127.0.0.1:{api}"

    etcd_url = f"http://127.0.0.1:{clients}"
    peer_url = f"http://127.0.0.1:{peers}"
    etcd = processes.start(
        "etcd",
        [
            binary,
            "etcd",
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={etcd_url}",
            f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
    )
    answers(etcd, f"{etcd_url}/health")

    proxy = front.pair("front-proxy-client")
    api_server = processes.start(
        "kube-apiserver",
        [
            binary,
            "kube-apiserver",
            f"--etcd-servers={etcd_url}",
            "--bind-address=127.0.0.1",
            f"--secure-port={api}",
            # Looked for at the default route otherwise, and a network of a test's own has none. Nobody is told of it.
            "--advertise-address=10.244.255.1",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={authority.ca}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={serving.key}",
            f"--service-account-signing-key-file={serving.key}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/16",
            "--allow-privileged=true",
            # For KEDA's metrics API, which the API server hands on.
            f"--requestheader-client-ca-file={front.ca}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={proxy.certificate}",
            f"--proxy-client-key-file={proxy.key}",
        ],
        # It drains for a minute that nobody here needs.
        stops_within_s=1,
    )
    administrator = authority.pair("admin", group="system:masters")
    client = Client.of(url, str(authority.ca), administrator)
    answers(api_server, f"{url}/readyz", session=client.session)

    def kubeconfig(user: str, pair: Pair) -> Path:
        return _kubeconfig(directory / f"{user.rpartition(':')[2]}.kubeconfig", url, authority.ca, pair)

    def follow(name: str, port: int, *flags: str) -> None:
        file = kubeconfig(name, authority.pair(f"system:{name}"))
        command = [
            binary,
            name,
            *(f"--{flag}={file}" for flag in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")),
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            "--leader-elect=false",
            *flags,
        ]
        process = processes.start(name, command)
        answers(process, f"https://127.0.0.1:{port}/healthz", session=client.session)

    follow(
        "kube-controller-manager",
        manager,
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={serving.key}",
        f"--root-ca-file={authority.ca}",
        f"--horizontal-pod-autoscaler-sync-period={_HPA_SYNC_S}s",
        f"--controllers={','.join(_CONTROLLERS)}",
    )
    follow("kube-scheduler", scheduler)
    file = kubeconfig("admin", administrator)
    return ControlPlane(tools, directory, processes, client, authority, administrator, file)


def _kubeconfig(file: Path, url: str, ca: Path, pair: Pair) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(ca)}}],
        "users": [{"name": "test", "user": {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file
