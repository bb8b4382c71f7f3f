"""A month over its budget. That what is proposed is the least painful for the users is a matter of taste; that it fits
is tested by planning the stack file with the very lines that the message gives.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from planning.plan import Plan
from planning.stack import plan_config, stack_variants
from planning.stackfile import read_stack
from problems import ConfigurationError
from reading import read

ROOT = Path(__file__).resolve().parents[2]
CHANGE = re.compile(r"^ +- ([\d,]+) USD a month, giving up (.+?):(?: (\S.*))?$")
EDIT = re.compile(r"^ *(aws|frugal-llm):([\w.\[\]]+): (.+)$")


def config(stack: str) -> tuple[str, dict[str, Any]]:
    stack_file = read_stack(ROOT / f"Pulumi.{stack}.yaml")
    return str(stack_file.region), copy.deepcopy(dict(stack_file.values))


def planned(stack: str, budget: dict[str, Any], edits: tuple[str, ...] = (), **changes: Any) -> Plan:
    region, values = config(stack)
    values = {**values, **changes, "budget": budget}
    for line in edits:
        parts = EDIT.match(line)
        assert parts is not None, line
        namespace, path, value = parts.groups()
        if namespace == "aws":
            region = value
        else:
            edit(values, path, yaml.safe_load(value))
    return plan_config(region, values)[1]


def edit(values: dict[str, Any], path: str, value: object) -> None:
    *parents, last = re.findall(r"\w+", path)
    section: Any = values
    for part in parents:
        section = section[int(part)] if part.isdigit() else section.setdefault(part, {})
    section[last] = value


def refusal(stack: str, budget: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        planned(stack, budget, **changes)
    return str(raised.value)


def proposals(message: str) -> list[tuple[float, str, tuple[str, ...]]]:
    """Figure, what is given up, and the edits of every change that a message proposes."""
    found: list[tuple[float, str, list[str]]] = []
    for line in message.splitlines():
        change = CHANGE.match(line)
        if change:
            edits = [change[3]] if change[3] else []
            found.append((float(change[1].replace(",", "")), change[2], edits))
        elif found and EDIT.match(line):
            found[-1][2].append(line)
    return [(usd, gives_up, tuple(edits)) for usd, gives_up, edits in found]


@pytest.mark.parametrize(
    ("stack", "budget"),
    [
        ("prod", {"monthlyUsd": 2300}),
        ("prod", {"monthlyUsd": 1600}),
        ("prod", {"monthlyUsd": 1320}),
        ("prod", {"monthlyUsd": 3000, "compare": "high"}),
        ("dev", {"monthlyUsd": 430}),
    ],
)
def test_what_is_proposed_fits_when_it_is_written_into_the_stack_file(stack: str, budget: dict[str, Any]) -> None:
    found = proposals(refusal(stack, budget))
    assert 1 <= len(found) <= 3
    for usd, gives_up, edits in found:
        if gives_up == "the small model's speed":
            # All requests on one tier: that line says so in words.
            continue
        total = planned(stack, budget, edits).forecast.total
        figure = total.high if budget.get("compare") == "high" else total.expected
        assert figure <= budget["monthlyUsd"]
        assert figure == pytest.approx(usd, abs=0.51)


def test_fewer_hours_come_before_fewer_replicas_and_those_before_anything_that_users_notice() -> None:
    given_up = [gives_up for _, gives_up, _ in proposals(refusal("prod", {"monthlyUsd": 2270}))]
    assert given_up[:2] == [
        "replicas outside working hours (the first answer waits for a start)",
        "the second replica (an interruption is an outage of one start)",
    ]
    assert given_up[2] in {"fast answers", "some quality", "the small model's speed", "the region"}


def test_a_change_that_nobody_misses_comes_first() -> None:
    disaggregation_off = "frugal-llm:tiers[1].disaggregation.enabled: false"
    assert proposals(refusal("staging", {"monthlyUsd": 2000}))[0][1:] == ("nothing", (disaggregation_off,))
    spot = proposals(refusal("prod", {"monthlyUsd": 5000}, capacity={"spot": False}))[0]
    assert spot[2] == ("frugal-llm:capacity.spot: true",)


def test_a_smaller_checkpoint_is_proposed_where_a_large_one_was_asked_for() -> None:
    _, values = config("prod")
    whole = [{**tier, "quantization": "fp16"} for tier in values["tiers"]]
    first = proposals(refusal("prod", {"monthlyUsd": 4000}, tiers=whole))[0]
    assert first[2] == ("frugal-llm:tiers[1].quantization: auto",)


def test_a_little_more_loss_of_quality_is_proposed_where_that_is_what_it_takes() -> None:
    _, values = config("prod")
    exact = [{**tier, "maxQualityLossPercent": 0, "minReplicas": 1} for tier in values["tiers"]]
    edits = [edits for _, _, edits in proposals(refusal("prod", {"monthlyUsd": 1400}, tiers=exact))]
    assert any(len(lines) == 1 and ".maxQualityLossPercent: " in lines[0] for lines in edits)


def test_the_nearest_latency_target_that_fits_is_proposed_and_one_a_little_nearer_does_not_fit() -> None:
    _, values = config("prod")
    strict = [{**tier, "slo": {"ttftMs": 1000, "tpotMs": 50}} for tier in values["tiers"]]
    budget = {"monthlyUsd": 4000}
    found = proposals(refusal("prod", budget, tiers=strict))
    (edits,) = [edits for _, gives_up, edits in found if gives_up == "fast answers"]
    nearer = tuple(re.sub(r"Ms: ([\d.]+)", lambda figure: f"Ms: {0.96 * float(figure[1]):.1f}", line) for line in edits)
    assert planned("prod", budget, edits, tiers=strict).forecast.total.expected <= 4000
    assert "over it" in refusal_of_edits("prod", budget, nearer, tiers=strict)


def refusal_of_edits(stack: str, budget: dict[str, Any], edits: tuple[str, ...], **changes: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        planned(stack, budget, edits, **changes)
    return str(raised.value)


def test_where_no_single_change_fits_a_combination_without_needless_parts_does() -> None:
    budget = {"monthlyUsd": 1320}
    ((_, _, edits),) = proposals(refusal("prod", budget))
    assert len(edits) > 1
    for left_out in edits:
        fewer = tuple(line for line in edits if line != left_out)
        assert "over it" in refusal_of_edits("prod", budget, fewer)


def test_a_budget_below_the_fixed_costs_is_answered_with_them_and_with_the_smallest_bill() -> None:
    message = refusal("prod", {"monthlyUsd": 300})
    items = [item for item in planned("prod", {}).forecast.items if item.category == "fixed"]
    assert f"fixed costs alone, without a single model node, are {sum(item.usd for item in items):,.0f} USD" in message
    # 730 hours at 0.10 USD (EKS), and of three NAT gateways at 0.045.
    for item in ("EKS control plane 73.00", "NAT gateways 98.55"):
        assert item in message
    ((usd, _, edits),) = proposals(message)
    assert "nothing that was tried fits; the smallest bill found:" in message
    assert planned("prod", {}, edits).forecast.total.expected == pytest.approx(usd, abs=0.51)


def test_a_warned_budget_says_the_same_line_by_line_and_plans() -> None:
    plan = planned("prod", {"monthlyUsd": 2300, "whenExceeded": "warn"})
    (warning,) = [warning for warning in plan.warnings if warning.startswith("over budget")]
    assert "tiers[1].minReplicas: 1" in warning
    message = refusal("prod", {"monthlyUsd": 2300})
    assert warning.removeprefix("over budget: ") in message


def test_a_budget_that_just_fits_is_not_exceeded() -> None:
    expected = planned("prod", {}).forecast.total.expected
    planned("prod", {"monthlyUsd": expected})
    assert "0 over it" in refusal("prod", {"monthlyUsd": expected - 0.01})


def test_a_variant_costs_what_its_own_plan_says() -> None:
    for stack in ("dev", "prod"):
        region, values = config(stack)
        settings = read(region, values).settings
        assert settings is not None
        month = stack_variants().month(settings, ranged=True)
        total = plan_config(region, values)[1].forecast.total
        assert month is not None
        assert month.total is not None
        assert (month.usd, month.figure) == pytest.approx((total.expected, total.high))


def test_the_search_ends_after_so_many_plans_however_many_tiers_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from planning import stack, variants

    made: list[variants.Variants] = []

    def counted(*given: Any) -> variants.Variants:
        made.append(stack_variants(*given))
        return made[-1]

    monkeypatch.setattr(stack, "stack_variants", counted)
    _, values = config("prod")
    many = [{**values["tiers"][0], "name": f"tier-{number}"} for number in range(30)]
    assert "projected at" in refusal("prod", {"monthlyUsd": 100}, tiers=many, routing={})
    (searched,) = made
    # 130 for single changes, as many for combinations, and the last variants begun may replan every tier.
    assert searched.work <= 2 * (130 + 30)
