"""``rexstream check``: validates the configuration and, with ``--connect``, tries every dependency that it names."""

from __future__ import annotations

import json
import sys

import click

from consumer.cli.options import config_options, loaded
from consumer.exit_codes import EXIT_OK, EXIT_UNREACHABLE, EXIT_USAGE

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(name="check")
@config_options
@click.option("--connect", is_flag=True, help="Also try Kafka, the topics, the model server and the schema registry.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(config_file: str | None, overrides: tuple[str, ...], connect: bool, as_json: bool) -> None:
    """Validate the configuration; with --connect, try every dependency.

    Never joins the consumer group and changes nothing; the model is asked some known-good windows. Exit code 0 when a
    worker could start (warnings do not count), 2 for what 'run' refuses with 2, 3 when a dependency is missing or does
    not fit.

    \b
    Example:
      rexstream check --config rexstream.yaml --connect
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.cli import dependencies
    from consumer.cli.call_findings import model_call_findings
    from consumer.cli.kafka_findings import kafka_findings, reachable_topics, route_findings
    from consumer.cli.kafka_start_findings import start_setting_findings
    from consumer.worker.start_checks import StartChecks

    found = loaded(config_file, overrides)
    config = found.config
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
    code = EXIT_USAGE if any(finding.status == "fail" for finding in findings) else EXIT_OK
    if connect and code == EXIT_OK:
        from consumer.cli.model_findings import model_findings
        from consumer.cli.progress import waiting_for

        with waiting_for("Kafka, the model server and the registry"):
            findings += [
                *kafka_findings(config, found.tasks),
                *model_findings(config),
                *dependencies.registry_findings(config, found.tasks),
            ]
        code = EXIT_UNREACHABLE if any(finding.status == "fail" for finding in findings) else EXIT_OK
    elif code == EXIT_OK:
        findings += reachable_topics(config, found.tasks)
    if as_json:
        content = {"ok": code == EXIT_OK, "findings": [finding._asdict() for finding in findings]}
        click.echo(json.dumps(content, ensure_ascii=False))
    else:
        width = max(len(finding.subject) for finding in findings)
        for finding in findings:
            status = click.style(f"{finding.status:<4}", fg=_COLOURS[finding.status])
            click.echo(f"{status}  {finding.subject:<{width}}  {finding.detail}")
    sys.exit(code)
