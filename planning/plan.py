"""The frozen plan that the components are built from: every decision, none of the arithmetic behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from planning.facts.node_images import NodeImage

Engine = Literal["vllm", "llama.cpp"]
CapacityType = Literal["spot", "on-demand"]
CpuArchitecture = Literal["amd64", "arm64"]


@dataclass(frozen=True, slots=True)
class CheckpointChoice:
    """The weights a tier serves."""

    repository: str
    """Hugging Face repository, as it exists."""
    method: str
    """``fp16``, ``fp8``, ``int8``, ``gptq``, ``awq``, ``w4a16``, ``nvfp4``, ``mxfp4`` or ``gguf-q4_k_m`` and its
    like."""
    weights_gib: float
    gated: bool
    """The repository answers only to a Hugging Face token whose owner accepted the licence."""
    quality_loss_percent: float
    """Expected, of the 16-bit model's benchmark scores, with that of the KV cache's format."""
    quality_loss_source: str


@dataclass(frozen=True, slots=True)
class VllmLimits:
    """The numbers of ``vllm serve`` that follow from memory and the latency target."""

    tensor_parallel_size: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    kv_cache_dtype: str
    """``auto`` or ``fp8``."""
    kv_offload_gib: float = 0.0
    """Host memory for KV blocks that leave the GPUs, of all ranks together; the pod's resources have it. With prefill
    and decode apart, see ``DisaggregationPlan.kv_store_gib``."""


@dataclass(frozen=True, slots=True)
class LlamaCppLimits:
    """The numbers of ``llama-server``."""

    threads: int
    parallel_slots: int
    context_tokens: int
    """Of all slots together: llama.cpp divides it among them."""


@dataclass(frozen=True, slots=True)
class PodResources:
    """What one serving pod requests; it fits every instance type of its pool."""

    cpu_cores: float
    memory_gib: float
    gpus: int
    shm_gib: float
    """Size of the memory-backed ``/dev/shm``; 0 when the engine needs none."""
    cache_gib: float
    """Ephemeral storage for compile caches and, without a streamer, weights."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Every time-out on the way of a request and of a pod, all from one planned cold start. Seconds."""

    cold_start_s: int
    """From the order of a node to the first answer."""
    startup_probe_s: int
    progress_deadline_s: int
    router_queue_s: int
    """How long the router holds a request while at least one replica is there."""
    router_hold_s: int
    """How long the router holds a request while the tier is at zero."""
    envoy_message_s: int
    alb_idle_s: int
    client_s: int
    """The least time-out a client should set."""
    polling_interval_s: int
    cooldown_s: int
    pre_stop_s: int
    shutdown_s: int
    """vLLM's ``--shutdown-timeout``."""
    grace_s: int
    """``terminationGracePeriodSeconds``; at most 110 on spot."""


@dataclass(frozen=True, slots=True)
class ReplicaRange:
    """How many replicas, all ``<tier>-floor`` replicas included."""

    minimum: int
    maximum: int
    on_demand_floor: int
    working_hours: int
    """Replicas kept during working hours."""
    paused: int | None = None
    """Replicas that the autoscaler is paused at; None: it scales."""

    @property
    def several(self) -> bool:
        """More than one may run at once: then they are spread over zones, else the one goes where it is cheapest."""
        return self.maximum > 1


@dataclass(frozen=True, slots=True)
class RouterPlan:
    """The router pod of a tier: Envoy and endpoint picker."""

    envoy_cpu_millicores: int
    envoy_memory_mib: int
    picker_cpu_millicores: int
    picker_memory_mib: int
    max_held_requests: int
    max_held_bytes_mib: int
    queue_depth_threshold: int
    """Waiting requests at which a replica counts as full."""


@dataclass(frozen=True, slots=True)
class ModelRouterTimeouts:
    """Time-outs of the Envoys that route by model, from those of all tiers behind them. Seconds."""

    idle_s: int
    """Silence after which a request is given up."""
    connection_s: int
    """How long a connection to a tier's router takes new requests."""
    keepalive_idle_s: int
    """Silence after which such a connection is probed, seconds between the probes, and how many fail before it ends."""
    keepalive_interval_s: int
    keepalive_probes: int
    drain_s: int
    """How long one that is to end goes on, before Envoy hears of it."""
    grace_s: int

    @property
    def lost_router_s(self) -> int:
        """How long a request waits for a router whose node is lost."""
        return self.keepalive_idle_s + self.keepalive_interval_s * self.keepalive_probes


@dataclass(frozen=True, slots=True)
class ModelRouterPlan:
    """The Envoys that find a request's tier by the ``model`` field of its body."""

    replicas: int
    cpu_millicores: int
    """Of one replica, as is the memory."""
    memory_mib: int
    max_body_mib: int
    """Longest body they read."""
    timeouts: ModelRouterTimeouts
    tier_of_model: Mapping[str, str]
    """Which tier a value of ``model`` reaches, for every name that some tier serves."""
    default_tier: str
    """What a body without ``model`` reaches."""
    routing_header: str
    """What a longer body is told to name its tier by."""


