"""What not to do for this stack: levers that people reach for and that lose here, each with its own figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from planning.bill import Levers, StackBills, TierBill, TierDemand, Unservable
from planning.facts.checkpoints import checkpoints
from planning.facts.gpus import gpu
from planning.facts.models import model
from planning.fleet import Fleet, Uncertainty
from planning.memory import fit
from planning.options import FP8_KV_LEAST_COMPUTE_CAPABILITY, Option, replica_speed
from planning.plan import TierCost
from planning.speed import ReplicaSpeed, gpu_speed, native_flops
from planning.traffic import DAYS_PER_MONTH

#: Speculative decoding with a draft model: 1.5 times faster at one request a second, 1.4 to 1.8 times slower at high
#: rates (70B on four H100, vLLM blog of 2024-10).
SPECULATIVE_GAIN_UNLOADED = 1.5

#: Tokens drafted a step: the draft model's example of vLLM's documentation
#: (docs.vllm.ai/en/v0.14.0/features/spec_decode, read 2026-11-22).
DRAFTED_TOKENS = 5

_FOUR_BIT = frozenset({"awq", "gptq", "w4a16"})
_EIGHT_BIT = frozenset({"fp8", "int8"})
_WORTH_SAYING_USD = 5.0
_BATCH_SIZES = tuple(2**power for power in range(12))
_PUBLISHED_MODEL = "meta-llama/Llama-3.1-70B-Instruct"

#: How far from today's traffic a break-even is looked for.
_LEAST_FACTOR, _MOST_FACTOR, _FACTOR_STEP = 1e-3, 1e4, 1.5


def advice(demands: Sequence[TierDemand], bills: StackBills, bill: Sequence[TierBill]) -> tuple[str, ...]:
    """All that the stack's owner may think of and had better not do, one line each."""
    lines: list[str] = []
    for demand, part in zip(demands, bill, strict=True):
        if part.paused:
            continue
        option = part.fleet.option
        found = [_quality_limit(demand, part, bills)]
        if option.gpu is not None:
            found += [
                _fp8_cache(demand, part, bills),
                _speculation(part),
                _four_bit(part),
                _kv_store(demand, part, bills),
            ]
        lines += [f"tier {part.name}: {line}" for line in found if line]
    return tuple(lines)


def _quality_limit(demand: TierDemand, part: TierBill, bills: StackBills) -> str:
    """What the accepted quality loss costs, where it costs something."""
    if demand.settings.quantization != "auto":
        return ""
    known = frozenset(way.checkpoint.method for way in part.search.survey.ways)
    fleet = part.search.choose(bills.policy(Levers()), known - demand.methods)
    if fleet is None or part.fleet.usd - fleet.usd < _WORTH_SAYING_USD:
        return ""
    return (
        f"the accepted quality loss rules out {fleet.option.label}, which would cost {fleet.usd:,.0f} USD a month "
        f"instead of {part.fleet.usd:,.0f} and lose {fleet.option.quality_loss_percent:g} %"
    )


def _fp8_cache(demand: TierDemand, part: TierBill, bills: StackBills) -> str:
    """An fp8 KV cache that does not pay, or whose GPU would have to be another."""
    option, needed = part.fleet.option, ".".join(map(str, FP8_KV_LEAST_COMPUTE_CAPABILITY))
    if option.gpu is None or option.vllm is None:
        return ""
    if demand.settings.kv_cache_dtype != "auto":
        without = bills.tier_bill(demand, replace(Levers(), kv_compression=False))
        if without.usd - part.usd >= _WORTH_SAYING_USD:
            return ""
        return (
            f"the fp8 KV cache saves nothing: with 16 bit the month is {without.usd:,.0f} USD on "
            f"{without.fleet.option.label} instead of {part.usd:,.0f}; GPUs below compute capability {needed} (A10G, "
            "A100, T4) cannot keep it"
        )
    if option.gpu.compute_capability >= FP8_KV_LEAST_COMPUTE_CAPABILITY:
        return ""
    instead = _with_fp8_cache(demand, bills)
    held = option.load.sequences_p99
    room = _sequences_in_cache(part, option)
    have = ".".join(map(str, option.gpu.compute_capability))
    move = (
        f"; with it the cheapest, {instead.option.label}, takes {instead.usd:,.0f} USD a month instead of "
        f"{part.fleet.usd:,.0f}"
        if instead
        else ""
    )
    gain = f"the cache has room for {room:.0f} requests, the plan runs {held} at most" + (
        ", so more of it gains nothing" if room >= held + 1 else ": it would gain capacity only"
    )
    return f"no fp8 KV cache: vLLM needs compute capability {needed}, the {option.gpu.name} has {have}{move}; {gain}"


