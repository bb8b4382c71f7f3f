"""The images on the system nodes and the processors that each is known to exist for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache

from planning.facts.table import CPU_ARCHITECTURES, DATA, CpuArchitecture, InvalidCell, Row, read_table


@dataclass(frozen=True, slots=True)
class SystemImage:
    """An image of a pod on the system nodes."""

    name: str
    pod: str
    """Of ``SYSTEM_PODS``, or ``router`` (one a tier), or ``daemons`` (on every node)."""
    tags: frozenset[str]
    """What is pinned and brings it: its own tag, its chart's version, or the add-on's for each Kubernetes version."""
    architectures: frozenset[CpuArchitecture]
    """Those for which there is evidence that it exists; another may exist too."""
    tag_inspected: bool
    """Whether the platforms of this very tag were read from a registry, by somebody whose file is the source. Else the
    evidence is a build file of the project, or a page that names no version."""
    source: str
    as_of: date | None


@cache
def system_images() -> tuple[SystemImage, ...]:
    """Every image on the system nodes. Raises ``InvalidTable``."""
    return read_table(DATA / "system_images.csv", _COLUMNS, _image)


_COLUMNS = ("image", "pod", "tags", "architectures", "tag_inspected", "source", "as_of")


def _image(row: Row) -> SystemImage:
    named = row.name("architectures").split()
    unknown = sorted(set(named) - set(CPU_ARCHITECTURES))
    if unknown:
        raise InvalidCell(f"architectures should be of {', '.join(CPU_ARCHITECTURES)}, not {', '.join(unknown)}")
    return SystemImage(
        name=row.name("image"),
        pod=row.name("pod"),
        tags=frozenset(row.name("tags").split()),
        architectures=frozenset(each for each in CPU_ARCHITECTURES if each in named),
        tag_inspected=row.yes("tag_inspected"),
        source=row.name("source"),
        as_of=row.date("as_of"),
    )
