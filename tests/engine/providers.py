"""Provider plugins for aws, kubernetes and eks that make nothing: one small world behind three gRPC servers.

They answer what the engine asks of a provider (Check, Diff, Create, …) from the SDKs' own types, the replacement rules
of `tests.change.replacement` and the world's refusals. State is the engine's; here is only what exists.

`python -m tests.engine.providers JOURNAL` serves until its input ends. It prints one line, the value of
PULUMI_DEBUG_PROVIDERS, and appends a line of JSON to the journal for each call that changes something.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
import pulumi
import pulumi_aws as aws
from google.protobuf import empty_pb2, struct_pb2
from pulumi.provider import ConstructResult, Provider
from pulumi.provider.server import ProviderServicer
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from offline import wire
from offline.answers import Answers
from offline.recording import UNKNOWN, Properties, Resource
from tests.change.replacement import difference
from tests.engine.world import REMOTE_CLUSTER, Refused, Thing, World

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_REGION: Final = "us-east-1"
_AUTONAMED: Final = "pulumi.com/autonamed"
_MESSAGE_BYTES: Final = 400 * 1024 * 1024
"""As the engine allows."""


class Journal:
    """What was asked of the providers, in order."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, action: str, urn: str, timeout_s: float = 0.0, refused: str = "") -> None:
        """Append one call."""
        line = {"action": action, "urn": urn, "timeout_s": timeout_s, **({"refused": refused} if refused else {})}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class SmallProvider(ProviderServicer):
    """One package's provider."""

    def __init__(self, package: str, world: World, journal: Journal) -> None:
        self.package = package
        self.world = world
        self.journal = journal
        self.provider = _Constructor()
        self.args = []
        self.engine_address = ""

    async def Attach(self, request: plugin_pb2.PluginAttach, context: object) -> empty_pb2.Empty:  # noqa: N802
        """Take the engine's address, as a plugin that the engine did not start."""
        self.engine_address = request.address
        return empty_pb2.Empty()

    async def GetPluginInfo(self, request: object, context: object) -> plugin_pb2.PluginInfo:  # noqa: N802
        """Be the version of the SDK: another would earn a warning."""
        return plugin_pb2.PluginInfo(version=version(f"pulumi-{self.package}"))

    async def CheckConfig(  # noqa: N802
        self, request: provider_pb2.CheckRequest, context: object
    ) -> provider_pb2.CheckResponse:
        """Take any configuration."""
        return provider_pb2.CheckResponse(inputs=request.news)

    async def DiffConfig(  # noqa: N802
        self, request: provider_pb2.DiffRequest, context: object
    ) -> provider_pb2.DiffResponse:
        """Replace a Kubernetes provider when its cluster is another one, and nothing else."""
        old, new = dict(wire.from_struct(request.old_inputs)), dict(wire.from_struct(request.news))
        changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        return _diff(changed, [key for key in changed if key == "clusterIdentifier"], delete_first=False)

    async def Configure(  # noqa: N802
        self, request: provider_pb2.ConfigureRequest, context: object
    ) -> provider_pb2.ConfigureResponse:
        """Keep secrets and resource references as they are on the wire, and preview."""
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, acceptResources=True, acceptOutputs=False, supportsPreview=True
        )

    async def Check(  # noqa: N802
        self, request: provider_pb2.CheckRequest, context: object
    ) -> provider_pb2.CheckResponse:
        """Take any inputs, and name a Kubernetes object that has no name: anew for each replacement."""
        inputs = struct_pb2.Struct()
        inputs.CopyFrom(request.news)
        if request.urn.split("::")[2].rpartition("$")[2].startswith("kubernetes:"):
            _name_object(inputs, request)
        return provider_pb2.CheckResponse(inputs=inputs)

    async def Diff(  # noqa: N802
        self, request: provider_pb2.DiffRequest, context: object
    ) -> provider_pb2.DiffResponse:
        """Compare inputs by the rules of the real providers."""
        old, new = wire.from_struct(request.old_inputs), wire.from_struct(request.news)
        found = difference(_type(request.urn), old, new)
        first = found.delete_first and not _is_autonamed(new)
        return _diff(_tops(found.changed), _tops(found.replacing), delete_first=first)

    async def Create(  # noqa: N802
        self, request: provider_pb2.CreateRequest, context: _Context
    ) -> provider_pb2.CreateResponse:
        """Make something in the world; in a preview say what will not be known."""
        inputs = wire.from_struct(request.properties)
        id_, computed = _answer(request.urn, inputs)
        if request.preview:
            unknown = dict.fromkeys(computed, wire.UNKNOWN_TEXT)
            return provider_pb2.CreateResponse(id="", properties=_with(request.properties, unknown))
        while f"{request.urn} {id_}" in self.world.things:
            id_ += "-next"  # a replacement stands beside the one that it replaces
        await self._act(
            context,
            ("create", request.urn, request.timeout),
            lambda: self.world.create(Thing(request.urn, _type(request.urn), id_, dict(inputs))),
        )
        return provider_pb2.CreateResponse(id=id_, properties=_with(request.properties, computed))

    async def Update(  # noqa: N802
        self, request: provider_pb2.UpdateRequest, context: _Context
    ) -> provider_pb2.UpdateResponse:
        """Change something in the world."""
        inputs = wire.from_struct(request.news)
        _, computed = _answer(request.urn, inputs)
        if not request.preview:
            await self._act(
                context,
                ("update", request.urn, request.timeout),
                lambda: self.world.update(request.urn, request.id, dict(inputs)),
            )
        return provider_pb2.UpdateResponse(properties=_with(request.news, computed))

    async def Delete(  # noqa: N802
        self, request: provider_pb2.DeleteRequest, context: _Context
    ) -> empty_pb2.Empty:
        """Delete something from the world, unless it refuses."""
        await self._act(
            context,
            ("delete", request.urn, request.timeout),
            lambda: self.world.delete(request.urn, request.id),
        )
        return empty_pb2.Empty()

    async def Read(  # noqa: N802
        self, request: provider_pb2.ReadRequest, context: object
    ) -> provider_pb2.ReadResponse:
        """Find things as they were left: nobody else changes this world."""
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    async def Cancel(self, request: object, context: object) -> empty_pb2.Empty:  # noqa: N802
        """Have nothing to stop."""
        return empty_pb2.Empty()

    async def _act(self, context: _Context, call: tuple[str, str, float], act: Any) -> None:
        try:
            act()
        except Refused as refused:
            self.journal.write(*call, refused=str(refused))
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refused))
        self.journal.write(*call)


