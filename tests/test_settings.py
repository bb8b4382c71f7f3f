"""What a person may write, and what they are told when it is wrong."""

from typing import Any

import pytest
from pydantic import ValidationError

from problems import ConfigurationError, did_you_mean
from reading import read
from settings import StackSettings, WorkingHours, open_hours


def tier(**changes: Any) -> dict[str, Any]:
    return {
        "name": "fast",
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "slo": {"ttftMs": 1000, "tpotMs": 80},
        "traffic": {"requestsPerDay": 1000, "inputTokens": 900, "outputTokens": 150},
        **changes,
    }


OIDC = {
    "issuer": "https://idp.example.com",
    "authorizationEndpoint": "https://idp.example.com/authorize",
    "tokenEndpoint": "https://idp.example.com/token",
    "userInfoEndpoint": "https://idp.example.com/userinfo",
    "secretName": "sign-in",
}


def problems(**config: Any) -> list[str]:
    return [str(problem) for problem in read("us-east-1", {"tiers": [tier()], **config}).problems]


def test_the_smallest_configuration_is_a_region_and_a_tier() -> None:
    reading = read("us-east-1", {"tiers": [tier()]})
    assert reading.problems == ()
    assert reading.settings is not None
    assert reading.settings.default_tier == "fast"
    assert reading.settings.routing.header == "X-Model-Tier"


