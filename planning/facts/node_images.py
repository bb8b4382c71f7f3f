"""Images of the GPU nodes: the alias that Karpenter resolves, what the system brings, and its NVIDIA driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from planning.facts.table import DATA, InvalidCell, Row, read_table

Family: TypeAlias = Literal["al2023", "bottlerocket"]
_FAMILIES: Final[tuple[Family, ...]] = ("al2023", "bottlerocket")
_READ_IN_FULL: Final[tuple[Family, ...]] = ("al2023",)
"""Families whose release notes list every image of a release. Of Bottlerocket single images were seen: what is not
listed of one of its releases may be there."""
_Version: TypeAlias = tuple[int, ...]

DRIVER_FLOOR: Final = 580
"""Oldest driver branch for the vLLM image: its torch 2.14 is built for CUDA 13.0 (PyPI wheel vllm 0.33.0, 2026-11-01),
and CUDA 13 runs on drivers from 580 on (NVIDIA's CUDA compatibility guide; bottlerocket-kernel-kit issue 254 saw
CUDA 13 refuse branch 570)."""

_BOTTLEROCKET_PULLS_IN_PARALLEL: Final = (1, 45, 0)
"""First Bottlerocket with the SOCI snapshotter's parallel pull (AWS' containers blog on SOCI parallel pull mode)."""


@dataclass(frozen=True, slots=True)
class NodeImage:
    """A pinned EKS image, as in ``al2023@v20260714`` or ``bottlerocket@v1.62.1``."""

    family: Family
    release: _Version
    """A day as one number for AL2023, major, minor and patch for Bottlerocket."""

    @classmethod
    def of(cls, alias: str) -> NodeImage:
        """Read an alias. Raises ``ValueError`` for one that pins no release."""
        family, _, release = alias.partition("@")
        for known in _FAMILIES:
            if family == known:
                return cls(known, _version(release))
        raise ValueError(f"{alias} is no alias of an EKS image")

    @property
    def alias(self) -> str:
        """What an EC2NodeClass selects its image by."""
        return f"{self.family}@v{'.'.join(map(str, self.release))}"

    def label(self, kubernetes: str) -> str:
        """The value of a Kubernetes label that names the image: a release has one for each Kubernetes version."""
        return f"{self.alias.replace('@', '-')}-{kubernetes}"

    @property
    def brings_device_plugin(self) -> bool:
        """Whether GPUs are offered to pods without the device plugin's chart; a second plugin would double them."""
        return self.family == "bottlerocket"

    @property
    def pulls_in_parallel(self) -> bool:
        """Whether the image can pull and unpack layers in parallel."""
        return self.family == "al2023" or self.release >= _BOTTLEROCKET_PULLS_IN_PARALLEL

    def driver(self, kubernetes: str) -> str | None:
        """NVIDIA's driver in the image for a Kubernetes version, as ``580.159.03``; None where it is not known."""
        return _drivers().get(self, {}).get(kubernetes)

    def lacks(self, kubernetes: str) -> bool:
        """Whether the release's list was seen and has no image for a Kubernetes version."""
        return self.family in _READ_IN_FULL and self in _drivers() and self.driver(kubernetes) is None

    def runs_driver(self, branch: int, kubernetes: str) -> bool | None:
        """Whether the image's driver is of ``branch`` or newer; None: not known.

        A release that is not listed is too old when a later one still was. What came after the last that is listed
        is not known: drivers went back once (575 to 570, in August 2025).
        """
        driver = self.driver(kubernetes)
        if driver is not None:
            return _branch(driver) >= branch
        later = (
            _branch(each)
            for image, drivers in _drivers().items()
            if image.family == self.family and image.release >= self.release
            for each in drivers.values()
        )
        return False if any(each < branch for each in later) else None


def newest_image(family: Family, kubernetes: str) -> NodeImage | None:
    """The newest release of a family whose driver for a Kubernetes version was seen to be new enough for vLLM."""
    fit = [
        image
        for image, drivers in _drivers().items()
        if image.family == family and kubernetes in drivers and _branch(drivers[kubernetes]) >= DRIVER_FLOOR
    ]
    return max(fit, key=lambda image: image.release, default=None)


@cache
def _drivers() -> Mapping[NodeImage, Mapping[str, str]]:
    """Drivers by image and Kubernetes version (``data/ami_drivers.csv``)."""
    drivers: dict[NodeImage, dict[str, str]] = {}
    for image, kubernetes, driver in read_table(DATA / "ami_drivers.csv", _COLUMNS, _seen):
        drivers.setdefault(image, {})[kubernetes] = driver
    return MappingProxyType(drivers)


_COLUMNS: Final = ("family", "release", "kubernetes", "driver", "source", "as_of")


def _seen(row: Row) -> tuple[NodeImage, str, str]:
    row.name("source")
    if row.date("as_of") is None:
        raise InvalidCell("as_of is empty")
    driver = row.name("driver")
    if not driver.replace(".", "").isdecimal():
        raise InvalidCell(f"driver should be as 580.159.03, not {driver!r}")
    try:
        image = NodeImage(row.choice("family", _FAMILIES), _version(row.name("release")))
    except ValueError as error:
        raise InvalidCell(str(error)) from None
    return image, row.name("kubernetes"), driver


def _version(text: str) -> _Version:
    parts = text.removeprefix("v").split(".")
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{text} is no release")
    return tuple(map(int, parts))


def _branch(driver: str) -> int:
    return int(driver.partition(".")[0])
