"""The cluster as the program asks for it.

``eks.Cluster`` is made by a plugin: what it makes inside (the EKS cluster, its role) is not seen here, only what it is
told. That EKS takes the versions, and that nodes join, is not proven here either.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pulumi
import pulumi_eks as eks_sdk
import pytest

from components import versions
from components.cluster import Cluster, ClusterArgs
from planning.facts.eks_versions import controllers
from planning.plan import ClusterPlan, CpuArchitecture, SystemNodesPlan
from tests.components.building import CLUSTER, CLUSTER_PLAN, REGION, SYSTEM_NODES, TAGS, stand_in
from tests.harness import (
    UNKNOWN,
    Recording,
    Resource,
    component_under_test,
    default_provider_users,
    duplicate_urns,
)

ADDON = "aws:eks/addon:Addon"
EKS = "eks:index:Cluster"
ADMINS = ("arn:aws:iam::111122223333:role/Admin", "arn:aws:iam::444455556666:role/Admin")


def cluster(
    *,
    plan: ClusterPlan = CLUSTER_PLAN,
    system_nodes: SystemNodesPlan = SYSTEM_NODES,
    api_endpoint_cidrs: tuple[str, ...] = (),
    control_plane_logs: tuple[str, ...] = ("audit", "authenticator"),
    preview: bool = False,
) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> dict[str, Any]:
        opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(providers=[eks_sdk.Provider("eks")]))
        args = ClusterArgs(
            cluster_name=CLUSTER,
            region=REGION,
            plan=plan,
            system_nodes=system_nodes,
            vpc_id="vpc-1",
            private_subnet_ids=["subnet-1", "subnet-2"],
            network_ready=[stand_in("route", opts)],
            api_endpoint_cidrs=api_endpoint_cidrs,
            admin_role_arns=ADMINS,
            control_plane_logs=control_plane_logs,
            log_retention_days=30,
            tags=TAGS,
        )
        made = Cluster("cluster", args, opts)
        return {
            "name": made.name,
            "kubeconfig": made.kubeconfig,
            "ready": [resource.urn for resource in made.system_ready],
        }

    return component_under_test(factory, region=REGION, preview=preview)


@pytest.fixture(scope="module")
def private() -> Recording:
    return cluster()


def eks(recording: Recording) -> Resource:
    (found,) = recording.of_type(EKS)
    return found


def addon(recording: Recording, name: str) -> Resource:
    return recording.named(f"cluster-{name}", ADDON)


def node_group(recording: Recording) -> Resource:
    (found,) = recording.of_type("aws:eks/nodeGroup:NodeGroup")
    return found


def template(recording: Recording) -> Resource:
    (found,) = recording.of_type("aws:ec2/launchTemplate:LaunchTemplate")
    return found


def test_the_cluster_has_its_own_name_the_pinned_version_and_access_entries_only(private: Recording) -> None:
    inputs = eks(private).inputs
    assert (inputs["name"], inputs["version"]) == (CLUSTER, "1.36")
    assert inputs["authenticationMode"] == "API", "with aws-auth a mistake in one ConfigMap locks everyone out"
    assert (inputs["vpcId"], inputs["privateSubnetIds"]) == ("vpc-1", ["subnet-1", "subnet-2"])
    assert inputs["createOidcProvider"] is False


def test_the_explicit_providers_of_aws_and_eks_reach_the_cluster_by_inheritance(private: Recording) -> None:
    # The plugin hands `providers` to the children, and checks only `opts.provider` for missing credential options,
    # which a construction from Python never sets: provider_credential_opts would change nothing here.
    component = eks(private)
    assert component.kind == "remote"
    assert component.provider.endswith("pulumi:providers:eks::eks")
    assert component.providers["aws"].endswith("pulumi:providers:aws::aws")
    assert "providerCredentialOpts" not in component.inputs


def test_nothing_in_the_cluster_uses_a_default_provider(private: Recording) -> None:
    assert default_provider_users(private) == []


def test_the_api_is_private_unless_somebody_is_named(private: Recording) -> None:
    inputs = eks(private).inputs
    assert (inputs["endpointPrivateAccess"], inputs["endpointPublicAccess"]) == (True, False)
    assert "publicAccessCidrs" not in inputs, "the component refuses blocks on a private endpoint"
    inputs = eks(cluster(api_endpoint_cidrs=("203.0.113.0/24",))).inputs
    assert (inputs["endpointPrivateAccess"], inputs["endpointPublicAccess"]) == (True, True)
    assert inputs["publicAccessCidrs"] == ["203.0.113.0/24"]


def test_it_never_slides_into_extended_support_at_six_times_the_price(private: Recording) -> None:
    assert eks(private).inputs["upgradePolicy"] == {"supportType": "STANDARD"}


def test_secrets_are_encrypted_with_a_key_of_ours_that_rotates(private: Recording) -> None:
    (key,) = private.of_type("aws:kms/key:Key")
    assert key.inputs["enableKeyRotation"] is True
    assert eks(private).inputs["encryptionConfigKeyArn"] == key.outputs["arn"]


def test_that_key_can_be_had_back_for_the_30_days_that_kms_allows_and_stands_in_no_destroys_way(
    private: Recording,
) -> None:
    (key,) = private.of_type("aws:kms/key:Key")
    assert key.inputs["deletionWindowInDays"] == 30
    assert (key.protect, key.retain_on_delete) == (False, False)
    assert key.urn in private.upstream(eks(private)), "destroyed after the cluster that needs it"


def test_services_get_the_planned_block_so_that_eks_does_not_choose_one(private: Recording) -> None:
    assert eks(private).inputs["kubernetesServiceIpAddressRange"] == "172.20.0.0/16"


def test_roles_and_a_key_that_are_there_are_used_and_none_are_made() -> None:
    account = "arn:aws:iam::111122223333:role"
    key = "arn:aws:kms:us-east-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    given = replace(
        CLUSTER_PLAN,
        role_arn=f"{account}/eks/control-plane",
        node_role_arn=f"{account}/eks/nodes",
        secrets_key_arn=key,
    )
    recording = cluster(plan=given)
    assert recording.of_type("aws:kms/key:Key") == []
    assert eks(recording).inputs["encryptionConfigKeyArn"] == key
    assert node_group(recording).inputs["nodeRoleArn"] == f"{account}/eks/nodes"
    found = recording.named("cluster-role", "aws:iam/role:Role")
    assert (found.read, found.id) == (True, "control-plane"), "IAM knows a role by its name, without the path"
    assert eks(recording).inputs["serviceRole"].urn == found.urn
    made = [role.name for role in recording.of_type("aws:iam/role:Role") if not role.read]
    assert made == ["cluster-ebs-csi"]


def test_control_plane_logs_go_to_a_group_that_is_there_first_and_forgets(private: Recording) -> None:
    (group,) = private.of_type("aws:cloudwatch/logGroup:LogGroup")
    assert group.inputs["name"] == f"/aws/eks/{CLUSTER}/cluster", "the name that EKS writes to"
    assert group.inputs["retentionInDays"] == 30
    assert private.destroyed_before(eks(private), group), "else EKS makes the group anew, without retention"
    assert eks(private).inputs["enabledClusterLogTypes"] == ["audit", "authenticator"]


def test_without_control_plane_logs_there_is_no_group_for_them() -> None:
    recording = cluster(control_plane_logs=())
    assert recording.of_type("aws:cloudwatch/logGroup:LogGroup") == []
    assert not eks(recording).inputs.get("enabledClusterLogTypes")


def test_every_add_on_is_installed_once_by_us_at_its_pin(private: Recording) -> None:
    inputs = eks(private).inputs
    assert inputs["bootstrapSelfManagedAddons"] is False, "EKS installs none"
    assert inputs["useDefaultVpcCni"] is True, "the component's own CNI add-on is off"
    assert inputs["kubeProxyAddonOptions"]["enabled"] is False
    assert inputs["corednsAddonOptions"]["enabled"] is False
    installed = {found.inputs["addonName"]: found.inputs["addonVersion"] for found in private.of_type(ADDON)}
    assert len(private.of_type(ADDON)) == len(installed) == 6
    assert installed == CLUSTER_PLAN.addon_versions


def test_what_controllers_support_is_known_of_the_versions_that_are_installed() -> None:
    installed = {"Karpenter": versions.KARPENTER.version, "KEDA": versions.KEDA.version}
    assert {each.controller: each.version for each in controllers()} == {
        name: version.rpartition(".")[0] for name, version in installed.items()
    }, "another minor version of a controller needs its range of Kubernetes versions looked up"


def test_network_policies_are_enforced(private: Recording) -> None:
    configuration = json.loads(addon(private, "vpc-cni").inputs["configurationValues"])
    assert configuration == {"enableNetworkPolicy": "true"}


def test_the_named_roles_administer_the_cluster(private: Recording) -> None:
    entries = private.of_type("aws:eks/accessEntry:AccessEntry")
    grants = private.of_type("aws:eks/accessPolicyAssociation:AccessPolicyAssociation")
    assert [entry.inputs["principalArn"] for entry in entries] == list(ADMINS)
    assert len({entry.name for entry in entries}) == 2, "roles of one name in two accounts are two"
    for arn, entry, grant in zip(ADMINS, entries, grants, strict=True):
        assert grant.inputs["principalArn"] == arn
        assert grant.inputs["policyArn"] == "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
        assert grant.inputs["accessScope"] == {"type": "cluster"}
        assert private.destroyed_before(grant, entry)
        assert private.destroyed_before(entry, eks(private))


def test_system_nodes_are_on_demand_machines_of_the_plan(private: Recording) -> None:
    inputs = node_group(private).inputs
    assert inputs["instanceTypes"] == ["m7g.large"]
    assert inputs["capacityType"] == "ON_DEMAND"
    assert inputs["scalingConfig"] == {"desiredSize": 2, "minSize": 2, "maxSize": 4}
    assert inputs["subnetIds"] == ["subnet-1", "subnet-2"]
    assert inputs["version"] == "1.36"
    assert inputs["labels"] == {"frugal-llm/pool": "system"}
    assert "taints" not in inputs


@pytest.mark.parametrize(
    ("architecture", "image"), [("arm64", "AL2023_ARM_64_STANDARD"), ("amd64", "AL2023_x86_64_STANDARD")]
)
def test_system_nodes_boot_the_image_of_their_processor(architecture: CpuArchitecture, image: str) -> None:
    recording = cluster(system_nodes=replace(SYSTEM_NODES, cpu_architecture=architecture))
    assert node_group(recording).inputs["amiType"] == image


def test_more_system_nodes_in_the_plan_are_ordered_at_once() -> None:
    # Nothing but the plan scales them. With desiredSize ignored, EKS would refuse a minimum above the old size.
    recording = cluster(system_nodes=replace(SYSTEM_NODES, count=3))
    assert node_group(recording).inputs["scalingConfig"] == {"desiredSize": 3, "minSize": 3, "maxSize": 4}
    assert node_group(recording).ignore_changes == ()


def test_pods_on_system_nodes_cannot_take_the_credentials_of_the_node(private: Recording) -> None:
    options = template(private).inputs["metadataOptions"]
    assert options == {"httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1}


def test_system_nodes_have_an_encrypted_gp3_volume_of_the_planned_size(private: Recording) -> None:
    (mapping,) = template(private).inputs["blockDeviceMappings"]
    assert mapping["deviceName"] == "/dev/xvda"
    assert mapping["ebs"] == {
        "volumeSize": 40,
        "volumeType": "gp3",
        "encrypted": "true",
        "deleteOnTermination": "true",
    }


def test_system_instances_and_volumes_carry_the_tags_that_the_bill_is_split_by(private: Recording) -> None:
    specifications = template(private).inputs["tagSpecifications"]
    assert {each["resourceType"] for each in specifications} == {"instance", "volume", "network-interface"}
    assert all(each["tags"]["frugal-llm:stack"] == "dev" for each in specifications)


def test_system_nodes_use_the_security_group_of_the_cluster_and_karpenter_finds_it(private: Recording) -> None:
    assert eks(private).inputs["skipDefaultSecurityGroups"] is True
    assert "vpcSecurityGroupIds" not in template(private).inputs, "EKS attaches its own where none is named"
    (tag,) = private.of_type("aws:ec2/tag:Tag")
    assert tag.inputs["resourceId"] == eks(private).outputs["clusterSecurityGroupId"]
    assert (tag.inputs["key"], tag.inputs["value"]) == ("karpenter.sh/discovery", CLUSTER)


def test_the_role_of_a_node_is_karpenters_four_policies(private: Recording) -> None:
    attached = [
        found.inputs["policyArn"]
        for found in private.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
        if found.name.startswith("cluster-system-node-")
    ]
    assert attached == [
        "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy",
        "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy",
        "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryPullOnly",
        "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore",
    ]


def test_the_network_add_ons_are_there_before_the_nodes_and_stay_until_they_are_gone(private: Recording) -> None:
    group = node_group(private)
    for pinned in ("vpc-cni", "kube-proxy", "eks-pod-identity-agent"):
        assert private.destroyed_before(group, addon(private, pinned)), "no node is Ready without it"
        assert private.destroyed_before(addon(private, pinned), eks(private))


def test_add_ons_that_are_deployments_wait_for_nodes_to_run_on(private: Recording) -> None:
    for pinned in ("coredns", "metrics-server", "aws-ebs-csi-driver"):
        assert private.destroyed_before(addon(private, pinned), node_group(private))


def test_system_nodes_go_before_their_role_the_routes_and_the_cluster(private: Recording) -> None:
    group = node_group(private)
    for attachment in private.of_type("aws:iam/rolePolicyAttachment:RolePolicyAttachment"):
        if attachment.name.startswith("cluster-system-node-"):
            assert private.destroyed_before(group, attachment), "a node without its policies cannot leave in order"
    assert private.destroyed_before(group, private.named("route"))
    assert private.destroyed_before(group, eks(private))


def test_the_volume_driver_works_with_pod_identity_and_tags_what_it_makes(private: Recording) -> None:
    driver = addon(private, "aws-ebs-csi-driver")
    role = private.named("cluster-ebs-csi", "aws:iam/role:Role")
    assert driver.inputs["podIdentityAssociations"] == [
        {"roleArn": role.outputs["arn"], "serviceAccount": "ebs-csi-controller-sa"}
    ]
    (statement,) = json.loads(role.inputs["assumeRolePolicy"])["Statement"]
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert statement["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    configuration = json.loads(driver.inputs["configurationValues"])
    assert configuration == {"controller": {"extraVolumeTags": {"frugal-llm:stack": "dev"}}}
    assert private.destroyed_before(driver, private.named("cluster-ebs-csi-AmazonEBSCSIDriverPolicy"))


def test_volumes_are_by_default_encrypted_gp3_in_the_zone_of_their_pod(private: Recording) -> None:
    (storage_class,) = private.of_type("kubernetes:storage.k8s.io/v1:StorageClass")
    inputs = storage_class.inputs
    assert inputs["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert inputs["provisioner"] == "ebs.csi.aws.com"
    assert inputs["parameters"] == {"type": "gp3", "encrypted": "true"}
    assert inputs["volumeBindingMode"] == "WaitForFirstConsumer"
    assert private.destroyed_before(storage_class, addon(private, "aws-ebs-csi-driver"))


def test_the_kubernetes_provider_has_the_clusters_kubeconfig_and_outlives_its_changes(private: Recording) -> None:
    provider = private.named("cluster-kubernetes")
    assert provider.inputs["kubeconfig"] == eks(private).outputs["kubeconfigJson"]
    assert provider.inputs["clusterIdentifier"] == eks(private).outputs["oidcIssuer"]
    (storage_class,) = private.of_type("kubernetes:storage.k8s.io/v1:StorageClass")
    assert storage_class.provider == provider.urn


def test_the_kubeconfig_is_a_secret(private: Recording) -> None:
    assert private.outputs.is_secret("kubeconfig")


def test_controllers_wait_for_nodes_and_for_all_that_pods_need(private: Recording) -> None:
    ready = {private.by_urn[urn].name for urn in private.outputs["ready"]}
    assert ready >= {
        "cluster-system",
        "cluster-coredns",
        "cluster-eks-pod-identity-agent",
        "cluster-vpc-cni",
        "cluster-kube-proxy",
        "cluster-aws-ebs-csi-driver",
        "cluster-gp3",
        "cluster-discovery",
    }


def test_a_preview_without_a_cluster_shows_everything_and_knows_the_name() -> None:
    recording = cluster(preview=True)
    assert len(recording.resources) == len(cluster().resources)
    assert recording.outputs["name"] == CLUSTER
    assert recording.outputs["kubeconfig"] is UNKNOWN
    assert {found.inputs["clusterName"] for found in recording.of_type(ADDON)} == {CLUSTER}


def test_what_is_made_by_the_name_of_the_cluster_waits_for_the_cluster(private: Recording) -> None:
    for found in private.where(lambda each: "clusterName" in each.inputs):
        assert eks(private).urn in found.property_dependencies["clusterName"], found.name


def test_only_what_is_referred_to_by_name_has_a_physical_name(private: Recording) -> None:
    named = {found.name for found in private.resources if "name" in found.inputs and found.package in {"aws", "eks"}}
    assert named == {"cluster", "cluster-logs"}
    assert duplicate_urns(private) == []
