"""What a person asks for: the stack configuration of the namespace ``frugal-llm``.

This is the only file that knows the configuration's keys. Models are frozen and refuse keys they do not know;
``reading.py`` turns what they refuse into problems with path, value, limit and way out. Whether a model, a checkpoint
or a GPU exists is the planner's to say, in the same form.
"""

from __future__ import annotations

import bisect
import ipaddress
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from problems import Conflict, did_you_mean

#: Configuration keys whose values are secrets. The planner never sees them; the program reads them as Pulumi secrets.
SECRET_KEYS = frozenset({"huggingFaceToken", "apiKey"})


def _cron(expression: str) -> str:
    fields = expression.split()
    if len(fields) != 5:
        raise PydanticCustomError(
            "cron", "must have the 5 fields minute, hour, day of month, month, day of week; for example 0 8 * * 1-5"
        )
    try:
        CronSim(expression, datetime(2026, 1, 5))
    except CronSimError as error:
        if "day" in str(error) and _is_cron(" ".join([*fields[:3], "*", fields[4]])):
            raise PydanticCustomError(
                "cron",
                "names a day that its months do not have, so it never comes; name days of the week, {example}",
                {"example": _CRON_EXAMPLE},
            ) from error
        raise PydanticCustomError(
            "cron", "is no cron expression ({why}); {example}", {"why": str(error), "example": _CRON_EXAMPLE}
        ) from error
    return expression


_CRON_EXAMPLE = "for example 0 8 * * 1-5"


def _is_cron(expression: str) -> bool:
    try:
        CronSim(expression, datetime(2026, 1, 5))
    except CronSimError:
        return False
    return True


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        hint = did_you_mean(name, available_timezones())
        raise PydanticCustomError("timezone", "is no IANA time zone; {hint}", {"hint": hint}) from error
    return name


def _ipv4_network(block: str) -> ipaddress.IPv4Network:
    if "/" not in block:
        raise PydanticCustomError("cidr", "is no block; of one address write {block}/32", {"block": block})
    try:
        return ipaddress.IPv4Network(block)
    except ValueError as error:
        raise PydanticCustomError(
            "cidr", "is no IPv4 block ({why}); for example 10.42.0.0/16", {"why": str(error)}
        ) from error


#: What no router of the internet forwards: RFC 1918 and RFC 6598.
_PRIVATE_BLOCKS = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))


def _reachable_from(block: str) -> str:
    network = _ipv4_network(block)
    if network.prefixlen < 8:
        raise PydanticCustomError("cidr", "opens the Kubernetes API to everybody; name your own addresses")
    if any(network.overlaps(private) for private in _PRIVATE_BLOCKS):
        raise PydanticCustomError(
            "cidr",
            "is a private block, which the API's public endpoint never sees; name the public addresses that your "
            "network leaves by, or nothing: what is connected to the VPC reaches the private endpoint anyway",
        )
    return block


def _private_block(block: str) -> str:
    network = _ipv4_network(block)
    if not any(network.subnet_of(private) for private in _PRIVATE_BLOCKS):
        raise PydanticCustomError("cidr", "is a public block; for example 10.42.0.0/16")
    return block


def _arn(form: str, what: str, example: str) -> Callable[[str], str]:
    """Make a validator of ARNs that says what a wrong one is the ARN of."""

    def validated(arn: str) -> str:
        if not re.fullmatch(form, arn):
            parts = arn.split(":", 5)
            kind = re.split("[/:]", parts[5])[0] if len(parts) == 6 and parts[0] == "arn" else ""
            found = f"is the ARN of {kind} in {parts[2]}, not of {what}" if kind else f"is no ARN of {what}"
            raise PydanticCustomError("arn", "{found}; for example {example}", {"found": found, "example": example})
        return arn

    return validated


def _https_url(url: str) -> str:
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise PydanticCustomError("credentials", "has a user in it: a password would stand in clear; leave it out")
    if not re.fullmatch(r"https://[^\s/?#]+\S*", url):
        raise PydanticCustomError("url", "is no https URL; for example https://idp.example.com/oauth2/token")
    return url


def _alertmanager(url: str) -> str:
    """Plain HTTP is for one in the VPC."""
    if "@" in url:
        raise PydanticCustomError("credentials", "has a user in it: a password would stand in clear; leave it out")
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
        raise PydanticCustomError("url", "is no URL of an Alertmanager; for example https://alerts.example.com:9093")
    return url


