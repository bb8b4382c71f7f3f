"""Fixed costs against AWS's price list and pricing rules, and the dates of the prices a plan used.

Prices are those of us-east-1 in infracost's golden files of 2024-07 and 2025-07. What a month really logs, pulls or
sends is assumed by the code, and not proved here.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from planning.facts.instances import offerings
from planning.fixed import FixedUsage, KvStoreUsage, fixed_costs, support_warnings
from planning.plan import SystemNodesPlan
from planning.price_dates import PriceUse, age_warning, oldest_date

SYSTEM = SystemNodesPlan(instance_type="m7i.large", cpu_architecture="amd64", count=2, maximum=3, volume_gib=50)


def usage(region: str = "us-east-1", **changes: Any) -> FixedUsage:
    node = next(one for one in offerings(region) if one.instance.name == SYSTEM.instance_type)
    plain = FixedUsage(
        region=region,
        zones=3,
        nat_gateways=1,
        public_load_balancer=False,
        system_nodes=SYSTEM,
        system_node=node,
        prometheus_gib=50,
        checkpoints_gb=2**30 / 1e9 * 100,
        requests_per_month=0.0,
        gb_per_month=0.0,
        answers_gb_per_month=0.0,
        control_plane_logs=True,
        log_retention_days=30,
    )
    return replace(plain, **changes)


def items(of: FixedUsage) -> dict[str, float]:
    return {item.name: item.usd for item in fixed_costs(of).items}


def test_the_items_of_a_quiet_month_are_the_list_prices_times_730_hours() -> None:
    month = items(usage())
    assert month["EKS control plane"] == 73.00
    assert month["NAT gateways"] == 32.85
    assert month["public IPv4 addresses"] == 3.65
    assert month["load balancer"] == 16.43  # 16.425
    assert month["KMS key"] == 1.00
    assert month["system nodes"] == 147.17  # 2 x 730 x 0.1008


def test_a_volume_of_150_gib_is_150_gb_months() -> None:
    # infracost's aws_ebs_volume of 40 GiB gp3 costs 3.20: AWS's GB are GiB.
    assert items(usage())["disks of system nodes and Prometheus"] == pytest.approx(150 / 40 * 3.20)


def test_100_gib_of_weights_are_100_gb_of_storage_and_of_nat() -> None:
    month = items(usage())
    assert month["weights bucket"] == 2.30
    assert month["weights through NAT (once)"] == 4.50
    # 12,800 parts of 8 MiB at 0.005 a thousand.
    assert month["weights bucket filled (once)"] == 0.06


def test_only_the_hop_from_router_to_engine_pays_for_crossing_zones() -> None:
    # Two of three zones are another one; a GB pays 0.01 where it leaves and 0.01 where it enters.
    assert items(usage(gb_per_month=2**30 / 1e9 * 300))["traffic between zones"] == pytest.approx(300 * 2 / 3 * 0.02)


def test_a_public_load_balancer_has_an_address_in_every_zone_and_answers_leave_at_nine_cents() -> None:
    month = items(usage(public_load_balancer=True, answers_gb_per_month=2**30 / 1e9 * 100))
    assert month["public IPv4 addresses"] == pytest.approx(4 * 3.65)
    assert month["answers to the internet"] == 9.00


def test_the_end_of_standard_support_is_announced_three_months_before_as_an_upgrade_and_not_as_a_price() -> None:
    # Amazon EKS API Reference, UpgradePolicyRequest: STANDARD is upgraded at the end of standard support.
    assert support_warnings(None) == support_warnings(date(2027, 5, 1)) == ()
    assert support_warnings(date(2027, 5, 5)) == (
        "standard support of Kubernetes 1.36 ends on 2027-08-02: on that day EKS upgrades the control plane by itself, "
        "without the program; raise cluster.kubernetesVersion before",
    )
    assert support_warnings(date(2027, 8, 2)) == (
        "standard support of Kubernetes 1.36 ended on 2027-08-02: EKS upgrades the control plane by itself since, "
        "without the program; raise cluster.kubernetesVersion to what the cluster has now: EKS takes no lower one",
    )


def test_a_shared_kv_store_pays_for_storage_and_for_every_block_written() -> None:
    # 4,000 requests a day of 1,050 new tokens at 320 KiB a token (Llama 70B in 16 bit).
    tokens = 4_000 * 1_050.0
    store = KvStoreUsage("quality", tokens * 327_680 / 1e9, tokens, 0.0)
    month = items(usage(kv_stores=(store,)))
    stored_gib = tokens * 327_680 / 2**30 * 3
    assert month["shared KV store of quality"] == pytest.approx(stored_gib * 0.023, abs=0.01)
    thousand_blocks = tokens * 730 / 24 / 16 / 1000
    assert month["shared KV store of quality, written"] == pytest.approx(thousand_blocks * 0.005, abs=0.01)
    assert month["shared KV store of quality, read"] == 0.0


def test_items_are_whole_cents_so_that_they_add_up_as_printed() -> None:
    costs = fixed_costs(usage("eu-central-1", requests_per_month=1e7, gb_per_month=777.7))
    assert all(item.usd == round(item.usd, 2) for item in costs.items)
    assert round(costs.usd, 2) == pytest.approx(costs.usd, abs=1e-9)
    assert len(costs.prices) == len(costs.items)


def test_every_basis_names_the_date_of_its_price() -> None:
    for item in fixed_costs(usage("eu-west-3")).items:
        assert " x " in item.basis
        assert "undated" in item.basis or "(20" in item.basis, item


def test_derived_prices_widen_the_month_and_read_ones_do_not() -> None:
    read, derived = fixed_costs(usage("us-east-1")), fixed_costs(usage("eu-south-2"))
    assert (read.less_usd, read.more_usd) == (0.0, 0.0)
    assert derived.less_usd < -1 < 1 < derived.more_usd


def test_an_undated_price_counts_as_the_oldest() -> None:
    dated, undated = PriceUse("alb", date(2017, 12, 18), 16.0), PriceUse("NAT gateways", None, 33.0)
    assert oldest_date([dated]) == "2017-12-18"
    assert oldest_date([dated, undated]) == "undated"


def test_one_line_says_how_old_the_oldest_price_is_and_what_rests_on_old_ones() -> None:
    today = date(2026, 11, 22)
    fresh = PriceUse("g6.xlarge spot", date(2026, 8, 24), 75.0)  # 90 days
    old = PriceUse("load balancer", date(2026, 8, 23), 25.0)  # 91 days
    assert age_warning([fresh], "us-east-2", today) is None
    line = age_warning([fresh, old], "us-east-2", today)
    assert line is not None
    assert line.startswith("25% of the month rests on prices over 90 days old")
    assert "load balancer of 2026-08-23, 91 days ago" in line
    assert "prices refresh --region us-east-2" in line
    undated = age_warning([fresh, PriceUse("NAT gateways", None, 25.0)], "us-east-2", today)
    assert undated is not None
    assert "the oldest: NAT gateways without a date" in undated
