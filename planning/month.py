"""The month hour by hour: replicas as the autoscaler would hold them, nodes as Karpenter would buy them.

A month is 730 hours, taken as average weeks. One replica takes one node (a pool's nodes have exactly one replica's
GPUs).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from planning.cold_start import AUTOSCALER_LOOK_S, LOAD_WINDOW_S, scale_down_window_s
from planning.traffic import HOURS_PER_MONTH, STEADY, Bursts


@dataclass(frozen=True, slots=True)
class Scatter:
    """What random arrivals leave in the load that the autoscaler reads: the mean number running over the load window,
    in replicas.
    """

    variance: float
    """For every replica of load."""
    crossings: float
    """Times in a load window that it goes up through its mean level, over the normal density there."""


def scatter(arrival_cv: float, stay_s: float, load_window_s: float, requests_per_second: float) -> Scatter:
    """Of a replica that is full at ``requests_per_second``, each of which stays for ``stay_s`` on average.

    The number running varies as in a queue with servers for all: by its mean for Poisson arrivals, by the mean of that
    and of the squared variation for bursts. It forgets itself exponentially within a stay, so its mean over a window
    varies less. That goes up through a level as often as Rice's formula says (1944), less what no look sees.
    """
    if math.isinf(load_window_s) or not requests_per_second:
        return NO_SCATTER
    # A mean of looks, each of which remembers the one before it.
    looks, memory = load_window_s / AUTOSCALER_LOOK_S, math.exp(-AUTOSCALER_LOOK_S / stay_s)
    forgets = 1 - memory
    left = (1 + 2 * memory / forgets - 2 * memory * (1 - memory**looks) / (looks * forgets**2)) / looks
    crossings = (math.pi * left / -math.expm1(-load_window_s / stay_s) + _BETWEEN_LOOKS) ** -0.5
    return Scatter(left * (1 + arrival_cv**2) / 2 / (requests_per_second * stay_s), crossings)


NO_SCATTER = Scatter(0.0, 0.0)

#: For looks every 15 s at a window of 300 s, from simulated means of such counts with stays of 7 to 45 s.
_BETWEEN_LOOKS = 0.25


@dataclass(frozen=True, slots=True)
class ScalingRule:
    """How replicas follow the load of one deployment."""

    requests_per_second_per_replica: float
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
    """Idle time before the last replica goes, and time that others stay after the load that they were for."""
    node_idle_s: float
    """Time an empty node is kept."""
    maximum: int | None = None
    """Most replicas; requests beyond them wait."""
    bursts: Bursts = STEADY
    """How the load moves within an hour."""
    prefill_share: float = 0.0
    """Of a replica's time at its largest rate: how much of the load follows the prompts and not the answers."""
    scatter: Scatter = NO_SCATTER


@dataclass(frozen=True, slots=True)
class ReplicaMonth:
    """Node hours of one deployment in a month."""

    node_hours: float
    """All that is paid: serving, starting, idling out."""
    starts: float
    """Replicas started, each on a new node."""
    peak_replicas: int
    """What the busiest load window needs, as far as a maximum allows it."""
    needed_replicas: int
    """What the busiest load window needs; above ``peak_replicas`` where a maximum holds them back."""
    by_hour: tuple[float, ...]
    """Mean replicas of every hour of the shape."""


def both(one: ReplicaMonth, other: ReplicaMonth) -> ReplicaMonth:
    """Two deployments as one."""
    return ReplicaMonth(
        node_hours=one.node_hours + other.node_hours,
        starts=one.starts + other.starts,
        peak_replicas=one.peak_replicas + other.peak_replicas,
        needed_replicas=one.needed_replicas + other.needed_replicas,
        by_hour=tuple(map(sum, zip(one.by_hour, other.by_hour, strict=True))),
    )


def replicas_for(requests_per_hour: float, rule: ScalingRule) -> int:
    """Replicas that carry the busiest load window of an hour with so many requests of mean length; 0 for none."""
    return math.ceil(requests_per_hour * rule.bursts.peak / 3600 / rule.requests_per_second_per_replica - 1e-9)