def _release(alias: str) -> str:
    """An AL2023 release is named by its day."""
    family, _, release = alias.partition("@v")
    if family == "al2023":
        try:
            date.fromisoformat(f"{release[:4]}-{release[4:6]}-{release[6:]}")
        except ValueError:
            raise PydanticCustomError("release", "names no day; for example al2023@v20260714") from None
    return alias


_HEADERS_OF_HTTP = frozenset(
    {"accept", "authorization", "connection", "content-length", "content-type", "cookie", "host", "transfer-encoding"}
)


_HEADERS_OF_PROXIES = ("x-amzn-", "x-envoy-", "x-forwarded-", "x-gateway-", "x-llm-d-", "x-prefiller-", "x-real-ip")
"""Beginnings of headers that load balancers and routers on the way set or take away."""


def _free_header(name: str) -> str:
    if name.lower() in _HEADERS_OF_HTTP:
        raise PydanticCustomError("header", "has a meaning of its own in HTTP; for example X-Model-Tier")
    if name.lower().startswith(_HEADERS_OF_PROXIES):
        raise PydanticCustomError("header", "is set or taken away by proxies on the way; for example X-Model-Tier")
    return name


_TAGS_OF_OTHERS = ("aws:", "eks:", "karpenter.", "kubernetes.io/", "frugal-llm:")


def _free_tag(key: str) -> str:
    if key.lower().startswith(_TAGS_OF_OTHERS) or key == "Name":
        raise PydanticCustomError(
            "tag", "is reserved: AWS, Karpenter, Kubernetes and this program select by such tags; give it another name"
        )
    return key


def _different(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise PydanticCustomError("different", "names {twice} twice; name it once", {"twice": ", ".join(twice)})
    return values


def _unquoted(value: object) -> object:
    """A number must not be ``true``, which is no 1, nor stand in quotes.

    Text of a number that is not whole passes: ``pulumi config set --path`` writes ``true``, ``false`` and whole numbers
    as what they are and leaves every other value text (``adjustObjectValue`` of Pulumi's SDK, read 2026-11).
    """
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number, not true or false")
    if isinstance(value, str):
        try:
            number = int(value)
        except ValueError:
            return value
        raise PydanticCustomError("number", "must be a number, not text; write {number}", {"number": number})
    return value


def _free_name(name: str) -> str:
    if name == "system":
        raise PydanticCustomError("name", "is taken by the nodes of the controllers; give the tier another")
    return name


def _without_conflicts(conflicts: Sequence[Conflict]) -> None:
    if conflicts:
        # As data and not as the message: what a person wrote may hold braces.
        raise PydanticCustomError("conflicts", "settings conflict", {"conflicts": tuple(conflicts)})


#: By setting: what is meant, for messages about a value that has another form.
PATTERN_HINTS = {
    "sharedClaim": "the name of a PersistentVolumeClaim",
    "secretName": "the name of a Kubernetes Secret, not what it holds",
    "kubernetesVersion": 'a minor version in quotes, for example "1.36": without them YAML reads 1.40 as 1.4',
    "adminRoleArns": (
        "for example arn:aws:iam::111122223333:role/Admin: of an assumed role the role itself, of an account no root"
    ),
    "certificateArn": "an ACM certificate, for example arn:aws:acm:us-east-2:111122223333:certificate/0123abcd-…",
    "notify": "an e-mail address, for example ops@example.com",
    "privateSubnetIds": "for example subnet-0123456789abcdef0",
    "publicSubnetIds": "for example subnet-0123456789abcdef0",
    "vpcId": "for example vpc-0123456789abcdef0",
    "accountId": 'the 12 digits in quotes, for example "111122223333"',
    "host": "a DNS name in lower case, for example llm.example.com",
    "name": "lower-case letters, digits and hyphens, at most 30: it becomes part of Kubernetes names",
    "header": "letters, digits and hyphens: a load balancer condition takes at most 40",
    "amiAlias": (
        "for example al2023@v20260714 or bottlerocket@v1.62.1; latest is refused because it would replace nodes on "
        "every release"
    ),
}


Cron = Annotated[str, AfterValidator(_cron)]
Timezone = Annotated[str, AfterValidator(_timezone)]
TierName = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$"), AfterValidator(_free_name)]
EmailAddress = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]
Count = Annotated[int, BeforeValidator(_unquoted), Field(ge=0, le=10_000)]
Positive = Annotated[float, BeforeValidator(_unquoted), Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, BeforeValidator(_unquoted), Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(_unquoted), Field(ge=0, le=1, allow_inf_nan=False)]