@dataclass(frozen=True, slots=True)
class RolePlan:
    """Prefill or decode pods of a disaggregated tier."""

    role: Literal["prefill", "decode"]
    limits: VllmLimits
    replicas: ReplicaRange
    concurrency_target: float
    """Running requests of one replica that the scaler holds."""
    node_pool: str


@dataclass(frozen=True, slots=True)
class DisaggregationPlan:
    """Prefill and decode apart, with a KV store."""

    prefill: RolePlan
    decode: RolePlan
    kv_store_gib: float
    shared_store: Literal["none", "s3", "file"]
    shared_claim: str | None
    """PersistentVolumeClaim of a store of files; None for the others."""
    efa_interfaces: int
    """Elastic Fabric Adapters of each pod, which all types of the pool have; 0: TCP."""
    non_cached_tokens: int
    """Prompts with at least this many tokens outside the decode pod's cache are prefilled remotely."""
    pays: bool
    verdict: str
    """What it costs apart and together, and whether it is on because the settings insist."""


@dataclass(frozen=True, slots=True)
class ServingPoint:
    """What one replica does at the latency target. Projected."""

    ttft_ms: float
    """95th percentile."""
    tpot_ms: float
    """95th percentile."""
    requests_per_second: float
    concurrency: float
    """Mean number of running requests at that rate."""
    autoscaler_target: float
    """Running requests, on average over the load window, for each of which the autoscaler wants a replica."""
    output_tokens_per_second: float
    source: str
    """What the speed rests on, the formula or measurements, and its band."""


@dataclass(frozen=True, slots=True)
class PoolMember:
    """An instance type on which a tier's pod fits and meets its target, with its prices."""

    instance_type: str
    gpu: str | None
    spot_usd_per_hour: float | None
    """None: not known, or spot is not wanted."""
    on_demand_usd_per_hour: float


@dataclass(frozen=True, slots=True)
class TierPlan:
    """One tier, decided."""

    name: str
    model_id: str
    served_model_names: tuple[str, ...]
    """What clients may put into ``model``: the tier's name and the model's id."""
    engine: Engine
    checkpoint: CheckpointChoice
    gpu: str | None
    """GPU model that the plan is priced on; None on CPU."""
    gpus_per_replica: int
    instance_types: tuple[str, ...]
    """All types on which this very pod fits and meets the target, cheapest first."""
    vllm: VllmLimits | None
    llama_cpp: LlamaCppLimits | None
    serving: ServingPoint
    resources: PodResources
    replicas: ReplicaRange
    timeouts: Timeouts
    router: RouterPlan
    node_pool: str
    disaggregation: DisaggregationPlan | None
    scale_to_zero: bool
    ttft_target_ms: float
    tpot_target_ms: float
    offerings: tuple[PoolMember, ...] = ()
    """The instance types with their prices, in the same order."""


@dataclass(frozen=True, slots=True)
class NodePoolPlan:
    """A Karpenter NodePool; tiers with the same list share one."""

    name: str
    instance_types: tuple[str, ...]
    capacity_types: tuple[CapacityType, ...]
    cpu_architectures: tuple[CpuArchitecture, ...]
    gpu_count: int
    """GPUs of one replica and of one node; 0 for a CPU pool."""
    gpu_limit: int
    """Most GPUs at once; 0 for a CPU pool."""
    cpu_limit: int
    """Most vCPUs at once."""
    consolidate_after_s: int
    root_volume_gib: int
    root_volume_mib_per_second: int
    local_nvme: bool
    """Every type has local NVMe, which then holds images and caches."""


@dataclass(frozen=True, slots=True)
class SystemNodesPlan:
    """The managed node group for everything that is not a model: controllers, Prometheus, routers."""

    instance_type: str
    cpu_architecture: CpuArchitecture
    count: int
    maximum: int
    volume_gib: int


@dataclass(frozen=True, slots=True)
class ExistingVpc:
    """A VPC that the stack finds and does not make; subnets in the order of the zones."""

    vpc_id: str
    private_subnet_ids: tuple[str, ...]
    public_subnet_ids: tuple[str, ...]
    """Empty without an internet-facing load balancer."""


@dataclass(frozen=True, slots=True)
class OidcPlan:
    """How the load balancer signs people in."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    user_info_endpoint: str
    secret_name: str
    """Secret beside the Ingress with ``clientID`` and ``clientSecret``."""
    scope: str
    session_s: int
    on_unauthenticated: Literal["authenticate", "deny"]


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """Addresses and zones."""

    vpc_cidr: str
    zones: tuple[str, ...]
    public_cidrs: tuple[str, ...]
    private_cidrs: tuple[str, ...]
    nat_gateways: int
    interface_endpoints: tuple[str, ...]
    """Services with an interface endpoint: it costs less than their traffic through NAT, or is asked for."""
    existing: ExistingVpc | None = None
    """In place of a VPC of the stack's own; there are then no blocks, gateways or endpoints."""
    oidc: OidcPlan | None = None
    """None: the load balancer lets everybody through who reaches it."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """The control plane: its version, its addresses, and what of it is brought along."""

    kubernetes_version: str
    addon_versions: Mapping[str, str]
    service_cidr: str
    """Addresses of Kubernetes Services: said, so that no VPC overlaps what EKS would choose."""
    role_arn: str | None = None
    """Of the control plane; None: the stack makes one."""
    node_role_arn: str | None = None
    """Of system nodes and Karpenter's; None: the stack makes one for each."""
    secrets_key_arn: str | None = None
    """KMS key of Kubernetes secrets; None: the stack makes one."""


