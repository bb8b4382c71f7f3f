"""Every flag and JSON argument of every stack's vLLM, pickers and sidecars. That they start so is not proven."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ValidationError

from components.vllm_arguments import SharedStore, transfer_argument
from planning.facts.vllm_flags import flags
from tests.harness import kubernetes_objects, record, stack_names
from tests.schemas.command_lines import PICKER_FLAGS, SIDECAR_FLAGS, complaints
from tests.schemas.vllm_json import KvTransferConfig, LoaderConfig

JSON_FLAGS: dict[str, type[BaseModel]] = {
    "--kv-transfer-config": KvTransferConfig,
    "--model-loader-extra-config": LoaderConfig,
}
STORE = SharedStore(bucket="weights-1a2b3c4", prefix="kv-cache/split", region="us-east-2")


def command_lines(container: str) -> Iterator[tuple[str, list[str]]]:
    """Give the arguments of each container of that name, by stack and Deployment."""
    for stack in stack_names():
        for one in kubernetes_objects(record(stack, preview=False), "Deployment"):
            pod = one["spec"]["template"]["spec"]
            for each in [*pod.get("initContainers", []), *pod["containers"]]:
                if each["name"] == container:
                    yield f"{stack} {one['metadata']['name']}", each["args"]


def test_pickers_are_given_flags_that_they_have_and_values_of_their_kind() -> None:
    lines = dict(command_lines("picker"))
    assert {"dev fast-router", "prod quality-router", "staging quality-router"} <= lines.keys()
    assert {name: complaints(line, PICKER_FLAGS) for name, line in lines.items()} == {name: [] for name in lines}


def test_so_are_the_sidecars_of_decode_pods() -> None:
    lines = dict(command_lines("routing-sidecar"))
    assert lines.keys() == {"staging quality-decode"}
    assert [complaints(line, SIDECAR_FLAGS) for line in lines.values()] == [[]]


def test_vllm_is_given_flags_that_it_has_and_json_that_its_parts_understand() -> None:
    lines = dict(command_lines("vllm"))
    named = ("dev fast-engine", "prod quality-engine", "staging fast-floor", "staging quality-prefill")
    assert {*named, "staging quality-decode"} <= lines.keys()
    read = set()
    for name, line in lines.items():
        given = [text.partition("=") for text in line if text.startswith("-")]
        assert {flag for flag, _, _ in given} <= flags(), name
        for flag, _, value in given:
            if value.startswith(("{", "[")):
                JSON_FLAGS[flag].model_validate_json(value)
                read.add(flag)
    assert read == JSON_FLAGS.keys()


@pytest.mark.parametrize("store", [None, STORE], ids=["memory", "bucket"])
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_every_form_of_the_transfer_argument_is_understood(
    role: Literal["prefill", "decode"], store: SharedStore | None
) -> None:
    KvTransferConfig.model_validate_json(transfer_argument(role, 24.0, store).partition("=")[2])


def transfer() -> dict[str, Any]:
    return json.loads(transfer_argument("decode", 24.0, STORE).partition("=")[2])


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("kv_load_failure_policy", "kv_load_failure_policies"),
        ('"recompute"', '"retry"'),
        ("MultiConnector", "MulticonnectorV1"),
        ('"connectors"', '"kv_connectors"'),
        ("NixlConnector", "NIXLConnector"),
        ('"kv_consumer"', '"kv_both"'),
        ("cpu_bytes_to_use", "cpu_gib_to_use"),
        ("25769803776", "24.5"),
        ("TieringOffloadingSpec", "CPUOffloadingSpec"),
        ('"secondary_tiers"', '"tiers"'),
        ('"type": "obj"', '"type": "s3"'),
        ('"scheme": "https"', '"scheme": "http"'),
        ("https://s3.us-east-2", "s3.us-east-2"),
        ('"prefix": "kv-cache/split"', '"prefix": "/kv-cache/split/"'),
        ('"bucket"', '"bucket_name"'),
        ('"region": "us-east-2"', '"region": ""'),
    ],
)
def test_a_name_or_value_that_vllm_does_not_know_is_refused(right: str, wrong: str) -> None:
    text = json.dumps(transfer())
    KvTransferConfig.model_validate_json(text)
    assert right in text
    with pytest.raises(ValidationError):
        KvTransferConfig.model_validate_json(text.replace(right, wrong))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["--kv-conector=nixlv2"], "no such flag"),
        (["--kv-connector=nixl"], "not nixlv2"),
        (["--secure-proxy=no"], "not true"),
        (["--port", "8000"], "not written as"),
        (["--port=8000", "--port=8001"], "stands twice"),
        (["--vllm-port=8200"], "no such flag"),
    ],
)
def test_a_command_line_that_the_sidecar_would_end_at_is_complained_of(line: list[str], told: str) -> None:
    assert [one for one in complaints(line, SIDECAR_FLAGS) if told in one]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("--endpoint-selectors=llm-d.ai/tier=fast", "no such flag"),
        ("--endpoint-selector=fast", "not "),
        ("--endpoint-target-ports=http", "not "),
        ("--drain-timeout=0", "not "),
        ("--total-queued-requests-metric=x", "no such flag"),
        ("--zap-encoder=text", "not json"),
        ("--v=high", "not "),
    ],
)
def test_and_so_is_one_that_the_picker_would(text: str, told: str) -> None:
    assert [one for one in complaints([text], PICKER_FLAGS) if told in one]
