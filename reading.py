"""From a stack's configuration as it is written to sound settings and every mistake, each in one line.

Never stops at the first: what is broken is left out, and the rest is read, so that a person sees all mistakes at once.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from problems import NAMESPACE, Conflict, Location, Problem, did_you_mean, nearest, setting_path
from settings import PATTERN_HINTS, SECRET_KEYS, Settings, StackSettings, TierSettings


def own_values(config: Mapping[str, object]) -> dict[str, object]:
    """The values of this program's namespace without it, and under their whole keys those that were meant for it.

    Pulumi takes any namespace, so a budget under ``frugal-lm:`` would be no budget at all; ``read`` names such keys,
    and those without a namespace, as problems. Keys of providers (``aws``, ``kubernetes``, ``pulumi``) and of other
    programs are nothing like them.
    """
    prefix = f"{NAMESPACE}:"
    return {
        key.removeprefix(prefix): value
        for key, value in ((key if ":" in key else f":{key}", value) for key, value in config.items())
        if key.startswith((prefix, ":")) or _nearly_ours(key.partition(":")[0])
    }


def _nearly_ours(namespace: str) -> bool:
    letters = re.sub(r"[^a-z]", "", namespace.lower())
    return difflib.SequenceMatcher(None, letters, NAMESPACE.replace("-", "")).ratio() >= 0.8


def _namespace_problem(key: str) -> Problem:
    namespace, _, name = key.partition(":")
    limit = "is not read: nothing has this namespace" if namespace else "is not read: it has no namespace"
    return Problem(key.removeprefix(":"), None, limit, f"write {'aws' if name == 'region' else NAMESPACE}:{name}")


@dataclass(frozen=True, slots=True)
class Reading:
    """A configuration as far as it could be read: what is sound, and every problem of the rest."""

    settings: StackSettings | None
    """The sound part: without broken tiers, and without the broken settings of other sections. None when too little is
    left."""
    problems: tuple[Problem, ...]
    tier_positions: tuple[int, ...] = ()
    """For each tier of ``settings``, its position in the configuration."""
    broken_tiers: tuple[BrokenTier, ...] = ()
    left_out: frozenset[Location] = frozenset()
    """Settings outside tiers that are broken, that a misspelt one may have meant, or whose section stands in a tier:
    they stand at their defaults. And tiers of which too little is left to look anything up."""

    def lacks(self, *setting: str) -> bool:
        """Whether a setting is left out, or all of the section that it is in."""
        return any(place == setting[: len(place)] for place in self.left_out)


@dataclass(frozen=True, slots=True)
class BrokenTier:
    """A tier that cannot be planned, and the settings of it that can still be looked up."""

    position: int
    settings: TierSettings
    """With defaults, or anything, in place of what is broken."""
    left_out: frozenset[str]
    """Settings of the tier that are broken or have something broken in them, or that a misspelt one may have meant."""


def read(region: object, config: Mapping[str, object], encrypted: Collection[str] = SECRET_KEYS) -> Reading:
    """Read the configuration: ``own_values``. Secrets may be there and are not looked at.

    ``encrypted`` are the keys whose values are stored encrypted; a secret that is not is a problem. Never raises: the
    planner adds its own problems to the ones found here, so that a person sees all of them at once.
    """
    meant = {key.partition(":")[2]: value for key, value in config.items() if ":" in key}
    problems = [_namespace_problem(key) for key in config if ":" in key]
    if config.get("region") is not None:
        problems.append(Problem(f"{NAMESPACE}:region", None, "is no setting", "write aws:region"))
    config = {**meant, **config}
    values = {
        key: _decoded(value)
        for key, value in config.items()
        if key not in SECRET_KEYS and ":" not in key and value is not None
    }
    values["region"] = meant.get("region") if region is None else region
    in_clear = sorted(key for key in SECRET_KEYS - set(encrypted) if config.get(key))
    errors: list[ErrorDetails] = []
    try:
        reading = Reading(StackSettings.model_validate(values), ())
    except ValidationError as error:
        errors = error.errors(include_url=False)
        reading = _sound_part(values)
        inside = any(details["loc"][:1] == ("tiers",) and len(details["loc"]) > 1 for details in errors)
        # Broken tiers make the list too short for pydantic; the breaks themselves are what to mend.
        told = [one for one in errors if not (inside and one["loc"] == ("tiers",))]
        problems += [problem for one in told for problem in _problems(one)]
    problems += [problem for problem in reading.problems if problem not in problems]
    problems += _across_sections(values, errors)
    problems += [
        Problem(f"{NAMESPACE}:{key}", None, "is stored in clear", f"pulumi config set --secret {NAMESPACE}:{key}")
        for key in in_clear
    ]
    positions = reading.tier_positions or range(len(reading.settings.tiers) if reading.settings else 0)
    return replace(reading, problems=tuple(problems), tier_positions=tuple(positions))


def _decoded(value: object) -> object:
    """Sections may arrive as JSON text, as the engine hands them over; text that is none stays text.

    So does what nests hundreds deep and what is a number of thousands of digits, for which ``json`` has other errors.
    """
    try:
        return from_json(value) if isinstance(value, str) else value
    except (ValueError, TypeError):  # The latter for half of a surrogate pair.
        return value


def _sound_part(values: Mapping[str, Any]) -> Reading:
    """What is left of a broken configuration, with the problems that only show in what is left."""
    sections, left_out, problems = _mended(StackSettings, {**values, "tiers": [_ANY_TIER]}, ())
    left_out = frozenset(place for place in left_out if place[0] in _SECTIONS)
    kept: list[tuple[int, TierSettings]] = []
    broken: list[BrokenTier] = []
    for position, given in enumerate(_listed(values.get("tiers"))):
        tier, wrong, more = _mended(TierSettings, given, ("tiers", position))
        problems += more
        left_out |= {place[2:3] for place in wrong if place[2] in _SECTIONS}
        if tier is not None and wrong:
            broken.append(BrokenTier(position, tier, frozenset(str(place[2]) for place in wrong)))
        elif tier is not None:
            kept.append((position, tier))
        else:
            left_out |= {("tiers", position)}
    settings = sections and sections.model_copy(update={"tiers": tuple(tier for _, tier in kept)})
    return Reading(settings, tuple(problems), tuple(position for position, _ in kept), tuple(broken), left_out)


_SECTIONS = frozenset(str(field.alias) for field in StackSettings.model_fields.values())

#: More rounds than this of mending one break and finding another are not worth the time.
_MOST_MENDED = 5


AnySection = TypeVar("AnySection", bound=Settings)


def _mended(
    model: type[AnySection], given: object, at: Location
) -> tuple[AnySection | None, frozenset[Location], list[Problem]]:
    """A section without what is broken in it: the section, what was left out, and conflicts among the rest.

    Pydantic looks for conflicts only where nothing else is wrong. The section is None where too little is left.
    """
    values: Any = copy.deepcopy(given)
    left_out: set[Location] = set()
    conflicts: list[Problem] = []
    for _ in range(_MOST_MENDED):
        try:
            return model.model_validate(values), frozenset(left_out), conflicts
        except ValidationError as error:
            errors = error.errors(include_url=False)
        before, places = frozenset(left_out), set[Location]()
        for details in errors:
            location = details["loc"]
            for conflict in _conflicts(details):
                taking_part = [(*location, name) for name in conflict.settings]
                if not any((*at, *place) == left[: len(at) + len(place)] for place in taking_part for left in before):
                    conflicts.append(conflict.at((*at, *location)))
                # What is left out stands at its default already.
                places |= {place for place in taking_part if _standing(values, place) == place}
            if not _conflicts(details):
                places.add(_standing(values, location))
            if details["type"] == "extra_forbidden":
                meant = nearest(str(location[-1]), _siblings((*at, *location)))
                left_out |= {(*at, *location[:-1], name) for name in meant}
        # A place inside another goes with it. A section that lacks what has no stand-in cannot be mended at all.
        outer = [place for place in places if place and not any(place[:n] in places for n in range(1, len(place)))]
        if not outer:
            break
        for place in outer:
            _take_out(values, place)
        left_out |= {(*at, *place) for place in outer}
    return None, frozenset(left_out), conflicts


def _standing(values: Any, location: Location) -> Location:
    """The place in ``values`` of what an error tells of: a setting, or where one is missing the section without it."""
    inside = values
    for depth, step in enumerate(location):
        if not isinstance(inside, dict):
            return location[:depth]
        if step not in inside:
            return location[: depth + 1] if step in _STAND_INS else location[:depth]
        inside = inside[step]
    return location


def _take_out(values: Any, place: Location) -> None:
    """Take a setting out of ``values``, or write a stand-in for one that must be there."""
    for step in place[:-1]:
        values = values[step]
    if place[-1] in _STAND_INS:
        values[place[-1]] = copy.deepcopy(_STAND_INS[place[-1]])
    else:
        del values[place[-1]]


#: What a tier needs and what reading the rest of it does not depend on.
_STAND_INS: Mapping[int | str, Any] = {
    "region": "",
    "name": "tier",
    "slo": {"ttftMs": 1, "tpotMs": 1},
    "ttftMs": 1,
    "tpotMs": 1,
    "traffic": {"requestsPerDay": 0, "inputTokens": 1, "outputTokens": 1},
    "requestsPerDay": 0,
    "inputTokens": 1,
    "outputTokens": 1,
}
_ANY_TIER = {name: _STAND_INS[name] for name in ("name", "slo", "traffic")} | {"model": ""}


def _across_sections(values: Mapping[str, object], errors: Sequence[ErrorDetails]) -> list[Problem]:
    """What no single field can know: names that must be unique, and names that must exist."""
    tiers = _listed(values.get("tiers"))
    given = [tier.get("name") if isinstance(tier, Mapping) else None for tier in tiers]
    names = [name for name in given if isinstance(name, str)]
    problems = [
        Problem(f"{NAMESPACE}:tiers[{position}].name", name, "another tier has this name", "give each tier its own")
        for position, name in enumerate(given)
        if isinstance(name, str) and name in given[:position]
    ]
    routing = values.get("routing")
    default = routing.get("defaultTier") if isinstance(routing, Mapping) else None
    # A tier whose name is to be mended may become the one.
    all_named = len(names) == len(tiers) and not any(details["loc"][2:] == ("name",) for details in errors)
    if isinstance(default, str) and names and all_named and default not in names:
        hint = did_you_mean(default, names)
        problems.append(Problem(f"{NAMESPACE}:routing.defaultTier", default, "there is no tier of this name", hint))
    return problems


def _listed(value: object) -> Sequence[object]:
    """A list from a configuration; nothing when it is something else, which pydantic reports."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _conflicts(details: ErrorDetails) -> tuple[Conflict, ...]:
    return details.get("ctx", {}).get("conflicts", ())


