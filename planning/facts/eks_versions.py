"""Kubernetes versions of EKS, how long each is supported, and the one that the stack runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from types import MappingProxyType

from planning.facts.table import DATA, InvalidCell, Row, UnknownFact, read_table

KUBERNETES_VERSION = "1.36"
"""KEDA 2.21 supports 1.34 to 1.36 and Karpenter 1.14's compatibility table stops at 1.36 (read 2026-11-22)."""


@dataclass(frozen=True, slots=True)
class EksVersion:
    """A minor version: standard support for about 14 months from its release on EKS, then 12 months of extended."""

    version: str
    released: date
    end_of_standard_support: date
    """From this day on a cluster hour costs the price of extended support."""
    end_of_extended_support: date
    """From this day on EKS upgrades the cluster by itself."""
    source: str


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
