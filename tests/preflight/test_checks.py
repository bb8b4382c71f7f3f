"""What answers mean for a plan. The answers are the tests' own: that AWS gives them so is not proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from components.names import STACK_TAG
from preflight import questions
from preflight.beside import ask
from preflight.checks import account_of, arns_in, eks_version_row, identity_row, model_row
from preflight.hugging_face import ModelAccess
from preflight.questions import Check, Stack, checks_of
from preflight.rows import NotAnswered, Row, exit_code
from preflight.wanted import VCPU_QUOTAS, ami_parameters, newest_alias, vcpu_quota, vcpu_quotas
from settings import Network
from tests.preflight.accounts import Answer, GivenAws, addon_versions, everything_there, stack_of

GPU_ON_DEMAND = VCPU_QUOTAS["G and VT"]["on-demand"]


@pytest.fixture(scope="module")
def prod() -> Stack:
    return stack_of("prod")


@pytest.fixture(autouse=True)
def open_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def access(repository: str, token: str) -> ModelAccess:
        return "open"

    monkeypatch.setattr(questions, "model_access", access)


def rows_of(stack: Stack, **changed: Answer) -> list[Row]:
    """The rows when the account answers these actions otherwise (``ec2_DescribeVpcs``)."""
    answers = everything_there(stack) | {name.replace("_", ":"): answer for name, answer in changed.items()}
    return ask(checks_of(stack, GivenAws(answers)))


def named(rows: Sequence[Row], check: str) -> Row:
    (row,) = [row for row in rows if row.check == check]
    return row


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
def test_an_account_that_has_everything_passes_every_check(name: str) -> None:
    rows = rows_of(stack_of(name))
    assert [row for row in rows if row.verdict != "ok"] == []
    assert exit_code(rows) == 0


def test_the_peak_of_a_pool_counts_in_vcpus_of_its_class_on_spot_and_on_demand(prod: Stack) -> None:
    # g4dn.xlarge has 4 vCPUs and g7e.2xlarge 8 (Karpenter's instance types): 3 of each, at the limits of their pools.
    wanted = {each.quota.code: each for each in vcpu_quotas(prod.plan)}
    assert wanted["L-DB2E81BA"].amount == wanted["L-3819A6DF"].amount == 3 * 4 + 3 * 8
    # EKS User Guide: an update of a node group starts up to two nodes a zone beside those that are there.
    system_nodes = prod.plan.system_nodes.count + 2 * 3
    assert wanted["L-1216C47A"].amount == system_nodes * 2  # m7g.large: 2 vCPUs
    assert wanted["L-1216C47A"].why == f"{system_nodes} x m7g.large of the system nodes while they are updated"
    assert "L-417A185B" not in wanted


def test_a_quota_below_the_peak_fails_with_the_command_that_asks_for_more(prod: Stack) -> None:
    rows = rows_of(
        prod,
        servicequotas_GetServiceQuota=lambda asked: {
            "Quota": {"Value": 8.0 if asked["QuotaCode"] == GPU_ON_DEMAND.code else 1000.0}
        },
    )
    row = named(rows, f"quota: {GPU_ON_DEMAND.name}")
    assert (row.verdict, row.found) == ("fail", "8, none in use")
    assert row.wanted.startswith("36 vCPUs: 3 x g4dn.xlarge of pool fast")
    assert "--quota-code L-DB2E81BA --desired-value 36 --region us-east-1" in row.command
    assert exit_code(rows) == 1
    assert [each.check for each in rows if each.verdict == "fail"] == [row.check]


def test_what_others_run_is_taken_from_the_quota_and_the_stacks_own_is_not(prod: Stack) -> None:
    def instance(tag: str, lifecycle: str) -> dict[str, Any]:
        tags = [{"Key": STACK_TAG, "Value": tag}]
        return {"InstanceType": "g6.12xlarge", "InstanceLifecycle": lifecycle, "Tags": tags}  # 48 vCPUs

    running = [instance("other", "spot"), instance("prod", "spot"), instance("other", "")]
    rows = rows_of(
        prod,
        servicequotas_GetServiceQuota={"Quota": {"Value": 80.0}},
        ec2_DescribeInstances={"Reservations": [{"Instances": running}]},
    )
    spot = named(rows, "quota: All G and VT Spot Instance Requests")
    assert (spot.verdict, spot.found) == ("fail", "32 free: 80 less 48 in use")
    assert "--desired-value 84" in spot.command  # 36 wanted and 48 in use


def test_quotas_of_types_that_only_widen_the_choice_warn(prod: Stack) -> None:
    pool = prod.plan.node_pools[0]
    wide = replace(pool, instance_types=(*pool.instance_types, "p4d.24xlarge"))
    plan = replace(prod.plan, node_pools=(wide, *prod.plan.node_pools[1:]))
    p_classes = {quota.code for quota in VCPU_QUOTAS["P2 to P4"].values()}
    rows = rows_of(
        replace(prod, plan=plan),
        servicequotas_GetServiceQuota=lambda asked: {
            "Quota": {"Value": 0.0 if asked["QuotaCode"] in p_classes else 1000.0}
        },
    )
    row = named(rows, "quota: Running On-Demand P instances")
    assert (row.verdict, row.found) == ("warn", "0, none in use")
    assert row.wanted.startswith("288 vCPUs: 3 x p4d.24xlarge")  # 96 vCPUs each
    assert exit_code(rows) == 0


@pytest.mark.parametrize(
    ("name", "on_demand", "spot"),
    [("g6e.12xlarge", "L-DB2E81BA", "L-3819A6DF"), ("gr6.4xlarge", "L-DB2E81BA", "L-3819A6DF"),
     ("p3.2xlarge", "L-417A185B", "L-7212CCBC"), ("p4de.24xlarge", "L-417A185B", "L-7212CCBC"),
     ("p5.48xlarge", "L-417A185B", "L-C4BD4855"), ("p5en.48xlarge", "L-417A185B", "L-C4BD4855"),
     ("c7g.large", "L-1216C47A", "L-34B43A08"), ("im4gn.large", "L-1216C47A", "L-34B43A08")],
)  # fmt: skip
def test_an_instance_type_counts_against_the_quotas_of_its_family(name: str, on_demand: str, spot: str) -> None:
    """Codes: AWS' table of EC2 quotas. On demand P is one class, spot P5 has a quota of its own."""
    found = [vcpu_quota(name, "on-demand"), vcpu_quota(name, "spot")]
    assert [quota.code for quota in found if quota] == [on_demand, spot]


