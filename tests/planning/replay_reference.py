"""The replay's physics once more, request by request and event by event: slow, plain, and one month at a time.

Written to be read beside ``planning.replay``, which plays many months at once and draws counts where this one follows
each request. What it knows of a deployment is the same.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass

from planning.cold_start import LOAD_WINDOW_S
from planning.replay import LOOK_S, Deployment, Offer

WARM_UP_S = 7200.0


@dataclass
class Node:
    offer: Offer
    launched: float
    taken_back: float
    ready: float = math.inf
    """When its replica serves."""
    emptied: float = math.inf


@dataclass
class Figures:
    usd: float = 0.0
    node_hours: float = 0.0
    serving_hours: float = 0.0
    starts: float = 0.0
    interruptions: float = 0.0
    waited: float = 0.0


class Month:
    def __init__(self, deployment: Deployment, seed: int) -> None:
        self.deployment = deployment
        self.random = random.Random(seed)
        self.end = LOOK_S * len(deployment.load.requests)
        self.events: list[tuple[float, int, str, object]] = []
        self.number = itertools.count()
        self.figures = Figures()
        self.nodes: list[Node] = []  # with a replica, oldest first
        self.empty: list[Node] = []  # last emptied last
        self.running = 0
        self.held: list[float] = []  # stays of the requests that no replica serves yet
        self.window = LOAD_WINDOW_S // LOOK_S
        self.counts: deque[int] = deque(maxlen=self.window)
        self.asked: deque[int] = deque(maxlen=round(min(deployment.cooldown_s, 3600) / LOOK_S))
        self.idle_since = -WARM_UP_S

    def at(self, when: float, what: str, subject: object = None) -> None:
        heapq.heappush(self.events, (when, next(self.number), what, subject))

    def kept(self, now: float) -> int:
        looks = self.deployment.is_open
        is_open = looks[int(now // LOOK_S) % len(looks)]
        return self.deployment.working_hours if is_open else self.deployment.minimum

    def arrivals(self) -> None:
        """A gamma renewal process in equilibrium, whose clock runs at the load's rate; exponential stays."""
        load, cv = self.deployment.load, max(1.0, self.deployment.burstiness)
        now, clock, due = -WARM_UP_S, 0.0, self.random.gammavariate(1 / cv**2 + 1, cv**2) * self.random.random()
        while now < self.end:
            look = int(now // LOOK_S) % len(load.requests)
            rate = load.requests[look] / LOOK_S
            stay = load.replicas[look] * self.deployment.concurrency / rate if rate else 0.0
            until = (now // LOOK_S + 1) * LOOK_S
            while due <= clock + rate * (until - now):
                moment = now + (due - clock) / rate
                self.at(moment, "arrival", self.random.expovariate(1 / stay))
                clock, now = due, moment
                due += self.random.gammavariate(1 / cv**2, cv**2)
            clock, now = clock + rate * (until - now), until

    def play(self) -> Figures:
        self.arrivals()
        for look in range(int(-WARM_UP_S) // LOOK_S, self.end // LOOK_S):
            self.at(float(look * LOOK_S), "look")
        now = -WARM_UP_S
        for _ in range(self.kept(now)):
            self.start(now)
        while self.events and self.events[0][0] < self.end:
            now, _, what, subject = heapq.heappop(self.events)
            getattr(self, what)(now, subject)
        for node in [*self.nodes, *self.empty]:
            self.served(node, self.end)
            self.removed(node, self.end)
        hours = 730 * 3600 / self.end
        return Figures(**{name: getattr(self.figures, name) * hours for name in Figures.__dataclass_fields__})

    def serving(self, now: float) -> bool:
        return any(node.ready <= now for node in self.nodes)

    def arrival(self, now: float, stay: float) -> None:
        if not self.serving(now):
            self.figures.waited += now >= 0
            self.held.append(stay)
            if not self.nodes:
                self.start(now)
        else:
            self.running += 1
            self.at(now + stay, "answer")

    def answer(self, now: float, _: object) -> None:
        self.running -= 1
        if self.running == 0:
            self.idle(now)

    def idle(self, now: float) -> None:
        self.idle_since = now
        self.at(now + self.deployment.cooldown_s, "sleep", now)

    def sleep(self, now: float, since: float) -> None:
        if not self.deployment.may_sleep or self.running or self.held or self.idle_since != since or not self.nodes:
            return
        if self.kept(now) or self.kept(now - 1):
            self.idle(now)
            return
        while self.nodes:
            self.stop(now)

    def ready(self, now: float, node: Node) -> None:
        if node in self.nodes and node.ready == now:
            for stay in self.held:
                self.running += 1
                self.at(now + stay, "answer")
            if not self.held and not self.running:
                self.idle(now)
            self.held.clear()

    def look(self, now: float, _: object) -> None:
        self.counts.append(self.running)
        kept = self.kept(now)
        mean = sum(self.counts) / self.window if self.running else 0.0
        wanted = max(1, kept, math.ceil(mean / self.deployment.target - 1e-9))
        wanted = min(wanted, self.deployment.maximum or wanted)
        self.asked.append(wanted)
        if not self.nodes and kept == 0 and self.deployment.may_sleep:
            return
        while len(self.nodes) < wanted:
            self.start(now)
        while len(self.nodes) > max(self.asked):
            self.stop(now)

    def start(self, now: float) -> None:
        if self.empty:
            node = self.empty.pop()
            node.emptied = math.inf
            node.ready = now + self.deployment.cold_start.engine_s
        else:
            node = self.bought(now)
        self.nodes.append(node)
        self.at(node.ready, "ready", node)

    def bought(self, now: float) -> Node:
        deployment = self.deployment
        on_floor = sum(node.offer is deployment.floor_offer for node in self.nodes)
        if on_floor < deployment.floor:
            offer = deployment.floor_offer
        else:
            offer = next(offer for offer in deployment.offers if self.random.random() < offer.capacity)
        hazard = offer.interruptions_per_hour / 3600
        node = Node(offer, now, now + self.random.expovariate(hazard) if hazard else math.inf)
        node.ready = now + deployment.cold_start.total_s
        self.figures.starts += now >= 0
        self.at(node.taken_back, "notice", node)
        return node

    def notice(self, now: float, node: Node) -> None:
        if node in self.nodes:
            self.figures.interruptions += now >= 0
            self.served(node, now)
            self.removed(node, now + 120)
            self.nodes.remove(node)
            self.start(now)
        elif node in self.empty:
            self.empty.remove(node)
            self.removed(node, now)

    def stop(self, now: float) -> None:
        node = self.nodes.pop()
        self.served(node, now)
        node.emptied = now
        self.empty.append(node)
        self.at(now + self.deployment.node_idle_s, "expire", (node, now))

    def expire(self, now: float, subject: tuple[Node, float]) -> None:
        node, emptied = subject
        if node in self.empty and node.emptied == emptied:
            self.empty.remove(node)
            self.removed(node, now)

    def served(self, node: Node, until: float) -> None:
        if node.emptied == math.inf:
            self.figures.serving_hours += max(0.0, until - max(0.0, node.ready)) / 3600 if until > 0 else 0.0

    def removed(self, node: Node, until: float) -> None:
        hours = (min(self.end, max(0.0, until)) - max(0.0, node.launched)) / 3600
        if hours > 0:
            self.figures.node_hours += hours
            self.figures.usd += hours * node.offer.usd_per_hour