class _Cluster(pulumi.ComponentResource):
    """The part of `eks.Cluster` that the world has to know: a cluster, its role, and the program's outputs."""

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions | None) -> None:
        super().__init__(REMOTE_CLUSTER, name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        role = aws.iam.Role(f"{name}-eksRole", assume_role_policy="{}", opts=child)
        attachment = aws.iam.RolePolicyAttachment(
            f"{name}-eksRole", role=role.name, policy_arn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy", opts=child
        )
        cluster = aws.eks.Cluster(
            f"{name}-eksCluster",
            name=inputs["name"],
            version=inputs["version"],
            role_arn=role.arn,
            vpc_config=aws.eks.ClusterVpcConfigArgs(subnet_ids=inputs["privateSubnetIds"]),
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[attachment])),
        )
        self.answers = {
            "kubeconfigJson": cluster.arn.apply(lambda arn: json.dumps({"cluster": arn})),
            "kubeconfig": cluster.arn.apply(lambda arn: {"cluster": arn}),
            "clusterSecurityGroupId": cluster.arn.apply(lambda _: "sg-0123456789abcdef0"),
            "oidcIssuer": cluster.arn.apply(lambda arn: f"oidc.eks.{_REGION}.amazonaws.com/id/{arn[-8:]}"),
        }
        self.register_outputs(self.answers)


