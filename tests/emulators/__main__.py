"""``python -m tests.emulators [--quota CODE=VALUE] -- COMMAND``: a command against emulated AWS, with its exit code."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

from tests.emulators import Account, emulated_aws


def main() -> int:
    """Start the emulators, run the command with their environment, stop them."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulators", description=__doc__)
    parser.add_argument(
        "--quota", action="append", default=[], type=_quota, metavar="CODE=VALUE", help="a quota of the account"
    )
    parser.add_argument("--deny", action="append", default=[], metavar="ACTION", help="an action that is refused")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    arguments = parser.parse_args()
    with emulated_aws(Account(quotas=dict(arguments.quota), denied=frozenset(arguments.deny))) as aws:
        print(f"emulated AWS at {aws.endpoint}", file=sys.stderr)
        return subprocess.run(arguments.command, env={**os.environ, **aws.environment}, check=False).returncode


def _quota(text: str) -> tuple[str, float]:
    code, _, value = text.partition("=")
    if not re.fullmatch(r"L-[0-9A-F]{8}", code):
        raise argparse.ArgumentTypeError(f"{code!r} is no quota's code; for example L-DB2E81BA=8")
    return code, float(value)


if __name__ == "__main__":
    sys.exit(main())
