"""What ``rexstream check`` says of the certificates that a configuration names: how many days they have left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from consumer.cli.dependencies import Finding
from consumer.config.credential_files import EXPIRES_SOON_DAYS, credential_files, earliest_expiry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.tree import Config


def expiry_findings(config: Config) -> Iterator[Finding]:
    """One for each file with certificates; of several in a file, the first to expire counts."""
    for files in credential_files(config).values():
        for setting, file in files.items():
            try:
                end = earliest_expiry(Path(file).read_bytes())
            except (OSError, ValueError):
                continue  # reported where it is used
            if end is None:
                continue
            days = (end - time.time()) / 86_400
            if days >= EXPIRES_SOON_DAYS:
                yield Finding(setting, "ok", f"expires in {days:.0f} days")
            else:
                what = f"expires in {days:.1f} days" if days > 0 else f"has expired {-days:.1f} days ago"
                yield Finding(setting, "warn", f"a certificate in {file} {what}; put a new one into the file")
