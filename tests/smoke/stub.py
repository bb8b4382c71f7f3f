"""A stack as its clients see it: load balancer, routers and engines in one HTTP server, after the documented answers.

Nothing here is the real load balancer, router or engine: that these answer so is what `make smoke` finds out.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DEFAULT_TIER = "fast"


@dataclass
class Stack:
    """What the stub plays."""

    sleeping: dict[str, float] = field(default_factory=lambda: {"fast": 0.0, "quality": 0.0})
    """By tier, seconds that its first request is held."""
    api_key: str | None = None
    max_body_bytes: int = 100_000
    cut_streams: bool = False
    refuses_unknown_tiers: bool = True
    by_model: bool = False
    """Requests without header go by the model field, and the list has the models of all tiers."""
    tokens_apart_s: float = 0.02
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and routing header of every request."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start_of(self, tier: str) -> float:
        """How long this request is held; only the first one finds the tier asleep."""
        with self.lock:
            wait, self.sleeping[tier] = self.sleeping[tier], 0.0
            return wait


def _error(message: str, kind: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stack: Stack

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        tier = self._tier()
        if tier is not None:
            tiers = self.stack.sleeping if self.stack.by_model and not self.headers["X-Model-Tier"] else (tier,)
            names = [name for one in tiers for name in (one, f"example/{one}")]
            self._answer(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        tier = self._tier()
        if tier is None:
            return
        if self.stack.api_key and self.headers["Authorization"] != f"Bearer {self.stack.api_key}":
            self._answer(401, {"error": "Unauthorized"})
            return
        request = json.loads(body)
        if self.stack.by_model and not self.headers["X-Model-Tier"]:
            tier = request["model"].removeprefix("example/")
        if request["model"] not in {tier, f"example/{tier}"}:
            self._answer(404, _error("The model does not exist.", "NotFoundError", "model_not_found"))
            return
        time.sleep(self.stack.start_of(tier))
        if len(body) > self.stack.max_body_bytes:
            limit = "This model's maximum context length is 8192 tokens."
            self._answer(400, _error(limit, "invalid_request_error", "context_length_exceeded"))
        elif request.get("stream"):
            self._stream(request)
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": "Hello."}}
            usage = {"prompt_tokens": 9, "completion_tokens": request["max_tokens"]}
            self._answer(200, {"model": request["model"], "choices": [choice], "usage": usage})

    def _tier(self) -> str | None:
        """The tier of the request; None when it is answered already."""
        header = self.headers["X-Model-Tier"]
        self.stack.asked.append((self.path, header))
        if header is None or header in self.stack.sleeping or not self.stack.refuses_unknown_tiers:
            return header if header in self.stack.sleeping else DEFAULT_TIER
        names = ", ".join(self.stack.sleeping)
        refusal = f"X-Model-Tier must be one of: {names}"
        self._answer(400, _error(refusal, "invalid_request_error", "unknown_tier"))
        return None

    def _stream(self, request: Mapping[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk(b": keep-alive\n\n")
        for number in range(request["max_tokens"]):
            if self.stack.cut_streams and number == 3:
                self.wfile.write(b"0\r\n\r\n")
                return
            self._chunk(_event({"choices": [{"index": 0, "delta": {"content": f"{number} "}}]}))
            time.sleep(self.stack.tokens_apart_s)
        self._chunk(_event({"choices": [], "usage": {"completion_tokens": request["max_tokens"]}}))
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _answer(self, status: int, body: Mapping[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


@contextmanager
def serving(stack: Stack) -> Iterator[str]:
    """Serve the stack and give its base URL."""
    handler = type("Handler", (_Handler,), {"stack": stack})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
