"""The pages that are made from the code say what the code says now."""

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def test_the_settings_page_is_up_to_date_and_explains_every_key() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["settings_page"]()
    assert (ROOT / "docs" / "configuration.md").read_text() == page, "run `make docs`"
    assert not [line for line in page.splitlines() if line.endswith("|  |")]


@pytest.mark.parametrize("name", ["mistakes", "observability", "right-sizing", "traffic"])
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


def test_the_page_for_clients_has_every_error_code_that_a_router_answers() -> None:
    from components import model_router_config, router_config
    from tests.components.plans import BY_MODEL, FAST, MODEL_ROUTER

    page = (ROOT / "docs" / "clients.md").read_text()
    bootstraps = (router_config.envoy_bootstrap(FAST), model_router_config.envoy_bootstrap(MODEL_ROUTER, BY_MODEL))
    # Some stand in JSON within the YAML.
    texts = [json.dumps(yaml.safe_load(one)).replace('\\"', '"') for one in bootstraps]
    codes = {code for text in texts for code in re.findall(r'"code": "(\w+)"', text)}
    assert len(codes) >= 7
    assert codes | {"unknown_tier"} == set(re.findall(r"^\| [0-9, ]+ \| `(\w+)`", page, re.MULTILINE))
    assert f"Retry-After: {FAST.timeouts.polling_interval_s}`" in page