RoleArn = Annotated[
    str,
    AfterValidator(
        _arn(
            r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+",
            "an IAM role",
            "arn:aws:iam::111122223333:role/eks-cluster",
        )
    ),
]
KeyArn = Annotated[
    str,
    AfterValidator(
        _arn(
            r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[\w-]+",
            "a KMS key",
            "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        )
    ),
]
WebAclArn = Annotated[
    str,
    AfterValidator(
        _arn(
            r"arn:aws[a-z-]*:wafv2:[a-z0-9-]+:\d{12}:regional/webacl/[\w-]+/[\w-]+",
            "a regional web ACL of WAF v2",
            "arn:aws:wafv2:us-east-1:111122223333:regional/webacl/llm/1234abcd-12ab-34cd-56ef-1234567890ab",
        )
    ),
]
HttpsUrl = Annotated[str, AfterValidator(_https_url)]
KubernetesName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HostName = Annotated[str, Field(pattern=rf"^(\*\.)?({_LABEL}\.)*{_LABEL}$", max_length=253)]
SubnetId = Annotated[str, Field(pattern=r"^subnet-([0-9a-f]{8}|[0-9a-f]{17})$")]

Quantization = Literal["auto", "fp16", "fp8", "int8", "gptq", "awq", "w4a16", "nvfp4", "mxfp4", "gguf"]
KvCacheDtype = Literal["auto", "fp8"]


class Settings(BaseModel):
    """The manners of every section: frozen, no unknown keys, camelCase outside and snake_case inside.

    What is true or false is written so and not as text, which one tool takes for what it says and the next for true.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )


class LatencyTarget(Settings):
    """The latency that 95 of 100 requests must meet."""

    ttft_ms: Positive
    """Time to the first token, milliseconds."""
    tpot_ms: Positive
    """Time per output token after the first, milliseconds."""


class Traffic(Settings):
    """How much a tier is used, and when."""

    requests_per_day: Annotated[NotNegative, Field(le=1e9)]
    """Mean over the days of a week; with growth, at the start of the month."""
    input_tokens: Annotated[int, BeforeValidator(_unquoted), Field(ge=1)]
    """Mean prompt length, tokens."""
    output_tokens: Annotated[int, BeforeValidator(_unquoted), Field(ge=1)]
    """Mean answer length, tokens."""
    profile: str = "flat"
    """The shape of the week: ``flat``, ``office-hours``, ``global``, ``batch-window``, the name of a public trace, or
    the path of a trace file relative to the stack file, with a slash or ``.csv`` in it (``./week.csv``;
    ``docs/traffic.md`` lists them and says what a file holds)."""
    peak_over_mean: Annotated[Positive, Field(ge=1, le=168)] | None = None
    """Busiest hour of the week over its mean hour, in place of the profile's own."""
    growth_percent_per_month: Annotated[float, BeforeValidator(_unquoted), Field(ge=-90, le=900)] = 0.0
    """How much more is asked at the end of the month than at its start."""
    prefix_hit_rate: Share = 0.0
    """Share of input tokens found in the prefix cache. Saves prefill work only; 0 until measured."""
    burstiness: Annotated[Positive, Field(le=100)] = 1.0
    """Coefficient of variation of the time between requests: 1 is Poisson, public traces reach 1 to 8."""
    input_tokens_cv: Annotated[NotNegative, Field(le=10)] = 0.7
    """Coefficient of variation of prompt lengths: 0 is all alike, 1 exponential. 0.7: Azure's conversations of 2023."""
    output_tokens_cv: Annotated[NotNegative, Field(le=10)] = 1.1
    """Coefficient of variation of answer lengths. 1.1: Azure's conversations of 2023."""

    @property
    def mean_requests_per_day(self) -> float:
        """Mean over the days of the month, growth included."""
        rate = math.log1p(self.growth_percent_per_month / 100)
        return self.requests_per_day * (math.expm1(rate) / rate if rate else 1.0)


class Disaggregation(Settings):
    """Prefill and decode in pods of their own, with a shared KV store. Off unless asked for."""

    enabled: StrictBool = False
    """Apart where that is cheaper than together; where it is not, the plan is refused unless ``insist`` says so."""
    insist: StrictBool = False
    """Apart even where it costs more: to try it, or for latencies that the plan does not know of."""
    kv_store_gib: Annotated[Positive, Field(le=2048)] = 32.0
    """Host memory for offloaded KV blocks of one replica, GiB."""
    shared_store: Literal["none", "s3", "file"] = "none"
    """A second level behind it that all replicas share: none, the stack's bucket, or files on ``sharedClaim``."""
    efa: StrictBool = True
    """Move KV blocks over Elastic Fabric Adapters where every instance type of the tier has them; both roles then stay
    in one zone, which EFA does not leave. False: over TCP, in any zone."""
    shared_claim: KubernetesName | None = None
    """With ``sharedStore: file``: a PersistentVolumeClaim in the namespace ``llm`` that many nodes may write to
    (``ReadWriteMany``, for example of EFS) and whose files user 2000 may write, as which vLLM runs. You make it, with
    its driver, once the first ``pulumi up`` has made the namespace: the pods wait for it. Its price is not in the bill,
    and nobody deletes old blocks there."""

    @model_validator(mode="after")
    def _files_have_a_place(self) -> Self:
        if self.shared_store == "file" and self.shared_claim is None:
            limit = "needs sharedClaim, the claim that holds the files"
            conflict = Conflict(("sharedStore", "sharedClaim"), "file", limit, "name one, or choose s3")
        elif self.shared_store != "file" and self.shared_claim is not None:
            limit = f"is for sharedStore file, and sharedStore is {self.shared_store}"
            conflict = Conflict(("sharedClaim", "sharedStore"), self.shared_claim, limit, "set that, or leave it out")
        else:
            return self
        _without_conflicts([conflict])
        return self


class ApiPrice(Settings):
    """An API's prices, USD per million tokens without tax; APIs bill prompts and answers apart."""

    input: NotNegative
    """Of prompts."""
    output: NotNegative
    """Of answers."""


class TierSettings(Settings):
    """One tier: a model behind one value of the routing header."""

    name: TierName
    """The value of the routing header, and part of Kubernetes names."""
    model: str
    """A Hugging Face model id: of the catalogue, or with ``architecture`` any."""
    architecture: str | None = None
    """Path of the model's ``config.json`` (or its directory), relative to the stack file, for a model outside the
    catalogue; it is served in its own release."""
    quantization: Quantization = "auto"
    """``auto`` takes the cheapest that exists and meets the target; ``gguf`` runs on CPU."""
    max_model_len: Annotated[int, BeforeValidator(_unquoted), Field(ge=128)] = 8192
    """Longest prompt and answer together, tokens."""
    max_quality_loss_percent: Annotated[NotNegative, Field(le=100)] | None = None
    """Most of the 16-bit model's benchmark scores that quantisation may cost, by published results. Left out: 3 under
    ``auto``, and no limit for a quantization asked for by name."""
    kv_cache_dtype: KvCacheDtype = "auto"
    """``fp8`` halves the cache's memory, and that of its copies in host memory and bucket; ``auto`` is the model's 16
    bit."""
    kv_offload_gib: Annotated[NotNegative, Field(le=2048)] | None = None
    """Host memory of a replica for the KV cache of prompts that may come again, GiB; they are read back instead of
    computed. It may take larger nodes. Left out: what the nodes leave unused, where ``traffic.prefixHitRate`` is above
    0 and that is more than the GPUs' own cache."""
    slo: LatencyTarget
    """Latency target."""
    traffic: Traffic
    """What is asked of the tier."""
    min_replicas: Count = 0
    """Replicas kept at any hour; 0 lets the tier sleep."""
    max_replicas: Annotated[int, BeforeValidator(_unquoted), Field(ge=1, le=10_000)] | None = None
    """Most replicas; left out, it follows from the peak and the budget."""
    working_hours_replicas: Count = 1
    """Replicas kept during working hours, when the schedule has them; 0 lets the tier sleep then too."""
    on_demand_floor: Count = 0
    """Replicas of ``minReplicas`` that run on on-demand nodes and are never interrupted."""
    paused_replicas: Annotated[int, BeforeValidator(_unquoted), Field(ge=0, le=10_000)] | None = None
    """Pauses the autoscaler at so many replicas, ``onDemandFloor`` included, whatever the load and the hour: 0 stops
    the tier. With prefill and decode apart, of each. The month is that of these replicas; the choice of checkpoint,
    GPUs and limits stays. Left out, the tier scales."""
    gpus: tuple[str, ...] = ()
    """GPU models that may be used; empty: all that fit."""
    disaggregation: Disaggregation = Disaggregation()
    """Prefill and decode apart."""
    api_usd_per_million_tokens: ApiPrice | None = None
    """What an API asks for the same model: the plan then says from how many requests a day serving it yourself pays."""

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        _without_conflicts([*self._replicas_out_of_order(), *self._without_use(), *self._too_long()])
        return self

    def _replicas_out_of_order(self) -> Iterator[Conflict]:
        least, most, floor = self.min_replicas, self.max_replicas, self.on_demand_floor
        hours, paused = self.working_hours_replicas, self.paused_replicas
        either = "raise the one or lower the other"
        if most is not None and most < least:
            yield Conflict(("maxReplicas", "minReplicas"), most, f"is below minReplicas {least}", either)
        if most is not None and hours > max(1, most):
            yield Conflict(
                ("workingHoursReplicas", "maxReplicas"),
                hours,
                f"is above maxReplicas {most}",
                f"lower it to {most} or raise maxReplicas",
            )
        if floor > least:
            yield Conflict(
                ("onDemandFloor", "minReplicas"),
                floor,
                f"is above minReplicas {least}, of which a floor is part",
                f"raise minReplicas to {floor} or lower the floor",
            )
        if paused is not None and paused < floor:
            yield Conflict(
                ("pausedReplicas", "onDemandFloor"),
                paused,
                f"is below onDemandFloor {floor}, which runs whatever the autoscaler does",
                f"pause at {floor} or above, or lower onDemandFloor and minReplicas too",
            )
        if paused is not None and most is not None and paused > most:
            yield Conflict(("pausedReplicas", "maxReplicas"), paused, f"is above maxReplicas {most}", either)
        if floor and self.disaggregation.enabled:
            yield Conflict(
                ("onDemandFloor", "disaggregation"),
                floor,
                "needs prefill and decode together: apart they have no floor",
                "the nearest that works is onDemandFloor 0, or disaggregation.enabled false",
            )

    def _without_use(self) -> Iterator[Conflict]:
        gguf = self.quantization == "gguf"
        if self.kv_offload_gib and self.disaggregation.enabled and not gguf:
            yield Conflict(
                ("kvOffloadGib", "disaggregation"),
                self.kv_offload_gib,
                "prefill and decode pods have a store already",
                "write disaggregation.kvStoreGib in its place, or set disaggregation.enabled false",
            )
        if gguf and self.gpus:
            way_out = "leave gpus out, or choose another quantization"
            yield Conflict(("gpus", "quantization"), [*self.gpus], "GGUF runs on CPUs here", way_out)
        if gguf and self.kv_cache_dtype != "auto":
            way_out = "leave it out, or choose another quantization"
            limit = "is of vLLM, and GGUF is run by llama.cpp"
            yield Conflict(("kvCacheDtype", "quantization"), self.kv_cache_dtype, limit, way_out)
        if gguf and self.kv_offload_gib:
            yield Conflict(
                ("kvOffloadGib", "quantization"),
                self.kv_offload_gib,
                "llama.cpp, which runs GGUF, has its cache in host memory already",
                "leave it out, or choose another quantization",
            )

    def _too_long(self) -> Iterator[Conflict]:
        asked = self.traffic.input_tokens + self.traffic.output_tokens
        if asked > self.max_model_len:
            yield Conflict(
                ("maxModelLen", "traffic"),
                self.max_model_len,
                f"is below the {asked:,} tokens of a request on average (traffic.inputTokens and outputTokens)",
                f"raise it to {asked} or more, as far as the model's context goes",
            )


class Routing(Settings):
    """How a request finds its tier."""

    header: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,39}$"), AfterValidator(_free_header)] = (
        "X-Model-Tier"
    )
    """Name of the request header that names the tier."""
    default_tier: str | None = None
    """The tier of requests without the header; left out, the first tier."""
    by_model_field: StrictBool = False
    """Let requests without the header choose by the ``model`` field of their JSON body, a tier's name or its model id,
    for clients that cannot set headers. Two Envoys on the system nodes then read each such body whole before it goes
    on; what names no model there still goes to the default tier."""


