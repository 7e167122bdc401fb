"""librdkafka's mock cluster in a process of its own, with orders on standard input. Ends when that closes.

The first argument is the number of brokers, 1 by default.

Prints the bootstrap address, then one line for each order: ``topic NAME PARTITIONS``, ``fail API_KEY CODE...`` (the
next requests of that kind are refused), ``forget API_KEY`` (no more of it), ``down``, ``up`` (broker 1,
or the one that is named), ``no-api API_KEY`` (the
broker does not know this request), ``topic-error NAME CODE`` (metadata and transactions refuse the topic; 0: no more),
``leader NAME PARTITION BROKER``, ``coordinator GROUP BROKER``.
"""

from __future__ import annotations

import ctypes
import glob
import os
import sys
from importlib.util import find_spec

PATTERNS = ("../confluent_kafka.libs/librdkafka*", ".dylibs/librdkafka*")


def main() -> None:
    package = find_spec("confluent_kafka")  # not imported, which takes three times as long as all else here
    assert package is not None
    assert package.origin is not None
    folder = os.path.dirname(package.origin)
    found = [path for pattern in PATTERNS for path in glob.glob(os.path.join(folder, pattern))]
    if not found:
        sys.exit("no librdkafka beside confluent_kafka")
    library = ctypes.CDLL(found[0])
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_conf_set.argtypes = [pointer, text, text, text, ctypes.c_size_t]
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_new.argtypes = [number, pointer, text, ctypes.c_size_t]
    library.rd_kafka_mock_cluster_new.restype = pointer
    library.rd_kafka_mock_cluster_new.argtypes = [pointer, number]
    library.rd_kafka_mock_cluster_bootstraps.restype = text
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    library.rd_kafka_mock_topic_create.argtypes = [pointer, text, number, number]
    library.rd_kafka_mock_push_request_errors_array.argtypes = [
        pointer,
        ctypes.c_int16,
        ctypes.c_size_t,
        ctypes.POINTER(number),
    ]
    library.rd_kafka_mock_clear_request_errors.argtypes = [pointer, ctypes.c_int16]
    library.rd_kafka_mock_broker_set_down.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_broker_set_up.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms.argtypes = [pointer, number]
    library.rd_kafka_mock_set_apiversion.argtypes = [pointer, ctypes.c_int16, ctypes.c_int16, ctypes.c_int16]

    library.rd_kafka_mock_topic_set_error.argtypes = [pointer, text, number]
    library.rd_kafka_mock_partition_set_leader.argtypes = [pointer, text, ctypes.c_int32, ctypes.c_int32]
    library.rd_kafka_mock_coordinator_set.argtypes = [pointer, text, text, ctypes.c_int32]

    error = ctypes.create_string_buffer(512)
    settings = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(settings, b"log_level", b"0", error, 512)
    client = library.rd_kafka_new(0, settings, error, 512)
    cluster = library.rd_kafka_mock_cluster_new(client, int(sys.argv[1]) if sys.argv[1:] else 1)
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 300)
    library.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(cluster, 200)
    print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        order, *words = line.split()
        if order == "topic":
            library.rd_kafka_mock_topic_create(cluster, words[0].encode(), int(words[1]), 1)
        elif order == "fail":
            codes = [int(word) for word in words[1:]]
            library.rd_kafka_mock_push_request_errors_array(
                cluster, int(words[0]), len(codes), (number * len(codes))(*codes)
            )
        elif order == "forget":
            library.rd_kafka_mock_clear_request_errors(cluster, int(words[0]))
        elif order == "down":
            library.rd_kafka_mock_broker_set_down(cluster, int(words[0]) if words else 1)
        elif order == "up":
            library.rd_kafka_mock_broker_set_up(cluster, int(words[0]) if words else 1)
        elif order == "no-api":
            library.rd_kafka_mock_set_apiversion(cluster, int(words[0]), -1, -1)
        elif order == "topic-error":
            library.rd_kafka_mock_topic_set_error(cluster, words[0].encode(), int(words[1]))
        elif order == "leader":
            library.rd_kafka_mock_partition_set_leader(cluster, words[0].encode(), int(words[1]), int(words[2]))
        elif order == "coordinator":
            library.rd_kafka_mock_coordinator_set(cluster, b"group", words[0].encode(), int(words[1]))
        print("done", flush=True)
    os._exit(0)  # the library's threads need no farewell


if __name__ == "__main__":
    main()
