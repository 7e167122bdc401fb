"""The one exception of compatibility mode."""

from __future__ import annotations


class ReferenceCrash(Exception):  # noqa: N818 - it says what happens, to the reference
    """The reference implementation raises on this input. The message is what it raises, such as ``KeyError: …``."""
