"""The picker's file of every tier and vLLM's KV transfer of every role and store, against strict models of our own.

Not proven: that the pinned picker and vLLM still have these fields, and that they do what their names say.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, Literal

import pytest
import yaml
from pydantic import ValidationError

from components.router_config import picker_config
from components.vllm_arguments import SharedStore, transfer_argument
from planning.plan import TierPlan
from planning.stack import plan_config
from planning.stackfile import read_stack
from tests.components.plans import FAST, SPLIT, TIERS
from tests.harness import ROOT
from tests.schemas.serving_configuration import PickerConfiguration, TransferConfiguration

BUCKET = SharedStore(bucket="weights-1a2b3c4", prefix="kv-cache/split", region="us-east-2")
Store = SharedStore | Literal["file"] | None


def planned(stack: str) -> tuple[TierPlan, ...]:
    read = read_stack(ROOT / f"Pulumi.{stack}.yaml")
    return plan_config(read.region, read.values, read.encrypted)[1].tiers


def picker(tier: TierPlan) -> dict[str, Any]:
    return yaml.safe_load(picker_config(tier))


def transfer(store: Store = None) -> dict[str, Any]:
    return json.loads(transfer_argument("decode", 64.0, store).partition("=")[2])


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_every_kind_of_picker_configuration_is_parsed(tier: TierPlan) -> None:
    PickerConfiguration.model_validate(picker(tier))


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_the_pickers_of_the_stacks_are_parsed(stack: str) -> None:
    for tier in planned(stack):
        PickerConfiguration.model_validate(picker(tier))


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("store", [None, "file", BUCKET], ids=["memory", "files", "bucket"])
def test_every_kv_transfer_is_parsed(role: Literal["prefill", "decode"], store: Store) -> None:
    TransferConfiguration.model_validate_json(transfer_argument(role, 24.5, store).partition("=")[2])


def _set(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        *steps, last = path
        place: Any = config
        for step in steps:
            place = place[step]
        place[last] = to

    return change


#: Those that llm-d-router ebab687 was seen to refuse when it was run are marked.
PICKER_MISTAKES: dict[str, tuple[TierPlan, Callable[[dict[str, Any]], None]]] = {
    "a misspelt time-out (seen)": (FAST, _set("flowControl", "noEndpointsRequestTTL", to="900s")),
    "a plugin that does not exist (seen)": (FAST, _set("plugins", 4, "type", to="max-score-pickerr")),
    "a gate that does not exist (seen)": (FAST, _set("featureGates", to=["flowControls"])),
    "a quantity in GiB (seen)": (FAST, _set("flowControl", "maxBytes", to="2GiB")),
    "a time-out without unit (seen)": (FAST, _set("flowControl", "defaultRequestTTL", to=15)),
    "a misspelt weight (seen)": (FAST, _set("schedulingProfiles", 0, "plugins", 0, "wieght", to=2)),
    "a misspelt parameter (seen)": (FAST, _set("plugins", -1, "parameters", "kvCacheThreshold", to=0.9)),
    "no gate, and so no queue": (FAST, _set("featureGates", to=[])),
    "a detector that is not declared": (FAST, _set("flowControl", "saturationDetector", "pluginRef", to="other")),
    "a decider after its handler": (SPLIT, lambda config: config["plugins"].insert(0, config["plugins"].pop(7))),
    "a decider's misspelt parameter": (SPLIT, _set("plugins", 6, "parameters", "nonCachedToken", to=256)),
    "a profile of a filter that is not there": (
        SPLIT,
        _set("schedulingProfiles", 0, "plugins", 0, "pluginRef", to="x"),
    ),
}


@pytest.mark.parametrize("mistake", PICKER_MISTAKES)
def test_a_mistake_in_the_pickers_file_is_refused(mistake: str) -> None:
    tier, change = PICKER_MISTAKES[mistake]
    config = picker(tier)
    right = copy.deepcopy(config)
    change(config)
    assert config != right
    PickerConfiguration.model_validate(right)
    with pytest.raises(ValidationError):
        PickerConfiguration.model_validate(config)


_EXTRA = "kv_connector_extra_config"
_STORE = (_EXTRA, "connectors", 1, _EXTRA)
_TIER = (*_STORE, "secondary_tiers", 0)
TRANSFER_MISTAKES: dict[str, tuple[Store, Callable[[dict[str, Any]], None]]] = {
    "a failed load fails the request": (None, _set("kv_load_failure_policy", to="fail")),
    "a misspelt policy": (None, _set("kv_load_fail_policy", to="recompute")),
    "a connector that does not exist": (None, _set(_EXTRA, "connectors", 0, "kv_connector", to="NixelConnector")),
    "NIXL in the role that it deprecates": (None, _set(_EXTRA, "connectors", 0, "kv_role", to="kv_both")),
    "a store in GiB": (None, _set(*_STORE, "cpu_bytes_to_use", to="64GiB")),
    "a store of nothing": (None, _set(*_STORE, "cpu_bytes_to_use", to=0)),
    "a level behind a store that knows none": (BUCKET, _set(*_STORE, "spec_name", to="CPUOffloadingSpec")),
    "a bucket over plain HTTP": (BUCKET, _set(*_TIER, "store_config", "scheme", to="http")),
    "a misspelt bucket": (BUCKET, _set(*_TIER, "store_config", "bucket_name", to="x")),
    "files at a relative path": ("file", _set(*_TIER, "root_dir", to="kv-cache")),
    "a level of an unknown type": ("file", _set(*_TIER, "type", to="nfs")),
}


@pytest.mark.parametrize("mistake", TRANSFER_MISTAKES)
def test_a_mistake_in_the_kv_transfer_is_refused(mistake: str) -> None:
    store, change = TRANSFER_MISTAKES[mistake]
    config = transfer(store)
    change(config)
    with pytest.raises(ValidationError):
        TransferConfiguration.model_validate_json(json.dumps(config))
