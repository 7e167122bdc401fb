"""The documents: links lead somewhere, commands exist and a test runs them, configurations load, translations agree."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml
from house.documents import ROOT, Block, blocks, commands, invocations, named_in_prose, pages
from house.task_examples import FILE, examples

from consumer.cli import cli
from consumer.config.loading import load
from consumer.config.problems import ConfigError
from consumer.config.task_files import load_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RUN = "tests/integration/test_document_commands.py"
"""Runs the commands below that name it, as they stand in the documents, but for addresses and folders."""

RUNBOOKS = "tests/integration/test_runbooks.py"
"""Runs those of docs/runbooks in the same way."""

ELSEWHERE = {
    "make demo": "tests/integration/test_demo.py",
    "make deploy-check": "tests/deploy/test_chart.py",
    "make house": "tests/integration/test_one_event.py",
    r"echo '\{.*rexstream extract": RUN,
    r"echo .* > known\.jsonl": RUN,
    r"rexstream shadow": "tests/integration/apache/test_shadow.py",
    r"\.venv/bin/rexstream broker": RUN,
    r"\.venv/bin/rexstream serve": RUN,
    r"\.venv/bin/rexstream export .*--version 1$": RUN,
    r"\.venv/bin/rexstream run": RUN,
    r"\.venv/bin/rexstream check --config worker\.yaml": RUN,
    r"\.venv/bin/rexstream (check|send|tail|dead-letters list) --config acceptance\.yaml": RUN,
    r"\.venv/bin/rexstream (extract|evaluate) --server": RUN,
    r"\.venv/bin/rexstream extract --checkpoint": "tests/unit/cli/test_extract.py",
    r"\.venv/bin/rexstream evaluate --checkpoint": "tests/unit/cli/test_evaluate.py",
    r"\.venv/bin/rexstream export .*--version 2": "tests/unit/model/test_export.py",
    r"\.venv/bin/rexstream tune": "tests/integration/test_tune.py",
    r"rexstream (status|resume) --config": "tests/integration/apache/test_group_commands.py",
    r"\.venv/bin/rexstream compare": "tests/unit/cli/test_compare.py",
    r"rexstream (export|check|compare|tail) ": RUNBOOKS,
    r"sed -i \S+.* models\.config": RUNBOOKS,
    r"git worktree": RUNBOOKS,
    r"sed -i 's/share": "tests/integration/test_worker_variants.py",
}
"""Shell commands of the documents, as regular expressions -> the test that runs them, or what they call."""

CANNOT = {
    r"docker|cd deploy/compose && docker|COMPOSE_PROFILES": "needs a container engine",
    r"kubectl|helm|for pod in \$\(kubectl": "needs a Kubernetes cluster; the calls of rexstream in it are parsed",
    r"make install": "is how the test came to run: it fetches packages",
    r"make (test|lint)": "is the suite, or runs beside it in .ci",
    r"make cluster": "builds Kubernetes and KEDA: half an hour",
    r"make rehearsal": "is a rehearsal of five minutes; tests/unit/test_rehearsal.py has its pure parts",
    r"make bench": "takes minutes to hours; tests/unit/bench has its parts",
    r"pip install": "installs into the environment that runs the test; tests/integration/test_wheel.py has the wheel",
}
"""Shell commands that no test can run -> why."""


def shell() -> list[tuple[str, str]]:
    """Page and command."""
    return [
        (block.page, command)
        for page in pages()
        for block in blocks(page)
        if block.language == "sh"
        for command in commands(block)
    ]


def test_every_document_that_is_linked_is_there() -> None:
    """Links between documents, and to places in the tree; anchors, too."""
    for page in pages():
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            assert linked.exists(), f"{page.name} links to {target}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
                assert anchor in slugs, f"{page.name} links to {target}"


def test_every_document_is_linked() -> None:
    """Nobody finds a page that no other leads to."""
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in pages()
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    }
    folders = {path for path in linked if path.is_dir()}
    alone = [page for page in pages() if page not in linked and page.parent not in folders]
    assert alone == []


def test_a_command_is_run_by_a_test_or_says_why_not() -> None:
    """A new command in a document needs a line in one of the two tables above."""
    for page, command in shell():
        runs = [test for pattern, test in ELSEWHERE.items() if re.match(pattern, command, re.DOTALL)]
        reasons = [reason for pattern, reason in CANNOT.items() if re.match(pattern, command)]
        assert runs or reasons, f"{page}: {command}"
        assert all((ROOT / test).is_file() for test in runs)


def test_no_line_of_the_tables_is_left_over() -> None:
    """Each is of a command that a document still has."""
    shown = [command for _, command in shell()]
    for pattern in (*ELSEWHERE, *CANNOT):
        assert any(re.match(pattern, command, re.DOTALL) for command in shown), pattern


def parsed(arguments: list[str]) -> None:
    """What click says of arguments, short of their values."""
    command: click.Command = cli
    rest = list(arguments)
    context = click.Context(cli)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0).rstrip(",")
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name!r}"
        command = found
    command.make_parser(click.Context(command)).parse_args(rest)


def test_a_shown_command_and_its_options_exist() -> None:
    """Those in a cluster, too."""
    for page, command in shell():
        for arguments in invocations(command):
            try:
                parsed(arguments)
            except click.UsageError as error:
                pytest.fail(f"{page}: {command}: {error.format_message()}")


def test_commands_that_are_named_in_a_sentence_exist() -> None:
    """And every option that is spelled out with them."""
    for page in pages():
        if page.name == "CHANGELOG.md":  # history
            continue
        text = page.read_text(encoding="utf-8")
        synopses = [block.text for block in blocks(page) if not block.language and block.text.startswith("rexstream ")]
        named = named_in_prose(text) + [
            synopsis.replace("[", "").replace("]", "")
            for block in synopses
            for synopsis in re.split(r"\n(?=rexstream )", block)
        ]
        for line in named:
            words = line.split()[1:]
            command: click.Command = cli
            while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z-]+,?", words[0]):
                found = command.get_command(click.Context(cli), words.pop(0).rstrip(","))
                assert found is not None, f"{page.name}: {line}"
                command = found
            options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            spelled = [word.split("=")[0] for word in words if re.match(r"--[a-z]", word)]
            assert set(spelled) <= options, f"{page.name}: {line}"


def test_targets_of_make_exist() -> None:
    """In blocks and in sentences."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in pages():
        if page.name != "CHANGELOG.md":
            named = re.findall(r"(?:^|`)make ([a-z][a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
            assert set(named) <= targets, page.name


def known_keys(given: Mapping[str, Any], values: Mapping[str, Any], place: str) -> None:
    """Every key of the given chart's values is one of values.yaml, which an empty section leaves open."""
    for key, value in given.items():
        assert key in values, f"{place}.{key}"
        if isinstance(value, dict) and isinstance(values[key], dict) and values[key] and key != "config":
            known_keys(value, values[key], f"{place}.{key}")


FILES = ("bundle", "password_file", "ca_file")
"""Keys of files that documents name and this machine does not have."""


def yaml_blocks() -> list[Block]:
    # docs/mapping.md and docs/configuration.md have tests of their own.
    skipped = ("docs/mapping.md", "docs/configuration.md")
    return [
        block for page in pages() for block in blocks(page) if block.language == "yaml" and block.page not in skipped
    ]


@pytest.mark.parametrize("block", yaml_blocks(), ids=lambda block: block.page)
def test_yaml_is_a_configuration_or_values_of_the_chart(block: Block, tmp_path: Path) -> None:
    """Nothing that a reader copies is refused."""
    given = yaml.safe_load(block.text)
    if "apiVersion" in given:  # an object of Kubernetes', which tests/deploy looks at
        return
    if block.page == "deploy/README.md":
        values = yaml.safe_load((ROOT / "deploy/helm/rexstream/values.yaml").read_text(encoding="utf-8"))
        known_keys(given, values, "values")
        given = given["config"]
    given["tasks_dirs"] = [str(ROOT / folder) for folder in given.get("tasks_dirs", ())]
    file = tmp_path / "worker.yaml"
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    secret = {"REXSTREAM_KAFKA__CLIENT__SASL_OAUTHBEARER_CLIENT_SECRET": "not in the file"}
    try:
        problems = load(str(file), secret if "oauthbearer" in block.text else {}).warnings
    except ConfigError as error:  # files that only the reader has
        problems = tuple(problem for problem in error.problems if problem.key[-1] not in FILES)
    assert not problems


def test_the_readmes_configuration_is_valid(tmp_path: Path) -> None:
    """Whoever starts from the example for a real cluster starts from a file that loads without a warning."""
    (example,) = [block for block in blocks(ROOT / "README.md") if block.language == "yaml"]
    (tmp_path / "worker.yaml").write_text(example.text, encoding="utf-8")
    loaded = load(str(tmp_path / "worker.yaml"), {})
    assert loaded.config.routes[0].output == "shop.facts.{task}"
    assert loaded.warnings == ()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_json_is_json(page: Path) -> None:
    """One value, or one a line."""
    for block in blocks(page):
        if block.language == "json":
            try:
                json.loads(block.text)
            except json.JSONDecodeError:
                for line in block.text.splitlines():
                    json.loads(line)


def test_the_tasks_page_has_an_example_of_each_shipped_task() -> None:
    """With the schema and the kind that the task really has."""
    tasks = load_tasks([])
    shown = {example.task: example.event for example in examples(FILE.read_text(encoding="utf-8")) if example.task}
    assert set(shown) == set(tasks)
    for name, event in shown.items():
        assert event["schema"] == tasks[name].schema, name
        assert event.get("kind", "extract") == tasks[name].kind, name


def shape(page: Path) -> dict[str, Any]:
    """What a translation has to have as well: levels of headings, code, links, first columns of tables."""
    text = page.read_text(encoding="utf-8")
    shown = [(block.language, block.text) for block in blocks(page) if block.language != "mermaid"]
    own = {"README.md", "README.zh-CN.md"}
    return {
        "headings": [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)],
        "code": [(language, re.sub(r"\s*# .*", "", code)) for language, code in shown],
        "links": sorted(set(re.findall(r"\]\(([^)\s]+)\)", text)) - own),
        "tables": [re.findall(r"`[^`]+`", cell) for cell in re.findall(r"^\| ([^|]*)\|", text, re.MULTILINE)],
        "named": sorted(set(re.findall(r"`(?:rexstream|make|pip) [^`]+`", text))),
    }


def test_the_chinese_readme_says_the_same() -> None:
    """The same sections, commands, configuration, links and tables; the words are a reader's matter."""
    english, chinese = shape(ROOT / "README.md"), shape(ROOT / "README.zh-CN.md")
    for part, found in english.items():
        assert chinese[part] == found, part
    for page, other in (("README.md", "README.zh-CN.md"), ("README.zh-CN.md", "README.md")):
        assert f"]({other})" in (ROOT / page).read_text(encoding="utf-8")
