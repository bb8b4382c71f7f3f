"""The emulators start, answer and stop. That AWS answers as they do is not proved."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.emulators import Account, Emulator, emulated_aws, ministack

pytestmark = pytest.mark.slow


def client(aws: Emulator, service: str) -> Any:
    session: Any = boto3.session.Session("emulated", "emulated", region_name="us-east-1")
    return session.client(service, endpoint_url=aws.endpoint)


def test_the_stub_answers_what_moto_lacks_and_hands_on_the_rest() -> None:
    with emulated_aws(Account(quotas={"L-DB2E81BA": 8}, denied=frozenset({"ec2:DescribeVpcs"}))) as aws:
        quota = client(aws, "service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode="L-DB2E81BA")
        assert quota["Quota"]["Value"] == 8
        offered = client(aws, "ec2").describe_instance_type_offerings(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["g6e.xlarge"]}]
        )
        assert {one["Location"] for one in offered["InstanceTypeOfferings"]} >= {"us-east-1a", "us-east-1b"}
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            client(aws, "ec2").describe_vpcs()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", urlsplit(aws.endpoint).port or 0), timeout=1)


def test_ministack_creates_what_moto_lacks_of_eks() -> None:
    with ministack() as aws:
        assert client(aws, "eks").list_clusters()["clusters"] == []