@dataclass(frozen=True, slots=True)
class SchedulePlan:
    """Working hours as the scaler reads them."""

    timezone: str
    start: str
    end: str


@dataclass(frozen=True, slots=True)
class CostRange:
    """A projected amount of a month of 730 hours, USD."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, slots=True)
class CostItem:
    """One line of the bill."""

    name: str
    category: Literal["compute", "fixed"]
    tier: str | None
    usd: float
    """Expected, per month."""
    basis: str
    """Quantity times price, in words, with the price's date."""


@dataclass(frozen=True, slots=True)
class Driver:
    """One uncertainty and what it alone does to the month."""

    name: str
    low_usd: float
    high_usd: float
    why: str


@dataclass(frozen=True, slots=True)
class TierCost:
    """What one tier costs."""

    tier: str
    expected_usd: float
    low_usd: float
    high_usd: float
    usd_per_million_tokens: float
    """Compute of the tier over all its input and output tokens, at the stack's load."""
    usd_per_million_tokens_saturated: float
    """The same with every replica at its serving point all the time."""
    million_tokens: float
    """A month's input and output tokens, million."""
    replica_hours: float
    spot_share: float
    utilization: float
    """Requests served over requests that the paid replica hours could have served."""
    api_usd: float | None = None
    """The same month at the API prices of the settings; None without them."""
    break_even_requests_per_day: float | None = None
    """From here on serving it yourself is cheaper than the API; None: never, or no prices given."""
    article_usd_per_million_tokens: float | None = None
    """What the article's routing table has for a model of this size; None: nothing."""


@dataclass(frozen=True, slots=True)
class SavingStep:
    """One step of the waterfall from the baseline to the expected month."""

    lever: str
    monthly_usd: float
    saved_usd: float
    saved_percent: float
    cumulative_percent: float
    alone_usd: float | None
    """The month with only this lever off, minus the expected month; None where nothing meets the target without it."""
    claimed: str
    """What people quote for the lever, for comparison."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A fleet that was not chosen."""

    tier: str
    description: str
    monthly_usd: float | None
    """None: it does not serve the tier."""
    reason: str


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The expected month and saving under another requirement."""

    name: str
    expected_usd: float
    baseline_usd: float
    saved_percent: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """The month in money."""

    total: CostRange
    baseline_usd: float
    baseline_description: str
    items: tuple[CostItem, ...]
    tiers: tuple[TierCost, ...]
    savings: tuple[SavingStep, ...]
    drivers: tuple[Driver, ...]
    what_ifs: tuple[WhatIf, ...]
    prices_as_of: str
    """ISO date of the oldest dated price used; ``undated`` when none has a date."""
    price_source: str
    budget_usd: float | None = None
    """``budget.monthlyUsd``; None: there is none."""
    budget_compare: Literal["expected", "high"] = "expected"
    """Which figure of ``total`` is held against the budget."""

    @property
    def budget_used_percent(self) -> float | None:
        """The figure that is held against the budget, percent of it; None without a budget."""
        return None if self.budget_usd is None else 100 * self._compared_usd / self.budget_usd

    @property
    def over_budget_usd(self) -> float:
        """What the month is over its budget by; 0 when it is within, or there is none."""
        return 0.0 if self.budget_usd is None else max(0.0, self._compared_usd - self.budget_usd)

    @property
    def _compared_usd(self) -> float:
        return self.total.high if self.budget_compare == "high" else self.total.expected


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the components need and everything the report says."""

    region: str
    tiers: tuple[TierPlan, ...]
    default_tier: str
    routing_header: str
    model_router: ModelRouterPlan | None
    """None: requests without the header reach the default tier, whatever model they name."""
    node_pools: tuple[NodePoolPlan, ...]
    node_image: NodeImage
    """Of the nodes of all pools."""
    system_nodes: SystemNodesPlan
    cluster: ClusterPlan
    network: NetworkPlan
    schedule: SchedulePlan | None
    forecast: Forecast
    alternatives: tuple[Alternative, ...]
    warnings: tuple[str, ...]
    advice: tuple[str, ...] = ()
    """What not to do, with the figure that says so."""

    @property
    def node_image_label(self) -> str:
        """What pods select their nodes' image by: another release, or another Kubernetes version, is another image."""
        return self.node_image.label(self.cluster.kubernetes_version)

    @property
    def uses_efa(self) -> bool:
        """Some pod asks for an Elastic Fabric Adapter."""
        return any(tier.disaggregation and tier.disaggregation.efa_interfaces for tier in self.tiers)

    def tier(self, name: str) -> TierPlan:
        """Give the tier called ``name``; KeyError when there is none."""
        for tier in self.tiers:
            if tier.name == name:
                return tier
        raise KeyError(name)
