"""The Envoys that route by the body's model, as they are planned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planning.facts.instances import offerings
from planning.fixed import router_plan, system_nodes
from planning.plan import ModelRouterPlan, Plan
from planning.stack import plan_config
from planning.system_pods import DAEMONS, SYSTEM_PODS
from problems import ConfigurationError
from tests.test_settings import tier

REGION = "us-east-1"
LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"


def plan(*tiers: dict[str, Any], **routing: Any) -> Plan:
    return plan_config(REGION, {"tiers": list(tiers or (tier(),)), "routing": {"byModelField": True, **routing}})[1]


def model_router(*tiers: dict[str, Any], **routing: Any) -> ModelRouterPlan:
    found = plan(*tiers, **routing).model_router
    assert found is not None
    return found


def test_it_is_off_unless_asked_for() -> None:
    _, found = plan_config(REGION, {"tiers": [tier()]})
    assert found.model_router is None


def test_a_tier_is_meant_by_its_name_and_by_its_models_id() -> None:
    found = model_router(tier(name="fast"), tier(name="other", model="Qwen/Qwen3-8B"), defaultTier="other")
    assert found.tier_of_model == {
        "fast": "fast",
        "other": "other",
        LLAMA_8B: "fast",
        "Qwen/Qwen3-8B": "other",
    }
    assert found.default_tier == next(iter(found.tier_of_model)) == "other", "listed first, as by the tier itself"


@pytest.mark.parametrize(("default", "reached"), [("third", "third"), ("second", "second"), (None, "first")])
def test_a_model_that_several_tiers_serve_reaches_the_default_tier_or_else_the_first(
    default: str | None, reached: str
) -> None:
    tiers = [tier(name=name) for name in ("first", "second", "third")]
    found = plan(*tiers, **({"defaultTier": default} if default else {}))
    assert found.model_router is not None
    assert found.model_router.tier_of_model[LLAMA_8B] == reached
    others = " and ".join(name for name in ("first", "second", "third") if name != reached)
    assert [line for line in found.warnings if "byModelField" in line] == [
        f"routing.byModelField: model {LLAMA_8B} reaches tier {reached}; {others} serve it too, under the tier's name"
    ]


def test_nothing_is_said_of_models_where_each_has_one_tier_or_the_header_alone_decides() -> None:
    assert not [line for line in plan().warnings if "byModelField" in line]
    twice = {"tiers": [tier(name="first"), tier(name="second")]}
    assert not [line for line in plan_config(REGION, twice)[1].warnings if "byModelField" in line]


@pytest.mark.parametrize(("unauthenticated", "status"), [("authenticate", 302), ("deny", 401)])
def test_a_sign_in_that_programs_cannot_pass_is_warned_of(unauthenticated: str, status: int) -> None:
    provider = {f"{name}Endpoint": f"https://idp.example.com/{name}" for name in ("authorization", "token", "userInfo")}
    network = {
        "certificateArn": f"arn:aws:acm:{REGION}:111122223333:certificate/1a2b3c4d-0000-4000-8000-000000000000",
        "oidc": {
            "issuer": "https://idp.example.com",
            **provider,
            "secretName": "oidc-client",
            "onUnauthenticated": unauthenticated,
        },
    }

    def said(by_model: bool) -> list[str]:
        config = {"tiers": [tier()], "network": network, "routing": {"byModelField": by_model}}
        return [line for line in plan_config(REGION, config)[1].warnings if "byModelField" in line]

    assert said(False) == []
    (line,) = said(True)
    assert line.startswith("routing.byModelField with network.oidc: ")
    assert f"answers it {status} " in line
    assert line.endswith("leave one of them out, and let programs in by the secret apiKey")


@pytest.mark.parametrize(("tokens", "body_mib"), [(8192, 1), (43_690, 1), (43_691, 2), (131_072, 3)])
def test_the_longest_prompt_of_any_tier_fits_at_24_bytes_a_token(tokens: int, body_mib: int) -> None:
    found = model_router(tier(name="short"), tier(name="long", maxModelLen=tokens))
    assert found.max_body_mib == body_mib
    assert found.max_body_mib * 2**20 >= tokens * 24
    # Idle, one body of the kind that takes most to read, and 16 that arrive.
    assert found.memory_mib == 64 + body_mib * (96 + 16)


def test_each_replica_carries_the_busiest_minutes_of_all_tiers_alone() -> None:
    busy = tier(name="busy", traffic={"requestsPerDay": 864_000, "inputTokens": 100, "outputTokens": 20})
    found = model_router(tier(name="quiet"), busy)
    assert found.replicas == 2
    assert found.cpu_millicores >= 100 + 10, "864,000 a day are 10 a second on average, at 1 ms each"
    assert found.cpu_millicores > model_router(tier(name="quiet")).cpu_millicores


def test_the_system_nodes_have_room_for_both_and_are_paid_for() -> None:
    routers, front = (router_plan(1.0, 8.0),), replace(model_router(), memory_mib=8192, cpu_millicores=2000)
    (less, node), (more, larger) = (system_nodes(routers, offerings(REGION), one) for one in (None, front))
    rooms = [
        plan.count * (one.instance.allocatable_memory_gib - DAEMONS.memory_mib / 1024)
        for plan, one in ((less, node), (more, larger))
    ]
    needed = sum(pod.replicas * pod.memory_mib for pod in SYSTEM_PODS.values()) / 1024 + 2 * 8
    assert rooms[0] < needed <= rooms[1]
    assert more.count * larger.on_demand_usd_per_hour > less.count * node.on_demand_usd_per_hour


def test_the_second_hop_between_zones_is_in_the_bill() -> None:
    busy = tier(traffic={"requestsPerDay": 100_000, "inputTokens": 900, "outputTokens": 150})
    bills = [plan_config(REGION, {"tiers": [busy]})[1], plan(busy)]
    crossed = [item.usd for one in bills for item in one.forecast.items if item.name == "traffic between zones"]
    # 100,000 x 30.4 requests of 900 x 4.5 + 150 x 250 bytes are 126.5 x 10^9 bytes or 117.8 GB as AWS bills them, of
    # which two thirds cross, at 0.01 USD on either side.
    assert crossed == [pytest.approx(1.57, abs=0.01), pytest.approx(3.14, abs=0.01)]


def test_a_misspelt_setting_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"routing\.byModelFiled: is no setting; did you mean byModelField"):
        plan(byModelFiled=True)