def test_settings_are_frozen() -> None:
    settings = read("us-east-1", {"tiers": [tier()]}).settings
    assert isinstance(settings, StackSettings)
    with pytest.raises(ValidationError, match="frozen"):
        settings.region = "eu-west-1"  # pyrefly: ignore[read-only]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"buget": {}}, "frugal-llm:buget: is no setting; did you mean budget?"),
        *(
            ({"tags": {key: "x"}}, "is reserved: AWS, Karpenter, Kubernetes and this program select by such tags")
            for key in ("aws:foo", "karpenter.sh/discovery", "kubernetes.io/cluster/x", "frugal-llm:stack", "Name")
        ),
        ({"routing": {"header": "Authorization"}}, "has a meaning of its own in HTTP; for example X-Model-Tier"),
        ({"capacity": {"amiAlias": "al2023@v20991399"}}, "names no day; for example al2023@v20260714"),
        (
            {"access": {"adminRoleArns": ["arn:aws:iam::111122223333:role/Admin"] * 2}},
            "names arn:aws:iam::111122223333:role/Admin twice; name it once",
        ),
        (
            {"access": {"adminRoleArns": ["arn:aws:iam::111122223333:root"]}},
            "for example arn:aws:iam::111122223333:role/Admin",
        ),
        ({"access": {"accountId": 12345}}, 'must be text; the 12 digits in quotes, for example "111122223333"'),
        (
            {"tiers": [tier(minReplicas=5, maxReplicas=2, onDemandFloor=9, workingHoursReplicas=0)]},
            "frugal-llm:tiers[0].maxReplicas is 2: is below minReplicas 5; raise the one or lower the other",
        ),
        (
            {"tiers": [tier(slo={"ttftMs": 1000, "tpotMS": 80})]},
            "frugal-llm:tiers[0].slo.tpotMS: is no setting; did you mean tpotMs",
        ),
        (
            {"tiers": [tier(quantization="fp9")]},
            "frugal-llm:tiers[0].quantization is 'fp9': is not allowed; did you mean",
        ),
        (
            {"tiers": [tier(traffic={"requestsPerDay": -5, "inputTokens": 9, "outputTokens": 9})]},
            "frugal-llm:tiers[0].traffic.requestsPerDay is -5: must be at least 0",
        ),
        ({"tiers": [tier(minReplicas=True)]}, "frugal-llm:tiers[0].minReplicas is true: must be a number"),
        ({"tiers": [tier(name="Fast tier")]}, "frugal-llm:tiers[0].name is 'Fast tier': must match"),
        (
            {"tiers": [tier(name="system")]},
            "frugal-llm:tiers[0].name is 'system': is taken by the nodes of the controllers",
        ),
        (
            {"routing": {"default_tier": "fast"}},
            "frugal-llm:routing.default_tier: is no setting; did you mean defaultTier",
        ),
        ({"tiers": [tier(maxReplicas=1, minReplicas=2)]}, "maxReplicas is 1: is below minReplicas 2"),
        (
            {"tiers": [tier(onDemandFloor=1)]},
            "onDemandFloor is 1: is above minReplicas 0, of which a floor is part; raise minReplicas to 1",
        ),
        (
            {"tiers": [tier(maxModelLen=512)]},
            "maxModelLen is 512: is below the 1,050 tokens of a request on average",
        ),
        ({"tiers": [tier(), tier()]}, "frugal-llm:tiers[1].name is 'fast': another tier has this name"),
        (
            {"routing": {"defaultTier": "fats"}},
            "frugal-llm:routing.defaultTier is 'fats': there is no tier of this name; did",
        ),
        (
            {"schedule": {"timezone": "Europe/Berln"}},
            "frugal-llm:schedule.timezone is 'Europe/Berln': is no IANA time zone; did you mean Europe/Berlin",
        ),
        (
            {"schedule": {"workingHours": {"start": "0 8 * * 1-9", "end": "0 18 * * 1-5"}}},
            "frugal-llm:schedule.workingHours.start is '0 8 * * 1-9': is no cron expression",
        ),
        ({"schedule": {"workingHours": {"start": "8:00"}}}, "must have the 5 fields minute, hour, day of month"),
        (
            {"schedule": {"workingHours": {"start": "0 8 * * 1", "end": "0 8 * * 1"}}},
            "frugal-llm:schedule.workingHours.start is '0 8 * * 1': with end '0 8 * * 1' it leaves no hour open in a "
            "week; name days of the week, and an end after the start",
        ),
        ({"budget": {"monthlyUsd": 0}}, "frugal-llm:budget.monthlyUsd is 0: must be above 0"),
        ({"budget": {"notify": ["nobody"]}}, "frugal-llm:budget.notify[0] is 'nobody'"),
        ({"network": {"vpcCidr": "169.254.0.0/16"}}, "is a public block"),
        ({"network": {"vpcCidr": "8.8.0.0/16"}}, "is a public block"),
        ({"network": {"vpcCidr": "10.042.0.0/16"}}, "is no IPv4 block"),
        ({"network": {"apiEndpointCidrs": ["203.0.113.9"]}}, "is no block; of one address write 203.0.113.9/32"),
        ({"network": {"host": "bad host"}}, "a DNS name in lower case, for example llm.example.com"),
        ({"network": {"host": "LLM.example.com"}}, "a DNS name in lower case"),
        ({"network": {"apiEndpointCidrs": ["0.0.0.0/0"]}}, "opens the Kubernetes API to everybody"),
        ({"network": {"apiEndpointCidrs": ["128.0.0.0/1"]}}, "opens the Kubernetes API to everybody"),
        (
            {"network": {"apiEndpointCidrs": ["203.0.113.0/24", "10.1.0.0/16"]}},
            "frugal-llm:network.apiEndpointCidrs[1] is '10.1.0.0/16': is a private block, which the API's public",
        ),
        ({"network": {"vpcId": "my-vpc"}}, "for example vpc-0123456789abcdef0"),
        ({"access": {"accountId": "1234"}}, "the 12 digits in quotes"),
        ({"cluster": {"kubernetesVersion": "v1.36"}}, 'a minor version in quotes, for example "1.36"'),
        ({"network": {"ingressScheme": "internet-facing"}}, "needs certificateArn"),
        ({"network": {"oidc": OIDC}}, "network.oidc: needs certificateArn: a load balancer signs people in on HTTPS"),
        (
            {"network": {"oidc": {**OIDC, "clientSecret": "canary"}}},
            "frugal-llm:network.oidc.clientSecret: is no setting",
        ),
        ({"network": {"oidc": {**OIDC, "secretName": "Pa$$"}}}, "the name of a Kubernetes Secret, not what it holds"),
        (
            {"observability": {"alertmanagerUrl": "https://user:canary@alerts.example.com"}},
            "frugal-llm:observability.alertmanagerUrl: has a user in it: a password would stand in clear; leave it out",
        ),
        (
            {"observability": {"alertmanagerUrl": "alerts.example.com:9093"}},
            "for example https://alerts.example.com:9093",
        ),
        ({"network": {"oidc": {**OIDC, "tokenEndpoint": "http://idp.example.com/t"}}}, "is no https URL"),
        ({"capacity": {"amiAlias": "al2023@latest"}}, "latest is refused"),
        ({"tiers": []}, "frugal-llm:tiers is []: needs at least 1 entry"),
        ({"tiers": "fast"}, "frugal-llm:tiers is 'fast': must be a list"),
        ({"budget": 800}, "frugal-llm:budget is 800: must be a mapping such as budget: {monthlyUsd: 800}"),
        ({"capacity": True}, "frugal-llm:capacity is true: must be a mapping of its settings: spot, "),
        ({"tags": 5}, "frugal-llm:tags is 5: must be a mapping of names to values, such as {team: ml}"),
        ({"tags": {"year": 2026}}, 'frugal-llm:tags.year is 2026: must be text; write "2026"'),
        ({"tiers": [tier(gpus="L4")]}, "frugal-llm:tiers[0].gpus is 'L4': must be a list; write gpus: [L4]"),
        ({"tiers": [tier(minReplicas="two")]}, "frugal-llm:tiers[0].minReplicas is 'two': must be a whole number"),
        ({"tiers": [tier(minReplicas=1.5)]}, "frugal-llm:tiers[0].minReplicas is 1.5: must be a whole number"),
        ({"tiers": [tier(maxModelLen=1)]}, "frugal-llm:tiers[0].maxModelLen is 1: must be at least 128"),
        ({"budget": {"monthlyUsd": "much"}}, "frugal-llm:budget.monthlyUsd is 'much': must be a number"),
        ({"capacity": {"spot": "maybe"}}, "frugal-llm:capacity.spot is 'maybe': must be true or false"),
        (
            {"capacity": {"spot": "no"}},
            "frugal-llm:capacity.spot is 'no': must be true or false; write false, without quotes",
        ),
        ({"capacity": {"spot": 1}}, "frugal-llm:capacity.spot is 1: must be true or false; write true, without quotes"),
        (
            {"tiers": [tier(minReplicas="3")]},
            "frugal-llm:tiers[0].minReplicas is '3': must be a number, not text; write 3",
        ),
        (
            {"budget": {"monthlyUsd": "800"}},
            "frugal-llm:budget.monthlyUsd is '800': must be a number, not text; write 800",
        ),
        ({"observability": {"storageGib": True}}, "must be a number, not true or false"),
        ({"tiers": [{"name": "fast"}]}, "frugal-llm:tiers[0].slo: is missing; add it, for example {ttftMs: 1000"),
        ({"tags": {"Name": "x"}}, "frugal-llm:tags.Name: is reserved"),
        ({"budget": {"[key]": 1}}, "frugal-llm:budget.[key]: is no setting"),
        ({"[key]": 1}, "frugal-llm:[key]: is no setting"),
        (
            {"tiers": [tier(quantization="gguf", gpus=["L4"])]},
            "frugal-llm:tiers[0].gpus is ['L4']: GGUF runs on CPUs here; leave gpus out, or choose another",
        ),
        (
            {"tiers": [tier(quantization="gguf", kvCacheDtype="fp8")]},
            "frugal-llm:tiers[0].kvCacheDtype is 'fp8': is of vLLM, and GGUF is run by llama.cpp; leave it out",
        ),
        (
            {"schedule": {"workingHours": {"start": "0 8 31 2 *"}}},
            "workingHours.start is '0 8 31 2 *': names a day that its months do not have, so it never comes; name days "
            "of the week, for example 0 8 * * 1-5",
        ),
        (
            {"schedule": {"workingHours": {"start": "0 8 29 2 *"}}},
            "workingHours.start is '0 8 29 2 *': with end '0 18 * * 1-5' it leaves no hour closed in a week: dates "
            "come in few weeks only; name days of the week",
        ),
        (
            {"schedule": {"workingHours": {"start": "* * * * *", "end": "59 23 31 12 *"}}},
            "leaves no hour open in a week: dates come in few weeks only",
        ),
        (
            {"tiers": [tier(budget={"monthlyUsd": 5})]},
            "frugal-llm:tiers[0].budget: is no setting here; it is one of the whole stack: frugal-llm:budget",
        ),
        ({"tiers": [tier(graceSeconds=90)]}, "is no setting here; it is frugal-llm:scaling.graceSeconds"),
        ({"defaultTier": "fast"}, "frugal-llm:defaultTier: is no setting here; it is frugal-llm:routing.defaultTier"),
        ({"scaling": {"minReplicas": 1}}, "is no setting here; it is frugal-llm:tiers[].minReplicas"),
        ({"tiers": [tier(region="us-east-1")]}, "is no setting here; it is one of the whole stack: aws:region"),
    ],
)
def test_a_mistake_is_reported_with_its_path_value_limit_and_way_out(config: dict[str, Any], expected: str) -> None:
    assert any(expected in line for line in problems(**config)), problems(**config)


