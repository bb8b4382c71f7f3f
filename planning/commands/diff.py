"""``diff``: what changes between two stack files, or since a git revision, as Markdown for a pull request.

Both are planned for a month from today on and at the snapshot's prices, so that only the settings differ.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath

import yaml

from planning.cents import to_cents
from planning.commands.common import UsageError, as_json
from planning.diff import StackDiff, Step, TierChange, TierFacts, stack_diff
from planning.facts.traces import names_file
from planning.plan import Plan
from planning.stack import plan_config, stack_variants
from planning.stackfile import StackFileError, read_stack
from problems import ConfigurationError
from settings import StackSettings, TierSettings

#: Changes of the month below this are no change, USD.
_NO_CHANGE_USD = 0.005

#: Cells are padded to stand under each other up to this width.
_WIDEST = 60


def configure(command: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    command.add_argument("stackfile", type=Path, metavar="STACKFILE")
    command.add_argument("other", type=Path, nargs="?", metavar="STACKFILE_B", help="what STACKFILE changes into")
    command.add_argument(
        "--against", metavar="REVISION", help="what STACKFILE was at a git revision, with its Pulumi.yaml, is before"
    )


def run(arguments: argparse.Namespace) -> str:
    """Return what the command prints."""
    if (arguments.other is None) == (arguments.against is None):
        raise UsageError("name a second stack file, or with --against the git revision to compare with")
    if arguments.other is not None:
        return _compared(
            arguments.stackfile, arguments.other, (str(arguments.stackfile), str(arguments.other)), arguments
        )
    names = (f"{arguments.stackfile} at {arguments.against}", str(arguments.stackfile))
    with tempfile.TemporaryDirectory() as directory:
        before = _checked_out(arguments.stackfile, arguments.against, Path(directory))
        return _compared(before, arguments.stackfile, names, arguments).replace(f"{directory}/", "")


def _compared(old: Path, new: Path, names: tuple[str, str], arguments: argparse.Namespace) -> str:
    today = datetime.now(UTC).date()
    before, after = _planned(old, names[0], today), _planned(new, names[1], today)
    diff = stack_diff((_with_equal_files(before[0], after[0]), before[1]), after, stack_variants())
    return as_json(_data(diff, names)) if arguments.json else _markdown(diff, names)


def _with_equal_files(old: StackSettings, new: StackSettings) -> StackSettings:
    """The old settings, with files (``config.json``, traces) that did not change under the paths that they have now."""
    now = {tier.name: tier for tier in new.tiers}

    def content(path: str) -> bytes:
        return (Path(path) / "config.json" if Path(path).is_dir() else Path(path)).read_bytes()

    def seen(before: TierSettings, here: TierSettings | None) -> TierSettings:
        if here is None:
            return before
        if before.architecture and here.architecture and content(before.architecture) == content(here.architecture):
            before = before.model_copy(update={"architecture": here.architecture})
        profiles = before.traffic.profile, here.traffic.profile
        if all(names_file(profile) for profile in profiles) and content(profiles[0]) == content(profiles[1]):
            before = before.model_copy(update={"traffic": before.traffic.model_copy(update={"profile": profiles[1]})})
        return before

    return old.model_copy(update={"tiers": tuple(seen(tier, now.get(tier.name)) for tier in old.tiers)})


def _planned(path: Path, name: str, today: date) -> tuple[StackSettings, Plan]:
    """Read and plan a stack; over its budget it is planned all the same, with a warning."""
    try:
        stack = read_stack(path)
        return plan_config(stack.region, stack.values, stack.encrypted, today, hard_budget=False)
    except StackFileError as error:
        raise UsageError(str(error).replace(str(path), name)) from error
    except ConfigurationError as error:
        raise UsageError(f"{name}: {error}") from error


# Git ---------------------------------------------------------------------------------------------------------------


def _checked_out(stack_file: Path, revision: str, directory: Path) -> Path:
    """Write a stack file as it was at a revision, with what stands beside it: its project file, its tiers'
    ``config.json`` and traces. Raises ``UsageError``.
    """
    here = stack_file.resolve().parent
    if not here.is_dir():
        raise UsageError(f"{stack_file}: there is no directory {here}")
    prefix = PurePosixPath(_git(here, "rev-parse", "--show-prefix", problem=f"{stack_file} is in no git repository"))
    commit = _git(
        here,
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        f"{revision}^{{commit}}",
        problem=f"--against {revision}: there is no such revision here; in a shallow clone fetch it first",
    )
    inside = str(prefix / stack_file.name)
    problem = f"--against {revision}: {inside} did not exist then"
    text = _git(here, "show", f"{commit}:{inside}", problem=problem, strip=False)
    target = directory / inside
    _write(target, text)
    beside = {f"Pulumi.{suffix}" for suffix in ("yaml", "yml")}
    for named in beside | _named_files(text):
        parts = (prefix / named).parts
        if ".." in parts or named.startswith("/"):
            continue
        for name in (PurePosixPath(*parts), PurePosixPath(*parts, "config.json")):
            found = _git(here, "show", f"{commit}:{name}", strip=False)
            if found and not found.startswith(f"tree {commit}:"):
                _write(directory / name, found)
    return target


def _named_files(text: str) -> set[str]:
    """Paths that the tiers of a stack file name; none when it cannot be read, which the planner then says."""
    try:
        tiers = yaml.safe_load(text)["config"]["frugal-llm:tiers"]
        profiles = {str((tier.get("traffic") or {}).get("profile", "")) for tier in tiers}
        architectures = {str(tier["architecture"]) for tier in tiers if tier.get("architecture")}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return set()
    return architectures | {profile for profile in profiles if names_file(profile)}


def _git(directory: Path, *arguments: str, problem: str = "", strip: bool = True) -> str:
    """What git prints; where it fails, ``problem`` as ``UsageError``, or nothing when there is none."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=directory, capture_output=True, text=True, encoding="utf-8", check=False
        )
    except FileNotFoundError as error:
        raise UsageError("--against needs git, which is not installed") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{problem or arguments[-1]}: is no text") from error
    if done.returncode and problem:
        raise UsageError(problem)
    return "" if done.returncode else done.stdout.strip() if strip else done.stdout


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# Output ------------------------------------------------------------------------------------------------------------


