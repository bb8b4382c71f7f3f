"""What stands around engine pods. That the cluster's network plugin enforces the walls is not proven here."""

from __future__ import annotations

import ipaddress
from typing import Any

import pulumi
import pytest

from components.engine_surroundings import EngineSurroundings, EngineSurroundingsArgs
from components.names import ROUTER, tier_labels
from tests.components.serving import object_of, refusals
from tests.harness import Recording, component_under_test


@pytest.fixture(scope="module")
def surroundings() -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> EngineSurroundings:
        return EngineSurroundings("fast", EngineSurroundingsArgs(tier_name="fast", namespace="llm"), opts)

    return component_under_test(factory)


@pytest.fixture(scope="module")
def walls(surroundings: Recording) -> dict[str, Any]:
    return object_of(surroundings, "NetworkPolicy", "fast-engine")["spec"]


def test_kubernetes_accepts_every_object(surroundings: Recording) -> None:
    assert refusals(surroundings) == []


def test_only_the_tiers_own_router_and_prometheus_get_in(walls: dict[str, Any]) -> None:
    (rule,) = walls["ingress"]
    router, prometheus = rule["from"]
    assert router == {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "fast-router"}}}
    assert router["podSelector"]["matchLabels"].items() <= tier_labels("fast", ROUTER).items()
    assert prometheus == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]


def test_pods_get_out_to_public_https_and_to_their_credentials_only(walls: dict[str, Any]) -> None:
    public, credentials = walls["egress"]
    assert public["ports"] == [{"protocol": "TCP", "port": 443}]
    assert credentials == {
        "to": [{"ipBlock": {"cidr": "169.254.170.23/32"}}],
        "ports": [{"protocol": "TCP", "port": 80}],
    }


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("52.219.80.72", True),  # S3 in us-east-2
        ("10.42.64.10", False),  # another pod, the private API endpoint
        ("172.20.0.1", False),  # the Kubernetes service
        ("169.254.169.254", False),  # the node's metadata
        ("100.64.3.1", False),  # secondary pod networks
    ],
)
def test_https_reaches_s3_but_nothing_private(walls: dict[str, Any], address: str, allowed: bool) -> None:
    block = walls["egress"][0]["to"][0]["ipBlock"]
    where = ipaddress.ip_address(address)
    reached = where in ipaddress.ip_network(block["cidr"]) and not any(
        where in ipaddress.ip_network(excluded) for excluded in block["except"]
    )
    assert reached is allowed


def test_both_directions_are_walled(walls: dict[str, Any]) -> None:
    assert walls["policyTypes"] == ["Ingress", "Egress"]
    assert walls["podSelector"]["matchLabels"]["llm-d.ai/tier"] == "fast"


def test_a_single_replica_can_be_drained_and_a_loading_one_holds_up_nothing(surroundings: Recording) -> None:
    budget = object_of(surroundings, "PodDisruptionBudget", "fast-engine")["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_prometheus_finds_the_pods_and_names_the_tier(surroundings: Recording) -> None:
    monitor = object_of(surroundings, "PodMonitor", "fast-engine")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("engine", "/metrics")
    assert {
        "sourceLabels": ["__meta_kubernetes_pod_label_llm_d_ai_tier"],
        "targetLabel": "tier",
        "action": "replace",
    } in endpoint["relabelings"]
    assert monitor["spec"]["selector"]["matchLabels"]["llm-d.ai/tier"] == "fast"


def test_the_service_account_gives_no_token_away(surroundings: Recording) -> None:
    account = object_of(surroundings, "ServiceAccount", "fast-engine")
    assert account["automountServiceAccountToken"] is False


def test_the_service_is_headless_since_the_router_picks_pods_itself(surroundings: Recording) -> None:
    assert object_of(surroundings, "Service", "fast-engine")["spec"]["clusterIP"] == "None"
