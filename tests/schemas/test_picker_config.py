"""Every tier's picker configuration against the schema of our own, and that schema against what a picker refused.

llm-d's picker itself does not run here. It refused each of the spellings below, and took the tiers' form, when
llm-d-router ebab687 (2026-08-22) was run with them by hand; a later one may think otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from components.router_config import picker_config
from planning.plan import TierPlan
from tests.components.plans import FAST, QUALITY, SMALL, SPLIT, TIERS
from tests.harness import kubernetes_objects, record, stack_names
from tests.schemas.picker_config import picker_problems

VARIANTS = (
    *TIERS,
    replace(FAST, name="bounded", router=replace(FAST.router, max_held_requests=1, max_held_bytes_mib=1)),
    replace(SPLIT, name="slow", timeouts=replace(SPLIT.timeouts, router_queue_s=3600, router_hold_s=3600)),
)


@pytest.mark.parametrize("stack", stack_names())
def test_every_tier_of_every_stack_has_a_configuration_that_the_picker_understands(stack: str) -> None:
    recording = record(stack, preview=False)
    texts = {
        tier: next(iter(one["data"].values()))
        for one in kubernetes_objects(recording, "ConfigMap")
        for tier, found, _ in [one["metadata"]["name"].partition("-router-picker")]
        if found
    }
    assert texts.keys() == recording.outputs["plan"].keys()
    assert {tier: picker_problems(text) for tier, text in texts.items()} == {tier: [] for tier in texts}


def test_one_of_them_is_disaggregated() -> None:
    configs = [yaml.safe_load(next(iter(one["data"].values()))) for one in picker_maps("staging")]
    handlers = [plugin for config in configs for plugin in config["plugins"] if plugin["type"].startswith("disagg")]
    assert len(handlers) == 1


def picker_maps(stack: str) -> list[dict[str, Any]]:
    objects = kubernetes_objects(record(stack, preview=False), "ConfigMap")
    return [one for one in objects if "-router-picker" in one["metadata"]["name"]]


@pytest.mark.parametrize("tier", VARIANTS, ids=lambda tier: tier.name)
def test_every_kind_of_tier_has_one(tier: TierPlan) -> None:
    assert picker_problems(picker_config(tier)) == []


@pytest.mark.parametrize("tier", [QUALITY, SPLIT], ids=lambda tier: tier.name)
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("noEndpointRequestTTL:", "noEndpointsRequestTTL:"),
        ("- type: max-score-picker", "- type: max-score-pickerr"),
        ("- flowControl", "- flowControls"),
        ("maxBytes: 512Mi", "maxBytes: 2GiB"),
        ("defaultRequestTTL: 60s", "defaultRequestTTL: 15"),
        ("weight: 2", "wieght: 2"),
        ("kvCacheUtilThreshold:", "kvCacheThreshold:"),
    ],
    ids=lambda text: text.replace(" ", "").strip("-:"),
)
def test_what_made_the_picker_end_at_its_start_is_a_problem(tier: TierPlan, right: str, wrong: str) -> None:
    assert picker_problems(picker_config(tier)) == []
    assert picker_problems(edited(tier, right, wrong))


def edited(tier: TierPlan, right: str, wrong: str) -> str:
    text = picker_config(tier)
    assert right in text
    return text.replace(right, wrong)


@pytest.mark.parametrize(
    ("tier", "right", "wrong", "told"),
    [
        (FAST, "- flowControl", "- flowControl=false", "gate and section"),
        (FAST, "- flowControl", "- haPopulateNonLeaderDatastore", "gate and section"),
        (FAST, "llm-d.ai/v1alpha1", "llm-d.ai/v1", "apiVersion"),
        (FAST, "- type: prefix-cache-scorer\n", "", "prefix-cache-scorer is not declared"),
        (FAST, "- type: queue-scorer\n", "- type: queue-scorer\n" * 2, "queue-scorer is declared twice"),
        (FAST, "- type: queue-scorer\n", "- {type: queue-scorer, parameters: {weight: 2}}\n", "parameters.weight"),
        (FAST, "- type: queue-scorer\n", "- {type: queue-scorer, params: {}}\n", "params"),
        (FAST, "  - pluginRef: max-score-picker\n", "", "0 pickers"),
        (FAST, "  - pluginRef: max-score-picker\n", "  - {pluginRef: max-score-picker, weight: 1}\n", "of weight 1"),
        (FAST, "    weight: 2\n", "", "a scorer of weight None"),
        (FAST, "    pluginRef: utilization-detector", "    pluginRef: queue-scorer", "a scorer and no detector"),
        (FAST, "maxRequests: '1000'", "maxRequests: 1,000", "maxRequests"),
        (FAST, "noEndpointRequestTTL: 660s", "noEndpointRequestTTL: 11 minutes", "noEndpointRequestTTL"),
        (FAST, "metricsStalenessThreshold: 2s", "metricsStalenessThreshold: 2", "metricsStalenessThreshold"),
        (FAST, "kvCacheUtilThreshold: 0.95", "kvCacheUtilThreshold: 95", "kvCacheUtilThreshold"),
        (FAST, "queueDepthThreshold: 8", "queueDepthThreshold: '8'", "queueDepthThreshold"),
        (SMALL, "injectDefaults", "injectDefault", "injectDefault"),
        (SMALL, "maxConcurrency: 2", "maxConcurrency: 0", "maxConcurrency"),
        (SPLIT, "      prefill: prefix-based-pd-decider", "      prefill: queue-scorer", "a scorer and no decider"),
        (SPLIT, "    deciders:\n      prefill: prefix-based-pd-decider\n", "    deciders: {}\n", "deciders.prefill"),
        (SPLIT, "- name: prefill", "- name: prefills", "there is no profile prefill"),
        (SPLIT, "- name: prefill", "- name: decode", "a name stands twice"),
        (SPLIT, "nonCachedTokens: 512", "nonCachedTokens: 0", "nonCachedTokens"),
        (SPLIT, "type: disagg-profile-handler", "type: single-profile-handler", "is no type of plugin"),
        (SPLIT, "  - pluginRef: prefill-filter", "  - pluginRef: utilization-detector", "is a detector"),
    ],
)
def test_what_the_picker_would_refuse_or_silently_not_do_is_a_problem(
    tier: TierPlan, right: str, wrong: str, told: str
) -> None:
    assert [one for one in picker_problems(edited(tier, right, wrong)) if told in one]


def test_a_decider_is_declared_before_what_asks_it() -> None:
    config = yaml.safe_load(picker_config(SPLIT))
    config["plugins"].reverse()
    assert picker_problems(yaml.safe_dump(config)) == [
        "disagg-profile-handler: prefix-based-pd-decider is not declared before it"
    ]
