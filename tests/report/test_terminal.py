"""The report in the terminal: within 100 columns, with nothing cut off."""

import re
from dataclasses import replace

import pytest

from planning.plan import Plan, TierPlan
from planning.report.claims import claims
from planning.report.terminal import WIDTH, report
from tests.planning.test_stack import planned


def with_names(plan: Plan, names: list[str]) -> Plan:
    """A plan with as many tiers as names, each the plan's first one under another name."""
    tier, cost = plan.tiers[0], plan.forecast.tiers[0]
    items = [item for item in plan.forecast.items if item.tier == tier.name]
    fixed = [item for item in plan.forecast.items if item.tier is None]
    all_items = tuple(replace(item, tier=name, name=f"{name}: nodes") for name in names for item in items)
    total = sum(item.usd for item in (*all_items, *fixed))
    forecast = replace(
        plan.forecast,
        items=(*all_items, *fixed),
        tiers=tuple(replace(cost, tier=name) for name in names),
        total=replace(plan.forecast.total, expected=total),
    )
    tiers: tuple[TierPlan, ...] = tuple(replace(tier, name=name) for name in names)
    return replace(plan, tiers=tiers, forecast=forecast)


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_no_line_is_too_wide_and_nothing_is_cut_off(stack: str) -> None:
    plan = planned(stack)
    text = report(plan, stack, color=False)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    assert "\x1b" not in text
    bill = text[text.index("\nBill\n") : text.index("\nSavings")]
    words = set(bill.split())
    for item in plan.forecast.items:
        if item.usd >= 0.01:
            assert set(item.basis.split()) <= words
    assert {"compute", "fixed", "expected"} <= {line.split(" ")[0] for line in bill.splitlines()}


def test_the_region_and_the_age_of_its_prices_are_said() -> None:
    """us-east-2's NAT gateway has a price without a date; every price of us-east-1 that prod uses has one."""
    assert "Prices of us-east-2, some without a date: snapshot" in report(planned("dev"), "dev", color=False)
    assert re.search(
        r"Prices of us-east-1, the oldest of 20\d\d-\d\d-\d\d: ", report(planned("prod"), "prod", color=False)
    )


def test_twelve_tiers_with_the_longest_names_stay_within_100_columns() -> None:
    names = [f"customer-support-assistant-{number:03}" for number in range(12)]
    assert {len(name) for name in names} == {30}
    text = report(with_names(planned("prod"), names), "prod", color=False)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    for name in names:
        assert f"{name}: nodes" in text


def test_the_printed_bill_adds_up_to_the_cent() -> None:
    text = report(planned("staging"), "staging", color=False)
    bill = text[text.index("\nBill\n") : text.index("\nSavings")].splitlines()
    amounts = [
        (match[1].strip(), round(100 * float(match[2].replace(",", ""))))
        for line in bill
        if (match := re.match(r"(\S.*?)?\s+\$([\d,]+\.\d\d)(\s|$)", line))
    ]
    sums = {"compute": 0, "fixed": 0}
    group = "compute"
    for name, cents in amounts:
        if name == "expected":
            assert cents == sums["compute"] + sums["fixed"]
        elif name in sums:
            assert cents == sums[name]
            group = "fixed"
        else:
            sums[group] += cents
    assert len(amounts) > 10


def test_each_claim_of_the_article_stands_beside_ours_with_a_reason() -> None:
    """The article: 60, 80, 90 and 93 % after its four steps, 70 % for a dev stack's hours."""
    plan = planned("prod")
    found = claims(plan)
    assert [claim.quoted_percent for claim in found] == [60, 80, 90, 93, 70]
    for claim, step in zip(found, plan.forecast.savings, strict=False):
        if claim.name.startswith("after "):
            assert claim.name == f"after {step.lever}"
            assert claim.ours_percent == step.cumulative_percent
        assert len(claim.why) > 20
    assert found[-1].ours_percent == 0
    assert "fast keeps 2" in found[-1].why


def test_the_articles_routing_table_stands_beside_tiers_of_its_sizes_only() -> None:
    costs = {cost.tier: cost.article_usd_per_million_tokens for cost in planned("dev").forecast.tiers}
    assert costs == {"fast": 0.05, "quality": None, "batch": 0.05}
    assert [cost.article_usd_per_million_tokens for cost in planned("prod").forecast.tiers] == [0.05, 0.40]
