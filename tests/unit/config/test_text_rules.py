"""One rule for every text of the configuration: nothing that is not seen, nothing that was not replaced."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.config.loading import load_config
from consumer.config.problems import ConfigError, Problem
from consumer.config.task_files import load_tasks
from consumer.config.tree import KEYS, is_section

TEXTS = sorted(
    ".".join(map(str, path)) for path, key in KEYS.items() if path and key.type is str and "fields" not in path
)
"""Every key of the tree that is a text, elements of lists among them."""


TASKS = load_tasks()


@pytest.fixture(autouse=True)
def _tasks_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.config.loading.load_tasks", lambda _: TASKS)


def refused(path: str | None, environ: dict[str, str] | None = None, *overrides: str) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ or {}, overrides)
    return {problem.key: problem for problem in caught.value.problems}


@pytest.mark.parametrize("key", [*TEXTS, "kafka.client.client.rack", "kafka.client.ssl.ca.location"])
def test_every_text_is_held_to_the_rule(key: str) -> None:
    """From a variable and from a flag: a line end, a space, and a variable that nothing replaced."""
    variable = "REXSTREAM_" + key.upper().replace(".", "__", 2).replace(".", "_" if "CLIENT" in key.upper() else "__")
    for value in ("a\n", " a", "a\u200bb", "${NAME}"):
        for environ, overrides in (({variable: value}, ()), ({}, (f"{key}={value}",))):
            problem = refused(None, environ, *overrides)[key]
            assert problem.origin == (variable if environ else f"--set {key}")
            assert problem.fix


def test_there_are_texts_to_be_held_to_it() -> None:
    """Among them those of lists and of sections that are off by default."""
    assert {"kafka.group_id", "tasks_dirs.0", "routes.0.tasks.0", "observability.http_hosts.0", "model.tls.ca_file"} < {
        *TEXTS
    }
    assert not any(is_section(KEYS[tuple(int(p) if p == "0" else p for p in key.split("."))].type) for key in TEXTS)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a\n", "ends with a line end"),
        ("a\r\n", "ends with a line end"),
        ("\na", "begins with a line end"),
        ("a ", "ends with U+0020 SPACE"),
        ("\ta", "begins with U+0009 TAB"),
        ("a\u00a0", "ends with U+00A0 NO-BREAK SPACE"),
        ("\u3000a", "begins with U+3000 IDEOGRAPHIC SPACE"),
        (" \n", "nothing but white space"),
        ("\ufeffa", "has U+FEFF BYTE ORDER MARK in it"),
        ("a\u200b", "has U+200B ZERO WIDTH SPACE in it"),
        ("a\u200db", "has U+200D ZERO WIDTH JOINER in it"),
        ("a\u202eb", "has U+202E RIGHT-TO-LEFT OVERRIDE in it"),
        ("a\u00adb", "has U+00AD SOFT HYPHEN in it"),
        ("a\u2028b", "has U+2028 LINE SEPARATOR in it"),
        ("a\u00a0b", "has U+00A0 NO-BREAK SPACE in it"),
        ("a\0b", "has U+0000 NUL in it"),
        ("a\nb", "has a line end in it"),
        ("a\x1b[0m", "has U+001B a control character in it"),
        ("a\udc80", "has a byte that is not UTF-8 in it"),
        ('"a"', "quotation marks"),
        ("'a'", "quotation marks"),
        ("${A}", "holds ${A}"),
        ("a-${B:-c}.d", "holds ${B:-c}"),
        ("a${", "holds ${"),
        ("$(HOST)", "holds $(HOST)"),
        ("a-$GROUP", "holds $GROUP"),
        ("{{ .Values.group }}", "holds {{ .Values.group }}"),
        ("${{ env.X }}", "holds ${{ env.X }}"),
    ],
)
def test_what_is_not_seen_or_not_replaced_is_named(value: str, words: str) -> None:
    """Characters by their numbers and names."""
    assert words in refused(None, {"REXSTREAM_KAFKA__GROUP_ID": value})["kafka.group_id"].what
    assert words in refused(None, {}, f"kafka.group_id={value}")["kafka.group_id"].what


@pytest.mark.parametrize(
    ("text", "key", "place"),
    [
        ("kafka:\n  group_id: |\n    shop\n", "kafka.group_id", "rexstream.yaml:2"),
        (
            "observability:\n  http_hosts:\n    - a\n    - >\n      b\n",
            "observability.http_hosts.1",
            "rexstream.yaml:4",
        ),
        (
            "routes:\n  - input: reviews.raw\n    tasks:\n      - |\n        ner\n",
            "routes.0.tasks.0",
            "rexstream.yaml:4",
        ),
        ("kafka:\n  client:\n    client.rack: |\n      a\n", "kafka.client.client.rack", "rexstream.yaml:3"),
        ("delivery:\n  mode: |\n    exactly_once\n", "delivery.mode", "rexstream.yaml:2"),
    ],
)
def test_blocks_of_yaml(write: Any, text: str, key: str, place: str) -> None:
    """The line is named, and how to write a block without its line end; nothing else is said of the same key."""
    with pytest.raises(ConfigError) as caught:
        load_config(write(text), {})
    (problem,) = caught.value.problems
    assert (problem.key, problem.origin) == (key, place)
    assert "|-" in problem.fix


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kafka.client.sasl.password", " a ${b} $(c) {{d}} "),
        ("kafka.client.sasl.password", '"a"'),
        ("kafka.client.sasl.username", "$ConnectionString"),
        ("kafka.client.ssl.ca.pem", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"),
        ("kafka.client.sasl.kerberos.kinit.cmd", 'kinit -t "%{sasl.kerberos.keytab}" ${KRB_OPTIONS} $(whoami)'),
        ("kafka.group_id", "shop a, 评论"),
        ("routes.0.output", "reviews.{task}"),
    ],
)
def test_what_may_be_meant_is_taken(key: str, value: str) -> None:
    """Passwords, certificates, a command for a shell, and the name that Azure gives every user."""
    variable = {"REXSTREAM_KAFKA__CLIENT__SASL_PASSWORD": value} if key.endswith("password") else {}
    config = load_config(None, variable, [] if variable else [f"{key}={value}"])
    assert not variable or config.kafka.client["sasl.password"] == value


def test_odd_spaces_in_names_of_files_are_taken() -> None:
    """Folders of people who write Chinese may have them."""
    assert load_config(None, {}, ["model.bundle=评论\u3000模型/bundle"]).model.bundle == "评论\u3000模型/bundle"


@pytest.mark.parametrize("value", ["hunter2\n", "hun\0ter2", "hun\tter2", "${HUNTER2}", "$(HUNTER2)", "hunter2\u200b"])
def test_secrets_are_not_shown(value: str) -> None:
    """A line end is never part of one that is typed, and of a variable nothing is quoted."""
    for variable, key in (
        ("REXSTREAM_KAFKA__CLIENT__SASL_PASSWORD", "kafka.client.sasl.password"),
        ("REXSTREAM_KAFKA__SECURITY__PASSWORD", "kafka.security.password"),
    ):
        problem = refused(None, {variable: value})[key]
        assert "hunter2" not in str(problem).lower()
        assert problem.origin == variable


def test_keys_for_anchors_only_are_left_alone(write: Any) -> None:
    """What stands below a top-level ``x-`` key counts where it is used."""
    assert not [key for key in refused(write("x-common: |\n  a\nkafka: {nme: x}\n")) if key.startswith("x-common.")]


@pytest.mark.parametrize("name", ["worker.yaml\n", " worker.yaml", "${CONFIG}", "$HOME/worker.yaml", "a\0b"])
def test_the_name_of_the_file_itself(name: str) -> None:
    """From --config or its variable; ``no such file`` would not show the difference."""
    problem = refused(name)["the configuration file"]
    assert "REXSTREAM_CONFIG" in (problem.origin or "")
