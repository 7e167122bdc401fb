"""Combinations of settings: what cannot work, and what probably is not meant."""

from __future__ import annotations

import pytest

from consumer.config.loading import load, load_config
from consumer.config.problems import ConfigError, Problem


def refused(path: str | None = None, environ: dict[str, str] | None = None, *overrides: str) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ or {}, overrides)
    return {problem.key: problem for problem in caught.value.problems}


@pytest.mark.parametrize(
    "settings",
    [
        # Topics that no event can reach any more are no topics of the route.
        ["routes.0.input=x.event", "routes.0.output=x.{task}", "routes.0.inline_schemas=false"],
        ["routes.0.output={task}", "routes.0.inline_schemas=false"],
        ["routes.0.output={task}", "routes.0.format=text"],
        # Who lowers the one limit has no need to know the other.
        ["limits.model_calls=10"],
        ["routes.0.tasks=[]", "routes.0.inline_schemas=false", "routes.0.event_tasks=any"],
        ["routes.0.encoding=GB18030", "routes.0.compression=gzip", "routes.0.drop_headers=[X-*, '*', y]"],
        ["routes.0.format=avro", "routes.0.encoding=null", "routes.0.compression=null"],
    ],
)
def test_what_only_looks_impossible_is_taken(settings: list[str]) -> None:
    """A route is judged by what its events can ask for."""
    load_config(None, {}, settings)


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        (["model.version=1", "model.label=stable"], "model.version", "both set"),
        (["limits.in_flight_bytes=100"], "limits.in_flight_bytes", "less than one value may have"),
        (["batching.cost={fixed_seconds: 0, linear_seconds: 0, square_seconds: 0}"], "batching.cost", "no call takes"),
        (["batching.lanes={repaly: 1}", "routes.0.lane=replay"], "batching.lanes.repaly", "no route is in the lane"),
        (["batching.lanes={live: 0}"], "batching.lanes.live", "greater than 0"),
        (["routes.1.input=reviews.raw", "routes.1.tasks=[ner]"], "routes.1.input", "already the input of routes.0"),
        (["routes.0.format=text", "routes.0.tasks=[]"], "routes.0.tasks", "cannot name tasks"),
        (["routes.0.encoding=uft-8"], "routes.0.encoding", "no text encoding that Python knows"),
        (["routes.0.encoding=base64"], "routes.0.encoding", "no text encoding that Python knows"),
        (["routes.0.encoding=idna"], "routes.0.encoding", "no encoding of text that producers send"),
        (["routes.0.format=avro", "routes.0.encoding=utf-8"], "routes.0.encoding", "the route's format is avro"),
        (["routes.0.format=avro", "routes.0.compression=gzip"], "routes.0.compression", "the route's format is avro"),
        (["routes.0.compression=zstd"], "routes.0.compression", "gzip"),
        (["routes.0.drop_headers=[a*, '*b']"], "routes.0.drop_headers.1", "not its last character"),
        (["routes.0.tasks=[sentimnt]"], "routes.0.tasks.0", "there is no task sentimnt"),
        (["routes.0.tasks=[ner, ner]"], "routes.0.tasks.1", "listed twice"),
        (["routes.0.tasks=[inline]"], "routes.0.tasks.0", "inline"),
        (["routes.0.output=out.{topic}"], "routes.0.output", "unknown placeholder {topic}"),
        (["routes.0.output=out.{task"], "routes.0.output", "unbalanced"),
        (["routes.0.output=out.{task!r}"], "routes.0.output", "placeholder"),
        (["routes.0.output={task}"], "routes.0.output", "nothing but a placeholder"),
        (["routes.0.output=结果"], "routes.0.output", "not a topic name"),
        (["routes.0.input=a b"], "routes.0.input", "not a topic name"),
        (["routes.0.output=reviews.raw"], "routes.0.output", "which is an input"),
        (["routes.0.output=reviews.raw.{task}"], "routes.0.output", "which is an input"),
        (
            ["routes.0.input=x.event", "routes.0.output=x.{task}", "routes.0.event_tasks=any"],
            "routes.0.output",
            "which is an input",
        ),
        (["routes.0.tasks=[]", "routes.0.inline_schemas=false"], "routes.0.tasks", "nothing could be extracted"),
        (["limits.model_calls=10", "limits.inline_model_calls=11"], "limits.inline_model_calls", "more than"),
        (["routes.0.output=reviews.dead"], "routes.0.output", "dead-letter topic"),
        (["delivery.dead_letter_topic=reviews.raw"], "delivery.dead_letter_topic", "also an input"),
        (["routes.0.input=reviews.dead.replayed"], "routes.0.input", "where replays of reviews.dead note what"),
        (["routes.0.output=reviews.dead.replayed"], "routes.0.output", "where replays of reviews.dead note what"),
        (
            ["routes.0.output=reviews.dead.replayed.{task}"],
            "routes.0.output",
            "where replays of reviews.dead note what",
        ),
        (
            ["delivery.dead_letter_topic=d", "routes.0.output=d.replayed"],
            "routes.0.output",
            "where replays of d note what",
        ),
        (
            ["delivery.dead_letter_topic=out.ner", "routes.0.tasks=[ner]", "routes.0.output=out.{task}.replayed"],
            "routes.0.output",
            "where replays of out.ner note what",
        ),
        (["limits.types_per_level=2"], "routes.0.tasks.0", "limits.types_per_level"),
        (["limits.schema_depth=1"], "routes.0.tasks.0", "limits.schema_depth"),
        (["kafka.registry.url=http://h:1", "kafka.registry.ca_file=ca"], "kafka.registry.ca_file", "not https"),
        (
            ["kafka.registry.url=https://h:1", "kafka.registry.key_file=k"],
            "kafka.registry.key_file",
            "certificate_file",
        ),
        (["kafka.registry.url=https://h:1", "kafka.registry.username=u"], "kafka.registry.username", "belong together"),
        (
            ["kafka.registry.url=http://u:p@h:1", "kafka.registry.username=u", "kafka.registry.password_file=p"],
            "kafka.registry.username",
            "the url holds credentials",
        ),
        (
            ["kafka.registry.url=http://h:1", "kafka.registry.username=u:v", "kafka.registry.password_file=p"],
            "kafka.registry.username",
            "colon",
        ),
    ],
)
def test_impossible_combinations_are_refused(settings: list[str], key: str, words: str) -> None:
    """Settings that exclude each other are found before a worker starts."""
    problem = refused(None, None, *settings)[key]
    assert words in problem.what
    assert problem.fix


