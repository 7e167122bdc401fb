"""One Apache Kafka for all processes of a test run, in the hands of a process of its own for as long as any uses it.

Whoever needs the broker first starts its keeper. A user holds a shared lock of a file, which the system gives back
however the user ends. The keeper waits for an exclusive one: then there are no more users, and it ends the broker.
"""

from __future__ import annotations

import fcntl
import pickle
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from apache_kafka import ApacheKafka, fetch_jars

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def shared_kafka(folder: Path) -> Iterator[ApacheKafka]:
    """The broker of the processes that share ``folder``, with every listener of kafka_listeners.SECURE.

    It runs at least until the context ends. Raises RuntimeError when it does not start.
    """
    folder.mkdir(exist_ok=True)
    with (folder / "users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with (folder / "starting").open("w") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            if not _shared(folder).exists():
                _start_keeper(folder)
            broker: ApacheKafka = pickle.loads(_shared(folder).read_bytes())
        yield broker


def _shared(folder: Path) -> Path:
    """The file that is there while the broker runs: the broker, without its process."""
    return folder / "broker.pickle"


def _start_keeper(folder: Path) -> None:
    """Returns when the broker runs."""
    log = folder / "keeper.log"
    with log.open("w") as errors:
        # A session of its own: Ctrl-C ends the users, and the keeper after them.
        keeper = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    assert keeper.stdout is not None
    if not keeper.stdout.readline():
        raise RuntimeError(f"the broker of this test run did not start: {log.read_text()[-3000:]}")


def _keep(folder: Path) -> None:
    broker = ApacheKafka(fetch_jars(), Path(tempfile.mkdtemp(dir=folder)), secure=True)
    with (folder / "users").open("w") as users:
        try:
            broker.start()
            unfinished = folder / "unfinished"
            unfinished.write_bytes(pickle.dumps(broker))
            unfinished.rename(_shared(folder))
            print("it runs", flush=True)
            fcntl.flock(users, fcntl.LOCK_EX)
        finally:
            # Before the lock ends: who gets it next starts another. Also where nobody waits for it any more.
            _shared(folder).unlink(missing_ok=True)
            broker.kill()


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
