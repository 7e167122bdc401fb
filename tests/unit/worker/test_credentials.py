"""What a worker does when the files of its certificates, keys and passwords change, and as their end comes near."""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from certificates import Authority

from consumer.config.credential_files import CredentialFileError
from consumer.config.tree import Config
from consumer.worker import credentials
from consumer.worker.credentials import CredentialWatch, WatchedFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AUTHORITY = Authority()
FIRST, SECOND = AUTHORITY.issue("one", days=100), AUTHORITY.issue("two", days=200)
DAY = 86_400.0


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, str]:
    """Setting -> file of a certificate and its key."""
    for name, content in zip(("c", "k"), FIRST, strict=True):
        (tmp_path / name).write_bytes(content)
    return {"model.tls.certificate_file": str(tmp_path / "c"), "model.tls.key_file": str(tmp_path / "k")}


def test_a_change_counts_when_it_fits_and_is_finished(tmp_path: Path, pair: dict[str, str]) -> None:
    """A certificate without its key is no change yet, said once; nor is what was still written at the last look."""
    watched = WatchedFiles(pair)
    assert watched.changed() == []
    with structlog.testing.capture_logs() as logs:
        (tmp_path / "c").write_bytes(SECOND[0])
        assert [watched.changed() for _ in range(4)] == [[]] * 4
        assert [line["log_level"] for line in logs] == ["warning"]
        assert "is not the key of the certificate" in logs[0]["reason"]
        (tmp_path / "k").write_bytes(SECOND[1])
        assert watched.changed() == []
        assert watched.changed() == sorted(pair)
        assert watched.changed() == sorted(pair)
    watched.taken()
    assert watched.changed() == []
    assert len(logs) == 1


def test_the_same_content_is_no_change(tmp_path: Path, pair: dict[str, str]) -> None:
    """Times do not count: an editor or a copy job touches files."""
    watched = WatchedFiles(pair)
    os.utime(tmp_path / "c", (1, 1))
    (tmp_path / "k").write_bytes(FIRST[1])
    assert [watched.changed(), watched.changed()] == [[], []]


def test_a_secret_that_kubernetes_renews_is_a_change(tmp_path: Path) -> None:
    """Its files are links to ``..data``, a link to a folder, which is turned to another folder in one step."""
    for number, content in enumerate((FIRST, SECOND)):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        (folder / "tls.crt").write_bytes(content[0])
        (folder / "tls.key").write_bytes(content[1])
    (tmp_path / "..data").symlink_to("..0")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    files = {"s.certificate_file": str(tmp_path / "tls.crt"), "s.key_file": str(tmp_path / "tls.key")}
    watched = WatchedFiles(files)
    (tmp_path / "..new").symlink_to("..1")
    (tmp_path / "..new").rename(tmp_path / "..data")
    watched.changed()
    assert watched.changed() == sorted(files)


def test_a_file_that_goes_away_changes_nothing(tmp_path: Path, pair: dict[str, str]) -> None:
    """Clients go on with what they have; days left are those of the certificate in use."""
    watched = WatchedFiles(pair)
    before = watched.expiries
    (tmp_path / "c").unlink()
    assert [watched.changed() for _ in range(3)] == [[]] * 3
    assert watched.expiries == before
    (tmp_path / "c").write_bytes(FIRST[0])
    assert [watched.changed() for _ in range(3)] == [[]] * 3


def test_days_left_are_those_of_what_is_in_use(tmp_path: Path, pair: dict[str, str]) -> None:
    """A new certificate counts from when its client uses it."""
    watched = WatchedFiles(pair)
    (tmp_path / "c").write_bytes(SECOND[0])
    watched.changed()
    first = watched.expiries["model.tls.certificate_file"]
    (tmp_path / "k").write_bytes(SECOND[1])
    watched.changed()
    watched.changed()
    watched.taken()
    assert watched.expiries["model.tls.certificate_file"] == first + 100 * DAY


def watch(config: dict[str, Any]) -> tuple[CredentialWatch, dict[str, float]]:
    days: dict[str, float] = {}
    return CredentialWatch(Config.model_validate(config), days.update), days


