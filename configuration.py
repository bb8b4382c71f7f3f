"""The stack's configuration as Pulumi's engine hands it over, planned and reported before the first resource."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, get_config_secret_keys_env, is_config_secret

from planning.facts.table import InvalidTable
from planning.plan import Plan
from planning.report.terminal import report
from planning.stack import plan_config
from prices.live import live_prices
from problems import NAMESPACE, ConfigurationError
from reading import own_values
from settings import SECRET_KEYS, StackSettings


@dataclass(frozen=True, slots=True)
class Secrets:
    """Secret values, never in clear; None when not given."""

    hugging_face_token: pulumi.Output[str] | None
    api_key: pulumi.Output[str] | None


class PlannedStack(NamedTuple):
    """What the rest of the program is built from."""

    settings: StackSettings
    plan: Plan
    secrets: Secrets


def planned_stack() -> PlannedStack:
    """Read the configuration, plan the stack and log the report.

    Raises ``pulumi.RunError`` with every problem in one message, which ends the program before the first resource.
    """
    encrypted = frozenset(key for key in SECRET_KEYS if _is_secret(f"{NAMESPACE}:{key}"))
    try:
        now, region, values = datetime.now(UTC), pulumi.Config("aws").get("region"), _values()
        live = live_prices(region, values, now)
        settings, plan = plan_config(region, values, encrypted, now.date(), live)
    except (ConfigurationError, InvalidTable) as error:
        raise pulumi.RunError(str(error)) from None
    pulumi.log.info(report(plan, pulumi.get_stack(), color=False))
    secrets = Secrets(_secret("huggingFaceToken"), _secret("apiKey"))
    if settings.network.ingress_scheme == "internet-facing" and secrets.api_key is None:
        pulumi.log.warn(f"the load balancer faces the internet and {NAMESPACE}:apiKey is not set: anybody may use it")
    return PlannedStack(settings, plan, secrets)


def _values() -> dict[str, object]:
    """Every key of this program's namespace, known or not: a misspelt key must not pass in silence.

    ``pulumi.Config`` gives only what it is asked for, so this reads the engine's whole map.
    """
    return own_values({**get_config_env(), **CONFIG.get()})


def _is_secret(key: str) -> bool:
    return is_config_secret(key) or key in get_config_secret_keys_env()


def _secret(key: str) -> pulumi.Output[str] | None:
    config = pulumi.Config(NAMESPACE)
    return config.get_secret(key) if config.get(key) else None
