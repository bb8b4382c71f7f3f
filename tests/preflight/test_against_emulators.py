"""Preflight and leftovers as a person runs them, against emulated AWS. How AWS itself answers is not proved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from components.names import STACK_TAG
from tests.emulators import Account, Emulator, emulated_aws
from tests.emulators.stub import ModelAccess

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def run(aws: Emulator, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "preflight", *arguments],
        cwd=ROOT,
        env={**os.environ, "HF_TOKEN": "", **aws.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def rows_of(ran: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    assert ran.returncode in {0, 1}, ran.stderr
    assert ran.stdout, ran.stderr
    return {row["check"]: row for row in json.loads(ran.stdout)["rows"]}


def test_a_gpu_quota_too_low_is_a_row_with_the_way_out_and_exit_code_1() -> None:
    with emulated_aws(Account(quotas={"L-DB2E81BA": 8})) as aws:
        ran = run(aws, "prod", "--json")
        table = run(aws, "prod")
    rows = rows_of(ran)
    quota = rows["quota: Running On-Demand G and VT instances"]
    assert (quota["verdict"], quota["found"]) == ("fail", "8, none in use")
    assert quota["wanted"].startswith("36 vCPUs")
    assert "L-DB2E81BA --desired-value 36" in quota["command"]
    assert ran.returncode == table.returncode == 1
    assert "--quota-code L-DB2E81BA --desired-value 36 --region us-east-1\n" in table.stdout  # one line, to copy
    assert {row["verdict"] for check, row in rows.items() if check.startswith("quota: All")} == {"ok"}


def test_an_addon_that_eks_no_longer_offers_is_a_row() -> None:
    with emulated_aws(Account(addons={"coredns": "v1.99.0-eksbuild.1"})) as aws:
        rows = rows_of(run(aws, "dev", "--json"))
    assert rows["add-on: coredns"]["found"] == "not offered for 1.36; the default is v1.99.0-eksbuild.1"
    assert rows["add-on: kube-proxy"]["found"] == "not offered for 1.36; the default is not known"


def test_what_is_refused_is_named_and_no_secret_is_printed() -> None:
    refused = {
        "iam:SimulatePrincipalPolicy", "servicequotas:GetServiceQuota", "ec2:DescribeInstanceTypeOfferings",
        "eks:DescribeClusterVersions", "eks:DescribeAddonVersions", "ssm:GetParameters", "iam:ListRoles",
        "ce:ListCostAllocationTags",
    }  # fmt: skip
    models: dict[str, ModelAccess] = {"RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8": "accepted"}
    with emulated_aws(Account(denied=frozenset(refused), models=models)) as aws:
        ran = run(aws, "prod", "--json", HF_TOKEN="hf_never_shown")
        without_token = rows_of(run(aws, "prod", "--json"))
    rows = rows_of(ran)
    said = " ".join(row["found"] + row["fix"] for row in rows.values())
    assert all(action in said for action in refused)
    assert "Traceback" not in ran.stderr
    assert "hf_never_shown" not in ran.stdout + ran.stderr
    gated = f"model: {next(iter(models))}"
    assert (rows[gated]["verdict"], without_token[gated]["verdict"]) == ("ok", "unknown")
    assert rows["model: RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8"]["found"] == "not there, or not for this token"


@pytest.fixture(scope="module")
def aws() -> Iterator[Emulator]:
    with emulated_aws(Account()) as emulator:
        yield emulator


def client(aws: Emulator, service: str) -> Any:
    session: Any = boto3.session.Session("emulated", "emulated", region_name="us-east-2")
    return session.client(service, endpoint_url=aws.endpoint)


def test_what_is_brought_along_is_looked_at_where_it_is(aws: Emulator, tmp_path: Path) -> None:
    """Two private subnets behind an internet gateway only, and a control plane's role that EC2 assumes."""
    ec2, iam, zones = client(aws, "ec2"), client(aws, "iam"), ["us-east-2a", "us-east-2b"]
    vpc = ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, AvailabilityZone=zone, CidrBlock=f"10.8.{16 * index}.0/20")["Subnet"]["SubnetId"]
        for index, zone in enumerate(zones)
    ]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(VpcId=vpc, InternetGatewayId=gateway)
    of_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    table = ec2.describe_route_tables(Filters=of_vpc)["RouteTables"][0]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    trust = {
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]
    }
    role = iam.create_role(RoleName="brought", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    key = client(aws, "kms").create_key()["KeyMetadata"]["Arn"]
    network = {"vpcId": vpc, "vpcCidr": "10.8.0.0/16", "zones": zones, "privateSubnetIds": subnets[::-1]}
    document = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())
    document["config"]["frugal-llm:network"] = network
    document["config"]["frugal-llm:cluster"] = {"roleArn": role, "nodeRoleArn": f"{role}-not", "secretsKeyArn": key}
    stack = tmp_path / "Pulumi.dev.yaml"
    stack.write_text(yaml.safe_dump(document))

    rows = rows_of(run(aws, str(stack), "--json"))
    first = rows[f"subnet {subnets[0]}"]
    assert first["verdict"] == "fail"
    assert first["found"].startswith("in us-east-2a; its route to 0.0.0.0/0 goes to an internet gateway")
    assert rows["free addresses"]["verdict"] == "ok"
    assert rows["role: cluster.roleArn"]["found"] == "its trust policy does not name eks.amazonaws.com"
    assert rows["role: cluster.nodeRoleArn"]["found"] == "not there"
    assert rows["key: cluster.secretsKeyArn"]["found"] == "Enabled, SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT"


