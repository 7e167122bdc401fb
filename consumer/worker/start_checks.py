"""What a worker refuses before it connects to anything: ``run`` and ``check`` both ask here, so they refuse the same.

The configuration's own rules (``consumer.config.loading``) come first; here are the files that it names, the settings
that only librdkafka knows, and the address of the worker's HTTP port.
"""

from __future__ import annotations

import errno
import http.client
import json
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import Consumer, KafkaException, Producer

from consumer.config.credential_files import CredentialFileError
from consumer.config.problems import dotted
from consumer.extraction.engine import Engine
from consumer.extraction.task import ExtractionLimits
from consumer.kafka.clients.settings import consumer_settings, producer_settings, transaction_settings
from consumer.serving.bundle import load_bundle
from consumer.serving.channels import read_credentials
from consumer.telemetry.http import parse_address
from consumer.worker.parts import is_traced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.tree import Config
    from consumer.serving.bundle import Bundle

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound
"""An address of every interface -> one at which to reach it from this machine."""
_NOWHERE = logging.Logger("of no client that works", logging.CRITICAL + 1)
"""Takes what these clients say, which with the setting ``debug`` is no JSON and a hundred lines."""
_STATUS_SECONDS = 1.0
"""Longest wait for what has the HTTP port already."""


class Checked(NamedTuple):
    """One thing that was looked at: ``subject`` is its key or section, ``well`` whether a worker can start with it."""

    subject: str
    well: bool
    detail: str
    """What was found, or what is wrong with the way out."""
    beside: bool = False
    """Whether it is only a second worker on this machine that could not start."""

    def __str__(self) -> str:
        return self.detail if self.detail.startswith(self.subject) else f"{self.subject}: {self.detail}"


class StartChecks:
    """All of these checks, made at once. Nothing is connected to."""

    def __init__(self, config: Config) -> None:
        self.bundles: tuple[Bundle, ...] = ()
        """Those of ``model.bundle`` and ``model.bundles`` that can be read, of several with one contract the first."""
        self.found: tuple[Checked, ...] = (
            _clients(config),
            *self._read_bundles(config),
            *_model_tls(config),
            *_registry(config),
            *_tracing(config),
            *_http(config.observability.http),
        )

    def refused(self) -> list[Checked]:
        """What a worker cannot start with; empty when it can."""
        return [each for each in self.found if not each.well]

    def _read_bundles(self, config: Config) -> Iterator[Checked]:
        folders = {"model.bundle": config.model.bundle}
        folders |= {dotted(("model", "bundles", number)): each for number, each in enumerate(config.model.bundles)}
        # Two that fit the same versions would halve every batch between them.
        fitting: dict[int, str] = {}
        for subject, folder in folders.items():
            if folder is None:
                what = (
                    "is not set, and a worker needs it; name the folder <model>/<version>/bundle that the export wrote"
                )
                yield Checked(subject, False, what)
                continue
            try:
                bundle = load_bundle(Path(folder))
                Engine(bundle.tokenizer, bundle.limits, ExtractionLimits())  # refuses limits that cannot work
            except (OSError, ValueError) as error:
                yield Checked(subject, False, str(error))
                continue
            if (same := fitting.get(bundle.contract)) is not None:
                what = f"{bundle.name} is not used: {same} has the same contract and does for both"
                yield Checked(subject, True, what)
                continue
            fitting[bundle.contract] = folder
            self.bundles += (bundle,)
            yield Checked(subject, True, bundle.name)


def _clients(config: Config) -> Checked:
    """Whether librdkafka takes the settings. The clients get no broker address."""
    transactional = config.delivery.mode == "exactly_once"
    try:
        writing = transaction_settings(config, "check") if transactional else producer_settings(config)
        checksums = ""
        for make, settings in ((Consumer, consumer_settings(config)), (Producer, writing)):
            del settings["bootstrap.servers"]
            client = make({**settings, "log_level": 0}, logger=_NOWHERE)
            if isinstance(client, Consumer):
                client.close()
                checksums = str(settings["check.crcs"]).lower()
    except CredentialFileError as error:
        return Checked("kafka.security", False, str(error))
    except (KafkaException, ValueError, TypeError) as error:
        # librdkafka's text names the property, and for a refused value lists only what may stand there.
        reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        return Checked("kafka.client", False, f"{reason}; see librdkafka's CONFIGURATION.md")
    return Checked("kafka.client", True, f"librdkafka takes the settings; check.crcs {checksums}")


def _model_tls(config: Config) -> Iterator[Checked]:
    if config.model.tls is None:
        return
    try:
        read_credentials(config.model.tls)
    except CredentialFileError as error:
        yield Checked("model.tls", False, str(error))
    else:
        yield Checked("model.tls", True, "files can be used")


def _registry(config: Config) -> Iterator[Checked]:
    if config.kafka.registry.url is None:
        return
    # Not at the top: a worker without a registry should not load its client.
    from consumer.kafka.registry.client import RegistryRefused, connect

    try:
        connect(config.kafka.registry)
    except (RegistryRefused, ValueError) as error:  # ValueError: Confluent's client takes no such URL
        yield Checked("kafka.registry", False, str(error))


def _tracing(config: Config) -> Iterator[Checked]:
    """Whether spans can be sent, where ``observability.tracing`` is on."""
    if not is_traced(config):
        return
    endpoint = config.observability.tracing.endpoint or ""
    try:
        # Not at the top: a worker without a collector should not load OpenTelemetry.
        from consumer.telemetry.span_export import SpanExport

        SpanExport(endpoint, "check").close(1.0)
    except ImportError as error:
        what = f"{endpoint}: {error.name} is not installed; pip install 'rexstream[otel]', or remove the endpoint"
        yield Checked("observability.tracing.endpoint", False, what)
    except ValueError as error:
        yield Checked("observability.tracing", False, str(error))
    else:
        yield Checked("observability.tracing.endpoint", True, f"{endpoint}: spans can be made; nothing was sent")


def _http(address: str) -> Iterator[Checked]:
    """Whether a worker could listen at its HTTP address."""
    if not address:
        return
    try:
        host, port = parse_address(address)
        family, _, _, _, bound = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(bound)
    except (OSError, ValueError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        beside = taken and _is_worker(host, port)
        what = f"{address}: {(isinstance(error, OSError) and error.strerror) or error}"
        fix = "name an address of this machine and a port that this user may take, or an empty string for none"
        if taken:
            fix = f"{'a worker has it: ' * beside}choose another port for this one, or 0 for any that is free"
        yield Checked("observability.http", False, f"{what}; {fix}", beside)


def _is_worker(host: str, port: int) -> bool:
    """Whether a worker answers at this address of this machine."""
    connection = http.client.HTTPConnection(LOOPBACK.get(host, host), port, timeout=_STATUS_SECONDS)
    try:
        connection.request("GET", "/status", headers={"Host": f"localhost:{port}"})
        return bool(json.loads(connection.getresponse().read())["service"] == "rexstream")
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False
    finally:
        connection.close()
