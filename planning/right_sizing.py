"""Which GPUs a model class needs and which serve it cheapest, region by region: what ``docs/right-sizing.md`` shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from planning.facts.checkpoints import Checkpoint, checkpoints
from planning.facts.gpus import Gpu
from planning.facts.instances import Offering, offerings
from planning.facts.models import Architecture, model
from planning.memory import fit
from planning.options import LEAST_MAX_NUM_SEQS, Demand, Market, Option, hosts_pod, unsupported, vllm_pod
from planning.serving import Load, Target, Workload
from planning.speed import cost_band, gpu_speed

#: Mean request of ServeGen's m-large trace (arXiv 2505.09999), and a target for chat.
WORKLOAD = Workload(input_tokens=924, output_tokens=142)
TARGET = Target(ttft_ms=2000, tpot_ms=100)
CONTEXT_TOKENS = 8192

#: Two regions with every GPU, and two of Europe: Ireland has no L4 and no L40S.
REGIONS = ("us-east-1", "us-east-2", "eu-central-1", "eu-west-1")

#: The catalogue's model of each class.
CLASSES = {
    "7-8B": "meta-llama/Llama-3.1-8B-Instruct",
    "13B": "meta-llama/Llama-2-13b-chat-hf",
    "34B": "codellama/CodeLlama-34b-Instruct-hf",
    "70B": "meta-llama/Llama-3.1-70B-Instruct",
    "8x22B": "mistralai/Mixtral-8x22B-Instruct-v0.1",
    "405B": "meta-llama/Llama-3.1-405B-Instruct",
}

_FOUR_BIT = ("w4a16", "awq", "gptq")
_SMALLEST_STEP_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Setup:
    """GPUs of one replica in a region, at the cheapest offering on-demand and the cheapest on spot."""

    gpu: Gpu
    gpus: int
    on_demand: Offering
    spot: Offering | None
    """None: no spot price was read."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """The setup with the least GPU memory that holds the model and one sequence of full length."""

    setup: Setup
    kv_tokens: int
    """Tokens that the KV cache holds."""
    tokens_per_second: float
    """Of one request alone."""
    cost_band: tuple[float, float]
    """Measured over projected cost of a token, as ``speed.cost_band``."""


@dataclass(frozen=True, slots=True)
class Best:
    """The setup with the cheapest token that meets the target."""

    setup: Setup
    load: Load
    cost_band: tuple[float, float]
    """Measured over projected cost of a token, as ``speed.cost_band``."""

    def usd_per_million_tokens(self, usd_per_hour: float) -> float:
        """Of input and output tokens, with the replica at its largest rate all the time."""
        per_request = WORKLOAD.input_tokens + WORKLOAD.output_tokens
        return usd_per_hour / (self.load.requests_per_second * 3600 * per_request / 1e6)


@dataclass(frozen=True, slots=True)
class Sizing:
    """What a model in one precision takes in a region; None where nothing there does."""

    region: str
    minimum: Minimum | None
    on_demand: Best | None
    """Cheapest token at list prices."""
    spot: Best | None
    """Cheapest token at median spot prices."""


def context_tokens(architecture: Architecture) -> int:
    """The context of the tables, or the model's own where it has less."""
    return min(CONTEXT_TOKENS, architecture.max_context)


def checkpoint(model_id: str, *, four_bit: bool) -> Checkpoint:
    """The 16-bit checkpoint of a model, or its first verified 4-bit one."""
    known = [one for one in checkpoints(model_id) if one.verified]
    wanted = _FOUR_BIT if four_bit else ("fp16",)
    return next(one for method in wanted for one in known if one.method == method)


def sizings(model_id: str, *, four_bit: bool) -> tuple[Sizing, ...]:
    """The tables' rows of one model in one precision, in the order of ``REGIONS``."""
    architecture, weights = model(model_id), checkpoint(model_id, four_bit=four_bit)
    demand = Demand(
        architecture=architecture,
        checkpoints=(weights,),
        workload=WORKLOAD,
        target=TARGET,
        max_model_len=context_tokens(architecture),
        kv_cache_dtype="auto",
    )
    options = _market().survey(demand).options()
    fitting = list(_fitting(architecture, weights))
    return tuple(
        Sizing(
            region=region,
            minimum=_minimum(architecture, weights, fitting, region),
            on_demand=_best(options, region, spot=False),
            spot=_best(options, region, spot=True),
        )
        for region in REGIONS
    )


@cache
def _market() -> Market:
    """All regions as one market: what a GPU does is the same everywhere."""
    return Market([offering for region in REGIONS for offering in offerings(region)])


def _fitting(architecture: Architecture, weights: Checkpoint) -> Iterator[tuple[Gpu, int, tuple[Offering, ...], int]]:
    for gpu, count, offered in _market().by_gpu:
        if unsupported(architecture, weights, gpu, count):
            continue
        hosts = tuple(offering for offering in offered if hosts_pod(offering.instance, vllm_pod(count)))
        memory = fit(
            architecture,
            weights,
            gpu,
            count,
            max_model_len=context_tokens(architecture),
            max_num_seqs=LEAST_MAX_NUM_SEQS,
            max_num_batched_tokens=_SMALLEST_STEP_TOKENS,
        )
        if memory.fits and hosts:
            yield gpu, count, hosts, memory.kv_tokens


def _setup(gpu: Gpu, gpus: int, hosts: Sequence[Offering], region: str) -> Setup | None:
    here = [offering for offering in hosts if offering.region == region]
    if not here:
        return None
    on_spot = [offering for offering in here if offering.spot_usd_per_hour is not None]
    return Setup(
        gpu,
        gpus,
        min(here, key=lambda offering: offering.on_demand_usd_per_hour),
        min(on_spot, key=lambda offering: offering.spot_usd_per_hour or 0.0, default=None),
    )


def _minimum(
    architecture: Architecture,
    weights: Checkpoint,
    fitting: Sequence[tuple[Gpu, int, tuple[Offering, ...], int]],
    region: str,
) -> Minimum | None:
    found: list[Minimum] = []
    for gpu, gpus, hosts, kv_tokens in fitting:
        setup = _setup(gpu, gpus, hosts, region)
        if setup is not None:
            step_s = gpu_speed(architecture, weights, gpu, gpus).step_s(1, WORKLOAD.input_tokens)
            found.append(Minimum(setup, kv_tokens, 1 / step_s, cost_band(architecture, gpu, gpus)))
    return min(
        found,
        key=lambda one: (one.setup.gpu.memory_gib * one.setup.gpus, one.setup.on_demand.on_demand_usd_per_hour),
        default=None,
    )


def _best(options: Sequence[Option], region: str, *, spot: bool) -> Best | None:
    found: list[tuple[float, Best]] = []
    for option in options:
        if option.gpu is None:
            continue
        setup = _setup(option.gpu, option.gpus, option.offerings, region)
        if setup is None or (spot and setup.spot is None):
            continue
        best = Best(setup, option.load, option.cost_band)
        hourly = setup.spot.spot_usd_per_hour if spot and setup.spot else setup.on_demand.on_demand_usd_per_hour
        found.append((best.usd_per_million_tokens(hourly or 0.0), best))
    return min(found, key=lambda entry: entry[0], default=(0.0, None))[1]
