"""Lines of Chinese and Latin text for a terminal, where a Chinese character is two cells wide."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells

if TYPE_CHECKING:
    from collections.abc import Iterable

_PIECES = re.compile(r"(?:\s*[!-~]+|\s*.)[，。！？、；：）】》」』”’…～,.!?;:)\]]*", re.DOTALL)
"""What stays on one line: a Latin word or a Chinese character, and the marks behind it, which begin no line."""


_WORDS = re.compile(r"\s*\S+")
"""What stays on one line of a sentence with Chinese names in it: whatever stands between spaces."""


def sentence(text: str, width: int) -> list[str]:
    """Lines of a sentence that has spaces, whose Chinese names are not broken; as ``wrapped`` otherwise.

    Rich's own wrapping cuts a line off where a space follows a Chinese character that just fits.
    """
    return _filled(_WORDS.findall(text), width)


def wrapped(text: str, width: int, lines: int | None = None) -> list[str]:
    """``text`` in lines of at most ``width`` cells, at least 2; words are broken only where one alone is too long.

    With more than ``lines`` lines, the last of them ends with an ellipsis.
    """
    made = _filled(_PIECES.findall(text), width)
    if lines is None or len(made) <= lines:
        return made
    return [*made[: lines - 1], _ending(made[lines - 1], width)]


def _filled(pieces: Iterable[str], width: int) -> list[str]:
    made = [""]
    for piece in pieces:
        if cell_len(made[-1] + piece) <= width:
            made[-1] += piece
            continue
        chopped = chop_cells(piece.lstrip(), width)
        made = [*made, *chopped] if made[-1] else chopped
    return made


def _ending(line: str, width: int) -> str:
    while cell_len(line) > width - 1:
        line = line[:-1]
    return line + "…"