class Capacity(Settings):
    """Where nodes come from."""

    spot: StrictBool = True
    """Buy spot first; false: on-demand only."""
    on_demand_fallback: StrictBool = True
    """Buy on-demand while no spot offering of the pool is to be had."""
    excluded_instance_types: tuple[str, ...] = ()
    """Types that no pool may launch."""
    ami_alias: Annotated[
        str, Field(pattern=r"^(al2023@v\d{8}|bottlerocket@v?\d+\.\d+\.\d+)$"), AfterValidator(_release)
    ] = "al2023@v20260714"
    """Pinned EKS AMI of the GPU nodes, AL2023 or Bottlerocket (``bottlerocket@v1.62.1``); ``@latest`` is refused, it
    would replace nodes on every release. A release whose NVIDIA driver is too old for vLLM is refused too."""


_HOURS_THAT_OPEN = (
    'name days of the week, and an end after the start, for example start: "0 8 * * 1-5" and end: "0 18 * * 1-5"'
)


class WorkingHours(Settings):
    """When the tiers are kept awake, as two cron expressions in the schedule's time zone."""

    start: Cron = "0 8 * * 1-5"
    """When the working hours' replicas start."""
    end: Cron = "0 18 * * 1-5"
    """When they may go."""

    @model_validator(mode="after")
    def _opens(self) -> Self:
        hours = sum(open_hours(self))
        if 0 < hours < 168:
            return self
        limit = f"with end {self.end!r} it leaves no hour {'closed' if hours else 'open'} in a week"
        dated = any(cron.split()[2:4] != ["*", "*"] for cron in (self.start, self.end))
        limit += ": dates come in few weeks only" if dated else ""
        way_out = _HOURS_THAT_OPEN + ("; or leave workingHours out: every hour is one then" if hours else "")
        _without_conflicts([Conflict(("start", "end"), self.start, limit, way_out)])
        return self


