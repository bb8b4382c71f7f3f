"""From settings to demands: every name looked up in the facts, every name that is not there a problem with its way
out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from planning.bill import TierDemand, methods_of
from planning.facts.checkpoints import Checkpoint, checkpoints
from planning.facts.eks_versions import KUBERNETES_VERSION
from planning.facts.gpus import gpus
from planning.facts.hugging_face import ConfigError, read_config
from planning.facts.instances import Offering, instance_types, offerings, regions
from planning.facts.models import Architecture, models
from planning.facts.node_images import DRIVER_FLOOR, NodeImage, newest_image
from planning.facts.quality import QualityLoss, checkpoint_loss, kv_cache_loss
from planning.facts.traces import InvalidTrace
from planning.traffic import Shape, growing, profile_choices, shape, with_peak
from problems import NAMESPACE, Problem, did_you_mean
from settings import Capacity, StackSettings, TierSettings

#: What ``auto`` may lose when the settings do not say: the upper end of the 1 to 3 % that arXiv 2411.02355 (500,000
#: evaluations) reports for integer formats it recommends; 4 bit of an 8B model lies within it.
DEFAULT_MAX_QUALITY_LOSS_PERCENT = 3.0


def region_problems(region: str) -> list[Problem]:
    """Whether the facts hold prices of the region."""
    if region in regions():
        return []
    return [Problem("aws:region", region or None, "no prices of this region", did_you_mean(region, regions()))]


def capacity_problems(capacity: Capacity) -> list[Problem]:
    """Excluded instance types that do not exist."""
    return [
        Problem(
            f"{NAMESPACE}:capacity.excludedInstanceTypes[{position}]",
            name,
            "no such instance type",
            did_you_mean(name, instance_types()),
        )
        for position, name in enumerate(capacity.excluded_instance_types)
        if name not in instance_types()
    ]


def node_image_problems(settings: StackSettings) -> list[Problem]:
    """A node image that is known not to exist for the cluster's version or, where a tier may use GPUs, to have an
    NVIDIA driver that is too old for the engine.
    """
    image, kubernetes = NodeImage.of(settings.capacity.ami_alias), settings.cluster.kubernetes_version
    on_cpu_alone = all(tier.quantization == "gguf" for tier in settings.tiers)
    if not on_cpu_alone and image.runs_driver(DRIVER_FLOOR, kubernetes) is False:
        has = image.driver(kubernetes) or f"older than {DRIVER_FLOOR}"
        limit = f"its NVIDIA driver is {has}, and vLLM's image (CUDA 13) needs {DRIVER_FLOOR} or newer"
    elif image.lacks(kubernetes):
        limit = f"the release has no image for Kubernetes {kubernetes}"
    else:
        return []
    newest = newest_image(image.family, kubernetes)
    way_out = f"set {newest.alias}" if newest else "set a newer release"
    return [Problem(f"{NAMESPACE}:capacity.amiAlias", settings.capacity.ami_alias, limit, way_out)]


def usable_offerings(
    region: str, capacity: Capacity, kubernetes: str = KUBERNETES_VERSION, live: Sequence[Offering] = ()
) -> tuple[Offering, ...]:
    """What the region offers (``live`` in place of the facts), without the excluded types and without GPUs that the
    driver of the node image for that Kubernetes version is too old for or not known to run; empty for an unknown
    region.
    """
    if region not in regions():
        return ()
    excluded = set(capacity.excluded_instance_types)
    image = NodeImage.of(capacity.ami_alias)
    return tuple(
        offering
        for offering in live or offerings(region)
        if offering.instance.name not in excluded and not _driver_missing(image, kubernetes, offering.instance.gpu)
    )


def _driver_missing(image: NodeImage, kubernetes: str, name: str | None) -> int | None:
    """The driver branch that a GPU needs and an image is not known to have; None when it may run there."""
    least = gpus()[name].least_driver if name else None
    return None if least is None or image.runs_driver(least, kubernetes) else least


def tier_demand(
    tier: TierSettings, path: str, working: Sequence[float], offered: Sequence[Offering]
) -> tuple[TierDemand | None, list[Problem]]:
    """Look up everything that a tier names.

    The demand is None where something is not there. A length beyond the model's is a problem, and the demand is then
    that of the longest, so that what else is wrong with the tier can be found.
    """
    architecture, known, problems = _model(tier, path)
    week = _shape(tier, path, working, problems)
    problems += _gpu_problems(tier, path, offered)
    if architecture is None:
        return None, problems
    too_long: list[Problem] = []
    longest = architecture.max_context or tier.max_model_len
    if tier.max_model_len > longest:
        limit = f"{tier.model} was trained for {longest} tokens"
        too_long = [Problem(f"{path}.maxModelLen", tier.max_model_len, limit, f"use at most {longest}")]
        tier = tier.model_copy(update={"max_model_len": longest})
    usable, asked = _checkpoints(tier, known)
    methods, too_lossy = _acceptable(tier, path, architecture, known, asked)
    problems += too_lossy
    if not asked and tier.quantization == "auto":
        named = ", ".join(sorted(methods_of(known)))
        limit = f"nobody has verified a checkpoint of {tier.model} that runs on GPUs"
        problems.append(Problem(f"{path}.quantization", "auto", limit, f"check it and ask for it by name: {named}"))
    elif not asked:
        have = sorted(methods_of(known))
        problems.append(
            Problem(
                f"{path}.quantization",
                tier.quantization,
                f"no {tier.quantization} checkpoint of {tier.model} is known",
                f"choose auto or one of {', '.join(have)}",
            )
        )
    if tier.quantization == "gguf" and tier.disaggregation.enabled:
        on_gpu = sorted({one.method for one in known if one.verified and not one.method.startswith("gguf")})
        limit = "GGUF is run by llama.cpp, which cannot keep prefill and decode apart"
        way_out = "leave disaggregation out" + (
            f", or choose quantization auto or {' or '.join(on_gpu)}" if on_gpu else ""
        )
        problems.append(Problem(f"{path}.disaggregation.enabled", value=True, limit=limit, way_out=way_out))
    asked = tier.traffic.input_tokens + tier.traffic.output_tokens
    if problems or week is None or asked > longest:
        return None, [*too_long, *problems]
    return TierDemand(tier, architecture, usable, methods, week), too_long


_MODEL = frozenset({"model", "architecture"})
_CHOOSING = frozenset(
    {"quantization", "maxQualityLossPercent", "kvCacheDtype", "kvOffloadGib", "gpus", "disaggregation"}
)

#: Settings whose problems rest on others too: what a model is, and the choice of a checkpoint.
_RESTS_ON = dict.fromkeys(_MODEL, _MODEL) | dict.fromkeys(("quantization", "maxQualityLossPercent"), _CHOOSING)


def still_wrong(problems: Sequence[Problem], path: str, left_out: frozenset[str]) -> list[Problem]:
    """The problems of a tier that do not rest on its settings in ``left_out``, which are broken otherwise."""

    def rests_on(problem: Problem) -> frozenset[str]:
        setting = re.split(r"[.[]", problem.path.removeprefix(f"{path}."))[0]
        return _RESTS_ON.get(setting, frozenset({setting}))

    return [problem for problem in problems if not rests_on(problem) & left_out]


def _shape(tier: TierSettings, path: str, working: Sequence[float], problems: list[Problem]) -> Shape | None:
    """The hours of the tier's traffic; None with a problem where the profile or its peak is none that can be had."""
    traffic = tier.traffic

    def unknown(limit: str, way_out: str) -> None:
        problems.append(Problem(f"{path}.traffic.profile", traffic.profile, limit, way_out))

    try:
        found = shape(traffic.profile, working)
    except KeyError:
        hint = did_you_mean(traffic.profile, profile_choices())
        return unknown("is no profile or trace", f"{hint}; or name the path of a trace file, as ./week.csv")
    except InvalidTrace as error:
        return unknown(error.in_short(), "mend the file (docs/traffic.md says what it holds), or name a profile")
    except OSError as error:
        hint = "name a CSV file by its path from the stack file, or a profile, for example office-hours"
        return unknown(f"cannot be read: {error.strerror or error}", hint)
    if traffic.peak_over_mean is not None:
        try:
            found = with_peak(found, traffic.peak_over_mean)
        except ValueError as error:
            limit = f"the profile {traffic.profile} cannot have it: {error}"
            hint = "choose a profile with a peak, for example global or office-hours, or leave it out"
            problems.append(Problem(f"{path}.traffic.peakOverMean", traffic.peak_over_mean, limit, hint))
            return None
    return growing(found, traffic.growth_percent_per_month) if traffic.growth_percent_per_month else found


