"""The data directory as a whole."""

from __future__ import annotations

import re
import subprocess
import sys

from planning.facts.table import DATA

FILES = sorted(path for path in DATA.rglob("*") if path.is_file() and path.name != "SOURCES.md")


def test_every_file_is_described_in_sources() -> None:
    sources = (DATA / "SOURCES.md").read_text(encoding="utf-8")
    for path in FILES:
        name = path.name if path.parent == DATA else re.sub(r"_(hourly|10min|minute)$", "", path.stem)
        assert name in sources, path.name


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w./])/(work|home|tmp|root|Users)/", text), path.name


def test_a_preview_reads_no_measurements() -> None:
    # 1 MB of rows that only an evaluation needs: reading them would double the start of every preview.
    program = (
        "import planning.facts.table as table\n"
        "opened = []\n"
        "original = table.read_table\n"
        "def spy(path, columns, parse):\n"
        "    opened.append(path.name)\n"
        "    return original(path, columns, parse)\n"
        "table.read_table = spy\n"
        "from planning.facts import checkpoints, cpus, fixed_prices, gpus, instances, measurements, models\n"
        "models.models(), gpus.gpus(), checkpoints.all_checkpoints(), instances.offerings('us-east-2')\n"
        "fixed_prices.fixed_price('us-east-2', 'alb')\n"
        "print(*sorted(opened))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=DATA.parents[2], capture_output=True, text=True, check=True
    )
    opened = ran.stdout.split()
    assert "throughput_measurements.csv" not in opened
    assert sorted(opened) == sorted(set(opened)), "a file is read twice"