def _problems(details: ErrorDetails) -> list[Problem]:
    """One error of pydantic, which of conflicts holds all that it has found in a section."""
    return [one.at(details["loc"]) for one in _conflicts(details)] or [_problem(details)]


def _problem(details: ErrorDetails) -> Problem:
    kind, value, location = details["type"], details.get("input"), details["loc"]
    # Of a mapping's key pydantic says so in its last step.
    location = location[:-1] if location[-1:] == ("[key]",) and kind != "extra_forbidden" else location
    path = setting_path(location)
    if kind == "extra_forbidden":
        name = str(location[-1])
        if len(location) > 1 and name in _SECTIONS:
            return Problem(path, None, "is no setting here", f"it is one of the whole stack: {setting_path((name,))}")
        elsewhere = [one for one in _places(StackSettings) if one.endswith(f".{name}")]
        if len(elsewhere) == 1:
            return Problem(path, None, "is no setting here", f"it is {NAMESPACE}:{elsewhere[0]}")
        return Problem(path, None, "is no setting", did_you_mean(name, _siblings(location)))
    if kind == "missing" or (path == "aws:region" and value is None):
        example = _EXAMPLES.get(str(location[-1]))
        return Problem(path, None, "is missing", f"add it, for example {example}" if example else "add it")
    if kind == "literal_error":
        expected = re.findall(r"'([^']+)'", str(details.get("ctx", {}).get("expected", "")))
        return Problem(path, value, "is not allowed", did_you_mean(str(value), expected))
    if kind == "string_pattern_mismatch":
        return Problem(
            path,
            value,
            f"must match {details.get('ctx', {}).get('pattern')}",
            PATTERN_HINTS.get(_named(location), ""),
        )
    if isinstance(value, Mapping) or kind == "credentials" or location != details["loc"]:
        value = None
    if kind in {"model_type", "model_attributes_type"}:
        return Problem(path, value, f"must be a mapping{_written_out(location)}")
    if kind == "tuple_type":
        alone = isinstance(value, str | int | float) and location[-1] != "tiers"
        return Problem(path, value, "must be a list", f"write {location[-1]}: [{value}]" if alone else "")
    if kind == "string_type":
        hint = PATTERN_HINTS.get(_named(location)) or (f'write "{value}"' if isinstance(value, int | float) else "")
        return Problem(path, value, "must be text", hint)
    if kind == "bool_type":
        meant = {True: "true", False: "false", None: ""}[_meant(value)]
        return Problem(path, value, "must be true or false", f"write {meant}, without quotes" if meant else "")
    words = _WORDS.get(kind)
    if words is not None:
        limits = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in _context(details)}
        return Problem(path, value, words.format(**limits))
    message = details["msg"].removeprefix("Input ")
    return Problem(path, value, message[0].lower() + message[1:])


