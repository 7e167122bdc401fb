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
from consumer.serving.bundle import folders_like, load_bundle, patterns, recorded_contract
from consumer.serving.channels import read_credentials
from consumer.telemetry.http import parse_address
from consumer.worker.parts import is_traced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.tree import Config, ModelConfig
    from consumer.serving.bundle import Bundle

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound
"""An address of every interface -> one at which to reach it from this machine."""
MOST_BUNDLES = 4
"""With more than these, what an asterisk of ``model.bundles`` finds is not used: a vocabulary of 250,000 tokens takes
some 160 MB, and each bundle asks each model server a known-good window every second or two."""
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
    warns: bool = False
    """Whether it is worth a warning, and no more: only a second worker on this machine could not start, or a worker
    starts without this."""

    def __str__(self) -> str:
        return self.detail if self.detail.startswith(self.subject) else f"{self.subject}: {self.detail}"


class StartChecks:
    """All of these checks, made at once. Nothing is connected to."""

    def __init__(self, config: Config) -> None:
        bundles, read = read_bundles(config.model)
        self.bundles: tuple[Bundle, ...] = bundles
        """Those of ``model.bundle`` and ``model.bundles`` that can be read, of several with one contract the first."""
        self.found: tuple[Checked, ...] = (
            _clients(config),
            *read,
            *_model_tls(config),
            *_registry(config),
            *_tracing(config),
            *_http(config.observability.http),
        )

    def refused(self) -> list[Checked]:
        """What a worker cannot start with; empty when it can."""
        return [each for each in self.found if not each.well]


def read_bundle(folder: Path) -> Bundle:
    """As ``load_bundle``. Raises ValueError, too, for limits or a vocabulary that no window can be made with."""
    try:
        bundle = load_bundle(folder)
        Engine(bundle.tokenizer, bundle.limits, ExtractionLimits()).known_good_window()
    except (OSError, MemoryError):
        raise
    except ValueError as error:
        if str(folder) in str(error):
            raise
        raise ValueError(f"{folder}: {error}") from error
    except Exception as error:  # the tokenizer's library raises plain ones
        what = f"no window can be made ({type(error).__name__}: {error}); export the model anew"
        raise ValueError(f"{folder}: {what}") from error
    return bundle


def read_bundles(model: ModelConfig) -> tuple[tuple[Bundle, ...], list[Checked]]:
    """The bundles that can be used, of several with one contract the first; and what was found of each folder.

    A folder that is named has to be there. What an asterisk finds may be half copied, so it stops no start.
    """
    found: list[Checked] = []
    # Two that fit the same versions would halve every batch between them.
    fitting: dict[int, Bundle] = {}
    named = {"model.bundle": model.bundle}
    named |= {dotted(("model", "bundles", number)): each for number, each in enumerate(model.bundles)}
    found_by = {subject: each for subject, each in named.items() if each is not None and patterns((each,))}
    for subject, folder in named.items():
        if folder is None:
            what = "is not set, and a worker needs it; name the folder <model>/<version>/bundle that the export wrote"
            found.append(Checked(subject, False, what))
        elif subject not in found_by:
            found.append(_read(subject, Path(folder), fitting, stops=True))
    for subject, pattern in found_by.items():
        folders = folders_like(pattern)
        what = f"{pattern} finds {len(folders)} bundles; a worker looks for others while it runs"
        found.append(Checked(subject, True, what, warns=not folders))
        # Versions with the contract of another are usual: nothing is said of them, and no tokenizer is loaded.
        new = (each for each in folders if recorded_contract(each) not in fitting)
        found.extend(_read(subject, each, fitting, stops=False) for each in new)  # and fills ``fitting`` one by one
    return tuple(fitting.values()), found


def _read(subject: str, folder: Path, fitting: dict[int, Bundle], *, stops: bool) -> Checked:
    """Read one into ``fitting``, by contract. ``stops``: without it no worker starts."""
    if not stops and len(fitting) >= MOST_BUNDLES:
        return Checked(subject, True, too_many(folder), warns=True)
    try:
        bundle = read_bundle(folder)
    except (OSError, ValueError) as error:
        return Checked(subject, not stops, str(error), warns=not stops)
    if (same := fitting.setdefault(bundle.contract, bundle)) is not bundle:
        return Checked(subject, True, f"{bundle.name} is not used: {same.name} has the same contract and does for both")
    return Checked(subject, True, bundle.name)


def too_many(folder: Path) -> str:
    """Why the bundle of a folder that an asterisk found is not used where there are ``MOST_BUNDLES``."""
    return (
        f"{folder} is not used: there are {MOST_BUNDLES} bundles already; remove folders of versions that are gone, or "
        "name it in model.bundles without an asterisk, and restart the workers"
    )


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
