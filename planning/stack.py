"""From a configuration to the whole plan: the one place where the rooms of the planner meet."""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from planning import tiers as tier_plans
from planning.advice import advice, with_api
from planning.arns import arn_problems
from planning.bill import Levers, StackBills, TierBill, TierDemand, Unservable
from planning.budget import over_budget
from planning.cautions import stack_warnings
from planning.cluster import cluster_plan, cluster_problems
from planning.demands import (
    capacity_problems,
    node_image_problems,
    region_problems,
    still_wrong,
    tier_demand,
    usable_offerings,
)
from planning.details import Details, details
from planning.disaggregation import disaggregation_problems
from planning.facts.instances import Offering
from planning.facts.node_images import NodeImage
from planning.fixed import (
    BYTES_PER_INPUT_TOKEN,
    BYTES_PER_OUTPUT_TOKEN,
    FixedCosts,
    FixedUsage,
    KvStoreUsage,
    fixed_costs,
    support_warnings,
    system_nodes,
)
from planning.fleet import NodeCosts, Policy
from planning.limits import limits
from planning.memory import kv_bytes_per_sequence
from planning.model_router import model_router_plan
from planning.network import address_problem, network_plan, network_problems
from planning.options import Market
from planning.plan import Forecast, NetworkPlan, Plan, SchedulePlan, SystemNodesPlan, WhatIf
from planning.price_dates import LivePrices, PriceUse, age_warning, compute_prices, oldest_date
from planning.ranges import month_range, tier_costs
from planning.savings import baseline_levers, waterfall
from planning.speed import COST_BAND_THIN
from planning.timeouts import model_router_problems, timeout_problems
from planning.traffic import DAYS_PER_MONTH, Shape
from planning.variants import Month, Variants
from problems import NAMESPACE, ConfigurationError, Problem
from reading import Reading, read
from settings import SECRET_KEYS, LatencyTarget, StackSettings, TierSettings, open_hours

#: The stricter target that the report always answers for, beside the stack's own.
TARGET_TPOT_WHAT_IF_MS = 50.0


def plan_config(
    region: object,
    config: Mapping[str, object],
    encrypted: Collection[str] = SECRET_KEYS,
    today: date | None = None,
    live: LivePrices | None = None,
    *,
    hard_budget: bool = True,
) -> tuple[StackSettings, Plan]:
    """Read and plan a stack from its raw configuration. Raises ``ConfigurationError`` with every problem of it.

    ``encrypted``: the keys whose values are stored encrypted. ``today``: the first day of the month; it decides which
    prices are old and whether the Kubernetes version nears its end. None: the plan says nothing of either. ``live``:
    prices in place of the snapshot's. ``hard_budget`` False: over its budget a stack is planned all the same, with a
    warning.
    """
    stack = _read(region, config, encrypted, live, hard_budget=hard_budget)
    return stack.settings, stack.plan(today, hard_budget=hard_budget)


def detailed_plan(
    region: object,
    config: Mapping[str, object],
    encrypted: Collection[str] = SECRET_KEYS,
    today: date | None = None,
    live: LivePrices | None = None,
) -> tuple[Plan, Details]:
    """The plan of ``plan_config``, with everything that the report's page shows beside it."""
    stack = _read(region, config, encrypted, live)
    return stack.plan(today), stack.details()


def _read(
    region: object,
    config: Mapping[str, object],
    encrypted: Collection[str],
    live: LivePrices | None,
    *,
    hard_budget: bool = True,
) -> _Stack:
    reading = read(region, config, encrypted)
    if reading.settings is None:
        raise ConfigurationError([*reading.problems, *(region_problems(region) if isinstance(region, str) else ())])
    return _Stack.look_up(reading.settings, reading, live, hard_budget=hard_budget)


@dataclass(frozen=True, slots=True)
class Planned:
    """The chosen fleets of a stack under some traffic, and what they are chosen from."""

    bill: tuple[TierBill, ...]
    fixed_usd: float
    policy: Policy
    costs: NodeCosts
    working: tuple[float, ...]
    """Share of each of a week's hours that is working hours."""
    requests_per_day: Mapping[str, float]
    """By tier."""


def plan_under(
    region: object, config: Mapping[str, object], encrypted: Collection[str], week: Shape, scale: float
) -> Planned:
    """Choose the fleets of a stack with every tier's traffic in another shape, and ``scale`` times as much of it.

    Raises ``ConfigurationError`` with every problem of the configuration; budgets are not looked at.
    """
    return _read(region, config, encrypted, None).under(week, scale)


