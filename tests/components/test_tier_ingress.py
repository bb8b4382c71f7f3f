"""The load balancer as it is asked for. What the controller makes of the annotations is read in its source (v3.5.0),
not run: rules of equal prefixes keep their order, and two rules of one Service and port share a target group."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pulumi
import pytest

from components.tier_ingress import TierIngress, TierIngressArgs
from planning.plan import OidcPlan, TierPlan
from tests.components.building import stand_in
from tests.components.plans import FAST, QUALITY, SMALL
from tests.harness import UNKNOWN, Recording, component_under_test, destroy_reachability, kubernetes_objects
from tests.schemas.checker import problems

INGRESS = "kubernetes:networking.k8s.io/v1:Ingress"
TIERS = (FAST, QUALITY, SMALL)
PREFIX = "alb.ingress.kubernetes.io/"


def ingress(tiers: Sequence[TierPlan] = TIERS, *, preview: bool = False, **changes: Any) -> Recording:
    def factory(opts: pulumi.ResourceOptions) -> Mapping[str, Any]:
        made = TierIngress("ingress", replace(arguments(opts), tiers=tuple(tiers), **changes), opts)
        return {"endpoint": made.endpoint, "hostname": made.hostname}

    return component_under_test(factory, preview=preview)


def arguments(opts: pulumi.ResourceOptions) -> TierIngressArgs:
    return TierIngressArgs(
        tiers=TIERS,
        default_tier="fast",
        routing_header="X-Model-Tier",
        scheme="internal",
        certificate_arn=None,
        host=None,
        web_acl_arn=None,
        oidc=None,
        namespace="llm",
        served=[stand_in("tier", opts)],
        model_router=None,
        load_balancer_controller=stand_in("controller", opts),
    )


OIDC = OidcPlan(
    issuer="https://idp.example.com",
    authorization_endpoint="https://idp.example.com/authorize",
    token_endpoint="https://idp.example.com/token",
    user_info_endpoint="https://idp.example.com/userinfo",
    secret_name="sign-in",
    scope="openid email",
    session_s=28_800,
    on_unauthenticated="deny",
)


def manifest(recording: Recording) -> dict[str, Any]:
    (found,) = kubernetes_objects(recording, "Ingress")
    return found


def notes(recording: Recording) -> dict[str, str]:
    found = manifest(recording)["metadata"]["annotations"]
    assert all(key.startswith(PREFIX) for key in found)
    return {key.removeprefix(PREFIX): value for key, value in found.items()}


def paths(recording: Recording) -> list[dict[str, Any]]:
    (rule,) = manifest(recording)["spec"]["rules"]
    return rule["http"]["paths"]


@pytest.fixture(scope="module")
def plain() -> Recording:
    return ingress()


def test_the_api_server_would_take_it(plain: Recording) -> None:
    assert problems(manifest(plain)) == []
    assert manifest(plain)["spec"]["ingressClassName"] == "alb"


def test_rules_stand_in_their_order_of_priority(plain: Recording) -> None:
    backends = [one["backend"]["service"] for one in paths(plain)]
    assert backends == [
        {"name": "fast-router", "port": {"number": 80}},
        {"name": "quality-router", "port": {"number": 80}},
        {"name": "small-router", "port": {"number": 80}},
        {"name": "unknown-tier", "port": {"name": "use-annotation"}},
        {"name": "default-tier", "port": {"name": "use-annotation"}},
    ]


def test_only_v1_is_routed(plain: Recording) -> None:
    assert {(one["path"], one["pathType"]) for one in paths(plain)} == {("/v1", "Prefix")}
    assert "defaultBackend" not in manifest(plain)["spec"]


def test_the_header_names_the_tier(plain: Recording) -> None:
    for tier in TIERS:
        assert json.loads(notes(plain)[f"conditions.{tier.name}-router"]) == [
            {"field": "http-header", "httpHeaderConfig": {"httpHeaderName": "X-Model-Tier", "values": [tier.name]}}
        ]


def test_any_other_value_is_refused_with_the_tiers_names(plain: Recording) -> None:
    condition = json.loads(notes(plain)["conditions.unknown-tier"])
    assert condition[0]["httpHeaderConfig"] == {"httpHeaderName": "X-Model-Tier", "values": ["*"]}
    action = json.loads(notes(plain)["actions.unknown-tier"])
    assert action["type"] == "fixed-response"
    response = action["fixedResponseConfig"]
    assert (response["statusCode"], response["contentType"]) == ("400", "application/json")
    assert json.loads(response["messageBody"]) == {
        "error": {
            "message": "X-Model-Tier must be one of: fast, quality, small",
            "type": "invalid_request_error",
            "param": "X-Model-Tier",
            "code": "unknown_tier",
        }
    }


def test_without_the_header_the_default_tier_answers(plain: Recording) -> None:
    assert json.loads(notes(plain)["actions.default-tier"]) == {
        "type": "forward",
        "forwardConfig": {"targetGroups": [{"serviceName": "fast-router", "servicePort": 80}]},
    }
    assert "conditions.default-tier" not in notes(plain)


def test_without_the_header_the_model_router_finds_the_tier_where_there_is_one(plain: Recording) -> None:
    def factory(opts: pulumi.ResourceOptions) -> None:
        router = stand_in("model-router", opts)
        TierIngress("ingress", replace(arguments(opts), model_router=router), opts)

    by_model = component_under_test(factory)
    # The service and port of the Envoys; every other rule is as without them.
    assert json.loads(notes(by_model)["actions.default-tier"])["forwardConfig"] == {
        "targetGroups": [{"serviceName": "front-envoy", "servicePort": 80}]
    }
    assert paths(by_model) == paths(plain)
    assert {key for key, value in notes(by_model).items() if value != notes(plain)[key]} == {"actions.default-tier"}
    assert destroy_reachability(by_model, "ingress-ingress", "model-router")


def test_every_rule_keeps_the_limits_of_a_load_balancer() -> None:
    recording = ingress(host="llm.example.com")
    values = {
        key.partition(".")[2]: [value for one in json.loads(text) for value in one["httpHeaderConfig"]["values"]]
        for key, text in notes(recording).items()
        if key.startswith("conditions.")
    }
    for path in paths(recording):
        # The path is two values, /v1 and /v1/*, and the host is one.
        assert len(values.get(path["backend"]["service"]["name"], [])) + 2 + 1 <= 5


def test_a_list_of_tiers_that_is_too_long_for_a_fixed_answer_is_left_out() -> None:
    many = [replace(FAST, name=f"tier-{number:03d}-of-a-long-name") for number in range(60)]
    recording = ingress(many, default_tier=many[0].name)
    body = json.loads(notes(recording)["actions.unknown-tier"])["fixedResponseConfig"]["messageBody"]
    assert len(body.encode()) <= 1024
    assert json.loads(body)["error"]["message"] == "X-Model-Tier names no tier of this stack"


def test_a_web_acl_is_put_before_it_only_by_setting(plain: Recording) -> None:
    arn = "arn:aws:wafv2:us-east-2:111122223333:regional/webacl/llm/1234abcd"
    assert "wafv2-acl-arn" not in notes(plain)
    assert notes(ingress(web_acl_arn=arn))["wafv2-acl-arn"] == arn


def test_people_sign_in_by_the_settings_and_the_client_secret_stays_in_its_secret() -> None:
    found = notes(ingress(oidc=OIDC, certificate_arn="arn:aws:acm:us-east-2:111122223333:certificate/1"))
    signing_in = {key: value for key, value in found.items() if key.startswith("auth-")}
    assert json.loads(signing_in.pop("auth-idp-oidc")) == {
        "issuer": "https://idp.example.com",
        "authorizationEndpoint": "https://idp.example.com/authorize",
        "tokenEndpoint": "https://idp.example.com/token",
        "userInfoEndpoint": "https://idp.example.com/userinfo",
        "secretName": "sign-in",
    }
    assert signing_in == {
        "auth-type": "oidc",
        "auth-scope": "openid email",
        # Eight hours, in seconds.
        "auth-session-timeout": "28800",
        "auth-on-unauthenticated-request": "deny",
    }


def test_the_controller_may_read_the_secret_of_the_sign_in_and_no_other(plain: Recording) -> None:
    assert not kubernetes_objects(plain, "Role")
    recording = ingress(oidc=OIDC)
    (role,) = kubernetes_objects(recording, "Role")
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["sign-in"], "verbs": ["get", "list", "watch"]}
    ]
    (binding,) = kubernetes_objects(recording, "RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "llm"
    (subject,) = binding["subjects"]
    # As the controller's own release names its account.
    assert (subject["namespace"], subject["name"]) == ("kube-system", "aws-load-balancer-controller")
    for one in (role, binding):
        assert problems(one) == []


def test_no_request_is_cut_while_its_tier_wakes() -> None:
    slow = replace(QUALITY, timeouts=replace(QUALITY.timeouts, alb_idle_s=3000))
    attributes = notes(ingress([FAST, slow]))["load-balancer-attributes"].split(",")
    assert "idle_timeout.timeout_seconds=3000" in attributes, "the slowest tier's; the default of 60 s cuts all"


def test_targets_are_pods_and_their_health_is_envoys_own(plain: Recording) -> None:
    found = notes(plain)
    assert found["target-type"] == "ip"
    assert (found["healthcheck-port"], found["healthcheck-path"]) == ("19001", "/ready")
    assert found["target-group-attributes"] == "deregistration_delay.timeout_seconds=110"


def test_without_a_certificate_it_speaks_http(plain: Recording) -> None:
    found = notes(plain)
    assert found["listen-ports"] == '[{"HTTP":80}]'
    assert found["scheme"] == "internal"
    assert "certificate-arn" not in found


def test_with_a_certificate_it_speaks_only_tls() -> None:
    arn = "arn:aws:acm:us-east-2:111122223333:certificate/1"
    found = notes(ingress(certificate_arn=arn, scheme="internet-facing"))
    assert found["listen-ports"] == '[{"HTTPS":443}]'
    assert found["certificate-arn"] == arn
    assert found["scheme"] == "internet-facing"
    assert "TLS13" in found["ssl-policy"]


def test_a_host_name_is_a_rule_and_the_endpoint() -> None:
    arn = "arn:aws:acm:us-east-2:111122223333:certificate/1"
    recording = ingress(host="llm.example.com", certificate_arn=arn)
    assert manifest(recording)["spec"]["rules"][0]["host"] == "llm.example.com"
    assert recording.outputs["endpoint"] == "https://llm.example.com/v1"


def test_the_endpoint_is_the_load_balancers_address(plain: Recording) -> None:
    hostname = plain.outputs["hostname"]
    assert hostname.endswith(".elb.amazonaws.com")
    assert plain.outputs["endpoint"] == f"http://{hostname}/v1"


def test_the_endpoint_is_unknown_until_there_is_a_load_balancer() -> None:
    assert ingress(preview=True).outputs["endpoint"] is UNKNOWN


def test_on_destroy_the_load_balancer_goes_while_its_controller_is_there(plain: Recording) -> None:
    assert destroy_reachability(plain, "ingress-ingress", "controller")
    assert destroy_reachability(plain, "ingress-ingress", "tier")
    (found,) = plain.of_type(INGRESS)
    assert found.timeouts.delete == "30m"
    assert not found.deleted_with
    assert "pulumi.com/skipAwait" not in manifest(plain)["metadata"]["annotations"]