@pytest.mark.parametrize("name", ["inf2.xlarge", "trn1.2xlarge", "u7i-12tb.224xlarge"])
def test_a_type_that_no_plan_has_counts_against_none(name: str) -> None:
    assert vcpu_quota(name, "on-demand") is vcpu_quota(name, "spot") is None


def test_a_pool_of_p4_and_p5_needs_both_spot_quotas_and_that_of_p6_is_not_known(prod: Stack) -> None:
    pool = replace(prod.plan.node_pools[0], instance_types=("p4d.24xlarge", "p5.4xlarge", "p6-b200.48xlarge"))
    rows = rows_of(replace(prod, plan=replace(prod.plan, node_pools=(pool,))))

    def wanted(name: str) -> str:
        return named(rows, f"quota: {name}").wanted

    # 96, 16 and 192 vCPUs (Karpenter's instance types), three nodes each.
    assert wanted("All P4, P3 and P2 Spot Instance Requests").startswith("288 vCPUs: 3 x p4d.24xlarge")
    assert wanted("All P5 Spot Instance Requests").startswith("48 vCPUs: 3 x p5.4xlarge")
    assert wanted("Running On-Demand P instances").startswith("288 vCPUs: 3 x p4d.24xlarge of pool fast")
    p6 = named(rows, "quota: P6 Spot Instance Requests")
    assert (p6.verdict, p6.fix) == ("unknown", "look in Service Quotas")


def test_a_zone_without_the_gpu_fails_and_names_the_zones_that_have_it(prod: Stack) -> None:
    everywhere = ("us-east-1a", "us-east-1d", "us-east-1f")

    def offered(asked: Any) -> dict[str, Any]:
        types = asked["Filters"][0]["Values"]
        places = dict.fromkeys(types, prod.plan.network.zones)
        places |= dict.fromkeys(prod.plan.node_pools[1].instance_types, everywhere)
        return {"InstanceTypeOfferings": [{"InstanceType": t, "Location": z} for t in types for z in places[t]]}

    rows = rows_of(prod, ec2_DescribeInstanceTypeOfferings=offered)
    row = named(rows, "offerings: pool quality")
    assert row.verdict == "fail"
    assert "us-east-1b: none; us-east-1c: none" in row.found
    assert row.fix == "set network.zones to zones of us-east-1a, us-east-1d, us-east-1f"
    assert named(rows, "offerings: pool fast").verdict == "ok"