def _scaled(tier: TierSettings, scale: float) -> TierSettings:
    traffic = tier.traffic
    rate = traffic.requests_per_day * scale
    # Paused it would not follow the traffic, which is what is asked here.
    scaled = {"traffic": traffic.model_copy(update={"requests_per_day": rate}), "paused_replicas": None}
    return tier.model_copy(update=scaled)


@dataclass(frozen=True, slots=True)
class _Baseline:
    levers: Levers
    usd: float
    description: str
    poorly_measured: bool
    """It runs on several GPUs over PCIe, where the speed formula is least sure."""


@dataclass(frozen=True, slots=True)
class _Stack:
    """Settings with every name looked up."""

    settings: StackSettings
    demands: tuple[TierDemand, ...]
    bills: StackBills
    live: LivePrices | None

    @classmethod
    def look_up(
        cls, settings: StackSettings, reading: Reading, live: LivePrices | None = None, *, hard_budget: bool = True
    ) -> _Stack:
        """Find what the settings of a reading name.

        Raises ``ConfigurationError`` with the reading's problems, those of what is not there, and those that a plan of
        all that is sound has.
        """
        region_wrong = region_problems(settings.region)
        of_stack = capacity_problems(settings.capacity)
        # Of a version that does not run here, no image need be there.
        of_cluster = cluster_problems(settings)
        if not (of_cluster or reading.lacks("cluster", "kubernetesVersion") or reading.lacks("capacity", "amiAlias")):
            of_cluster = node_image_problems(settings)
        of_stack += [*of_cluster, *_network_problems(settings, reading, region_known=not region_wrong)]
        problems = [*reading.problems]
        # A region that is missing has its problem already.
        problems += [] if any(problem.path == "aws:region" for problem in problems) else region_wrong
        problems += [*of_stack, *([] if region_wrong else arn_problems(settings))]
        working = open_hours(settings.schedule.working_hours)
        offered = usable_offerings(
            settings.region, settings.capacity, settings.cluster.kubernetes_version, live.offerings if live else ()
        )
        broken_sections = {place[0] for place in reading.left_out}

        def demand_of(tier: TierSettings, position: int) -> tuple[TierDemand | None, list[Problem]]:
            demand, wrong = tier_demand(tier, _path(position), working, offered)
            # What peak a profile can have rests on the working hours.
            unsure = ".traffic.peakOverMean" if "schedule" in broken_sections else ""
            return demand, [problem for problem in wrong if not (unsure and problem.path.endswith(unsure))]

        found: dict[int, TierDemand] = {}
        shortened: set[int] = set()
        for position, tier in zip(reading.tier_positions, settings.tiers, strict=True):
            demand, wrong = demand_of(tier, position)
            problems += wrong
            # The bill knows tiers by their names: of two with one name it is the first's.
            if demand is not None and tier.name not in {other.settings.name for other in found.values()}:
                found[position] = demand
                shortened |= {position} if wrong else set()
        for broken in reading.broken_tiers:
            wrong = demand_of(broken.settings, broken.position)[1]
            problems += still_wrong(wrong, _path(broken.position), broken.left_out)
        if region_wrong:
            raise ConfigurationError(problems)
        bills = _bills(settings, tuple(found.values()), Market(offered), working)
        for position, demand in [*found.items()]:
            problem = _unservable(_path(position), demand, bills)
            if problem:
                problems += [] if position in shortened else [problem]
                del found[position]
        if not problems:
            return cls(settings, tuple(found.values()), bills, live)
        whole = 0 < len(found) == len(settings.tiers) and not (
            of_stack or shortened or reading.broken_tiers or reading.left_out
        )
        if whole:
            try:
                cls(settings, tuple(found.values()), bills, live).plan(None, hard_budget=hard_budget)
            except ConfigurationError as error:
                problems += error.problems
        else:
            problems += _problems_of(settings, found, bills, broken_sections)
        raise ConfigurationError(problems)

    def plan(self, today: date | None, *, hard_budget: bool = True) -> Plan:
        """Choose, price and report. Raises ``ConfigurationError`` when the plan is over a hard budget."""
        bill = self.bills.bill(Levers())
        fixed, nodes, network = _fixed(self.settings, self.demands, bill, self.bills.market)
        most = limits(self.settings.budget, self.demands, self.bills, bill, fixed.usd)
        plans, pools = tier_plans.tier_plans(self.settings, self.demands, bill, most)
        crowded = address_problem(network, nodes.maximum + sum(tier.replicas.maximum for tier in plans))
        baseline = self._baseline(fixed)
        expected = sum(part.usd for part in bill) + fixed.usd
        total, drivers = month_range(self.bills, bill, fixed)
        costs, against_apis = with_api(
            tier_costs(self.demands, self.bills, bill), self.demands, self.bills, bill, fixed.usd
        )
        prices = (*compute_prices(bill), *fixed.prices)
        forecast = Forecast(
            total=total,
            baseline_usd=baseline.usd,
            baseline_description=baseline.description,
            items=(*tier_plans.compute_items(bill), *fixed.items),
            tiers=costs,
            savings=waterfall(self.bills, fixed.usd, baseline.levers, baseline.usd, expected),
            drivers=drivers,
            what_ifs=self._what_ifs(fixed),
            prices_as_of=oldest_date(prices),
            price_source=_LIVE_SOURCE if self.live and self.live.offerings else _PRICE_SOURCE,
            budget_usd=self.settings.budget.monthly_usd,
            budget_compare=self.settings.budget.compare,
        )
        plan = Plan(
            region=self.settings.region,
            tiers=plans,
            default_tier=self.settings.default_tier,
            routing_header=self.settings.routing.header,
            model_router=model_router_plan(self.settings, self.demands, bill),
            node_pools=pools,
            node_image=NodeImage.of(self.settings.capacity.ami_alias),
            system_nodes=nodes,
            cluster=cluster_plan(self.settings),
            network=network,
            schedule=self._schedule(),
            forecast=forecast,
            alternatives=tier_plans.alternatives(self.bills, bill, self.demands),
            warnings=(),
            advice=(*against_apis, *advice(self.demands, self.bills, bill)),
        )
        ranged = total if self.settings.budget.compare == "high" else None
        over = self._over_budget(Month(bill, fixed, ranged))
        hard = hard_budget and self.settings.budget.when_exceeded == "fail"
        refused = [problem for problem in (crowded, over if hard else None) if problem]
        planned = dict(enumerate(plans))
        refused += timeout_problems(self.settings, planned)
        refused += model_router_problems(plan.model_router, plans) if plan.model_router else []
        refused += disaggregation_problems(self.settings, planned)
        if refused:
            raise ConfigurationError(refused)
        of_today = _of_today(prices, self.settings, today)
        if self.live and self.live.warning:
            of_today = (self.live.warning, *of_today)
        warnings = stack_warnings(self.settings, bill, plan, baseline=baseline.levers, over=over, today=of_today)
        if baseline.poorly_measured:
            warnings = ("the baseline runs on GPUs over PCIe, which are poorly measured: it may be 40 % off", *warnings)
        unbound = most.warning(self.settings.budget)
        return replace(plan, warnings=(*warnings, unbound) if unbound else warnings)

    def details(self) -> Details:
        """What the page of the report shows beside the plan."""
        bill = self.bills.bill(Levers())
        fixed, _, _ = _fixed(self.settings, self.demands, bill, self.bills.market)
        return details(self.demands, self.bills, bill, fixed.prices)

    def _baseline(self, fixed: FixedCosts) -> _Baseline:
        """The bill that nobody can call a straw man: the cheapest on-demand fleet with every lever off."""
        levers = baseline_levers(self.bills)
        bill = self.bills.bill(levers)
        fleets = "; ".join(
            f"{part.search.demand.architecture.model_id} ({part.fleet.option.checkpoint.method}) on "
            f"{part.paid.month.peak_replicas} x {part.fleet.pool[0].instance.name}"
            for part in bill
        )
        scope = "all requests on " if len(bill) == 1 else ""
        limits = "" if levers.batching else "vLLM's default limits, "
        description = f"{scope}{fleets}, on-demand around the clock, {limits}same fixed costs"
        poorly_measured = any(part.fleet.option.cost_band == COST_BAND_THIN for part in bill)
        return _Baseline(levers, sum(part.usd for part in bill) + fixed.usd, description, poorly_measured)

    def under(self, week: Shape, scale: float) -> Planned:
        """The same stack with every tier's traffic in another shape, and ``scale`` times as much of it."""
        demands = tuple(
            replace(demand, settings=_scaled(demand.settings, scale), shape=week) for demand in self.demands
        )
        bills = _bills(self.settings, demands, self.bills.market, self.bills.working)
        bill = bills.bill(Levers())
        fixed, _, _ = _fixed(self.settings, demands, bill, bills.market)
        rates = {demand.settings.name: demand.settings.traffic.mean_requests_per_day for demand in demands}
        return Planned(bill, fixed.usd, bills.policy(Levers()), bills.node_costs(), bills.working, rates)

    def _over_budget(self, month: Month) -> Problem | None:
        variants = stack_variants(self.live)
        variants.remember(self.settings, self.demands, month.tiers)
        return over_budget(self.settings, month, variants)

    def _what_ifs(self, fixed: FixedCosts) -> tuple[WhatIf, ...]:
        """The saving under a weaker and under a stricter requirement, so that neither is hidden in the headline."""
        changes: list[tuple[str, list[TierSettings]]] = []
        tiers = self.settings.tiers
        if any(tier.min_replicas > 1 for tier in tiers):
            single = [
                tier.model_copy(
                    update={"min_replicas": min(1, tier.min_replicas), "on_demand_floor": min(1, tier.on_demand_floor)}
                )
                for tier in tiers
            ]
            changes.append(("one replica at least", single))
        if any(tier.slo.tpot_ms > TARGET_TPOT_WHAT_IF_MS for tier in tiers if tier.quantization != "gguf"):
            strict = [
                tier.model_copy(
                    update={
                        "slo": tier.slo.model_copy(update={"tpot_ms": min(tier.slo.tpot_ms, TARGET_TPOT_WHAT_IF_MS)})
                    }
                )
                if tier.quantization != "gguf"
                else tier
                for tier in tiers
            ]
            changes.append((f"TPOT {TARGET_TPOT_WHAT_IF_MS:.0f} ms", strict))
        return tuple(what_if for name, changed in changes if (what_if := self._what_if(name, changed, fixed)))

    def _what_if(self, name: str, changed: list[TierSettings], fixed: FixedCosts) -> WhatIf | None:
        demands = tuple(replace(demand, settings=tier) for demand, tier in zip(self.demands, changed, strict=True))
        bills = _bills(self.settings, demands, self.bills.market, self.bills.working)
        try:
            expected = sum(part.usd for part in bills.bill(Levers())) + fixed.usd
            baseline = sum(part.usd for part in bills.bill(baseline_levers(bills))) + fixed.usd
        except Unservable:
            return None
        return WhatIf(name, expected, baseline, 100 * (baseline - expected) / baseline)

    def _schedule(self) -> SchedulePlan | None:
        hours = self.settings.schedule.working_hours
        return SchedulePlan(self.settings.schedule.timezone, hours.start, hours.end) if hours else None


