"""The node image of a stack: refused where it is known not to run the engine, doubted where nothing is known."""

from __future__ import annotations

from typing import Any

import pytest

from planning.demands import usable_offerings
from planning.plan import Plan
from planning.stack import plan_config
from problems import ConfigurationError
from settings import Capacity

TIER: dict[str, Any] = {
    "name": "fast",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "slo": {"ttftMs": 1500, "tpotMs": 60},
    "traffic": {"requestsPerDay": 4000, "inputTokens": 900, "outputTokens": 150},
}
GGUF = {**TIER, "quantization": "gguf", "maxModelLen": 4096, "slo": {"ttftMs": 60000, "tpotMs": 150}}
GGUF["traffic"] = {"requestsPerDay": 100, "inputTokens": 600, "outputTokens": 150}


def planned(alias: str, *tiers: dict[str, Any], kubernetes: str = "1.36") -> Plan:
    cluster = {"kubernetesVersion": kubernetes}
    values = {"tiers": list(tiers or (TIER,)), "capacity": {"amiAlias": alias}, "cluster": cluster}
    return plan_config("us-east-1", values)[1]


def refusal(alias: str, **tier: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        planned(alias, {**TIER, **tier})
    return str(caught.value)


@pytest.mark.parametrize(
    ("alias", "driver", "way_out"),
    [
        ("al2023@v20251007", "older than 580", "al2023@v20260714"),
        ("bottlerocket@v1.40.0", "older than 580", "bottlerocket@v1.62.1"),
    ],
)
def test_an_image_whose_driver_is_known_to_be_too_old_is_refused_with_the_way_out(
    alias: str, driver: str, way_out: str
) -> None:
    told = refusal(alias)
    assert f"capacity.amiAlias is '{alias}': its NVIDIA driver is {driver}" in told
    assert f"needs 580 or newer; set {way_out}" in told


def test_an_image_that_came_before_the_clusters_version_is_refused() -> None:
    assert "has no image for Kubernetes 1.36; set al2023@v20260714" in refusal("al2023@v20260505")


def test_a_stack_on_cpus_alone_needs_no_driver() -> None:
    assert planned("bottlerocket@v1.41.0", GGUF).node_pools[0].gpu_count == 0
    assert not any("amiAlias" in line for line in planned("bottlerocket@v1.41.0", GGUF).warnings)


@pytest.mark.parametrize("alias", ["al2023@v20260903", "bottlerocket@v1.63.0"])
def test_a_release_nobody_was_seen_to_describe_earns_a_warning_that_names_the_floor(alias: str) -> None:
    (warning,) = (line for line in planned(alias).warnings if "amiAlias" in line)
    assert alias in warning
    assert "580 or newer" in warning


def test_a_bottlerocket_release_seen_for_one_kubernetes_version_earns_a_warning_on_another() -> None:
    """As the releases before and after it do, of which nothing was seen."""
    for alias in ("bottlerocket@v1.60.0", "bottlerocket@v1.62.1", "bottlerocket@v1.63.0"):
        (warning,) = (line for line in planned(alias, kubernetes="1.35").warnings if "amiAlias" in line)
        assert "its NVIDIA driver is not known here" in warning


@pytest.mark.parametrize("alias", ["al2023@v20260714", "bottlerocket@v1.62.1"])
def test_a_release_with_the_driver_passes_in_silence(alias: str) -> None:
    assert not any("amiAlias" in line for line in planned(alias).warnings)
    assert planned(alias).node_image.alias == alias


def test_gpus_that_need_a_newer_driver_than_the_image_has_are_in_no_pool() -> None:
    offered = usable_offerings("us-east-1", Capacity())
    assert not any(offering.instance.family == "g7" for offering in offered)
    assert any(offering.instance.family == "g7e" for offering in offered), "the RTX PRO 6000 runs on driver 580"


def test_a_tier_that_asks_for_such_a_gpu_is_told_why_it_is_not_there() -> None:
    assert "gpus[0] is 'RTX-PRO-4500': needs NVIDIA driver 595 on the nodes; choose from" in refusal(
        "al2023@v20260714", gpus=["RTX-PRO-4500"]
    )
