"""What AWS is asked for by every stack: closed, encrypted, tagged, pinned, and no more than needed.

It holds for the recorded graph. `eks.Cluster` and the charts make their own resources, which are not in it: of those
only what they are told is checked. The IAM documents have a test of their own.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.names import STACK_TAG
from tests.harness import Recording, Resource, helm_releases, kubernetes_objects, provider_inputs, record_with

EKS = "eks:index:Cluster"
NODE_CLASS = "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass"
NODE_POOL = "kubernetes:karpenter.sh/v1:NodePool"
ROLE = "aws:iam/role:Role"
TAG = "aws:ec2/tag:Tag"

#: What costs money or holds something, and is made by others than the AWS provider: nobody else tags it.
BEYOND_DEFAULT_TAGS = ("system instances", "system volumes", "Karpenter's nodes", "load balancers", "claimed volumes")


def only(recording: Recording, type_: str) -> Resource:
    (found,) = recording.of_type(type_)
    return found


def addon(recording: Recording, name: str) -> Resource:
    (found,) = [one for one in recording.of_type("aws:eks/addon:Addon") if one.inputs["addonName"] == name]
    return found


def tags_beyond(recording: Recording, what: str) -> list[dict[str, str]]:
    if what.startswith("system "):
        specifications = only(recording, "aws:ec2/launchTemplate:LaunchTemplate").inputs["tagSpecifications"]
        kind = {"system instances": "instance", "system volumes": "volume"}[what]
        return [each["tags"] for each in specifications if each["resourceType"] == kind]
    if what == "Karpenter's nodes":
        return [one.inputs["spec"]["tags"] for one in recording.of_type(NODE_CLASS)]
    if what == "load balancers":
        return [one.values["defaultTags"] for one in helm_releases(recording) if "load-balancer" in one.chart]
    configuration = json.loads(addon(recording, "aws-ebs-csi-driver").inputs["configurationValues"])
    return [configuration["controller"]["extraVolumeTags"]]


# The bill is split by tags --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", BEYOND_DEFAULT_TAGS)
def test_what_the_providers_default_tags_do_not_reach_carries_the_stacks_tag(update: Recording, what: str) -> None:
    found = tags_beyond(update, what)
    assert found
    default = provider_inputs(update, only(update, "aws:sqs/queue:Queue"))["defaultTags"]["tags"]
    for tags in found:
        assert tags[STACK_TAG] == update.stack
        assert default.items() <= tags.items(), "the tags that a person asked for go everywhere too"


# The cluster ----------------------------------------------------------------------------------------------------


def test_the_cluster_is_closed_encrypted_logged_and_entered_by_access_entries_alone(update: Recording) -> None:
    inputs = only(update, EKS).inputs
    assert (inputs["endpointPrivateAccess"], inputs["endpointPublicAccess"]) == (True, False)
    assert inputs["encryptionConfigKeyArn"] == only(update, "aws:kms/key:Key").outputs["arn"]
    assert inputs["enabledClusterLogTypes"] == ["audit", "authenticator"]
    assert only(update, "aws:cloudwatch/logGroup:LogGroup").inputs["retentionInDays"] == 30
    assert inputs["authenticationMode"] == "API"
    assert not [one for one in kubernetes_objects(update, "ConfigMap") if one["metadata"].get("name") == "aws-auth"]


def test_every_add_on_is_pinned_and_those_that_call_aws_use_pod_identity(update: Recording) -> None:
    addons = update.of_type("aws:eks/addon:Addon")
    assert len(addons) == 6
    for one in addons:
        assert one.inputs["addonVersion"].startswith("v"), one.name
        assert "serviceAccountRoleArn" not in one.inputs, "that is IRSA, which needs an OIDC provider"
    assert addon(update, "aws-ebs-csi-driver").inputs["podIdentityAssociations"]


def test_every_role_of_a_pod_is_given_by_pod_identity_to_one_service_account(update: Recording) -> None:
    of_pods = {role.urn for role in update.of_type(ROLE) if "pods.eks.amazonaws.com" in role.inputs["assumeRolePolicy"]}
    associations = update.of_type("aws:eks/podIdentityAssociation:PodIdentityAssociation")
    given = {urn for one in associations for urn in one.property_dependencies["roleArn"]}
    given |= set(addon(update, "aws-ebs-csi-driver").property_dependencies["podIdentityAssociations"])
    assert of_pods <= given, "a role that nobody takes"
    accounts = [(one.inputs["namespace"], one.inputs["serviceAccount"]) for one in associations]
    assert len(accounts) == len(set(accounts)), "EKS takes one association for a service account"
    assert {("kube-system", "karpenter"), ("kube-system", "aws-load-balancer-controller")} <= set(accounts)
    annotated = [one for one in kubernetes_objects(update) if "eks.amazonaws.com/role-arn" in json.dumps(one)]
    assert annotated == [], "that would be IRSA"


def test_system_nodes_are_of_the_processor_that_the_plan_priced(update: Recording) -> None:
    inputs = only(update, "aws:eks/nodeGroup:NodeGroup").inputs
    assert (inputs["instanceTypes"], inputs["amiType"]) == (["m7g.large"], "AL2023_ARM_64_STANDARD")
    pinned = [
        pod for pod in _pods_on_system_nodes(update) if "kubernetes.io/arch" in json.dumps(pod.get("nodeSelector"))
    ]
    assert pinned == [], "a pod that asks for x86 would wait for ever"


def _pods_on_system_nodes(recording: Recording) -> list[dict[str, Any]]:
    pods = [
        one["spec"]["template"]["spec"] for kind in ("Deployment", "Job") for one in kubernetes_objects(recording, kind)
    ]
    found = [pod for pod in pods if (pod.get("nodeSelector") or {}).get("frugal-llm/pool") == "system"]
    assert found
    return found


# Encryption and walls -------------------------------------------------------------------------------------------


def test_every_disk_is_encrypted(update: Recording) -> None:
    template = only(update, "aws:ec2/launchTemplate:LaunchTemplate").inputs["blockDeviceMappings"]
    disks = [mapping["ebs"] for mapping in template]
    for one in update.of_type(NODE_CLASS):
        disks += [mapping["ebs"] for mapping in one.inputs["spec"]["blockDeviceMappings"]]
    assert len(disks) > 1
    assert {str(disk["encrypted"]).lower() for disk in disks} == {"true"}
    assert only(update, "kubernetes:storage.k8s.io/v1:StorageClass").inputs["parameters"]["encrypted"] == "true"


def test_the_interruption_queue_is_encrypted_and_forgets_in_five_minutes(update: Recording) -> None:
    inputs = only(update, "aws:sqs/queue:Queue").inputs
    assert (inputs["sqsManagedSseEnabled"], inputs["messageRetentionSeconds"]) == (True, 300)


def test_the_weights_bucket_is_private_encrypted_versioned_tls_only_and_cleans_up(update: Recording) -> None:
    bucket = only(update, "aws:s3/bucket:Bucket").outputs["bucket"]
    private = only(update, "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock").inputs
    assert {value for key, value in private.items() if key != "bucket"} == {True}
    assert len(private) == 5
    guards = [
        only(update, f"aws:s3/{kind[0].lower()}{kind[1:]}:{kind}").inputs
        for kind in (
            "BucketServerSideEncryptionConfiguration",
            "BucketVersioning",
            "BucketPolicy",
            "BucketLifecycleConfiguration",
        )
    ]
    assert {guard["bucket"] for guard in (private, *guards)} == {bucket}
    encryption, versioning, policy, lifecycle = guards
    (rule,) = encryption["rules"]
    assert rule["applyServerSideEncryptionByDefault"] == {"sseAlgorithm": "AES256"}
    assert versioning["versioningConfiguration"] == {"status": "Enabled"}
    (refused,) = json.loads(policy["policy"])["Statement"]
    assert (refused["Effect"], refused["Action"]) == ("Deny", "s3:*")
    assert refused["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert len(refused["Resource"]) == 2, "the bucket and what is in it"
    leftovers = lifecycle["rules"][0]
    assert leftovers["abortIncompleteMultipartUpload"] == {"daysAfterInitiation": 1}
    assert leftovers["noncurrentVersionExpiration"] == {"noncurrentDays": 7}


def test_nothing_listens_to_the_internet_but_the_load_balancer(update: Recording) -> None:
    subnets = update.of_type("aws:ec2/subnet:Subnet")
    assert {subnet.inputs["mapPublicIpOnLaunch"] for subnet in subnets} == {False}
    private = {subnet.id for subnet in subnets if "-private-" in subnet.name}
    assert set(only(update, "aws:eks/nodeGroup:NodeGroup").inputs["subnetIds"]) == private
    assert set(only(update, EKS).inputs["privateSubnetIds"]) == private
    assert "publicSubnetIds" not in only(update, EKS).inputs
    rules = update.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    assert "0.0.0.0/0" not in {rule.inputs.get("cidrIpv4") for rule in rules}


# Size -----------------------------------------------------------------------------------------------------------


def test_a_whole_stack_has_fewer_than_300_resources(preview: Recording) -> None:
    # The time of the offline preview is measured by `make bench`.
    assert len(preview.resources) < 300


# Bring your own -------------------------------------------------------------------------------------------------

BROUGHT: dict[str, Any] = {
    "network": {
        "vpcId": "vpc-0123456789abcdef0",
        "vpcCidr": "10.8.0.0/16",
        "zones": ["us-east-2a", "us-east-2b", "us-east-2c"],
        "privateSubnetIds": ["subnet-0000000a", "subnet-0000000b", "subnet-0000000c"],
    },
    "access": {"accountId": "111122223333"},
    "cluster": {
        "kubernetesVersion": "1.35",
        "roleArn": "arn:aws:iam::111122223333:role/eks/control-plane",
        "nodeRoleArn": "arn:aws:iam::111122223333:role/eks/nodes",
        "secretsKeyArn": "arn:aws:kms:us-east-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    },
}


@pytest.fixture(scope="module")
def brought() -> Recording:
    return record_with("dev", preview=False, **BROUGHT)


def test_of_what_is_brought_along_nothing_is_made(brought: Recording) -> None:
    made = {one.type for one in brought.resources if not one.read}
    assert not {type_ for type_ in made if type_.startswith(("aws:ec2/vpc", "aws:ec2/subnet", "aws:ec2/route"))}
    assert not made & {"aws:ec2/natGateway:NatGateway", "aws:ec2/eip:Eip", "aws:kms/key:Key"}
    of_nodes = [
        role.name for role in brought.of_type(ROLE) if "ec2.amazonaws.com" in role.inputs.get("assumeRolePolicy", "")
    ]
    assert of_nodes == []


def test_what_is_brought_along_reaches_the_cluster_its_nodes_and_the_controllers(brought: Recording) -> None:
    cluster, group = only(brought, EKS).inputs, only(brought, "aws:eks/nodeGroup:NodeGroup").inputs
    assert (cluster["vpcId"], cluster["version"]) == ("vpc-0123456789abcdef0", "1.35")
    assert cluster["privateSubnetIds"] == group["subnetIds"] == BROUGHT["network"]["privateSubnetIds"]
    assert group["nodeRoleArn"] == BROUGHT["cluster"]["nodeRoleArn"]
    assert addon(brought, "kube-proxy").inputs["addonVersion"] == "v1.35.3-eksbuild.21"
    assert {one.inputs["spec"]["role"] for one in brought.of_type(NODE_CLASS)} == {"nodes"}
    (balancers,) = [one for one in helm_releases(brought) if "load-balancer" in one.chart]
    assert balancers.values["vpcId"] == "vpc-0123456789abcdef0"
    labels = [one["metadata"].get("labels") or {} for one in kubernetes_objects(brought, "Namespace")]
    assert "v1.35" in {each.get("pod-security.kubernetes.io/enforce-version") for each in labels}


def test_credentials_of_another_account_are_refused_by_the_provider(brought: Recording, dev_update: Recording) -> None:
    assert provider_inputs(brought, only(brought, "aws:sqs/queue:Queue"))["allowedAccountIds"] == ["111122223333"]
    assert "allowedAccountIds" not in provider_inputs(dev_update, only(dev_update, "aws:sqs/queue:Queue"))


def test_nodes_are_gone_before_the_tags_they_are_found_by(brought: Recording) -> None:
    tags = [tag for tag in brought.of_type(TAG) if tag.inputs["key"] == "karpenter.sh/discovery"]
    assert len(tags) == 1, "the cluster's security group; the subnets are named by their ids"
    for pool in brought.of_type(NODE_POOL):
        for tag in tags:
            assert brought.destroyed_before(pool, tag), f"{pool.name} before {tag.name}"


# Before the load balancer ---------------------------------------------------------------------------------------


def test_a_web_acl_and_a_sign_in_of_the_settings_reach_load_balancer_and_controller() -> None:
    web_acl = "arn:aws:wafv2:us-east-2:111122223333:regional/webacl/llm/1234abcd"
    network = {
        "certificateArn": "arn:aws:acm:us-east-2:111122223333:certificate/1234",
        "webAclArn": web_acl,
        "oidc": {
            "issuer": "https://idp.example.com",
            "authorizationEndpoint": "https://idp.example.com/authorize",
            "tokenEndpoint": "https://idp.example.com/token",
            "userInfoEndpoint": "https://idp.example.com/userinfo",
            "secretName": "sign-in",
            "sessionHours": 8,
        },
    }
    guarded = record_with("dev", preview=False, network=network)
    (ingress,) = kubernetes_objects(guarded, "Ingress")
    notes = ingress["metadata"]["annotations"]
    assert notes["alb.ingress.kubernetes.io/wafv2-acl-arn"] == web_acl
    assert notes["alb.ingress.kubernetes.io/auth-session-timeout"] == "28800"
    (balancers,) = [one for one in helm_releases(guarded) if "load-balancer" in one.chart]
    account = balancers.namespace, balancers.values["serviceAccount"]["name"]
    (binding,) = [one for one in kubernetes_objects(guarded, "RoleBinding") if "oidc" in one["metadata"]["name"]]
    assert [(one["namespace"], one["name"]) for one in binding["subjects"]] == [account]
    assert any(web_acl in policy.inputs["policy"] for policy in guarded.of_type("aws:iam/policy:Policy"))