def quality_loss(tier: TierSettings, params_billion: float, checkpoint: Checkpoint) -> QualityLoss:
    """What a checkpoint and the tier's KV cache are expected to lose against 16 bit together."""
    dtype = "auto" if checkpoint.method.startswith("gguf") else tier.kv_cache_dtype
    return checkpoint_loss(params_billion, checkpoint) + kv_cache_loss(params_billion, dtype)


def _model(tier: TierSettings, path: str) -> tuple[Architecture | None, tuple[Checkpoint, ...], list[Problem]]:
    """The tier's architecture and every checkpoint that is known of it: the catalogue's, or a ``config.json``'s."""
    if tier.architecture is not None and tier.model in models():
        limit = f"{tier.model} is in the catalogue, which knows its architecture and its checkpoints"
        return (
            None,
            (),
            [Problem(f"{path}.architecture", tier.architecture, limit, "leave it out, or name your own model")],
        )
    if tier.architecture is not None:
        try:
            published = read_config(Path(tier.architecture), tier.model)
        except ConfigError as error:
            hint = "name the path of the model's config.json, or leave it out for a model of the catalogue"
            return None, (), [Problem(f"{path}.architecture", tier.architecture, str(error), hint)]
        return published.architecture, (published.checkpoint,), []
    if tier.model in models():
        return models()[tier.model], checkpoints(tier.model), []
    hint = f"{did_you_mean(tier.model, models())}; or name the path of its config.json as architecture"
    return None, (), [Problem(f"{path}.model", tier.model, "is not in the catalogue", hint)]


