"""What a stack promises its clients, asked one by one: models, tiers, errors, streams, the wait of a held request."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from smoke.endpoint import Answer, Endpoint, NoAnswer

#: No tier can have it: names end with a letter or a digit.
UNKNOWN_TIER = "no-such-tier-"

_PROMPT = "Say hello in five words."
_ANSWER_TOKENS = 16

#: At least a token each: more than the million that the longest models take, and six times the catalogue's longest.
OVER_LONG_WORDS = 1_100_000


@dataclass(frozen=True, slots=True)
class Seen:
    """What one check saw."""

    check: str
    ok: bool
    found: str
    status: int | None = None
    first_byte_s: float | None = None
    last_byte_s: float | None = None
    tokens: int | None = None


def smoke(endpoint: Endpoint, tiers: Sequence[str] = ()) -> list[Seen]:
    """Ask everything once. ``tiers``: their names; empty: those that the refusal of an unknown tier lists."""
    listed, models = _models(endpoint)
    default = models[0] if models else None
    refused, named = _unknown_tier(endpoint)
    seen = [listed, refused]
    wanted = tiers or named
    if not wanted:
        seen.append(Seen("each tier", False, "the refusal names no tiers: give them with --tier"))
    # All at once, so that sleeping tiers start side by side.
    with ThreadPoolExecutor(max(1, len(wanted))) as threads:
        for rows in threads.map(partial(_tier, endpoint), wanted):
            seen += rows
    if default is not None:
        seen += [_default(endpoint, default), _stream(endpoint, default), _over_long(endpoint, default)]
        # Without the model field a request without header is the default tier's, which lists its own names alone.
        seen += [_by_model(endpoint, tier) for tier in wanted if tier in models and tier != default]
    return seen


def _models(endpoint: Endpoint) -> tuple[Seen, list[str]]:
    """Also the models: the default tier's name is listed first, with or without those of other tiers."""
    names: list[str] = []

    def judged(answer: Answer) -> tuple[bool, str]:
        data = answer.body.get("data")
        names.extend(str(model.get("id")) for model in data or () if isinstance(model, dict))
        return answer.status == 200 and bool(names), f"default tier: {', '.join(names)}" if names else "no models"

    seen = _seen("GET /v1/models", endpoint.models, judged)
    return seen, names


def _unknown_tier(endpoint: Endpoint) -> tuple[Seen, list[str]]:
    named: list[str] = []

    def judged(answer: Answer) -> tuple[bool, str]:
        match = re.search(r"must be one of: (.+)$", answer.error)
        named.extend(match[1].split(", ") if match else ())
        error = answer.body.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        return answer.status == 400 and code == "unknown_tier", answer.error or "no error in OpenAI's shape"

    return _seen("unknown tier -> 400", lambda: endpoint.models(UNKNOWN_TIER), judged), named


def _tier(endpoint: Endpoint, tier: str) -> list[Seen]:
    """The first request is held while the tier sleeps; the second says what an answer takes when it does not."""

    def ask() -> Answer:
        return endpoint.chat(tier, tier, _PROMPT, _ANSWER_TOKENS)

    first = _seen(f"tier {tier}", ask, _answered)
    if not first.ok:
        return [first]
    again = _seen(f"tier {tier} again", ask, _answered)
    waited_s = max(0.0, (first.last_byte_s or 0) - (again.last_byte_s or 0))
    return [replace(first, found=f"{first.found}; {waited_s:.1f} s longer than the next"), again]


def _default(endpoint: Endpoint, model: str) -> Seen:
    return _seen("no header: default tier", lambda: endpoint.chat(None, model, _PROMPT, _ANSWER_TOKENS), _answered)


def _by_model(endpoint: Endpoint, tier: str) -> Seen:
    """An engine refuses a model that is not its own, so an answer is the right tier's."""
    return _seen(f"no header: model {tier}", lambda: endpoint.chat(None, tier, _PROMPT, _ANSWER_TOKENS), _answered)


def _stream(endpoint: Endpoint, model: str) -> Seen:
    def judged(answer: Answer) -> tuple[bool, str]:
        if answer.status != 200 or not answer.complete:
            return False, _why(answer) if answer.status != 200 or answer.error else "cut: no [DONE] at the end"
        spread = answer.last_byte_s - answer.first_byte_s
        return answer.events > 0, f"{answer.events} events over {spread:.2f} s, [DONE]"

    return _seen("stream", lambda: endpoint.stream(None, model, _PROMPT, _ANSWER_TOKENS), judged)


def _over_long(endpoint: Endpoint, model: str) -> Seen:
    def judged(answer: Answer) -> tuple[bool, str]:
        return answer.status in {400, 413} and bool(answer.error), _why(answer)

    prompt = "word " * OVER_LONG_WORDS
    # With the header: what chooses by the model field reads no body this long, and may close the connection on it.
    return _seen("over-long body -> 400", lambda: endpoint.chat(model, model, prompt, 1), judged)


def _answered(answer: Answer) -> tuple[bool, str]:
    if answer.status != 200:
        return False, _why(answer)
    return bool(answer.body.get("choices")), f"model {answer.body.get('model')}"


def _why(answer: Answer) -> str:
    error = answer.error or "no error in OpenAI's shape"
    return error + (f" (Retry-After {answer.retry_after} s)" if answer.retry_after else "")


def _seen(check: str, ask: Callable[[], Answer], judge: Callable[[Answer], tuple[bool, str]]) -> Seen:
    try:
        answer = ask()
    except NoAnswer as error:
        return Seen(check, False, f"no answer: {error}")
    ok, found = judge(answer)
    return Seen(check, ok, found, answer.status, answer.first_byte_s, answer.last_byte_s, answer.tokens)
