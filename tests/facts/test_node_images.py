"""Which NVIDIA driver an EKS image has, against AWS' release notes. Not proven: that the images still exist."""

from __future__ import annotations

import pytest

from planning.facts.gpus import gpu
from planning.facts.node_images import DRIVER_FLOOR, NodeImage, newest_image


@pytest.mark.parametrize(
    ("alias", "kubernetes", "driver"),
    [
        ("al2023@v20251016", "1.34", "570.195.03"),
        ("al2023@v20251023", "1.34", "580.95.05"),
        ("al2023@v20260714", "1.36", "580.159.03"),
        ("bottlerocket@1.62.1", "1.36", "580.159.03"),
        ("bottlerocket@v1.62.1", "1.36", "580.159.03"),
        ("al2023@v20260903", "1.36", None),
        ("bottlerocket@v1.62.0", "1.36", None),
    ],
)
def test_the_driver_is_the_one_of_the_release_notes_or_not_known(
    alias: str, kubernetes: str, driver: str | None
) -> None:
    assert NodeImage.of(alias).driver(kubernetes) == driver


@pytest.mark.parametrize(
    ("alias", "runs"),
    [
        ("al2023@v20250620", False),  # not listed, but a later release still had 570
        ("bottlerocket@v1.39.9", False),
        ("bottlerocket@v1.41.0", None),
        ("al2023@v20260714", True),
        ("al2023@v20270101", None),  # what comes is not known
    ],
)
def test_a_release_before_one_that_is_too_old_is_too_old_and_a_later_one_is_not_known(
    alias: str, runs: bool | None
) -> None:
    assert NodeImage.of(alias).runs_driver(DRIVER_FLOOR, "1.36") is runs


def test_a_release_that_came_before_the_kubernetes_version_has_no_image_for_it() -> None:
    assert NodeImage.of("al2023@v20260505").lacks("1.36")
    assert not NodeImage.of("al2023@v20260610").lacks("1.36")
    assert not NodeImage.of("al2023@v20260903").lacks("1.36"), "a release that was not read is not known to lack it"


def test_a_bottlerocket_release_of_which_one_image_was_seen_is_not_known_to_lack_the_others() -> None:
    """AWS publishes no list of a release's images and drivers."""
    image = NodeImage.of("bottlerocket@v1.62.1")
    assert image.driver("1.36") == "580.159.03"
    assert image.driver("1.35") is None
    assert not image.lacks("1.35")


def test_a_release_is_another_image_for_another_kubernetes_version() -> None:
    """Karpenter resolves an alias for the cluster's minor version, so an upgrade alone makes every node drift."""
    image = NodeImage.of("al2023@v20260714")
    assert (image.label("1.35"), image.label("1.36")) == ("al2023-v20260714-1.35", "al2023-v20260714-1.36")


def test_the_newest_image_that_was_read_is_the_way_out() -> None:
    newest = [newest_image(family, "1.36") for family in ("al2023", "bottlerocket")]
    assert [image and image.alias for image in newest] == ["al2023@v20260714", "bottlerocket@v1.62.1"]
    assert newest_image("al2023", "1.99") is None


def test_the_rtx_pro_4500_of_g7_is_the_one_gpu_that_stock_images_do_not_run() -> None:
    assert gpu("RTX-PRO-4500").least_driver == 595
    assert NodeImage.of("al2023@v20260714").runs_driver(595, "1.36") is False
    assert gpu("RTX-PRO-6000").least_driver is None


def test_a_moving_alias_is_no_image() -> None:
    for alias in ("al2023@latest", "al2023", "al2@v20260714", "bottlerocket@v1.x"):
        with pytest.raises(ValueError, match="is no"):
            NodeImage.of(alias)
