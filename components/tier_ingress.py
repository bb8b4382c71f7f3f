"""The way in: one Application Load Balancer that finds the tier of a request by its header."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pulumi
import pulumi_kubernetes as k8s

from components.names import (
    HTTP_PORT,
    LOAD_BALANCER_CONTROLLER_ACCOUNT,
    MODEL_ROUTER,
    PROJECT,
    ROUTER_READY_PORT,
    router_service,
)
from planning.plan import OidcPlan, TierPlan

INGRESS_CLASS: Final = "alb"
"""Made by the AWS Load Balancer Controller's chart."""

_PATH: Final = "/v1"
_UNKNOWN_TIER: Final = "unknown-tier"
_DEFAULT_TIER: Final = "default-tier"
_ANNOTATION: Final = "alb.ingress.kubernetes.io"
_TLS_POLICY: Final = "ELBSecurityPolicy-TLS13-1-2-2021-06"
"""TLS 1.2 and 1.3 only; without it the controller asks for a policy of 2016 that still takes TLS 1.0."""
_FIXED_RESPONSE_BYTES: Final = 1024
"""Most that a load balancer answers by itself (Elastic Load Balancing API, FixedResponseActionConfig)."""


@dataclass(frozen=True, kw_only=True)
class TierIngressArgs:
    """What the load balancer is built from."""

    tiers: tuple[TierPlan, ...]
    default_tier: str
    routing_header: str
    scheme: Literal["internal", "internet-facing"]
    certificate_arn: str | None
    """Certificate of the listener; without one it speaks plain HTTP."""
    host: str | None
    """Only requests for this host are served; None: for any."""
    web_acl_arn: str | None
    """WAF v2 web ACL before the listener."""
    oidc: OidcPlan | None
    """How people sign in before any rule is followed; None: nobody has to."""
    namespace: pulumi.Input[str]
    served: Sequence[pulumi.Resource]
    """The tiers. A rule for a router that is not there would answer 503, and one for a tier whose engines have yet to
    start would let requests wait that the rule before it still serves."""
    model_router: pulumi.Resource | None
    """What takes the requests without the header, and finds their tiers; None: the default tier does."""
    load_balancer_controller: pulumi.Resource
    """The release that makes the load balancer and, on destroy, must still be there to remove it."""