def _path(position: int) -> str:
    return f"{NAMESPACE}:tiers[{position}]"


def _network_problems(settings: StackSettings, reading: Reading, *, region_known: bool) -> list[Problem]:
    """What is wrong with the network, as far as it does not rest on what is left out or on an unknown region.

    Zones rest on the region and themselves, everything else on the whole section.
    """
    least_zones = max([2, *(min(tier.min_replicas, 3) for tier in settings.tiers)])
    zones_known = region_known and not reading.lacks("network", "zones")
    whole = not any(place[0] == "network" for place in reading.left_out)
    return [
        problem
        for problem in network_problems(settings.region, settings.network, least_zones)
        if (zones_known if problem.path.startswith(f"{NAMESPACE}:network.zones") else whole)
    ]


def _problems_of(
    settings: StackSettings, found: Mapping[int, TierDemand], bills: StackBills, broken: Collection[int | str]
) -> list[Problem]:
    """What is wrong in the plans of tiers, by position, of a stack that cannot be planned as a whole.

    Only what does not rest on sections that are ``broken``. Not told: what all tiers make together, which is the
    budget and the addresses.
    """
    if not found:
        return []
    demands = tuple(found.values())
    settings = settings.model_copy(update={"tiers": tuple(demand.settings for demand in demands)})
    bills = _bills(settings, demands, bills.market, bills.working)
    bill = bills.bill(Levers())
    plans, _ = tier_plans.tier_plans(settings, demands, bill, limits(settings.budget, demands, bills, bill, 0.0))
    planned = dict(zip(found, plans, strict=True))
    # Spot gives little time to stop, and what nodes there are decides how long they take to start.
    problems = [] if "capacity" in broken else timeout_problems(settings, planned)
    # Whether it pays depends on what nodes cost and how long they are kept.
    if not {"capacity", "scaling", "schedule"} & {*broken}:
        problems += disaggregation_problems(settings, planned)
    return problems


