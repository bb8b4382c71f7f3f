"""The month hour by hour: replicas as the autoscaler would hold them, nodes as Karpenter would buy them.

A month is 730 hours, taken as average weeks. One replica takes one node (a pool's nodes have exactly one replica's
GPUs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planning.traffic import HOURS_PER_MONTH, HOURS_PER_WEEK


@dataclass(frozen=True, slots=True)
class ScalingRule:
    """How replicas follow the load of one deployment."""

    requests_per_second_per_replica: float
    peak_within_hour: float
    """Replicas are held for the busiest ten minutes of each hour."""
    minimum: int
    """At every hour."""
    working_hours: int
    """In working hours; at least ``minimum``."""
    follows_load: bool
    """False: the peak's replicas all the time."""
    may_sleep: bool
    """With ``minimum`` 0: no replica while idle and outside working hours. False: at least one at any hour."""
    cold_start_s: float
    cooldown_s: float
    """Idle time before the last replica goes."""
    node_idle_s: float
    """Time an empty node is kept."""
    maximum: int | None = None
    """Most replicas; requests beyond them wait."""


@dataclass(frozen=True, slots=True)
class ReplicaMonth:
    """Node hours of one deployment in a month."""

    node_hours: float
    """All that is paid: serving, starting, idling out."""
    serving_hours: float
    """With a replica that answers."""
    starts: float
    """Replicas started, each on a new node."""
    peak_replicas: int
    needed_replicas: int
    """What the busiest hour needs; above ``peak_replicas`` where a maximum holds them back."""
    by_hour: tuple[float, ...]
    """Mean replicas of every hour of the shape."""


def replicas_for(requests_per_hour: float, rule: ScalingRule) -> int:
    """Replicas that carry the busiest ten minutes of an hour; 0 for none."""
    return math.ceil(requests_per_hour * rule.peak_within_hour / 3600 / rule.requests_per_second_per_replica - 1e-9)


def replica_month(requests_per_hour: Sequence[float], working: Sequence[bool], rule: ScalingRule) -> ReplicaMonth:
    """Run the scaling rule over the hours of a shape and scale the result to a month.

    ``requests_per_hour`` are whole weeks from Monday 00:00, ``working`` a week's 168 working hours.
    """
    needed = [replicas_for(rate, rule) for rate in requests_per_hour]
    most = max(needed) if rule.maximum is None else rule.maximum
    wanted = [min(replicas, most) for replicas in needed]
    peak = max(*wanted, rule.minimum, rule.working_hours, 0 if rule.may_sleep else 1)
    held: list[float] = []
    starts = waiting_hours = 0.0
    for hour, rate in enumerate(requests_per_hour):
        keep = rule.working_hours if working[hour % HOURS_PER_WEEK] else rule.minimum
        if not rule.may_sleep:
            keep = max(keep, 1)
        if keep:
            held.append(float(max(keep, wanted[hour]) if rule.follows_load else peak))
            continue
        sleeping = _sleeping(rate, rule)
        replicas = max(1, wanted[hour] if rule.follows_load else peak)
        held.append(sleeping.awake_share * replicas)
        waiting_hours += sleeping.waiting_share * replicas
        starts += sleeping.new_nodes * replicas
    # A step up between hours starts replicas on new nodes; each costs its start, and its idling out later. Of a tier
    # that may sleep in the later hour, only the share counts that it is awake: its wake-ups are counted already.
    steps = sum(
        (after - before) * min(1.0, after)
        for before, after in zip([held[-1], *held], held, strict=False)
        if after > before
    )
    waiting_hours += steps * (rule.cold_start_s + rule.node_idle_s) / 3600
    per_month = HOURS_PER_MONTH / len(requests_per_hour)
    serving = sum(held) * per_month
    return ReplicaMonth(
        node_hours=serving + waiting_hours * per_month,
        serving_hours=serving,
        starts=(starts + steps) * per_month,
        peak_replicas=peak,
        needed_replicas=max(needed),
        by_hour=tuple(held),
    )


@dataclass(frozen=True, slots=True)
class _Sleeping:
    """An hour of a tier that sleeps while idle."""

    awake_share: float
    waiting_share: float
    """Of the hour, with a paid node that does not serve: starting, or idle before it goes."""
    new_nodes: float


def _sleeping(requests_per_hour: float, rule: ScalingRule) -> _Sleeping:
    """Renewal argument for Poisson arrivals: sleep until one comes, start, stay up until none came for the cooldown.

    Sleep takes ``1 / rate`` on average and the time up is the busy period of arrivals that each keep the tier up for
    the cooldown, ``(exp(rate * cooldown) - 1) / rate``. The node stays for its idle time into the sleep: a request that
    comes before its end starts on it.
    """
    if requests_per_hour <= 0:
        return _Sleeping(0.0, 0.0, 0.0)
    rate = requests_per_hour / 3600
    if rate * rule.cooldown_s > _NEVER_IDLE:
        return _Sleeping(1.0, 0.0, 0.0)
    up = math.expm1(rate * rule.cooldown_s) / rate
    cycle = 1 / rate + rule.cold_start_s + up
    node_gone = math.exp(-rate * rule.node_idle_s)
    idle = (1 - node_gone) / rate
    return _Sleeping(up / cycle, (rule.cold_start_s + idle) / cycle, node_gone * 3600 / cycle)


#: Arrivals expected within a cooldown from which a gap of that length is as good as impossible (exp(-30)).
_NEVER_IDLE = 30.0
