"""Every object and release of every stack, against schemas and chart defaults.

Not proven: that the API server's CEL rules and webhooks take the objects, that charts render with the values.
"""

from __future__ import annotations

from tests.charts.check import unknown_values
from tests.harness import Recording, helm_releases, kubernetes_objects
from tests.schemas.checker import problems


def refused(recording: Recording) -> list[str]:
    return [
        f"{one['kind']} {one['metadata']['name']}: {problem}"
        for one in kubernetes_objects(recording)
        for problem in problems(one)
    ]


def ignored(recording: Recording) -> list[str]:
    return [
        f"{one.name}: {value}" for one in helm_releases(recording) for value in unknown_values(one.chart, one.values)
    ]


def test_the_api_server_would_take_every_object_of_a_first_preview(preview: Recording) -> None:
    assert kubernetes_objects(preview)
    assert refused(preview) == []


def test_the_api_server_would_take_every_object(update: Recording) -> None:
    assert refused(update) == []


def test_every_chart_has_the_values_that_it_is_given(update: Recording) -> None:
    assert helm_releases(update)
    assert ignored(update) == []