def stack_variants(live: LivePrices | None = None) -> Variants:
    """What plans variants of any stack at the same prices."""
    offered = live.offerings if live else ()
    return Variants(lambda settings, demands, bill, market: _fixed(settings, demands, bill, market)[0], offered)


def _fixed(
    settings: StackSettings,
    demands: Sequence[TierDemand],
    bill: Sequence[TierBill],
    market: Market,
) -> tuple[FixedCosts, SystemNodesPlan, NetworkPlan]:
    """What the stack costs beside its models' nodes, and the two plans that it is counted from."""
    routers = tuple(tier_plans.tier_router(*each) for each in zip(demands, bill, strict=True))
    nodes, node = system_nodes(routers, market.offerings, model_router_plan(settings, demands, bill))
    network = network_plan(settings.region, settings.network)
    return fixed_costs(_fixed_usage(settings, demands, bill, node, network, nodes)), nodes, network


def _fixed_usage(
    settings: StackSettings,
    demands: Sequence[TierDemand],
    bill: Sequence[TierBill],
    node: Offering,
    network: NetworkPlan,
    nodes: SystemNodesPlan,
) -> FixedUsage:
    requests = asked_gb = answered_gb = 0.0
    for demand in demands:
        if demand.settings.paused_replicas == 0:
            continue  # Its requests end in its router.
        traffic = demand.settings.traffic
        monthly = traffic.mean_requests_per_day * DAYS_PER_MONTH
        requests += monthly
        asked_gb += monthly * traffic.input_tokens * BYTES_PER_INPUT_TOKEN / 1e9
        answered_gb += monthly * traffic.output_tokens * BYTES_PER_OUTPUT_TOKEN / 1e9
    weights = {part.fleet.option.checkpoint.repository: part.fleet.option.checkpoint.weights_gb for part in bill}
    return FixedUsage(
        region=settings.region,
        zones=len(network.zones),
        nat_gateways=network.nat_gateways,
        public_load_balancer=settings.network.ingress_scheme == "internet-facing",
        system_nodes=nodes,
        system_node=node,
        prometheus_gib=settings.observability.storage_gib,
        checkpoints_gb=sum(weights.values()),
        requests_per_month=requests,
        gb_per_month=asked_gb + answered_gb,
        answers_gb_per_month=answered_gb,
        control_plane_logs=bool(settings.observability.control_plane_logs),
        log_retention_days=settings.observability.log_retention_days,
        interface_endpoints=len(network.interface_endpoints),
        kubernetes_version=settings.cluster.kubernetes_version,
        own_secrets_key=settings.cluster.secrets_key_arn is None,
        kv_stores=tuple(_kv_store_usage(demand) for demand in demands if _shares_kv(demand)),
        pod_hops=2 if settings.routing.by_model_field else 1,
    )