def test_a_type_that_some_zones_lack_is_named_where_it_is(prod: Stack) -> None:
    types = prod.plan.node_pools[0].instance_types
    zones = prod.plan.network.zones

    def offered(asked: Any) -> dict[str, Any]:
        places = [(t, z) for t in asked["Filters"][0]["Values"] for z in zones if t != types[0] or z == zones[0]]
        return {"InstanceTypeOfferings": [{"InstanceType": t, "Location": z} for t, z in places]}

    row = named(rows_of(prod, ec2_DescribeInstanceTypeOfferings=offered), "offerings: pool fast")
    assert row.verdict == "ok"
    assert row.found.startswith(f"all in {zones[0]}; {zones[1]}: {types[1]}")


def test_from_the_end_of_standard_support_on_a_kubernetes_version_fails(prod: Stack) -> None:
    """With the upgrade policy STANDARD nobody pays for extended support: EKS upgrades the control plane by itself."""

    def row_on(day: date) -> Row:
        return named(rows_of(replace(prod, today=day)), "EKS version")

    last = row_on(date(2027, 8, 1))
    assert (last.verdict, last.wanted) == ("ok", "1.36 in standard support ($0.10/h, $73 a month)")
    ended = row_on(date(2027, 8, 2))
    assert (ended.verdict, ended.fix) == ("fail", "raise cluster.kubernetesVersion")
    assert ended.found.startswith("standard support ended on 2027-08-02, so EKS upgrades the control plane by itself")
    missing = eks_version_row("1.29", None, ["1.35", "1.36"], date(2026, 11, 26), 0.1, "as EKS says")
    assert (missing.verdict, missing.found) == ("fail", "1.29 is not offered; offered are 1.35, 1.36 (as EKS says)")


def test_the_kubernetes_version_that_is_checked_is_the_stacks_own() -> None:
    stack = stack_of("prod", cluster={"kubernetesVersion": "1.35"})
    rows = rows_of(replace(stack, today=date(2027, 4, 1)))
    assert named(rows, "EKS version").verdict == "fail"
    assert named(rows, "EKS version").found.startswith("standard support ended on 2027-03-27")
    asked: set[str] = set()

    def parameters(arguments: Any) -> dict[str, Any]:
        asked.update(arguments["Names"])
        return {"Parameters": []}

    rows_of(stack, ssm_GetParameters=parameters)
    assert asked
    assert all(name.startswith("/aws/service/eks/optimized-ami/1.35/") for name in asked)


def test_a_version_that_eks_lists_as_unsupported_is_not_offered(prod: Stack) -> None:
    versions = [
        {"clusterVersion": "1.36", "versionStatus": "UNSUPPORTED"},
        {"clusterVersion": "1.38", "versionStatus": "STANDARD_SUPPORT"},
    ]
    row = named(rows_of(prod, eks_DescribeClusterVersions={"clusterVersions": versions}), "EKS version")
    assert (row.verdict, row.found) == ("fail", "1.36 is not offered; offered are 1.38 (as EKS says)")


def test_without_the_permission_the_calendar_kept_here_judges_the_kubernetes_version(prod: Stack) -> None:
    reason = NotAnswered("the AWS credentials lack the permission eks:DescribeClusterVersions; allow it on resource *")
    row = named(rows_of(prod, eks_DescribeClusterVersions=reason), "EKS version")
    assert row.verdict == "ok"
    assert "by the calendar kept here" in row.found
    assert "eks:DescribeClusterVersions" in row.found


