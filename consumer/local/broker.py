"""An embedded Kafka broker: the mock cluster inside librdkafka, served to any Kafka client on this machine.

It keeps everything in memory, silently drops the oldest records of a partition beyond about 4 MB, and answers
transactions without carrying them out. Good for trying things out and for fast tests of at-least-once delivery; nothing
about exactly-once can be seen on it (``consumer.kafka.clients.cluster`` recognises it).
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Self

from confluent_kafka import cimpl

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_PRODUCER = 0
_ERROR_BYTES = 512
_HEARTBEAT_MS = 500
_REBALANCE_DELAY_MS = 100
"""How long a new group waits for more members. The mock cluster's default of 3 s is most of a fast test's time."""

_PROTOTYPES: dict[str, tuple[object, list[object]]] = {
    "rd_kafka_conf_new": (ctypes.c_void_p, []),
    "rd_kafka_conf_set": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t],
    ),
    "rd_kafka_new": (ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_mock_cluster_new": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, [ctypes.c_void_p]),
    "rd_kafka_mock_topic_create": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]),
    "rd_kafka_mock_broker_set_host_port": (
        None,
        [ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int],
    ),
    "rd_kafka_mock_set_apiversion": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_int16, ctypes.c_int16, ctypes.c_int16],
    ),
    "rd_kafka_mock_push_request_errors_array": (
        None,
        [ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)],
    ),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_set_group_consumer_heartbeat_interval_ms": (None, [ctypes.c_void_p, ctypes.c_int]),
}


class EmbeddedBrokerError(Exception):
    """The broker could not be started. The message has the reason and what to use in its place."""


class EmbeddedBroker:
    """A running cluster on 127.0.0.1. A context manager; its data is gone when it closes.

    The cluster listens on ports that the kernel picks: librdkafka offers no way to choose them. Here it takes all that
    it is sent and loses what it cannot hold; ``consumer.local.broker_guard`` keeps clients from that.
    """

    def __init__(self, brokers: int = 1, topics: Mapping[str, int] | None = None) -> None:
        """Start ``brokers`` brokers and create ``topics`` (name -> partitions); other topics appear on first use.

        Raises EmbeddedBrokerError.
        """
        self._library = _librdkafka()
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        settings = self._library.rd_kafka_conf_new()
        # The handle only hosts the cluster and never connects: no warning is needed that it has no bootstrap.servers.
        self._library.rd_kafka_conf_set(settings, b"log_level", b"3", error, _ERROR_BYTES)
        self._handle = self._library.rd_kafka_new(_PRODUCER, settings, error, _ERROR_BYTES)
        if not self._handle:
            raise EmbeddedBrokerError(f"librdkafka refused to start: {error.value.decode(errors='replace')}")
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._handle, brokers)
        if not self._cluster:
            self._library.rd_kafka_destroy(self._handle)
            raise EmbeddedBrokerError(
                f"librdkafka could not open {brokers} listening ports on 127.0.0.1; use fewer brokers"
            )
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, _REBALANCE_DELAY_MS)
        self._library.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(self._cluster, _HEARTBEAT_MS)
        self.bootstrap_servers: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        for topic, partitions in (topics or {}).items():
            create = self._library.rd_kafka_mock_topic_create
            if partitions < 1 or create(self._cluster, topic.encode(), partitions, 1):
                self.close()
                raise EmbeddedBrokerError(
                    f"topic {topic!r} with {partitions} partitions was refused; give it one partition or more"
                )

    def advertise(self, broker: int, host: str, port: int) -> None:
        """Send clients of broker number ``broker`` (from 1) to another address than the one it listens on."""
        self._library.rd_kafka_mock_broker_set_host_port(self._cluster, broker, host.encode(), port)

    def offer_versions(self, api_key: int, first: int, last: int) -> None:
        """Offer clients only these versions of the request with this ``api_key``."""
        self._library.rd_kafka_mock_set_apiversion(self._cluster, api_key, first, last)

    def refuse(self, api_key: int, code: int, requests: int) -> None:
        """Answer the next ``requests`` requests of a kind with error ``code``; earlier such orders come first."""
        codes = (ctypes.c_int * requests)(*[code] * requests)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, requests, codes)

    def close(self) -> None:
        """Close every connection and forget every record. Can be called twice."""
        if self._cluster:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._library.rd_kafka_destroy(self._handle)
            self._cluster = self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _librdkafka() -> ctypes.CDLL:
    """The librdkafka that confluent-kafka has loaded: symbols are looked up in the extension's own dependencies."""
    try:
        library = ctypes.CDLL(cimpl.__file__)
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise EmbeddedBrokerError(
            f"the installed confluent-kafka does not give access to librdkafka's mock cluster ({error}); "
            "use its binary wheel for Linux or macOS, or a real Apache Kafka"
        ) from error
    return library
