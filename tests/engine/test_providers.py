"""The provider servers over a real channel, asked as the engine asks. Not proven: that the engine asks just so."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import (
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
)

from offline import wire
from offline.recording import UNKNOWN
from tests.engine.serving import Served, provider_servers

SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
STACK = "urn:pulumi:dev::frugal-llm"
VPC = f"{STACK}::frugal-llm:network:Network$aws:ec2/vpc:Vpc::network-vpc"
SUBNET = f"{STACK}::frugal-llm:network:Network$aws:ec2/subnet:Subnet::network-private"
CONFIG_MAP = f"{STACK}::kubernetes:core/v1:ConfigMap::settings"
DEPLOYMENT = f"{STACK}::kubernetes:apps/v1:Deployment::fast"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with provider_servers(tmp_path_factory.mktemp("providers")) as running:
        yield running


def stub(served: Served, package: str) -> Any:
    channel = grpc.insecure_channel(f"127.0.0.1:{served.ports[package]}")
    return provider_pb2_grpc.ResourceProviderStub(channel)


def struct(**values: Any) -> struct_pb2.Struct:
    return wire.to_struct(values)


def create(provider: Any, urn: str, *, preview: bool = False, **inputs: Any) -> provider_pb2.CreateResponse:
    return provider.Create(
        provider_pb2.CreateRequest(urn=urn, properties=struct(**inputs), preview=preview, timeout=60)
    )


def delete(provider: Any, urn: str, id_: str) -> None:
    provider.Delete(provider_pb2.DeleteRequest(urn=urn, id=id_, timeout=1800))


def diff(provider: Any, urn: str, old: dict[str, Any], new: dict[str, Any]) -> provider_pb2.DiffResponse:
    request = provider_pb2.DiffRequest(
        id="x", urn=urn, old_inputs=struct(**old), olds=struct(**old), news=struct(**new)
    )
    return provider.Diff(request)


def test_each_server_is_of_its_sdks_version_and_keeps_secrets_and_previews(served: Served) -> None:
    for package in ("aws", "kubernetes", "eks"):
        provider = stub(served, package)
        provider.Attach(plugin_pb2.PluginAttach(address="127.0.0.1:1"))
        assert provider.GetPluginInfo(empty_pb2.Empty()).version.count(".") == 2
        checked = provider.CheckConfig(provider_pb2.CheckRequest(urn="x", news=struct(region="us-east-1")))
        assert dict(wire.from_struct(checked.inputs)) == {"region": "us-east-1"}
        with pytest.raises(grpc.RpcError) as handshake:
            provider.Handshake(provider_pb2.ProviderHandshakeRequest())
        assert "UNIMPLEMENTED" in str(handshake.value), "which the engine takes for an older plugin"
        configured = provider.Configure(provider_pb2.ConfigureRequest())
        assert configured.acceptSecrets
        assert configured.supportsPreview


def test_a_vpc_with_a_subnet_is_not_deleted_and_the_journal_says_why(served: Served) -> None:
    aws, before = stub(served, "aws"), len(served.calls())
    vpc = create(aws, VPC, cidrBlock="10.42.0.0/16")
    assert vpc.id.startswith("vpc-")
    subnet = create(aws, SUBNET, vpcId=vpc.id, cidrBlock="10.42.0.0/20")
    with pytest.raises(grpc.RpcError) as refused:
        delete(aws, VPC, vpc.id)
    assert "DependencyViolation: The vpc has dependencies" in str(refused.value)
    delete(aws, SUBNET, subnet.id)
    delete(aws, VPC, vpc.id)
    calls = served.calls()[before:]
    assert [call.action for call in calls] == ["create", "create", "delete", "delete", "delete"]
    assert [bool(call.refused) for call in calls] == [False, False, True, False, False]
    assert calls[2].timeout_s == 1800, "how long the engine would wait reaches the provider"


def test_a_name_that_is_taken_is_refused(served: Served) -> None:
    aws = stub(served, "aws")
    first, second = (f"{STACK}::aws:sqs/queue:Queue::{name}" for name in ("one", "other"))
    create(aws, first, name="frugal-llm-dev")
    with pytest.raises(grpc.RpcError, match="AlreadyExists: aws:sqs/queue:Queue/frugal-llm-dev"):
        create(aws, second, name="frugal-llm-dev")


def test_a_subnet_of_no_vpc_is_refused(served: Served) -> None:
    with pytest.raises(grpc.RpcError, match=r"InvalidVpcId\.NotFound: vpc-0"):
        create(stub(served, "aws"), SUBNET, vpcId="vpc-0", cidrBlock="10.42.0.0/20")


def test_what_a_provider_computes_is_unknown_in_a_preview_and_nothing_is_made(served: Served) -> None:
    aws, before = stub(served, "aws"), served.calls()
    previewed = create(aws, VPC, preview=True, cidrBlock="10.42.0.0/16", enableDnsSupport=wire.UNKNOWN_TEXT)
    properties = wire.from_struct(previewed.properties)
    assert previewed.id == ""
    assert properties["cidrBlock"] == "10.42.0.0/16"
    assert properties["arn"] is properties["enableDnsSupport"] is UNKNOWN
    assert served.calls() == before


def test_a_secret_input_is_a_secret_in_the_state(served: Served) -> None:
    news = struct(cidrBlock="10.42.0.0/16", tags={**SECRET, "value": {"token": "s"}})
    made = stub(served, "aws").Create(provider_pb2.CreateRequest(urn=VPC, properties=news))
    assert wire.from_struct(made.properties).is_secret("tags", "token")


def test_an_object_without_a_name_gets_one_that_it_keeps_until_it_is_replaced(served: Served) -> None:
    kubernetes = stub(served, "kubernetes")

    def check(seed: bytes, olds: struct_pb2.Struct | None = None) -> struct_pb2.Struct:
        news = struct(data={"a": "1"}, metadata={"namespace": "llm"})
        request = provider_pb2.CheckRequest(urn=CONFIG_MAP, news=news, olds=olds, randomSeed=seed)
        return kubernetes.Check(request).inputs

    first = check(b"\x01\x02\x03\x04\x05")
    name = wire.from_struct(first).at("metadata", "name")
    assert name == "settings-01020304"
    assert wire.from_struct(check(b"\x09" * 8, olds=first)).at("metadata", "name") == name
    assert wire.from_struct(check(b"\x09" * 8)).at("metadata", "name") == "settings-09090909"


def test_differences_follow_the_providers_rules(served: Served) -> None:
    kubernetes = stub(served, "kubernetes")
    named = {"metadata": {"name": "fast", "namespace": "llm"}}

    def spec(selector: str, image: str) -> dict[str, Any]:
        return {**named, "spec": {"selector": {"matchLabels": {"app": selector}}, "template": {"image": image}}}

    same = diff(kubernetes, DEPLOYMENT, spec("a", "1"), spec("a", "1"))
    assert same.changes == provider_pb2.DiffResponse.DIFF_NONE
    updated = diff(kubernetes, DEPLOYMENT, spec("a", "1"), spec("a", "2"))
    assert (list(updated.replaces), updated.changes) == ([], provider_pb2.DiffResponse.DIFF_SOME)
    replaced = diff(kubernetes, DEPLOYMENT, spec("a", "1"), spec("b", "1"))
    assert (list(replaced.replaces), replaced.deleteBeforeReplace) == (["spec"], True)
    drawn = {"metadata": {"name": "settings-1", "annotations": {"pulumi.com/autonamed": "true"}}}
    beside = diff(kubernetes, CONFIG_MAP, {**drawn, "data": {"a": "1"}}, {**drawn, "data": {"a": "2"}})
    assert (list(beside.replaces), beside.deleteBeforeReplace) == (["data"], False)
    moved = diff(stub(served, "aws"), VPC, {"cidrBlock": "10.0.0.0/16"}, {"cidrBlock": "10.1.0.0/16"})
    assert list(moved.replaces) == ["cidrBlock"]


def test_a_new_kubeconfig_of_the_same_cluster_replaces_nothing(served: Served) -> None:
    def changed(**new: str) -> list[str]:
        old = {"kubeconfig": "{}", "clusterIdentifier": "one"}
        request = provider_pb2.DiffRequest(old_inputs=struct(**old), news=struct(**{**old, **new}))
        return list(stub(served, "kubernetes").DiffConfig(request).replaces)

    assert changed(kubeconfig='{"token": "next"}') == []
    assert changed(clusterIdentifier="another") == ["clusterIdentifier"]


class _Engine(engine_pb2_grpc.EngineServicer):
    """Takes messages, and answers nothing else."""

    def Log(self, request: Any, context: object) -> empty_pb2.Empty:  # noqa: N802
        return empty_pb2.Empty()

    def GetRootResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not asked of a provider")

    SetRootResource = StartDebugging = RequirePulumiVersion = GetRootResource


class _Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    """As much of the engine as a remote component needs: children are registered, and made by the aws provider."""

    def __init__(self, aws: Any) -> None:
        self.aws = aws
        self.types: list[str] = []

    def SupportsFeature(self, request: Any, context: object) -> resource_pb2.SupportsFeatureResponse:  # noqa: N802
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id in {"secrets", "resourceReferences"})

    def RegisterResource(self, request: Any, context: object) -> resource_pb2.RegisterResourceResponse:  # noqa: N802
        self.types.append(request.type)
        urn = f"{STACK}::{request.type}::{request.name}"
        if not request.custom:
            return resource_pb2.RegisterResourceResponse(urn=urn)
        made = self.aws.Create(provider_pb2.CreateRequest(urn=urn, properties=request.object))
        return resource_pb2.RegisterResourceResponse(urn=urn, id=made.id, object=made.properties)

    def RegisterResourceOutputs(self, request: Any, context: object) -> empty_pb2.Empty:  # noqa: N802
        return empty_pb2.Empty()


def test_a_remote_cluster_is_a_component_with_children_and_the_programs_outputs(served: Served) -> None:
    aws = stub(served, "aws")
    vpc = create(aws, VPC, cidrBlock="10.42.0.0/16")
    subnet = create(aws, SUBNET, vpcId=vpc.id, cidrBlock="10.42.0.0/20")
    monitor = _Monitor(aws)
    engine = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, engine)
    engine_pb2_grpc.add_EngineServicer_to_server(_Engine(), engine)
    port = engine.add_insecure_port("127.0.0.1:0")
    engine.start()
    eks = stub(served, "eks")
    eks.Attach(plugin_pb2.PluginAttach(address=f"127.0.0.1:{port}"))
    try:
        made = eks.Construct(
            provider_pb2.ConstructRequest(
                project="frugal-llm",
                stack="dev",
                monitorEndpoint=f"127.0.0.1:{port}",
                type="eks:index:Cluster",
                name="cluster",
                parallel=4,
                inputs=struct(name="frugal-llm-dev", version="1.36", privateSubnetIds=[subnet.id]),
            )
        )
    finally:
        engine.stop(grace=None)
    assert monitor.types[0] == "eks:index:Cluster"
    assert sorted(monitor.types[1:]) == [
        "aws:eks/cluster:Cluster",
        "aws:iam/role:Role",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    ]
    assert made.urn.endswith("::eks:index:Cluster::cluster")
    state = wire.from_struct(made.state)
    assert {"kubeconfigJson", "clusterSecurityGroupId", "oidcIssuer"} <= state.keys()
    with pytest.raises(grpc.RpcError, match="network interfaces of cluster-eksCluster"):
        delete(aws, VPC, vpc.id)