def test_nothing_is_left_where_nothing_was(aws: Emulator) -> None:
    ran = run(aws, "leftovers", "staging")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("nothing is left")


def test_leftovers_are_found_by_our_tag_and_by_the_clusters_and_priced(aws: Emulator) -> None:
    ec2 = client(aws, "ec2")

    def tags(kind: str, key: str, value: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value}]}]

    image = ec2.describe_images()["Images"][0]["ImageId"]
    ours, of_cluster = (STACK_TAG, "dev"), ("kubernetes.io/cluster/frugal-llm-dev", "owned")
    kept = ec2.run_instances(
        ImageId=image,
        InstanceType="g4dn.xlarge",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=tags("instance", *of_cluster),
    )["Instances"][0]["InstanceId"]
    gone = ec2.run_instances(
        ImageId=image, InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1, TagSpecifications=tags("instance", *ours)
    )["Instances"][0]["InstanceId"]
    ec2.terminate_instances(InstanceIds=[gone])
    volume = ec2.create_volume(
        AvailabilityZone="us-east-2a", Size=100, VolumeType="gp3", TagSpecifications=tags("volume", *ours)
    )["VolumeId"]
    other = ec2.create_volume(
        AvailabilityZone="us-east-2a", Size=50, TagSpecifications=tags("volume", STACK_TAG, "prod")
    )["VolumeId"]
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=tags("elastic-ip", *ours))["AllocationId"]
    key = client(aws, "kms").create_key(Tags=[{"TagKey": STACK_TAG, "TagValue": "dev"}])["KeyMetadata"]["KeyId"]
    dying = client(aws, "kms").create_key(Tags=[{"TagKey": STACK_TAG, "TagValue": "dev"}])["KeyMetadata"]["KeyId"]
    client(aws, "kms").schedule_key_deletion(KeyId=dying)
    client(aws, "logs").create_log_group(logGroupName="/aws/eks/frugal-llm-dev/cluster")

    ran = run(aws, "leftovers", "dev", "--json")
    left = json.loads(ran.stdout)
    things = {thing["id"]: thing for thing in left["things"]}
    assert left["not_looked_at"] == []
    assert ran.returncode == 1
    assert things[kept]["usd_per_month"] == pytest.approx(0.526 * 730)  # AWS' list price of g4dn.xlarge, us-east-2
    assert things[volume]["usd_per_month"] == pytest.approx(100 * 0.08)
    assert things[address]["usd_per_month"] == pytest.approx(0.005 * 730)
    assert things[key]["usd_per_month"] == pytest.approx(1)
    assert things["/aws/eks/frugal-llm-dev/cluster"]["kind"] == "log group"
    assert not {gone, other, dying} & things.keys()
    assert "i-" in run(aws, "leftovers", "dev").stdout