def test_all_mistakes_of_a_configuration_come_together_and_the_sound_tiers_remain() -> None:
    reading = read(
        "us-east-1", {"tiers": [tier(name="a", quantization="x"), tier(name="b")], "buget": {}, "schedule": 5}
    )
    assert len(reading.problems) == 3
    assert reading.settings is not None
    assert [kept.name for kept in reading.settings.tiers] == ["b"]
    assert reading.tier_positions == (1,)


def test_a_missing_region_is_a_problem_of_its_own() -> None:
    assert [problem.path for problem in read(None, {"tiers": [tier()]}).problems] == ["aws:region"]


def test_a_secret_in_clear_is_refused_and_its_value_never_printed() -> None:
    found = read("us-east-1", {"tiers": [tier()], "apiKey": "sk-123"}, encrypted=frozenset()).problems
    assert [problem.path for problem in found] == ["frugal-llm:apiKey"]
    assert "sk-123" not in str(found[0])
    assert read("us-east-1", {"tiers": [tier()], "apiKey": ""}, encrypted=frozenset()).problems == ()


def test_working_hours_are_the_hours_between_the_cron_events() -> None:
    week = open_hours(WorkingHours(start="30 8 * * 1-5", end="0 18 * * 1-5"))
    # The hour of the start counts from half past, the end closes its own.
    assert week[:24] == (*[0] * 8, 0.5, *[1] * 9, *[0] * 6)
    assert not any(week[5 * 24 :])


