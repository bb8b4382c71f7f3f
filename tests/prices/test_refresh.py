"""``prices refresh`` against stubbed AWS clients.

The answers have the documented shapes (botocore checks names and types of both sides; a Price List entry is as in
AWS's guide to ``GetProducts``). What the real services answer is not proved here: no live price was read.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import NoCredentialsError
from botocore.stub import ANY, Stubber

from planning.__main__ import main
from planning.facts.instances import INSTANCE_PRICES, SPOT_RANGES, offerings
from planning.facts.table import DATA
from prices import aws, command, files
from prices.aws import Clients, read_market
from prices.files import PRICE_FILES, read_tables, refreshed, write_tables
from prices.market import Market, PriceError

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
REGION = "us-east-2"


def product(attributes: Mapping[str, str], *usd: str) -> str:
    """An entry of ``PriceList``: JSON text with one on-demand term, one dimension a price."""
    dimensions = {
        f"SKU.JRTCKXETXF.{number}": {"unit": "Hrs", "beginRange": "0", "pricePerUnit": {"USD": price}}
        for number, price in enumerate(usd)
    }
    return json.dumps(
        {
            "product": {"productFamily": "x", "attributes": dict(attributes), "sku": "SKU"},
            "serviceCode": "AmazonEC2",
            "terms": {
                "OnDemand": {"SKU.JRTCKXETXF": {"priceDimensions": dimensions, "offerTermCode": "JRTCKXETXF"}},
                "Reserved": {"SKU.X": {"priceDimensions": {"r": {"pricePerUnit": {"USD": "0.1"}}}}},
            },
            "version": "20261120000000",
            "publicationDate": "2026-11-20T00:00:00Z",
        }
    )


def on_demand(name: str, *usd: str) -> str:
    return product({"instanceType": name, "regionCode": REGION, "operatingSystem": "Linux"}, *usd)


def spot(name: str, zone: str, usd: str, hour: int = 11) -> dict[str, Any]:
    return {
        "AvailabilityZone": zone,
        "InstanceType": name,
        "ProductDescription": "Linux/UNIX",
        "SpotPrice": usd,
        "Timestamp": datetime(2026, 11, 22, hour, tzinfo=UTC),
    }


def offered(name: str, zone: str) -> dict[str, str]:
    return {"InstanceType": name, "LocationType": "availability-zone", "Location": zone}


OFFERED = [
    offered("g6.xlarge", "us-east-2a"),
    offered("g6.xlarge", "us-east-2b"),
    offered("g6.xlarge", "us-east-2-lz-1a"),
    offered("m7i.large", "us-east-2a"),
]
PRICED = [on_demand("g6.xlarge", "0.8100000000"), on_demand("m7i.large", "0.1008000000"), on_demand("z9.huge", "9")]
SPOT = [
    spot("g6.xlarge", "us-east-2a", "0.300000"),
    spot("g6.xlarge", "us-east-2b", "0.800000"),
    spot("g6.xlarge", "us-east-2b", "0.100000", hour=3),
    spot("g6.xlarge", "us-east-2-lz-1a", "0.010000"),
]
NAT = [
    product({"usagetype": "USE2-NatGateway-Hours"}, "0.0450000000"),
    product({"usagetype": "USE2-NatGateway-Bytes"}, "0.0460000000"),
    product({"usagetype": "USE2-NatGateway-Prvd-Bytes"}, "0.0999"),
]
BALANCERS = [
    product({"usagetype": "USE2-LoadBalancerUsage"}, "0.0225"),
    # The hour of a trust store, which us-east-1 names without a region before it.
    product({"usagetype": "TS-LoadBalancerUsage"}, "0.0056"),
    product({"usagetype": "USE2-LCUUsage"}, "0.008"),
    product({"usagetype": "USE2-ReservedLCUUsage"}, "0.1"),
]
STORAGE = [
    product({"usagetype": "USE2-EBS:VolumeUsage.gp3"}, "0.08"),
    product({"usagetype": "EBS:VolumeUsage.gp3"}, "0.09"),
]
CONTROL_PLANE = [product({"usagetype": "USE2-AmazonEKS-Hours:perCluster"}, "0.10"), product({"usagetype": "x"}, "0.0")]


class Answers:
    """Two stubbed clients that answer a whole refresh; each part may be another one."""

    def __init__(self) -> None:
        config = Config(retries={"max_attempts": 0})
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        self._ec2 = boto3.client("ec2", region_name=REGION, config=config, **keys)
        self._pricing = boto3.client("pricing", region_name="us-east-1", config=config, **keys)
        self.ec2, self.pricing = Stubber(self._ec2), Stubber(self._pricing)

    def clients(self) -> Clients:
        self.ec2.activate()
        self.pricing.activate()
        return Clients(self._ec2, self._pricing)

    def offers(self, *pages: list[dict[str, str]]) -> None:
        for number, page in enumerate(pages):
            asked: dict[str, Any] = {
                "LocationType": "availability-zone",
                "Filters": [{"Name": "instance-type", "Values": ANY}],
            }
            self.ec2.add_response(
                "describe_instance_type_offerings",
                {"InstanceTypeOfferings": page, **({"NextToken": "more"} if number + 1 < len(pages) else {})},
                asked | ({"NextToken": "more"} if number else {}),
            )

    def spot(self, entries: list[dict[str, Any]]) -> None:
        self.ec2.add_response(
            "describe_spot_price_history",
            {"SpotPriceHistory": entries, "NextToken": ""},
            {"InstanceTypes": ["g6.xlarge", "m7i.large"], "ProductDescriptions": ["Linux/UNIX"], "StartTime": NOW},
        )

    def products(self, service: str, fields: Mapping[str, str], *pages: list[str]) -> None:
        for number, page in enumerate(pages):
            filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in fields.items()]
            asked: dict[str, Any] = {"ServiceCode": service, "Filters": filters}
            self.pricing.add_response(
                "get_products",
                {"PriceList": page, **({"NextToken": "more"} if number + 1 < len(pages) else {})},
                asked | ({"NextToken": "more"} if number else {}),
            )

    def instances(self, *pages: list[str]) -> None:
        fields = {
            "regionCode": REGION,
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
            "marketoption": "OnDemand",
            "productFamily": "Compute Instance",
        }
        self.products("AmazonEC2", fields, *pages)

    def rest(self) -> None:
        self.products("AmazonEC2", {"regionCode": REGION, "productFamily": "NAT Gateway"}, NAT)
        balancers = {"regionCode": REGION, "productFamily": "Load Balancer-Application", "locationType": "AWS Region"}
        self.products("AWSELB", balancers, BALANCERS)
        storage = {"regionCode": REGION, "productFamily": "Storage", "volumeApiName": "gp3"}
        self.products("AmazonEC2", storage, STORAGE)
        self.products("AmazonEKS", {"regionCode": REGION, "productFamily": "Compute"}, CONTROL_PLANE)

    def all(self) -> Clients:
        self.offers(OFFERED[:1], OFFERED[1:])
        self.spot(SPOT)
        self.instances(PRICED[:1], PRICED[1:])
        self.rest()
        return self.clients()


def market(of: Clients) -> Market:
    return read_market(of, REGION, ["g6.xlarge", "m7i.large"], NOW)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in PRICE_FILES:
        shutil.copy(DATA / name, tmp_path)
    return tmp_path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_market_is_read_over_all_pages_without_local_zones_at_the_newest_price_of_each_zone() -> None:
    answers = Answers()
    read = market(answers.all())
    answers.ec2.assert_no_pending_responses()
    answers.pricing.assert_no_pending_responses()
    assert read.zones == {"g6.xlarge": {"us-east-2a", "us-east-2b"}, "m7i.large": {"us-east-2a"}}
    assert read.on_demand == {"g6.xlarge": 0.81, "m7i.large": 0.1008}
    assert read.spot == {"g6.xlarge": {"us-east-2a": 0.3, "us-east-2b": 0.8}}


def test_fixed_prices_are_taken_only_where_the_price_list_has_exactly_one() -> None:
    assert market(Answers().all()).fixed == {
        "nat_gateway": 0.045,
        "nat_gateway_data": 0.046,
        "alb": 0.0225,
        "alb_lcu": 0.008,
        # gp3 has two prices in this answer, so it is left alone.
        "eks_control_plane_standard": 0.10,
    }


def test_a_refresh_replaces_the_rows_of_its_region_and_leaves_every_other_line_as_it_was(directory: Path) -> None:
    write_tables(refreshed(read_tables(directory), market(Answers().all())).tables, directory)
    for name in PRICE_FILES:
        before = [line for line in (DATA / name).read_text().splitlines() if not line.startswith(REGION)]
        after = [line for line in (directory / name).read_text().splitlines() if not line.startswith(REGION)]
        assert after == before
    mine = {row["instance_type"]: row for row in rows(directory / INSTANCE_PRICES) if row["region"] == REGION}
    assert set(mine) == {"g6.xlarge", "m7i.large"}
    assert mine["g6.xlarge"] == {
        "region": REGION,
        "instance_type": "g6.xlarge",
        "gpu": "L4",
        "gpu_count": "1",
        "gpu_memory_gib_each": "22.35",
        "vcpu": "4",
        "memory_gib": "16.0",
        "local_nvme_gb": "250",
        "on_demand_usd_per_hour": "0.81",
        "spot_usd_per_hour": "0.55",
        "source": "od:AWS Price List API; spot:EC2 spot price history, median of 2 zones",
        "as_of": "2026-11-22",
    }
    assert mine["m7i.large"]["spot_usd_per_hour"] == ""
    (spread,) = (row for row in rows(directory / SPOT_RANGES) if row["region"] == REGION)
    shown = ("az_count", "spot_min", "spot_median", "spot_max", "median_discount_pct", "az_at_on_demand_price")
    # 0.80 is within 3 % of 0.81: that zone has no capacity to spare.
    assert [spread[column] for column in shown] == ["2", "0.3", "0.55", "0.8", "32", "1"]
    fixed = {row["item"]: row for row in rows(directory / "fixed_prices.csv") if row["region"] == REGION}
    assert (fixed["nat_gateway_data"]["usd"], fixed["nat_gateway_data"]["as_of"]) == ("0.046", "2026-11-22")
    assert fixed["s3_standard_storage"]["as_of"] == "2026-07-01"


def test_the_planners_own_loader_reads_what_was_written(directory: Path) -> None:
    write_tables(refreshed(read_tables(directory), market(Answers().all())).tables, directory)
    g6, m7i = sorted(offerings(REGION, directory), key=lambda offering: offering.instance.name)
    assert (g6.on_demand_usd_per_hour, g6.spot_usd_per_hour, g6.zones, g6.zones_at_on_demand_price) == (
        0.81,
        0.55,
        2,
        1,
    )
    assert (g6.as_of, m7i.as_of) == (NOW.date(), NOW.date())
    assert not g6.derived
    assert len(offerings("us-east-1", directory)) == len(offerings("us-east-1"))


def test_a_second_refresh_on_the_same_prices_changes_nothing(directory: Path) -> None:
    write_tables(refreshed(read_tables(directory), market(Answers().all())).tables, directory)
    before = {name: (directory / name).read_bytes() for name in PRICE_FILES}
    again = refreshed(read_tables(directory), market(Answers().all()))
    write_tables(again.tables, directory)
    assert again.changes == ()
    assert {name: (directory / name).read_bytes() for name in PRICE_FILES} == before


def use(monkeypatch: pytest.MonkeyPatch, of: Clients) -> None:
    def made(region: str, **_: object) -> Clients:
        assert region == REGION
        return of

    monkeypatch.setattr(command, "clients", made)


@pytest.fixture
def refresh(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command on stubbed answers; what fails must leave the files as they were, and nothing beside them."""

    def two_types(_: object) -> tuple[str, ...]:
        return ("g6.xlarge", "m7i.large")

    monkeypatch.setattr(command, "now", lambda: NOW)
    monkeypatch.setattr(command, "known_types", two_types)

    def run(answers: Answers, *more: str) -> int:
        use(monkeypatch, answers.clients())
        return main(["prices", "refresh", "--region", REGION, "--output", str(directory), *more])

    return run