def _kv_store(demand: TierDemand, part: TierBill, bills: StackBills) -> str:
    """What a KV store in host memory costs, where it takes dearer nodes than the tier needs without it."""
    asked_gib = demand.settings.kv_offload_gib
    if not asked_gib:
        return ""
    unasked = replace(demand, settings=demand.settings.model_copy(update={"kv_offload_gib": None}))
    without = replace(bills, tiers=(unasked,), _searches={}).tier_bill(unasked, Levers())
    if part.usd - without.usd < _WORTH_SAYING_USD:
        return ""
    return (
        f"kvOffloadGib {asked_gib:g} takes nodes with more memory: {part.usd:,.0f} USD a month on "
        f"{part.fleet.option.label} instead of {without.usd:,.0f} on {without.fleet.option.label}; left out, only "
        "memory that the nodes have anyway is used"
    )


def _sequences_in_cache(part: TierBill, option: Option) -> float:
    limits, demand = option.vllm, part.search.demand
    assert limits is not None
    assert option.gpu is not None
    memory = fit(
        demand.architecture,
        option.checkpoint,
        option.gpu,
        option.gpus,
        max_model_len=limits.max_model_len,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        kv_cache_dtype=limits.kv_cache_dtype,
        gpu_memory_utilization=limits.gpu_memory_utilization,
    )
    return memory.kv_tokens / (demand.workload.input_tokens + demand.workload.output_tokens)


def _speed(part: TierBill, option: Option) -> ReplicaSpeed:
    assert option.gpu is not None
    return replica_speed(part.search.demand, option.checkpoint, option.gpu, option.gpus)


def _verify_s(speed: ReplicaSpeed, sequences: float, context_tokens: float) -> float:
    """A step that verifies drafts: it computes ``DRAFTED_TOKENS`` more tokens a request and reads the KV cache once."""
    cache = speed.step_s(sequences, context_tokens) - speed.step_s(sequences, 0)
    return speed.step_s((DRAFTED_TOKENS + 1) * sequences, 0) + cache


@cache
def _tokens_per_verification() -> float:
    """Tokens gained a verification, less what drafting them costs: those that make the published gain of the 70B.

    Its cache of one request is nothing beside its weights and left out.
    """
    weights = next(one for one in checkpoints(_PUBLISHED_MODEL) if one.method == "fp16")
    speed = gpu_speed(model(_PUBLISHED_MODEL), weights, gpu("H100"), 4)
    return SPECULATIVE_GAIN_UNLOADED * _verify_s(speed, 1, 0) / speed.step_s(1, 0)


def speculative_gain(speed: ReplicaSpeed, sequences: float, context_tokens: float) -> float:
    """How many times faster speculative decoding makes a replica that runs ``sequences`` requests; below 1: slower.

    As many tokens are taken to be accepted as for the published dense 70B; never more than its gain. Drafts of a
    mixture of experts hit experts that one token would not read, so that it may lose at few requests and at many.
    """
    plain = speed.step_s(sequences, context_tokens)
    gain = _tokens_per_verification() * plain / _verify_s(speed, sequences, context_tokens)
    return min(SPECULATIVE_GAIN_UNLOADED, gain)


def _with_fp8_cache(demand: TierDemand, bills: StackBills) -> Fleet | None:
    """The tier's cheapest fleet with an fp8 KV cache on every node; None when nothing serves it."""
    asked = replace(demand, settings=demand.settings.model_copy(update={"kv_cache_dtype": "fp8"}))
    try:
        return replace(bills, tiers=(asked,), _searches={}).tier_bill(asked, Levers()).fleet
    except Unservable:
        return None


def _speculation(part: TierBill) -> str:
    """Speculative decoding where it slows the replica down at the planned concurrency."""
    option, workload = part.fleet.option, part.search.demand.workload
    context = workload.input_tokens + workload.output_tokens / 2
    speed, planned = _speed(part, option), option.load.concurrency
    gain = speculative_gain(speed, max(1.0, planned), context)
    if gain >= 1:
        return ""
    pays = [running for running in _BATCH_SIZES if speculative_gain(speed, running, context) >= 1]
    where = f"of {_BATCH_SIZES[0]}, 2, 4 ... {_BATCH_SIZES[-1]:,} requests it gains " + (
        f"at {', '.join(map(str, pays))} only" if pays else "at none"
    )
    return (
        f"no speculative decoding: {SPECULATIVE_GAIN_UNLOADED:g} times faster at one request to a dense 70B (vLLM "
        f"blog, 2024-10) turns into {gain:.2f} at the {planned:.0f} requests a replica is planned to run; {where}, so "
        "it saves no node"
    )


