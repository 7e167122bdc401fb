"""Bundles that come while a worker runs, where an entry of ``model.bundles`` has an asterisk.

Loaded only there: without an asterisk no bundle can come.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import structlog

from consumer.config.credential_files import CredentialFileError
from consumer.serving.bundle import BUNDLE_FILE, TOKENIZER_FILE, folders_like, recorded_contract
from consumer.worker.start_checks import MOST_BUNDLES, read_bundle, too_many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from consumer.serving.bundle import Bundle

LOOK_SECONDS = 2.0
"""Between two looks. One reads the folders' names and, of each bundle, the times of two files."""

_log = structlog.stdlib.get_logger(__name__)


class _Look(NamedTuple):
    """What a folder was when it was looked at last."""

    files: tuple[object, ...] | None = None
    """Times and sizes of its files; None where one of them could not be read, so that it is tried again."""
    refused: str = ""
    """Why its bundle is not used; empty where it is, or needs not."""
    told: str = ""
    """The same as it was logged."""


class BundleWatch:
    """Looks for folders of bundles again and again, and hands over each bundle that no other one does for."""

    def __init__(self, patterns: Iterable[str], bundles: Iterable[Bundle]) -> None:
        """``patterns``: the entries with an asterisk. ``bundles`` are in use already."""
        self._patterns = tuple(patterns)
        self._contracts = {each.contract for each in bundles}
        self._looks: dict[Path, _Look] = {}
        self._waiting: list[Bundle] = []
        self._failed = ""

    async def run(self, add: Callable[[Bundle], None]) -> None:
        """Look until cancelled; ``add`` is called on the event loop. When that raises CredentialFileError, since files
        of ``model.tls`` are being exchanged, it is called again.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # A vocabulary of 250,000 tokens takes 4 s, in half of which its library lets no other thread run.
            self._waiting += await asyncio.to_thread(self.look)
            try:
                while self._waiting:
                    add(self._waiting[0])
                    _log.info("another bundle was found", bundle=self._waiting.pop(0).name)
            except CredentialFileError as error:
                if (failed := str(error)) != self._failed:
                    _log.error("a bundle waits for credentials", bundle=self._waiting[0].name, reason=failed)
                self._failed = failed

    def look(self) -> list[Bundle]:
        """The bundles that are new. Blocks.

        Why another one cannot be used is logged once: when two looks found the same, so nobody is copying it any more.
        """
        new: list[Bundle] = []
        for folder in dict.fromkeys(each for pattern in self._patterns for each in folders_like(pattern)):
            last, files = self._looks.get(folder, _Look()), _files(folder)
            now = last
            if files is None or files != last.files:
                now = self._read(folder, files, new)._replace(told=last.told)
            if now.refused == last.refused and now.refused not in ("", now.told):
                _log.warning("a bundle cannot be used", bundle=str(folder), reason=now.refused)
                now = now._replace(told=now.refused)
            self._looks[folder] = now
        return new

    def _read(self, folder: Path, files: tuple[object, ...] | None, new: list[Bundle]) -> _Look:
        if recorded_contract(folder) in self._contracts:
            return _Look(files)
        if len(self._contracts) >= MOST_BUNDLES:
            return _Look(files, too_many(folder))
        try:
            bundle = read_bundle(folder)
        except (OSError, ValueError) as error:
            is_unread = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
            return _Look(None if is_unread else files, str(error))
        self._contracts.add(bundle.contract)
        new.append(bundle)
        return _Look(files)


def _files(folder: Path) -> tuple[object, ...] | None:
    """What changes when a file of the bundle does; None where one is not there."""
    try:
        both = [(folder / name).stat() for name in (BUNDLE_FILE, TOKENIZER_FILE)]
    except OSError:
        return None
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in both)