def unchanged(directory: Path) -> bool:
    names = sorted(path.name for path in directory.iterdir())
    same = all((directory / name).read_bytes() == (DATA / name).read_bytes() for name in PRICE_FILES)
    return same and names == sorted(PRICE_FILES)


def test_the_command_says_how_many_prices_it_read_and_which_moved_most(
    refresh: Any, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = Answers()
    answers.all()
    assert refresh(answers) == 0
    said = capsys.readouterr().out
    assert "us-east-2 on 2026-11-22: 2 on-demand prices, 2 spot prices of 1 types over zones, 5 fixed prices" in said
    assert "2 rows of instance_prices.csv, 1 rows of spot_ranges.csv, 5 rows of fixed_prices.csv" in said
    # 0.215 was the median in July.
    assert "g6.xlarge spot" in said
    assert "+156 %" in said
    assert "not offered any more, rows removed: g4dn.xlarge" in said
    assert not unchanged(directory)
    assert sorted(path.name for path in directory.iterdir()) == sorted(PRICE_FILES)


def test_the_command_gives_the_same_as_data(refresh: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answers = Answers()
    answers.all()
    assert refresh(answers, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["onDemandPrices"], data["spotPrices"], data["asOf"]) == (2, 2, "2026-11-22")
    assert {"price": "g6.xlarge on-demand", "before": 0.8048, "after": 0.81} in data["changes"]


def test_an_unpriced_type_stops_the_refresh(refresh: Any, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = Answers()
    answers.offers(OFFERED)
    answers.spot(SPOT)
    answers.instances(PRICED[:1])
    answers.rest()
    assert refresh(answers) == 2
    said = capsys.readouterr().err
    assert "no on-demand price in us-east-2 for m7i.large, which EC2 offers there; no file was changed" in said
    assert unchanged(directory)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([on_demand("g6.xlarge", "0.0000000000")], "AWS gives 0.0000000000 as on-demand price of g6.xlarge"),
        ([on_demand("g6.xlarge", "0.81", "0.90")], "not one on-demand price a type, but g6.xlarge: 0.81, 0.9"),
        ([on_demand("g6.xlarge", "0.81"), on_demand("g6.xlarge", "0.9")], "but g6.xlarge: 0.81, 0.9"),
        ([on_demand("g6.xlarge", "n/a")], "AWS gives 'n/a' as on-demand price of g6.xlarge, which is no number"),
        ([on_demand("g6.xlarge")], "not one on-demand price a type, but g6.xlarge"),
    ],
)
def test_no_zero_or_several_prices_of_a_type_stop_the_refresh(
    refresh: Any, directory: Path, capsys: pytest.CaptureFixture[str], listed: list[str], message: str
) -> None:
    answers = Answers()
    answers.offers(OFFERED)
    answers.spot(SPOT)
    answers.instances(listed)
    answers.rest()
    assert refresh(answers) == 2
    assert message in capsys.readouterr().err
    assert unchanged(directory)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("UnauthorizedOperation", "lack the permission ec2:DescribeSpotPriceHistory"),
        ("RequestLimitExceeded", "throttles ec2:DescribeSpotPriceHistory"),
        ("AuthFailure", "region us-east-2 is not enabled for the account"),
        ("ExpiredToken", "does not accept the credentials"),
        ("InternalError", "ec2:DescribeSpotPriceHistory failed (InternalError: why)"),
    ],
)
def test_what_aws_refuses_on_the_way_is_one_message_and_changes_nothing(
    refresh: Any, directory: Path, capsys: pytest.CaptureFixture[str], code: str, message: str
) -> None:
    answers = Answers()
    answers.offers(OFFERED)
    answers.ec2.add_client_error("describe_spot_price_history", code, "why")
    assert refresh(answers) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "no file was changed" in said
    assert unchanged(directory)


