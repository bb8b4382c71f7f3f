"""The page's charts: pure functions from figures to SVG text.

Colours, fonts and line styles are classes that the page's style sheet fills in, so that a chart follows the theme. Each
chart's ``<title>`` says in words what it shows. Texts are placed by an estimate of their width.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

#: Height of the text, and its widest mean advances, plain and bold, among the sans serif faces that a reader may have
#: (DejaVu Sans).
_TEXT, _ADVANCE, _BOLD_ADVANCE = 12.0, 0.62, 0.71

_LINE = 15.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a waterfall: from ``before`` to ``after``; a total starts at nothing."""

    label: str
    kind: Literal["baseline", "saved", "added", "expected"]
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Swing:
    """One row of a tornado: what a driver takes off and adds."""

    label: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Dot:
    """One place of a scatter."""

    mark: str
    x: float
    y: float
    chosen: bool


def text_width(text: str, *, bold: bool = False) -> float:
    """An upper estimate of a text's width in a chart."""
    return len(text) * _TEXT * (_BOLD_ADVANCE if bold else _ADVANCE)


def ticks(high: float, most: int = 5, *, least_step: float = 0.0) -> tuple[float, ...]:
    """Round values from 0 to at least ``high``: steps of 1, 2 or 5 times a power of ten, at most ``most`` of them and
    none smaller than ``least_step``.
    """
    if high <= 0:
        return (0.0, 1.0)
    step = max(least_step, 10.0 ** math.floor(math.log10(high / most)))
    while step * most < high * (1 - 1e-9):
        step *= 2.5 if f"{step:e}".startswith("2") else 2
    return tuple(step * count for count in range(math.ceil(high / step - 1e-9) + 1))


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Round values around a range, for a logarithmic axis: 1, 2 and 5 times powers of ten, or the powers alone."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if math.log10(high / low) < 2 else (1,)
    values = [step * 10.0**power for power in range(first - 1, last + 2) for step in steps]
    inner = [value for value in values if low < value < high]
    return (
        max(value for value in values if value <= low),
        *inner,
        min(value for value in values if value >= high),
    )


def labels(axis: Sequence[float], sign: str = "") -> tuple[str, ...]:
    """What stands at the ticks of an axis, all in the same unit where they are evenly spaced: 5k beside 10k."""
    unit, name = next(((unit, name) for unit, name in ((1e6, "M"), (1e3, "k")) if axis[-1] >= 10 * unit), (1.0, ""))
    if axis[0] > 0:
        # A logarithmic axis spans units.
        return tuple(f"{sign}{_short(value)}" for value in axis)
    return tuple(f"{sign}{value / unit:,.10g}{name}" if value else f"{sign}0" for value in axis)


