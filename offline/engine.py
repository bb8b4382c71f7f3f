"""The engine's side of a Pulumi program, in Python: run the program, record what it registers, create nothing.

The program runs in Pulumi's own SDK, through the same entry point (``run_in_stack``) as under the Pulumi CLI; only the
resource monitor and the engine behind it are ours. What this does not prove: that AWS, Kubernetes or Helm accept what
the program asks for, what a provider's own check would say, and what remote components (``eks.Cluster``) create inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import runpy
import sys
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

import pulumi
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime import mocks
from pulumi.runtime.config import set_all_config
from pulumi.runtime.proto import alias_pb2, engine_pb2, resource_pb2
from pulumi.runtime.settings import Settings, configure
from pulumi.runtime.stack import register_stack_transformation, run_in_stack

from offline import wire
from offline.answers import FUNCTIONS, Answers, Function
from offline.recording import (
    STACK_TYPE,
    Invoke,
    Message,
    Properties,
    Recording,
    Resource,
    Timeouts,
)

P = ParamSpec("P")
T = TypeVar("T")

_DEFAULT_REGION = "us-east-1"


class ProgramRefused(Exception):
    """The program stopped on purpose, with a message for the person who runs it: a setting is wrong, say.

    Raised for ``pulumi.RunError`` (Pulumi's own configuration errors are that), for a nonzero exit, and when the
    program ended well but logged an error, which the engine counts as failure.
    """

    def __init__(self, messages: Collection[str], registered: Collection[str]) -> None:
        self.messages = tuple(messages)
        #: URNs of what had been registered until then; nothing of it exists.
        self.registered = tuple(registered)
        super().__init__("\n".join(self.messages))


class NotAnsweredOffline(Exception):
    """The program needs something of a real engine, provider or account that the offline engine will not invent."""


def run_program(
    program: Path,
    project: str,
    stack: str,
    config: Mapping[str, str],
    secret_keys: Collection[str] = (),
    *,
    preview: bool,
    answers: Answers | None = None,
    functions: Mapping[str, Function] = FUNCTIONS,
) -> Recording:
    """Run the program file as Pulumi would, from its own directory, and give what it registered.

    ``config`` maps ``namespace:key`` to text or JSON. In a preview every computed property is unknown; else ``answers``
    (samples, by default) stand for them. Raises :class:`ProgramRefused` when the program stops with a message, and
    whatever the program itself raises when it has a bug.
    """
    program = program.resolve()

    def main() -> None:
        runpy.run_path(str(program), run_name="__main__")

    with _as_main_program(program):
        return record(
            main,
            directory=program.parent,
            project=project,
            stack=stack,
            config=config,
            secret_keys=secret_keys,
            preview=preview,
            answers=answers,
            functions=functions,
        )


def record(
    main: Callable[[], Awaitable[None] | None],
    *,
    directory: Path,
    project: str,
    stack: str,
    config: Mapping[str, str],
    secret_keys: Collection[str] = (),
    preview: bool,
    answers: Answers | None = None,
    functions: Mapping[str, Function] = FUNCTIONS,
) -> Recording:
    """Run a function as a Pulumi program whose sources are in ``directory``; see :func:`run_program`."""
    region = config.get("aws:region", _DEFAULT_REGION)
    run_of = _Run(directory, project, stack, preview, region, answers or Answers(), functions)
    monitor = _Monitor(run_of)
    engine = _Engine()

    def run() -> None:
        set_all_config(dict(config), list(secret_keys))
        settings = Settings(
            project, stack, monitor=monitor, engine=engine, dry_run=preview, root_directory=str(directory)
        )
        configure(settings)
        _run_on_new_loop(main, monitor)

    problems: list[str] = []
    try:
        # The SDK keeps its state in context variables: a context of its own keeps this run apart from any other.
        contextvars.Context().run(run)
    except pulumi.RunError as error:
        problems = [str(error)]
    except SystemExit as error:
        if error.code not in {None, 0}:
            problems = [error.code] if isinstance(error.code, str) else []
            problems = problems or engine.errors or [f"the program exited with code {error.code}"]
    problems = list(dict.fromkeys([*engine.errors, *problems]))
    if problems:
        raise ProgramRefused(problems, [registered.urn for registered in monitor.registered])
    return Recording(
        project=project,
        stack=stack,
        preview=preview,
        resources=monitor.in_dependency_order(),
        outputs=monitor.component_outputs.get(monitor.stack_urn, Properties()),
        messages=tuple(engine.messages),
        invokes=tuple(monitor.invokes),
    )


@contextlib.contextmanager
def _as_main_program(program: Path) -> Generator[None]:
    """Give the program its own directory and arguments, as the language host does, for as long as it runs."""
    argv, path, directory = sys.argv, sys.path, program.parent
    sys.argv = [str(program)]
    sys.path = [str(directory), *(entry for entry in path if entry != str(directory))]
    try:
        with contextlib.chdir(directory):
            yield
    finally:
        sys.argv, sys.path = argv, path


def _run_on_new_loop(main: Callable[[], Awaitable[None] | None], monitor: _Monitor) -> None:
    loop = asyncio.new_event_loop()
    loop.set_default_executor(_InlineExecutor())
    # A failing program leaves futures nobody awaits; the failure itself is raised below.
    loop.set_exception_handler(lambda *_: None)
    origins: dict[int, tuple[BaseException, TracebackType | None]] = {}
    loop.set_task_factory(_noting_origins(origins))
    asyncio.set_event_loop(loop)

    def watched() -> Awaitable[None] | None:
        register_stack_transformation(monitor.observe)
        return main()

    try:
        loop.run_until_complete(run_in_stack(watched))
        _finish(loop, timeout=5)  # messages about a resource wait for its URN
    except Exception as error:
        _, origin = origins.get(id(error), (error, error.__traceback__))
        raise error.with_traceback(origin) from error.__cause__
    finally:
        _finish(loop, timeout=0)
        asyncio.set_event_loop(None)
        loop.close()


def _noting_origins(
    origins: dict[int, tuple[BaseException, TracebackType | None]],
) -> Callable[..., asyncio.Task[Any]]:
    """Make tasks that note where each exception comes from: passed on from task to task, it forgets the first one.

    Without this a bug in an ``apply`` would show a traceback that never touches the program.
    """

    def note(task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            origins.setdefault(id(error), (error, error.__traceback__))  # the error is kept, so its id stays its own

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        task.add_done_callback(note)
        return task

    return factory


def _finish(loop: asyncio.AbstractEventLoop, timeout: float) -> None:
    tasks = asyncio.all_tasks(loop)
    if tasks and timeout:
        loop.run_until_complete(asyncio.wait(tasks, timeout=timeout))
        return
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            loop.run_until_complete(task)


class _InlineExecutor(ThreadPoolExecutor):
    """Runs calls at once on the loop's own thread: no network is behind them, and the order is the same every time."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # handed to whoever awaits the future
            future.set_exception(error)
        return future


@dataclass(frozen=True, slots=True)
class _Run:
    """What is asked of one run."""

    directory: Path
    project: str
    stack: str
    preview: bool
    region: str
    answers: Answers
    functions: Mapping[str, Function]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What only the SDK knows of a resource: its place in the program and its class."""

    place: int
    resource_class: type


class _Engine:
    """Takes the program's messages."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    @property
    def errors(self) -> list[str]:
        return [message.text for message in self.messages if message.severity == "error"]

    def Log(self, request: engine_pb2.LogRequest) -> None:  # noqa: N802 (the protocol's name)
        severities: dict[int, Literal["info", "warning", "error"]] = {
            engine_pb2.INFO: "info",
            engine_pb2.WARNING: "warning",
            engine_pb2.ERROR: "error",
        }
        if (severity := severities.get(request.severity)) and not request.ephemeral:
            self.messages.append(Message(severity, request.message, request.urn))


class _NoMocks(mocks.Mocks):
    """The mocks interface, which the monitor below does not need."""

    def call(self, args: mocks.MockCallArgs) -> Any:
        raise NotImplementedError

    def new_resource(self, args: mocks.MockResourceArgs) -> Any:
        raise NotImplementedError


class _Monitor(mocks.MockMonitor):
    """Records registrations and answers them as the engine and the providers would."""

    def __init__(self, run: _Run) -> None:
        super().__init__(_NoMocks())
        self._run = run
        self._seen: defaultdict[tuple[str, str], deque[_Seen]] = defaultdict(deque)
        self._places: dict[int, int] = {}
        self._seen_count = 0
        # Providers whose own configuration is not known yet: the engine does not call them in a preview.
        self._unready_providers: set[str] = set()
        self._regions: dict[str, str] = {}
        self.stack_urn = ""
        self.registered: list[Resource] = []
        self.component_outputs: dict[str, Properties] = {}
        self.invokes: list[Invoke] = []

    def observe(self, args: pulumi.ResourceTransformationArgs) -> None:
        """Note a resource as the program constructs it (a stack transformation that changes nothing)."""
        self._seen[args.type_, args.name].append(_Seen(self._seen_count, type(args.resource)))
        self._seen_count += 1

    def in_dependency_order(self) -> tuple[Resource, ...]:
        """Sort the registrations so that each follows what it requires, in the program's order where that is free."""
        resources = [
            replace(resource, outputs=self.component_outputs[resource.urn])
            if resource.kind == "component" and resource.urn in self.component_outputs
            else resource
            for resource in self.registered
        ]
        places = [self._places[index] for index in range(len(resources))]
        indexes: defaultdict[str, list[int]] = defaultdict(list)
        for index, resource in enumerate(resources):
            indexes[resource.urn].append(index)
        followers: defaultdict[int, list[int]] = defaultdict(list)
        missing = [0] * len(resources)
        for index, resource in enumerate(resources):
            needs = {need for urn in resource.requires for need in indexes.get(urn, []) if need < index}
            missing[index] = len(needs)
            for need in needs:
                followers[need].append(index)
        ready = [(places[index], index) for index, count in enumerate(missing) if not count]
        heapq.heapify(ready)
        ordered: list[int] = []
        while ready:
            _, index = heapq.heappop(ready)
            ordered.append(index)
            for follower in followers[index]:
                missing[follower] -= 1
                if not missing[follower]:
                    heapq.heappush(ready, (places[follower], follower))
        rank = {resources[index].urn: position for position, index in enumerate(ordered)}
        return tuple(_with_sorted_edges(resources[index], rank) for index in ordered)

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        """Make a URN as the engine does: with the types of all parents but the stack."""
        if parent and parent != self.stack_urn:
            type_ = f"{parent.split('::')[2]}${type_}"
        return f"urn:pulumi:{self._run.stack}::{self._run.project}::{type_}::{name}"

    def RegisterResource(  # noqa: N802 (the protocol's name)
        self, request: resource_pb2.RegisterResourceRequest
    ) -> resource_pb2.RegisterResourceResponse:
        """Record a registration and answer as the engine would."""
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.type == STACK_TYPE:
            self.stack_urn = urn
            return resource_pb2.RegisterResourceResponse(urn=urn)
        if request.transforms:
            raise NotAnsweredOffline(f"{request.name} ({request.type}) has transforms, which only the engine runs")
        resource = _resource(urn, request, self._run.directory)
        seen = self._note(resource)
        if resource.kind == "component":
            self._keep(resource, seen)
            return resource_pb2.RegisterResourceResponse(urn=urn)
        id_, answer = self._answer(resource, request.object, seen)
        self._keep(replace(resource, id=id_, outputs=wire.from_struct(answer)), seen)
        return resource_pb2.RegisterResourceResponse(urn=urn, id=id_, object=answer)

    def ReadResource(  # noqa: N802 (the protocol's name)
        self, request: resource_pb2.ReadResourceRequest
    ) -> resource_pb2.ReadResourceResponse:
        """Record a read of an existing resource (``X.get``); its properties are answered like a created one's."""
        urn = self.make_urn(request.parent, request.type, request.name)
        resource = Resource(
            urn=urn,
            type=request.type,
            name=request.name,
            parent=request.parent,
            kind="custom",
            inputs=wire.from_struct(request.properties),
            id=request.id,
            provider=_provider_urn(request.provider),
            dependencies=tuple(request.dependencies),
            read=True,
        )
        seen = self._note(resource)
        _, answer = self._answer(resource, request.properties, seen)
        self._keep(replace(resource, outputs=wire.from_struct(answer)), seen)
        return resource_pb2.ReadResourceResponse(urn=urn, properties=answer)

    def RegisterResourceOutputs(  # noqa: N802 (the protocol's name)
        self, request: resource_pb2.RegisterResourceOutputsRequest
    ) -> empty_pb2.Empty:
        """Record the outputs of a component or of the stack."""
        self.component_outputs[request.urn] = wire.from_struct(request.outputs)
        return empty_pb2.Empty()

    def Invoke(  # noqa: N802 (the protocol's name)
        self, request: resource_pb2.ResourceInvokeRequest
    ) -> resource_pb2.ResourceInvokeResponse:
        """Answer a provider function that needs no account; refuse any other."""
        arguments = dict(wire.from_struct(request.args))
        if request.tok == "pulumi:pulumi:getResource":
            found = next((resource for resource in self.registered if resource.urn == arguments["urn"]), None)
            if found is None:
                raise NotAnsweredOffline(f"there is no resource {arguments['urn']} to refer to")
            result: dict[str, Any] = {"urn": found.urn, "id": found.id, "state": dict(found.outputs)}
        elif request.tok in self._run.functions:
            result = dict(self._run.functions[request.tok](arguments, self._region(_provider_urn(request.provider))))
            self.invokes.append(Invoke(request.tok, arguments, _provider_urn(request.provider), result))
        else:
            known = ", ".join(sorted(token.rpartition(":")[2] for token in self._run.functions))
            raise NotAnsweredOffline(
                f"the program calls {request.tok}, which needs an account; offline there are answers for {known}"
            )
        response = resource_pb2.ResourceInvokeResponse()
        getattr(response, "return").CopyFrom(wire.to_struct(result))  # a keyword of Python names the field
        return response

    def Call(self, request: resource_pb2.ResourceCallRequest) -> Any:  # noqa: N802 (the protocol's name)
        """Refuse methods of remote components: their code is in a plugin."""
        raise NotAnsweredOffline(f"the program calls the method {request.tok}, which only its plugin can answer")

    def RegisterStackTransform(self, request: Any) -> Any:  # noqa: N802 (the protocol's name)
        """Refuse stack transforms: the recording would not show what they change."""
        raise NotAnsweredOffline("the program registers a stack transform, which only the engine runs")

    def _note(self, resource: Resource) -> _Seen:
        """Match a registration with the construction the SDK reported."""
        waiting = self._seen.get((resource.type, resource.name))
        return waiting.popleft() if waiting else _Seen(self._seen_count + len(self.registered), object)

    def _keep(self, resource: Resource, seen: _Seen) -> None:
        self._places[len(self.registered)] = seen.place
        self.registered.append(resource)

    def _region(self, provider: str) -> str:
        return self._regions.get(provider, self._run.region)

    def _answer(self, resource: Resource, inputs: struct_pb2.Struct, seen: _Seen) -> tuple[str, struct_pb2.Struct]:
        """Give the id and the properties of a resource: what was asked for, and what its provider adds."""
        if resource.is_provider:
            if resource.inputs.unknown_paths():
                self._unready_providers.add(resource.urn)
            if isinstance(region := resource.inputs.get("region"), str):
                self._regions[resource.urn] = region
        answer = struct_pb2.Struct()
        if self._run.preview:
            # Nothing comes back from a provider that cannot be configured yet, nor from a component in a plugin.
            if resource.kind == "custom" and resource.provider not in self._unready_providers:
                answer.CopyFrom(inputs)
            id_ = resource.id
        else:
            if resource.kind == "custom":
                answer.CopyFrom(inputs)
            answered = self._run.answers.answer(resource, seen.resource_class, self._region(resource.provider))
            for key, value in wire.to_struct(answered.computed).fields.items():
                answer.fields[key].CopyFrom(value)
            id_ = "" if resource.kind == "remote" else resource.id or answered.id
        for key in resource.additional_secret_outputs:
            if key in answer.fields:
                answer.fields[key].CopyFrom(wire.as_secret(answer.fields[key]))
        return id_, answer


def _resource(urn: str, request: resource_pb2.RegisterResourceRequest, directory: Path) -> Resource:
    timeouts = request.customTimeouts
    return Resource(
        urn=urn,
        type=request.type,
        name=request.name,
        parent=request.parent,
        kind="remote" if request.remote else "custom" if request.custom else "component",
        inputs=wire.from_struct(request.object),
        provider=_provider_urn(request.provider),
        providers={package: _provider_urn(provider) for package, provider in sorted(request.providers.items())},
        dependencies=tuple(request.dependencies),
        property_dependencies={key: tuple(urns.urns) for key, urns in sorted(request.propertyDependencies.items())},
        protect=request.protect,
        retain_on_delete=request.retainOnDelete,
        delete_before_replace=request.deleteBeforeReplace,
        ignore_changes=tuple(request.ignoreChanges),
        replace_on_changes=tuple(request.replaceOnChanges),
        replace_with=tuple(request.replace_with),
        replacement_trigger=_trigger(request),
        timeouts=Timeouts(timeouts.create, timeouts.update, timeouts.delete),
        aliases=(*request.aliasURNs, *(_alias(alias) for alias in request.aliases)),
        deleted_with=request.deletedWith,
        additional_secret_outputs=tuple(request.additionalSecretOutputs),
        import_id=request.importId,
        hooks=_hooks(request.hooks),
        source=_source(request, directory),
    )


def _source(request: resource_pb2.RegisterResourceRequest, directory: Path) -> str:
    """Find the innermost line of the program's own files that led to a registration."""
    prefix = directory.as_uri() + "/"
    for frame in request.stackTrace.frames:
        if frame.pc.uri.startswith(prefix) and "/site-packages/" not in frame.pc.uri:
            return f"{frame.pc.uri.removeprefix(prefix)}:{frame.pc.line}"
    return ""


def _with_sorted_edges(resource: Resource, rank: Mapping[str, int]) -> Resource:
    def by_rank(urn: str) -> tuple[int, str]:
        return rank.get(urn, -1), urn

    return replace(
        resource,
        dependencies=tuple(sorted(resource.dependencies, key=by_rank)),
        property_dependencies={
            key: tuple(sorted(urns, key=by_rank)) for key, urns in resource.property_dependencies.items()
        },
    )


def _provider_urn(reference: str) -> str:
    """Take the URN out of a provider reference (``urn::id``)."""
    return reference.rpartition("::")[0]


def _trigger(request: resource_pb2.RegisterResourceRequest) -> Any:
    if not request.HasField("replacement_trigger"):
        return None
    trigger = struct_pb2.Struct(fields={"trigger": request.replacement_trigger})
    return wire.from_struct(trigger)["trigger"]


def _alias(alias: alias_pb2.Alias) -> str:
    if alias.urn:
        return alias.urn
    spec = alias.spec
    parts = {"name": spec.name, "type": spec.type, "parent": spec.parentUrn, "stack": spec.stack}
    parts["parent"] = "none" if spec.noParent else parts["parent"]
    return ",".join(f"{key}={value}" for key, value in parts.items() if value)


def _hooks(binding: resource_pb2.RegisterResourceRequest.ResourceHooksBinding) -> tuple[str, ...]:
    return tuple(f"{event.name}:{hook}" for event, hooks in binding.ListFields() for hook in hooks)
