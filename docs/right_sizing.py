"""The page ``docs/right-sizing.md``: model classes against GPUs, regions and prices, beside what people quote."""

from __future__ import annotations

from collections.abc import Iterator

from planning import right_sizing as sizing
from planning.facts.article import (
    ARTICLE_L4_USD_PER_MONTH,
    ARTICLE_TOKENS_PER_SECOND,
    ARTICLE_USD_PER_MILLION_TOKENS,
)
from planning.facts.gpus import gpu
from planning.facts.instances import Offering, offerings
from planning.facts.models import model
from planning.memory import fit
from planning.right_sizing import Best, Minimum, Setup
from planning.speed import gpu_speed
from planning.traffic import HOURS_PER_MONTH

_PRECISIONS = (("FP16", False), ("4-bit", True))


def right_sizing_page() -> str:
    """The whole page, from the facts and the planner's own models alone."""
    return "\n".join([*_introduction(), *_classes(), *_article()]) + "\n"


def _introduction() -> Iterator[str]:
    work, target = sizing.WORKLOAD, sizing.TARGET
    dates = sorted(
        one.as_of for region in sizing.REGIONS for one in offerings(region) if one.as_of and one.instance.gpu
    )
    yield from (
        "# Right-sizing",
        "",
        "Made by `make docs` from the facts and the formulas of `planning/`; only the columns and amounts marked "
        "*quoted* are the article's.",
        "",
        f"- **Minimum**: the least GPU memory of one node that holds the weights and one sequence of "
        f"{sizing.CONTEXT_TOKENS:,} tokens (less where the model has less). It runs; it need not be fast or cheap. "
        "Tokens/s is one request alone.",
        f"- **Best**: the cheapest token of a replica on one node that keeps 95 % of requests within TTFT "
        f"{target.ttft_ms:,.0f} ms and TPOT {target.tpot_ms:,.0f} ms, at {work.input_tokens:.0f} tokens in and "
        f"{work.output_tokens:.0f} out (the mean request of ServeGen's m-large). Tokens/s is output at that point; $/M "
        "counts input and output tokens of a replica that is busy all the time. At real load a token costs more: "
        "`python -m planning plan` says how much.",
        "- 4-bit is the catalogue's first verified INT4 checkpoint (W4A16, AWQ or GPTQ). 8-bit checkpoints are left "
        "out here; the planner often prefers them.",
        f"- A month has {HOURS_PER_MONTH:.0f} hours. On-demand is the list price, spot the median of the zones; `-` is "
        f"a price that was not read. Price data of {dates[0]} to {dates[-1]}.",
        "- Speeds are projected. **Band**: how far the measured cost of a token lay from the projected one in 80 % of "
        "the published measurements (`planning/speed.py`), for the row's model and GPUs: wider where they are thinly "
        "measured.",
        "- The tables say nothing about replicas for availability, nodes that start and idle, fixed costs, or whether "
        "spot is to be had; and the cheapest token may be on a node far larger than your load, where it is not cheap.",
    )


def _classes() -> Iterator[str]:
    for name, model_id in sizing.CLASSES.items():
        architecture = model(model_id)
        context = sizing.context_tokens(architecture)
        rows = [(label, row) for label, four_bit in _PRECISIONS for row in sizing.sizings(model_id, four_bit=four_bit)]
        four = sizing.checkpoint(model_id, four_bit=True)
        yield from ("", f"## {name}", "")
        yield (
            f"{model_id}, {architecture.params_billion:.1f} B parameters, {context:,} tokens of context. 4-bit: "
            f"{four.repository} ({four.method})."
        )
        yield from (
            "",
            "| minimum | region | GPUs | KV tokens | tokens/s | band | on-demand $/h | $/month | spot $/h | $/month |",
        )
        yield "|---|---|---|---:|---:|---|---:|---:|---:|---:|"
        for label, row in rows:
            yield f"| {label} | {row.region} | {_minimum(row.minimum)} |"
        yield from (
            "",
            "| best on-demand | region | GPUs | tokens/s | $/h | $/month | $/M | band | best on spot | tokens/s | "
            "$/h | $/month | $/M | band |",
        )
        yield "|---|---|---|---:|---:|---:|---:|---|---|---:|---:|---:|---:|---|"
        for label, row in rows:
            yield f"| {label} | {row.region} | {_best(row.on_demand, spot=False)} | {_best(row.spot, spot=True)} |"


def _gpus(setup: Setup, offering: Offering) -> str:
    return f"{setup.gpus} x {setup.gpu.name} ({offering.instance.name})"


def _prices(hourly: float | None) -> str:
    return "- | -" if hourly is None else f"{hourly:.3f} | {hourly * HOURS_PER_MONTH:,.0f}"


def _band(band: tuple[float, float]) -> str:
    low, high = band
    return f"{100 * (low - 1):+.0f} to {100 * (high - 1):+.0f} %"


def _minimum(found: Minimum | None) -> str:
    if found is None:
        return "nothing here holds it | - | - | - | - | - | - | -"
    setup = found.setup
    spot = setup.spot.spot_usd_per_hour if setup.spot else None
    return (
        f"{_gpus(setup, setup.on_demand)} | {found.kv_tokens:,} | {found.tokens_per_second:.0f} | "
        f"{_band(found.cost_band)} | "
        f"{_prices(setup.on_demand.on_demand_usd_per_hour)} | {_prices(spot)}"
    )


