"""How long EKS supports a Kubernetes version, against AWS's release calendar."""

from __future__ import annotations

from datetime import date

import pytest

from planning.facts.eks_versions import (
    ADDONS,
    KUBERNETES_VERSION,
    addon_versions,
    controllers,
    eks_version,
    runnable_versions,
)
from planning.facts.table import UnknownFact
from settings import Cluster


@pytest.mark.parametrize(
    ("version", "standard", "extended"),
    [
        ("1.33", date(2026, 7, 29), date(2027, 7, 29)),
        ("1.34", date(2026, 12, 2), date(2027, 12, 2)),
        ("1.35", date(2027, 3, 27), date(2028, 3, 27)),
        ("1.36", date(2027, 8, 2), date(2028, 8, 2)),
    ],
)
def test_standard_and_extended_support_end_as_the_release_calendar_says(
    version: str, standard: date, extended: date
) -> None:
    known = eks_version(version)
    assert (known.end_of_standard_support, known.end_of_extended_support) == (standard, extended)


def test_standard_support_lasts_14_months_and_extended_support_12_more() -> None:
    for version in ("1.33", "1.34", "1.35", "1.36"):
        known = eks_version(version)
        # Days of release differ a little between sources.
        assert (known.end_of_standard_support - known.released).days == pytest.approx(14 * 365.25 / 12, abs=5)
        assert (known.end_of_extended_support - known.end_of_standard_support).days == pytest.approx(365, abs=1)


def test_the_version_of_the_stack_has_a_calendar_and_an_unknown_one_says_what_was_meant() -> None:
    assert eks_version(KUBERNETES_VERSION).version == KUBERNETES_VERSION
    with pytest.raises(UnknownFact, match=r"unknown EKS version '1\.99'"):
        eks_version("1.99")


def test_a_controller_supports_the_versions_of_its_documentation_and_no_more() -> None:
    keda, karpenter = sorted(controllers(), key=lambda each: each.controller != "KEDA")
    # keda.sh, operate/cluster: v2.21 is tested with v1.34 to v1.36.
    assert [keda.supports(version) for version in ("1.33", "1.34", "1.36", "1.37")] == [False, True, True, False]
    # Karpenter's compatibility matrix starts at 1.29; 1.9 is before 1.29, though not as text.
    assert [karpenter.supports(version) for version in ("1.9", "1.29", "1.36", "1.37")] == [False, True, True, False]


def test_the_versions_that_run_are_those_that_have_every_add_on_and_every_controller() -> None:
    assert runnable_versions() == ("1.35", "1.36")
    assert KUBERNETES_VERSION == runnable_versions()[-1] == Cluster().kubernetes_version, "the default is the newest"
    for version in runnable_versions():
        assert set(addon_versions(version)) == set(ADDONS)
        assert all(pinned.startswith("v") and "-eksbuild." in pinned for pinned in addon_versions(version).values())
    assert addon_versions("1.34") == {}
