"""The namespace of everything that serves. What the API server makes of its labels is not proven here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pytest

from components.serving_namespace import ServingNamespace, ServingNamespaceArgs
from tests.components.serving import object_of, refusals
from tests.harness import Recording, component_under_test, is_secret, kubernetes_objects


def recording(hugging_face_token: str | None, api_key: str | None) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> Mapping[str, Any]:
        args = ServingNamespaceArgs(kubernetes_version="1.36", hugging_face_token=hugging_face_token, api_key=api_key)
        made = ServingNamespace("serving", args, opts)
        return {"namespace": made.namespace, "token": made.has_hugging_face_token, "key": made.has_api_key}

    return component_under_test(factory)


@pytest.fixture(scope="module")
def full() -> Recording:
    return recording("hf_secret", "sk-secret")


def test_every_pod_must_meet_the_strictest_standard_and_routers_wait_for_the_load_balancer(full: Recording) -> None:
    assert object_of(full, "Namespace", "llm")["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "v1.36",
        "pod-security.kubernetes.io/audit": "restricted",
        "pod-security.kubernetes.io/audit-version": "v1.36",
        "pod-security.kubernetes.io/warn": "restricted",
        "pod-security.kubernetes.io/warn-version": "v1.36",
        "elbv2.k8s.aws/pod-readiness-gate-inject": "enabled",
    }


def test_kubernetes_accepts_every_object(full: Recording) -> None:
    assert refusals(full) == []


def test_secrets_stay_encrypted_in_the_state_even_when_given_as_plain_text(full: Recording) -> None:
    for name, key, value in (
        ("serving-hugging-face", "token", "hf_secret"),
        ("serving-api-key", "key", "sk-secret"),
    ):
        secret = full.named(name)
        assert secret.inputs["stringData"] == {key: value}
        assert is_secret(secret, "stringData", key)


def test_secrets_have_the_names_that_pods_ask_for(full: Recording) -> None:
    assert [one["metadata"]["name"] for one in kubernetes_objects(full, "Secret")] == ["hugging-face-token", "api-key"]
    assert (full.outputs["token"], full.outputs["key"]) == (True, True)


def test_without_secrets_there_are_none() -> None:
    bare = recording(None, None)
    assert kubernetes_objects(bare, "Secret") == []
    assert (bare.outputs["namespace"], bare.outputs["token"], bare.outputs["key"]) == ("llm", False, False)


def test_nothing_talks_until_a_policy_allows_it_except_to_dns(full: Recording) -> None:
    deny = object_of(full, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    dns = object_of(full, "NetworkPolicy", "dns")["spec"]
    assert dns == {
        "podSelector": {},
        "policyTypes": ["Egress"],
        "egress": [
            {
                "to": [
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                    }
                ],
                "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
            }
        ],
    }


def test_serving_pods_go_before_others_but_not_before_kubernetes_itself(full: Recording) -> None:
    priority = object_of(full, "PriorityClass", "frugal-llm-serving")
    assert 0 < priority["value"] < 1_000_000_000, "a billion and more is kept for the system"
    assert not priority.get("globalDefault")
