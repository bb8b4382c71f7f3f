"""The month hour by hour: replicas as the autoscaler would hold them, nodes as Karpenter would buy them.

A month is 730 hours, taken as average weeks. One replica takes one node (a pool's nodes have exactly one replica's
GPUs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planning.traffic import HOURS_PER_MONTH


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


def replica_month(requests_per_hour: Sequence[float], working: Sequence[float], rule: ScalingRule) -> ReplicaMonth:
    """Run the scaling rule over the hours of a shape and scale the result to a month.

    ``requests_per_hour`` are whole weeks from Monday 00:00, ``working`` the share of working hours in each of a week's
    168. Hours that are open in part lie between the month in which they are open and the one in which they are not.
    """
    parts = [share for share in working if 0 < share < 1]
    if not parts:
        return _whole_hours(requests_per_hour, [share > 0 for share in working], rule)
    opened = _whole_hours(requests_per_hour, [share > 0 for share in working], rule)
    closed = _whole_hours(requests_per_hour, [share == 1 for share in working], rule)
    share = sum(parts) / len(parts)

    def between(more: float, less: float) -> float:
        return share * more + (1 - share) * less

    return ReplicaMonth(
        node_hours=between(opened.node_hours, closed.node_hours),
        serving_hours=between(opened.serving_hours, closed.serving_hours),
        starts=between(opened.starts, closed.starts),
        peak_replicas=opened.peak_replicas,
        needed_replicas=opened.needed_replicas,
        by_hour=tuple(between(*both) for both in zip(opened.by_hour, closed.by_hour, strict=True)),
    )


def _whole_hours(requests_per_hour: Sequence[float], working: Sequence[bool], rule: ScalingRule) -> ReplicaMonth:
    busiest = replicas_for(max(requests_per_hour), rule)
    most = busiest if rule.maximum is None else rule.maximum
    least = 0 if rule.may_sleep else 1
    in_hours, outside = max(least, rule.working_hours), max(least, rule.minimum)
    week = [in_hours if is_working else outside for is_working in working]
    kept = week * (len(requests_per_hour) // len(week))
    peak = max(min(busiest, most), rule.minimum, rule.working_hours, least)
    if not rule.follows_load:
        wanted = [peak] * len(kept)
    elif busiest <= 1:
        wanted = [min(most, 1) if rate > 0 else 0 for rate in requests_per_hour]
    else:
        ceil, per_replica = math.ceil, 3600 * rule.requests_per_second_per_replica / rule.peak_within_hour
        wanted = [ceil(rate / per_replica - 1e-9) for rate in requests_per_hour]
        if most < busiest:
            wanted = [min(count, most) for count in wanted]
    month = _sleeping_month if 0 in week else _awake_month
    held, starts, waiting_hours = month(requests_per_hour, wanted, kept, rule)
    per_month = HOURS_PER_MONTH / len(requests_per_hour)
    serving = sum(held) * per_month
    return ReplicaMonth(
        node_hours=serving + waiting_hours * per_month,
        serving_hours=serving,
        starts=starts * per_month,
        peak_replicas=peak,
        needed_replicas=busiest,
        by_hour=tuple(held),
    )


def _awake_month(
    _: Sequence[float], wanted: list[int], kept: list[int], rule: ScalingRule
) -> tuple[list[float], float, float]:
    """Mean replicas of each hour, starts, and hours of nodes that do not serve, where some replica is always kept.

    A step up starts replicas on new nodes; each costs its start, and its idling out later. A step down comes when the
    stabilisation window is over.
    """
    if max(wanted) <= min(kept) == max(kept):
        return [float(count) for count in kept], 0.0, 0.0
    window = _window_hours(rule)
    held: list[float] = []
    starts = 0
    before = max(kept[-1], wanted[-1])
    for count, least in zip(wanted, kept, strict=True):
        after = count if count > least else least
        if after >= before:
            starts += after - before
            held.append(float(after))
        else:
            held.append(after + window * (before - after))
        before = after
    return held, float(starts), starts * (rule.cold_start_s + rule.node_idle_s) / 3600


def _sleeping_month(
    requests_per_hour: Sequence[float], wanted: list[int], kept: list[int], rule: ScalingRule
) -> tuple[list[float], float, float]:
    """The same where the last replica sleeps while idle: at every hour, or outside working hours.

    Between two hours, the chance to be awake goes from that of the one to that of the other as a process of two states
    does: this is what the cooldown after closing time costs, and what the first idle minutes of a day save.
    """
    window, start_s = _window_hours(rule), rule.cold_start_s + rule.node_idle_s
    states: dict[float, _Sleeping] = {}
    held: list[float] = []
    starts = waiting_hours = 0.0
    # The last hour of the week comes before its first one.
    last = _sleeping(requests_per_hour[-1], rule)
    awake, gone = (1.0, 0.0) if kept[-1] else (last.awake_share, last.node_gone)
    before = max(kept[-1], wanted[-1], 1)
    for rate, count, least in zip(requests_per_hour, wanted, kept, strict=True):
        if least:
            after = count if count > least else least
            awake_before = before * awake
            serving = after + window * (awake_before - after) if awake_before > after else float(after)
            new = max(0.0, after - awake_before - (1 - awake) * (1 - gone))
            waiting = new * start_s / 3600
            awake, gone = 1.0, 0.0
        else:
            if rate not in states:
                states[rate] = _sleeping(rate, rule)
            state = states[rate]
            after = count or 1
            ahead = awake - state.awake_share
            left = state.left_after_hour
            if after == before and -_SETTLED < ahead < _SETTLED:
                serving, new, waiting = state.awake_share * after, state.new_nodes * after, state.waiting_share * after
            else:
                share = state.awake_share + ahead * state.settling_s / 3600 * (1 - left)
                # The rest of the replicas goes when the window is over, and comes anew in an hour that needs more.
                serving = share * after + window * max(0, before - after) * awake
                more = max(0, after - max(1, before)) * share
                # Wake-ups come out of sleep: of less than usual, fewer. The first of a day finds no node still idle.
                asleep = (1 - share) / (1 - state.awake_share) if state.awake_share < 1 else 0.0
                first = max(0.0, -ahead) * (1 - left)
                new = (state.new_nodes * asleep + first * gone * (1 - state.node_gone)) * after + more
                starting_s = (first * rule.cold_start_s if state.awake_share == 1 else 0.0) * after
                waiting = state.waiting_share * asleep * after + (starting_s + more * start_s) / 3600
            awake = state.awake_share + ahead * left
            gone = state.node_gone
        before = after
        held.append(serving)
        starts += new
        waiting_hours += waiting
    return held, starts, waiting_hours


def _window_hours(rule: ScalingRule) -> float:
    """How long replicas stay after the load that they were for: the autoscaler's stabilisation window."""
    return min(rule.cooldown_s, _LONGEST_WINDOW_S) / 3600 if rule.follows_load else 0.0


