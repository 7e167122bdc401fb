"""Loading the configuration: its sources, and the errors of each key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from consumer.config.loading import load, load_config
from consumer.config.problems import HIDDEN, ConfigError, Problem, shown
from consumer.config.route import RouteConfig
from consumer.config.tree import Config

if TYPE_CHECKING:
    from pathlib import Path


def refused(path: str | None = None, environ: dict[str, str] | None = None, *overrides: str) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ or {}, overrides)
    return {problem.key: problem for problem in caught.value.problems}


def test_the_defaults_are_valid() -> None:
    """A worker runs without any configuration."""
    assert load_config(None, {}) == Config()


def test_later_sources_win(write: Any) -> None:
    """File, then environment, then flags; keys that a later source does not name stay."""
    path = write("kafka: {group_id: file, bootstrap_servers: 'k:1'}\nmodel: {name: file}\nlimits: {facts: 1}\n")
    config = load_config(
        path,
        {"REXSTREAM_KAFKA__GROUP_ID": "env", "REXSTREAM_MODEL__NAME": "env", "REXSTREAM_LIMITS__FACTS": "2"},
        ["kafka.group_id=flag"],
    )
    assert config.kafka.group_id == "flag"
    assert config.kafka.bootstrap_servers == "k:1"
    assert config.model.name == "env"
    assert config.limits.facts == 2


def test_text_keys_take_text_as_written() -> None:
    """A group called 007 stays 007, and a host with a port is no base-60 number."""
    config = load_config(None, {"REXSTREAM_KAFKA__GROUP_ID": "007"}, ["model.target=12:30", "model.label=null"])
    assert config.kafka.group_id == "007"
    assert config.model.target == "12:30"
    assert config.model.label is None


def test_structured_values_are_yaml_or_json() -> None:
    """Lists and sections can be given as JSON, numbers as YAML."""
    config = load_config(
        None,
        {"REXSTREAM_ROUTES": '[{"input": "a", "tasks": ["ner", "event"]}]', "REXSTREAM_DELIVERY": '{"order": "none"}'},
        ["model.version=7", "delivery.grace_seconds=3"],
    )
    assert config.routes == (RouteConfig(input="a", tasks=("ner", "event")),)
    assert config.delivery.order == "none"
    assert config.model.version == 7
    assert config.delivery.grace_seconds == 3.0


def test_a_list_element_can_be_addressed(write: Any) -> None:
    """An index reaches into a list, one behind the last extends it, and without a list the default's is meant."""
    path = write("routes:\n  - {input: a, tasks: [ner]}\n")
    config = load_config(path, {}, ["routes.0.output=x", "routes.1.input=b", "routes.1.tasks.0=event"])
    assert [route.input for route in config.routes] == ["a", "b"]
    assert config.routes[0].output == "x"
    assert config.routes[1].tasks == ("event",)
    assert load_config(None, {"REXSTREAM_ROUTES__0__FORMAT": "avro"}).routes[0].input == "reviews.raw"


def test_client_settings_keep_their_dots_and_their_text() -> None:
    """librdkafka's names are reached from variables with underscores, and a password of digits stays text."""
    config = load_config(
        None, {"REXSTREAM_KAFKA__CLIENT__SASL_PASSWORD": "0123"}, ["kafka.client.security.protocol=SASL_SSL"]
    )
    assert config.kafka.client == {"sasl.password": "0123", "security.protocol": "SASL_SSL"}


def test_variables_that_are_not_configuration_are_left_alone() -> None:
    """Test settings, the file's name and what Kubernetes adds beside a Service named rexstream are no keys."""
    environ = {
        "REXSTREAM_TEST_BOOTSTRAP": "x",
        "REXSTREAM_CONFIG": "elsewhere.yaml",
        "REXSTREAM_SERVICE_HOST": "10.0.0.1",
        "REXSTREAM_SERVICE_PORT_METRICS": "9464",
        "REXSTREAM_PORT": "tcp://10.0.0.1:9464",
        "REXSTREAM_WORKER_PORT_9464_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
    }
    assert load_config(None, environ) == Config()


