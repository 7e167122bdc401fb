"""Patterns of topic names: what an input that begins with ``^`` may say, and which names it matches.

Three engines match a pattern: librdkafka's (POSIX), that of the brokers in KIP-848's groups (RE2), and the one here,
which tells whose records are whose. So only that is taken which all of them read alike, and a pattern always stands for
whole names. Whoever may create topics chooses names: matching here takes one step for each character (Glushkov's
automaton), whatever the name and the pattern.
"""

from __future__ import annotations

import re
import string
from typing import NamedTuple

MOST_POSITIONS = 1000
"""Most single characters that a pattern may be made of, its repeats written out: RE2 takes no repeat above this."""
MOST_GROUPS = 50

_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "._-")
_KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
_CLASS = re.compile(r"\[(\^?)([A-Za-z0-9._-]+)\]")
_REPEAT = re.compile(r"[*+?]|\{(\d{1,3})(?:(,)(\d{0,3}))?\}")
_INSTEAD = {"d": "[0-9]", "w": "[A-Za-z0-9_]", "s": "nothing, since topic names have no spaces"}


def is_pattern(topic: str) -> bool:
    """Whether a route's input is a pattern and not the name of a topic, which has no ``^``."""
    return topic.startswith("^")


class PatternRefused(ValueError):  # noqa: N818 - named for what it is
    """A pattern that cannot be taken. ``what`` is wrong with it, and the ``fix``."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}")
        self.what, self.fix = what, fix


class _Part(NamedTuple):
    """A part of a pattern. Sets of positions are integers, with a bit for each position."""

    first: int
    last: int
    empty: bool
    """Whether it also matches nothing at all."""


class TopicPattern:
    """One pattern, ``^...$``. Raises PatternRefused."""

    def __init__(self, text: str) -> None:
        if not (is_pattern(text) and text.endswith("$") and len(text) > len("^$")):
            raise PatternRefused(
                f"{text} does not end with $, and a pattern stands for whole names",
                f"write {text.rstrip('$').removesuffix('.*')}.*$ for every topic that begins so",
            )
        if text.count("(") > MOST_GROUPS:
            raise PatternRefused(f"{text[:60]}… has more than {MOST_GROUPS} groups", "write it shorter")
        self.text = text
        self._body = text[1:-1]
        self._at = 0
        self._reads = dict.fromkeys(_NAME_CHARACTERS, 0)
        """The positions that read a character."""
        self._follow: list[int] = []
        """The positions that may come after each."""
        self._whole = self._alternatives()
        if self._at < len(self._body):
            raise self._refused("closes no parenthesis", "remove it")
        self.subscription = f"^({self._body})$"
        """The pattern as the client gets it, in which ^ and $ hold for every alternative."""

    def matches(self, topic: str) -> bool:
        """Whether the pattern matches this whole name."""
        return bool(self._read(topic) & self._whole.last) if topic else self._whole.empty

    def may_begin_with(self, start: str) -> bool:
        """Whether it matches any name that begins so."""
        return bool(self._read(start))

    def _read(self, text: str) -> int:
        """The positions at which the last character of ``text`` can be read."""
        now, after = 0, self._whole.first
        for character in text:
            now = after & self._reads.get(character, 0)
            after, left = 0, now
            while left:
                after |= self._follow[(left & -left).bit_length() - 1]
                left &= left - 1
        return now

    # Parsing: each method reads one kind of part at ``_at`` and goes past it.

    def _alternatives(self) -> _Part:
        part = self._sequence()
        while self._next == "|":
            self._at += 1
            other = self._sequence()
            part = _Part(part.first | other.first, part.last | other.last, part.empty or other.empty)
        return part

    def _sequence(self) -> _Part:
        part = None
        while self._next not in ("", "|", ")"):
            part = self._repeated() if part is None else self._chained(part, self._repeated())
        if part is None:
            raise self._refused("stands where an alternative is missing", "write (a|b), and (a)? for one that may miss")
        return part

    def _repeated(self) -> _Part:
        start = self._at
        part = self._single()
        if (repeat := _REPEAT.match(self._body, self._at)) is None:
            return part
        end = repeat.end()
        if _REPEAT.match(self._body, end):
            self._at = end
            raise self._refused("repeats a repeat", "leave one of the two out")
        sign = repeat[0]
        least = int(repeat[1]) if repeat[1] else int(sign == "+")
        most = None if sign in ("*", "+") or (repeat[2] and not repeat[3]) else int(repeat[3] or repeat[1] or 1)
        if most is not None and most < max(least, 1):
            raise self._refused("repeats less than once, or down to less than from", "write {1,3}, the less first")
        copies = [part]
        while len(copies) < (most or max(least, 1)):
            self._at = start
            copies.append(self._single())
        self._at = end
        if most is None:
            self._link(copies[-1].last, copies[-1].first)
        parts = [copy._replace(empty=copy.empty or number >= least) for number, copy in enumerate(copies)]
        whole = parts[0]
        for each in parts[1:]:
            whole = self._chained(whole, each)
        return whole

    def _single(self) -> _Part:
        character = self._next
        if character == "(":
            self._at += 1
            if self._next == "?":
                raise self._refused("begins a look-around or a flag", "write the names out, [Ss]hop for either case")
            part = self._alternatives()
            if self._next != ")":
                raise self._refused("lacks the closing parenthesis", "add it")
            self._at += 1
            return part
        if character == "[":
            return self._position(self._class())
        if character == "\\":
            escaped = self._body[self._at + 1 : self._at + 2]
            if escaped not in (".", "-", "_"):
                instead = _INSTEAD.get(escaped, r"\. for a dot; no other character of a topic name needs a backslash")
                raise self._refused("is not read alike by client and brokers", f"write {instead}")
            self._at += 2
            return self._position(frozenset(escaped))
        if character != "." and character not in _NAME_CHARACTERS:
            raise self._refused("can stand in no topic name", r"use letters, digits, \. . _ - [a-z] (a|b) * + ? {1,3}")
        self._at += 1
        return self._position(_NAME_CHARACTERS if character == "." else frozenset(character))

    def _class(self) -> frozenset[str]:
        found = _CLASS.match(self._body, self._at)
        fix = "write letters, digits, ranges such as a-z, dot, underscore, and the hyphen last"
        if found is None:
            raise self._refused("begins a class that is not read alike by client and brokers", fix)
        members, listed, at = set[str](), found[2], 0
        while at < len(listed):
            first, last = listed[at], listed[at + 2] if listed[at + 1 : at + 2] == "-" and at + 2 < len(listed) else ""
            kind = next((each for each in _KINDS if first in each and last in each), "")
            if (last and (not kind or last < first)) or (not last and first == "-" and 0 < at < len(listed) - 1):
                raise self._refused("begins a class with a range that is none", fix)
            members |= set(kind[kind.index(first) : kind.index(last) + 1]) if last else {first}
            at += 3 if last else 1
        characters = _NAME_CHARACTERS - members if found[1] else frozenset(members)
        if not characters:
            raise self._refused("begins a class that matches nothing", fix)
        self._at = found.end()
        return characters

    def _position(self, characters: frozenset[str]) -> _Part:
        if len(self._follow) == MOST_POSITIONS:
            raise PatternRefused(f"{self.text} has more than {MOST_POSITIONS} characters to match", "write it shorter")
        bit = 1 << len(self._follow)
        self._follow.append(0)
        for character in characters:
            self._reads[character] |= bit
        return _Part(bit, bit, empty=False)

    def _chained(self, part: _Part, then: _Part) -> _Part:
        self._link(part.last, then.first)
        first = part.first | then.first if part.empty else part.first
        last = part.last | then.last if then.empty else then.last
        return _Part(first, last, part.empty and then.empty)

    def _link(self, last: int, first: int) -> None:
        while last:
            self._follow[(last & -last).bit_length() - 1] |= first
            last &= last - 1

    @property
    def _next(self) -> str:
        return self._body[self._at : self._at + 1]

    def _refused(self, what: str, fix: str) -> PatternRefused:
        place = self._body[self._at : self._at + 2] or "its end"
        return PatternRefused(f"{self.text}: {place}, character {self._at + 2}, {what}", fix)
