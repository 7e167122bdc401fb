"""A real schema registry and a real Apache Kafka; support/apicurio.py and support/apache_kafka.py start them.

``$SCHEMA_REGISTRY_URL`` names a registry of the user's for what needs only its interface (subjects come and stay on
it); tests that stop it, or want TLS, start one all the same. Where none can be had the tests are skipped; with
``CI=true`` they fail.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import pytest
from apache_kafka import ApacheKafka, KafkaUnavailable, fetch_jars
from apicurio import Apicurio, RegistryAbsent, fetch_apicurio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GIVEN = "SCHEMA_REGISTRY_URL"


def _absent(what: str) -> None:
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"{what} (CI is set, where these tests are not skipped)")
    pytest.skip(what)


@pytest.fixture(scope="session")
def installed() -> Path:
    """Folder with Apicurio Registry."""
    try:
        return fetch_apicurio()
    except RegistryAbsent as error:
        _absent(f"Apicurio Registry cannot run: {error}")
        raise


@pytest.fixture(scope="session")
def registry_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a registry for the whole session."""
    if given := os.environ.get(GIVEN):
        yield given
        return
    running = Apicurio(request.getfixturevalue("installed"), tmp_path_factory.mktemp("registry"))
    running.start()
    try:
        yield running.url
    finally:
        running.stop()


@pytest.fixture
def private_registry(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    """A registry for one test, not started yet."""
    own = Apicurio(installed, tmp_path_factory.mktemp("registry"))
    try:
        yield own
    finally:
        own.kill()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of a broker for the whole session."""
    try:
        jars = fetch_jars()
    except KafkaUnavailable as error:
        _absent(f"Apache Kafka cannot run: {error}")
        raise
    broker = ApacheKafka(jars, tmp_path_factory.mktemp("kafka"))
    broker.start()
    try:
        yield broker.bootstrap_servers
    finally:
        broker.stop()


@pytest.fixture
def new_topic() -> Callable[[str], str]:
    """``new_topic("reviews")`` gives a name that nothing has used, neither topic nor subject."""
    return lambda label: f"{label}-{uuid.uuid4().hex[:8]}"