@dataclass(frozen=True, slots=True)
class _Sleeping:
    """An hour of a tier that sleeps while idle."""

    awake_share: float
    waiting_share: float
    """Of the hour, with a paid node that does not serve: starting, or idle before it goes."""
    new_nodes: float
    node_gone: float
    """Chance that the next request comes after the idle node went."""
    settling_s: float
    """How fast the chance to be awake comes back to ``awake_share``: the time constant."""
    left_after_hour: float
    """What is left of a difference from ``awake_share`` after an hour."""


def _sleeping(requests_per_hour: float, rule: ScalingRule) -> _Sleeping:
    """Renewal argument for Poisson arrivals: sleep until one comes, start, stay up until none came for the cooldown.

    Sleep takes ``1 / rate`` on average and the time up is the busy period of arrivals that each keep the tier up for
    the cooldown, ``(exp(rate * cooldown) - 1) / rate``. The node stays for its idle time into the sleep: a request that
    comes before its end starts on it.
    """

    def state(awake: float, waiting: float, new_nodes: float, node_gone: float, settling_s: float) -> _Sleeping:
        return _Sleeping(awake, waiting, new_nodes, node_gone, settling_s, math.exp(-3600 / settling_s))

    if requests_per_hour <= 0:
        return state(0.0, 0.0, 0.0, 1.0, rule.cooldown_s)
    rate = requests_per_hour / 3600
    node_gone = math.exp(-rate * rule.node_idle_s)
    if rate * rule.cooldown_s > _NEVER_IDLE:
        return state(1.0, 0.0, 0.0, node_gone, 1 / rate + rule.cold_start_s)
    up = math.expm1(rate * rule.cooldown_s) / rate
    cycle = 1 / rate + rule.cold_start_s + up
    idle = (1 - node_gone) / rate
    awake, waiting = up / cycle, (rule.cold_start_s + idle) / cycle
    return state(awake, waiting, node_gone * 3600 / cycle, node_gone, up * (1 - awake))


#: Arrivals expected within a cooldown from which a gap of that length is as good as impossible (exp(-30)).
_NEVER_IDLE = 30.0

#: A difference in the chance to be awake that no longer matters.
_SETTLED = 1e-9

#: Most that Kubernetes takes for a stabilisation window (autoscaling/v2).
_LONGEST_WINDOW_S = 3600
