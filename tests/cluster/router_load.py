"""What the router costs: the time that it adds to a request, and its memory while it holds many."""

from __future__ import annotations

import base64
import json
import statistics
import subprocess
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from planning.stackfile import read_stack, stack_path
from problems import NAMESPACE
from tests import harness
from tests.cluster.build import Tools
from tests.cluster.callers import CHAT_PATH, Request, all_answered, send_all
from tests.cluster.processes import wait_until
from tests.cluster.serving import Pace, ServingStack, serving_stack

REQUESTS_PER_SECOND: Final = 200
RUNS: Final = 5
HELD: Final = 1000
HELD_KIB: Final = 16
LIMIT_P99_MS: Final = 10.0
LIMIT_MIB: Final = 400.0

_TIER: Final = "fast"


@dataclass(frozen=True, slots=True)
class Latency:
    """One run: what the 50th and 99th request of a hundred took, straight to the replica and through the router."""

    direct_p50_ms: float
    direct_p99_ms: float
    routed_p50_ms: float
    routed_p99_ms: float

    @property
    def added_p99_ms(self) -> float:
        """What the router adds at the 99th percentile."""
        return self.routed_p99_ms - self.direct_p99_ms

    @property
    def added_p50_ms(self) -> float:
        """What the router adds in the middle."""
        return self.routed_p50_ms - self.direct_p50_ms


@contextmanager
def busy_stack(tools: Tools, directory: Path) -> Generator[ServingStack]:
    """Give the dev stack, with as many requests a day on its first tier that its router may hold :data:`HELD`."""
    tiers: Any = read_stack(stack_path("dev", harness.ROOT)).config[f"{NAMESPACE}:tiers"]
    (fast,) = (tier for tier in tiers if tier["name"] == _TIER)
    busy = {**fast, "traffic": {**fast["traffic"], "requestsPerDay": 500_000}}
    recording = harness.record_with("dev", preview=False, tiers=[busy], budget=None)
    with serving_stack(tools, directory, recording, Pace(start_s=0.5, token_s=0.005)) as stack:
        yield stack


def added_latency(stack: ServingStack, *, seconds: float) -> list[Latency]:
    """Send the same load straight to a replica and through its router, by turns."""
    stack.pause(_TIER, 1)
    (replica,) = stack.wait_ready(_TIER, 1)
    vegeta = stack.plane.tools["vegeta"]
    direct, routed = f"http://{replica['status']['podIP']}:8000", stack.router(_TIER)
    for url in (direct, routed):
        _times_ms(vegeta, url, 1.0)
    runs = []
    for _ in range(RUNS):
        straight, through = (_times_ms(vegeta, url, seconds) for url in (direct, routed))
        runs.append(Latency(*_percentiles(straight), *_percentiles(through)))
    return runs


def memory_while_holding_mib(stack: ServingStack) -> dict[str, float]:
    """Hold :data:`HELD` requests of :data:`HELD_KIB` KiB, and give what each of the router's processes takes then."""
    stack.pause(_TIER, 0)
    stack.wait_asleep(_TIER)
    words = "word " * (HELD_KIB * 1024 // len("word "))
    requests = [Request(model=_TIER, prompt=f"{number} {words}", patience_s=600) for number in range(HELD)]
    pod = stack.router_pod(_TIER)
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(send_all, stack.router(_TIER), requests)
        wait_until(lambda: stack.held(_TIER) == HELD, f"{HELD} requests are held", seconds=60)
        time.sleep(2)
        taken = {name: _resident_mib(stack.kubelet.process(pod, name)) for name in ("envoy", "picker")}
        stack.pause(_TIER, 1)
        all_answered(sent.result())
    return taken


def _times_ms(vegeta: Path, url: str, seconds: float) -> list[float]:
    """Send at a steady rate, whether or not answers have come, over connections that are kept, as a balancer does."""
    targets = "\n".join(_target(url, number) for number in range(round(seconds * REQUESTS_PER_SECOND)))
    attack = [vegeta, "attack", "-format=json", f"-rate={REQUESTS_PER_SECOND}/s", f"-duration={seconds}s"]
    answers = subprocess.run(attack, input=targets.encode(), capture_output=True, check=True).stdout
    encoded = subprocess.run([vegeta, "encode", "-to=json"], input=answers, capture_output=True, check=True).stdout
    results = [json.loads(line) for line in encoded.splitlines()]
    assert len(results) >= 0.99 * seconds * REQUESTS_PER_SECOND, "the load itself was too slow"
    lost = [one for one in results if one["code"] != HTTPStatus.OK or b'"usage"' not in base64.b64decode(one["body"])]
    assert not lost, f"{len(lost)} of {len(results)} lost, the first: {lost[0]}"
    return [one["latency"] / 1e6 for one in results]


def _target(url: str, number: int) -> str:
    """Write one request as vegeta reads them."""
    asked = json.dumps(Request(model=_TIER, prompt=f"{number} " + "word " * 200, tokens=2).body)
    body, header = base64.b64encode(asked.encode()).decode(), {"Content-Type": ["application/json"]}
    return json.dumps({"method": "POST", "url": url + CHAT_PATH, "header": header, "body": body})


def _percentiles(times_ms: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(times_ms, n=100)
    return cuts[49], cuts[98]


def _resident_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024