def looks(watched: CredentialWatch, until: Callable[[], bool], end: Callable[[], bool] = lambda: False) -> None:
    """Let it look until something is true."""

    async def go() -> None:
        task = asyncio.create_task(watched.run(end))
        deadline = time.monotonic() + 30
        while not until():
            assert time.monotonic() < deadline
            assert not task.done(), task
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(go())


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(credentials, "SPREAD_SECONDS", 0.05)


def test_a_client_is_made_again_once_for_each_change(tmp_path: Path, pair: dict[str, str]) -> None:
    """And again when the files that were seen had changed once more by the time that it read them."""
    tls = {key.rpartition(".")[2]: file for key, file in pair.items()}
    watched, days = watch({"model": {"tls": tls}})
    made: list[str] = []

    def renew() -> None:
        made.append("x")
        if len(made) == 1:
            raise CredentialFileError("half written")

    watched.renew["model.tls"] = renew
    for name, content in zip(("c", "k"), SECOND, strict=True):
        (tmp_path / name).write_bytes(content)
    looks(watched, lambda: len(made) == 2)
    rounds: list[float] = []
    watched._on_days_left = lambda left: rounds.append(left["model.tls.certificate_file"])
    looks(watched, lambda: len(rounds) == 5)
    assert len(made) == 2
    assert rounds[-1] == pytest.approx(200, abs=0.1)
    assert days["model.tls.certificate_file"] == pytest.approx(200, abs=0.1)


def test_kafkas_files_end_the_worker_once_not_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a random moment of the time that is given; a change that is taken back meanwhile ends nothing."""
    wait = 1000.0
    monkeypatch.setattr(random, "uniform", lambda low, high: wait + low * high)
    (tmp_path / "p").write_text("one")
    login = {"protocol": "sasl_ssl", "mechanism": "PLAIN", "username": "u", "password_file": str(tmp_path / "p")}
    watched, _ = watch({"kafka": {"security": login}})
    ends: list[float] = []

    def end() -> bool:
        ends.append(time.monotonic())
        return True

    (tmp_path / "p").write_text("two")
    looks(watched, lambda: watched._end_at is not None, end)
    (tmp_path / "p").write_text("one")
    looks(watched, lambda: watched._end_at is None, end)
    assert ends == []
    wait = 0.3
    (tmp_path / "p").write_text("three")
    started = time.monotonic()
    looks(watched, lambda: bool(ends), end)
    assert ends[0] - started >= 0.3
    rounds: list[int] = []
    watched._on_days_left = lambda _: rounds.append(1)
    looks(watched, lambda: len(rounds) == 5, end)
    assert len(ends) == 1


def test_without_files_there_is_nothing_to_look_at() -> None:
    """The watch ends by itself."""
    watched, days = watch({})
    asyncio.run(watched.run(lambda: True))
    assert days == {}


def test_what_expires_soon_is_logged_once_a_day(tmp_path: Path) -> None:
    """Also a certificate that is written into the configuration; one with time enough is not."""
    soon, gone, far = (Authority(f"a{days}", days=days).pem for days in (13, -1, 20))
    (tmp_path / "soon").write_bytes(soon)
    (tmp_path / "far").write_bytes(far)
    config = {
        "kafka": {"client": {"ssl.ca.pem": gone.decode()}},
        "model": {"tls": {"ca_file": str(tmp_path / "soon")}},
    }
    config["kafka"]["registry"] = {"url": "https://r", "ca_file": str(tmp_path / "far")}
    now = time.time()
    days: dict[str, float] = {}
    watched = CredentialWatch(Config.model_validate(config), days.update, lambda: now)
    with structlog.testing.capture_logs() as logs:
        watched.report()
        now += 3600
        watched.report()
        assert [(line["event"], line["setting"]) for line in logs] == [
            ("a certificate has expired", "kafka.client.ssl.ca.pem"),
            ("a certificate expires soon", "model.tls.ca_file"),
        ]
        now += 23.5 * 3600
        watched.report()
    assert len(logs) == 4
    assert {setting: round(left) for setting, left in days.items()} == {
        "kafka.client.ssl.ca.pem": -2,
        "kafka.registry.ca_file": 19,
        "model.tls.ca_file": 12,
    }
