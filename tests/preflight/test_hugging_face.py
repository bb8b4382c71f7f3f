"""Model access over HTTP, against a stub of Hugging Face's API: how huggingface.co answers is not proved."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from preflight.hugging_face import model_access
from preflight.rows import NotAnswered
from tests.emulators.stub import Account, stub_server


@contextmanager
def hugging_face(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = stub_server(account, behind="http://127.0.0.1:1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def test_open_gated_and_missing_models_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account(models={"org/open": "open", "org/mine": "accepted", "org/theirs": "refused"})
    with hugging_face(account, monkeypatch):
        assert model_access("org/open", "") == "open"
        assert model_access("org/mine", "hf_x") == "accepted"
        assert model_access("org/theirs", "hf_x") == "refused"
        assert model_access("org/mine", "") == "token missing"
        assert model_access("org/open", "not-a-token") == "token invalid"
        assert model_access("org/nothing", "") == model_access("org/nothing", "hf_x") == "not found"


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "no address", "http://127.0.0.1:9/a b"])
def test_offline_the_reason_is_told_and_never_the_token(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(NotAnswered) as raised:
        model_access("org/model", "hf_secret")
    assert "hf_secret" not in str(raised.value)


def test_a_token_that_is_no_header_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with hugging_face(Account(), monkeypatch), pytest.raises(NotAnswered, match="HF_TOKEN holds characters") as raised:
        model_access("org/model", "hf_\nsecret")
    assert "secret" not in str(raised.value)
