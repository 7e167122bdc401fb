"""``rexstream check``: validates the configuration and, with ``--connect``, tries every dependency that it names."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from consumer.cli import suggestions
from consumer.cli.options import config_options, loaded
from consumer.exit_codes import EXIT_FAILED, EXIT_OK, EXIT_UNREACHABLE, EXIT_USAGE

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(name="check")
@config_options
@click.option("--connect", is_flag=True, help="Also try Kafka, the topics, the model server and the schema registry.")
@click.option(
    "--against",
    "old_file",
    metavar="OLD",
    shell_complete=suggestions.files,
    help="The configuration file of before, beside its task files: which results this one makes with other ids.",
)
@click.option("--fail-on-change", is_flag=True, help="With --against: exit code 1 where subscribers' results change.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(
    config_file: str | None,
    overrides: tuple[str, ...],
    connect: bool,
    old_file: str | None,
    fail_on_change: bool,
    as_json: bool,
) -> None:
    """Validate the configuration; with --connect, try every dependency.

    Never joins the consumer group and changes nothing; the model is asked some known-good windows. Exit code 0 when a
    worker could start (warnings do not count), 2 for what 'run' refuses with 2, 3 when a dependency is missing or does
    not fit, 1 with --fail-on-change.

    A result's id depends on its task's name and definition. With --against, each task of each input is unchanged, new,
    re-identified (with the difference), renamed, moved to another topic, or gone; --connect compares the last results
    on the output topics, too. Tasks that ship are those of the installed release on both sides.

    \b
    Examples:
      rexstream check --config rexstream.yaml --connect
      git worktree add /tmp/before HEAD~1
      rexstream check --config rexstream.yaml --against /tmp/before/rexstream.yaml
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.cli import dependencies
    from consumer.cli.call_findings import model_call_findings
    from consumer.cli.kafka_findings import kafka_findings, reachable_topics, route_findings
    from consumer.cli.kafka_start_findings import start_setting_findings
    from consumer.worker.start_checks import StartChecks

    if fail_on_change and old_file is None:
        raise click.UsageError("--fail-on-change needs --against OLD, the configuration to compare with")
    found = loaded(config_file, overrides)
    config = found.config
    changed = None
    if old_file is not None:
        from consumer.cli.change_findings import changes_since

        changed = changes_since(old_file, config_file, found)
    start = StartChecks(config)
    findings = [
        dependencies.Finding("configuration", "ok", f"{len(config.routes)} route(s), {len(found.tasks)} tasks"),
        *(dependencies.Finding(problem.key, "warn", f"{problem.what}; {problem.fix}") for problem in found.warnings),
        *route_findings(config, found.tasks),
        *start_setting_findings(config),
        *dependencies.start_findings(start),
        *dict.fromkeys(each for one in start.bundles for each in model_call_findings(config, one, found.tasks)),
        *dependencies.expiry_findings(config),
        *dependencies.http_findings(config),
        *dependencies.bare_avro_findings(config),
    ]
    if changed is not None:
        from consumer.cli.change_findings import change_findings

        findings += change_findings(changed)
    code = EXIT_USAGE if any(finding.status == "fail" for finding in findings) else EXIT_OK
    if connect and code == EXIT_OK:
        from consumer.cli.change_findings import last_result_findings
        from consumer.cli.model_findings import model_findings
        from consumer.cli.progress import waiting_for

        with waiting_for("Kafka, the model server and the registry"):
            findings += [
                *kafka_findings(config, found.tasks),
                *model_findings(config),
                *dependencies.registry_findings(config, found.tasks),
            ]
            if all(finding.status != "fail" for finding in findings):
                findings += last_result_findings(config, found.tasks)
        code = EXIT_UNREACHABLE if any(finding.status == "fail" for finding in findings) else EXIT_OK
    elif code == EXIT_OK:
        findings += reachable_topics(config, found.tasks)
    if as_json:
        content: dict[str, Any] = {"ok": code == EXIT_OK, "findings": [finding._asdict() for finding in findings]}
        if changed is not None:
            content["changes"] = [change._asdict() for change in changed]
        click.echo(json.dumps(content, ensure_ascii=False))
    else:
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            status = click.style(f"{finding.status:<4}", fg=_COLOURS[finding.status])
            click.echo(f"{status}  {finding.subject:<{width}}  {finding.detail}")
    if code == EXIT_OK and fail_on_change and any(change.concerns_subscribers for change in changed or ()):
        code = EXIT_FAILED
    sys.exit(code)