def replica_month(
    requests_per_hour: Sequence[float], load_per_hour: Sequence[float], working: Sequence[float], rule: ScalingRule
) -> ReplicaMonth:
    """Run the scaling rule over the hours of a shape and scale the result to a month.

    ``requests_per_hour`` start on Monday 00:00, ``load_per_hour`` counts the same hours in requests of mean length, and
    ``working`` is the share of working hours in each of a week's 168. Hours that are open in part lie between the month
    in which they are open and the one in which they are not.
    """
    parts = [share for share in working if 0 < share < 1]
    if not parts:
        return _whole_hours(requests_per_hour, load_per_hour, [share > 0 for share in working], rule)
    opened = _whole_hours(requests_per_hour, load_per_hour, [share > 0 for share in working], rule)
    closed = _whole_hours(requests_per_hour, load_per_hour, [share == 1 for share in working], rule)
    share = sum(parts) / len(parts)

    def between(more: float, less: float) -> float:
        return share * more + (1 - share) * less

    return ReplicaMonth(
        node_hours=between(opened.node_hours, closed.node_hours),
        starts=between(opened.starts, closed.starts),
        peak_replicas=opened.peak_replicas,
        needed_replicas=opened.needed_replicas,
        by_hour=tuple(between(*both) for both in zip(opened.by_hour, closed.by_hour, strict=True)),
    )


