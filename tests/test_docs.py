"""The pages that are made from the code say what the code says now."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_settings_page_is_up_to_date_and_explains_every_key() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["settings_page"]()
    assert (ROOT / "docs" / "configuration.md").read_text() == page, "run `make docs`"
    assert not [line for line in page.splitlines() if line.endswith("|  |")]


@pytest.mark.parametrize("name", ["mistakes", "right-sizing", "traffic"])
def test_pages_made_from_the_code_are_up_to_date(name: str) -> None:
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))[f"{name.replace('-', '_')}_page"]()
    assert (ROOT / "docs" / f"{name}.md").read_text() == page, "run `make docs`"


def test_the_readme_shows_the_figures_that_prod_has_now() -> None:
    from planning.report.terminal import report
    from planning.stack import plan_config
    from planning.stackfile import read_stack

    stack = read_stack(ROOT / "Pulumi.prod.yaml")
    text = report(plan_config(stack.region, stack.values, stack.encrypted)[1], "prod", color=False)
    assert "\n".join(text.splitlines()[:6]) in (ROOT / "README.md").read_text()
