"""AWS as Karpenter sees it: moto, and in front of it a proxy that answers what moto lacks.

The proxy answers the Price List and the spot price history at the prices of the plan's own facts, and the images that
an alias stands for; reservations and placement groups there are none. Everything else is moto's: subnets, security
groups, roles, the cluster, the queue, instance types and the zones that offer them. It cannot say that EC2 has no
capacity: an offering without a price is what stands for it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs
from xml.etree import ElementTree

import boto3
import requests

from planning.facts.instances import Offering, offerings
from planning.spot import spot_usd_per_hour

_EC2: Final = "http://ec2.amazonaws.com/doc/2016-11-15/"
_NOT_OURS: Final = "m1.small"
"""A type that no pool names: Karpenter refuses to start on a price list or spot history that is empty."""
_METAL: Final = "m5.metal"
"""The same for the price list of bare metal."""
_NEVER_USD: Final = 1000.0

_LONGEST_ANSWER_S: Final = 40.0
"""Karpenter waits 20 s at the queue for a message."""


class Market:
    """What is offered, USD per hour. Tests take offers away or change them; who asked before keeps what it was told."""

    def __init__(self, region: str, zones: Sequence[str]) -> None:
        offered = offerings(region)
        self.on_demand: dict[str, float] = {one.instance.name: one.on_demand_usd_per_hour for one in offered}
        self.spot: dict[tuple[str, str], float] = {
            (one.instance.name, zone): price for one in offered for zone, price in _zone_prices(one, zones).items()
        }
        """By type and zone."""

    def usd_per_hour(self, instance_type: str, capacity_type: str, zone: str) -> float | None:
        """The price of an offering; None when it is not offered."""
        if capacity_type == "spot":
            return self.spot.get((instance_type, zone))
        return self.on_demand.get(instance_type)


def _zone_prices(offering: Offering, zones: Sequence[str]) -> dict[str, float]:
    """The facts know the cheapest, the median and the dearest zone, not which they are: zones take them in turn."""
    median = spot_usd_per_hour(offering)
    if median is None:
        return {}
    lowest, highest = offering.spot_min_usd_per_hour or median, offering.spot_max_usd_per_hour or median
    turn = (lowest, median, highest)
    return {zone: turn[position % len(turn)] for position, zone in enumerate(zones)}


@dataclass(frozen=True)
class Aws:
    """A region with one cluster's surroundings in it."""

    url: str
    """Endpoint of every service."""
    region: str
    market: Market
    queue_url: str

    def client(self, service: str) -> Any:
        """Give boto3's client of a service."""
        return _client(self.url, self.region, service)

    def warn_of_interruption(self, instance_id: str) -> None:
        """Put EC2's two-minute warning for a spot instance into the cluster's queue, as EventBridge would."""
        detail = {"instance-id": instance_id, "instance-action": "terminate"}
        warning = {
            "version": "0",
            "id": f"warning-{instance_id}",
            "detail-type": "EC2 Spot Instance Interruption Warning",
            "source": "aws.ec2",
            "account": "123456789012",
            "time": "2026-11-26T12:00:00Z",
            "region": self.region,
            "resources": [f"arn:aws:ec2:{self.region}:123456789012:instance/{instance_id}"],
            "detail": detail,
        }
        self.client("sqs").send_message(QueueUrl=self.queue_url, MessageBody=json.dumps(warning))


@contextmanager
def aws(moto_url: str, *, region: str, zones: Sequence[str], cluster_name: str, node_role: str) -> Generator[Aws]:
    """Stand in front of moto with the market of a region, and make there what a cluster's Karpenter looks for."""
    market = Market(region, zones)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(moto_url, market))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        queue = _make_surroundings(url, region, zones, cluster_name, node_role)
        yield Aws(url, region, market, queue)
    finally:
        server.shutdown()
        server.server_close()


def _client(url: str, region: str, service: Any) -> Any:
    session = boto3.Session(aws_access_key_id="none", aws_secret_access_key="none", region_name=region)
    return session.client(service, endpoint_url=url)


def _make_surroundings(url: str, region: str, zones: Sequence[str], cluster_name: str, node_role: str) -> str:
    """Make network, role, cluster and queue; give the queue's address."""
    tags = [{"Key": "karpenter.sh/discovery", "Value": cluster_name}]
    ec2 = _client(url, region, "ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(
            VpcId=vpc,
            CidrBlock=f"10.0.{64 * position}.0/18",
            AvailabilityZone=zone,
            TagSpecifications=[{"ResourceType": "subnet", "Tags": tags}],
        )["Subnet"]["SubnetId"]
        for position, zone in enumerate(zones)
    ]
    group = ec2.create_security_group(
        GroupName=cluster_name,
        Description="nodes",
        VpcId=vpc,
        TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
    )["GroupId"]
    _client(url, region, "iam").create_role(RoleName=node_role, AssumeRolePolicyDocument="{}")
    _client(url, region, "eks").create_cluster(
        name=cluster_name,
        roleArn="arn:aws:iam::123456789012:role/cluster",
        resourcesVpcConfig={"subnetIds": subnets, "securityGroupIds": [group]},
        kubernetesNetworkConfig={"serviceIpv4Cidr": "172.20.0.0/16"},
    )
    return _client(url, region, "sqs").create_queue(QueueName=cluster_name)["QueueUrl"]