def _short(value: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= 10 * unit:
            return f"{value / unit:g}{name}"
    return f"{value:,.10g}"


def _signed(value: float) -> str:
    amount = f"{abs(value):,.0f}" if abs(value) >= 100 else f"{abs(value):,.2f}"
    return "$0" if amount == "0.00" else f"{'−' if value < 0 else '+'}${amount}"


def _svg(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    said = escape(title)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{said}" style="--width:{width:g}px">'
        f"<title>{said}</title>{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", style: str = "") -> str:
    classes = f' class="{style}"' if style else ""
    at = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{at}{classes}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def _rect(x: float, y: float, width: float, height: float, style: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="1.5" class="{style}"/>'


def _path(points: Iterable[tuple[float, float]], style: str, *, end: str = "") -> str:
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{steps}{end}" class="{style}"/>'


def _rows(labels: Sequence[str], width: float) -> tuple[float, float, Callable[[float, str], str]]:
    """Where bars of labelled rows start, how high a row is, and how its label is drawn: beside the bars where there is
    room, else above them.
    """
    beside = width >= 560
    if beside:
        left = min(0.3 * width, max(text_width(label) for label in labels) + 14)
        columns = max(8, int((left - 14) / (_TEXT * _ADVANCE)))
        lines = max(len(textwrap.wrap(label, columns)) for label in labels)
        row = max(34.0, lines * _LINE + 12)
    else:
        left, columns = 2.0, max(8, int((width - 4) / (_TEXT * _ADVANCE)))
        lines = max(len(textwrap.wrap(label, columns)) for label in labels)
        row = lines * _LINE + 34

    def label(top: float, text: str) -> str:
        wrapped = textwrap.wrap(text, columns) or [""]
        if beside:
            first = top + row / 2 + 4 - (len(wrapped) - 1) * _LINE / 2
            return "".join(
                _text(left - 12, first + position * _LINE, line, anchor="end", style="row")
                for position, line in enumerate(wrapped)
            )
        first = top + 12 + (lines - len(wrapped)) * _LINE
        return "".join(_text(2, first + position * _LINE, line, style="row") for position, line in enumerate(wrapped))

    return left, row, label


def waterfall_chart(bars: Sequence[Bar], width: float) -> str:
    """From the baseline, step by step, to the expected month. Steps that add to the month are outlined and say so."""
    left, row, label = _rows([bar.label for bar in bars], width)
    axis = ticks(max(max(bar.before, bar.after) for bar in bars), 5 if width >= 560 else 3)
    names = labels(axis, "$")
    right = width - text_width(names[-1]) / 2 - 2
    bottom = row * len(bars) + 6

    def x(value: float) -> float:
        return left + (right - left) * value / axis[-1]

    parts = [_line(x(tick), 0, x(tick), bottom, "grid") for tick in axis]
    parts += [
        _text(max(x(tick), text_width(name) / 2), bottom + 16, name, anchor="middle", style="tick")
        for tick, name in zip(axis, names, strict=True)
    ]
    bar_height = 18.0
    for position, bar in enumerate(bars):
        top = position * row
        above = top + (row - bar_height) / 2 if width >= 560 else top + row - bar_height - 8
        low, high = sorted((bar.before, bar.after))
        total = bar.kind in {"baseline", "expected"}
        if position:
            joint = x(bar.after if total else bar.before)
            parts.append(_line(joint, top - 8, joint, above, "link"))
        parts.append(_rect(x(low), above, max(1.5, x(high) - x(low)), bar_height, f"bar {bar.kind}"))
        said = f"${high:,.0f}" if total else _signed(bar.after - bar.before)
        words = f"{said} dearer" if bar.kind == "added" else said
        parts.append(label(top, bar.label))
        space = text_width(words, bold=True) + 8
        if x(high) + space <= width:
            parts.append(_text(x(high) + 7, above + 13.5, words, style="value"))
        elif x(low) - space >= left:
            parts.append(_text(x(low) - 7, above + 13.5, words, anchor="end", style="value"))
        else:
            parts.append(_text(x(high) - 7, above + 13.5, words, anchor="end", style="value inside"))
    first, last = bars[0], bars[-1]
    title = f"Waterfall from {first.label} ${first.after:,.0f} to {last.label} ${last.after:,.0f}: " + "; ".join(
        f"{bar.label} {_signed(bar.after - bar.before)}" for bar in bars[1:-1]
    )
    return _svg(width, bottom + 24, title, parts)


def tornado_chart(swings: Sequence[Swing], expected: float, width: float) -> str:
    """What each driver alone does to the expected month, the widest first."""
    left, row, label = _rows([swing.label for swing in swings], width)
    end_low = max(text_width(_signed(swing.low), bold=True) for swing in swings) + 10
    end_high = max(text_width(_signed(swing.high), bold=True) for swing in swings) + 10
    low, high = min(swing.low for swing in swings), max(swing.high for swing in swings)
    span = high - low or 1.0
    start, end = left + end_low, width - end_high
    bottom = row * len(swings) + 4

    def x(change: float) -> float:
        return start + (end - start) * (change - low) / span

    bar_height = 18.0
    parts = [_line(x(0), 0, x(0), bottom, "axis")]
    for position, swing in enumerate(swings):
        top = position * row
        above = top + (row - bar_height) / 2 if width >= 560 else top + row - bar_height - 8
        parts.append(label(top, swing.label))
        for change, style, anchor, away in ((swing.low, "saved", "end", -6), (swing.high, "added", "start", 6)):
            edge = x(change)
            parts.append(_rect(min(edge, x(0)), above, max(0.75, abs(edge - x(0))), bar_height, f"bar {style}"))
            parts.append(_text(edge + away, above + 13.5, _signed(change), anchor=anchor, style="value"))
    middle = f"expected ${expected:,.0f}"
    half = text_width(middle) / 2
    parts.append(_text(min(max(x(0), half), width - half), bottom + 16, middle, anchor="middle", style="tick"))
    title = f"What each uncertainty alone does to the expected ${expected:,.0f}: " + "; ".join(
        f"{swing.label} {_signed(swing.low)} to {_signed(swing.high)}" for swing in swings
    )
    return _svg(width, bottom + 24, title, parts)


def range_chart(
    low: float, expected: float, high: float, baseline: float, width: float, budget: float | None = None
) -> str:
    """The range of the month on one line, against the baseline and the budget.

    A budget far beyond both is said and not drawn: the month would be a speck.
    """
    most = max(high, baseline)
    drawn = budget is not None and budget <= 2 * most
    axis = ticks(max(most, budget) if budget is not None and drawn else most, 5 if width >= 560 else 3)
    left, right = 14.0, width - 28.0
    line = 46.0

    def x(value: float) -> float:
        return left + (right - left) * value / axis[-1]

    parts = [_line(x(0), line, x(axis[-1]), line, "axis")]
    for tick, name in zip(axis, labels(axis, "$"), strict=True):
        parts.append(_line(x(tick), line, x(tick), line + 5, "axis"))
        parts.append(_text(x(tick), line + 20, name, anchor="middle", style="tick"))
    parts.append(_rect(x(low), line - 5, max(2.0, x(high) - x(low)), 10, "bar range"))
    parts.append(f'<circle cx="{x(expected):.1f}" cy="{line:g}" r="6.5" class="dot chosen"/>')
    parts.append(f'<path d="M{x(baseline):.1f} {line - 8:g}l6 8l-6 8l-6 -8z" class="dot baseline"/>')
    here, there = f"low to high ${low:,.0f} – ${high:,.0f}", f"baseline ${baseline:,.0f}"
    room = text_width(there)
    at = min(max(x(baseline), room / 2), width - room / 2)
    parts.append(_text(at, line - 18, there, anchor="middle", style="row"))
    start = max(0.0, min(x(low), at - room / 2 - text_width(here) - 12))
    if start + text_width(here) + 12 <= at - room / 2:
        parts.append(_text(start, line - 18, here, style="row"))
    title = f"Expected ${expected:,.0f}, low ${low:,.0f}, high ${high:,.0f}; baseline ${baseline:,.0f}"
    if budget is None:
        return _svg(width, line + 28, title, parts)
    words = f"budget ${budget:,.0f}" if drawn else f"budget ${budget:,.0f}, beyond this scale"
    half = text_width(words) / 2
    at = x(budget) if drawn else width
    if drawn:
        parts.append(_line(at, line - 12, at, line + 8, "target"))
    parts.append(_text(min(max(at, half), width - half), line + 38, words, anchor="middle", style="row"))
    return _svg(width, line + 46, f"{title}; {words}", parts)


_PANEL = (340.0, 176.0)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def hours_chart(values: Sequence[float], what: str, *, sign: str = "", least_step: float = 0.0) -> str:
    """Something hour by hour over whole weeks from Monday 00:00, as steps. ``sign`` stands before the axis' figures."""
    width, height = _PANEL
    axis = ticks(max(values), 4, least_step=least_step)
    left = max(text_width(name) for name in labels(axis, sign)) + 8
    right, top, bottom = width - 8, 10.0, height - 22

    def x(hour: float) -> float:
        return left + (right - left) * hour / len(values)

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / axis[-1]

    parts = _horizontal(axis, y, left, right, sign)
    weeks = len(values) // 168
    for day in range(7 * weeks):
        parts.append(_line(x(24 * day), top, x(24 * day), bottom, "grid" if day % 7 else "axis"))
        name = _DAYS[day % 7] if weeks == 1 else _DAYS[day % 7][0]
        if weeks <= 2:
            parts.append(_text(x(24 * day + 12), bottom + 15, name, anchor="middle", style="tick"))
        elif day % 7 == 0:
            parts.append(_text(x(24 * day + 84), bottom + 15, f"wk {day // 7 + 1}", anchor="middle", style="tick"))
    outline = [point for hour, value in enumerate(values) for point in ((x(hour), y(value)), (x(hour + 1), y(value)))]
    # Where the value stays, the corners between are not needed.
    corners = [
        point
        for position, point in enumerate(outline)
        if position in {0, len(outline) - 1} or not (outline[position - 1][1] == point[1] == outline[position + 1][1])
    ]
    base = f"L{right:.1f} {bottom:.1f}L{left:.1f} {bottom:.1f}z"
    parts += [_path(corners, "area", end=base), _path(corners, "curve")]
    mean = sum(values) / len(values)
    title = f"{what}, hour by hour over {weeks} week{'s'[: weeks > 1]}: mean {mean:,.3g}, most {max(values):,.3g}"
    return _svg(width, height, title, parts)


def _horizontal(
    axis: Sequence[float], y: Callable[[float], float], left: float, right: float, sign: str = ""
) -> list[str]:
    parts: list[str] = []
    for tick, name in zip(axis, labels(axis, sign), strict=True):
        parts.append(_line(left, y(tick), right, y(tick), "grid" if tick else "axis"))
        parts.append(_text(left - 5, y(tick) + 4, name, anchor="end", style="tick"))
    return parts


def _across(
    axis: Sequence[float], names: Sequence[str], x: Callable[[float], float], frame: tuple[float, float, float]
) -> list[str]:
    """Lines of a horizontal axis, and as many of its labels as have room. ``frame``: top, bottom and right end."""
    top, bottom, end = frame
    parts: list[str] = []
    drawn_to = -math.inf
    for tick, name in zip(axis, names, strict=True):
        parts.append(_line(x(tick), top, x(tick), bottom, "grid"))
        half = text_width(name) / 2
        at = min(x(tick), end - half)
        if at - half > drawn_to + 3:
            parts.append(_text(at, bottom + 15, name, anchor="middle", style="tick"))
            drawn_to = at + half
    return parts


def curve_chart(
    points: Sequence[tuple[float, float]],
    chosen: tuple[float, float],
    what: str,
    *,
    target: float | None = None,
    limit: float | None = None,
) -> str:
    """Something of one replica by its mean number of running requests (logarithmic), with the planned point, the
    target and the engine's limit.
    """
    width, height = _PANEL
    low, high = min(point[0] for point in points), max(*(point[0] for point in points), chosen[0] * 1.01)
    # Far beyond the target nothing is to be read.
    most = max(value for _, value in points)
    roof = min(most, 3 * target) if target else most
    axis = ticks(max(roof, chosen[1], target or 0), 4)
    left = max(text_width(name) for name in labels(axis)) + 8
    right, top, bottom = width - 10, 12.0, height - 36
    across = log_ticks(low, high)
    low, high = across[0], across[-1]

    def x(value: float) -> float:
        return left + (right - left) * math.log(value / low) / math.log(high / low)

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / axis[-1]

    parts = _horizontal(axis, y, left, right)
    parts += _across(across, labels(across), x, (top, bottom, width))
    parts.append(_text((left + right) / 2, height - 5, "running requests", anchor="middle", style="tick"))
    if limit is not None and low < limit < high:
        parts.append(_line(x(limit), top, x(limit), bottom, "limit"))
        words = f"limit {limit:,.0f}"
        room = x(limit) + 4 + text_width(words) <= width
        parts.append(
            _text(x(limit) + (4 if room else -4), bottom - 6, words, anchor="start" if room else "end", style="tick")
        )
    inside = [point for point in points if point[1] <= axis[-1]]
    beyond = next((point for point in points if point[1] > axis[-1]), None)
    if beyond and inside:
        before = inside[-1]
        share = (axis[-1] - before[1]) / (beyond[1] - before[1])
        inside.append((before[0] * (beyond[0] / before[0]) ** share, axis[-1]))
    parts.append(_path([(x(at), y(value)) for at, value in inside], "curve"))
    if target is not None:
        parts.append(_line(left, y(target), right, y(target), "target"))
        above = y(target) - 5 if y(target) > top + 8 else y(target) + 14
        parts.append(_text(left + 5, above, f"target {target:,.0f}", style="tick"))
    parts.append(f'<circle cx="{x(chosen[0]):.1f}" cy="{y(chosen[1]):.1f}" r="5" class="dot chosen"/>')
    words = f"{chosen[1]:,.0f}" if chosen[1] >= 10 else f"{chosen[1]:,.2g}"
    end = x(chosen[0]) - 9 - text_width(words, bold=True) < left
    parts.append(
        _text(
            x(chosen[0]) + (9 if end else -9),
            y(chosen[1]) + (15 if end or y(chosen[1]) < top + 24 else -7),
            words,
            anchor="start" if end else "end",
            style="value",
        )
    )
    title = f"{what} by running requests; planned: {words} at {chosen[0]:,.1f} running requests" + (
        f", target {target:,.0f}" if target is not None else ""
    )
    return _svg(width, height, title, parts)


def scatter_chart(dots: Sequence[Dot], what_x: str, what_y: str) -> str:
    """Places by price and throughput, both logarithmic; dotted lines join equal dollars per million tokens. Marks are
    numbers of the table beside it.
    """
    width, height = 340.0, 280.0
    across = log_ticks(min(dot.x for dot in dots) * 0.85, max(dot.x for dot in dots) * 1.18)
    up = log_ticks(min(dot.y for dot in dots) * 0.85, max(dot.y for dot in dots) * 1.18)
    left = max(text_width(name) for name in labels(up)) + 8
    right, top, bottom = width - 14, 24.0, height - 38

    def x(value: float) -> float:
        return left + (right - left) * math.log(value / across[0]) / math.log(across[-1] / across[0])

    def y(value: float) -> float:
        return bottom - (bottom - top) * math.log(value / up[0]) / math.log(up[-1] / up[0])

    parts = [_text(0, 12, what_y, style="tick"), _text(right, height - 4, what_x, anchor="end", style="tick")]
    parts += [*_across(across, labels(across, "$"), x, (top, bottom, width)), *_horizontal(up, y, left, right)]
    for usd, ratio in _equal(across, up):
        # y = ratio * x, cut where it leaves the frame.
        start, end = max(across[0], up[0] / ratio), min(across[-1], up[-1] / ratio)
        parts.append(_line(x(start), y(start * ratio), x(end), y(end * ratio), "equal"))
        name, to_the_side = f"${usd:,.4g}/M", end == across[-1]
        first, base = x(end) - text_width(name) - 4, y(end * ratio) + (-5 if to_the_side else 13)
        # A dot is worth more than a line's name.
        covered = any(first - 24 < x(dot.x) < x(end) + 4 and base - 30 < y(dot.y) < base + 20 for dot in dots)
        if first > left and not covered:
            parts.append(_text(x(end) - 4, base, name, anchor="end", style="tick"))
    taken: list[tuple[float, float]] = []
    for dot in sorted(dots, key=lambda dot: not dot.chosen):
        at = (x(dot.x), y(dot.y))
        parts.append(
            f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{6 if dot.chosen else 4.5}" '
            f'class="dot {"chosen" if dot.chosen else "rival"}"/>'
        )
        spot = _free(at, taken, (left, right, top, bottom))
        taken += [at, spot]
        parts.append(_text(spot[0], spot[1] + 4, dot.mark, anchor="middle", style="value" if dot.chosen else "tick"))
    chosen = next(dot for dot in dots if dot.chosen)
    title = (
        f"{len(dots)} places by price and throughput; chosen, number {chosen.mark}: ${chosen.x:,.3g} an hour, "
        f"{chosen.y:,.3g} output tokens a second"
    )
    return _svg(width, height, title, parts)


def _equal(across: Sequence[float], up: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Dollars per million tokens, powers of ten, and tokens a second for each dollar an hour, of the lines that cross
    the frame.
    """
    most, least = 1e6 / 3600 * across[-1] / up[0], 1e6 / 3600 * across[0] / up[-1]
    for power in range(math.ceil(math.log10(least)), math.floor(math.log10(most)) + 1):
        usd = 10.0**power
        yield usd, 1e6 / 3600 / usd


def _free(
    at: tuple[float, float], taken: Sequence[tuple[float, float]], frame: tuple[float, float, float, float]
) -> tuple[float, float]:
    """Where a dot's number stands: the place around it that is farthest from everything drawn so far."""
    left, right, top, bottom = frame
    around = [
        (at[0] + 14 * math.cos(turn * math.pi / 4), at[1] + 14 * math.sin(turn * math.pi / 4)) for turn in range(8)
    ]
    inside = [spot for spot in around if left + 8 < spot[0] < right - 2 and top + 4 < spot[1] < bottom - 6] or around
    return max(inside, key=lambda spot: min((math.dist(spot, other) for other in taken), default=0.0))