def test_an_emptied_section_means_its_defaults(write: Any) -> None:
    """A section whose keys are commented out is not an error."""
    assert load_config(write("kafka:\n  registry:\n  # url: x\nmodel:\n"), {}) == Config()


@pytest.mark.parametrize("text", ["model:\n  tls:\n    # ca_file: x\n", "model: {tls: null}\n"])
def test_an_empty_section_that_is_off_by_default_is_refused(write: Any, text: str) -> None:
    """``model.tls:`` with every key commented out looks like TLS and would be plaintext."""
    problem = refused(write(text))["model.tls"]
    assert problem.origin in ("rexstream.yaml:1", "rexstream.yaml:2")
    assert problem.fix == "write {} for TLS with public authorities, or remove it"
    assert refused(None, {"REXSTREAM_MODEL__TLS": ""})["model.tls"].origin == "REXSTREAM_MODEL__TLS"
    assert load_config(write("model: {tls: {}}\n"), {}).model.tls is not None
    assert load_config(write("model: {tls: {}}\n"), {}, ["model.tls=null"]).model.tls is None


def test_an_empty_file_means_the_defaults(write: Any) -> None:
    """So does a file of comments."""
    assert load_config(write("# nothing\n"), {}) == Config()


def test_every_problem_is_listed_with_its_place(write: Any) -> None:
    """One run finds them all: key, place, kind of the value, and a guess at what was meant."""
    path = write("kafka:\n  groupid: x\nlimits:\n  facts: many\n")
    problems = refused(path, {"REXSTREAM_DELIVERY__ORDER": "keys"}, "batching.max_tokens=100", "goup_id=3")
    assert set(problems) == {"kafka.groupid", "limits.facts", "delivery.order", "batching.max_tokens", "goup_id"}
    assert str(problems["kafka.groupid"]) == (
        "kafka.groupid (rexstream.yaml:2): there is no such key (its value is text); did you mean kafka.group_id?"
    )
    assert problems["limits.facts"].origin == "rexstream.yaml:4"
    assert "is text (many), but must be a whole number" in problems["limits.facts"].what
    assert problems["delivery.order"].origin == "REXSTREAM_DELIVERY__ORDER"
    assert problems["delivery.order"].fix == "did you mean key?"
    assert problems["batching.max_tokens"].origin == "--set batching.max_tokens"
    assert "at least 512" in problems["batching.max_tokens"].what
    assert problems["goup_id"].fix == "did you mean kafka.group_id?"


def test_a_bad_element_is_one_problem() -> None:
    """A list is not blamed as a whole for what is wrong in one element."""
    assert set(refused(None, None, "routes.0.format=jsn")) == {"routes.0.format"}


