"""The API server as the tests talk to it: server-side apply as Pulumi's provider does it, with what it warns of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import requests

from tests.cluster.certificates import Pair
from tests.cluster.processes import DidNotHappen, wait_until

Object: TypeAlias = dict[str, Any]

FIELD_MANAGER: Final = "frugal-llm"


class Refused(AssertionError):
    """The API server did not take a request; the message is its own."""

    def __init__(self, response: requests.Response) -> None:
        self.code = response.status_code
        try:
            self.message = str(response.json().get("message", response.text))
        except ValueError:
            self.message = response.text
        super().__init__(f"{response.request.method} {response.request.path_url}: {self.code} {self.message}")


@dataclass(frozen=True, slots=True)
class Applied:
    """What the API server made of an object."""

    object: Object
    warnings: tuple[str, ...]
    """Of its ``Warning`` headers: Pod Security, deprecated APIs, and what it would rather not take."""


@dataclass(frozen=True, slots=True)
class _Kind:
    path: str
    namespaced: bool


@dataclass
class Client:
    """An administrator of one API server."""

    url: str
    session: requests.Session
    _kinds: dict[tuple[str, str], _Kind] = field(default_factory=dict)

    @classmethod
    def of(cls, url: str, ca: str, pair: Pair) -> Client:
        """Talk to ``url`` as the user of ``pair``."""
        session = requests.Session()
        session.verify = ca
        session.cert = (str(pair.certificate), str(pair.key))
        session.trust_env = False
        return cls(url, session)

    def apply(self, manifest: Mapping[str, Any], *, dry_run: bool = False, force: bool = True) -> Applied:
        """Apply an object as its owner, strictly: an unknown field is an error. Raises :class:`Refused`."""
        parameters = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": str(force).lower()}
        if dry_run:
            parameters["dryRun"] = "All"
        response = self.session.patch(
            self.url + self._path_of(manifest),
            params=parameters,
            data=json.dumps(manifest),
            headers={"Content-Type": "application/apply-patch+yaml"},
            timeout=30,
        )
        return Applied(_checked(response), tuple(_warnings(response)))

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Give an object; None when there is none of this name."""
        return self._get(self._path(api_version, kind, namespace, name))

    def objects(
        self, api_version: str, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """List the objects of a kind, in one namespace or in all; ``labels`` and ``fields`` are selectors."""
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        response = self.session.get(
            self.url + self._path(api_version, kind, namespace),
            params={key: value for key, value in selectors.items() if value},
            timeout=30,
        )
        return [{"apiVersion": api_version, "kind": kind, **item} for item in _checked(response)["items"]]

    def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None,
        change: Mapping[str, Any],
        *,
        part: str = "",
    ) -> Object:
        """Merge ``change`` into an object or its subresource ``part`` (``status``, ``scale``)."""
        response = self.session.patch(
            self.url + self._path(api_version, kind, namespace, name, *([part] if part else [])),
            data=json.dumps(change),
            headers={"Content-Type": "application/merge-patch+json"},
            timeout=30,
        )
        return _checked(response)

    def scale(self, deployment: str, namespace: str, replicas: int) -> None:
        """Ask for ``replicas`` of a Deployment."""
        self.patch("apps/v1", "Deployment", deployment, namespace, {"spec": {"replicas": replicas}}, part="scale")

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        """Delete an object in the foreground, as Pulumi's provider does; nothing when there is none."""
        response = self.session.delete(
            self.url + self._path(api_version, kind, namespace, name),
            json={"propagationPolicy": "Foreground"},
            timeout=30,
        )
        if response.status_code != requests.codes.not_found:
            _checked(response)

    def evict(self, pod: str, namespace: str) -> None:
        """Ask for a pod's eviction, which its disruption budget may refuse (429)."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        _checked(self.session.post(self.url + path, json=eviction, timeout=30))

    def remove(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        """Delete an object without any grace, as a kubelet does with a pod that has ended."""
        response = self.session.delete(
            self.url + self._path(api_version, kind, namespace, name), json={"gracePeriodSeconds": 0}, timeout=30
        )
        if response.status_code != requests.codes.not_found:
            _checked(response)

    def wait_for(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None,
        condition: Callable[[Object], object],
        what: str,
        *,
        seconds: float,
    ) -> Object:
        """Look until an object exists and meets ``condition``; give it."""
        last: list[Object | None] = [None]

        def met() -> Object | None:
            last[0] = self.get(api_version, kind, name, namespace)
            return last[0] if last[0] and condition(last[0]) else None

        try:
            found = wait_until(met, f"{kind} {name} {what}", seconds=seconds)
        except DidNotHappen as error:
            raise DidNotHappen(f"{error}\nstatus: {json.dumps((last[0] or {}).get('status'), indent=1)}") from None
        assert found is not None
        return found

    def events(self, about: str, *, reason: str | None = None) -> list[Object]:
        """List the events about the object of this name, oldest first."""
        found = self.objects("v1", "Event", fields=f"involvedObject.name={about}")
        found += [
            {**one, "message": one.get("note", ""), "source": {"component": one.get("reportingController")}}
            for one in self.objects("events.k8s.io/v1", "Event", fields=f"regarding.name={about}")
        ]
        unique = {one["metadata"]["uid"]: one for one in found if reason in {None, one.get("reason")}}
        return sorted(unique.values(), key=lambda one: one["metadata"]["creationTimestamp"])

    def _get(self, path: str) -> Object | None:
        response = self.session.get(self.url + path, timeout=30)
        return None if response.status_code == requests.codes.not_found else _checked(response)

    def _path_of(self, manifest: Mapping[str, Any]) -> str:
        metadata = manifest["metadata"]
        return self._path(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), metadata["name"])

    def _path(self, api_version: str, kind: str, namespace: str | None, *more: str) -> str:
        known = self._kinds.get((api_version, kind)) or self._discovered(api_version, kind)
        base = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        middle = f"/namespaces/{namespace or 'default'}" if known.namespaced and (namespace or more) else ""
        return "/".join((f"{base}{middle}/{known.path}", *more))

    def _discovered(self, api_version: str, kind: str) -> _Kind:
        base = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        response = self.session.get(self.url + base, timeout=30)
        for served in _checked(response)["resources"]:
            if "/" not in served["name"]:
                self._kinds[api_version, served["kind"]] = _Kind(served["name"], served["namespaced"])
        try:
            return self._kinds[api_version, kind]
        except KeyError:
            raise LookupError(f"the API server serves no {kind} in {api_version}") from None


def condition(manifest: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Give the condition ``kind`` of an object's status; empty when it has none."""
    conditions = manifest.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind), {})


def is_true(kind: str) -> Callable[[Object], bool]:
    """Make a test for the condition ``kind``."""
    return lambda manifest: condition(manifest, kind).get("status") == "True"


def wait_for_definitions(client: Client, names: list[str], *, seconds: float = 60) -> None:
    """Wait until custom resource definitions are established: their objects are refused before."""
    kind = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    for name in names:
        client.wait_for(*kind, name, None, is_true("Established"), "is established", seconds=seconds)


def _checked(response: requests.Response) -> Object:
    if not response.ok:
        raise Refused(response)
    return response.json()


def _warnings(response: requests.Response) -> Iterator[str]:
    """Texts of ``Warning`` headers: ``299 - "text"``, several joined by commas."""
    rest = response.headers.get("Warning", "")
    while rest:
        _, _, quoted = rest.partition(' "')
        text, end = "", 0
        with suppress(ValueError):
            text, end = json.JSONDecoder().raw_decode(f'"{quoted}')
        if not end:
            return
        yield text
        rest = quoted[end:].lstrip(", ")
