"""An Ingress as the load balancer would follow it, driven by Envoy. No ALB and no controller has read it.

What the AWS Load Balancer Controller makes of an Ingress is read in its source (v3.5.0, 2026-08-03: ``pkg/ingress/``
model_build_listener_rules.go, model_build_actions.go, enhanced_backend_builder.go): rules in the order of the host
rules, in each of them exact paths first, then prefixes, the longest first and equal ones as they stand, then the rest;
one target group for a Service and port; sign-in only on HTTPS; else 404. What the load balancer makes of rules is read
in its user guide (Condition types for listener rules; Quotas, 2026-11): ``*`` and ``?`` in values, which are compared
without case in headers and hosts and with case in paths; a header that comes several times is searched value by value.

The translation is strict: what it does not know is a ``ValueError``, because the controller ignores a misspelt
annotation. It plays neither TLS, the web ACL, health checks and their consequences, nor the identity provider: whoever
brings a cookie of the sign-in's name counts as signed in. Errors that the load balancer itself makes look different.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Json
from pydantic.alias_generators import to_camel

AddressOf = Callable[[str], tuple[str, int]]
"""Gives the IP address and port behind the name of a Service."""

_PREFIX: Final = "alb.ingress.kubernetes.io/"
_BY_ANNOTATION: Final = "use-annotation"
_SESSION_COOKIE: Final = "AWSELBAuthSessionCookie"

_RULES, _TARGET_GROUPS = 100, 100
_VALUES_PER_CONDITION, _VALUES_PER_RULE, _WILDCARDS_PER_RULE = 3, 5, 5
"""Quotas of the user guide; of wildcards an older page has 6."""

_CONNECT_TIMEOUT: Final = "10s"
"""The load balancer's, by which it answers 504 (user guide, Troubleshoot)."""
_UNLIMITED: Final = 40_000

_SEPARATOR: Final = "\x1f"
"""Between the values of a header that came several times; no client can send it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


Value = Annotated[str, Field(min_length=1, max_length=128)]
HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}$")]


class HeaderMatch(_Strict):
    """Any of the values, in any occurrence of the header."""

    http_header_name: HeaderName
    values: Annotated[tuple[Value, ...], Field(min_length=1, max_length=_VALUES_PER_CONDITION)]


class Condition(_Strict):
    """The one kind of condition that the program uses."""

    field: Literal["http-header"]
    http_header_config: HeaderMatch


class FixedResponse(_Strict):
    """Elastic Load Balancing API, FixedResponseActionConfig."""

    content_type: Literal["text/plain", "text/css", "text/html", "application/javascript", "application/json"]
    status_code: Annotated[str, Field(pattern=r"^(2|4|5)\d\d$")]
    message_body: str = ""


class _Answer(_Strict):
    type: Literal["fixed-response"]
    fixed_response_config: FixedResponse


class TargetGroup(_Strict):
    """A Service and port."""

    service_name: str
    service_port: int


class _Targets(_Strict):
    target_groups: Annotated[tuple[TargetGroup, ...], Field(min_length=1, max_length=1)]


class _Forward(_Strict):
    type: Literal["forward"]
    forward_config: _Targets


class _Action(_Strict):
    action: Annotated[_Answer | _Forward, Field(discriminator="type")]


class _Conditions(_Strict):
    conditions: tuple[Condition, ...]


class SignIn(_Strict):
    """``auth-idp-oidc``."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    user_info_endpoint: str
    secret_name: str


def _string_map(text: object) -> object:
    pairs = [pair.partition("=") for pair in str(text).split(",")]
    return {key.strip(): value.strip() for key, _, value in pairs}


class _LoadBalancerAttributes(_Strict):
    idle_timeout_s: Annotated[int, Field(alias="idle_timeout.timeout_seconds", ge=1, le=4000)] = 60
    drop_invalid_headers: Annotated[bool, Field(alias="routing.http.drop_invalid_header_fields.enabled")] = False


class _TargetGroupAttributes(_Strict):
    deregistration_delay_s: Annotated[int, Field(alias="deregistration_delay.timeout_seconds", ge=0, le=3600)] = 300


