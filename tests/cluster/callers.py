"""Clients of a stack: each request with what became of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from tests.cluster.model_server import REPLICA_HEADER

CHAT_PATH: Final = "/v1/chat/completions"
_PATIENCE_S: Final = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client asks."""

    model: str
    stream: bool = False
    prompt: str = "Hello there"
    tokens: int = 5
    headers: Mapping[str, str] = field(default_factory=dict)
    after_s: float = 0.0
    """Wait before it is sent."""
    patience_s: float = _PATIENCE_S
    """Then the client leaves."""

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI's chat API has it."""
        message = {"role": "user", "content": self.prompt}
        return {"model": self.model, "messages": [message], "max_tokens": self.tokens, "stream": self.stream}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a client saw."""

    request: Request
    sent: float
    """When, by the monotonic clock."""
    first_byte_s: float | None = None
    total_s: float
    status: int | None = None
    """None: no status line came."""
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def answered(self) -> bool:
        """200, and whole: a stream with all its tokens and its end."""
        if self.status != 200 or self.error:
            return False
        if not self.request.stream:
            return '"usage"' in self.text
        return self.text.count('"delta"') == self.request.tokens and self.text.endswith("data: [DONE]\n\n")

    @property
    def replica(self) -> str:
        """Which pod answered."""
        return self.headers.get(REPLICA_HEADER, "")

    def __str__(self) -> str:
        """Say what happened in a line."""
        kind = "stream" if self.request.stream else "whole"
        found = self.error or self.text[-200:]
        return f"{kind} {self.status} after {self.total_s:.2f} s from {self.replica or '-'}: {found}"


async def send(session: aiohttp.ClientSession, url: str, request: Request) -> Outcome:
    """Send one request and read its answer to the end."""
    await asyncio.sleep(request.after_s)
    sent, first, seen = time.monotonic(), None, b""
    status: int | None = None
    headers: Mapping[str, str] = {}
    error = ""
    try:
        async with asyncio.timeout(request.patience_s):
            async with session.post(url + CHAT_PATH, json=request.body, headers=dict(request.headers)) as response:
                status, headers = response.status, response.headers
                async for part in response.content.iter_any():
                    first = first or time.monotonic()
                    seen += part
    except (aiohttp.ClientError, TimeoutError) as failure:
        error = repr(failure)
    return Outcome(
        request=request,
        sent=sent,
        first_byte_s=first - sent if first else None,
        total_s=time.monotonic() - sent,
        status=status,
        headers=headers,
        text=seen.decode(errors="replace"),
        error=error,
    )


def session() -> aiohttp.ClientSession:
    """Give a client without limits of its own and without kept connections, whose reuse would fail by itself."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None), trust_env=False)


def send_all(url: str, requests: Sequence[Request]) -> list[Outcome]:
    """Send all at once (``after_s`` apart) and wait for every answer."""

    async def sent() -> list[Outcome]:
        async with session() as open_session:
            return list(await asyncio.gather(*(send(open_session, url, one) for one in requests)))

    return asyncio.run(sent())


@dataclass
class Traffic:
    """Requests that go on in the background."""

    outcomes: list[Outcome] = field(default_factory=list)
    in_flight: int = 0


@contextmanager
def traffic(url: Callable[[], str], requests: Callable[[int], Request], *, per_second: float) -> Generator[Traffic]:
    """Send what ``requests`` gives for 0, 1, … at a steady rate until the block ends; then wait for all answers."""
    running, stop = Traffic(), threading.Event()

    async def one(open_session: aiohttp.ClientSession, number: int) -> None:
        running.in_flight += 1
        running.outcomes.append(await send(open_session, url(), requests(number)))
        running.in_flight -= 1

    async def drive() -> None:
        async with session() as open_session, asyncio.TaskGroup() as group:
            began, number = time.monotonic(), 0
            while not stop.is_set():
                group.create_task(one(open_session, number))
                number += 1
                await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))

    thread = threading.Thread(target=asyncio.run, args=[drive()], name="traffic", daemon=True)
    thread.start()
    try:
        yield running
    finally:
        stop.set()
        thread.join(_PATIENCE_S)
        assert not thread.is_alive(), "requests are still open"


def report(what: str, outcomes: Sequence[Outcome]) -> str:
    """Give a line for the test report: sent, answered, lost, and how long answers took."""
    answered = sorted(one.total_s for one in outcomes if one.answered)
    lost = len(outcomes) - len(answered)
    times = f"; answers after {answered[0]:.1f} to {answered[-1]:.1f} s" if answered else ""
    return f"{what}: {len(outcomes)} sent, {len(answered)} answered, {lost} lost{times}"


def all_answered(outcomes: Sequence[Outcome]) -> None:
    """Raise when a request was not answered, with what became of those."""
    lost = [str(one) for one in outcomes if not one.answered]
    counts = Counter(one.split(" after")[0] for one in lost)
    assert not lost, f"{len(lost)} of {len(outcomes)} lost ({dict(counts)}):\n" + "\n".join(lost[:8])