def test_an_addon_version_that_eks_does_not_offer_fails_and_names_the_default(prod: Stack) -> None:
    pinned = prod.plan.cluster.addon_versions

    def offered(asked: Any) -> Any:
        assert asked["kubernetesVersion"] == "1.36"
        name = asked["addonName"]
        version = "v1.99.0-eksbuild.1" if name == "coredns" else pinned[name]
        return addon_versions(name, version, "1.35" if name == "vpc-cni" else "1.36")

    rows = rows_of(prod, eks_DescribeAddonVersions=offered)
    dns = named(rows, "add-on: coredns")
    assert (dns.verdict, dns.wanted) == ("fail", pinned["coredns"])
    assert dns.found == "not offered for 1.36; the default is v1.99.0-eksbuild.1"
    assert dns.fix == "pin v1.99.0-eksbuild.1 in planning/facts/data/eks_addons.csv, with its source"
    assert named(rows, "add-on: vpc-cni").verdict == "fail", "offered for another Kubernetes version only"
    assert f"kube-proxy {pinned['kube-proxy']}" in named(rows, "add-ons").found


def test_ami_parameters_are_those_that_karpenter_asks_for(prod: Stack) -> None:
    # Paths read in aws/karpenter-provider-aws v1.14.1, pkg/providers/amifamily.
    (al2023,) = ami_parameters(prod.plan, "al2023@v20260903")
    place = "/aws/service/eks/optimized-ami/1.36/amazon-linux-2023/x86_64/nvidia"
    assert al2023.pinned == f"{place}/amazon-eks-node-al2023-x86_64-nvidia-1.36-v20260903/image_id"
    (bottlerocket,) = ami_parameters(prod.plan, "bottlerocket@v1.55.0")
    assert bottlerocket.pinned == "/aws/service/bottlerocket/aws-k8s-1.36-nvidia/x86_64/1.55.0/image_id"
    assert newest_alias("al2023", "1.34.6-20260420") == "al2023@v20260420"
    assert newest_alias("bottlerocket", "1.55.0-d93bb1b1") == "bottlerocket@1.55.0"


def test_an_ami_alias_that_does_not_exist_fails_and_names_the_newest(prod: Stack) -> None:
    def only_newest(asked: Any) -> dict[str, Any]:
        names = [name for name in asked["Names"] if name.endswith("release_version")]
        return {"Parameters": [{"Name": name, "Value": "1.36.4-20261110"} for name in names]}

    row = named(rows_of(prod, ssm_GetParameters=only_newest), "AMI: nvidia x86_64")
    assert (row.verdict, row.fix) == ("fail", "set capacity.amiAlias to al2023@v20261110")


def test_arns_of_another_account_fail_and_name_the_setting(prod: Stack) -> None:
    arn = "arn:aws:acm:us-east-1:999988887777:certificate/abc"
    settings = prod.settings.model_copy(update={"network": Network.model_validate({"certificateArn": arn})})
    row = named(rows_of(replace(prod, settings=settings)), "credentials")
    assert (row.verdict, row.wanted) == ("fail", "account 999988887777")
    assert "network.certificateArn (999988887777)" in row.fix
    assert account_of("no arn") == ""
    assert arns_in({"a": ["arn:aws:s3:::bucket-without-account"]}) == {}
    assert identity_row("1", "arn", {}).verdict == "ok"


def test_actions_that_a_policy_refuses_fail_by_service_and_are_named(prod: Stack) -> None:
    def simulated(asked: Any) -> dict[str, Any]:
        refused = {"eks:CreateCluster", "eks:DeleteCluster"}
        return {
            "EvaluationResults": [
                {"EvalActionName": a, "EvalDecision": "implicitDeny" if a in refused else "allowed"}
                for a in asked["ActionNames"]
            ]
        }

    rows = rows_of(prod, iam_SimulatePrincipalPolicy=simulated)
    assert named(rows, "permissions: eks").found == "not allowed: eks:CreateCluster, eks:DeleteCluster"
    assert "eks" not in named(rows, "permissions").found
    assert exit_code(rows) == 1


def test_the_simulation_asks_of_the_role_with_its_path_and_not_of_the_session(prod: Stack) -> None:
    asked: list[str] = []

    def simulated(arguments: Any) -> dict[str, Any]:
        asked.append(arguments["PolicySourceArn"])
        return {"EvaluationResults": []}

    rows_of(prod, iam_SimulatePrincipalPolicy=simulated)
    assert set(asked) == {"arn:aws:iam::111122223333:role/ops/deployer"}
    root = {"Account": "111122223333", "Arn": "arn:aws:iam::111122223333:root"}
    row = named(rows_of(prod, sts_GetCallerIdentity=root), "permissions")
    assert (row.found, row.fix) == ("not checked: IAM does not simulate the root user", "use a role")