class Annotations(BaseModel):
    """What the whole load balancer has in common: every annotation but actions and conditions. All are texts."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: _PREFIX + name.replace("_", "-")
    )

    scheme: Literal["internal", "internet-facing"] = "internal"
    target_type: Literal["ip"]
    listen_ports: Json[Annotated[tuple[dict[Literal["HTTP", "HTTPS"], int], ...], Field(min_length=1, max_length=1)]]
    certificate_arn: str | None = None
    ssl_policy: str | None = None
    load_balancer_attributes: Annotated[_LoadBalancerAttributes, BeforeValidator(_string_map)]
    target_group_attributes: Annotated[_TargetGroupAttributes, BeforeValidator(_string_map)]
    healthcheck_port: Annotated[int, Field(ge=1, le=65535)]
    healthcheck_path: Annotated[str, Field(pattern="^/", max_length=1024)]
    healthcheck_interval_seconds: Annotated[int, Field(ge=5, le=300)] = 15
    healthcheck_timeout_seconds: Annotated[int, Field(ge=2, le=120)] = 5
    wafv2_acl_arn: str | None = None
    auth_type: Literal["none", "oidc"] = "none"
    auth_idp_oidc: Json[SignIn] | None = None
    auth_scope: str = "openid"
    auth_session_timeout: Annotated[int, Field(ge=1, le=604_800)] = 604_800
    auth_on_unauthenticated_request: Literal["authenticate", "allow", "deny"] = "authenticate"

    @property
    def protocol(self) -> Literal["HTTP", "HTTPS"]:
        """Of the one listener."""
        return next(iter(self.listen_ports[0]))

    @property
    def idle_timeout_s(self) -> int:
        """After how much silence a connection of either side is closed."""
        return self.load_balancer_attributes.idle_timeout_s


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the listener; its place in the list is its priority."""

    host: str | None
    paths: tuple[str, ...]
    """Patterns."""
    headers: tuple[HeaderMatch, ...]
    action: FixedResponse | TargetGroup

    def check(self) -> None:
        """Raise ``ValueError`` when the load balancer would refuse the rule."""
        values = [*self.paths, *(value for header in self.headers for value in header.values)]
        values += [self.host] if self.host else []
        wildcards = sum(value.count("*") + value.count("?") for value in values)
        if len(values) > _VALUES_PER_RULE or wildcards > _WILDCARDS_PER_RULE:
            raise ValueError(f"{len(values)} values with {wildcards} wildcards are too many for a rule: {values}")
        if long := [value for value in values if len(value) > 128]:
            raise ValueError(f"longer than 128 characters: {long}")
        if isinstance(self.action, FixedResponse) and len(self.action.message_body.encode()) > 1024:
            raise ValueError(f"a fixed response has at most 1024 bytes: {self.action.message_body}")


def read_annotations(ingress: Mapping[str, Any]) -> Annotations:
    """Read what is common to all rules. Raises ``ValueError`` at an annotation or a value that is not known."""
    own = ("actions.", "conditions.")
    found = {
        key: text
        for key, text in ingress["metadata"]["annotations"].items()
        if not key.removeprefix(_PREFIX).startswith(own)
    }
    return Annotations.model_validate_strings(found)


def listener_rules(ingress: Mapping[str, Any]) -> list[Rule]:
    """Give the listener's rules, the first one to match first. Raises ``ValueError``."""
    if unknown := ingress["spec"].keys() - {"ingressClassName", "rules"}:
        raise ValueError(f"not translated: {sorted(unknown)}")
    annotations = dict(ingress["metadata"]["annotations"])
    rules = [
        _rule(annotations, rule.get("host"), path)
        for rule in ingress["spec"]["rules"]
        for path in _in_order(rule["http"]["paths"])
    ]
    for rule in rules:
        rule.check()
    groups = {rule.action for rule in rules if isinstance(rule.action, TargetGroup)}
    if len(rules) > _RULES or len(groups) > _TARGET_GROUPS:
        raise ValueError(f"{len(rules)} rules and {len(groups)} target groups are too many for a load balancer")
    _check_that_all_are_used(annotations, ingress["spec"]["rules"])
    return rules


