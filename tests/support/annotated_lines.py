"""Lines of annotated data in RexUniNLU's form, as a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

ASPECTS = {"属性词": {"正向情感(情感词)": None, "负向情感(情感词)": None, "中性情感(情感词)": None}}


def fact(kind: str, span: str, start: int) -> dict[str, Any]:
    """One element of a path."""
    return {"type": kind, "span": span, "offset": [start, start + len(span)]}


def written(tmp_path: Path, *rows: Any) -> Path:
    """A file with a line for each of ``rows``."""
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path
