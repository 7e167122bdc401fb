"""``rexstream serve``: TensorFlow Serving's gRPC interface over exported models, on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from consumer.cli.options import model_extra
from consumer.exit_codes import EXIT_OK

if TYPE_CHECKING:
    import grpc


@click.command(name="serve", short_help="Serve exported models over TensorFlow Serving's gRPC API.")
@click.option(
    "--models",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder with <model>/<version>/saved_model.pb for any number of models, or the folder of one model, which is "
    "then named after it.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8500, show_default=True, help="0 takes a free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--poll-seconds",
    type=click.FloatRange(min=0.01),
    default=1.0,
    show_default=True,
    help="How often to look for new and removed versions.",
)
@click.option("--threads", type=click.IntRange(min=1), help="TensorFlow's threads. Default: the CPUs of this process.")
@click.option("--tensor-content", is_flag=True, help="Answer with raw bytes (r2.19) instead of typed fields.")
@click.option("--tls-certificate", metavar="PEM", help="Speak TLS, with this certificate.")
@click.option("--tls-key", metavar="PEM", help="Private key of --tls-certificate, not encrypted.")
@click.option("--tls-client-ca", metavar="PEM", help="Ask clients for a certificate of one of these authorities.")
@click.option("--json", "as_json", is_flag=True, help="Print the ready line as JSON.")
@click.option("--exit-with-parent", is_flag=True, hidden=True)
def command(
    models: Path,
    port: int,
    host: str,
    poll_seconds: float,
    threads: int | None,
    tensor_content: bool,
    tls_certificate: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
    as_json: bool,
    exit_with_parent: bool,
) -> None:
    """Serve exported models over TensorFlow Serving's gRPC API.

    New versions are loaded as they appear, then old ones are unloaded; no call fails in between. A model folder that
    appears later is not served: restart, or send HandleReloadConfigRequest. Prints one line on standard output when
    it is ready, logs on standard error, and stops on SIGTERM or Ctrl-C.

    \b
    Example:
      rexstream export --checkpoint checkpoint/ --output models/rexuninlu
      rexstream serve --models models --port 8500
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.local import processes as lifetime

    if exit_with_parent:
        lifetime.exit_with_parent()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: sys.exit(EXIT_OK))

    from consumer.local.catalog import Catalog, Refusal
    from consumer.local.model_folders import find_models
    from consumer.local.model_server import ModelServer, usable_cpus
    from consumer.telemetry.logs import configure_logging

    configure_logging("info", worker=f"serve-{os.getpid()}")
    sources = find_models(models)
    if not sources:
        raise click.UsageError(
            f"no model in {models}: expected {models}/<model>/<version>/saved_model.pb with a number as version; "
            f"write one with 'rexstream export --checkpoint DIR --output {models}/rexuninlu'"
        )
    credentials = _credentials(tls_certificate, tls_key, tls_client_ca)
    _require_free(host, port)

    with model_extra("serving"):
        from consumer.local.saved_model import SavedModel

    cpus = threads or usable_cpus()
    catalog = Catalog(sources, lambda folder: SavedModel(folder, cpus))
    server = ModelServer(catalog, cpus=cpus, tensor_content=tensor_content)
    try:
        address = server.start(host, port, poll_seconds, credentials)
        served = catalog.available()
        if as_json:
            click.echo(json.dumps({"address": address, "models": served}))
        else:
            names = ", ".join(f"{name} version {'/'.join(map(str, numbers))}" for name, numbers in served.items())
            click.echo(f"serving {names} on {address}")
        while True:
            signal.pause()
    except Refusal as refusal:
        raise click.ClickException(f"{refusal.message}; nothing is served until every model loads") from refusal
    except OSError as error:
        raise _port_taken(host, port) from error
    finally:
        server.stop()


def _credentials(certificate: str | None, key: str | None, client_ca: str | None) -> grpc.ServerCredentials | None:
    """What --ssl_config_file gives TensorFlow Serving: server_cert, server_key, and custom_ca with client_verify."""
    import grpc

    from consumer.config.credential_files import CredentialFileError, read_certificates, read_pair

    if certificate is None or key is None:
        if certificate or key or client_ca:
            raise click.UsageError("TLS needs both --tls-certificate and --tls-key")
        return None
    try:
        pem, private = read_pair("--tls-certificate", certificate, "--tls-key", key)
        roots = None if client_ca is None else read_certificates("--tls-client-ca", client_ca)
    except CredentialFileError as error:
        raise click.UsageError(str(error)) from error
    return grpc.ssl_server_credentials([(private, pem)], roots, require_client_auth=roots is not None)


def _require_free(host: str, port: int) -> None:
    """Fail before TensorFlow is imported and models are loaded, which takes seconds."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _port_taken(host, port) from error


def _port_taken(host: str, port: int) -> click.UsageError:
    return click.UsageError(
        f"cannot listen on {host}:{port}: another process has the port, or the address is not this machine's; "
        "choose another with --port, or let --port 0 take a free one"
    )
