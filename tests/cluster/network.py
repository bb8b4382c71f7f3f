"""A network of a test's own, in which pods have addresses: a namespace whose loopback interface takes all of theirs.

Nothing is filtered there, so NetworkPolicies are enforced by nobody, and everything is as near as one process is to
another: there is no load balancer, no zone and no lost packet.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

POD_RANGE: Final = "10.244.0.0/16"
_NEW_NETWORK: Final = 0x40000000
"""``CLONE_NEWNET`` of linux/sched.h; Python's os.unshare is there from 3.12 on only."""


@contextmanager
def own_network() -> Generator[None]:
    """Move this thread, and what it starts from now on, into a network of its own, and back at the end."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _call("unshare", _NEW_NETWORK)
        try:
            for command in ("ip link set lo up", f"ip route add local {POD_RANGE} dev lo"):
                subprocess.run(command.split(), check=True)
            yield
        finally:
            _call("setns", before, _NEW_NETWORK)
    finally:
        os.close(before)


def pod_addresses() -> Iterator[str]:
    """Give addresses of :data:`POD_RANGE`, each once."""
    return (f"10.244.{number // 250}.{number % 250 + 2}" for number in itertools.count())


def _call(function: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments):
        reason = os.strerror(ctypes.get_errno())
        way_out = "run these tests as root, or under `unshare --map-root-user`"
        raise RuntimeError(f"{function}: {reason}; {way_out}: they need a network of their own")
