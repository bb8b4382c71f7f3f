"""The Envoys that find a request's tier by the ``model`` field of its body: what they need, and which tier is meant."""

from __future__ import annotations

import math
from collections.abc import Sequence

from planning.bill import TierBill, TierDemand
from planning.plan import ModelRouterPlan
from planning.tiers import peak_requests_per_second, served_model_names, tier_timeouts
from planning.timeouts import model_router_timeouts
from settings import StackSettings

#: One may be away: on a lost node, or while a change rolls them.
_REPLICAS = 2

#: Room for a token in a request: four characters, each beyond ASCII and written as ``\uXXXX``, as Python's ``json``
#: does unless told otherwise. English takes 4.5 (``planning/fixed.py``).
_BYTES_PER_TOKEN = 24

#: Of Envoy 1.40 with one worker, measured with this configuration on 2026-11-27: idle, and in MiB for each MiB of the
#: body that takes most to read, a list of zeros. Ordinary bodies, a few long texts, take 7.
_IDLE_MIB, _MIB_PER_PARSED_MIB = 64, 96

#: Bodies of full length that may arrive at once, an assumption. Beyond it Envoy refuses what would not fit.
_BODIES = 16


def model_router_plan(
    settings: StackSettings, demands: Sequence[TierDemand], bill: Sequence[TierBill]
) -> ModelRouterPlan | None:
    """The Envoys that route by model, each for the whole stack's busiest minutes; None when the settings want none.

    They read a body whole before they know its tier, so the longest that a tier can serve decides on their memory.
    """
    if not settings.routing.by_model_field:
        return None
    tiers = list(zip(demands, bill, strict=True))
    peak = sum(peak_requests_per_second(*each) for each in tiers)
    longest_tokens = max(tier.max_model_len for tier in settings.tiers)
    body_mib = math.ceil(longest_tokens * _BYTES_PER_TOKEN / 2**20)
    return ModelRouterPlan(
        replicas=_REPLICAS,
        cpu_millicores=100 + math.ceil(peak),
        memory_mib=_IDLE_MIB + body_mib * (_MIB_PER_PARSED_MIB + _BODIES),
        max_body_mib=body_mib,
        timeouts=model_router_timeouts([tier_timeouts(settings, *each) for each in tiers]),
        tier_of_model=_tier_of_model(settings),
        default_tier=settings.default_tier,
        routing_header=settings.routing.header,
    )


def _tier_of_model(settings: StackSettings) -> dict[str, str]:
    """A tier's name reaches that tier. A model that several serve reaches the default tier if it is one of them, else
    the first of the stack file. The default tier's name is the first, as in its own list of models.
    """
    tiers = sorted(settings.tiers, key=lambda tier: tier.name != settings.default_tier)
    found = {tier.name: tier.name for tier in tiers}
    for tier in tiers:
        for name in served_model_names(tier):
            found.setdefault(name, tier.name)
    return found


def shared_models(settings: StackSettings) -> list[str]:
    """A warning for each name that several tiers serve, so that only one of them is reached by it."""
    warnings: list[str] = []
    for name, reached in _tier_of_model(settings).items():
        others = [tier.name for tier in settings.tiers if tier.name != reached and name in served_model_names(tier)]
        if others:
            warnings.append(
                f"routing.byModelField: model {name} reaches tier {reached}; {' and '.join(others)} "
                f"{'serve' if len(others) > 1 else 'serves'} it too, under the tier's name"
            )
    return warnings