def _best(found: Best | None, *, spot: bool) -> str:
    if found is None:
        return "nothing here meets it | - | - | - | - | -"
    setup = found.setup
    offering = setup.spot if spot and setup.spot else setup.on_demand
    hourly = offering.spot_usd_per_hour if spot else offering.on_demand_usd_per_hour
    assert hourly is not None
    rate = found.load.requests_per_second * sizing.WORKLOAD.output_tokens
    per_million = found.usd_per_million_tokens(hourly)
    return f"{_gpus(setup, offering)} | {rate:,.0f} | {_prices(hourly)} | {per_million:.3f} | {_band(found.cost_band)}"


def _article() -> Iterator[str]:
    yield from (
        "",
        "## Beside the article",
        "",
        "Only the figures marked *quoted* are known of the article here; for 13B, 34B, 8x22B and 405B none is.",
        "",
        f"**An L4 for ${ARTICLE_L4_USD_PER_MONTH:.0f} a month** (*quoted*) is a spot price:",
        "",
        "| g6.xlarge (1 x L4) | on-demand $/month | spot: cheapest zone | median | dearest zone | "
        f"${ARTICLE_L4_USD_PER_MONTH:.0f} is |",
        "|---|---:|---:|---:|---:|---|",
    )
    for region in sizing.REGIONS:
        found = next((one for one in offerings(region) if one.instance.name == "g6.xlarge"), None)
        if found is None:
            yield f"| {region} | not offered | - | - | - | - |"
            continue
        hourly = (
            found.on_demand_usd_per_hour,
            found.spot_min_usd_per_hour,
            found.spot_usd_per_hour,
            found.spot_max_usd_per_hour,
        )
        cells = " | ".join("-" if price is None else f"{price * HOURS_PER_MONTH:,.0f}" for price in hourly)
        above = [
            "" if price is None else f"{100 * (ARTICLE_L4_USD_PER_MONTH / (price * HOURS_PER_MONTH) - 1):+.0f} %"
            for price in (found.on_demand_usd_per_hour, found.spot_usd_per_hour)
        ]
        yield f"| {region} | {cells} | {above[0]} of on-demand, {above[1]} of the median |"
    yield from (
        "",
        "**p4d.24xlarge** has 8 A100 of 40 GB; only p4de.24xlarge has 80 GB. What that decides, in FP16 over 8 GPUs:",
        "",
        "| model | p4d: KV tokens | p4de: KV tokens |",
        "|---|---:|---:|",
    )
    for name, model_id in sizing.CLASSES.items():
        yield f"| {name} | {_on_eight(model_id, 'A100-40GB')} | {_on_eight(model_id, 'A100-80GB')} |"
    yield from _batches()
    yield from _tokens()


def _on_eight(model_id: str, name: str) -> str:
    architecture = model(model_id)
    memory = fit(
        architecture,
        sizing.checkpoint(model_id, four_bit=False),
        gpu(name),
        8,
        max_model_len=sizing.context_tokens(architecture),
    )
    return f"{memory.kv_tokens:,}" if memory.fits else memory.reason


def _batches() -> Iterator[str]:
    """The article's batch table beside ours; neither its model nor its GPU is known here."""
    model_id = sizing.CLASSES["7-8B"]
    columns = [("FP16", False, "A10G"), ("4-bit", True, "L4"), ("FP16", False, "L40S"), ("FP16", False, "A100-80GB")]
    work = sizing.WORKLOAD
    yield from (
        "",
        "**Tokens per second by batch**: the article's model, GPU and lengths are not known here. The 8B model beside "
        f"it, every answer with its own prefill ({work.input_tokens:.0f} in, {work.output_tokens:.0f} out):",
        "",
        "| batch | article, *quoted* | " + " | ".join(f"{label} on {name}" for label, _, name in columns) + " |",
        "|---:|---:|" + "---:|" * len(columns),
    )
    speeds = [
        gpu_speed(model(model_id), sizing.checkpoint(model_id, four_bit=four_bit), gpu(name), 1)
        for _, four_bit, name in columns
    ]
    for batch, quoted in ARTICLE_TOKENS_PER_SECOND.items():
        ours = [speed.output_tokens_per_second(batch, work.input_tokens, work.output_tokens) for speed in speeds]
        yield f"| {batch} | {quoted:,} | " + " | ".join(f"{rate:,.0f}" for rate in ours) + " |"
    yield from (
        "",
        "Columns flatten where a replica computes instead of reading weights: a GPU with little compute for its "
        "bandwidth flattens early. Whether a batch of 128 fits into memory or meets a latency target, they do not say.",
    )


def _tokens() -> Iterator[str]:
    yield from (
        "",
        "**Dollars per million tokens**, the article's routing table beside the cheapest above in us-east-1 (4-bit):",
        "",
        "| tier | article, *quoted* | on-demand, busy all the time | spot, busy all the time |",
        "|---|---:|---:|---:|",
    )
    for name, quoted in ARTICLE_USD_PER_MILLION_TOKENS.items():
        row = sizing.sizings(sizing.CLASSES[name], four_bit=True)[0]
        listed, spot = _cheapest(row.on_demand, spot=False), _cheapest(row.spot, spot=True)
        yield f"| {name} | {quoted:.2f} | {listed} | {spot} |"
    yield from (
        "",
        "Ours are prices of a full replica; one that waits for its peak hour costs more. The plan prints both.",
    )


def _cheapest(found: Best | None, *, spot: bool) -> str:
    if found is None:
        return "-"
    offering = found.setup.spot if spot and found.setup.spot else found.setup.on_demand
    hourly = offering.spot_usd_per_hour if spot else offering.on_demand_usd_per_hour
    return f"{found.usd_per_million_tokens(hourly or 0.0):.3f}"