class Schedule(Settings):
    """The clock of the stack."""

    timezone: Timezone = "UTC"
    """IANA name; the hours of the traffic profiles are local too."""
    working_hours: WorkingHours | None = None
    """Left out: every hour is a working hour."""


class Scaling(Settings):
    """How replicas follow the load."""

    scale_to_zero: StrictBool = True
    """Let tiers with ``minReplicas: 0`` sleep while idle and outside working hours."""
    idle_cooldown_minutes: Positive | None = None
    """Idle minutes before the last replica goes; left out, 10 to 60: until staying up costs a start."""
    node_idle_minutes: Positive = 5.0
    """Minutes an empty node is kept for the next replica."""
    grace_seconds: Annotated[int, BeforeValidator(_unquoted), Field(ge=30, le=540)] = 110
    """Seconds that a stopping replica has for the answers it is giving; it is gone as soon as they are. At most 110
    with spot, which gives two minutes. More is for long answers with ``capacity.spot: false``."""


class Oidc(Settings):
    """Sign-in at the load balancer by OpenID Connect, for people with browsers; programs follow no such redirect."""

    issuer: HttpsUrl
    """The provider's issuer, as in its discovery document."""
    authorization_endpoint: HttpsUrl
    """Where browsers are sent; this and the next two are in the discovery document too."""
    token_endpoint: HttpsUrl
    """Where the load balancer changes a code for a token. It asks from inside the VPC, by a name that is public."""
    user_info_endpoint: HttpsUrl
    """Where the load balancer asks who has signed in."""
    secret_name: KubernetesName
    """A Secret in the namespace ``llm`` with the keys ``clientID`` and ``clientSecret``. You make it, once the first
    ``pulumi up`` has made the namespace (it waits for the load balancer, and that for the Secret), so that neither the
    stack file nor Pulumi's state holds them."""
    scope: Annotated[str, Field(pattern=r"^\S+( \S+)*$")] = "openid"
    """What is asked of the provider, separated by blanks."""
    session_hours: Annotated[Positive, Field(le=168)] = 168.0
    """How long a sign-in lasts; AWS allows a week."""
    on_unauthenticated: Literal["authenticate", "deny"] = "authenticate"
    """Send who has not signed in to the provider, or answer 401."""


