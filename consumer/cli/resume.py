"""``rexstream resume``: end a worker's pauses after too many dead letters."""

from __future__ import annotations

import http.client
import json
from http import HTTPStatus
from urllib.parse import urlencode

import click

from consumer.cli.options import Unreachable, config_options, loaded

_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound


@click.command(name="resume", short_help="End a worker's pauses after too many dead letters.")
@config_options
@click.option("--http", "address", metavar="HOST:PORT", help="The worker's HTTP address; default: observability.http.")
@click.option("--topic", help="Resume this input topic only; default: every one that is paused.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="Seconds to wait for the worker's answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the worker's answer as it is, one JSON object.")
def command(
    config_file: str | None,
    overrides: tuple[str, ...],
    address: str | None,
    topic: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Let a worker go on before its time with input topics that it paused for a flood of dead letters.

    Each begins with a trial of a few records: dead letters again pause it again, good ones let consumption go on in
    full. Each worker pauses for itself, so each must be resumed. Exit code 0 when it was resumed or there was nothing
    to resume, 1 when what answers is not a worker, 3 when nothing answers.

    \b
    Example:
      rexstream resume
      rexstream resume --topic reviews.raw
      rexstream resume --http worker-2:9464 --json
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.telemetry.http import parse_address

    address = address or loaded(config_file, overrides).config.observability.http
    if not address:
        raise click.UsageError("observability.http is empty, so this worker has no HTTP port; name one with --http")
    try:
        host, port = parse_address(address)
    except ValueError as error:
        raise click.UsageError(f"--http: {error}") from None
    if not port:
        raise click.UsageError(f"{address} stands for any free port; give --http the one that the worker's log shows")
    status, text = _post(_EVERY_INTERFACE.get(host, host), port, topic, timeout)
    if status in (HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS):
        raise click.ClickException(f"{address} refuses: {text.decode(errors='replace').strip()[:300]}")
    try:
        answer = json.loads(text)
        known = isinstance(answer["resumed"], list) and isinstance(answer["message"], str)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise click.ClickException(f"what answers at {address} is no worker that knows /resume")
    click.echo(text.decode().strip() if as_json else answer["message"])


def _post(host: str, port: int, topic: str | None, timeout: float) -> tuple[int, bytes]:
    """Status and body of the answer to ``POST /resume``. Raises Unreachable."""
    # Not urllib: a proxy that the environment names must not come between.
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.connect()
        # The address in place of the name, which the worker need not know (observability.http_hosts).
        peer = connection.sock.getpeername()[0]
        shown = f"[{peer}]:{port}" if ":" in peer else f"{peer}:{port}"
        path = "/resume" if topic is None else f"/resume?{urlencode({'topic': topic})}"
        connection.request("POST", path, headers={"Host": shown})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        what = str(error) or type(error).__name__
        raise Unreachable(f"no worker answers at {host}:{port}: {what}; check --http and that it runs") from None
    finally:
        connection.close()
