"""Whether a token opens a checkpoint, asked of Hugging Face's API.

``api/models/<repository>`` says whether a model is gated, ``…/auth-check`` whether the token's owner may read it (both
as huggingface_hub 2.4.0 asks them: ``HfApi.model_info``, ``HfApi.auth_check``). ``HF_ENDPOINT`` is read as it does.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from typing import Literal

from preflight.rows import NotAnswered

ModelAccess = Literal["open", "accepted", "refused", "token missing", "token invalid", "not found"]

_TIMEOUT_S = 10.0


def model_access(repository: str, token: str) -> ModelAccess:
    """Ask what ``token`` (empty: none) opens. Raises ``NotAnswered``; the token is in no message."""
    status, body = _get(f"api/models/{repository}", token)
    if status == 401 and token and "credentials" in body:
        return "token invalid"
    if status in {401, 404}:  # without a token, a repository that is not there answers 401
        return "not found"
    if status != 200:
        raise NotAnswered(f"Hugging Face answers {status} for {repository}; try again later")
    try:
        gated = json.loads(body)["gated"]
    except (ValueError, KeyError, TypeError):
        raise NotAnswered(f"what answers for Hugging Face does not say whether {repository} is gated") from None
    if not gated:
        return "open"
    if not token:
        return "token missing"
    status, _ = _get(f"api/models/{repository}/auth-check", token)
    return "accepted" if status == 200 else "refused"


def _get(path: str, token: str) -> tuple[int, str]:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        request = urllib.request.Request(f"{endpoint}/{path}", headers={"User-Agent": "frugal-llm"})
        if token:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return int(answer.status), answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise NotAnswered(f"{endpoint} cannot be reached ({reason}); check from where it can be") from None
    except ValueError:  # its message would show the header, and with it the token
        raise NotAnswered("HF_ENDPOINT is no address, or HF_TOKEN holds characters that no token has") from None