class Network(Settings):
    """The VPC and the way in."""

    vpc_cidr: Annotated[str, AfterValidator(_private_block)] = "10.42.0.0/16"
    """A /16 to /20; pods take their addresses from it. With ``vpcId``, the block of that VPC that holds the subnets."""
    vpc_id: Annotated[str, Field(pattern=r"^vpc-([0-9a-f]{8}|[0-9a-f]{17})$")] | None = None
    """A VPC of your own, which then also has the ways out: the stack makes no gateway, route or endpoint in it. Needs
    ``vpcCidr``, ``zones`` and ``privateSubnetIds``."""
    private_subnet_ids: tuple[SubnetId, ...] = ()
    """Of your own VPC, one for each of ``zones`` and in their order: nodes and pods. They need a route out."""
    public_subnet_ids: tuple[SubnetId, ...] = ()
    """The same for an internet-facing load balancer; without one they may be left out."""
    zones: tuple[str, ...] = ()
    """Availability zones; empty: three of the region."""
    nat_gateways: Literal["single", "per-zone"] = "single"
    """One for all zones is cheaper; one per zone survives the loss of a zone."""
    private_endpoints: StrictBool = False
    """Reach the AWS services that the nodes call through interface endpoints also where NAT is cheaper, so that this
    traffic stays off the internet."""
    api_endpoint_cidrs: tuple[Annotated[str, AfterValidator(_reachable_from)], ...] = ()
    """Who may reach the Kubernetes API from outside the VPC; empty: nobody, it is private."""
    ingress_scheme: Literal["internal", "internet-facing"] = "internal"
    """Who reaches the load balancer: the VPC, or everybody (then with a certificate)."""
    certificate_arn: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/.+$")] | None = (
        None
    )
    """ACM certificate of the listener; left out, an internal load balancer speaks plain HTTP."""
    host: HostName | None = None
    """Host name of the Ingress rule; left out, any."""
    web_acl_arn: WebAclArn | None = None
    """Regional web ACL of WAF v2 before the load balancer; its price is not in the bill. AWS' common rule set blocks
    bodies over 8 KB (``SizeRestrictions_BODY``), so long prompts: set that rule to count. Left out again, the web ACL
    stays until you take it off."""
    oidc: Oidc | None = None
    """Sign-in at the load balancer; left out, none."""

    @model_validator(mode="after")
    def _tls_outside(self) -> Self:
        conflicts: list[Conflict] = []
        if self.ingress_scheme == "internet-facing" and self.certificate_arn is None:
            limit = "needs certificateArn: API keys must not cross the internet in clear"
            way_out = f"add certificateArn, {PATTERN_HINTS['certificateArn']}; or set internal"
            conflicts.append(Conflict(("ingressScheme", "certificateArn"), self.ingress_scheme, limit, way_out))
        if self.oidc is not None and self.certificate_arn is None:
            limit = "needs certificateArn: a load balancer signs people in on HTTPS listeners only"
            conflicts.append(Conflict(("oidc", "certificateArn"), None, limit, "add certificateArn, or leave oidc out"))
        _without_conflicts(conflicts)
        return self


