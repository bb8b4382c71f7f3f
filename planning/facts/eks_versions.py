"""Kubernetes versions of EKS: how long each is supported, which controllers support it, which add-ons are pinned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from types import MappingProxyType

from planning.facts.table import DATA, InvalidCell, Row, UnknownFact, read_table

KUBERNETES_VERSION = "1.36"
"""The newest that runs, and that of a stack which names none."""

ADDONS = ("vpc-cni", "kube-proxy", "coredns", "eks-pod-identity-agent", "aws-ebs-csi-driver", "metrics-server")
"""What every cluster of this program needs."""


@dataclass(frozen=True, slots=True)
class EksVersion:
    """A minor version: standard support for about 14 months from its release on EKS, then 12 months of extended."""

    version: str
    released: date
    end_of_standard_support: date
    """On this day EKS upgrades a cluster of the upgrade policy STANDARD, as ours are; one of EXTENDED costs more from
    then on."""
    end_of_extended_support: date
    """On this day EKS upgrades a cluster of the upgrade policy EXTENDED."""
    source: str


@dataclass(frozen=True, slots=True)
class ControllerSupport:
    """The Kubernetes versions that a controller's own documentation names for the version that is pinned here."""

    controller: str
    version: str
    oldest: str
    newest: str
    source: str

    def supports(self, kubernetes: str) -> bool:
        """Whether the minor version lies in the range."""
        return minor(self.oldest) <= minor(kubernetes) <= minor(self.newest)


def minor(version: str) -> int:
    """The number after the dot of ``1.36``."""
    return int(version.partition(".")[2])


@cache
def controllers() -> tuple[ControllerSupport, ...]:
    """What the controllers support."""
    return read_table(DATA / "controller_support.csv", _SUPPORT_COLUMNS, _support)


@cache
def addon_versions(kubernetes: str) -> Mapping[str, str]:
    """The pinned version of each add-on by its name; those of ``ADDONS`` that are pinned for the minor version."""
    read = read_table(DATA / "eks_addons.csv", _ADDON_COLUMNS, _addon)
    return MappingProxyType({name: version for of, name, version in read if of == kubernetes})


def runs(kubernetes: str) -> bool:
    """Whether a cluster of this program can be of the minor version."""
    known = kubernetes in _versions() and set(addon_versions(kubernetes)) == set(ADDONS)
    return known and all(each.supports(kubernetes) for each in controllers())


def runnable_versions() -> tuple[str, ...]:
    """The minor versions that a cluster of this program can be of, oldest first."""
    return tuple(version for version in _versions() if runs(version))


def eks_version(version: str) -> EksVersion:
    """The lifecycle of a minor version as ``1.36``. Raises ``UnknownFact`` of kind ``EKS version``."""
    try:
        return _versions()[version]
    except KeyError:
        raise UnknownFact("EKS version", version, _versions()) from None


@cache
def _versions() -> Mapping[str, EksVersion]:
    read = read_table(DATA / "eks_versions.csv", _COLUMNS, _version)
    return MappingProxyType({entry.version: entry for entry in read})


_COLUMNS = ("version", "released", "end_of_standard_support", "end_of_extended_support", "source", "as_of")


def _version(row: Row) -> EksVersion:
    return EksVersion(
        version=row.name("version"),
        released=_day(row, "released"),
        end_of_standard_support=_day(row, "end_of_standard_support"),
        end_of_extended_support=_day(row, "end_of_extended_support"),
        source=row.name("source"),
    )


def _day(row: Row, column: str) -> date:
    day = row.date(column)
    if day is None:
        raise InvalidCell(f"{column} is empty")
    return day


_SUPPORT_COLUMNS = ("controller", "version", "oldest_kubernetes", "newest_kubernetes", "source", "as_of")
_ADDON_COLUMNS = ("kubernetes", "addon", "version", "source", "as_of")


def _support(row: Row) -> ControllerSupport:
    return ControllerSupport(
        controller=row.name("controller"),
        version=row.name("version"),
        oldest=row.name("oldest_kubernetes"),
        newest=row.name("newest_kubernetes"),
        source=row.name("source"),
    )


def _addon(row: Row) -> tuple[str, str, str]:
    name = row.choice("addon", ADDONS)
    return row.name("kubernetes"), name, row.name("version")
