"""The calls to AWS, each by the IAM action that allows it: what is called and what must be allowed cannot differ."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Protocol

from preflight.rows import NotAnswered
from prices.explain import explained

#: Services whose name in IAM is not boto3's.
_CLIENT_OF = {
    "elasticloadbalancing": "elbv2",
    "servicequotas": "service-quotas",
    "tag": "resourcegroupstaggingapi",
}
#: Services with one endpoint for all regions.
_GLOBAL = {"ce": "us-east-1", "iam": "us-east-1"}

_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, _ATTEMPTS = 3, 10, 3


class Aws(Protocol):
    """An account in a region."""

    def pages(self, action: str, **arguments: object) -> Iterator[Mapping[str, Any]]:
        """Give every page of the answer of an operation, named by its IAM action: ``ec2:DescribeVpcs``.

        Raises ``NotAnswered``.
        """
        ...


class Account:
    """The account of the caller's credentials, as boto3 finds them: ``AWS_PROFILE``, ``AWS_ENDPOINT_URL`` and so on."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._making = threading.Lock()
        self._client = cache(self._new_client)

    def pages(self, action: str, **arguments: object) -> Iterator[Mapping[str, Any]]:
        """Give every page of an answer. Raises ``NotAnswered``."""
        from botocore import xform_name  # noqa: PLC0415 (slow to import, and a wrong stack file needs none of it)

        service, _, operation = action.partition(":")
        with explained(self._region, action, NotAnswered):
            with self._making:  # boto3's sessions are not safe among threads, its clients are
                client = self._client(_CLIENT_OF.get(service, service))
            method = xform_name(operation)
            if client.can_paginate(method):
                yield from client.get_paginator(method).paginate(**arguments)
            else:
                yield getattr(client, method)(**arguments)

    def _new_client(self, service: str) -> Any:
        import boto3  # noqa: PLC0415 (as botocore)
        from botocore.config import Config  # noqa: PLC0415

        session: Any = boto3.session.Session()
        config = Config(
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
        )
        return session.client(service, region_name=_GLOBAL.get(service, self._region), config=config)


def one(aws: Aws, action: str, **arguments: object) -> Mapping[str, Any]:
    """Give the answer of an operation that has one page. Raises ``NotAnswered``."""
    return next(iter(aws.pages(action, **arguments)))


def listed(aws: Aws, action: str, key: str, **arguments: object) -> list[Mapping[str, Any]]:
    """Give the entries under ``key`` of all pages. Raises ``NotAnswered``."""
    return [entry for page in aws.pages(action, **arguments) for entry in page.get(key, ())]


def tags_of(entry: Mapping[str, Any]) -> dict[str, str]:
    """Give the tags of an entry of EC2, Elastic Load Balancing or the tagging API."""
    return {tag["Key"]: tag["Value"] for tag in entry.get("Tags") or ()}