def test_the_error_ends_with_exit_code_2() -> None:
    """A bad configuration is told from failed work."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, {}, ["x=1"])
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith("configuration: 1 problem\n  x (--set x): ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("REXSTREAM_GROUP", "x"), ("REXSTREAM_KAFKA__", "x"), ("REXSTREAM_", "x"), ("REXSTREAM_LIMITS__FACTS__MORE", "1")],
)
def test_an_unknown_variable_is_an_error(name: str, value: str) -> None:
    """A mistyped variable must not be silently without effect."""
    assert any(problem.origin == name for problem in refused(None, {name: value}).values())


@pytest.mark.parametrize("flag", ["model.target", "=x", "model.version=[", "routes.9.input=x", "model.name.x=1"])
def test_a_flag_that_leads_nowhere_is_an_error(flag: str) -> None:
    """Flags without a value, a key, valid YAML or a place are refused."""
    assert refused(None, None, flag)


@pytest.mark.parametrize(
    "setting",
    [
        "delivery.grace_seconds=0",
        "delivery.grace_seconds=-1",
        "delivery.grace_seconds=.inf",
        "delivery.grace_seconds=.nan",
        "delivery.grace_seconds=25000000000",
        "kafka.registry.timeout_seconds=5000000000",
        "model.version=9223372036854775808",
        "batching.latency_objective_ms=0",
        "batching.max_in_flight=true",
        "limits.facts='3'",
        "limits.text_chars=1.5",
        "kafka.registry.timeout_seconds=0",
        "kafka.group_id=",
        "routes=[]",
        "routes.0.tasks=ner",
        "delivery.mode=exactly_twice",
        "delivery.dead_letter_run=0",
        "delivery.dead_letter_rate=0.001",
        "delivery.dead_letter_rate=1",
        "delivery.dead_letter_pause=0",
        "observability.http=nowhere",
        "observability.http=127.0.0.1:65536",
        "observability.log_level=loud",
        "kafka.registry.url=ftp://x",
        "kafka.registry.username=u",
        "kafka.registry.ca_file=ca.pem",
        "kafka.registry.auto_register=false",
        "model.version=-1",
    ],
)
def test_impossible_values_are_refused(setting: str) -> None:
    """Every bound holds, and no kind of value is silently taken for another."""
    key = setting.partition("=")[0]
    assert key in refused(None, None, setting)


def test_the_http_port_can_be_turned_off() -> None:
    """An empty string is a value, not a missing one."""
    assert load_config(None, {"REXSTREAM_OBSERVABILITY__HTTP": ""}).observability.http == ""
    assert load_config(None, {}, ["observability.http=[::1]:0"]).observability.http == "[::1]:0"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kafka: {group_id: a", "not YAML"),
        ("kafka:\n  group_id: a\n  group_id: b\n", "given twice, first on line 2"),
        ("routes:\n  - &a {input: x, tasks: [*a]}\n", "refers to itself"),
        ("kafka: {client: {1: x}}", "in quotes"),
        ("just text", "not a mapping"),
        ("kafka: {group_id: \x01}", "not allow"),
        ("limits: {facts: 2020-99-99}", "impossible date"),
    ],
)
def test_a_broken_file_is_explained(write: Any, text: str, words: str) -> None:
    """What is wrong with the YAML itself is said as clearly as what is wrong with a key."""
    assert any(words in str(problem) for problem in refused(write(text)).values())


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    """The path is named."""
    missing = str(tmp_path / "none.yaml")
    assert missing in refused(missing)


def test_problems_never_show_secrets(write: Any) -> None:
    """Neither a password nor what may be one under a mistyped name is repeated."""
    path = write("kafka:\n  client:\n    sasl.password: 912837\n  pasword: hunter2\n  registry: {password: hunter2}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, {"REXSTREAM_KAFKA__SASL_PASWORD": "hunter2"}, ["hunter2", "kafka.client=hunter2"])
    assert "hunter2" not in str(caught.value)
    assert "912837" not in str(caught.value)


def test_syntax_errors_do_not_quote_the_line(write: Any) -> None:
    """The line that YAML stumbles over may be the password's."""
    with pytest.raises(ConfigError) as caught:
        load_config(write('kafka:\n  client: {sasl.password: "hunter2" "x"}\n'), {})
    assert "hunter2" not in str(caught.value)
    assert "rexstream.yaml:2" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("sasl.password", "x", HIDDEN),
        ("ssl.key.password", "x", HIDDEN),
        ("ssl.key.pem", "x", HIDDEN),
        ("sasl.pasword", "x", HIDDEN),
        ("sasl.oauthbearer.client.secret", "x", HIDDEN),
        ("sasl.oauthbearer.config", "x", HIDDEN),
        ("basic.auth.user.info", "u:x", HIDDEN),
        ("ssl.key.location", "/keys/k.pem", "/keys/k.pem"),
        ("sasl.username", "u", "u"),
        ("sasl.oauthbearer.token.endpoint.url", "https://u:x@h/t", f"https://{HIDDEN}@h/t"),
    ],
)
def test_secrets_are_hidden(key: str, value: str, expected: str) -> None:
    """What is printed shows names and paths, and no secret."""
    assert shown(("kafka",), {"client": {key: value}}) == {"client": {key: expected}}


