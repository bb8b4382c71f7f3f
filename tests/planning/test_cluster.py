"""The Kubernetes version, its add-ons and its price, and the processor of the system nodes.

Versions and ranges are those of the controllers' and EKS' documentation. That an image of a tag exists for a processor
is evidence from public build files and registries, read and not pulled.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest
import yaml

from docs.generate import BRING_YOUR_OWN
from planning.cluster import cluster_plan, cluster_problems, system_architectures
from planning.facts.instances import offerings
from planning.facts.system_images import system_images
from planning.fixed import router_plan, system_nodes
from planning.network import network_plan
from planning.private_endpoints import SERVICES, Service, endpoint_usd, interface_endpoints, nat_usd
from planning.stack import plan_config
from planning.system_pods import SYSTEM_PODS
from reading import read
from settings import Network, StackSettings
from tests.test_settings import tier

REGION = "us-east-1"


def settings(**config: Any) -> StackSettings:
    found = read(REGION, {"tiers": [tier()], **config})
    assert found.problems == ()
    assert found.settings is not None
    return found.settings


def items(today: date | None = None, **config: Any) -> dict[str, float]:
    _, plan = plan_config(REGION, {"tiers": [tier()], **config}, today=today)
    return {item.name: item.usd for item in plan.forecast.items}


# Version ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.33", ["KEDA 2.21 supports 1.34 to 1.36", 'the nearest that works is "1.35"']),
        ("1.37", ["Karpenter 1.14 supports 1.29 to 1.36", "KEDA 2.21", 'the nearest that works is "1.36"']),
        ("1.34", ["no version is pinned for it of vpc-cni, kube-proxy", '"1.35"']),
        ("1.99", ["its support on EKS is not known here", '"1.36"']),
    ],
)
def test_a_version_that_a_controller_or_an_add_on_lacks_is_refused_with_who_and_what_works(
    version: str, expected: list[str]
) -> None:
    (problem,) = cluster_problems(settings(cluster={"kubernetesVersion": version}))
    assert problem.path == "frugal-llm:cluster.kubernetesVersion"
    assert all(words in str(problem) for words in expected), str(problem)


@pytest.mark.parametrize("version", ["1.35", "1.36"])
def test_a_version_that_runs_has_all_six_add_ons_and_a_kube_proxy_of_its_own_minor(version: str) -> None:
    plan = cluster_plan(settings(cluster={"kubernetesVersion": version}))
    assert cluster_problems(settings(cluster={"kubernetesVersion": version})) == []
    assert len(plan.addon_versions) == 6
    assert plan.addon_versions["kube-proxy"].startswith(f"v{version}.")


def test_a_version_without_quotes_is_a_number_and_told_how_to_be_written() -> None:
    (problem,) = read(REGION, {"tiers": [tier()], "cluster": {"kubernetesVersion": 1.36}}).problems
    assert str(problem) == (
        "frugal-llm:cluster.kubernetesVersion is 1.36: must be text; a minor version in quotes, for example "
        '"1.36": without them YAML reads 1.40 as 1.4'
    )


@pytest.mark.parametrize("today", [date(2027, 3, 20), date(2027, 4, 1), date(2028, 4, 1)])
def test_a_version_that_leaves_standard_support_costs_what_it_did_since_eks_upgrades_it_instead(today: date) -> None:
    # 1.35 leaves on 2027-03-27. With upgrade policy STANDARD no cluster gets to extended support at 0.60 USD an hour.
    older = items(today, cluster={"kubernetesVersion": "1.35"})
    assert older["EKS control plane"] == 73.00
    assert "EKS extended support" not in older


# What is brought along -------------------------------------------------------------------------------------------


def test_a_vpc_and_a_key_that_are_there_cost_nothing_here_and_the_plan_says_what_is_left_out() -> None:
    network = {
        "vpcId": "vpc-0123456789abcdef0",
        "vpcCidr": "10.8.0.0/16",
        "zones": ["us-east-1a", "us-east-1b", "us-east-1c"],
        "privateSubnetIds": ["subnet-0000000a", "subnet-0000000b", "subnet-0000000c"],
    }
    key = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    made = items()
    _, plan = plan_config(REGION, {"tiers": [tier()], "network": network, "cluster": {"secretsKeyArn": key}})
    brought = {item.name: item.usd for item in plan.forecast.items}
    assert set(made) - set(brought) == {"NAT gateways", "public IPv4 addresses", "KMS key"}
    assert set(brought) <= set(made)
    assert sum(made.values()) - sum(brought.values()) == pytest.approx(32.85 + 3.65 + 1.00, abs=0.01)
    assert any("the hours of its gateways and endpoints are not in this bill" in line for line in plan.warnings)


def test_the_documented_example_of_bringing_all_of_it_can_be_planned() -> None:
    config = yaml.safe_load(BRING_YOUR_OWN)["config"]
    values = {key.partition(":")[2]: value for key, value in config.items() if key.startswith("frugal-llm:")}
    _, plan = plan_config(config["aws:region"], {"tiers": [tier()], **values})
    assert plan.network.existing is not None
    assert plan.network.existing.vpc_id == "vpc-0123456789abcdef0"
    assert plan.cluster.node_role_arn == "arn:aws:iam::111122223333:role/eks-nodes"


# Processor of the system nodes -----------------------------------------------------------------------------------


def test_every_pod_on_the_system_nodes_has_its_image_in_the_table_with_a_source() -> None:
    assert {image.pod for image in system_images()} == {*SYSTEM_PODS, "router", "daemons"}
    assert all(image.source and image.architectures for image in system_images())


def test_system_nodes_are_on_graviton_while_every_image_exists_for_it() -> None:
    assert system_architectures() == ("amd64", "arm64")
    plan, node = system_nodes((router_plan(1.0, 8.0),), offerings(REGION))
    assert (plan.instance_type, plan.cpu_architecture) == ("m7g.large", "arm64")
    # Price List of 2026-07-20: m7g.large 0.0816, m7i.large 0.1008.
    assert node.on_demand_usd_per_hour == 0.0816


def test_one_image_without_evidence_for_arm64_keeps_all_system_nodes_on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    doubtful = tuple(
        replace(image, architectures=frozenset({"amd64"})) if image.name == "llm-d-router-endpoint-picker" else image
        for image in system_images()
    )
    assert system_architectures(doubtful) == ("amd64",)
    monkeypatch.setattr("planning.cluster.system_images", lambda: doubtful)
    plan, node = system_nodes((router_plan(1.0, 8.0),), offerings(REGION))
    assert (plan.instance_type, plan.cpu_architecture) == ("m7i.large", "amd64")
    assert node.on_demand_usd_per_hour == 0.1008


# Interface endpoints ---------------------------------------------------------------------------------------------


def test_an_endpoint_pays_from_the_gb_at_which_it_costs_what_nat_does() -> None:
    # us-east-1: 3 zones x 730 h x 0.01 = 21.90; NAT 0.045 a GB, the endpoint 0.01: 21.90 / 0.035 = 625.7 GB.
    assert endpoint_usd(REGION, 3, 0.0) == pytest.approx(21.90)
    break_even = 21.90 / 0.035
    assert endpoint_usd(REGION, 3, break_even) == pytest.approx(nat_usd(REGION, break_even))
    less, more = (Service("s", break_even + gb, "sample") for gb in (-0.1, 0.1))
    assert interface_endpoints(REGION, 3, private=False, services=(less,)) == ()
    assert interface_endpoints(REGION, 3, private=False, services=(more,)) == ("s",)
    assert interface_endpoints(REGION, 2, private=False, services=(Service("s", 418.0, "sample"),)) == ("s",)


def test_no_service_pays_for_its_endpoint_because_layers_and_weights_take_the_free_s3_gateway() -> None:
    assert network_plan(REGION, Network()).interface_endpoints == ()
    assert max(service.most_gb_per_month for service in SERVICES) < 100


def test_private_endpoints_are_all_of_them_and_on_the_bill() -> None:
    assert len(network_plan(REGION, Network(privateEndpoints=True)).interface_endpoints) == len(SERVICES) == 8
    # 8 services x 3 zones x 730 h x 0.01 USD.
    assert items(network={"privateEndpoints": True})["interface endpoints"] == pytest.approx(175.20)
    assert "interface endpoints" not in items()
