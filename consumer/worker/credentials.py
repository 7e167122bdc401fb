"""Certificates, keys and passwords in files: noticed when they change, and how many days their certificates have left.

Every client reads its files when it is made. Those of the model server and the registry are made again in the running
worker. Kafka's cannot be: librdkafka reads certificates once, and a consumer that is replaced leaves its group. There
the worker drains and ends, to be started again (``EXIT_CREDENTIALS``), and not all workers at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from consumer.config.credential_files import (
    EXPIRES_SOON_DAYS,
    CredentialFileError,
    check_files,
    credential_files,
    earliest_expiry,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.config.tree import Config

LOOK_SECONDS = 10.0
"""Time between two looks: reading a few small files, a millisecond in all."""

SPREAD_SECONDS = 60.0
"""Workers that see a change of Kafka's files at the same moment end within this time, each at a random point of it: a
group that lost all its members at once would stand still."""

_DAY_SECONDS = 86_400.0

_log = structlog.stdlib.get_logger(__name__)


class WatchedFiles:
    """The files of one section, and whether they still hold what its client was made with.

    Compared by content: a Kubernetes Secret is renewed by turning a symbolic link, with times of its own.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        """``files``: setting -> file. To be made before the client is: what changes in between is a change."""
        self._files = dict(files)
        self._seen: dict[str, tuple[bytes, float | None]] = {}
        self._used = self._seen = self._read()
        self._reason = ""

    @property
    def expiries(self) -> dict[str, float]:
        """Setting -> when the first of its certificates in use expires, in seconds since the epoch."""
        return {setting: end for setting, (_, end) in self._used.items() if end is not None}

    def changed(self) -> list[str]:
        """Settings whose files hold something else, once all files fit together and nobody is writing any more.

        Until then there is a line in the log, once for each reason.
        """
        now, before = self._read(), self._seen
        self._seen = now
        different = sorted(setting for setting in now if now[setting] != self._used[setting])
        if not different:
            self._reason = ""
        if not different or now != before:
            return []
        try:
            check_files(self._files)
        except CredentialFileError as error:
            self.wait(error)
            return []
        return different

    def wait(self, error: CredentialFileError) -> None:
        """Log that changed files cannot be used yet, and why, unless that was the last thing to be logged."""
        if str(error) != self._reason:
            self._reason = str(error)
            _log.warning(
                "changed credential files cannot be used yet; those before them stay in use", reason=str(error)
            )

    def taken(self) -> None:
        """The client was made again, with what the last look saw."""
        self._used = self._seen
        self._reason = ""

    def _read(self) -> dict[str, tuple[bytes, float | None]]:
        """Setting -> digest of its file, empty for one that cannot be read, and when its certificates expire."""
        found: dict[str, tuple[bytes, float | None]] = {}
        for setting, file in self._files.items():
            try:
                content = Path(file).read_bytes()
            except (OSError, ValueError):
                found[setting] = b"", None
                continue
            digest = hashlib.sha256(content).digest()
            known = self._seen.get(setting)
            # A bundle of public authorities takes some milliseconds.
            found[setting] = (digest, earliest_expiry(content)) if known is None or known[0] != digest else known
        return found


class CredentialWatch:
    """Looks at every file that the configuration names, on a timer."""

    def __init__(
        self,
        config: Config,
        on_days_left: Callable[[Mapping[str, float]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """To be made before any client. ``on_days_left`` gets what ``days_left`` returns."""
        self._watched = {section: WatchedFiles(files) for section, files in credential_files(config).items()}
        self._inline = {
            f"kafka.client.{key}": end
            for key, value in config.kafka.client.items()
            if key.endswith(".pem") and (end := earliest_expiry(str(value).encode())) is not None
        }
        """Certificates that are no files and cannot change, by setting."""
        self.renew: dict[str, Callable[[], None]] = {}
        """Section -> makes its client again, once there is one. May raise CredentialFileError."""
        self._on_days_left = on_days_left
        self._clock = clock
        self._warned: dict[str, float] = {}
        self._end_at: float | None = None

    async def run(self, end: Callable[[], bool]) -> None:
        """Look until cancelled; return at once where no file is configured.

        ``end()`` ends the worker for Kafka's files, or returns False when no client of Kafka's was made yet.
        """
        while self._watched or self._inline:
            self.report()
            await asyncio.sleep(LOOK_SECONDS)
            for section, files in self._watched.items():
                changed = await asyncio.to_thread(files.changed)
                if section == "kafka.security":
                    self._kafka(files, changed, end)
                elif changed:
                    self._renew(section, files, changed)

    def days_left(self) -> dict[str, float]:
        """Setting -> days until the first of its certificates in use expires, below 0 when it has."""
        ends = dict(self._inline)
        for files in self._watched.values():
            ends |= files.expiries
        return {setting: (end - self._clock()) / _DAY_SECONDS for setting, end in ends.items()}

    def report(self) -> None:
        """Report the days that are left; log once a day what expires soon."""
        now, days = self._clock(), self.days_left()
        self._on_days_left(days)
        for setting, left in days.items():
            if left < EXPIRES_SOON_DAYS and now - self._warned.get(setting, 0.0) >= _DAY_SECONDS:
                self._warned[setting] = now
                what = "a certificate expires soon" if left > 0 else "a certificate has expired"
                _log.warning(what, setting=setting, days_left=round(left, 1), fix="put a new one into the file")

    def _renew(self, section: str, files: WatchedFiles, changed: list[str]) -> None:
        try:
            if (renew := self.renew.get(section)) is not None:
                renew()
        except CredentialFileError as error:  # changed once more since the look
            files.wait(error)
        else:
            files.taken()
            _log.info("credential files changed: new connections use them", settings=changed)

    def _kafka(self, files: WatchedFiles, changed: list[str], end: Callable[[], bool]) -> None:
        if not changed:
            self._end_at = None
            return
        now = time.monotonic()
        if self._end_at is None:
            self._end_at = now + random.uniform(0.0, SPREAD_SECONDS)  # noqa: S311 - spreads workers, hides nothing
            seconds = round(self._end_at - now, 1)
            _log.info("credential files of Kafka changed: the worker will end", settings=changed, in_seconds=seconds)
        if now >= self._end_at:
            self._end_at = None
            files.taken()
            if end():
                _log.warning("draining, to be started again with Kafka's changed credential files", settings=changed)
