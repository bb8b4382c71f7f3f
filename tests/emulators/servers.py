"""Emulators of AWS as child processes on free ports of 127.0.0.1, each for as long as a ``with`` lasts."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from tests.emulators.stub import Account, stub_server

_PROGRAMS = Path(__file__).resolve().parents[2] / ".venv" / "emulators" / "bin"
_START_S = 90.0  # moto answers after 2 s, ministack after 5; a machine with other work needs its time
_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Emulator:
    """A server that answers as AWS does."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """What makes boto3, the AWS CLI and AWS' SDK for Go talk to it and to nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "emulated",
            "AWS_SECRET_ACCESS_KEY": "emulated",
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "HF_ENDPOINT": self.endpoint,
        }


@contextmanager
def moto() -> Generator[Emulator]:
    """Start moto's server: EC2 with 1,377 instance types and their zones, IAM, STS, SQS, tagging, and much else."""
    port = _free_port()
    command = [str(_PROGRAMS / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, {}, port) as emulator:
        yield emulator


@contextmanager
def ministack() -> Generator[Emulator]:
    """Start ministack: EKS with add-ons, pod identity and access entries, which moto lacks. It binds every address."""
    port = _free_port()
    with _running([str(_PROGRAMS / "ministack")], {"GATEWAY_PORT": str(port)}, port) as emulator:
        yield emulator


@contextmanager
def emulated_aws(account: Account) -> Generator[Emulator]:
    """Start moto behind a stub that answers what moto lacks as ``account`` says, Hugging Face's API included."""
    with moto() as behind:
        server = stub_server(account, behind.endpoint)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            for service in account.linked_roles:
                iam = _session().client("iam", endpoint_url=behind.endpoint)
                iam.create_service_linked_role(AWSServiceName=service)
            yield Emulator(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            server.server_close()


def _session() -> Any:
    return boto3.session.Session("emulated", "emulated", region_name="us-east-1")


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str], port: int) -> Generator[Emulator]:
    if not Path(command[0]).exists():
        raise FileNotFoundError(f"{command[0]} is not installed; run: make .venv/emulators/.installed")
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            _wait_for(port, process)
            yield Emulator(f"http://127.0.0.1:{port}")
        except BaseException:
            log.seek(0)
            print(log.read().decode(errors="replace")[-2000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    started = time.monotonic()
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with exit code {process.returncode} before it answered")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() - started > _START_S:
                raise TimeoutError(f"{process.args!r} did not answer within {_START_S:.0f} s") from None
            time.sleep(0.1)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