class TierIngress(pulumi.ComponentResource):
    """Ingress for the AWS Load Balancer Controller. Its rules, in order of priority:

    the header names a tier: that tier; the header is there with any other value: 400 that names the tiers; no header:
    the default tier, or the model router. All for ``/v1`` only; anything else gets the load balancer's own 404. With
    ``oidc`` each of them signs in first.
    """

    endpoint: pulumi.Output[str]
    """Base URL for OpenAI clients."""
    hostname: pulumi.Output[str]
    """DNS name of the load balancer, empty until it has one."""

    def __init__(self, name: str, args: TierIngressArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:routing:TierIngress", name, {}, opts)
        secret_readers = _secret_readers(name, args, args.oidc, self) if args.oidc else []
        in_between = [args.model_router] if args.model_router else []
        ingress = k8s.networking.v1.Ingress(
            f"{name}-ingress",
            metadata=k8s.meta.v1.ObjectMetaArgs(
                name=PROJECT, namespace=args.namespace, annotations=ingress_annotations(args)
            ),
            spec=k8s.networking.v1.IngressSpecArgs(
                ingress_class_name=INGRESS_CLASS,
                rules=[
                    k8s.networking.v1.IngressRuleArgs(
                        host=args.host, http=k8s.networking.v1.HTTPIngressRuleValueArgs(paths=_paths(args))
                    )
                ],
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                # On destroy the controller's finalizer holds the Ingress until the load balancer is gone, which takes
                # minutes; and the controller must not go before.
                depends_on=[args.load_balancer_controller, *args.served, *in_between, *secret_readers],
                custom_timeouts=pulumi.CustomTimeouts(create="20m", update="20m", delete="30m"),
            ),
        )
        self.hostname = ingress.status.apply(_hostname)
        protocol = "https" if args.certificate_arn else "http"
        self.endpoint = pulumi.Output.concat(protocol, "://", args.host or self.hostname, _PATH)
        self.register_outputs({"endpoint": self.endpoint, "hostname": self.hostname})


def ingress_annotations(args: TierIngressArgs) -> dict[str, str]:
    """Give the annotations by which the controller makes listener, target groups and rules."""
    longest_idle_s = max(tier.timeouts.alb_idle_s for tier in args.tiers)
    longest_grace_s = max(tier.timeouts.grace_s for tier in args.tiers)
    tls = (
        {"listen-ports": '[{"HTTPS":443}]', "certificate-arn": args.certificate_arn, "ssl-policy": _TLS_POLICY}
        if args.certificate_arn
        else {"listen-ports": '[{"HTTP":80}]'}
    )
    without_header = router_service(args.default_tier) if args.model_router is None else MODEL_ROUTER
    settings = {
        "scheme": args.scheme,
        # Straight to the router's pod: the plan gives pods addresses of the VPC.
        "target-type": "ip",
        **tls,
        "load-balancer-attributes": _pairs(
            {
                # The default of 60 s would cut every request that waits for a cold start.
                "idle_timeout.timeout_seconds": longest_idle_s,
                "routing.http.drop_invalid_header_fields.enabled": "true",
            }
        ),
        "target-group-attributes": _pairs({"deregistration_delay.timeout_seconds": longest_grace_s}),
        # Envoy's own port: it answers while the tier sleeps, and /v1 of a sleeping tier does not.
        "healthcheck-port": str(ROUTER_READY_PORT),
        "healthcheck-path": "/ready",
        # A router has one replica, and the next one counts as ready when the load balancer has found it healthy
        # (`ServingNamespace` asks for that gate): looked for often, so that a change is quick.
        "healthcheck-interval-seconds": "5",
        "healthcheck-timeout-seconds": "2",
        f"actions.{_UNKNOWN_TIER}": _json(_refusal(args)),
        f"conditions.{_UNKNOWN_TIER}": _json(_header_is(args.routing_header, "*")),
        # Conditions are kept by backend name, and the default tier's Service has the one of its header already.
        f"actions.{_DEFAULT_TIER}": _json(_forward_to(without_header)),
        **({"wafv2-acl-arn": args.web_acl_arn} if args.web_acl_arn else {}),
        **(_sign_in(args.oidc) if args.oidc else {}),
    }
    conditions = {
        f"conditions.{router_service(tier.name)}": _json(_header_is(args.routing_header, tier.name))
        for tier in args.tiers
    }
    return {f"{_ANNOTATION}/{key}": value for key, value in {**settings, **conditions}.items()}


def _sign_in(oidc: OidcPlan) -> dict[str, str]:
    """Give the annotations by which the controller puts a sign-in before the action of every rule."""
    provider = {
        "issuer": oidc.issuer,
        "authorizationEndpoint": oidc.authorization_endpoint,
        "tokenEndpoint": oidc.token_endpoint,
        "userInfoEndpoint": oidc.user_info_endpoint,
        "secretName": oidc.secret_name,
    }
    return {
        "auth-type": "oidc",
        "auth-idp-oidc": _json(provider),
        "auth-scope": oidc.scope,
        "auth-session-timeout": str(oidc.session_s),
        "auth-on-unauthenticated-request": oidc.on_unauthenticated,
    }


def _secret_readers(
    name: str, args: TierIngressArgs, oidc: OidcPlan, parent: pulumi.Resource
) -> list[k8s.rbac.v1.Role | k8s.rbac.v1.RoleBinding]:
    """Let the controller read the one Secret with the client's name and password; its chart lets it read none."""
    child = pulumi.ResourceOptions(parent=parent)
    metadata = k8s.meta.v1.ObjectMetaArgs(name=f"{PROJECT}-oidc-secret", namespace=args.namespace)
    role = k8s.rbac.v1.Role(
        f"{name}-oidc-secret",
        metadata=metadata,
        rules=[
            k8s.rbac.v1.PolicyRuleArgs(
                api_groups=[""],
                resources=["secrets"],
                resource_names=[oidc.secret_name],
                verbs=["get", "list", "watch"],
            )
        ],
        opts=child,
    )
    account_namespace, account = LOAD_BALANCER_CONTROLLER_ACCOUNT
    binding = k8s.rbac.v1.RoleBinding(
        f"{name}-oidc-secret",
        metadata=metadata,
        role_ref=k8s.rbac.v1.RoleRefArgs(
            api_group="rbac.authorization.k8s.io", kind="Role", name=f"{PROJECT}-oidc-secret"
        ),
        subjects=[k8s.rbac.v1.SubjectArgs(kind="ServiceAccount", name=account, namespace=account_namespace)],
        opts=child,
    )
    return [role, binding]


def _paths(args: TierIngressArgs) -> list[k8s.networking.v1.HTTPIngressPathArgs]:
    """Give one path per rule. The controller sorts equal prefixes stably: the order here is the rules' priority."""
    by_number = k8s.networking.v1.ServiceBackendPortArgs(number=HTTP_PORT)
    by_annotation = k8s.networking.v1.ServiceBackendPortArgs(name="use-annotation")
    backends = [(router_service(tier.name), by_number) for tier in args.tiers]
    backends += [(_UNKNOWN_TIER, by_annotation), (_DEFAULT_TIER, by_annotation)]
    return [
        k8s.networking.v1.HTTPIngressPathArgs(
            path=_PATH,
            path_type="Prefix",
            backend=k8s.networking.v1.IngressBackendArgs(
                service=k8s.networking.v1.IngressServiceBackendArgs(name=service, port=port)
            ),
        )
        for service, port in backends
    ]


def _header_is(header: str, value: str) -> list[dict[str, Any]]:
    return [{"field": "http-header", "httpHeaderConfig": {"httpHeaderName": header, "values": [value]}}]


def _forward_to(service: str) -> dict[str, Any]:
    # Name and port as in the tier's own rule, so that both share one target group.
    target = {"serviceName": service, "servicePort": HTTP_PORT}
    return {"type": "forward", "forwardConfig": {"targetGroups": [target]}}


def _refusal(args: TierIngressArgs) -> dict[str, Any]:
    names = ", ".join(tier.name for tier in args.tiers)
    body = _unknown_tier_error(args.routing_header, f"must be one of: {names}")
    if len(body.encode()) > _FIXED_RESPONSE_BYTES:
        body = _unknown_tier_error(args.routing_header, "names no tier of this stack")
    response = {"contentType": "application/json", "statusCode": "400", "messageBody": body}
    return {"type": "fixed-response", "fixedResponseConfig": response}


def _unknown_tier_error(header: str, complaint: str) -> str:
    error = {
        "message": f"{header} {complaint}",
        "type": "invalid_request_error",
        "param": header,
        "code": "unknown_tier",
    }
    return _json({"error": error})


def _pairs(values: dict[str, object]) -> str:
    return ",".join(f"{key}={value}" for key, value in values.items())


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _hostname(status: k8s.networking.v1.outputs.IngressStatus | None) -> str:
    balancers = (status.load_balancer and status.load_balancer.ingress) if status else None
    return (balancers[0].hostname or "") if balancers else ""
