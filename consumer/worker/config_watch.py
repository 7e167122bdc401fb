"""The configuration file, read again while the worker runs: what of a change takes effect at once, and what does not.

Loaded only where a canary is configured: nothing else can change in a running worker.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from consumer.config.problems import ConfigError, KeyPath, dotted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from consumer.config.canary import CanaryConfig
    from consumer.config.section import Section
    from consumer.config.tree import Config

LOOK_SECONDS = 2.0
"""Between two looks at the file. Kubernetes takes up to a minute until a changed ConfigMap is in the pod."""

LIVE: tuple[KeyPath, ...] = (("model", "canary", "share"), ("model", "canary", "slower"))
"""What takes effect in a running worker."""

_log = structlog.stdlib.get_logger(__name__)


class ConfigWatch:
    """Reads the file again when its content has changed, and hands over the canary's share and bound."""

    def __init__(self, config: Config, reload: Callable[[], Config], file: str) -> None:
        """``config`` is in effect; ``reload`` reads it again, from the file ``file`` and whatever overrides that.

        ``reload`` raises ConfigError.
        """
        self._config, self._reload, self._file = config, reload, Path(file)
        self._seen = self._last = self._content()
        self._waiting: list[str] = []
        self._failed = ""
        """Why the changed file cannot be used, as it was logged."""

    async def run(self, change: Callable[[CanaryConfig | None], None]) -> None:
        """Look until cancelled; ``change`` is called with a canary whose share or bound is another one."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if (canary := await asyncio.to_thread(self.changed)) is not None:
                change(canary)

    def changed(self) -> CanaryConfig | None:
        """The canary with what is new of it; None where nothing of it is. Logs what has to wait for the next start.

        A file that cannot be read or is no valid configuration changes nothing, nor does one that was another at the
        look before: it may be half written, and without the canary's section a share of 0 would be valid.
        """
        content, before_that = self._content(), self._last
        self._last = content
        if content == self._seen:
            self._failed = ""
            return None
        if content != before_that:
            return None
        try:
            if content is None:
                raise OSError(f"{self._file} cannot be read")
            new = self._reload()
        except (OSError, ConfigError) as error:
            what = "the changed configuration file cannot be used; everything stays as it is"
            if (reason := str(error)) != self._failed:
                _log.error(what, file=str(self._file), reason=reason)
            self._failed = reason
            return None  # the next look tries it again: what it names may not have been there yet
        self._seen, self._failed = content, ""
        before, now = self._config.model.canary, new.model.canary
        live = before
        is_other = before is not None and now is not None and (now.label, now.version) != (before.label, before.version)
        if before is not None:
            share, slower = (0.0, before.slower) if now is None else (now.share, now.slower)
            if is_other:  # the larger share is for that one, which this worker does not know
                share = min(before.share, share)
            live = before.model_copy(update={"share": share, "slower": slower})
        waiting = [dotted(path) for path in _different(self._config, new) if is_other or path not in LIVE]
        if waiting and waiting != self._waiting:
            _log.warning("changed keys of the configuration file take effect at the next start", keys=waiting)
        self._waiting = waiting
        if live is None or live == before:
            return None
        _log.info("the canary is another one", share=live.share, slower=live.slower, was=before and before.share)
        model = self._config.model.model_copy(update={"canary": live})
        self._config = self._config.model_copy(update={"model": model})
        return live

    def _content(self) -> bytes | None:
        """A ConfigMap is changed by turning a symbolic link, with times of its own: so the content is compared."""
        try:
            return self._file.read_bytes()
        except OSError:
            return None


def _different(one: Section, other: Section, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The keys whose values are not the same, as deep as both have sections."""
    for name in type(one).model_fields:
        a, b, here = getattr(one, name), getattr(other, name), (*path, name)
        if a == b:
            continue
        if type(a) is type(b) and hasattr(type(a), "model_fields"):
            yield from _different(a, b, here)
        else:
            yield here