def _handler(moto_url: str, market: Market) -> type[BaseHTTPRequestHandler]:
    """A request handler that answers at the prices of ``market`` and hands the rest on to ``moto_url``."""
    images: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = aws_answer(self.headers.get("X-Amz-Target", ""), body, market, images)
            try:
                if answer is None:
                    self._hand_on(body)
                else:
                    kind, content = answer
                    self._send(200, {"Content-Type": kind}, content)
            except OSError:  # moto was stopped, or whoever asked went away
                self.close_connection = True

        do_GET = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_POST  # noqa: N815 (names of http.server)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet: the tests' output is not the place for thousands of requests."""

        def _hand_on(self, body: bytes) -> None:
            headers = dict(self.headers)
            answer = requests.request(
                self.command, moto_url + self.path, data=body, headers=headers, timeout=_LONGEST_ANSWER_S
            )
            self._send(answer.status_code, answer.headers, answer.content)

        def _send(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "transfer-encoding", "connection", "content-encoding"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


def aws_answer(target: str, body: bytes, market: Market, images: dict[str, str]) -> tuple[str, bytes] | None:
    """What moto lacks, as content type and content; None for what it has. ``images`` remembers architectures."""
    match target:
        case "AWSPriceListService.GetProducts":
            return "application/x-amz-json-1.1", json.dumps(_price_list(json.loads(body), market)).encode()
        case "AmazonSSM.GetParameter":
            name = json.loads(body)["Name"]
            if "/optimized-ami/" not in name and "/bottlerocket/" not in name:
                return None
            image = f"ami-{hashlib.sha256(name.encode()).hexdigest()[:17]}"
            images[image] = "arm64" if "arm64" in name else "x86_64"
            value = {"Name": name, "Type": "String", "Value": image, "Version": 1}
            return "application/x-amz-json-1.1", json.dumps({"Parameter": value}).encode()
    fields = parse_qs(body.decode(errors="replace")) if not target else {}
    action = fields.get("Action", [""])[0]
    match action:
        case "DescribeSpotPriceHistory":
            rows = [
                {"instanceType": name, "availabilityZone": zone, "spotPrice": f"{price:.6f}", **_SPOT_ROW}
                for (name, zone), price in {**market.spot, (_NOT_OURS, "none"): _NEVER_USD}.items()
            ]
            return "text/xml", _ec2_answer(action, "spotPriceHistorySet", rows)
        case "DescribeImages":
            asked = {value for values in fields.values() for value in values} & images.keys()
            rows = [{"imageId": image, "architecture": images[image], **_IMAGE_ROW} for image in sorted(asked)]
            return ("text/xml", _ec2_answer(action, "imagesSet", rows)) if rows else None
        case "DescribeCapacityReservations":
            return "text/xml", _ec2_answer(action, "capacityReservationSet", [])
        case "DescribePlacementGroups":
            return "text/xml", _ec2_answer(action, "placementGroupSet", [])
    return None


_SPOT_ROW: Final = {"productDescription": "Linux/UNIX", "timestamp": "2026-07-09T00:00:00.000Z"}
_IMAGE_ROW: Final = {"name": "eks-node", "imageState": "available", "creationDate": "2026-09-03T00:00:00.000Z"}


def _price_list(asked: Mapping[str, Any], market: Market) -> dict[str, Any]:
    metal = any("bare metal" in one["Value"] for one in asked["Filters"])
    prices = {_METAL: _NEVER_USD} if metal else market.on_demand
    return {"FormatVersion": "aws_v1", "PriceList": [_product(name, price) for name, price in prices.items()]}


def _product(instance_type: str, usd_per_hour: float) -> str:
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": f"{usd_per_hour:.10f}"}}
    terms = {"OnDemand": {"term": {"priceDimensions": {"rate": dimension}}}}
    return json.dumps({"product": {"attributes": {"instanceType": instance_type}}, "terms": terms})


def _ec2_answer(action: str, collection: str, rows: Sequence[Mapping[str, str]]) -> bytes:
    answer = ElementTree.Element(f"{action}Response", xmlns=_EC2)
    ElementTree.SubElement(answer, "requestId").text = "stub"
    items = ElementTree.SubElement(answer, collection)
    for row in rows:
        item = ElementTree.SubElement(items, "item")
        for name, value in row.items():
            ElementTree.SubElement(item, name).text = value
    return ElementTree.tostring(answer, encoding="utf-8", xml_declaration=True)