def _in_order(paths: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    exact, prefix, other = (
        [path for path in paths if path.get("pathType", "ImplementationSpecific") == kind]
        for kind in ("Exact", "Prefix", "ImplementationSpecific")
    )
    return [*exact, *sorted(prefix, key=lambda path: -len(path["path"])), *other]


def _rule(annotations: Mapping[str, str], host: str | None, path: Mapping[str, Any]) -> Rule:
    service = path["backend"]["service"]
    name, port = service["name"], service["port"]
    conditions = annotations.get(f"{_PREFIX}conditions.{name}", "[]")
    headers = [
        one.http_header_config for one in _Conditions.model_validate({"conditions": json.loads(conditions)}).conditions
    ]
    action: FixedResponse | TargetGroup
    if port.get("name") == _BY_ANNOTATION:
        text = annotations.get(f"{_PREFIX}actions.{name}")
        if text is None:
            raise ValueError(f"{name}: there is no actions.{name}")
        read = _Action.model_validate({"action": json.loads(text)}).action
        action = read.fixed_response_config if isinstance(read, _Answer) else read.forward_config.target_groups[0]
    else:
        action = TargetGroup(serviceName=name, servicePort=port["number"])
    return Rule(host, tuple(_patterns(path)), tuple(headers), action)


def _patterns(path: Mapping[str, Any]) -> Iterator[str]:
    text, kind = path["path"], path.get("pathType", "ImplementationSpecific")
    if kind != "ImplementationSpecific" and re.search(r"[*?]", text):
        raise ValueError(f"a path of type {kind} has no wildcards: {text}")
    if kind == "Prefix":
        text = text.rstrip("/")
        yield from (text, f"{text}/*") if text else ("/*",)
    else:
        yield text


def _check_that_all_are_used(annotations: Mapping[str, str], rules: Sequence[Mapping[str, Any]]) -> None:
    services = [path["backend"]["service"] for rule in rules for path in rule["http"]["paths"]]
    named = {f"{_PREFIX}conditions.{service['name']}" for service in services}
    named |= {f"{_PREFIX}actions.{one['name']}" for one in services if one["port"].get("name") == _BY_ANNOTATION}
    given = {key for key in annotations if key.removeprefix(_PREFIX).startswith(("actions.", "conditions."))}
    if unused := given - named:
        raise ValueError(f"the controller would not look at {sorted(unused)}")


# --- Envoy -----------------------------------------------------------------------------------------------------------


def balancer_bootstrap(ingress: Mapping[str, Any], address_of: AddressOf, listen_port: int) -> dict[str, Any]:
    """Give the bootstrap of an Envoy that follows the Ingress. Raises ``ValueError`` at what it cannot translate.

    ``address_of`` is asked once for every Service that a rule forwards to, whether or not it is a tier's.
    """
    common = read_annotations(ingress)
    rules = listener_rules(ingress)
    sign_in = common.auth_idp_oidc if common.auth_type == "oidc" and common.protocol == "HTTPS" else None
    services = dict.fromkeys(rule.action for rule in rules if isinstance(rule.action, TargetGroup))
    headers = sorted({header.http_header_name.lower() for rule in rules for header in rule.headers})
    routes = [route for rule in rules for route in _routes(rule, common, sign_in)]
    # The controller's own default action: 404, text/plain, no body.
    routes.append({"match": {"prefix": "/"}, "direct_response": {"status": 404}})
    idle = f"{common.idle_timeout_s}s"
    manager = _typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="balancer",
        use_remote_address=True,
        # A path is normalised before rules look at it.
        normalize_path=True,
        server_header_transformation="PASS_THROUGH",
        generate_request_id=False,
        stream_idle_timeout=idle,
        common_http_protocol_options={
            "idle_timeout": idle,
            "headers_with_underscores_action": (
                "DROP_HEADER" if common.load_balancer_attributes.drop_invalid_headers else "ALLOW"
            ),
        },
        route_config={
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": routes,
                    "request_headers_to_remove": [*map(_values_of, headers), "x-envoy-external-address"],
                }
            ]
        },
        http_filters=[
            {"name": "values", "typed_config": _typed("extensions.filters.http.lua.v3.Lua", **_all_values(headers))},
            {
                "name": "router",
                "typed_config": _typed("extensions.filters.http.router.v3.Router", suppress_envoy_headers=True),
            },
        ],
    )
    listener = {
        "name": "balancer",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": listen_port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    clusters = [_cluster(group, address_of(group.service_name), idle) for group in services]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _routes(rule: Rule, common: Annotations, sign_in: SignIn | None) -> Iterator[dict[str, Any]]:
    headers = [
        {"name": _values_of(header.http_header_name), "string_match": _regex(_any_value(header.values))}
        for header in rule.headers
    ]
    if rule.host:
        # Here alone a port may follow: that of the test, where the load balancer's are those of HTTP and HTTPS.
        headers.append({"name": ":authority", "string_match": _regex(f"(?i){_glob(rule.host)}(:[0-9]+)?")})
    match = {"safe_regex": {"regex": "|".join(_glob(path) for path in rule.paths)}, "headers": headers}
    if sign_in is not None and common.auth_on_unauthenticated_request != "allow":
        cookie = {"name": "cookie", "string_match": _regex(f"(?:.*; *)?{_SESSION_COOKIE}-[0-9]=.*")}
        nobody = {
            **match,
            "headers": [*headers, {**cookie, "treat_missing_header_as_empty": True, "invert_match": True}],
        }
        yield {"match": nobody, **_unauthenticated(common, sign_in)}
    yield {"match": match, **_answer(rule.action, common)}


def _answer(action: FixedResponse | TargetGroup, common: Annotations) -> dict[str, Any]:
    if isinstance(action, TargetGroup):
        # An answer may take as long as it streams; silence ends it.
        return {"route": {"cluster": _name(action), "timeout": "0s", "idle_timeout": f"{common.idle_timeout_s}s"}}
    content_type = {
        "header": {"key": "content-type", "value": action.content_type},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return {
        "direct_response": {"status": int(action.status_code), "body": {"inline_string": action.message_body}},
        "response_headers_to_add": [content_type],
    }


def _unauthenticated(common: Annotations, sign_in: SignIn) -> dict[str, Any]:
    if common.auth_on_unauthenticated_request == "deny":
        return {"direct_response": {"status": 401}}
    provider = urlsplit(sign_in.authorization_endpoint)
    return {
        "redirect": {
            "https_redirect": provider.scheme == "https",
            "host_redirect": provider.netloc,
            "path_redirect": provider.path,
            "response_code": "FOUND",
        }
    }


def _cluster(group: TargetGroup, address: tuple[str, int], idle: str) -> dict[str, Any]:
    ip, port = address
    limits = {"max_connections": _UNLIMITED, "max_pending_requests": _UNLIMITED, "max_requests": _UNLIMITED}
    options = _typed(
        "extensions.upstreams.http.v3.HttpProtocolOptions",
        common_http_protocol_options={"idle_timeout": idle},
        explicit_http_config={"http_protocol_options": {}},
    )
    endpoint = {"endpoint": {"address": {"socket_address": {"address": ip, "port_value": port}}}}
    return {
        "name": _name(group),
        "type": "STATIC",
        "connect_timeout": _CONNECT_TIMEOUT,
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {"cluster_name": _name(group), "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _name(group: TargetGroup) -> str:
    return f"{group.service_name}:{group.service_port}"


def _all_values(headers: Sequence[str]) -> dict[str, Any]:
    """Give the code that puts all values of a header into one of its own: Envoy's rules see them joined by commas.

    A value with a comma would look like two, and the load balancer tells them apart.
    """
    steps = "\n".join(f'  gather(handle:headers(), "{header}", "{_values_of(header)}")' for header in headers)
    code = f"""
function gather(headers, name, into)
  headers:remove(into)
  local values = {{}}
  for i = 0, headers:getNumValues(name) - 1 do
    table.insert(values, headers:getAtIndex(name, i))
  end
  if #values > 0 then
    headers:add(into, table.concat(values, "\\31"))
  end
end
function envoy_on_request(handle)
{steps}
  handle:clearRouteCache()
end
function envoy_on_response(handle)
end
"""
    return {"default_source_code": {"inline_string": code}}


def _values_of(header: str) -> str:
    return f"x-all-values-of-{header.lower()}"


def _any_value(values: Sequence[str]) -> str:
    one = "|".join(_glob(value, f"[^{_SEPARATOR}]") for value in values)
    return f"(?i)(?:[^{_SEPARATOR}]*{_SEPARATOR})*(?:{one})(?:{_SEPARATOR}.*)?"


def _glob(pattern: str, any_character: str = ".") -> str:
    wildcards = {"*": f"{any_character}*", "?": any_character}
    return "".join(wildcards.get(character) or re.escape(character) for character in pattern)


def _regex(text: str) -> dict[str, Any]:
    return {"safe_regex": {"regex": text}}


def _typed(message: str, **fields: object) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/envoy.{message}", **fields}
