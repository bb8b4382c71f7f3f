"""The third-party controllers: what is released, with which values, in which order.

Values are held against the charts' defaults, of which KEDA's are of an older version than the pinned one. What the
charts make of them is not proven here, nor that what is left of the load balancer controller's policy is enough.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pytest

from components import versions
from components.controllers import Controllers, ControllersArgs
from tests.charts.check import unknown_values
from tests.components.building import stand_in
from tests.harness import (
    HelmRelease,
    Recording,
    component_under_test,
    computed,
    destroy_reachability,
    helm_releases,
    kubernetes_objects,
)

ROLE = "aws:iam/role:Role"
POLICY = "aws:iam/policy:Policy"
ASSOCIATION = "aws:eks/podIdentityAssociation:PodIdentityAssociation"


def controllers(
    *,
    gpu_nodes: bool = True,
    device_plugin: bool = True,
    efa: bool = True,
    region: str = "us-east-2",
    web_acl_arn: str | None = None,
    preview: bool = False,
) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> Mapping[str, Any] | None:
        Controllers(
            "controllers",
            ControllersArgs(
                cluster_name=computed("frugal-llm-dev"),
                region=region,
                vpc_id=computed("vpc-1"),
                gpu_nodes=gpu_nodes,
                device_plugin=device_plugin,
                efa=efa,
                web_acl_arn=web_acl_arn,
                tags={"frugal-llm:stack": "dev"},
                system_ready=[stand_in("system", opts)],
                prometheus=stand_in("prometheus", opts),
            ),
            opts,
        )
        return None

    return component_under_test(factory, preview=preview, region=region)


@pytest.fixture(scope="module")
def all_of_them() -> Recording:
    return controllers()


def release(recording: Recording, name: str) -> HelmRelease:
    (found,) = [one for one in helm_releases(recording) if one.name == name]
    return found


def test_these_charts_are_released_at_their_pinned_versions(all_of_them: Recording) -> None:
    found = {one.name: (one.chart, one.version, one.repo, one.namespace) for one in helm_releases(all_of_them)}
    pins = {
        "aws-load-balancer-controller": (versions.AWS_LOAD_BALANCER_CONTROLLER, "kube-system"),
        "keda": (versions.KEDA, "keda"),
        "nvidia-device-plugin": (versions.NVIDIA_DEVICE_PLUGIN, "kube-system"),
        "aws-efa-k8s-device-plugin": (versions.EFA_DEVICE_PLUGIN, "kube-system"),
        "dcgm-exporter": (versions.DCGM_EXPORTER, "monitoring"),
    }
    assert found == {
        name: (chart.chart, chart.version, chart.repository, namespace) for name, (chart, namespace) in pins.items()
    }


def test_every_value_is_one_that_its_chart_has(all_of_them: Recording) -> None:
    assert {one.name: unknown_values(one.chart, one.values) for one in helm_releases(all_of_them)} == {
        "aws-load-balancer-controller": [],
        "keda": [],
        "nvidia-device-plugin": [],
        "aws-efa-k8s-device-plugin": [],
        "dcgm-exporter": [],
    }


@pytest.mark.parametrize(
    ("gpu_nodes", "device_plugin", "expected"),
    [
        (True, True, {"nvidia-device-plugin", "dcgm-exporter"}),
        (True, False, {"dcgm-exporter"}),
        (False, True, set()),
    ],
    ids=["AL2023", "Bottlerocket", "no GPUs"],
)
def test_what_gpus_need_comes_with_gpus(gpu_nodes: bool, device_plugin: bool, expected: set[str]) -> None:
    recording = controllers(gpu_nodes=gpu_nodes, device_plugin=device_plugin, efa=False)
    found = {one.name for one in helm_releases(recording)}
    assert found == {"aws-load-balancer-controller", "keda"} | expected


def test_the_device_plugin_of_efa_is_there_only_for_pods_that_use_it_and_goes_onto_gpu_nodes(
    all_of_them: Recording,
) -> None:
    values = release(all_of_them, "aws-efa-k8s-device-plugin").values
    assert values["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "aws-efa-k8s-device-plugin" not in {one.name for one in helm_releases(controllers(efa=False))}


# AWS Load Balancer Controller ----------------------------------------------------------------------------------------


def test_the_load_balancer_controller_is_told_what_it_would_ask_the_instance(all_of_them: Recording) -> None:
    values = release(all_of_them, "aws-load-balancer-controller").values
    assert (values["clusterName"], values["region"], values["vpcId"]) == ("frugal-llm-dev", "us-east-2", "vpc-1")


def test_its_rights_come_by_pod_identity(all_of_them: Recording) -> None:
    (association,) = all_of_them.of_type(ASSOCIATION)
    account = release(all_of_them, "aws-load-balancer-controller").values["serviceAccount"]["name"]
    assert (association.inputs["namespace"], association.inputs["serviceAccount"]) == ("kube-system", account)
    (role,) = all_of_them.of_type(ROLE)
    statement = json.loads(role.inputs["assumeRolePolicy"])["Statement"][0]
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}


def test_its_rights_are_those_of_its_project_and_each_part_fits_one_policy(all_of_them: Recording) -> None:
    texts = [policy.inputs["policy"] for policy in all_of_them.of_type(POLICY)]
    assert len(texts) == 2
    # EKS: at most 100 characters for a cluster. IAM: 6144 for a managed policy.
    assert max(len(text.replace("frugal-llm-dev", "c" * 100)) for text in texts) <= 6144
    assert len(all_of_them.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment")) == 2
    statements = [one for text in texts for one in json.loads(text)["Statement"]]
    actions = {action for one in statements for action in one["Action"]}
    assert {"elasticloadbalancing:CreateLoadBalancer", "elasticloadbalancing:CreateRule"} <= actions
    assert "*" not in actions
    of_its_own = ("LoadBalancer", "TargetGroup", "Listener", "Rule")
    for delete in ("ec2:DeleteSecurityGroup", *(f"elasticloadbalancing:Delete{one}" for one in of_its_own)):
        (only,) = [one for one in statements if delete in one["Action"]]
        tag = only["Condition"]["StringEquals"]["aws:ResourceTag/elbv2.k8s.aws/cluster"]
        assert tag == "frugal-llm-dev", f"{delete}: only of what this cluster made"
    (opens,) = [one for one in statements if one["Sid"] == "OpenGroupsToLoadBalancers"]
    assert opens["Condition"] == {"StringEquals": {"aws:ResourceTag/karpenter.sh/discovery": "frugal-llm-dev"}}
    unused = ("cognito-idp", "shield", "waf-regional", "wafv2")
    assert not [action for action in actions if action.startswith(unused)], "all four are off"
    for one in statements:
        assert "us-east-2" in json.dumps(one) or one["Sid"] == "CreateItsServiceLinkedRole", "IAM has no region"


def test_its_rights_name_the_partition_of_the_region() -> None:
    text = "".join(policy.inputs["policy"] for policy in controllers(region="cn-north-1").of_type(POLICY))
    assert "arn:aws-cn:elasticloadbalancing" in text
    assert "arn:aws:" not in text


def test_with_a_web_acl_it_may_put_that_one_before_load_balancers_and_no_other() -> None:
    arn = "arn:aws:wafv2:us-east-2:111122223333:regional/webacl/llm/1234abcd"
    recording = controllers(web_acl_arn=arn)
    assert release(recording, "aws-load-balancer-controller").values["enableWafv2"] is True
    texts = [policy.inputs["policy"] for policy in recording.of_type(POLICY)]
    assert len(texts) == 3
    statements = [one for text in texts for one in json.loads(text)["Statement"]]
    (puts,) = [one for one in statements if "wafv2:AssociateWebACL" in one["Action"]]
    assert [one for one in puts["Resource"] if ":wafv2:" in one] == [arn]
    assert not [action for one in statements for action in one["Action"] if action.startswith(("shield", "waf-reg"))]


def test_without_a_web_acl_it_never_asks_waf(all_of_them: Recording) -> None:
    assert release(all_of_them, "aws-load-balancer-controller").values["enableWafv2"] is False


def test_no_service_waits_for_its_webhook(all_of_them: Recording) -> None:
    values = release(all_of_them, "aws-load-balancer-controller").values
    assert values["enableServiceMutatorWebhook"] is False
    assert values["createIngressClassResource"] is True


def test_what_it_makes_in_aws_is_tagged_like_the_rest(all_of_them: Recording) -> None:
    assert release(all_of_them, "aws-load-balancer-controller").values["defaultTags"] == {"frugal-llm:stack": "dev"}


# The others ----------------------------------------------------------------------------------------------------------


def test_controllers_run_on_system_nodes(all_of_them: Recording) -> None:
    for name in ("aws-load-balancer-controller", "keda"):
        assert release(all_of_them, name).values["nodeSelector"] == {"frugal-llm/pool": "system"}


def test_the_exporter_runs_on_gpu_nodes_only_and_tolerates_their_taint(all_of_them: Recording) -> None:
    values = release(all_of_them, "dcgm-exporter").values
    assert values["nodeSelector"] == {"karpenter.k8s.aws/instance-gpu-manufacturer": "nvidia"}
    assert values["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_everything_asks_for_what_it_needs(all_of_them: Recording) -> None:
    def with_requests(values: Mapping[str, Any]) -> bool:
        resources = values["resources"]
        parts = [resources] if "requests" in resources else list(resources.values())
        return all({"cpu", "memory"} <= part["requests"].keys() and "memory" in part["limits"] for part in parts)

    assert all(with_requests(one.values) for one in helm_releases(all_of_them))


def test_kedas_errors_are_seen(all_of_them: Recording) -> None:
    operator = release(all_of_them, "keda").values["prometheus"]["operator"]
    assert operator["enabled"] is True
    assert operator["serviceMonitor"]["enabled"] is True


def test_keda_reads_no_secrets_and_scales_only_deployments(all_of_them: Recording) -> None:
    values = release(all_of_them, "keda").values
    assert values["permissions"]["operator"]["restrict"]["secret"] is True
    assert values["rbac"]["enabledCustomScaledRefKinds"] is False


# Order ---------------------------------------------------------------------------------------------------------------


def test_a_controller_has_its_rights_from_its_first_pod_to_its_last(all_of_them: Recording) -> None:
    controller = release(all_of_them, "aws-load-balancer-controller").resource
    attachment = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
    parts = all_of_them.of_type(ASSOCIATION, ROLE, POLICY, attachment)
    assert len(parts) == 6
    for part in parts:
        assert destroy_reachability(all_of_them, controller, part), part.name


def test_every_release_has_nodes_until_it_is_gone(all_of_them: Recording) -> None:
    for one in helm_releases(all_of_them):
        assert destroy_reachability(all_of_them, one.resource, "system"), one.name


def test_what_has_a_service_monitor_comes_after_its_definition(all_of_them: Recording) -> None:
    for name in ("keda", "dcgm-exporter"):
        assert destroy_reachability(all_of_them, release(all_of_them, name).resource, "prometheus")


def test_keda_leaves_before_its_namespace(all_of_them: Recording) -> None:
    (namespace,) = kubernetes_objects(all_of_them, "Namespace")
    assert namespace["metadata"]["name"] == "keda"
    assert destroy_reachability(all_of_them, release(all_of_them, "keda").resource, "controllers-keda-namespace")


def test_namespaces_and_names_are_known_in_a_first_preview() -> None:
    found = {(one.name, one.namespace) for one in helm_releases(controllers(preview=True))}
    assert ("keda", "keda") in found
    assert ("aws-load-balancer-controller", "kube-system") in found
