"""A stub for what the emulators lack; whatever it does not know, it hands on to the emulator behind it.

It answers Service Quotas, SSM's public AMI parameters, EKS cluster and add-on versions, IAM's policy simulation, cost
allocation tags and Hugging Face's model API. Its answers have the shape that botocore parses; that AWS answers so is
not proved.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from planning.facts.eks_versions import addon_versions

ModelAccess = Literal["open", "accepted", "refused"]


@dataclass(frozen=True, slots=True)
class Account:
    """What the stub says of an account."""

    quotas: Mapping[str, float] = field(default_factory=dict)
    """By quota code; the others have ``other_quotas``."""
    other_quotas: float = 1000.0
    parameters: Mapping[str, str] | None = None
    """SSM's public parameters by name; None: every AMI that is asked for exists."""
    newest_al2023: str = "20261110"
    newest_bottlerocket: str = "1.61.0"
    cluster_versions: Mapping[str, tuple[str, str, str]] = field(
        default_factory=lambda: {
            "1.36": ("STANDARD_SUPPORT", "2027-08-02", "2028-08-02"),
            "1.35": ("STANDARD_SUPPORT", "2027-03-27", "2028-03-27"),
            "1.33": ("EXTENDED_SUPPORT", "2026-07-29", "2027-07-29"),
        }
    )
    """Minor version to status, end of standard and end of extended support."""
    addons: Mapping[str, str] | None = None
    """The only version that is offered of an EKS add-on, by name; None: every version that is pinned here."""
    linked_roles: tuple[str, ...] = (
        "spot.amazonaws.com",
        "eks.amazonaws.com",
        "eks-nodegroup.amazonaws.com",
        "autoscaling.amazonaws.com",
        "elasticloadbalancing.amazonaws.com",
    )
    """Services whose service-linked role is there."""
    cost_tag_active: bool = True
    models: Mapping[str, ModelAccess] | None = None
    """By Hugging Face repository, what a token opens; None: every model is open. One that is left out is not there."""
    denied: frozenset[str] = frozenset()
    """Actions such as ``servicequotas:GetServiceQuota`` that are refused."""
    not_simulated: frozenset[str] = frozenset()
    """Actions that the policy simulation calls an implicit deny."""


_AMI = re.compile(r"/aws/service/(eks/optimized-ami|bottlerocket)/.*/image_id")


#: EKS' operations by path.
_EKS = {"/cluster-versions": "DescribeClusterVersions", "/addons/supported-versions": "DescribeAddonVersions"}


def stub_server(account: Account, behind: str) -> ThreadingHTTPServer:
    """Make the server on a free port of 127.0.0.1; ``behind`` is the emulator's address."""
    address = urlsplit(behind)

    class Handler(_Handler):
        pass

    Handler.account, Handler.behind = account, address.netloc
    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


