"""What a client sees of a deployed stack: ``python -m smoke URL``; the key, where there is one, from ``API_KEY``.

It wakes every tier once, which costs a start of each that sleeps. Exit codes: 0, all as promised; 1, something is not;
2, the arguments are wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from urllib.parse import urlsplit

from planning.commands.common import as_json
from planning.report.terminal import plain_table
from settings import Routing
from smoke.checks import Seen, smoke
from smoke.endpoint import Endpoint

#: The longest that a load balancer may hold: whatever the tiers' time-outs are, the stack answers first.
_TIMEOUT_S = 4000.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, print what was seen, and give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m smoke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", type=_base_url, metavar="URL", help="the stack's output `endpoint`")
    parser.add_argument("--tier", action="append", default=[], help="a tier's name, repeatable; default: all it names")
    parser.add_argument("--header", default=Routing().header, help="the routing header (%(default)s)")
    parser.add_argument("--timeout-s", type=float, default=_TIMEOUT_S, help="longest silence (%(default)s)")
    parser.add_argument("--json", action="store_true", help="data instead of a table")
    options = parser.parse_args(arguments)
    endpoint = Endpoint(options.url, options.header, options.timeout_s, os.environ.get("API_KEY", "").strip() or None)
    seen = smoke(endpoint, options.tier)
    print(as_json([asdict(one) for one in seen]) if options.json else _table(options.url, seen), end="")
    return 0 if all(one.ok for one in seen) else 1


def _base_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise argparse.ArgumentTypeError(f"{text} is no http or https URL")
    return text.rstrip("/").removesuffix("/v1") + "/v1"


def _table(url: str, seen: Sequence[Seen]) -> str:
    columns = [("", "left"), ("check", "left"), ("status", "right"), ("first s", "right"), ("last s", "right")]
    rows = [
        (
            "ok" if one.ok else "FAIL",
            one.check,
            _number(one.status, ""),
            _number(one.first_byte_s, ".2f"),
            _number(one.last_byte_s, ".2f"),
            _number(one.tokens, ""),
            one.found,
        )
        for one in seen
    ]
    failed = sum(not one.ok for one in seen)
    count = f"{len(seen)} checks, " + (f"{failed} not as promised" if failed else "all as promised")
    columns += [("tokens", "right"), ("seen", "left")]
    return plain_table(f"{url}: {count}", columns, rows, color=sys.stdout.isatty())


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
