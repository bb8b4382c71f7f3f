"""How long a plan and a preview take: ``make bench``. Exits with 1 when a limit is missed.

A plan and the offline preview of ``Pulumi.prod.yaml`` are timed as whole processes, as a person starts them; stacks of
many tiers within one process, each in a fresh one. The tiers are all different (traffic, lengths, targets, replicas,
several models), so that nothing can be answered by remembering an equal tier. Processor time is what decides: wall time
says how busy the machine was.
"""

from __future__ import annotations

import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]

PROD_LIMIT_S = 0.8
PREVIEW_LIMIT_S, PREVIEWS = 6.0, 3
MANY_TIERS, MANY_TIERS_LIMIT_S = 200, 10.0
#: Time per tier of the largest stack over that of the smallest: linear is 1.
LINEAR_LIMIT = 1.5
RUNS = 7
SIZES = (25, 50, 100, MANY_TIERS)

_MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3-8B",
)
_PROFILES = ("flat", "office-hours", "servegen_m_large", "servegen_m_small")


def stack_of(tiers: int) -> dict[str, object]:
    """A configuration of so many tiers, no two alike; the same at every call."""
    chance = random.Random(tiers)
    return {
        "aws:region": "us-east-1",
        "frugal-llm:schedule": {"workingHours": {"start": "0 8 * * 1-5", "end": "0 18 * * 1-5"}},
        "frugal-llm:tiers": [
            {
                "name": f"tier-{number}",
                "model": chance.choice(_MODELS),
                "slo": {"ttftMs": chance.randint(800, 4000), "tpotMs": chance.randint(60, 150)},
                "traffic": {
                    "requestsPerDay": round(10 ** chance.uniform(2, 5)),
                    "inputTokens": chance.randint(200, 3000),
                    "outputTokens": chance.randint(50, 500),
                    "profile": chance.choice(_PROFILES),
                },
                "minReplicas": chance.choice((0, 1, 2)),
            }
            for number in range(tiers)
        ],
    }


def planned(path: Path, *options: str) -> tuple[float, float]:
    """Processor and wall seconds of one whole process that plans."""
    return ran("planning", "plan", str(path), *options)


def ran(module: str, *arguments: str) -> tuple[float, float]:
    """Processor and wall seconds of one whole process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", module, *arguments]
    # Bytecode is kept, as `make` keeps it and as Python does by itself.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return used, time.perf_counter() - start


def main() -> int:
    """Print the table and return the exit code."""
    missed: list[str] = []

    def row(what: str, processor_s: list[float], wall_s: list[float], note: str) -> float:
        least = min(processor_s)
        print(f"{what:34} {least:6.2f} {statistics.median(processor_s):8.2f} {min(wall_s):7.2f}  {note}")
        return least

    print(f"{'seconds':34} {'least':>6} {'median':>8} {'wall':>7}")
    for name, options in (("report", ()), ("--json", ("--json",))):
        planned(ROOT / "Pulumi.prod.yaml", *options)  # writes the bytecode
        processor, wall = zip(*(planned(ROOT / "Pulumi.prod.yaml", *options) for _ in range(RUNS)), strict=True)
        if row(f"plan Pulumi.prod.yaml, {name}", list(processor), list(wall), f"limit {PROD_LIMIT_S}") > PROD_LIMIT_S:
            missed.append(f"prod, {name}")
    ran("offline", "preview", "prod")
    processor, wall = zip(*(ran("offline", "preview", "prod") for _ in range(PREVIEWS)), strict=True)
    note = f"limit {PREVIEW_LIMIT_S:g}, of the wall time too on a machine with nothing else to do"
    if row("preview prod, offline", list(processor), list(wall), note) > PREVIEW_LIMIT_S:
        missed.append("preview of prod")
    per_tier: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        for tiers in SIZES:
            path = Path(directory) / f"{tiers}.yaml"
            path.write_text(yaml.safe_dump({"config": stack_of(tiers)}), encoding="utf-8")
            processor, wall = zip(*(planned(path, "--json") for _ in range(2)), strict=True)
            per_tier.append(min(processor) / tiers)
            limit = f", limit {MANY_TIERS_LIMIT_S:g}" if tiers == MANY_TIERS else ""
            note = f"{1000 * per_tier[-1]:.1f} ms a tier{limit}"
            if row(f"plan of {tiers} tiers", list(processor), list(wall), note) > MANY_TIERS_LIMIT_S:
                missed.append(f"{tiers} tiers")
    growth = per_tier[-1] / per_tier[0]
    print(f"time per tier from {SIZES[0]} to {SIZES[-1]} tiers: x {growth:.2f}, limit {LINEAR_LIMIT}")
    if growth > LINEAR_LIMIT:
        missed.append("not linear")
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