class Access(Settings):
    """Who may administer the cluster."""

    admin_role_arns: Annotated[
        tuple[Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:(role|user)/.+$")], ...],
        AfterValidator(_different),
    ] = ()
    """IAM principals with cluster administrator rights beside the one that creates the cluster; other accounts' too."""
    account_id: Annotated[str, Field(pattern=r"^\d{12}$")] | None = None
    """The AWS account of the stack. Credentials of any other are refused before the first resource."""

    @property
    def allowed_account_ids(self) -> list[str] | None:
        """As the AWS provider takes it."""
        return None if self.account_id is None else [self.account_id]


class Cluster(Settings):
    """The Kubernetes cluster, and what of it you bring yourself."""

    kubernetes_version: Annotated[str, Field(pattern=r"^1\.\d+$")] = "1.36"
    """Minor version, in quotes: one that Karpenter and KEDA support and whose add-ons are pinned here."""
    role_arn: RoleArn | None = None
    """Role of the control plane with the policy AmazonEKSClusterPolicy; left out, the stack makes one."""
    node_role_arn: RoleArn | None = None
    """Role of all nodes with the policies AmazonEKSWorkerNodePolicy, AmazonEKS_CNI_Policy,
    AmazonEC2ContainerRegistryPullOnly and AmazonSSMManagedInstanceCore; left out, the stack makes two."""
    secrets_key_arn: KeyArn | None = None
    """KMS key that encrypts Kubernetes secrets, symmetric and of the stack's region; left out, the stack makes one."""


class Observability(Settings):
    """Metrics and dashboards. Prometheus always runs: the wake-up of a sleeping tier reads it."""

    grafana: StrictBool = True
    """Grafana with the stack's dashboard."""
    retention_days: Annotated[int, BeforeValidator(_unquoted), Field(ge=1, le=365)] = 35
    """Days that Prometheus keeps. Under 31 the month so far lacks its first days at its end."""
    storage_gib: Annotated[int, BeforeValidator(_unquoted), Field(ge=10, le=16_384)] = 50
    """Prometheus' volume, GiB."""
    alertmanager_url: Annotated[str, AfterValidator(_alertmanager)] | None = None
    """An Alertmanager outside the cluster that gets every alert, and ``Watchdog`` as long as Prometheus is there. Left
    out: alerts only show in Prometheus and Grafana."""
    control_plane_logs: tuple[Literal["api", "audit", "authenticator", "controllerManager", "scheduler"], ...] = (
        "audit",
        "authenticator",
    )
    """Logs of the Kubernetes control plane that go to CloudWatch."""
    log_retention_days: Annotated[int, BeforeValidator(_unquoted), Field(ge=1, le=3653)] = 30
    """Days that CloudWatch keeps the control plane's logs."""


class Prices(Settings):
    """Where instance prices come from. Those of the repository give the same plan twice and need no account."""

    live: StrictBool = False
    """Read today's prices of the region from AWS before planning, with the caller's credentials
    (``pricing:GetProducts``, ``ec2:DescribeSpotPriceHistory``, ``ec2:DescribeInstanceTypeOfferings``). Where that
    fails, the plan says so and uses the repository's."""


class Budget(Settings):
    """What the month may cost, and with it how far the stack may grow."""

    monthly_usd: Positive | None = None
    """Held against the projected month, watched by an AWS budget, and shared among replicas and node pools: at all
    their limits for a month at the worst price they cost no more, unless the planned peaks alone do, which are kept
    with a warning. Left out: no check, no alarm, and limits from the busiest week alone."""
    compare: Literal["expected", "high"] = "expected"
    """Which figure of the projected month is held against ``monthlyUsd``."""
    when_exceeded: Literal["fail", "warn"] = "fail"
    """Over it, the preview fails, or warns."""
    notify: tuple[EmailAddress, ...] = ()
    """E-mail addresses of the AWS budget: at 80 % spent, 100 % forecast, 100 % spent; left out, it mails nobody."""


class StackSettings(Settings):
    """The whole configuration of a stack."""

    region: str
    tiers: Annotated[tuple[TierSettings, ...], Field(min_length=1)]
    routing: Routing = Routing()
    capacity: Capacity = Capacity()
    schedule: Schedule = Schedule()
    scaling: Scaling = Scaling()
    network: Network = Network()
    access: Access = Access()
    cluster: Cluster = Cluster()
    observability: Observability = Observability()
    prices: Prices = Prices()
    budget: Budget = Budget()
    tags: dict[
        Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_free_tag)],
        Annotated[str, Field(max_length=256)],
    ] = {}

    @property
    def default_tier(self) -> str:
        """The tier that serves requests without the routing header."""
        return self.routing.default_tier or self.tiers[0].name