class _Constructor(Provider):
    """Makes remote components."""

    def __init__(self) -> None:
        super().__init__(version("pulumi-eks"))

    def construct(
        self, name: str, resource_type: str, inputs: Any, options: pulumi.ResourceOptions | None = None
    ) -> ConstructResult:
        """Make a cluster. Raises ``ValueError`` for any other component."""
        if resource_type != REMOTE_CLUSTER:
            raise ValueError(f"{resource_type} is not known here")
        made = _Cluster(name, inputs, options)
        return ConstructResult(made.urn, made.answers)


def _type(urn: str) -> str:
    return urn.split("::")[2].rpartition("$")[2]


def _answer(urn: str, inputs: Properties) -> tuple[str, dict[str, Any]]:
    """Give the id and what the provider computes, of the shape that the SDK's class says."""
    type_, name = _type(urn), urn.rpartition("::")[2]
    known = Properties(_known(dict(inputs)))
    resource = Resource(urn=urn, type=type_, name=name, parent="", kind="custom", inputs=known)
    found = Answers().answer(resource, _class(type_), _REGION)
    return found.id, dict(found.computed)


def _known(value: Any) -> Any:
    """Put a word where a preview does not know a value: ids are made of it, which the preview does not show."""
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_known(item) for item in value]
    return "unknown" if value is UNKNOWN else value


def _class(type_: str) -> type:
    package, module, name = type_.split(":")
    if package != "aws":
        return object
    return getattr(getattr(aws, module.partition("/")[0]), name)


def _with(properties: struct_pb2.Struct, computed: Mapping[str, Any]) -> struct_pb2.Struct:
    """Add computed properties to inputs, which keep their secrets and unknowns."""
    answer = struct_pb2.Struct()
    answer.CopyFrom(properties)
    for key, value in wire.to_struct(computed).fields.items():
        if key not in answer.fields:
            answer.fields[key].CopyFrom(value)
    return answer


def _diff(changed: list[str], replaces: list[str], *, delete_first: bool) -> provider_pb2.DiffResponse:
    some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
    return provider_pb2.DiffResponse(
        changes=some if changed else none, diffs=changed, replaces=replaces, deleteBeforeReplace=delete_first
    )


def _tops(paths: tuple[tuple[str | int, ...], ...]) -> list[str]:
    return sorted({str(path[0]) for path in paths})


def _is_autonamed(inputs: Properties) -> bool:
    return (inputs.at("metadata", "annotations") or {}).get(_AUTONAMED) == "true"


def _name_object(inputs: struct_pb2.Struct, request: provider_pb2.CheckRequest) -> None:
    if _type(request.urn).startswith("kubernetes:helm.sh"):
        return
    metadata = inputs.fields["metadata"].struct_value.fields
    if "name" in metadata:
        return
    old = wire.from_struct(request.olds)
    kept = old.at("metadata", "name") if _is_autonamed(old) else None
    metadata["name"].string_value = kept or f"{request.urn.rpartition('::')[2]}-{request.randomSeed[:4].hex()}"
    metadata["annotations"].struct_value.fields[_AUTONAMED].string_value = "true"


async def serve(world: World, journal: Journal) -> tuple[dict[str, int], list[grpc.aio.Server]]:
    """Start one server for each package; give their ports and the servers."""
    options = [("grpc.max_receive_message_length", _MESSAGE_BYTES), ("grpc.max_send_message_length", _MESSAGE_BYTES)]
    ports: dict[str, int] = {}
    servers: list[grpc.aio.Server] = []
    for package in ("aws", "kubernetes", "eks"):
        server = grpc.aio.server(options=options)
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(SmallProvider(package, world, journal), server)
        ports[package] = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
    return ports, servers


async def _main(journal: Path) -> None:
    ports, servers = await serve(World(), Journal(journal))
    print(",".join(f"{package}:{port}" for package, port in ports.items()), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for server in servers:
        await server.stop(grace=None)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
