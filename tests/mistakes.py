"""Deliberate mistakes in a stack file and in the program's own objects, and where each is caught.

Each is one change to the staging stack's file or to one object that it emits, and what the tier of tests that catches
it says. The tests make every mistake and look; `docs/mistakes.md` is written from this list.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

STACK: Final = "staging"
"""It has everything that a stack can have."""


class Tier(Enum):
    """Who catches a mistake; the value is what a table calls it."""

    PLAN = "the plan (`make preview`, `python -m planning plan`)"
    SCHEMA = "schemas (`make test`)"
    CHART = "chart defaults (`make test`)"
    PROMTOOL = "promtool (`make test-cluster`)"
    API_SERVER = "API server (`make test-cluster`)"
    POD_SECURITY = "Pod Security (`make test-cluster`)"
    KEDA_WEBHOOK = "KEDA's webhook (`make test-cluster`)"
    KEDA_OPERATOR = "KEDA's operator (`make test-cluster`)"


Step = str | int
Path = tuple[Step, ...]

REMOVED: Final = object()


@dataclass(frozen=True, slots=True)
class Mistake:
    """One change to one object: what stands at ``path`` becomes ``value``, or is removed."""

    what: str
    kind: str
    """Of the object, or ``Release``, or ``STACK_FILE``."""
    name: str
    path: Path
    value: Any
    caught_by: Tier
    says: str
    """A regular expression that the complaint matches."""
    in_place: bool = False
    """It is a change to an object that exists; else it is made in one of another name, where everything may be new."""

    def is_said_in(self, text: str) -> bool:
        """Say whether a complaint is this mistake's."""
        return re.search(self.says, text) is not None

    def made_in(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Give the object with the mistake."""
        wrong = copy.deepcopy(dict(manifest))
        *steps, last = self.path
        place: Any = wrong
        for step in steps:
            place = place[step]
        if self.value is REMOVED:
            del place[last]
        elif isinstance(place, list) and last == len(place):
            place.append(self.value)
        else:
            place[last] = self.value
        return wrong

    def made_apart_from(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Give the object with the mistake under a name of its own, unless it is a change to one that exists."""
        wrong = self.made_in(manifest)
        if not self.in_place and wrong["metadata"]["name"] == manifest["metadata"]["name"]:
            wrong["metadata"]["name"] += "-wrong"
        return wrong

    def chosen_from(self, manifests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Find the object among a stack's. Raises ``LookupError`` when it is not there."""
        for one in manifests:
            if one["kind"] == self.kind and one["metadata"]["name"].startswith(self.name):
                return dict(one)
        raise LookupError(f"the stack emits no {self.kind} {self.name}")


_POD: Final[Path] = ("spec", "template", "spec")
_CONTAINER: Final[Path] = (*_POD, "containers", 0)
_RESOURCES: Final[Path] = (*_CONTAINER, "resources")
_SECURITY: Final[Path] = (*_CONTAINER, "securityContext")
_NODES: Final[Path] = ("spec", "template", "spec")
_QUERY: Final[Path] = ("spec", "triggers", 0, "metadata")


def _engine(what: str, path: Path, value: Any, says: str, by: Tier = Tier.API_SERVER) -> Mistake:
    return Mistake(what, "Deployment", "fast-engine", path, value, by, says)


def _node_class(what: str, path: Path, value: Any, says: str) -> Mistake:
    return Mistake(what, "EC2NodeClass", "fast", path, value, Tier.API_SERVER, says)


def _node_pool(what: str, path: Path, value: Any, says: str, by: Tier = Tier.API_SERVER) -> Mistake:
    return Mistake(what, "NodePool", "fast", path, value, by, says)


def _scaled(what: str, path: Path, value: Any, says: str, by: Tier = Tier.API_SERVER) -> Mistake:
    return Mistake(what, "ScaledObject", "fast-engine", path, value, by, says)


STACK_FILE: Final = "Stack file"


def _setting(what: str, path: Path, value: Any, says: str) -> Mistake:
    section, *inner = path
    return Mistake(what, STACK_FILE, STACK, ("config", f"frugal-llm:{section}", *inner), value, Tier.PLAN, says)


def _of_tier(what: str, tier: int, setting: str, value: Any, says: str) -> Mistake:
    return _setting(what, ("tiers", tier, setting), value, says)


_FAST: Final = 0
_SPLIT: Final = 1
_BATCH: Final = 2
_REQUIREMENT: Final[Path] = (*_NODES, "requirements", 3)

MISTAKES: Final[tuple[Mistake, ...]] = (
    # What a person asks for
    _of_tier(
        "a length over the checkpoint's",
        _FAST,
        "maxModelLen",
        200_000,
        "maxModelLen is 200000: .* was trained for 131072 tokens; use at most 131072",
    ),
    _setting(
        "an API key that is no secret",
        ("apiKey",),
        "sk-canary",
        "frugal-llm:apiKey: is stored in clear; pulumi config set --secret frugal-llm:apiKey",
    ),
    _setting(
        "a Hugging Face token that is no secret",
        ("huggingFaceToken",),
        "hf_canary",
        "frugal-llm:huggingFaceToken: is stored in clear; pulumi config set --secret",
    ),
    _setting(
        "a certificate of another region",
        ("network",),
        {"certificateArn": "arn:aws:acm:eu-west-1:111122223333:certificate/0123abcd"},
        "certificateArn .*: is of eu-west-1, the stack is in us-east-1; give one of us-east-1",
    ),
    _setting(
        "working hours that never open",
        ("schedule", "workingHours", "end"),
        "0 8 * * 1-5",
        "workingHours.start is .*leaves no hour open in a week; name days of the week, and an end after the start",
    ),
    _setting(
        "working hours on a day that no month has",
        ("schedule", "workingHours", "start"),
        "0 8 30 2 *",
        "workingHours.start is .*: names a day that its months do not have, so it never comes; name days of the week",
    ),
    _setting(
        "a cooldown below the cold start",
        ("scaling",),
        {"idleCooldownMinutes": 2},
        r"idleCooldownMinutes is 2: cooldown 120 s >= cold start .*set \d+ or more, or leave it out",
    ),
    _setting(
        "a grace over 110 s with spot",
        ("scaling",),
        {"graceSeconds": 300},
        r"graceSeconds is 300: .*set 110 or less, or buy on-demand only \(capacity.spot: false\)",
    ),
    _of_tier(
        "prefill and decode apart where together is cheaper",
        _SPLIT,
        "disaggregation",
        {"enabled": True},
        "disaggregation.enabled is true: .* does not pay at this load; .*insist: true",
    ),
    _of_tier(
        "an on-demand floor above the minimum", _FAST, "onDemandFloor", 3, "onDemandFloor is 3: is above minReplicas 2"
    ),
    _of_tier(
        "a pause below the on-demand floor", _FAST, "pausedReplicas", 0, "pausedReplicas is 0: is below onDemandFloor 1"
    ),
    _of_tier(
        "a second KV store beside that of prefill and decode",
        _SPLIT,
        "kvOffloadGib",
        16,
        "kvOffloadGib is 16: prefill and decode pods have a store already; write disaggregation.kvStoreGib",
    ),
    _of_tier(
        "a store of files without a place for them",
        _SPLIT,
        "disaggregation",
        {"enabled": True, "insist": True, "sharedStore": "file"},
        "disaggregation.sharedStore is 'file': needs sharedClaim, .*; name one, or choose s3",
    ),
    _of_tier(
        "prefill and decode apart on CPUs",
        _BATCH,
        "disaggregation",
        {"enabled": True},
        "disaggregation.enabled is true: GGUF is run by llama.cpp, .*; leave disaggregation out, or choose",
    ),
    _setting(
        "no in quotes",
        ("capacity",),
        {"spot": "no"},
        "capacity.spot is 'no': must be true or false; write false, without quotes",
    ),
    _setting(
        "a whole number in quotes",
        ("budget", "monthlyUsd"),
        "6000",
        "budget.monthlyUsd is '6000': must be a number, not text; write 6000",
    ),
    # Nodes
    _node_class("a role and an instance profile", ("spec", "instanceProfile"), "nodes", "role.*instanceProfile"),
    _node_class(
        "an AMI by alias and by id", ("spec", "amiSelectorTerms", 0, "id"), "ami-0123456789abcdef0", "mutually"
    ),
    _node_class("an AMI alias without version", ("spec", "amiSelectorTerms", 0, "alias"), "al2023", "alias"),
    _node_class("an AMI alias of an unknown family", ("spec", "amiSelectorTerms", 0, "alias"), "al2025@v1", "family"),
    _node_class(
        "a volume without size", ("spec", "blockDeviceMappings", 0, "ebs", "volumeSize"), REMOVED, "snapshotID"
    ),
    _node_class("no subnets", ("spec", "subnetSelectorTerms"), [], "subnetSelectorTerms"),
    _node_class("a tag that is Karpenter's own", ("spec", "tags", "karpenter.sh/nodepool"), "fast", "tag"),
    _node_class("a hop limit of 65", ("spec", "metadataOptions", "httpPutResponseHopLimit"), 65, "64"),
    _node_class("RAID5 of local disks", ("spec", "instanceStorePolicy"), "RAID5", "RAID0"),
    _node_pool("an API version that is gone", ("apiVersion",), "karpenter.sh/v1beta1", "v1beta1", Tier.SCHEMA),
    _node_pool("a requirement on Karpenter's own label", (*_REQUIREMENT, "key"), "karpenter.sh/nodepool", "restricted"),
    _node_pool(
        "a requirement on a label that Karpenter does not know",
        (*_REQUIREMENT, "key"),
        "karpenter.k8s.aws/instance-gpu-nmae",
        "restricted",
    ),
    _node_pool("a requirement with no value", (*_REQUIREMENT, "values"), [], "must have a value"),
    _node_pool("more than a number of values", (*_REQUIREMENT, "operator"), "Gt", "single positive integer"),
    _node_pool("an expiry in days", (*_NODES, "expireAfter"), "14d", "expireAfter"),
    _node_pool("no time before an empty node goes", ("spec", "disruption", "consolidateAfter"), REMOVED, "Required"),
    _node_pool("a weight of 101", ("spec", "weight"), 101, "100"),
    _node_pool("hours without duration", ("spec", "disruption", "budgets", 0, "schedule"), "0 9 * * *", "duration"),
    _node_pool("a node class without its group", (*_NODES, "nodeClassRef", "group"), REMOVED, "group"),
    _node_pool("a taint with an unknown effect", (*_NODES, "taints", 0, "effect"), "NoScheduling", "NoSchedule"),
    # Engines
    _engine("labels that the selector does not match", ("spec", "selector", "matchLabels", "x"), "y", "selector"),
    _engine(
        "a GPU requested and not limited", (*_RESOURCES, "limits", "nvidia.com/gpu"), REMOVED, "[Ll]imit must be set"
    ),
    _engine("a GPU limited to half", (*_RESOURCES, "limits", "nvidia.com/gpu"), "500m", "integer"),
    _engine("more memory requested than allowed", (*_RESOURCES, "requests", "memory"), "99Gi", "less than or equal"),
    _engine("memory in GiB", (*_RESOURCES, "requests", "memory"), "10GiB", "quantities must match"),
    _engine("a mount of no volume", (*_CONTAINER, "volumeMounts", 0, "name"), "cash", "Not found"),
    _engine("a misspelt field", (*_POD, "nodeselector"), {"frugal-llm/pool": "fast"}, "not declared|unknown field"),
    _engine("a port of 70000", (*_CONTAINER, "ports", 0, "containerPort"), 70000, "between 1 and 65535"),
    _engine("two containers of one name", (*_POD, "containers", 1), {"name": "vllm", "image": "x:1"}, "[Dd]uplicate"),
    _engine("a grace of minus one", (*_POD, "terminationGracePeriodSeconds"), -1, "terminationGracePeriodSeconds"),
    _engine(
        "a hook that sleeps longer than the grace",
        (*_CONTAINER, "lifecycle", "preStop", "sleep", "seconds"),
        999,
        "less than terminationGracePeriodSeconds",
    ),
    _engine("a priority class that is a number", (*_POD, "priorityClassName"), 1000, "priorityClassName|string"),
    _engine(
        "neither surge nor absence in a rolling change",
        ("spec", "strategy", "rollingUpdate", "maxSurge"),
        0,
        "may not be 0",
    ),
    _engine("spread by an empty key", (*_POD, "topologySpreadConstraints", 0, "topologyKey"), "", "[Rr]equired"),
    # What pods may do
    _engine(
        "more privileges than it started with",
        (*_SECURITY, "allowPrivilegeEscalation"),
        True,
        "allowPriv",
        Tier.POD_SECURITY,
    ),
    _engine("all capabilities kept", (*_SECURITY, "capabilities"), REMOVED, "capabilities", Tier.POD_SECURITY),
    _engine("root allowed", (*_POD, "securityContext", "runAsNonRoot"), False, "runAsNonRoot", Tier.POD_SECURITY),
    _engine("the user root", (*_POD, "securityContext", "runAsUser"), 0, "runAsUser", Tier.POD_SECURITY),
    _engine("no seccomp profile", (*_POD, "securityContext", "seccompProfile"), REMOVED, "seccomp", Tier.POD_SECURITY),
    _engine("the node's network", (*_POD, "hostNetwork"), True, "host namespaces|hostNetwork", Tier.POD_SECURITY),
    _engine(
        "a directory of the node",
        (*_POD, "volumes", 0),
        {"name": "cache", "hostPath": {"path": "/"}},
        "hostPath|restricted volume",
        Tier.POD_SECURITY,
    ),
    Mistake(
        "a privileged router",
        "Deployment",
        "fast-router",
        (*_SECURITY, "privileged"),
        True,
        Tier.API_SERVER,
        "privileged",
    ),
    Mistake(
        "root in the job that fills the bucket",
        "Job",
        "weights-fill",
        (*_POD, "securityContext", "runAsNonRoot"),
        False,
        Tier.POD_SECURITY,
        "runAsNonRoot",
    ),
    # Around the engines
    Mistake(
        "a job that never ends",
        "Job",
        "weights-fill",
        (*_POD, "restartPolicy"),
        "Always",
        Tier.API_SERVER,
        "restartPolicy: Required value: valid values",
    ),
    Mistake(
        "a job that changes",
        "Job",
        "weights-fill",
        (*_POD, "nodeSelector"),
        {"a": "b"},
        Tier.API_SERVER,
        "field is immutable",
        in_place=True,
    ),
    Mistake(
        "a budget of both kinds",
        "PodDisruptionBudget",
        "fast-engine",
        ("spec", "minAvailable"),
        1,
        Tier.API_SERVER,
        "cannot be both set",
    ),
    Mistake(
        "no such block of addresses",
        "NetworkPolicy",
        "weights-fill",
        ("spec", "egress", 0, "to"),
        [{"ipBlock": {"cidr": "10.0.0.0/33"}}],
        Tier.API_SERVER,
        "cidr|CIDR",
    ),
    Mistake(
        "seconds in words",
        "PodMonitor",
        "fast-engine",
        ("spec", "podMetricsEndpoints", 0, "interval"),
        "15 seconds",
        Tier.API_SERVER,
        "interval",
    ),
    Mistake(
        "a service's port of 0",
        "Service",
        "fast-router",
        ("spec", "ports", 0, "port"),
        0,
        Tier.API_SERVER,
        "between 1 and 65535",
    ),
    Mistake(
        "a load balancer past the Ingress",
        "Service",
        "fast-router",
        ("spec", "type"),
        "LoadBalancer",
        Tier.API_SERVER,
        "exceeded quota: no-second-way-in",
    ),
    Mistake(
        "other rights for a binding that exists",
        "RoleBinding",
        "fast-router",
        ("roleRef", "name"),
        "admin",
        Tier.API_SERVER,
        "cannot change roleRef",
        in_place=True,
    ),
    Mistake(
        "a priority of the system's",
        "PriorityClass",
        "frugal-llm-serving",
        ("value",),
        2_000_000_000,
        Tier.API_SERVER,
        "maximum allowed value",
    ),
    Mistake(
        "another kind of disk under a class that exists",
        "StorageClass",
        "gp3",
        ("parameters", "type"),
        "gp2",
        Tier.API_SERVER,
        "parameters: .*field is immutable",
        in_place=True,
    ),
    Mistake(
        "a path of no type",
        "Ingress",
        "frugal-llm",
        ("spec", "rules", 0, "http", "paths", 0, "pathType"),
        REMOVED,
        Tier.API_SERVER,
        "pathType",
    ),
    Mistake(
        "a relative path",
        "Ingress",
        "frugal-llm",
        ("spec", "rules", 0, "http", "paths", 0, "path"),
        "v1",
        Tier.API_SERVER,
        "absolute path",
    ),
    # Scaling
    _scaled("a number in a trigger", (*_QUERY, "threshold"), 100, "threshold|string"),
    _scaled("no trigger", ("spec", "triggers"), REMOVED, "triggers"),
    _scaled(
        "a window beyond an hour",
        ("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleDown", "stabilizationWindowSeconds"),
        7200,
        "3600",
    ),
    _scaled("a minimum above the maximum", ("spec", "minReplicaCount"), 50, "less than or equal to maxReplicaCount"),
    _scaled("a second scaler of one Deployment", ("metadata", "name"), "twice", "already managed", Tier.KEDA_WEBHOOK),
    _scaled("no address of Prometheus", (*_QUERY, "serverAddress"), REMOVED, "serverAddress", Tier.KEDA_OPERATOR),
    _scaled(
        "a trigger that does not exist", ("spec", "triggers", 0, "type"), "prometeus", "prometeus", Tier.KEDA_OPERATOR
    ),
    _scaled(
        "a Deployment that does not exist",
        ("spec", "scaleTargetRef", "name"),
        "fast-motor",
        "fast-motor",
        Tier.KEDA_OPERATOR,
    ),
    # Rules and charts
    Mistake(
        "an alert that is no PromQL",
        "PrometheusRule",
        "frugal-llm",
        ("spec", "groups", 0, "rules", 0, "expr"),
        "sum(up",
        Tier.PROMTOOL,
        "could not parse|parse error",
    ),
    Mistake(
        "a function that PromQL does not have",
        "PrometheusRule",
        "frugal-llm",
        ("spec", "groups", 0, "rules", 0, "expr"),
        "median(up)",
        Tier.PROMTOOL,
        "unknown function",
    ),
    Mistake(
        "a misspelt value of a chart",
        "Release",
        "karpenter",
        ("settings", "interuptionQueue"),
        "queue",
        Tier.CHART,
        "interuptionQueue",
    ),
    Mistake("a text where a chart wants a map", "Release", "keda", ("resources",), "small", Tier.CHART, "resources"),
    Mistake(
        "a misspelt field of a custom resource",
        "ScaledObject",
        "fast-engine",
        ("spec", "cooldownperiod"),
        300,
        Tier.SCHEMA,
        "cooldownperiod",
    ),
)