def _bills(
    settings: StackSettings,
    demands: tuple[TierDemand, ...],
    market: Market,
    working: tuple[float, ...],
) -> StackBills:
    return StackBills(
        tiers=demands,
        market=market,
        working=working,
        capacity=settings.capacity,
        scaling=settings.scaling,
        region=settings.region,
    )


def _unservable(path: str, demand: TierDemand, bills: StackBills) -> Problem | None:
    """The problem of a tier that nothing in the region can serve, with the nearest target that would work."""
    search = bills.search(demand)
    survey = search.survey
    if bills.serves(demand):
        return _inseparable(path, demand, bills)
    target = demand.settings.slo
    misses = [miss for miss in survey.misses if miss.label.split(" ")[0] in demand.methods]
    slow = [miss for miss in misses if miss.ttft_ms is not None and miss.tpot_ms is not None]
    too_large = _too_large_store(path, demand, bills)
    if too_large:
        return too_large
    if not slow:
        compressed = demand.settings.kv_cache_dtype != "auto"
        reasons = "; ".join(f"{miss.label}: {miss.reason}" for miss in misses[-2:])
        return Problem(
            f"{path}.model",
            demand.settings.model,
            f"fits no node of {bills.region} with quantization {demand.settings.quantization} ({reasons or 'no GPU'})",
            ("set kvCacheDtype: auto, or " if compressed else "")
            + "choose another quantization, a smaller model or maxModelLen, or another region",
        )

    def excess(ttft: float, tpot: float) -> float:
        return max(ttft / target.ttft_ms, 1) * max(tpot / target.tpot_ms, 1)

    best = min(slow, key=lambda miss: excess(miss.ttft_ms or 0, miss.tpot_ms or 0))
    ttft, tpot = max(target.ttft_ms, best.ttft_ms or 0), max(target.tpot_ms, best.tpot_ms or 0)
    # An unloaded replica just meets these; a little more leaves room for the requests of others.
    for more in _MORE_ROOM:
        nearest = LatencyTarget(
            ttftMs=max(target.ttft_ms, math.ceil(ttft * more)) if ttft > target.ttft_ms else target.ttft_ms,
            tpotMs=max(target.tpot_ms, math.ceil(tpot * more)) if tpot > target.tpot_ms else target.tpot_ms,
        )
        changed = replace(demand, settings=demand.settings.model_copy(update={"slo": nearest}))
        if bills.serves(changed):
            way_out = f"the nearest target that works is {{ttftMs: {nearest.ttft_ms:g}, tpotMs: {nearest.tpot_ms:g}}}"
            break
    else:
        way_out = "choose a smaller model or maxModelLen, another quantization, or another region"
    return Problem(
        f"{path}.slo",
        {"ttftMs": target.ttft_ms, "tpotMs": target.tpot_ms},
        f"no GPU in {bills.region} meets it; the nearest is {best.label}: {best.reason}",
        way_out,
    )


