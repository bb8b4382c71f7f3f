"""The page in a real browser, at a phone's and a desktop's width, light and dark.

Where ``.ci/run`` ran, Chromium is there and ``REPORT_CHROMIUM`` says so: then these tests fail without it.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.chromium import Page, browser
from tests.report.test_page import shown

CHROMIUM = os.environ.get("REPORT_CHROMIUM") or shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian's package of that name brings it)"),
]

#: Every text of every visible chart that sticks out of its picture, in the picture's own units.
OUTSIDE = """
[...document.querySelectorAll('svg')].filter(svg => svg.getClientRects().length).flatMap(svg => {
  const box = svg.viewBox.baseVal;
  return [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBBox()]).filter(([_, is]) =>
    is.x < box.x - 0.5 || is.y < box.y - 0.5 ||
    is.x + is.width > box.x + box.width + 0.5 || is.y + is.height > box.y + box.height + 0.5
  ).map(([name, is]) => `${name}: ${is.x}, ${is.y}, ${is.width} x ${is.height} in ${box.width} x ${box.height}`);
})
"""

#: WCAG contrast of every text against what is painted behind it, where it is below AA's 4.5 (3 for large text).
PALE = """
(() => {
  const channels = color => (color.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = color => {
    const [r, g, b] = channels(color).map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (channels(color)[3] !== 0) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.getClientRects().length || node.classList.contains('inside')) continue;
    const style = getComputedStyle(node);
    const ink = light(node instanceof SVGElement ? style.fill : style.color), paper = light(behind(node));
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (contrast < (large ? 3 : 4.5)) found.push(`${node.textContent.slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert CHROMIUM is not None
    with browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_the_page_opens_from_disk_and_nothing_sticks_out(
    stack: str, width: int, dark: bool, tab: Page, tmp_path: Path
) -> None:
    file = tmp_path / f"{stack}.html"
    file.write_text(shown(stack)[2])
    tab.open(file, width=width, dark=dark)
    assert tab.requests == [file.as_uri()]
    assert tab.complaints == []
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert tab.evaluate("[...document.querySelectorAll('svg')].filter(svg => svg.getClientRects().length).length") >= 10
    assert tab.evaluate("[...document.querySelectorAll('.scroll')].every(box => box.scrollWidth <= box.clientWidth)")
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(PALE) == []
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(17, 21, 27)") is dark


def test_the_checks_find_what_they_look_for(tab: Page, tmp_path: Path) -> None:
    """A page that asks for a picture, is too wide, has a text outside its chart and one too pale to read."""
    file = tmp_path / "bad.html"
    file.write_text(
        '<body style="background:#fff"><img src="https://example.invalid/x.png"><div style="width:3000px">wide</div>'
        '<svg viewBox="0 0 10 10"><text x="5" y="5">sticks out</text></svg><p style="color:#999">pale</p></body>'
    )
    tab.open(file, width=390, dark=False)
    assert tab.requests[1:] == ["https://example.invalid/x.png"]
    assert tab.complaints
    assert not tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert [line.split(":")[0] for line in tab.evaluate(OUTSIDE)] == ["sticks out"]
    assert [line.split(":")[0] for line in tab.evaluate(PALE)] == ["pale"]
