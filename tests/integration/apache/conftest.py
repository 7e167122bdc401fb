"""Fixtures on a real Apache Kafka: support/apache_kafka.py starts it.

``$REXSTREAM_TEST_BOOTSTRAP`` names a cluster of the user's to use in its place (plaintext; topics come and go on it);
tests that need listeners or crashes of their own start a broker all the same. Where none can be had the tests are
skipped, which the end of the report counts; with ``CI=true`` they fail.

``apache_kafka`` (bootstrap address for the whole run), ``new_topic`` (creates a topic under a name of its own),
``secure_kafka`` (the broker that all processes of the run share, with its TLS and SCRAM listeners), ``private_kafka``
(a broker for one test, which may be stopped, killed and started again).
"""

from __future__ import annotations

import os
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from apache_kafka import SKIPPED, ApacheKafka, KafkaUnavailable, fetch_jars, java_release
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from runtime_harness import Cluster, Worker, running
from shared_kafka import shared_kafka

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GIVEN = "REXSTREAM_TEST_BOOTSTRAP"
_USED = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """Folder with Apache Kafka's jars."""
    try:
        return fetch_jars()
    except KafkaUnavailable as error:
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(f"{SKIPPED}{error} (CI is set, where these tests are not skipped)")
        pytest.skip(f"{SKIPPED}{error}, or name a cluster in ${GIVEN}")


@pytest.fixture(scope="session")
def secure_kafka(
    kafka_jars: Path,  # noqa: ARG001 - skips, or fails, where there are none
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ApacheKafka]:
    """The run's broker, with every listener of kafka_listeners.SECURE. Tests of other processes are beside."""
    base = tmp_path_factory.getbasetemp()
    with shared_kafka((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kafka") as broker:
        used = f"Apache Kafka {broker.version} from tests/kafka/pom.xml, Java {java_release()}"
        pytestconfig.stash.setdefault(_USED, []).append(used)
        yield broker


@pytest.fixture(scope="session")
def apache_kafka(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> str:
    """Bootstrap address of a real Kafka that lives as long as the test session."""
    if given := os.environ.get(GIVEN):
        pytestconfig.stash.setdefault(_USED, []).append(f"the cluster in ${GIVEN} ({given.rpartition('@')[2]})")
        return given
    broker: ApacheKafka = request.getfixturevalue("secure_kafka")
    return broker.bootstrap_servers


@pytest.fixture
def private_kafka(kafka_jars: Path, tmp_path: Path) -> Iterator[ApacheKafka]:
    """A started broker for one test."""
    broker = ApacheKafka(kafka_jars, tmp_path)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def new_topic(apache_kafka: str) -> Iterator[Callable[..., str]]:
    """``new_topic(name="reviews", partitions=4, **settings)`` creates a topic for this test; returns its full name."""
    admin = AdminClient({"bootstrap.servers": apache_kafka})
    created: list[str] = []

    def create(name: str = "reviews", partitions: int = 4, **settings: str) -> str:
        topic = f"{name}-{uuid.uuid4().hex[:8]}"
        config = {key.replace("_", "."): value for key, value in settings.items()}
        # As many replicas as the cluster gives by default.
        admin.create_topics([NewTopic(topic, partitions, -1, config=config)])[topic].result(30)
        created.append(topic)
        deadline = time.monotonic() + 30
        # Asked for by name, a topic that the broker has not heard of yet would be created a second time.
        while topic not in admin.list_topics(timeout=10).topics:
            assert time.monotonic() < deadline, f"topic {topic} did not appear"
        return topic

    yield create
    if created:
        for deleted in admin.delete_topics(created).values():
            deleted.result(30)


@pytest.fixture(autouse=True)
def kafka_in_the_report(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> None:
    """Put into each test's report which Kafka was used: tests/conftest.py writes it at the end of the output."""
    request.node.user_properties += [("kafka", used) for used in pytestconfig.stash.get(_USED, [])]


@pytest.fixture
def start(apache_kafka: str) -> Iterator[Callable[..., Worker]]:
    """Starts runtimes; whatever the test leaves running is closed without a drain."""
    with running() as run:

        def start_worker(topic: str, output: str, group: str, client: dict[str, Any], **kwargs: Any) -> Worker:
            return run(Worker(apache_kafka, topic, output, group, client=client, **kwargs))

        yield start_worker


@pytest.fixture
def cluster(apache_kafka: str) -> Cluster:
    return Cluster(apache_kafka)


@pytest.fixture
def group() -> str:
    return f"group-{uuid.uuid4().hex[:8]}"
