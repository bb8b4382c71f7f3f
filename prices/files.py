"""A market in the price files: its region's rows replaced, every other line as it was, all files or none."""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planning.facts.fixed_prices import REFERENCE_REGION, read_fixed_prices
from planning.facts.instances import INSTANCE_PRICES, SPOT_RANGES, offerings, regions
from planning.facts.table import DATA, InvalidTable, read_header
from prices.market import SOURCE, Market, PriceError, require_complete, spot_range

FIXED_PRICES = "fixed_prices.csv"
PRICE_FILES = (INSTANCE_PRICES, SPOT_RANGES, FIXED_PRICES)

_HARDWARE = ("instance_type", "gpu", "gpu_count", "gpu_memory_gib_each", "vcpu", "memory_gib", "local_nvme_gb")


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file by lines, so that what is not replaced stays as it is to the byte."""

    columns: tuple[str, ...]
    lines: tuple[tuple[str, dict[str, str]], ...]
    """Text without its end, and its cells."""

    @classmethod
    def parse(cls, text: str) -> Table:
        """Read a file whose cells have no line breaks."""
        header, *lines = text.splitlines()
        columns = tuple(next(csv.reader([header])))
        return cls(columns, tuple((line, dict(zip(columns, next(csv.reader([line])), strict=False))) for line in lines))

    def cells(self) -> list[dict[str, str]]:
        """The cells of every line."""
        return [cells for _, cells in self.lines]

    def text(self) -> str:
        """The whole file."""
        return "\n".join([_csv_line(self.columns), *(line for line, _ in self.lines)]) + "\n"

    def replaced(self, old: Sequence[Mapping[str, str]], new: Sequence[Mapping[str, str]]) -> Table:
        """The table with ``new`` rows where the first of the ``old`` ones stood, and at the end when there is none."""
        gone = [id(cells) for cells in old]
        kept = [(line, cells) for line, cells in self.lines if id(cells) not in gone]
        first = next((place for place, (_, cells) in enumerate(self.lines) if id(cells) in gone), len(kept))
        added = [(_csv_line([row[column] for column in self.columns]), dict(row)) for row in new]
        return Table(self.columns, (*kept[:first], *added, *kept[first:]))


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


@dataclass(frozen=True, slots=True)
class Change:
    """A price that is another one now, USD."""

    name: str
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after / self.before


@dataclass(frozen=True, slots=True)
class Refresh:
    """New price files, and what is new in them."""

    tables: Mapping[str, Table]
    rows: Mapping[str, int]
    """Rows written, by file."""
    changes: tuple[Change, ...]
    """Largest first."""
    came: tuple[str, ...]
    gone: tuple[str, ...]
    """Instance types that are offered now and were not, and the other way round."""


def known_types(tables: Mapping[str, Table]) -> tuple[str, ...]:
    """Every instance type that the files have in some region."""
    return tuple(dict.fromkeys(cells["instance_type"] for cells in tables[INSTANCE_PRICES].cells()))


def read_tables(directory: Path) -> dict[str, Table]:
    """The price files of a directory; those that it does not have, as they are shipped.

    Raises ``PriceError`` for a file with other columns than the shipped one, and ``OSError``.
    """
    tables: dict[str, Table] = {}
    for name in PRICE_FILES:
        path = directory / name if (directory / name).exists() else DATA / name
        tables[name] = Table.parse(path.read_text(encoding="utf-8"))
        if tables[name].columns != read_header(DATA / name):
            raise PriceError(f"{path}:1: should have the columns {','.join(read_header(DATA / name))}")
    return tables


def refreshed(tables: Mapping[str, Table], market: Market) -> Refresh:
    """The files with the market's prices for its region.

    Raises ``PriceError`` for a type that the region offers, that has an on-demand price elsewhere and none here.
    """
    instances = tables[INSTANCE_PRICES]
    old = [cells for cells in instances.cells() if cells["region"] == market.region]
    hardware = {cells["instance_type"]: cells for cells in instances.cells()}
    # p5e is sold without an on-demand price everywhere.
    sold = {cells["instance_type"] for cells in instances.cells() if cells["on_demand_usd_per_hour"]}
    require_complete(market, sold)
    offered = [name for name in hardware if name in market.zones]
    new = [_instance_row(hardware[name], market) for name in offered]
    ranges = [_range_row(name, market) for name in offered if name in market.spot]
    fixed, fixed_old = tables[FIXED_PRICES], _fixed_of(tables, market.region)
    units = {cells["item"]: cells["unit"] for cells in fixed.cells() if cells["region"] == REFERENCE_REGION}
    fixed_new = [
        {
            "region": market.region,
            "item": item,
            "unit": units[item],
            "usd": f"{usd:.10g}",
            "source": "AWS Price List API",
            "as_of": market.day.isoformat(),
        }
        for item, usd in market.fixed.items()
    ]
    before = {cells["instance_type"]: cells for cells in old}
    changes = [
        *_changes(before, new, "on_demand_usd_per_hour", "on-demand"),
        *_changes(before, new, "spot_usd_per_hour", "spot"),
        *_changes(fixed_old, [{**row, "instance_type": row["item"]} for row in fixed_new], "usd", ""),
    ]
    range_table = tables[SPOT_RANGES]
    range_old = [cells for cells in range_table.cells() if cells["region"] == market.region]
    replaced_items = [cells for item, cells in fixed_old.items() if item in market.fixed]
    return Refresh(
        tables={
            INSTANCE_PRICES: instances.replaced(old, new),
            SPOT_RANGES: range_table.replaced(range_old, ranges),
            FIXED_PRICES: fixed.replaced(replaced_items, fixed_new),
        },
        rows={INSTANCE_PRICES: len(new), SPOT_RANGES: len(ranges), FIXED_PRICES: len(fixed_new)},
        changes=tuple(sorted(changes, key=lambda change: -abs(change.ratio - 1))),
        came=tuple(name for name in offered if name not in before),
        gone=tuple(name for name in before if name not in market.zones),
    )


def _fixed_of(tables: Mapping[str, Table], region: str) -> dict[str, dict[str, str]]:
    return {cells["item"]: cells for cells in tables[FIXED_PRICES].cells() if cells["region"] == region}


def _instance_row(hardware: Mapping[str, str], market: Market) -> dict[str, str]:
    name = hardware["instance_type"]
    on_demand, spot = market.on_demand.get(name), spot_range(market, name)
    return {
        "region": market.region,
        **{column: hardware[column] for column in _HARDWARE},
        "on_demand_usd_per_hour": "" if on_demand is None else f"{on_demand:.10g}",
        "spot_usd_per_hour": f"{spot.median:.6g}" if spot else "",
        "source": SOURCE + (f", median of {spot.zones} zones" if spot else ""),
        "as_of": market.day.isoformat(),
    }


def _range_row(name: str, market: Market) -> dict[str, str]:
    on_demand, spot = market.on_demand.get(name), spot_range(market, name)
    assert spot is not None  # of a type with spot prices
    return {
        "region": market.region,
        "instance_type": name,
        "on_demand_usd_per_hour": "" if on_demand is None else f"{on_demand:.10g}",
        "az_count": str(spot.zones),
        "spot_min": f"{spot.lowest:.6g}",
        "spot_median": f"{spot.median:.6g}",
        "spot_max": f"{spot.highest:.6g}",
        "median_discount_pct": "" if on_demand is None else f"{100 * (1 - spot.median / on_demand):.0f}",
        "az_at_on_demand_price": "" if spot.zones_at_on_demand_price is None else str(spot.zones_at_on_demand_price),
        "source": "EC2 spot price history",
        "as_of": market.day.isoformat(),
    }


def _changes(
    before: Mapping[str, Mapping[str, str]], new: Sequence[Mapping[str, str]], column: str, what: str
) -> list[Change]:
    changes: list[Change] = []
    for row in new:
        name = row["instance_type"]
        old, now = before.get(name, {}).get(column, ""), row[column]
        if old and now and float(old) > 0 and float(old) != float(now):
            changes.append(Change(f"{name} {what}".strip(), float(old), float(now)))
    return changes


def write_tables(tables: Mapping[str, Table], directory: Path) -> None:
    """Write the files of a directory: all or none, and only what the planner's own loaders read.

    They are written beside, read back, and then renamed; a rename that fails takes the earlier ones back. Raises
    ``PriceError``.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".prices-", dir=directory))
    except OSError as error:
        raise PriceError(f"--output {directory}: cannot be written ({error})") from None
    try:
        for name, table in tables.items():
            (beside / name).write_text(table.text(), encoding="utf-8")
        _validate(beside)
        _rename(beside, directory, tuple(tables))
    except OSError as error:
        raise PriceError(f"--output {directory}: cannot be written ({error})") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _validate(directory: Path) -> None:
    try:
        for region in regions(directory):
            offerings(region, directory)
        read_fixed_prices(directory / FIXED_PRICES)
    except InvalidTable as error:
        raise PriceError(f"the new price files would not be valid:\n{error}") from None


def _rename(beside: Path, directory: Path, names: Sequence[str]) -> None:
    before = {name: (directory / name).read_bytes() if (directory / name).exists() else None for name in names}
    done: list[str] = []
    try:
        for name in names:
            os.replace(beside / name, directory / name)  # noqa: PTH105 (the tests make this one call fail)
            done.append(name)
    except OSError:
        for name in done:
            content = before[name]
            if content is None:
                (directory / name).unlink()
            else:
                (directory / name).write_bytes(content)
        raise
