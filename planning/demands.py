"""From settings to demands: every name looked up in the facts, every name that is not there a problem with its way
out.
"""

from __future__ import annotations

from collections.abc import Sequence

from planning.bill import TierDemand, methods_of
from planning.facts.checkpoints import Checkpoint, checkpoints
from planning.facts.gpus import gpus
from planning.facts.instances import Offering, instance_types, offerings, regions
from planning.facts.models import Architecture, models
from planning.traffic import profile_names, shape
from settings import NAMESPACE, Capacity, Problem, TierSettings, did_you_mean


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


def usable_offerings(region: str, capacity: Capacity) -> tuple[Offering, ...]:
    """What the region offers, without the excluded types; empty for an unknown region."""
    if region not in regions():
        return ()
    excluded = set(capacity.excluded_instance_types)
    return tuple(offering for offering in offerings(region) if offering.instance.name not in excluded)


def tier_demand(
    tier: TierSettings, path: str, working: Sequence[bool], offered: Sequence[Offering]
) -> tuple[TierDemand | None, list[Problem]]:
    """Look up everything that a tier names. The demand is None when a name is not there."""
    problems: list[Problem] = []
    architecture = models().get(tier.model)
    if architecture is None:
        problems.append(
            Problem(f"{path}.model", tier.model, "is not in the catalogue", did_you_mean(tier.model, models()))
        )
    profile = tier.traffic.profile
    week = None
    try:
        week = shape(profile, working)
    except KeyError:
        hint = did_you_mean(profile, profile_names())
        problems.append(Problem(f"{path}.traffic.profile", profile, "is no profile or trace", hint))
    problems += _gpu_problems(tier, path, offered)
    if architecture is None:
        return None, problems
    if architecture.max_context and tier.max_model_len > architecture.max_context:
        problems.append(
            Problem(
                f"{path}.maxModelLen",
                tier.max_model_len,
                f"{tier.model} was trained for {architecture.max_context} tokens",
                f"use at most {architecture.max_context}",
            )
        )
    usable, methods = _checkpoints(tier, architecture)
    if not methods and tier.quantization == "auto":
        named = ", ".join(sorted(methods_of(checkpoints(tier.model))))
        limit = f"nobody has verified a checkpoint of {tier.model} that runs on GPUs"
        problems.append(Problem(f"{path}.quantization", "auto", limit, f"check it and ask for it by name: {named}"))
    elif not methods:
        have = sorted(methods_of(checkpoints(tier.model)))
        problems.append(
            Problem(
                f"{path}.quantization",
                tier.quantization,
                f"no {tier.quantization} checkpoint of {tier.model} is known",
                f"choose auto or one of {', '.join(have)}",
            )
        )
    if problems or week is None:
        return None, problems
    return TierDemand(tier, architecture, usable, methods, week), []


def _checkpoints(tier: TierSettings, architecture: Architecture) -> tuple[tuple[Checkpoint, ...], frozenset[str]]:
    """All checkpoints that may serve the tier under some lever, and the methods that its setting allows.

    ``auto`` leaves out repositories that nobody has seen and GGUF, which runs on CPUs and must be asked for.
    """
    wanted = tier.quantization
    by_method = methods_of(checkpoints(architecture.model_id))
    on_gpu = tuple(
        checkpoint
        for method, group in by_method.items()
        if method not in {"gguf", "gptq8"}
        for checkpoint in group
        if checkpoint.verified or method == wanted
    )
    if wanted == "auto":
        return on_gpu, frozenset(checkpoint.method for checkpoint in on_gpu)
    asked = by_method.get(wanted, ())
    usable = (*on_gpu, *asked) if wanted == "gguf" else on_gpu
    return usable, frozenset(checkpoint.method for checkpoint in asked)


def _gpu_problems(tier: TierSettings, path: str, offered: Sequence[Offering]) -> list[Problem]:
    here = sorted({offering.instance.gpu for offering in offered if offering.instance.gpu})
    problems: list[Problem] = []
    for position, name in enumerate(tier.gpus):
        if name not in gpus():
            problems.append(Problem(f"{path}.gpus[{position}]", name, "no such GPU", did_you_mean(name, gpus())))
        elif here and name not in here:
            problems.append(
                Problem(f"{path}.gpus[{position}]", name, "is not offered in this region", f"it has {', '.join(here)}")
            )
    return problems
