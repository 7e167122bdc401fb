"""The keeper of the suite's broker: what it leaves behind, however those end who wait for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"
KEEPER = """
import sys
from pathlib import Path
import shared_kafka

class Broker:
    def __init__(self, jars, folder, secure):
        pass
    def start(self):
        sys.stdin.readline()
    def kill(self):
        Path(sys.argv[1], "ended").touch()

shared_kafka.ApacheKafka, shared_kafka.fetch_jars = Broker, lambda: None
shared_kafka._keep(Path(sys.argv[1]))
"""


def _keeper(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KEEPER, str(folder)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=SUPPORT)


def test_a_broker_that_is_ended_is_not_given_to_the_next(tmp_path: Path) -> None:
    """Whoever asked for it was ended while it started, as a process of the suite that crashes; others come later."""
    with _keeper(tmp_path) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        keeper.stdout.close()
        keeper.stdin.write("go on\n")
        keeper.stdin.flush()
        keeper.wait(30)
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "broker.pickle").exists()


def test_a_broker_ends_with_its_last_user(tmp_path: Path) -> None:
    """Here there is none left when it runs."""
    with _keeper(tmp_path) as keeper:
        said, _ = keeper.communicate("go on\n", 30)
    assert keeper.returncode == 0
    assert said == "it runs\n"
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "broker.pickle").exists()