def test_ordinary_keys_are_not_hidden() -> None:
    """No key of our own is taken for a secret."""
    tree = Config().model_dump()
    tree["kafka"]["registry"]["password_file"] = "secrets/registry"
    assert HIDDEN not in str(shown((), tree))


def test_origins_tell_where_a_key_was_set(write: Any) -> None:
    """The last source that set a key is its origin; defaults have none."""
    origins = load(write("model:\n  name: m\n  target: t:1\n"), {"REXSTREAM_MODEL__NAME": "n"}).origins
    assert origins["model", "name"] == "REXSTREAM_MODEL__NAME"
    assert origins["model", "target"] == "rexstream.yaml:3"
    assert ("model", "label") not in origins


def test_problems_of_own_task_files_are_reported(write: Any, tmp_path: Path) -> None:
    """A broken task file is a problem of the configuration that names its folder."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "bad.yaml").write_text("name: bad\nkind: extrct\nschema: {a: }\n", encoding="utf-8")
    problems = refused(write(f"tasks_dirs: ['{folder}']\n"), None, "model.version=1", "model.label=x")
    assert problems["kind"].fix == "did you mean extract?"
    assert "model.version" in problems


@pytest.mark.parametrize("value", ["!!int ''", "!!bool perhaps", "!!float ''", "!!timestamp soon", "[" * 400])
def test_text_that_breaks_the_yaml_reader_is_a_problem_like_any_other(value: str) -> None:
    """Found by fuzzing: what PyYAML's constructors let out must not end in a traceback."""
    assert "is not YAML" in refused(None, {"REXSTREAM_LIMITS__FACTS": value})["limits.facts"].what
    assert "is not YAML" in refused(None, {}, f"limits.facts={value}")["limits.facts"].what


def bomb(alias: str) -> str:
    """Nine levels of nine aliases: 387 million values, written out."""
    levels = ["x-0: &a0 {facts: 1}"]
    levels += [f"x-{n}: &a{n} {alias.format(', '.join([f'*a{n - 1}'] * 9))}" for n in range(1, 10)]
    return "\n".join(levels) + "\nlimits: *a9\n"