def _four_bit(part: TierBill) -> str:
    """A 4-bit checkpoint on a GPU that holds an 8-bit one and computes in 8 bit."""
    option, demand = part.fleet.option, part.search.demand
    gpu = option.gpu
    if gpu is None or option.checkpoint.method not in _FOUR_BIT:
        return ""
    workload, planned = demand.workload, option.load.concurrency

    def tokens_per_second(other: Option) -> float:
        return _speed(part, other).output_tokens_per_second(planned, workload.input_tokens, workload.output_tokens)

    native = [
        other
        for way in part.search.survey.ways
        if way.gpu is gpu
        and way.gpus == option.gpus
        and way.checkpoint.method in _EIGHT_BIT
        and native_flops(gpu, way.checkpoint.method)
        and isinstance(other := part.search.survey.look(way), Option)
    ]
    best = max(native, key=tokens_per_second, default=None)
    if best is None or tokens_per_second(best) <= tokens_per_second(option):
        return ""
    return (
        f"no {option.checkpoint.method} on the {gpu.name}: it has room for {best.checkpoint.method}, which gives "
        f"{tokens_per_second(best):,.0f} tokens a second instead of {tokens_per_second(option):,.0f} at the "
        f"{planned:.0f} requests a replica is planned to run, and loses {best.quality_loss_percent:g} % instead of "
        f"{option.quality_loss_percent:g} %"
    )


@dataclass(frozen=True, slots=True)
class ApiComparison:
    """A tier against an API at the prices that the settings give."""

    api_usd: float
    """A month of the tier's traffic."""
    own_usd: float
    """The tier's expected compute and its share of the fixed costs."""
    break_even_requests_per_day: float | None
    """From here on serving it yourself is cheaper; None: at no load, or not without more than ``maxReplicas``."""


def api_comparison(
    demand: TierDemand, part: TierBill, bills: StackBills, fixed_share_usd: float
) -> ApiComparison | None:
    """The tier's month against an API's; None where the settings give no price, nobody asks, or the tier is paused.

    The break-even follows the planned fleet over more or less traffic of the same shape. Fixed costs stay.
    """
    price, traffic = demand.settings.api_usd_per_million_tokens, demand.settings.traffic
    requests = traffic.mean_requests_per_day
    if price is None or not requests or part.paused:
        return None
    per_request = (traffic.input_tokens * price.input + traffic.output_tokens * price.output) / 1e6
    api_usd = requests * DAYS_PER_MONTH * per_request

    def pays(factor: float) -> bool:
        own = bills.in_case(part, Levers(), Uncertainty(traffic_factor=factor)) + fixed_share_usd
        return own <= api_usd * factor

    def served(factor: float) -> bool:
        most = part.search.availability.maximum
        return most is None or part.search.month(part.fleet.rule, factor).needed_replicas <= most

    low, high = 0.0, _LEAST_FACTOR
    while not pays(high) and high < _MOST_FACTOR:
        low, high = high, high * _FACTOR_STEP
    while high - low > 0.005 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if pays(middle) else (middle, high)
    found = pays(high) and served(high)
    return ApiComparison(api_usd, part.usd + fixed_share_usd, high * requests if found else None)


def with_api(
    costs: Sequence[TierCost],
    demands: Sequence[TierDemand],
    bills: StackBills,
    bill: Sequence[TierBill],
    fixed_usd: float,
) -> tuple[tuple[TierCost, ...], tuple[str, ...]]:
    """The tiers' costs with the API's beside them, and a line for each tier that the API serves for less.

    Fixed costs are shared out by the tiers' compute: they stay as long as one tier does.
    """
    compute = sum(part.usd for part in bill)
    result: list[TierCost] = []
    lines: list[str] = []
    for cost, demand, part in zip(costs, demands, bill, strict=True):
        share = fixed_usd * (part.usd / compute if compute else 1 / len(bill))
        compared = api_comparison(demand, part, bills, share)
        if compared is None:
            result.append(cost)
            continue
        even = compared.break_even_requests_per_day
        result.append(replace(cost, api_usd=compared.api_usd, break_even_requests_per_day=even))
        if compared.api_usd < compared.own_usd:
            pays = (
                f"serving it yourself on this fleet pays from {even:,.0f} requests a day, "
                f"{even / demand.settings.traffic.mean_requests_per_day:.1f} times today's"
                if even
                else "on this fleet serving it yourself never pays, at more requests another may: a full replica takes "
                f"{cost.usd_per_million_tokens_saturated:.3f} USD per million tokens"
            )
            lines.append(
                f"tier {part.name}: the API is cheaper: {compared.api_usd:,.0f} USD a month at the prices given, "
                f"{compared.own_usd:,.0f} here ({share:,.0f} of it fixed costs); {pays}"
            )
    return tuple(result), tuple(lines)