def _data(diff: StackDiff, names: tuple[str, str]) -> dict[str, object]:
    """Money to the cent: every change is the difference of the months around it, so that they add up."""
    sides = [
        {"file": name, **{key: round(usd, 2) for key, usd in asdict(month).items()}, "savedPercent": round(saved, 2)}
        for name, month, saved in zip(names, (diff.before, diff.after), diff.saved_percent, strict=True)
    ]
    months = [to_cents(month) for month in (diff.before.expected, *(step.month_usd for step in diff.why))]
    why = [
        {**asdict(step), "usd": (after - before) / 100, "month_usd": after / 100}
        for step, (before, after) in zip(diff.why, itertools.pairwise(months), strict=True)
    ]
    return {
        "before": sides[0],
        "after": sides[1],
        "changeUsd": (to_cents(diff.after.expected) - to_cents(diff.before.expected)) / 100,
        "changePercent": round(100 * diff.usd / diff.before.expected, 2),
        "overBudget": diff.over_budget_usd > 0,
        "tiers": [{"tier": tier.name, "kind": tier.kind, **asdict(tier)} for tier in diff.tiers],
        "items": [
            {"name": item.name, "before_usd": round(item.before_usd, 2), "after_usd": round(item.after_usd, 2)}
            for item in diff.items
        ],
        "settings": [asdict(change) for change in diff.settings],
        "why": why,
        "newWarnings": list(diff.new_warnings),
        "goneWarnings": list(diff.gone_warnings),
    }


def _markdown(diff: StackDiff, names: tuple[str, str]) -> str:
    before, after = diff.before, diff.after
    headline = f"## Projected month: {_usd(before.expected)} → {_usd(after.expected)} ({_change(diff)})"
    lines = [headline + _over_budget(diff), ""]
    lines += [f"`{names[0]}` → `{names[1]}`, a month of 730 hours, compute and fixed costs.", ""]
    if not diff.settings:
        return "\n".join([*lines, "The settings are equal: nothing changes."]) + "\n"
    saved = " → ".join(f"{percent:.0f} %" for percent in diff.saved_percent)
    ranges = " → ".join(f"{_usd(one.low)} to {_usd(one.high)}" for one in (before, after))
    lines += [f"Range {ranges}; saved against the baseline {saved}.", ""]
    lines += _section("Tiers", _tier_table(diff.tiers))
    lines += _section("Why", _why_table(diff))
    items = [
        (item.name, _usd(item.before_usd), _usd(item.after_usd), _signed(item.after_usd - item.before_usd))
        for item in sorted(diff.items, key=lambda item: -abs(item.after_usd - item.before_usd))
    ]
    lines += _section("Bill", _table(("item", "before", "after", "change"), items, numbers=(1, 2, 3)) if items else [])
    rows = [(f"`{change.path}`", _value(change.before), _value(change.after)) for change in diff.settings]
    lines += _section("Settings", [*_table(("setting", "before", "after"), rows), *_without_effect(diff)])
    lines += _section("New warnings", [line for warning in diff.new_warnings for line in _listed(warning)])
    lines += _section("Warnings that are gone", [line for warning in diff.gone_warnings for line in _listed(warning)])
    return "\n".join(lines).rstrip() + "\n"


