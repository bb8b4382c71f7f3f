"""The table of `docs/changes.md` against what the program does."""

from __future__ import annotations

import pytest

from tests.change.comparison import Fate, Update
from tests.change.replacement import EKS_CLUSTER
from tests.change.test_changes import DEPLOYMENT, NODE_POOL, changed, quickly
from tests.harness import ROOT

PAGE = ROOT / "docs" / "changes.md"
ROWS = {
    "`tiers[].model`": "model",
    "`tiers[].gpus`, `capacity.excludedInstanceTypes`": "gpus",
    "`capacity.amiAlias`": "amiAlias",
    "`tiers[].name`": "name",
    "a tier added": "tier added",
    "a tier removed": "tier removed",
    "`capacity.spot`": "spot",
    "another engine (`quantization: gguf`)": "engine",
    "`tiers[].disaggregation`": "disaggregation",
    "`tiers[].pausedReplicas`": "pausedReplicas",
    "`routing.byModelField`": "model field",
}


FOR_LIFE = {
    "`cluster.roleArn`": ("roleArn", Fate.REPLACED_AFTER_DELETION, "replace the cluster, the old one first"),
    "`network.vpcCidr`, `network.vpcId`": ("vpcCidr", Fate.REFUSED, "fail half way"),
    "`cluster.secretsKeyArn`": ("secretsKeyArn", Fate.UPDATED_IN_NAME, "report an update and change nothing"),
}


def rows() -> list[list[str]]:
    lines = [line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in line] for line in lines]


def table() -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in rows() if len(row) == 5 and row[0] in ROWS}


def words(fates: set[Fate], updated: str) -> str:
    """Say in the page's words what becomes of a tier's Deployments or pools."""
    if {Fate.CREATED, Fate.DELETED} <= fates:
        return "new beside old"
    for fate, said in ((Fate.DELETED, "gone last"), (Fate.UPDATED, updated), (Fate.CREATED, "new")):
        if fate in fates:
            return said
    return "–"


def deployments(update: Update, part: str) -> set[Fate]:
    return {fate for name, fate in update.of(DEPLOYMENT).items() if f"-{part}-" in name}


@pytest.mark.parametrize("row", quickly(ROWS, "`tiers[].model`", "`tiers[].name`"))
def test_the_page_says_what_becomes_of_engines_routers_and_pools(row: str) -> None:
    engines, router, pools, seen = table()[row]
    update = changed(ROWS[row])
    assert engines == words(deployments(update, "engine"), "rolling")
    assert router == words(deployments(update, "router"), "follows")
    assert pools == words(set(update.of(NODE_POOL).values()), "in place")
    assert seen


@pytest.mark.parametrize("row", quickly(FOR_LIFE, "`cluster.secretsKeyArn`"))
def test_the_page_says_what_an_update_would_do_to_the_cluster_itself(row: str) -> None:
    change, fate, said = FOR_LIFE[row]
    assert changed(change).of(EKS_CLUSTER) == {"cluster": fate}
    (cells,) = (cells for cells in rows() if cells[0] == row)
    assert cells[1] == said
    assert cells[2], "and what follows"