def _meant(value: object) -> bool | None:
    """What was meant for true or false; None where that is not plain."""
    said = str(value).lower()
    if said in {"true", "yes", "on", "1"}:
        return True
    return False if said in {"false", "no", "off", "0"} else None


def _context(details: ErrorDetails) -> Iterable[tuple[str, object]]:
    return details.get("ctx", {}).items()


def _written_out(location: Location) -> str:
    """How a section is written that is given as something else."""
    name = str(location[-1])
    if name in _EXAMPLES:
        return f" such as {name}: {_EXAMPLES[name]}"
    return f" of its settings: {', '.join(_siblings((*location, '')))}"


_EXAMPLES = {
    "region": "us-east-1",
    "name": "fast",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "tiers": "[{name: fast, model: …, slo: {…}, traffic: {…}}]",
    "budget": "{monthlyUsd: 800}",
    "slo": "{ttftMs: 1000, tpotMs: 50}",
    "traffic": "{requestsPerDay: 40000, inputTokens: 900, outputTokens: 150}",
    "workingHours": '{start: "0 8 * * 1-5", end: "0 20 * * 1-5"}',
}

#: Pydantic's kinds of errors whose own texts name types of Python; what is in braces is the error's context.
_WORDS = {
    "dict_type": "must be a mapping of names to values, such as {{team: ml}}",
    "too_short": "needs at least {min_length} entry, has {actual_length}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
}


def _named(location: Location) -> str:
    """The setting that a place belongs to: of an entry of a list, the list's."""
    return next((part for part in reversed(location) if isinstance(part, str)), "")


def _siblings(location: Location) -> list[str]:
    """The settings that exist beside an unknown one."""
    model: Any = StackSettings
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        model = next(
            (_model_in(field.annotation) for field in model.model_fields.values() if field.alias == part), None
        )
        if model is None:
            return []
    names = [str(field.alias) for field in model.model_fields.values()]
    return sorted({*names, *SECRET_KEYS} - {"region"}) if model is StackSettings else names


def _places(model: type[Settings], section: str = "") -> Iterator[str]:
    """Every setting by its path, those of a tier as ``tiers[].name``."""
    for field in model.model_fields.values():
        inner = _model_in(field.annotation)
        path = f"{section}.{field.alias}".removeprefix(".")
        yield path
        if inner:
            yield from _places(inner, f"{path}[]" if field.alias == "tiers" else path)


def _model_in(annotation: Any) -> Any:
    """The settings model inside an annotation such as ``tuple[TierSettings, ...]`` or ``WorkingHours | None``."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next(filter(None, (_model_in(part) for part in getattr(annotation, "__args__", ()))), None)