def _over_budget(diff: StackDiff) -> str:
    if not diff.over_budget_usd:
        return ""
    fails = ", the preview fails" if diff.hard_budget else ""
    return f": over budget by {_usd(diff.over_budget_usd)}{fails}"


def _listed(warning: str) -> list[str]:
    """A warning as an entry of a list, with its further lines, indented by four, as entries below it."""
    first, *rest = warning.split("\n")
    below = ((len(line) - len(line.lstrip()), line.lstrip().removeprefix("- ")) for line in rest)
    return [f"- {first}", *(f"{' ' * (indent // 2)}- {text}" for indent, text in below)]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"### {title}", "", *lines, ""] if lines else []


def _tier_table(tiers: Sequence[TierChange]) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for tier in tiers:
        before, after = (_cells(facts) if facts else () for facts in (tier.before, tier.after))
        pairs = zip(before or after, after or before, strict=True)
        rows.append((tier.name, tier.kind, *(old if old == new else f"{old} → {new}" for old, new in pairs)))
    latencies, money = ("TTFT ms", "TPOT ms", "capacity req/s"), ("$/month", "$/M tokens")
    return _table(("tier", "", "checkpoint", "on", "replicas", *latencies, *money), rows)


def _cells(facts: TierFacts) -> tuple[str, ...]:
    return (
        facts.checkpoint,
        facts.hardware,
        facts.replicas,
        f"{facts.ttft_ms:,.0f}",
        f"{facts.tpot_ms:,.0f}",
        f"{facts.capacity_requests_per_second:,.3g}",
        _usd(facts.usd),
        f"${facts.usd_per_million_tokens:,.2f}" if facts.usd_per_million_tokens else "–",
    )


def _why_table(diff: StackDiff) -> list[str]:
    rows = [(_names(step), _signed(step.usd), _usd(step.month_usd)) for step in diff.why if _moves(step)]
    lines = _table(("changed, one after the other", "adds", "month"), rows, numbers=(1, 2)) if rows else []
    if rows and len(diff.why) > 1:
        lines += ["", "Each upon those above it: in another order the same settings would move other amounts."]
    return lines


def _moves(step: Step) -> bool:
    return abs(step.usd) >= _NO_CHANGE_USD


def _without_effect(diff: StackDiff) -> list[str]:
    still = [_names(step) for step in diff.why if not _moves(step)]
    return ["", f"Without effect on the month: {', '.join(still)}."] if still else []


def _names(step: Step) -> str:
    names = ", ".join(f"`{name}`" for name in step.names)
    return names if len(step.names) == len(step.paths) else f"{names} ({len(step.paths)} settings)"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> list[str]:
    """A Markdown table whose columns stand under each other in a terminal too."""
    cells = [[text.replace("|", "\\|").replace("\n", " ") for text in row] for row in (heads, *rows)]
    widths = [min(_WIDEST, max(3, *(len(row[column]) for row in cells))) for column in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if column in numbers else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (width - 1) + (":" if column in numbers else "-") for column, width in enumerate(widths)]
    return [line(cells[0]), line(rule), *(line(row) for row in cells[1:])]


def _change(diff: StackDiff) -> str:
    if abs(diff.usd) < _NO_CHANGE_USD:
        return "no change"
    return f"{_signed(diff.usd)}, {100 * diff.usd / diff.before.expected:+.1f} %".replace("-", "−")


def _usd(usd: float) -> str:
    return f"${usd:,.0f}" if abs(usd) >= 100 else f"${usd:,.2f}"


def _signed(usd: float) -> str:
    return ("−" if usd < 0 else "+") + _usd(abs(usd))


def _value(value: object) -> str:
    if value is None:
        return "–"
    text = yaml.safe_dump(_whole(value), default_flow_style=True, width=10_000, sort_keys=False).strip()
    return f"`{text.removesuffix('...').strip()}`"


def _whole(value: object) -> object:
    """Numbers as people write them: 36000, not 36000.0."""
    if isinstance(value, dict):
        return {key: _whole(inner) for key, inner in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