def test_working_hours_are_what_keda_makes_of_the_two_expressions() -> None:
    # KEDA keeps the replicas while the next end comes before the next start. With an end on every day that is so from
    # Friday evening, when the next start is Monday's, until Sunday's end.
    daily_end = open_hours(WorkingHours(start="0 8 * * 1-5", end="0 18 * * *"))
    assert daily_end[4 * 24 + 20]
    assert not daily_end[6 * 24 + 20]
    # With an end on Fridays only, the next start comes first on every other day.
    friday_end = open_hours(WorkingHours(start="0 8 * * 1-5", end="0 18 * * 5"))
    assert not any(friday_end[: 4 * 24])
    assert friday_end[4 * 24 + 12]


def test_sections_may_come_as_json_text_or_as_nothing() -> None:
    reading = read("us-east-1", {"tiers": [tier()], "budget": '{"monthlyUsd": 5000}', "routing": None})
    assert reading.problems == ()
    assert reading.settings is not None
    assert reading.settings.budget.monthly_usd == 5000


def test_what_pulumi_writes_for_a_value_set_by_path_is_read() -> None:
    # `pulumi config set --path` makes true, false and whole numbers what they are and leaves "0.4" and "2.5" text.
    traffic = {"requestsPerDay": 1000, "inputTokens": 900, "outputTokens": 150, "prefixHitRate": "0.4"}
    reading = read(
        "us-east-1",
        {
            "tiers": [tier(traffic=traffic, maxQualityLossPercent="2.5")],
            "capacity": '{"spot": false, "onDemandFallback": true}',
        },
    )
    assert reading.problems == ()
    assert reading.settings is not None
    assert reading.settings.tiers[0].traffic.prefix_hit_rate == 0.4
    assert reading.settings.tiers[0].max_quality_loss_percent == 2.5
    assert not reading.settings.capacity.spot


