"""The stack as an OpenAI client reaches it: requests with their times, and nothing of a key in any message."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

_CONNECT_S = 10.0

#: A held request is silent for minutes. What is between forgets silent connections, AWS' NAT gateways after 350 s (VPC
#: user guide, "NAT gateway basics", read 2026-11), unless the kernel says once a minute that it is still there.
_KEEP_ALIVE_S = 60


class NoAnswer(Exception):
    """Nothing, or no HTTP, came back."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer and when it came, seconds after the request."""

    status: int
    body: Mapping[str, Any]
    """The parsed JSON; empty where it is none."""
    first_byte_s: float
    """Of the body; a streamed answer's first event."""
    last_byte_s: float
    retry_after: str | None
    events: int = 0
    """Of a streamed answer."""
    complete: bool = True
    """A streamed answer's last event was ``[DONE]``."""

    @property
    def tokens(self) -> int | None:
        """Generated tokens, as the engine counts them."""
        usage = self.body.get("usage")
        return usage.get("completion_tokens") if isinstance(usage, dict) else None

    @property
    def error(self) -> str:
        """The error's message in OpenAI's shape; empty where there is none."""
        error = self.body.get("error")
        return str(error.get("message", "")) if isinstance(error, dict) else ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A stack's base URL and how to ask there."""

    base_url: str
    """Ends with ``/v1``."""
    header: str
    """The routing header."""
    timeout_s: float
    """Between two bytes."""
    api_key: str | None = field(default=None, repr=False)

    def models(self, tier: str | None = None) -> Answer:
        """Ask which models are served. Raises :class:`NoAnswer`."""
        with self._asked("GET", "/models", tier) as (response, sent):
            return _whole(response, sent)

    def chat(self, tier: str | None, model: str, prompt: str, max_tokens: int) -> Answer:
        """Ask for one answer. Raises :class:`NoAnswer`."""
        with self._asked("POST", "/chat/completions", tier, _chat(model, prompt, max_tokens)) as (response, sent):
            return _whole(response, sent)

    def stream(self, tier: str | None, model: str, prompt: str, max_tokens: int) -> Answer:
        """Ask for one answer token by token. Raises :class:`NoAnswer`."""
        body = {**_chat(model, prompt, max_tokens), "stream": True, "stream_options": {"include_usage": True}}
        with self._asked("POST", "/chat/completions", tier, body) as (response, sent):
            return _streamed(response, sent) if response.ok else _whole(response, sent)

    @contextmanager
    def _asked(
        self, method: str, path: str, tier: str | None, body: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[requests.Response, float]]:
        headers = {self.header: tier} if tier else {}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, _KeptAlive())
            sent = time.monotonic()
            try:
                with session.request(
                    method,
                    self.base_url + path,
                    json=body,
                    headers=headers,
                    timeout=(_CONNECT_S, self.timeout_s),
                    stream=True,
                    allow_redirects=False,
                ) as response:
                    yield response, sent
            except (requests.RequestException, UnicodeError) as error:
                raise NoAnswer(f"{type(error).__name__} after {time.monotonic() - sent:.1f} s") from None


class _KeptAlive(HTTPAdapter):
    """Connections that say they are alive while a request is held. Tries nothing again: a retry would hide a fault."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        options["socket_options"] = [
            *HTTPConnection.default_socket_options,
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            # Linux' name and macOS'.
            *(
                (socket.IPPROTO_TCP, getattr(socket, name), _KEEP_ALIVE_S)
                for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL")
                if hasattr(socket, name)
            ),
        ]
        super().init_poolmanager(*args, **options)


def _chat(model: str, prompt: str, max_tokens: int) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}


def _whole(response: requests.Response, sent: float) -> Answer:
    chunks = response.iter_content(chunk_size=None)
    first = next(chunks, b"")
    first_byte_s = time.monotonic() - sent
    content = first + b"".join(chunks)
    return Answer(
        response.status_code,
        _object(content),
        first_byte_s,
        time.monotonic() - sent,
        response.headers.get("Retry-After"),
    )


def _streamed(response: requests.Response, sent: float) -> Answer:
    body: dict[str, Any] = {}
    first_byte_s, events, complete = 0.0, 0, False
    for line in response.iter_lines(chunk_size=None):
        if not line.startswith(b"data:"):
            continue  # comments keep the connection alive, other fields mean nothing here
        first_byte_s = first_byte_s or time.monotonic() - sent
        data = line.removeprefix(b"data:").strip()
        complete = data == b"[DONE]"
        events += not complete
        # The last event before the end holds the usage; an error may come in any.
        body.update({name: value for name, value in _object(data).items() if name in {"usage", "error", "model"}})
    last_byte_s = time.monotonic() - sent
    return Answer(
        response.status_code, body, first_byte_s, last_byte_s, None, events, complete and not body.get("error")
    )


def _object(content: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