def test_a_half_pair_for_mutual_tls_is_refused() -> None:
    """A certificate without its key proves nothing, and a key without its certificate even less."""
    assert (
        "model.tls.key_file" in refused(None, {}, "model.tls.certificate_file=a.pem")["model.tls.certificate_file"].what
    )
    assert "model.tls.certificate_file" in refused(None, {}, "model.tls.key_file=a.pem")["model.tls.key_file"].what
    assert load_config(None, {}, ["model.tls={}"]).model.tls is not None
    assert load_config(None, {"REXSTREAM_MODEL__TLS__CA_FILE": "ca.pem"}).model.tls is not None


def test_a_route_without_tasks_is_a_warning() -> None:
    """Events may bring their own tasks, so it can be meant."""
    (warning,) = load(None, {}, ["routes.0.tasks=[]"]).warnings
    assert warning.key == "routes.0.tasks"


def test_two_formats_of_results_on_one_topic_are_a_warning() -> None:
    """Which of the two a record is no subscriber is told."""
    routes = ["routes.0={input: a, tasks: [ner]}", "routes.1={input: b, tasks: [ner], output_format: avro}"]
    (warning,) = load(None, {}, routes).warnings
    assert (warning.key, "reviews.extracted are json" in warning.what) == ("routes.1.output_format", True)
    assert load(None, {}, [*routes, "routes.1.output=b.facts"]).warnings == ()


def test_a_grace_period_shorter_than_the_objective_is_a_warning() -> None:
    """Work in flight would not finish."""
    (warning,) = load(None, {}, ["delivery.grace_seconds=0.5"]).warnings
    assert warning.key == "delivery.grace_seconds"


@pytest.mark.parametrize(("value", "warned"), [("false", True), ("'0'", True), ("true", False)])
def test_checksums_that_nobody_looks_at_are_a_warning(value: str, warned: bool) -> None:
    """They may be switched off, knowingly."""
    found = load(None, {}, [f"kafka.client={{check.crcs: {value}}}"]).warnings
    assert [each.key for each in found] == ["kafka.client.check.crcs"] * warned


def test_a_dead_letter_topic_that_nothing_protects_is_a_warning() -> None:
    """Run and rate are switched off by null, each alone without a word."""
    off = ["delivery.dead_letter_run=null", "delivery.dead_letter_rate=null"]
    (warning,) = load(None, {}, off).warnings
    assert warning.key == "delivery.dead_letter_run"
    assert [load(None, {}, [each]).warnings for each in off] == [(), ()]
    assert "less than 1.0" in refused(None, None, "delivery.dead_letter_rate=1")["delivery.dead_letter_rate"].what


@pytest.mark.parametrize("name", ["http://a", "a:80", "*", "*.", "a b", "a..b", ".a", "[::1]", "a/", ""])
def test_a_host_that_is_no_name_is_refused(name: str) -> None:
    """With the key and an example; names and all names below one are fine."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, {}, [f"observability.http_hosts={[name]!r}"])
    assert [problem.key for problem in caught.value.problems] == ["observability.http_hosts.0"]
    fine = ["a", "rexstream.shop.svc.cluster.local", "*.b.example", "under_score.", "1.2.3.4"]
    assert load_config(None, {}, [f"observability.http_hosts={fine!r}"]).observability.http_hosts == tuple(fine)


def test_a_dead_letter_topic_whose_markers_have_no_topic_is_a_warning() -> None:
    """Its letters could never be replayed."""
    assert load(None, {}, [f"delivery.dead_letter_topic={'d' * 240}"]).warnings == ()
    (warning,) = load(None, {}, [f"delivery.dead_letter_topic={'d' * 241}"]).warnings
    assert (warning.key, "at most 240" in warning.fix) == ("delivery.dead_letter_topic", True)


def test_lanes_have_the_weights_that_are_listed_or_one() -> None:
    """In the order of the routes; two routes may share one."""
    routes = ["routes.0.lane=a", "routes.1.input=x", "routes.1.lane=b", "routes.2.input=y", "routes.2.lane=a"]
    config = load_config(None, {}, [*routes, "batching.lanes.a=4"])
    assert config.lanes() == {"a": 4.0, "b": 1.0}
    assert load_config(None, {}).lanes() == {"live": 1.0}
