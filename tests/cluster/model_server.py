"""A model server for one pod: no model, but the API, the metrics and the end of vLLM's, and its batching in outline.

``python -m tests.cluster.model_server --address 10.244.0.2 --pod NAME … -- ARGUMENTS`` takes what the program gives
``vllm serve`` after the two dashes and keeps to it: port, served names, longest prompt, most sequences at once, drain.
Of llama.cpp it knows the port and the number of slots, and that it cuts its streams.

Tokens are words. A prompt is read at ``--prefill-tokens-per-s``, without what the cache knows of its beginning, and
every token then takes ``--token-s``, however many requests run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import signal
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BLOCK_TOKENS: Final = 16
"""vLLM's default block of the KV cache."""
_BLOCKS: Final = 20_000
REPLICA_HEADER: Final = "x-replica"
"""Which pod answered, for the tests."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the server behaves."""

    address: str
    pod: str
    port: int
    names: tuple[str, ...]
    max_model_len: int
    slots: int
    """Requests that run at once; the others wait, in order."""
    start_s: float
    token_s: float
    prefill_tokens_per_s: float
    shutdown_s: float
    """How long running requests may go on after SIGTERM; 0: they are cut."""

    @classmethod
    def of(cls, argv: Sequence[str] | None = None) -> Options:
        """Read the command line."""
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--address", required=True)
        parser.add_argument("--pod", required=True)
        parser.add_argument("--start-s", type=float, default=0.0)
        parser.add_argument("--token-s", type=float, default=0.02)
        parser.add_argument("--prefill-tokens-per-s", type=float, default=20_000.0)
        parser.add_argument("engine", nargs=argparse.REMAINDER)
        own = parser.parse_args(argv)

        engine = argparse.ArgumentParser()
        engine.add_argument("model", nargs="?")
        engine.add_argument("--port", type=int, required=True)
        engine.add_argument("--served-model-name", nargs="+", default=[])
        engine.add_argument("--alias", default="")
        engine.add_argument("--max-model-len", "--ctx-size", type=int, default=8192)
        engine.add_argument("--max-num-seqs", "--parallel", type=int, default=256)
        engine.add_argument("--shutdown-timeout", type=float, default=0.0)
        given, _ = engine.parse_known_args(own.engine[own.engine[:1] == ["--"] :])
        names = [*given.served_model_name, *filter(None, given.alias.split(","))]
        return cls(
            address=own.address,
            pod=own.pod,
            port=given.port,
            names=tuple(names),
            max_model_len=given.max_model_len,
            slots=given.max_num_seqs,
            start_s=own.start_s,
            token_s=own.token_s,
            prefill_tokens_per_s=own.prefill_tokens_per_s,
            shutdown_s=given.shutdown_timeout,
        )


