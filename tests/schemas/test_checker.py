"""The schema checker itself: it takes what an API server took, and names what it would refuse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.schemas.checker import problems

Manifest = dict[str, Any]

NODE_POOL: Manifest = {
    "apiVersion": "karpenter.sh/v1",
    "kind": "NodePool",
    "metadata": {"name": "gpu-1"},
    "spec": {
        "weight": 50,
        "limits": {"nvidia.com/gpu": "8", "cpu": 64},
        "disruption": {
            "consolidationPolicy": "WhenEmpty",
            "consolidateAfter": "5m",
            "budgets": [
                {"nodes": "1"},
                {"nodes": "0", "reasons": ["Drifted"], "schedule": "0 8 * * 1", "duration": "8h"},
            ],
        },
        "template": {
            "metadata": {"labels": {"nvidia.com/gpu.present": "true"}},
            "spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpu"},
                "taints": [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}],
                "expireAfter": "Never",
                "requirements": [
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "on-demand"]},
                    {"key": "karpenter.k8s.aws/instance-gpu-count", "operator": "In", "values": ["1"]},
                ],
            },
        },
    },
}

NODE_CLASS: Manifest = {
    "apiVersion": "karpenter.k8s.aws/v1",
    "kind": "EC2NodeClass",
    "metadata": {"name": "gpu"},
    "spec": {
        "amiSelectorTerms": [{"alias": "al2023@v20260903"}],
        "role": "node",
        "subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": "cluster"}}],
        "securityGroupSelectorTerms": [{"tags": {"karpenter.sh/discovery": "cluster"}}],
        "instanceStorePolicy": "RAID0",
        "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 1},
        "blockDeviceMappings": [
            {"deviceName": "/dev/xvda", "ebs": {"volumeSize": "60Gi", "volumeType": "gp3", "encrypted": True}}
        ],
    },
}

SCALED_OBJECT: Manifest = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "ScaledObject",
    "metadata": {"name": "fast", "namespace": "llm"},
    "spec": {
        "scaleTargetRef": {"name": "fast-engine"},
        "pollingInterval": 5,
        "minReplicaCount": 0,
        "maxReplicaCount": 4,
        "fallback": {"failureThreshold": 3, "replicas": 1, "behavior": "currentReplicas"},
        "advanced": {
            "restoreToOriginalReplicaCount": False,
            "horizontalPodAutoscalerConfig": {"behavior": {"scaleUp": {"stabilizationWindowSeconds": 60}}},
        },
        "triggers": [
            {
                "type": "prometheus",
                "name": "queue",
                "metricType": "AverageValue",
                "metadata": {"serverAddress": "http://prometheus:9090", "query": "vector(0)", "threshold": "8"},
            }
        ],
    },
}

SERVICE_MONITOR: Manifest = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "ServiceMonitor",
    "metadata": {"name": "router", "namespace": "llm", "labels": {"release": "prometheus"}},
    "spec": {
        "selector": {"matchLabels": {"app.kubernetes.io/name": "router"}},
        "endpoints": [
            {
                "port": "metrics",
                "interval": "5s",
                "relabelings": [{"action": "replace", "targetLabel": "tier", "replacement": "fast"}],
            }
        ],
    },
}

POD_MONITOR: Manifest = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PodMonitor",
    "metadata": {"name": "engines"},
    "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "podMetricsEndpoints": [{"portNumber": 8000, "path": "/metrics"}],
    },
}

PROMETHEUS_RULE: Manifest = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PrometheusRule",
    "metadata": {"name": "rules"},
    "spec": {
        "groups": [
            {"name": "g", "rules": [{"alert": "A", "expr": "up == 0", "for": "5m", "labels": {"severity": "x"}}]}
        ]
    },
}

DEPLOYMENT: Manifest = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "router", "namespace": "llm"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "router"}},
        "template": {
            "metadata": {"labels": {"app": "router"}},
            "spec": {
                "containers": [
                    {
                        "name": "picker",
                        "image": "example/picker:1",
                        "ports": [{"containerPort": 9090}],
                        "resources": {"requests": {"cpu": "300m", "memory": "512Mi"}},
                        "lifecycle": {"preStop": {"sleep": {"seconds": 15}}},
                    }
                ]
            },
        },
    },
}

INGRESS: Manifest = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "Ingress",
    "metadata": {"name": "in"},
    "spec": {
        "ingressClassName": "alb",
        "rules": [
            {
                "http": {
                    "paths": [
                        {
                            "path": "/v1",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": "router", "port": {"name": "use-annotation"}}},
                        }
                    ]
                }
            }
        ],
    },
}

GOOD = (
    NODE_POOL,
    NODE_CLASS,
    SCALED_OBJECT,
    SERVICE_MONITOR,
    POD_MONITOR,
    PROMETHEUS_RULE,
    DEPLOYMENT,
    INGRESS,
)


@pytest.mark.parametrize("manifest", GOOD, ids=lambda manifest: manifest["kind"])
def test_a_manifest_of_the_kind_that_an_api_server_took_has_no_problem(manifest: Manifest) -> None:
    assert problems(manifest) == []


def changed(manifest: Manifest, change: Callable[[Manifest], object]) -> Manifest:
    """Give a copy of a manifest with a change made to its spec, or to all of it."""
    one = copy.deepcopy(manifest)
    change(one)
    return one


MISTAKES: dict[str, tuple[Manifest, Callable[[Manifest], object], str]] = {
    "a NodePool of the beta API": (
        NODE_POOL,
        lambda one: one.update(apiVersion="karpenter.sh/v1beta1"),
        "not served as 'karpenter.sh/v1beta1', only as karpenter.sh/v1",
    ),
    "an unknown field": (
        NODE_POOL,
        lambda one: one["spec"].update(wieght=50),
        "'wieght' was unexpected",
    ),
    "an unknown field deep inside": (
        NODE_POOL,
        lambda one: one["spec"]["template"]["spec"]["nodeClassRef"].update(apiVersion="v1"),
        "spec.template.spec.nodeClassRef: Additional properties",
    ),
    "a wrong type": (
        NODE_POOL,
        lambda one: one["spec"].update(weight="50"),
        "spec.weight: '50' is not of type 'integer'",
    ),
    "a missing field": (
        NODE_POOL,
        lambda one: one["spec"]["disruption"].pop("consolidateAfter"),
        "'consolidateAfter' is a required property",
    ),
    "a number out of range": (
        NODE_POOL,
        lambda one: one["spec"].update(weight=101),
        "101 is greater than the maximum of 100",
    ),
    "a word out of a list": (
        NODE_POOL,
        lambda one: one["spec"]["disruption"].update(consolidationPolicy="WhenIdle"),
        "'WhenIdle' is not one of",
    ),
    "a text that does not match": (
        NODE_POOL,
        lambda one: one["spec"]["disruption"].update(consolidateAfter="5 minutes"),
        "'5 minutes' does not match",
    ),
    "an operator that does not exist": (
        NODE_POOL,
        lambda one: one["spec"]["template"]["spec"]["requirements"][0].update(operator="OneOf"),
        "'OneOf' is not one of",
    ),
    "a trigger's number that is no text": (
        SCALED_OBJECT,
        lambda one: one["spec"]["triggers"][0]["metadata"].update(threshold=8),
        "8 is not of type 'string'",
    ),
    "a ScaledObject that scales nothing": (
        SCALED_OBJECT,
        lambda one: one["spec"].pop("scaleTargetRef"),
        "'scaleTargetRef' is a required property",
    ),
    "a fallback behaviour that does not exist": (
        SCALED_OBJECT,
        lambda one: one["spec"]["fallback"].update(behavior="keep"),
        "'keep' is not one of",
    ),
    "an interval in words": (
        SERVICE_MONITOR,
        lambda one: one["spec"]["endpoints"][0].update(interval="5 seconds"),
        "'5 seconds' does not match",
    ),
    "a rule group without a name": (
        PROMETHEUS_RULE,
        lambda one: one["spec"]["groups"][0].pop("name"),
        "'name' is a required property",
    ),
    "a volume size without a unit of Kubernetes": (
        NODE_CLASS,
        lambda one: one["spec"]["blockDeviceMappings"][0]["ebs"].update(volumeType="gp4"),
        "'gp4' is not one of",
    ),
    "an unknown field of a built-in kind": (
        DEPLOYMENT,
        lambda one: one["spec"]["template"]["spec"].update(terminationGracePeriod=30),
        "'terminationGracePeriod' was unexpected",
    ),
    "a wrong type in a built-in kind": (
        DEPLOYMENT,
        lambda one: one["spec"].update(replicas="one"),
        "'one' is not of type 'integer'",
    ),
    "a missing field of a built-in kind": (
        DEPLOYMENT,
        lambda one: one["spec"].pop("selector"),
        "'selector' is a required property",
    ),
    "an Ingress path without a type": (
        INGRESS,
        lambda one: one["spec"]["rules"][0]["http"]["paths"][0].pop("pathType"),
        "'pathType' is a required property",
    ),
    "a removed API version": (
        INGRESS,
        lambda one: one.update(apiVersion="extensions/v1beta1"),
        "is no kind of Kubernetes",
    ),
    "a kind that nobody knows": (
        INGRESS,
        lambda one: one.update(kind="Ingres"),
        "is no kind of Kubernetes",
    ),
    "a custom object without a name": (
        SCALED_OBJECT,
        lambda one: one.pop("metadata"),
        "metadata.name: is missing",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_place(mistake: str) -> None:
    manifest, change, complaint = MISTAKES[mistake]
    found = problems(changed(manifest, change))
    assert any(complaint in one for one in found), found


def test_every_mistake_of_a_manifest_is_named() -> None:
    twice = changed(NODE_POOL, lambda one: one["spec"].update(weight="50", wieght=1))
    assert len(problems(twice)) == 2


@pytest.mark.parametrize("placeholder", ["<known after pulumi up>", "${network-vpc.id}", "[secret]"])
def test_a_value_that_is_not_known_yet_passes_for_any_type(placeholder: str) -> None:
    assert problems(changed(NODE_POOL, lambda one: one["spec"].update(weight=placeholder, limits=placeholder))) == []
    assert problems(changed(DEPLOYMENT, lambda one: one["spec"].update(replicas=placeholder))) == []
    assert problems(changed(SCALED_OBJECT, lambda one: one["spec"]["triggers"][0].update(metadata=placeholder))) == []
    quantity = changed(NODE_POOL, lambda one: one["spec"]["limits"].update({"nvidia.com/gpu": placeholder}))
    assert problems(quantity) == [], "a quantity is a number or a text of a pattern"


def test_a_quantity_may_be_a_number_or_a_text() -> None:
    for quantity in ("8", 8, "64Gi", "1500m"):
        assert problems(changed(NODE_POOL, lambda one, q=quantity: one["spec"]["limits"].update(cpu=q))) == []
    for nonsense in ("eight", {"cpu": 8}):
        assert problems(changed(NODE_POOL, lambda one, q=nonsense: one["spec"]["limits"].update(cpu=q)))
