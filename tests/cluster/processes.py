"""Real parts as plain processes: started, watched and stopped, each with its log."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import requests

T = TypeVar("T")


class DidNotHappen(AssertionError):
    """What was waited for did not come true in time."""


def wait_until(condition: Callable[[], T], what: str, *, seconds: float, every: float = 0.1) -> T:
    """Look until ``condition`` gives something true, and give that. Raises :class:`DidNotHappen`."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise DidNotHappen(f"not after {seconds:g} s: {what} (last seen: {found!r})")
        time.sleep(every)


_PORTS: Final = range(20_000, 32_000)
"""Below those that the kernel gives to clients, which would take one between the look and its use."""
_given = itertools.count(os.getpid() * 60)
"""Each port is given once, and processes side by side begin far from each other."""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on and nobody else is given."""
    ports = (_PORTS[number % len(_PORTS)] for number in _given)
    return list(itertools.islice(filter(_is_free, ports), count))


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass
class Process:
    """One part that runs. Its log is in ``log``."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise :class:`DidNotHappen` with the end of the log when the part ended by itself."""
        if (code := self.process.poll()) is not None:
            raise DidNotHappen(f"{self.name} ended with {code}:\n{self.tail()}")

    def tail(self, lines: int = 25) -> str:
        """Give the end of the log."""
        return "\n".join(self.text().splitlines()[-lines:])

    def text(self) -> str:
        """Give the log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self, *, seconds: float) -> None:
        """Ask the part to end, and end it when it has not after ``seconds``."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


@dataclass
class Processes:
    """Parts that run together; the last one started is stopped first."""

    directory: Path
    _running: list[tuple[Process, float]] = field(default_factory=list)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        *,
        stops_within_s: float = 3.0,
    ) -> Process:
        """Start a part. What stands in ``environment`` is all that it sees beside PATH and HOME."""
        log = self.directory / f"{name}.log"
        inherited = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**inherited, **(environment or {})},
                cwd=self.directory,
            )
        started = Process(name, process, log)
        self._running.append((started, stops_within_s))
        return started

    def stop(self, process: Process) -> None:
        """Stop one part before the others."""
        self._running = [entry for entry in self._running if entry[0] is not process]
        process.stop(seconds=3)

    def stop_all(self) -> None:
        """Stop every part."""
        while self._running:
            process, seconds = self._running.pop()
            process.stop(seconds=seconds)


def answers(process: Process, url: str, *, seconds: float = 180, session: requests.Session | None = None) -> None:
    """Wait until a part answers 200 at ``url``, or say why it will not."""

    def ready() -> bool:
        process.check()
        try:
            return (session or requests).get(url, timeout=2).status_code == requests.codes.ok
        except requests.RequestException:
            return False

    try:
        wait_until(ready, f"{process.name} answers at {url}", seconds=seconds)
    except DidNotHappen as error:
        process.check()
        raise DidNotHappen(f"{error}\n{process.tail()}") from None
