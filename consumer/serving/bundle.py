"""The client's half of an exported model: its tokenizer and the limits that the graph was built for."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consumer.config.git_lfs import lfs_pointer
from consumer.extraction.prompts import PromptLimits, PromptTokenizer, contract_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = 1
TOKENIZER_FILE = "tokenizer.json"
BUNDLE_FILE = "bundle.json"

_AGAIN = "copy the bundle folder again from beside the served version, or export the model anew"


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """What a worker needs beside the served model. ``contract`` is what the graph returns with every answer."""

    tokenizer: PromptTokenizer
    limits: PromptLimits
    cells_per_window: int
    contract: int
    name: str = "of an unknown folder"
    """What messages call it: its folder, and the checkpoint that it was exported from."""


def patterns(entries: Iterable[str]) -> list[str]:
    """Those entries of ``model.bundles`` that name many folders: with an asterisk."""
    return [entry for entry in entries if "*" in entry]


def folders_like(pattern: str) -> list[Path]:
    """The folders with a bundle.json that a pattern names now, where it names versions the newest first.

    An asterisk is any part of a folder's name; other characters are themselves.
    """
    # Not at the top: a worker without an asterisk should not load it.
    import glob

    files = glob.escape(f"{pattern}/{BUNDLE_FILE}").replace("[*]", "*")
    # By the numbers in them: 10 comes before 9.
    newest = sorted(glob.glob(files), key=lambda each: ([int(n) for n in re.findall(r"\d+", each)], each), reverse=True)
    return [Path(file).parent for file in newest]


def recorded_contract(folder: Path) -> int | None:
    """The contract that a folder's bundle.json names, unchecked; None where it names none. ``load_bundle`` says why."""
    try:
        return int(json.loads((folder / BUNDLE_FILE).read_bytes())["contract"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def load_bundle(folder: Path) -> Bundle:
    """Read the ``bundle`` folder of an exported version.

    Raises ValueError, naming the file, the value and the way out, for a folder that is not a bundle, was changed or
    was written in another format.
    """
    file = folder / BUNDLE_FILE
    try:
        settings = json.loads(_read(folder, BUNDLE_FILE))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}); {_AGAIN}") from error
    found = settings.get("format") if isinstance(settings, dict) else None
    if found != FORMAT:
        raise ValueError(f"{file}: format is {found!r}, this version of Rexstream reads {FORMAT}; {_AGAIN}")
    tokenizer_json = _read(folder, TOKENIZER_FILE)
    try:
        recorded_sha = str(settings["tokenizer_sha256"])
        recorded_contract = int(settings["contract"])
        cells_per_window = int(settings["cells_per_window"])
        limits = _limits(settings["limits"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{file}: {reason}; {_AGAIN}") from error
    sha = hashlib.sha256(tokenizer_json).hexdigest()
    if sha != recorded_sha:
        raise ValueError(
            f"{folder / TOKENIZER_FILE} has SHA-256 {sha[:12]}…, {file} records {recorded_sha[:12]}…: "
            f"the tokenizer is not the one that was exported; {_AGAIN}"
        )
    contract = contract_hash(tokenizer_json, limits, cells_per_window)
    if contract != recorded_contract:
        raise ValueError(
            f"{file}: contract is {recorded_contract}, tokenizer, limits and cells_per_window give {contract}: "
            f"the file was edited or another version of Rexstream wrote it; {_AGAIN}"
        )
    checkpoint = str(settings.get("checkpoint_sha256", "unknown"))[:12]
    name = f"{folder} (checkpoint {checkpoint}, contract {contract})"
    return Bundle(PromptTokenizer(tokenizer_json), limits, cells_per_window, contract, name)


def _limits(recorded: Any) -> PromptLimits:
    names = {field.name for field in fields(PromptLimits)}
    if not isinstance(recorded, dict) or set(recorded) != names:
        raise ValueError(f"limits must have exactly {', '.join(sorted(names))}")
    return PromptLimits(**{name: int(value) for name, value in recorded.items()})


def _read(folder: Path, name: str) -> bytes:
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise ValueError(
            f"{folder / name} cannot be read ({error.strerror}); "
            "model.bundle must be the folder <model>/<version>/bundle that 'rexstream export' wrote"
        ) from error
    if (pointer := lfs_pointer(content)) is not None:
        raise ValueError(f"{folder / name} {pointer}")
    return content