def open_hours(hours: WorkingHours | None) -> tuple[float, ...]:
    """Tell for each of a week's 168 hours, from Monday 00:00 local time, which share of it are working hours."""
    if hours is None:
        return (1.0,) * 168
    # KEDA's rule: the tier is kept while the next end comes before the next start. 2026-01-05 is a Monday.
    week = datetime(2026, 1, 5)
    starts, ends = (_events(expression, week) for expression in (hours.start, hours.end))

    def share(hour: int) -> float:
        first = week + timedelta(hours=hour)
        changes = any(_next(events, first) < first + timedelta(hours=1) for events in (starts, ends))
        minutes = range(60) if changes else range(1)
        moments = [first + timedelta(minutes=minute, seconds=30) for minute in minutes]
        return sum(_next(ends, moment) < _next(starts, moment) for moment in moments) / len(minutes)

    return tuple(share(hour) for hour in range(168))


def _events(expression: str, week: datetime) -> list[datetime]:
    """Moments of a cron expression from a week's start to far beyond its end."""
    horizon = week + timedelta(days=42)
    return list(itertools.takewhile(lambda moment: moment < horizon, CronSim(expression, week - timedelta(seconds=1))))


_NEVER = datetime(9999, 1, 1)


def _next(events: Sequence[datetime], moment: datetime) -> datetime:
    position = bisect.bisect_right(events, moment)
    return events[position] if position < len(events) else _NEVER