def test_settings_that_do_not_go_together_are_found_beside_broken_ones() -> None:
    broken = tier(minReplicas=1, onDemandFloor=2, maxReplicas="many", gpus="L4")
    assert problems(tiers=[broken], network={"ingressScheme": "internet-facing", "zones": "us-east-1a"}) == [
        "frugal-llm:tiers[0].maxReplicas is 'many': must be a whole number",
        "frugal-llm:tiers[0].gpus is 'L4': must be a list; write gpus: [L4]",
        "frugal-llm:network.zones is 'us-east-1a': must be a list; write zones: [us-east-1a]",
        "frugal-llm:network.ingressScheme is 'internet-facing': needs certificateArn: API keys must not cross the "
        "internet in clear; add certificateArn, an ACM certificate, for example "
        "arn:aws:acm:us-east-2:111122223333:certificate/0123abcd-…; or set internal",
        "frugal-llm:tiers[0].onDemandFloor is 2: is above minReplicas 1, of which a floor is part; raise minReplicas "
        "to 2 or lower the floor",
    ]


@pytest.mark.parametrize(
    "config",
    [
        {"tiers": [tier(minReplicas="two", onDemandFloor=1)]},
        {"tiers": [tier(minReplica=2, onDemandFloor=1)]},
        {"tiers": [tier(maxModelLen="long", traffic={"requestsPerDay": 1, "inputTokens": 9000, "outputTokens": 9})]},
        {"network": {"ingressScheme": "internet-facing", "certificateArn": "mine"}},
        {"network": {"ingressScheme": "internet-facing", "certificateARN": "mine"}},
        {"schedule": {"workingHours": {"start": "0 20 * * 1-5", "end": "8 pm"}}},
    ],
)
def test_a_default_in_place_of_a_broken_or_misspelt_setting_makes_no_second_problem(config: dict[str, Any]) -> None:
    assert len(problems(**config)) == 1, problems(**config)


def test_of_a_broken_section_the_sound_settings_remain_and_the_others_are_named() -> None:
    reading = read("us-east-1", {"tiers": [tier()], "scaling": {"graceSeconds": 60, "nodeIdleMinutes": "long"}})
    assert reading.settings is not None
    assert reading.settings.scaling.grace_seconds == 60
    assert reading.left_out == {("scaling", "nodeIdleMinutes")}


def test_several_breaks_in_one_place_take_out_no_more_than_that_place() -> None:
    sections = {
        "network": {"oidc": {"issuer": "x"}, "ingressScheme": "internet-facing", "host": "llm.example.com"},
        "capacity": {"spot": False, "excludedInstanceTypes": [5, 6]},
    }
    reading = read("us-east-1", {"tiers": [tier()], **sections})
    assert reading.settings is not None
    assert reading.settings.network.host == "llm.example.com"
    assert not reading.settings.capacity.spot
    assert reading.left_out == {
        ("network", "oidc"),
        ("network", "ingressScheme"),
        ("capacity", "excludedInstanceTypes"),
    }
    assert any("network.ingressScheme" in str(problem) for problem in reading.problems)