def _whole_hours(
    requests_per_hour: Sequence[float], load_per_hour: Sequence[float], working: Sequence[bool], rule: ScalingRule
) -> ReplicaMonth:
    hours = len(requests_per_hour)
    busiest = replicas_for(max(load_per_hour), rule)
    most = busiest if rule.maximum is None else rule.maximum
    least = 0 if rule.may_sleep else 1
    in_hours, outside = max(least, rule.working_hours), max(least, rule.minimum)
    week = [in_hours if is_working else outside for is_working in working]
    kept = (week * -(-hours // len(week)))[:hours]
    peak = max(min(busiest, most), rule.minimum, rule.working_hours, least)
    wanted, started = (float(peak),) * hours, (0.0,) * hours
    if rule.follows_load:
        levels = _Levels(rule, load_per_hour)
        kinds = list(zip(levels.rounded(load_per_hour), kept, strict=True))
        known = levels.of_all(set(kinds))
        wanted, started = zip(*(known[kind] for kind in kinds), strict=True)
    month = _sleeping_month if 0 in week else _awake_month
    held, starts, waiting_hours = month(requests_per_hour, wanted, kept, rule)
    # Nothing comes and goes by chance while a tier sleeps.
    chance = sum(
        by_chance * min(1.0, awake / count)
        for by_chance, awake, count in zip(started, held, wanted, strict=True)
        if by_chance
    )
    starts, waiting_hours = starts + chance, waiting_hours + chance * rule.node_idle_s / 3600
    per_month = HOURS_PER_MONTH / hours
    return ReplicaMonth(
        node_hours=(sum(held) + waiting_hours) * per_month,
        starts=starts * per_month,
        peak_replicas=peak,
        needed_replicas=busiest,
        by_hour=tuple(held),
    )


class _Levels:
    """Replicas that the autoscaler holds at a steady load: the most that any look of its window asked for.

    The load moves with the traffic's bursts and by chance. A burst is longer than a load window, so chance is what
    comes on top of the busiest one, while that lasts.
    """

    def __init__(self, rule: ScalingRule, load_per_hour: Sequence[float]) -> None:
        self._rule = rule
        self._most = math.inf if rule.maximum is None else rule.maximum
        self._steady, self._busiest = len(set(load_per_hour)) == 1, max(load_per_hour)
        window_s, bursts = 3600 * _window_hours(rule), rule.bursts
        self._burst, self._peak = bursts.held(window_s), bursts.peak
        # The busiest moment of a whole period is no matter of luck, that of a part is.
        luck = math.sqrt(max(0.0, 1 - window_s / bursts.period_s))
        self._burst_spread = luck * bursts.deviation * _spread_of_largest(1 + window_s / bursts.lasts_s)
        # Where hours differ, the luck of one makes up for that of another.
        self._points = ((0.0, 1.0),)
        if self._burst_spread and self._steady:
            self._points = _points_below((self._peak - self._burst) / self._burst_spread)
        self._rises = 0.0 if self._steady else bursts.rises_per_hour(window_s)
        # Chance matters while the busiest load of the window lasts.
        at_top_s = min(window_s, bursts.lasts_s) if bursts.peak > 1 else window_s
        self._windows, self._at_top = at_top_s / LOAD_WINDOW_S, at_top_s / window_s if window_s else 1.0
        self._bursts_per_hour = 3600 / window_s if window_s else 0.0

    def rounded(self, load_per_hour: Sequence[float]) -> Sequence[float]:
        """Loads to a hundredth of the busiest hour's, where chance blurs more than that: hours then share a level."""
        if self._steady or not self._rule.scatter.variance or not self._busiest:
            return load_per_hour
        step = self._busiest / 100
        return [math.ceil(load / step - 0.5) * step for load in load_per_hour]

    def of_all(self, hours: Iterable[tuple[float, int]]) -> Mapping[tuple[float, int], tuple[float, float]]:
        """Of hours, by load and replicas kept, what ``of`` says of each."""
        found: dict[tuple[float, int], tuple[float, float]] = {}
        enough: set[int] = set()
        for load, kept in sorted(hours, reverse=True):
            least = kept or 1
            # What carries a load carries a smaller one.
            found[load, kept] = (float(least), 0.0) if kept in enough and load > 0 else self.of(load, least)
            if found[load, kept][0] <= least:
                enough.add(kept)
        return found

    def of(self, load_per_hour: float, kept: int) -> tuple[float, float]:
        """Mean replicas held, at least those kept in any case, and how many come and go by chance in an hour.

        0 where there is no load.
        """
        load = load_per_hour / 3600 / self._rule.requests_per_second_per_replica
        if load <= 0:
            return 0.0, 0.0
        mean = starts = 0.0
        seen: list[tuple[float, float]] = []
        for deviations, weight in self._points:
            burst = min(max(1.0, self._burst + deviations * self._burst_spread), self._peak)
            count, started = self._by_chance(load * burst, kept)
            mean, starts = mean + weight * count, starts + weight * started * self._at_top
            # From one window's bursts to those of the next.
            starts += sum(weight * other * abs(count - before) for before, other in seen) * self._bursts_per_hour
            seen.append((count, weight))
        # What a burst starts, chance need not.
        return mean, max(starts, load * self._rises if mean > kept else 0.0)

    def _by_chance(self, load: float, kept: int) -> tuple[float, float]:
        """The same where the load is so many replicas but for random arrivals.

        The load that is read is taken as a Poisson number of equal pieces (its tail by Wilson and Hilferty 1931); a
        level is not passed within a time in which no crossing of it comes, and these come at random.
        """
        scatter = self._rule.scatter
        if not scatter.variance:
            return float(min(max(kept, math.ceil(load - 1e-9)), self._most)), 0.0
        pieces = load / scatter.variance
        count = max(kept, math.floor(load * max(0.0, 1 - _FARTHEST / math.sqrt(pieces))))
        mean, starts = float(count), 0.0
        while count < self._most:
            most = count / scatter.variance + _HALF_A_PIECE
            above = (1 - 1 / (9 * most) - (pieces / most) ** (1 / 3)) * 3 * math.sqrt(most)
            if above > _FARTHEST:
                break
            # What lies further below is as good as never there.
            below = math.erfc(-max(above, -_FARTHEST) / math.sqrt(2)) / 2
            crossings = scatter.crossings * math.exp(-above * above / 2) / math.sqrt(2 * math.pi) / below
            held_below = below * math.exp(-crossings * self._windows)
            mean += 1 - held_below
            # A node that is still there is taken again.
            per_hour = crossings * 3600 / LOAD_WINDOW_S
            starts += held_below * per_hour * math.exp(-per_hour * self._rule.node_idle_s / 3600)
            count += 1
        return min(mean, self._most), starts


def _points_below(highest: float) -> tuple[tuple[float, float], ...]:
    """Points and weights with mean 0 and variance 1, none above ``highest``; a normal's where that is far enough."""
    above = min(highest, math.sqrt(3))
    if above < 1 / math.sqrt(3):
        above = max(above, 0.1)
        return ((-1 / above, above**2 / (1 + above**2)), (above, 1 / (1 + above**2)))
    below = math.sqrt(3)
    low, high = 1 / (below * (above + below)), 1 / (above * (above + below))
    return ((-below, low), (0.0, 1 - low - high), (above, high))


#: What makes the steps of a Poisson number a smooth curve: a half in its middle, a quarter in its tail.
_HALF_A_PIECE = 1 / 3

#: Standard deviations beyond which nothing is counted.
_FARTHEST = 4.5


def _spread_of_largest(count: float) -> float:
    """Standard deviation of the largest of ``count`` normal values, in theirs.

    Within 0.01 of the tables of normal order statistics up to 100 values (Harter 1961): 0.826 of 2, 0.587 of 10.
    """
    return 1 / (1 + 0.3 * math.log(count))


def _awake_month(
    _: Sequence[float], wanted: Sequence[float], kept: list[int], rule: ScalingRule
) -> tuple[list[float], float, float]:
    """Mean replicas of each hour, starts, and hours of nodes without a replica, where some replica is always kept.

    A step up starts replicas on new nodes, which idle out one day. A step down comes when the stabilisation window is
    over. A replica counts from its order.
    """
    if max(wanted) <= min(kept) == max(kept):
        return [float(count) for count in kept], 0.0, 0.0
    window = _window_hours(rule)
    held: list[float] = []
    starts = 0.0
    before = max(kept[-1], wanted[-1])
    for count, least in zip(wanted, kept, strict=True):
        after = count if count > least else least
        if after >= before:
            starts += after - before
            held.append(float(after))
        else:
            held.append(after + window * (before - after))
        before = after
    return held, starts, starts * rule.node_idle_s / 3600


def _sleeping_month(
    requests_per_hour: Sequence[float], wanted: Sequence[float], kept: list[int], rule: ScalingRule
) -> tuple[list[float], float, float]:
    """The same where the last replica sleeps while idle: at every hour, or outside working hours.

    Between two hours, the chance to be awake goes from that of the one to that of the other as a process of two states
    does: this is what the cooldown after closing time costs, and what the first idle minutes of a day save. The first
    replica counts from its first answer; its start is with the hours of nodes that do not serve.
    """
    window = _window_hours(rule)
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
            waiting = new * rule.node_idle_s / 3600
            awake, gone = 1.0, 0.0
        else:
            if rate not in states:
                states[rate] = _sleeping(rate, rule)
            state = states[rate]
            after = count or 1
            ahead = awake - state.awake_share
            left = state.left_after_hour
            if after == before and -_SETTLED < ahead < _SETTLED:
                serving, new, waiting = state.awake_share * after, state.new_nodes, state.waiting_share
            else:
                share = state.awake_share + ahead * state.settling_s / 3600 * (1 - left)
                # The rest of the replicas goes when the window is over, and comes anew in an hour that needs more.
                serving = share * after
                more = 0.0
                if after < before:
                    serving += window * (before - after) * awake
                elif after > 1:
                    more = (after - (before if before > 1 else 1)) * share
                # Wake-ups come out of sleep: of less than usual, fewer. The first of a day finds no node still idle.
                asleep = (1 - share) / (1 - state.awake_share) if state.awake_share < 1 else 0.0
                first = -ahead * (1 - left) if ahead < 0 else 0.0
                new = state.new_nodes * asleep + first * gone * (1 - state.node_gone) + more
                starting_s = first * rule.cold_start_s if state.awake_share == 1 else 0.0
                waiting = state.waiting_share * asleep + (starting_s + more * rule.node_idle_s) / 3600
            awake = state.awake_share + ahead * left
            gone = state.node_gone
        before = after
        held.append(serving)
        starts += new
        waiting_hours += waiting
    return held, starts, waiting_hours


def _window_hours(rule: ScalingRule) -> float:
    """The autoscaler's stabilisation window, where it follows the load."""
    return scale_down_window_s(rule.cooldown_s) / 3600 if rule.follows_load else 0.0


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