def _too_large_store(path: str, demand: TierDemand, bills: StackBills) -> Problem | None:
    """The problem of a KV store without which the tier could be served, with the largest that leaves it so."""
    tier, apart = demand.settings, demand.settings.disaggregation.enabled
    asked = tier.disaggregation.kv_store_gib if apart else tier.kv_offload_gib or 0.0

    def serves(gib: int) -> bool:
        store = tier.disaggregation.model_copy(update={"kv_store_gib": float(gib)})
        update = {"disaggregation": store} if apart else {"kv_offload_gib": float(gib)}
        return bills.serves(replace(demand, settings=tier.model_copy(update=update)))

    most = bisect.bisect_left(range(1, math.ceil(asked)), True, key=lambda gib: not serves(gib))
    if not most:
        return None
    setting = "disaggregation.kvStoreGib" if apart else "kvOffloadGib"
    limit = f"no node of {bills.region} has so much memory beside what {tier.model} needs to meet its target"
    return Problem(f"{path}.{setting}", asked, limit, f"at most {most} fits{'' if apart else ', or leave it out'}")


#: Factors on the latency of an unloaded replica that are tried for a target that works.
_MORE_ROOM = (1.02, 1.05, 1.1, 1.25, 1.5, 2.0)


def _inseparable(path: str, demand: TierDemand, bills: StackBills) -> Problem | None:
    """The problem of a tier that could be served, but not with prefill and decode apart as its settings ask."""
    try:
        bills.tier_bill(demand, Levers())
    except Unservable:
        return Problem(
            f"{path}.disaggregation.enabled",
            value=True,
            limit="no GPU leaves time for the transfer of the KV cache within ttftMs",
            way_out="switch it off, or raise slo.ttftMs",
        )
    return None


_PRICE_SOURCE = "snapshot in planning/facts/data; each price with its source and date"
_LIVE_SOURCE = f"instances: AWS Price List and spot history, read for this plan; the rest: {_PRICE_SOURCE}"


def _of_today(prices: Sequence[PriceUse], settings: StackSettings, today: date | None) -> tuple[str, ...]:
    """What the calendar says of the plan; nothing without a day."""
    if today is None:
        return ()
    old = age_warning(prices, settings.region, today)
    return (*support_warnings(today, settings.cluster.kubernetes_version), *((old,) if old else ()))


def _shares_kv(demand: TierDemand) -> bool:
    wanted = demand.settings.disaggregation
    return wanted.enabled and wanted.shared_store == "s3" and demand.settings.paused_replicas != 0


def _kv_store_usage(demand: TierDemand) -> KvStoreUsage:
    """Every token that is not found in the cache is written once, of prompts and of answers."""
    tier, traffic = demand.settings, demand.settings.traffic
    hits = traffic.input_tokens * traffic.prefix_hit_rate
    new = traffic.input_tokens - hits + traffic.output_tokens
    written = kv_bytes_per_sequence(demand.architecture, tier.kv_cache_dtype, new)
    return KvStoreUsage(
        tier=tier.name,
        gb_per_day=traffic.requests_per_day * written / 1e9,
        tokens_per_day=traffic.requests_per_day * new,
        hit_tokens_per_day=traffic.requests_per_day * hits,
    )
