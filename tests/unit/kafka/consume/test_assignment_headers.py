"""Headers whose names no Kafka client of Python's writes, on the embedded broker."""

from __future__ import annotations

import ctypes
import glob
import os
import time

import confluent_kafka
import pytest
from confluent_kafka import Message, Producer

from consumer.events import Partition
from consumer.kafka.consume.assignment import readable_headers, source_record
from consumer.kafka.tools.reader import read_to_end, record_of
from consumer.local.broker import EmbeddedBroker

pytestmark = pytest.mark.broker

TOPIC, READABLE = "t", 200
"""Python optimises a loop after a few rounds."""

# Arguments of rd_kafka_producev, as librdkafka numbers them.
_END, _TOPIC, _VALUE, _MESSAGE_FLAGS, _HEADERS, _COPY = 0, 1, 4, 7, 10, 2


def library() -> ctypes.CDLL:
    """The librdkafka that confluent_kafka brings."""
    package = os.path.dirname(confluent_kafka.__file__)
    patterns = ("../confluent_kafka.libs/librdkafka*", ".dylibs/librdkafka*")
    found = [path for pattern in patterns for path in glob.glob(os.path.join(package, pattern))]
    if not found:
        pytest.skip("confluent_kafka brings no librdkafka of its own")
    return ctypes.CDLL(found[0])


def produce_latin_1(address: str) -> None:
    """One record with a header that is named in Latin-1."""
    kafka, text = library(), ctypes.create_string_buffer(512)
    for function in (kafka.rd_kafka_conf_new, kafka.rd_kafka_new, kafka.rd_kafka_headers_new):
        function.restype = ctypes.c_void_p
    conf = ctypes.c_void_p(kafka.rd_kafka_conf_new())
    kafka.rd_kafka_conf_set(conf, b"log_level", b"0", text, ctypes.c_size_t(512))
    kafka.rd_kafka_conf_set(conf, b"bootstrap.servers", address.encode(), text, ctypes.c_size_t(512))
    client = ctypes.c_void_p(kafka.rd_kafka_new(0, conf, text, ctypes.c_size_t(512)))
    headers, name = ctypes.c_void_p(kafka.rd_kafka_headers_new(ctypes.c_size_t(1))), "café".encode("latin-1")
    one = ctypes.c_ssize_t(1)
    kafka.rd_kafka_header_add(headers, name, ctypes.c_ssize_t(len(name)), b"v", one)
    arguments = (_TOPIC, TOPIC.encode(), _MESSAGE_FLAGS, _COPY, _VALUE, b"v", ctypes.c_size_t(1), _HEADERS, headers)
    assert kafka.rd_kafka_producev(client, *arguments, _END) == 0
    assert kafka.rd_kafka_flush(client, 30_000) == 0
    kafka.rd_kafka_destroy(client)


def test_a_name_that_is_no_utf_8_is_noticed_in_a_hot_loop() -> None:
    """Where the exception that the client leaves behind would come up in whatever is called next."""
    with EmbeddedBroker(topics={TOPIC: 1}) as broker:
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        for _ in range(READABLE):
            producer.produce(TOPIC, b"v", headers=[("a", b"1")])
        assert producer.flush(30) == 0
        for _ in range(3):
            produce_latin_1(broker.bootstrap_servers)

        def messages() -> list[Message]:
            return list(read_to_end(broker.bootstrap_servers, TOPIC))

        assert [readable_headers(message) for message in messages()] == [(("a", b"1"),)] * READABLE + [None] * 3
        assert [record_of(message).headers for message in messages()][-4:] == [(("a", b"1"),), (), (), ()]
        place = Partition(TOPIC, 0)
        records = [source_record(message, place, 1, time.monotonic()) for message in messages()]
        assert [record.headers for record in records][-4:] == [(("a", b"1"),), (), (), ()]