def test_what_is_no_setting_at_all_is_not_left_out_and_what_it_may_have_meant_is() -> None:
    assert read("us-east-1", {"tiers": [tier()], "foo": 1}).left_out == frozenset()
    assert read("us-east-1", {"tiers": [tier()], "capcity": {}}).left_out == {("capacity",)}
    assert read("us-east-1", {"tiers": [tier()], "capacity": {"SPOT": False}}).lacks("capacity", "spot")
    assert read("us-east-1", {"tiers": [tier(capacity={"spot": False})]}).lacks("capacity", "spot")


def test_a_region_in_the_programs_own_namespace_is_told_and_never_taken() -> None:
    told = "frugal-llm:region: is no setting; write aws:region"
    assert problems(region="eu-west-1") == [told]
    alone = read(None, {"tiers": [tier()], "region": "eu-west-1"}).problems
    assert [str(problem) for problem in alone] == [told, "aws:region: is missing; add it, for example us-east-1"]
    # Without any namespace it is told and, so that the rest can be looked up, taken.
    assert [problem.path for problem in read(None, {"tiers": [tier()], ":region": "eu-west-1"}).problems] == ["region"]


@pytest.mark.parametrize(
    ("config", "paths"),
    [
        ({"routing": {"defaultTier": 5}}, ["routing.defaultTier"]),
        ({"tiers": [tier(name=5), tier(name=5)]}, ["tiers[0].name", "tiers[1].name"]),
        ({"tiers": [tier(name="Fast")], "routing": {"defaultTier": "fast"}}, ["tiers[0].name"]),
        ({"tiers": [tier(), "quality"], "routing": {"defaultTier": "quality"}}, ["tiers[1]"]),
        ({"tiers": [tier(name=5), tier(), tier()]}, ["tiers[0].name", "tiers[2].name"]),
    ],
)
def test_one_mistake_in_a_name_is_told_once_and_where_it_stands(config: dict[str, Any], paths: list[str]) -> None:
    found = read("us-east-1", {"tiers": [tier()], **config}).problems
    assert [problem.path for problem in found] == [f"frugal-llm:{path}" for path in paths]


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 200_000, "[" * 900 + "]" * 900, '{"a": ' * 900, '"\ud800"'])
def test_text_that_no_reader_of_json_takes_is_a_problem_and_no_other_error(text: str) -> None:
    assert len(problems(budget=text)) == 1


def test_problems_of_a_section_stand_together_and_the_tenth_tier_after_the_second() -> None:
    found = read("us-east-1", {"tiers": [tier(name=f"t{n}", minReplicas=-1) for n in range(11)], "budget": 5}).problems
    paths = [problem.path for problem in ConfigurationError(reversed(found)).problems]
    assert paths == ["frugal-llm:budget", *(f"frugal-llm:tiers[{n}].minReplicas" for n in range(11))]


def test_a_broken_tier_is_not_reported_as_a_missing_one() -> None:
    assert len(problems(tiers=[tier(quantization="x")])) == 1


def test_working_hours_may_cross_midnight_and_the_week() -> None:
    week = open_hours(WorkingHours(start="0 22 * * 0", end="0 6 * * 1"))
    assert [hour for hour in range(168) if week[hour]] == [*range(6), 6 * 24 + 22, 6 * 24 + 23]


def test_the_nearest_names_are_suggested() -> None:
    assert did_you_mean("Llama-3.1-8b", ["Llama-3.1-8B", "T4"]) == "did you mean Llama-3.1-8B?"
    assert did_you_mean("zzz", ["b", "a"]) == "choose one of a, b"
