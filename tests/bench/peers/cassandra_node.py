"""One Apache Cassandra of this machine, without which no mode of prosody-events starts."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml
from apache_kafka import fetch_jars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POM: Final = Path(__file__).parent / "cassandra/pom.xml"
START_SECONDS: Final = 90.0
OPENED: Final = (
    *("java.base/java.io", "java.base/java.lang", "java.base/java.lang.reflect", "java.base/java.net"),
    *("java.base/java.nio", "java.base/java.util", "java.base/java.util.concurrent", "java.base/sun.nio.ch"),
    *("java.base/java.util.concurrent.atomic", "java.base/java.math", "java.base/java.lang.module"),
    *("java.base/jdk.internal.loader", "java.base/jdk.internal.ref", "java.base/jdk.internal.reflect"),
    *("java.base/jdk.internal.math", "java.base/jdk.internal.module", "java.base/jdk.internal.util.jar"),
    *("java.management/java.lang.management", "java.management.rmi/javax.management.remote.rmi", "java.sql/java.sql"),
    *("java.rmi/sun.rmi.registry", "java.rmi/sun.rmi.server", "java.rmi/sun.rmi.transport"),
    *("java.rmi/sun.rmi.transport.tcp", "jdk.management/com.sun.management.internal"),
)
"""Packages of Java that Cassandra reaches into."""


@contextmanager
def cassandra(folder: Path, die_with_parent: Callable[[], None]) -> Iterator[str]:
    """Its address. Raises KafkaUnavailable when its jars cannot be had, RuntimeError when it does not start."""
    jars = fetch_jars(POM)
    folder.mkdir()
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        storage, native = (one.getsockname()[1] for one in sockets)
    seeds = {
        "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
        "parameters": [{"seeds": f"127.0.0.1:{storage}"}],
    }
    settings = {
        "cluster_name": "bench",
        "num_tokens": 4,
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "data_file_directories": [str(folder / "data")],
        **{f"{name}_directory": str(folder / name) for name in ("commitlog", "saved_caches", "hints", "cdc_raw")},
        "commitlog_sync": "periodic",
        "commitlog_sync_period": "10000ms",
        "seed_provider": [seeds],
        "listen_address": "127.0.0.1",
        "storage_port": storage,
        "rpc_address": "127.0.0.1",
        "native_transport_port": native,
        "endpoint_snitch": "SimpleSnitch",
        "auto_bootstrap": False,
    }
    (folder / "cassandra.yaml").write_text(yaml.safe_dump(settings))
    opened = [argument for name in OPENED for argument in ("--add-opens", f"{name}=ALL-UNNAMED")]
    exported = [argument for name in OPENED for argument in ("--add-exports", f"{name}=ALL-UNNAMED")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("java", "-Xmx512m", "-XX:+UseSerialGC", *opened, *exported),
                *("-Djdk.attach.allowAttachSelf=true", "-Djava.security.manager=allow"),
                *(f"-Dcassandra.config={(folder / 'cassandra.yaml').as_uri()}", f"-Dcassandra.storagedir={folder}"),
                *("-Dcassandra.skip_wait_for_gossip_to_settle=0", "-Dcassandra.ring_delay_ms=100"),
                *("-cp", f"{jars}/*", "org.apache.cassandra.service.CassandraDaemon"),
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
    try:
        _wait_for(process, native, folder / "log")
        yield f"127.0.0.1:{native}"
    finally:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < give_up:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    said = log.read_text(errors="replace")[-200:]
    raise RuntimeError(f"it did not start within {START_SECONDS:.0f} s; it said: {said}")