class _Metrics:
    """Those of vLLM that the router, the rules and the dashboard read, under its names."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._labels = {"model_name": model, "engine": "0"}
        self.running = self._made(Gauge, "vllm:num_requests_running")
        self.waiting = self._made(Gauge, "vllm:num_requests_waiting")
        self.cache_usage = self._made(Gauge, "vllm:kv_cache_usage_perc")
        self.prompt_tokens = self._made(Counter, "vllm:prompt_tokens")
        self.generated_tokens = self._made(Counter, "vllm:generation_tokens")
        self.cache_queries = self._made(Counter, "vllm:prefix_cache_queries")
        self.cache_hits = self._made(Counter, "vllm:prefix_cache_hits")
        self.preemptions = self._made(Counter, "vllm:num_preemptions")
        self.first_token = self._made(Histogram, "vllm:time_to_first_token_seconds")
        self.per_token = self._made(Histogram, "vllm:request_time_per_output_token_seconds")
        info = Gauge("vllm:cache_config_info", "of the cache", [*self._labels, "block_size", "num_gpu_blocks"],
                     registry=self.registry)  # fmt: skip
        info.labels(**self._labels, block_size=str(_BLOCK_TOKENS), num_gpu_blocks=str(_BLOCKS)).set(1)

    def _made(self, kind: type[Any], name: str) -> Any:
        return kind(name, name, list(self._labels), registry=self.registry).labels(**self._labels)


@dataclass
class _Server:
    options: Options
    metrics: _Metrics
    free: asyncio.Semaphore
    blocks: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def scrape(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.metrics.registry), content_type="text/plain")

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": one} for one in self.options.names]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if asked.get("model") not in self.options.names:
            return _error(404, f"The model `{asked.get('model')}` does not exist.", "model_not_found")
        prompt = _prompt(asked)
        wanted = int(asked.get("max_tokens") or 16)
        if len(prompt) + wanted > self.options.max_model_len:
            limit = f"This model's maximum context length is {self.options.max_model_len} tokens."
            return _error(400, limit, "context_length_exceeded")
        arrived = time.monotonic()
        async with self._slot():
            await asyncio.sleep(self._uncached(prompt) / self.options.prefill_tokens_per_s)
            first_token_s = time.monotonic() - arrived
            self.metrics.first_token.observe(first_token_s)
            self.metrics.prompt_tokens.inc(len(prompt))
            usage = {"prompt_tokens": len(prompt), "completion_tokens": wanted}
            if asked.get("stream"):
                answer = await self._stream(request, wanted, usage)
            else:
                await asyncio.sleep(self.options.token_s * wanted)
                self.metrics.generated_tokens.inc(wanted)
                choice = {"index": 0, "message": {"role": "assistant", "content": "word " * wanted}}
                answer = web.json_response({"choices": [choice], "usage": usage}, headers=self._named)
            self.metrics.per_token.observe(self.options.token_s)
            return answer

    @asynccontextmanager
    async def _slot(self) -> AsyncGenerator[None]:
        self.metrics.waiting.inc()
        try:
            await self.free.acquire()
        finally:
            self.metrics.waiting.dec()
        self.metrics.running.inc()
        self.metrics.cache_usage.inc(1 / self.options.slots)
        try:
            yield
        finally:
            self.metrics.running.dec()
            self.metrics.cache_usage.dec(1 / self.options.slots)
            self.free.release()

    def _uncached(self, prompt: Sequence[str]) -> int:
        """Tokens of a prompt that the cache does not hold; from now on it holds them."""
        digest, known, missed = hashlib.sha256(), 0, False
        for start in range(0, len(prompt) - _BLOCK_TOKENS + 1, _BLOCK_TOKENS):
            digest.update(" ".join(prompt[start : start + _BLOCK_TOKENS]).encode())
            key = digest.digest()
            missed = missed or key not in self.blocks
            known += 0 if missed else _BLOCK_TOKENS
            self.blocks[key] = None
            self.blocks.move_to_end(key)
        while len(self.blocks) > _BLOCKS:
            self.blocks.popitem(last=False)
        self.metrics.cache_queries.inc(len(prompt))
        self.metrics.cache_hits.inc(known)
        return len(prompt) - known

    async def _stream(self, request: web.Request, tokens: int, usage: dict[str, int]) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", **self._named})
        await answer.prepare(request)
        for _ in range(tokens):
            await asyncio.sleep(self.options.token_s)
            self.metrics.generated_tokens.inc()
            await answer.write(_event({"choices": [{"index": 0, "delta": {"content": "word "}}]}))
        await answer.write(_event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        await answer.write_eof()
        return answer

    @property
    def _named(self) -> dict[str, str]:
        return {REPLICA_HEADER: self.options.pod}


def _prompt(asked: dict[str, Any]) -> list[str]:
    messages = asked.get("messages") or [{"content": asked.get("prompt", "")}]
    return " ".join(str(message.get("content", "")) for message in messages).split()


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content)}\n\n".encode()


def _error(status: int, message: str, code: str) -> web.Response:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return web.json_response(body, status=status)


async def serve(options: Options) -> None:
    """Load, serve, and end as the engine does: at SIGTERM nobody new is let in, and what runs has ``shutdown_s``."""
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(options.start_s):
            await asked_to_stop.wait()
            return
    server = _Server(options, _Metrics(options.names[0]), asyncio.Semaphore(options.slots))
    # As a client of vLLM may: a body of some MB, and a connection that is kept.
    app = web.Application(client_max_size=64 * 1024**2)
    app.add_routes(
        [
            web.get("/health", server.health),
            web.get("/metrics", server.scrape),
            web.get("/v1/models", server.models),
            web.post("/v1/chat/completions", server.complete),
            web.post("/v1/completions", server.complete),
        ]
    )
    runner = web.AppRunner(
        app,
        access_log=None,
        # A client that leaves ends its request.
        handler_cancellation=True,
        keepalive_timeout=float(os.environ.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5")),
        shutdown_timeout=options.shutdown_s,
    )
    await runner.setup()
    await web.TCPSite(runner, options.address, options.port, backlog=1024).start()
    await asked_to_stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(Options.of()))
