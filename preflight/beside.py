"""Checks asked beside one another, each with a limit of time, with a word on the terminal about what is slow."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager

from preflight.questions import Check
from preflight.rows import NotAnswered, Row

#: Three attempts of ten seconds each, and the waits between them.
LIMIT_S = 45.0
_QUIET_S = 2.0


def ask(questions: Sequence[Check], limit_s: float = LIMIT_S) -> list[Row]:
    """Ask all and give their rows in order; one that raises or takes longer than ``limit_s`` is a row that says so."""
    started = time.monotonic()
    progress = Progress()
    futures = [_begun(question.rows) for question in questions]
    pending = set(futures)
    while pending and time.monotonic() - started < limit_s:
        _, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
        progress(", ".join(check.name for check, future in zip(questions, futures, strict=True) if future in pending))
    progress.clear()
    return [row for check, future in zip(questions, futures, strict=True) for row in _rows(check, future, limit_s)]


def _begun(work: Callable[[], Sequence[Row]]) -> Future[Sequence[Row]]:
    """Begin work in a thread that does not keep the program alive when it is given up, as a pool's would."""
    future: Future[Sequence[Row]] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _rows(check: Check, future: Future[Sequence[Row]], limit_s: float) -> Sequence[Row]:
    if not future.done():
        found = f"no answer within {limit_s:.0f} s"
        return [Row(check.name, check.wanted, found, "unknown", "look at the network, and try again")]
    try:
        return future.result()
    except NotAnswered as error:
        # Without credentials nothing that follows would work either.
        verdict = "fail" if check.name == "credentials" else "unknown"
        reason, _, way_out = str(error).partition("; ")
        return [Row(check.name, check.wanted, f"not checked: {reason}", verdict, way_out)]


@contextmanager
def waiting_for(what: str) -> Generator[None]:
    """Say on the terminal what is waited for, when it takes longer than two seconds."""
    progress = Progress()
    timer = threading.Timer(_QUIET_S + 0.1, progress, [what])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        progress.clear()


class Progress:
    """One line on a terminal for what takes longer than two seconds."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown = False

    def __call__(self, text: str) -> None:
        """Show what is waited for; nothing for an empty text."""
        if text and sys.stderr.isatty() and time.monotonic() - self._started > _QUIET_S:
            self._shown = True
            line = f"waiting for {text}"[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