def _checkpoints(tier: TierSettings, known: Sequence[Checkpoint]) -> tuple[tuple[Checkpoint, ...], list[Checkpoint]]:
    """All checkpoints that may serve the tier under some lever, and those that its setting asks for.

    ``auto`` leaves out repositories that nobody has seen. It takes GGUF, which runs on CPUs, unless the tier names GPUs
    or something that only vLLM does.
    """
    wanted = tier.quantization
    by_method = methods_of(known)
    on_gpu = tuple(
        checkpoint
        for method, group in by_method.items()
        if method not in {"gguf", "gptq8"}
        for checkpoint in group
        if checkpoint.verified or method == wanted
    )
    needs_vllm = tier.gpus or tier.disaggregation.enabled or tier.kv_cache_dtype != "auto" or tier.kv_offload_gib
    on_cpu = by_method.get("gguf", ())
    if wanted == "auto":
        on_cpu = () if needs_vllm else tuple(checkpoint for checkpoint in on_cpu if checkpoint.verified)
        return (*on_gpu, *on_cpu), [*on_gpu, *on_cpu]
    return (*on_gpu, *on_cpu) if wanted == "gguf" else on_gpu, list(by_method.get(wanted, ()))


def _acceptable(
    tier: TierSettings,
    path: str,
    architecture: Architecture,
    known: Sequence[Checkpoint],
    asked: Sequence[Checkpoint],
) -> tuple[frozenset[str], list[Problem]]:
    """The methods among ``asked`` whose quality loss the settings accept, and the problem where none is."""
    limit = tier.max_quality_loss_percent
    if limit is None:
        limit = DEFAULT_MAX_QUALITY_LOSS_PERCENT if tier.quantization == "auto" else math.inf
    losses = [(quality_loss(tier, architecture.params_billion, one), one.method) for one in asked]
    methods = frozenset(method for loss, method in losses if loss.percent <= limit)
    if methods or not asked:
        return methods, []
    least, method = min(losses, key=lambda entry: entry[0].percent)
    on_gpu = [one for one in known if one.verified and not one.method.startswith("gguf")]
    others = {one.method for one in on_gpu if quality_loss(tier, architecture.params_billion, one).percent <= limit}
    way_out = f"accept {least.percent:g}"
    if others:
        way_out = f"choose quantization {' or '.join(sorted(others))}, or {way_out}"
    elif tier.kv_cache_dtype != "auto":
        way_out = f"leave kvCacheDtype out, or {way_out}"
    what = f"{method} with a {tier.kv_cache_dtype} KV cache" if tier.kv_cache_dtype != "auto" else method
    return methods, [
        Problem(
            f"{path}.maxQualityLossPercent",
            limit,
            f"{what} of {tier.model} is expected to lose {least.percent:g} %, {least.percent - limit:.1f} points more "
            f"({least.source})",
            way_out,
        )
    ]


def _gpu_problems(tier: TierSettings, path: str, offered: Sequence[Offering]) -> list[Problem]:
    here = sorted({offering.instance.gpu for offering in offered if offering.instance.gpu})
    problems: list[Problem] = []
    for position, name in enumerate(tier.gpus):
        if name not in gpus():
            problems.append(Problem(f"{path}.gpus[{position}]", name, "no such GPU", did_you_mean(name, gpus())))
        elif here and name not in here:
            least = gpus()[name].least_driver
            limit = f"needs NVIDIA driver {least} on the nodes" if least else "is not offered in this region"
            way_out = f"{'choose from' if least else 'it has'} {', '.join(here)}"
            problems.append(Problem(f"{path}.gpus[{position}]", name, limit, way_out))
    return problems