@pytest.mark.parametrize("missing", ["ec2:DescribeInstanceTypeOfferings", "pricing:GetProducts"])
def test_the_permission_that_is_missing_is_named(
    refresh: Any, directory: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    answers = Answers()
    if missing.startswith("ec2"):
        answers.ec2.add_client_error("describe_instance_type_offerings", "UnauthorizedOperation", "no")
    else:
        answers.offers(OFFERED)
        answers.spot(SPOT)
        answers.pricing.add_client_error("get_products", "AccessDeniedException", "no")
    assert refresh(answers) == 2
    assert f"lack the permission {missing}" in capsys.readouterr().err
    assert unchanged(directory)


def test_without_credentials_the_refresh_says_how_to_get_some(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Paginator:
        def paginate(self, **_: object) -> Any:
            raise NoCredentialsError

    class Client:
        def get_paginator(self, operation_name: str) -> Paginator:
            return Paginator()

    use(monkeypatch, Clients(Client(), Client()))
    assert main(["prices", "refresh", "--region", REGION, "--output", str(directory)]) == 2
    said = capsys.readouterr().err
    assert "no AWS credentials" in said
    assert "ec2:DescribeInstanceTypeOfferings" in said
    assert unchanged(directory)


def test_an_unknown_region_is_named_with_the_nearest(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "refresh", "--region", "us-east-9", "--output", str(directory)]) == 2
    assert "region 'us-east-9' is no AWS region; did you mean us-east" in capsys.readouterr().err
    assert unchanged(directory)


@pytest.mark.parametrize("failing", range(3))
def test_a_rename_that_fails_takes_the_earlier_ones_back(
    directory: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    new = refreshed(read_tables(directory), market(Answers().all())).tables
    calls = iter(range(3))
    real = files.os.replace

    def replace(source: Path, target: Path) -> None:
        if next(calls) == failing:
            raise OSError("disk full")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(PriceError, match="disk full"):
        write_tables(new, directory)
    assert unchanged(directory)


def test_files_that_the_loaders_refuse_are_never_put_in_place(directory: Path) -> None:
    new = dict(refreshed(read_tables(directory), market(Answers().all())).tables)
    table = new[INSTANCE_PRICES]
    row = {**table.cells()[0], "on_demand_usd_per_hour": "0"}
    new[INSTANCE_PRICES] = table.replaced([], [row])
    with pytest.raises(PriceError, match="a price is above 0"):
        write_tables(new, directory)
    assert unchanged(directory)


def test_a_new_region_is_added_at_the_end(directory: Path) -> None:
    read = market(Answers().all())
    elsewhere = Market("sa-east-1", read.day, read.zones, read.on_demand, read.spot, read.fixed)
    write_tables(refreshed(read_tables(directory), elsewhere).tables, directory)
    assert rows(directory / INSTANCE_PRICES)[-1]["region"] == "sa-east-1"
    assert {offering.instance.name for offering in offerings("sa-east-1", directory)} == {"g6.xlarge", "m7i.large"}


def test_the_planner_imports_neither_boto3_nor_the_room_of_live_prices() -> None:
    for path in (DATA.parents[1]).rglob("*.py"):
        text = path.read_text()
        assert "import boto3" not in text, path
        assert "from prices" not in text, path
        assert "import prices" not in text, path


def test_clients_try_again_and_ask_the_price_list_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made: tuple[Any, Any] = aws.clients(REGION, attempts=8, read_timeout_s=30)
    assert [client.meta.region_name for client in made] == [REGION, "us-east-1"]
    for client in made:
        # Throttled calls are tried again with growing waits.
        assert client.meta.config.retries["mode"] == "standard"
        assert client.meta.config.retries["total_max_attempts"] == 8
