"""What the program pins, against the evidence that the plan has of it. That a tag exists is not proven here."""

from __future__ import annotations

from components import versions
from planning.facts.eks_versions import ADDONS, addon_versions, runnable_versions
from planning.facts.system_images import system_images


def pinned_tags() -> dict[str, set[str]]:
    """What brings each image on the system nodes: its tag, or the version of its chart or add-on."""
    charts = {
        versions.KARPENTER: ["karpenter"],
        versions.KEDA: ["keda", "keda-metrics-apiserver", "keda-admission-webhooks"],
        versions.AWS_LOAD_BALANCER_CONTROLLER: ["aws-load-balancer-controller"],
        versions.KUBE_PROMETHEUS_STACK: [
            "prometheus",
            "prometheus-config-reloader",
            "prometheus-operator",
            "kube-state-metrics",
            "grafana",
            "k8s-sidecar",
        ],
    }
    pinned = {image: {chart.version} for chart, images in charts.items() for image in images}
    for image in (versions.AWS_CLI, versions.ENVOY, versions.ENDPOINT_PICKER):
        name, _, tag = image.reference.rpartition("/")[2].partition(":")
        pinned[name] = {tag}
    for addon in ADDONS:
        pinned[addon] = {addon_versions(kubernetes)[addon] for kubernetes in runnable_versions()}
    return pinned


def test_the_evidence_for_processors_is_of_the_versions_that_are_pinned() -> None:
    # Else a new version keeps the evidence of the old one, and the system nodes their processor.
    assert {image.name: set(image.tags) for image in system_images()} == pinned_tags()


def test_of_a_tag_that_nobody_inspected_the_source_says_so() -> None:
    inspected = {image.name for image in system_images() if image.tag_inspected}
    assert inspected == {"aws-cli", "envoy"}
    for image in system_images():
        assert ("not inspected" in image.source) is not image.tag_inspected, image.name