class _Handler(BaseHTTPRequestHandler):
    account: Account
    behind: str
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        service = self._service()
        if not service and self.path.startswith("/api/models/"):
            self._hugging_face(urlsplit(self.path).path.removeprefix("/api/models/"))
            return
        action, arguments = self._action(service)
        if f"{service}:{action}" in self.account.denied:
            self._deny(service, action)
        elif answer := self._answer(f"{service}:{action}", arguments):
            self._send(*answer)
        else:
            self._hand_on()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _any  # noqa: N815 (http.server's names)

    def _service(self) -> str:
        """The service of a signed request, by the scope of its signature."""
        scope = re.search(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/aws4_request", self.headers.get("Authorization", ""))
        return scope[1] if scope else ""

    def _action(self, service: str) -> tuple[str, Mapping[str, Any]]:
        target = self.headers.get("X-Amz-Target")
        if target:
            return target.rpartition(".")[2], json.loads(self.body or b"{}")
        path = urlsplit(self.path)
        if service == "eks" and path.path in _EKS:
            return _EKS[path.path], parse_qs(path.query)
        if service == "tagging":
            return "GetResources", {}
        form = parse_qs(self.body.decode("utf-8", "replace"))
        return (form.get("Action") or [""])[0], form

    def _answer(self, action: str, arguments: Mapping[str, Any]) -> tuple[int, str, str] | None:
        match action:
            case "servicequotas:GetServiceQuota":
                code = arguments["QuotaCode"]
                value = self.account.quotas.get(code, self.account.other_quotas)
                quota = {"ServiceCode": arguments["ServiceCode"], "QuotaCode": code, "Value": value}
                return _json({"Quota": quota})
            case "ssm:GetParameters":
                found = {name: value for name in arguments["Names"] if (value := self._parameter(name))}
                return _json(
                    {
                        "Parameters": [{"Name": name, "Type": "String", "Value": found[name]} for name in found],
                        "InvalidParameters": [name for name in arguments["Names"] if name not in found],
                    }
                )
            case "eks:DescribeClusterVersions":
                return _json({"clusterVersions": [self._version(name) for name in self.account.cluster_versions]})
            case "eks:DescribeAddonVersions":
                return _json({"addons": self._addons(arguments["addonName"][0], arguments["kubernetesVersion"][0])})
            case "ce:ListCostAllocationTags":
                active = "Active" if self.account.cost_tag_active else "Inactive"
                tags = [{"TagKey": key, "Type": "UserDefined", "Status": active} for key in arguments["TagKeys"]]
                return _json({"CostAllocationTags": tags})
            case "iam:SimulatePrincipalPolicy":
                named = [values[0] for key, values in arguments.items() if key.startswith("ActionNames.member.")]
                return 200, "text/xml", self._simulation(named)
        return None

    def _parameter(self, name: str) -> str:
        if self.account.parameters is not None and name in self.account.parameters:
            return self.account.parameters[name]
        if name.endswith("/recommended/release_version"):
            return f"1.36.4-{self.account.newest_al2023}"
        if name.endswith("/latest/image_version"):
            return f"{self.account.newest_bottlerocket}-d93bb1b1"
        return "ami-0123456789abcdef0" if self.account.parameters is None and _AMI.fullmatch(name) else ""

    def _version(self, name: str) -> dict[str, object]:
        status, standard, extended = self.account.cluster_versions[name]
        return {
            "clusterVersion": name,
            "versionStatus": status,
            "endOfStandardSupportDate": f"{standard}T00:00:00Z",
            "endOfExtendedSupportDate": f"{extended}T00:00:00Z",
        }

    def _addons(self, name: str, kubernetes: str) -> list[dict[str, object]]:
        offered = addon_versions(kubernetes) if self.account.addons is None else self.account.addons
        if name not in offered:
            return []
        fits = [{"clusterVersion": kubernetes, "defaultVersion": True}]
        return [{"addonName": name, "addonVersions": [{"addonVersion": offered[name], "compatibilities": fits}]}]

    def _simulation(self, actions: list[str]) -> str:
        members = "".join(
            f"<member><EvalActionName>{escape(action)}</EvalActionName><EvalDecision>"
            f"{'implicitDeny' if action in self.account.not_simulated else 'allowed'}</EvalDecision></member>"
            for action in actions
        )
        return (
            '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
            f"<SimulatePrincipalPolicyResult><EvaluationResults>{members}</EvaluationResults>"
            "<IsTruncated>false</IsTruncated></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
        )

    def _hugging_face(self, path: str) -> None:
        repository = path.removesuffix("/auth-check")
        access = "open" if self.account.models is None else self.account.models.get(repository)
        token = self.headers.get("Authorization", "").startswith("Bearer ")
        if token and not self.headers["Authorization"].startswith("Bearer hf_"):
            self._send(*_json({"error": "Invalid credentials in Authorization header"}, 401))
        elif access is None:
            self._send(*_json({"error": "Repository not found"}, 404 if token else 401))
        elif path.endswith("/auth-check"):
            status = 200 if access == "open" or (access == "accepted" and token) else (403 if token else 401)
            self._send(*_json({}, status))
        else:
            self._send(*_json({"id": repository, "gated": False if access == "open" else "manual"}))

    def _deny(self, service: str, action: str) -> None:
        message = f"not authorized to perform: {service}:{action}"
        if service == "ec2":
            error = f"<Error><Code>UnauthorizedOperation</Code><Message>{message}</Message></Error>"
            self._send(403, "text/xml", f"<Response><Errors>{error}</Errors><RequestID>1</RequestID></Response>")
        elif self.headers.get("X-Amz-Target") or service in {"eks", "tagging"}:
            self._send(
                *_json({"__type": "AccessDeniedException", "message": message}, 400), error="AccessDeniedException"
            )
        else:
            error = f"<Error><Type>Sender</Type><Code>AccessDenied</Code><Message>{message}</Message></Error>"
            self._send(403, "text/xml", f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>")

    def _hand_on(self) -> None:
        connection = http.client.HTTPConnection(self.behind, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        connection.request(self.command, self.path, self.body, headers)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "content-length", "transfer-encoding", "server", "date"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content)
        connection.close()

    def _send(self, status: int, kind: str, text: str, error: str = "") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if error:
            self.send_header("x-amzn-ErrorType", error)
        self.end_headers()
        self.wfile.write(content)


def _json(value: object, status: int = 200) -> tuple[int, str, str]:
    return status, "application/json", json.dumps(value)
