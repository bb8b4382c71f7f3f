"""Charts as SVG text: sound XML, round axes, nothing outside. How they look is not proven here."""

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planning.report.charts import (
    Bar,
    Dot,
    Swing,
    curve_chart,
    hours_chart,
    labels,
    log_ticks,
    range_chart,
    scatter_chart,
    text_width,
    ticks,
    tornado_chart,
    waterfall_chart,
)

EVIL = "<script>alert('x')</script> & \"co\""
BARS = (
    Bar("baseline", "baseline", 0, 18_527),
    Bar("spot nodes", "saved", 18_527, 2_000),
    Bar("tier routing", "added", 2_000, 2_678),
    Bar("engine limits", "saved", 2_678, 2_678),
    Bar("expected", "expected", 0, 2_678),
)
positive = st.floats(1e-3, 1e9)


def texts(svg: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter("text"))


def assert_inside(svg: str) -> None:
    """By the estimate of the charts themselves; a browser measures the real widths elsewhere."""
    root = ET.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for element in root.iter("text"):
        room = text_width(element.text or "", bold="value" in element.attrib.get("class", ""))
        x, y = float(element.attrib["x"]), float(element.attrib["y"])
        left = x - {"start": 0, "middle": room / 2, "end": room}[element.attrib.get("text-anchor", "start")]
        assert left >= -0.6, element.text
        assert left + room <= width + 0.6, element.text
        assert 10 <= y <= height - 3, element.text
    for element in root.iter("rect"):
        assert float(element.attrib["x"]) >= 0
        assert float(element.attrib["x"]) + float(element.attrib["width"]) <= width + 0.6


@given(positive, st.integers(2, 6))
def test_ticks_are_round_few_and_reach_the_highest_value(high: float, most: int) -> None:
    axis = ticks(high, most)
    assert axis[0] == 0
    assert axis[-1] >= high * (1 - 1e-6)
    assert 2 <= len(axis) <= most + 1
    step = axis[1]
    assert f"{step:.0e}"[0] in "125"
    assert math.isclose(step, float(f"{step:.0e}"), rel_tol=1e-9)


@given(positive, st.floats(1.001, 1e6))
def test_logarithmic_ticks_enclose_the_range(low: float, factor: float) -> None:
    axis = log_ticks(low, low * factor)
    assert axis[0] <= low * (1 + 1e-9)
    assert axis[-1] >= low * factor * (1 - 1e-9)
    assert list(axis) == sorted(set(axis))
    assert len(axis) <= 12


def test_an_axis_has_one_unit() -> None:
    assert labels((0, 5_000, 10_000), "$") == ("$0", "$5k", "$10k")
    assert labels((0, 0.5, 1)) == ("0", "0.5", "1")
    assert labels((1, 10, 100_000)) == ("1", "10", "100k")


@pytest.mark.parametrize("width", [330, 1040])
def test_a_waterfall_says_which_steps_add_to_the_month(width: float) -> None:
    svg = waterfall_chart(BARS, width)
    shown = [element.text for element in texts(svg)]
    assert "+$678 dearer" in shown
    assert "−$16,527" in shown
    assert "$0" in shown
    assert [element.attrib["class"] for element in ET.fromstring(svg).iter("rect")] == [
        "bar baseline",
        "bar saved",
        "bar added",
        "bar saved",
        "bar expected",
    ]
    assert_inside(svg)


@pytest.mark.parametrize("width", [330, 1040])
@given(base=st.floats(1, 1e7), shares=st.lists(st.floats(0.1, 1.5), min_size=1, max_size=9))
def test_any_waterfall_keeps_its_texts_inside(width: float, base: float, shares: list[float]) -> None:
    bars, before = [Bar("baseline", "baseline", 0, base)], base
    for position, share in enumerate(shares):
        after = before * share
        bars.append(Bar(f"lever {position}", "saved" if share <= 1 else "added", before, after))
        before = after
    assert_inside(waterfall_chart([*bars, Bar("expected", "expected", 0, before)], width))


@pytest.mark.parametrize("width", [330, 1040])
@given(swings=st.lists(st.tuples(st.floats(-1e6, 0), st.floats(0, 1e6)), min_size=1, max_size=6))
def test_any_tornado_keeps_its_texts_inside(width: float, swings: list[tuple[float, float]]) -> None:
    rows = [Swing(f"driver {position}", low, high) for position, (low, high) in enumerate(swings)]
    svg = tornado_chart(rows, 2_392.0, width)
    assert_inside(svg)
    assert "expected $2,392" in [element.text for element in texts(svg)]


@pytest.mark.parametrize("width", [330, 1080])
@given(expected=st.floats(1, 1e7), down=st.floats(0.1, 1), up=st.floats(1, 4), base=st.floats(0.5, 20))
def test_any_range_keeps_its_texts_inside(width: float, expected: float, down: float, up: float, base: float) -> None:
    for budget in (None, expected / 10, expected, expected * 5, expected * 1e4):
        assert_inside(range_chart(expected * down, expected, expected * up, expected * base, width, budget))


@pytest.mark.parametrize("weeks", [1, 2, 4])
@pytest.mark.parametrize("most", [0.0, 0.9, 13.0, 2_793.5, 3e6])
def test_hours_of_any_size_keep_their_texts_inside(weeks: int, most: float) -> None:
    values = [most * (hour % 24) / 23 for hour in range(168 * weeks)]
    svg = hours_chart(values, "requests an hour", sign="$")
    assert_inside(svg)
    assert f"over {weeks} week" in svg


@given(
    st.floats(0.01, 500),
    st.floats(0.05, 1e5),
    st.one_of(st.none(), st.floats(1, 1e5)),
    st.one_of(st.none(), st.floats(1, 1024)),
)
def test_any_curve_keeps_its_texts_inside_and_marks_its_point(
    at: float, value: float, target: float | None, limit: float | None
) -> None:
    points = [(at * 4 ** (step / 10 - 1), value * (0.5 + step / 20)) for step in range(21)]
    svg = curve_chart(points, (at, value), "milliseconds", target=target, limit=limit)
    assert_inside(svg)
    assert len(list(ET.fromstring(svg).iter("circle"))) == 1


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.5, 1e5)), min_size=1, max_size=12))
def test_any_scatter_keeps_its_texts_inside_and_fills_one_dot(places: list[tuple[float, float]]) -> None:
    dots = [Dot(str(number), x, y, number == 1) for number, (x, y) in enumerate(places, 1)]
    svg = scatter_chart(dots, "dollars an hour", "output tokens a second")
    assert_inside(svg)
    styles = [element.attrib["class"] for element in ET.fromstring(svg).iter("circle")]
    assert styles.count("dot chosen") == 1
    assert len(styles) == len(dots)


def test_names_of_people_are_escaped() -> None:
    bars = (Bar(EVIL, "baseline", 0, 10), Bar("expected", "expected", 0, 5))
    for svg in (
        waterfall_chart(bars, 1040),
        tornado_chart((Swing(EVIL, -1, 1),), 5, 330),
        hours_chart([1.0] * 168, EVIL),
        curve_chart([(1, 1), (2, 2)], (1, 1), EVIL),
        scatter_chart((Dot(EVIL, 1, 1, chosen=True),), EVIL, EVIL),
    ):
        root = ET.fromstring(svg)
        assert "script" not in {element.tag for element in root.iter()}
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"] == root.findtext("title")
