"""``rexstream asyncapi``: what a worker reads and writes, as an AsyncAPI document for producers and subscribers."""

from __future__ import annotations

import json
from pathlib import Path

import click

from consumer.cli.options import config_options, loaded


@click.command(name="asyncapi")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of YAML.")
@click.option("--output", "-o", metavar="FILE", help="Write to a file instead of standard output.")
def command(config_file: str | None, overrides: tuple[str, ...], as_json: bool, output: str | None) -> None:
    """Write an AsyncAPI 3.0 document: topics, messages with their schemas, headers and examples, the consumer group.

    From the configuration alone; nothing is connected to, and no credentials are in it.

    \b
    Example:
      rexstream asyncapi --config rexstream.yaml --output asyncapi.yaml
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    import yaml

    from consumer.cli.asyncapi_document import asyncapi_document

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - readers should not need anchors
            return True

    found = loaded(config_file, overrides)
    document = asyncapi_document(found.config, found.tasks)
    if as_json:
        text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    else:
        text = yaml.dump(document, Dumper=Plain, sort_keys=False, allow_unicode=True, width=110)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"--output {output} cannot be written: {error.strerror}") from None