def test_a_missing_permission_is_a_row_that_names_it_and_fails_nothing(prod: Stack) -> None:
    for action in ("iam:SimulatePrincipalPolicy", "servicequotas:GetServiceQuota", "ssm:GetParameters",
                   "ec2:DescribeInstanceTypeOfferings", "iam:ListRoles", "ce:ListCostAllocationTags"):  # fmt: skip
        rows = rows_of(prod, **{action: NotAnswered(f"the AWS credentials lack the permission {action}")})
        unknown = [row for row in rows if row.verdict == "unknown"]
        assert unknown, action
        assert all(action in row.found for row in unknown)
        assert exit_code(rows) == 0


def test_without_credentials_the_run_fails_once_and_what_needs_none_is_checked(prod: Stack) -> None:
    rows = rows_of(prod, sts_GetCallerIdentity=NotAnswered("no AWS credentials; set AWS_PROFILE"))
    assert named(rows, "credentials").verdict == "fail"
    assert named(rows, "credentials").fix == "set AWS_PROFILE"
    assert {row.check.partition(":")[0] for row in rows} == {"credentials", "EKS version", "budget alarm", "model"}
    assert exit_code(rows) == 1


def test_where_ec2_does_not_say_what_is_in_use_the_quota_alone_is_judged(prod: Stack) -> None:
    rows = rows_of(prod, ec2_DescribeInstances=NotAnswered("lack the permission ec2:DescribeInstances"))
    row = named(rows, f"quota: {GPU_ON_DEMAND.name}")
    assert (row.verdict, row.found) == ("ok", "1000; what is in use is not known")


def test_a_quota_that_was_never_changed_has_aws_default(prod: Stack) -> None:
    rows = rows_of(
        prod,
        servicequotas_GetServiceQuota=NotAnswered(
            "servicequotas:GetServiceQuota failed (NoSuchResourceException: none)"
        ),
        servicequotas_GetAWSDefaultServiceQuota={"Quota": {"Value": 5.0}},
    )
    row = named(rows, "quota: VPCs per Region")
    assert (row.verdict, row.found) == ("ok", "5, none in use")


def test_nat_gateways_are_counted_in_the_fullest_zone(prod: Stack) -> None:
    zones = prod.plan.network.zones
    subnets = [{"SubnetId": zone, "AvailabilityZone": zone} for zone in zones]
    gateways = [{"SubnetId": zones[0], "State": "available"}] * 5 + [{"SubnetId": zones[1], "State": "deleted"}] * 9
    rows = rows_of(
        prod,
        servicequotas_GetServiceQuota={"Quota": {"Value": 5.0}},
        ec2_DescribeSubnets={"Subnets": subnets},
        ec2_DescribeNatGateways={"NatGateways": gateways},
    )
    row = named(rows, "quota: NAT gateways per Availability Zone")
    assert (row.verdict, row.found) == ("fail", "0 free: 5 less 5 in use")


@pytest.mark.parametrize(
    ("access", "verdict"),
    [("open", "ok"), ("accepted", "ok"), ("refused", "fail"), ("token missing", "unknown"),
     ("token invalid", "fail"), ("not found", "fail")],
)  # fmt: skip
def test_a_checkpoint_that_cannot_be_read_fails(access: ModelAccess, verdict: str) -> None:
    row = model_row("org/model", access, ["tier fast"])
    assert row.verdict == verdict
    assert bool(row.fix) == (verdict != "ok")


def test_roles_made_on_use_warn_and_that_of_spot_fails(prod: Stack) -> None:
    rows = rows_of(prod, iam_ListRoles={"Roles": []})
    assert named(rows, "service-linked role of spot").verdict == "fail"
    assert "--aws-service-name spot.amazonaws.com" in named(rows, "service-linked role of spot").command
    assert named(rows, "service-linked roles made on use").verdict == "warn"


def test_a_check_that_hangs_is_a_row_and_keeps_nothing_waiting() -> None:
    import threading

    never = threading.Event()

    def hangs() -> list[Row]:
        never.wait()
        return []

    started = datetime.now(UTC)
    (row,) = ask([Check("slow", "an answer", hangs)], limit_s=0.3)
    assert (row.verdict, row.found) == ("unknown", "no answer within 0 s")
    assert (datetime.now(UTC) - started).total_seconds() < 30  # of a machine with much else to do
    never.set()