@pytest.mark.parametrize("alias", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merge keys"])
def test_anchors_that_hold_anchors_end_where_they_are_read(tmp_path: Path, alias: str) -> None:
    """Before anything is made of them, in a file, a variable or a flag."""
    path = tmp_path / "rexstream.yaml"
    path.write_text(bomb(alias), encoding="utf-8")
    problems = [
        *refused(str(path)).values(),
        *refused(None, {"REXSTREAM_LIMITS": bomb(alias)}).values(),
        *refused(None, {}, f"limits={bomb(alias)}").values(),
    ]
    assert len(problems) == 3
    assert "more than 50000 keys and values" in problems[0].what


@pytest.mark.parametrize("value", ["&a [*a]", "&a {b: *a}", "&a {<<: *a}"])
def test_anchors_that_hold_themselves_are_no_traceback(tmp_path: Path, value: str) -> None:
    path = tmp_path / "rexstream.yaml"
    path.write_text(f"routes: {value}\n", encoding="utf-8")
    assert "refers to itself" in next(iter(refused(str(path)).values())).what
    (problem,) = refused(None, {"REXSTREAM_ROUTES": value}).values()
    assert "refers to itself" in problem.what
    assert problem.key.startswith("routes")


@pytest.mark.parametrize(
    ("value", "read"), [("010", "8"), ("-0777", "-511"), ("1:30", "90"), ("1:30.5", "90.5"), ("0_10", "8")]
)
def test_a_number_that_yaml_reads_as_another_is_refused(write: Any, value: str, read: str) -> None:
    """From every source, with both; ``0x10`` and ``1_000`` are what they look like, and ``007`` is 7 in any case."""
    for found in (
        refused(write(f"limits: {{facts: {value}}}")),
        refused(None, {"REXSTREAM_LIMITS__FACTS": value}),
        refused(None, {"REXSTREAM_LIMITS": f"{{facts: {value}}}"}),
        refused(None, None, f"limits.facts={value}"),
        refused(write(f"x-n: &n {value}\nlimits: {{facts: *n}}")),
    ):
        assert found["limits.facts"].what == f"is {value}, which YAML reads as {read}"
    assert load_config(write("limits: {facts: 0x10, schema_depth: 007, text_chars: 1_000}"), {}).limits.facts == 16


def test_a_broken_variable_is_explained_as_a_file_is() -> None:
    """A key given twice is no syntax error."""
    value = '[{"input": "a", "input": "b"}]'
    (problem,) = refused(None, {"REXSTREAM_ROUTES": value}).values()
    assert (problem.key, problem.origin) == ("routes.0.input", "REXSTREAM_ROUTES")
    assert "given twice" in problem.what


def test_keys_that_hold_what_anchors_name(tmp_path: Path) -> None:
    """They begin with x-, stand at the top of the file, may hold anything, and are no part of the configuration."""
    path = tmp_path / "rexstream.yaml"
    path.write_text(
        """
x-route: &route {format: text, tasks: [sentiment]}
x-anything: {a: {b: 1}, c: [2, null]}
x-none:
routes:
  - {<<: *route, input: a}
""",
        encoding="utf-8",
    )
    found = load(str(path), {})
    assert [(route.input, route.format, route.tasks) for route in found.config.routes] == [
        ("a", "text", ("sentiment",))
    ]
    assert not [key for key in found.origins if str(key[0]).startswith("x-")]
    path.write_text("x-a: &a {b: 1}\nlimits: {x-facts: 1}\n", encoding="utf-8")
    assert list(refused(str(path))) == ["limits.x-facts"]
    assert list(refused(None, {}, "x-a=1")) == ["x-a"]


@pytest.mark.parametrize(
    ("key", "guess"),
    [
        ("model.targt", "model.target"),
        ("kafka.groupId", "kafka.group_id"),
        ("kafka.GROUP-ID", "kafka.group_id"),
        ("kafka.servers", "kafka.bootstrap_servers"),
        ("delivery.topic", "delivery.dead_letter_topic"),
        ("kafka.registry.urls", "kafka.registry.url"),
        ("kafka.security.password_fil", "kafka.security.password_file"),
        ("model.names", "model.name"),  # and no other section's
        ("limits.max_tokens", "batching.max_tokens"),
        ("kafka_group_id", "kafka.group_id"),
        ("model_target", "model.target"),
        ("routes_0_output", "routes.0.output"),
        ("registry.url", "kafka.registry"),
        ("username", "kafka.security.username or kafka.registry.username"),
        ("kafka.brokers", None),
        ("observability.port", None),
        ("routes.0.topic", None),
    ],
)
def test_a_key_that_is_none_suggests_its_own_sections_first(key: str, guess: str | None) -> None:
    """Then the same name elsewhere, which must be nearly that; else it lists the section's."""
    (problem,) = refused(None, {}, f"{key}=1").values()
    assert problem.fix.startswith("the keys here are " if guess is None else f"did you mean {guess}?")


@pytest.mark.parametrize(
    ("setting", "guess"),
    [
        ("delivery.mode=exactly-once", "exactly_once"),
        ("kafka.security.protocol=SASL_SSL", "sasl_ssl"),
        ("kafka.security.mechanism=scram-sha512", "SCRAM-SHA-512"),
        ("routes.0.format=JSON", "json"),
        ("observability.log_level=warn", "warning"),
        ("routes.0.tasks=[Product-Features]", "product_features"),
        ("routes.0.tasks=[features]", "product_features"),
    ],
)
def test_a_value_that_is_none_suggests_the_nearest(setting: str, guess: str) -> None:
    """Also where nothing but its case or its hyphens are wrong."""
    (problem,) = refused(None, {}, setting).values()
    assert problem.fix.startswith(f"did you mean {guess}?")
