"""The checkpoint's WordPiece tokenizer, with and without literal special tokens in the text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from consumer.extraction.contract import PromptLimits
    from consumer.extraction.task import Branch, Notes
    from consumer.extraction.window import IntArray


PREFIX: Final = "[PREFIX]"
TYPE: Final = "[TYPE]"
CLASSIFY: Final = "[CLASSIFY]"
MULTICLASSIFY: Final = "[MULTICLASSIFY]"
MARKERS: Final = (PREFIX, TYPE, CLASSIFY, MULTICLASSIFY)
"""Appended by the reference in this order to whatever the checkpoint's tokenizer holds."""

_BERT: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def with_markers(tokenizer_json: bytes) -> bytes:
    """A ``tokenizer.json`` in which the BERT special tokens and the four markers are special tokens.

    Stored ids stay; absent markers get the next free ids in the order of MARKERS. A file that needs no change comes
    back byte for byte. Raises ValueError for what is not a tokenizer.
    """
    tokenizer = _load(tokenizer_json)
    wanted = [token for token in _BERT if tokenizer.token_to_id(token) is not None] + list(MARKERS)
    stored: dict[str, Any] = json.loads(tokenizer_json)
    added = {entry["content"]: entry for entry in stored.get("added_tokens") or []}
    used = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    changed = False
    for token in wanted:
        known = tokenizer.token_to_id(token)
        if known is None:
            known = used = used + 1
        entry = {"id": known, "content": token, **flags}
        if added.get(token) != entry:
            added[token] = entry
            changed = True
    if not changed:
        return tokenizer_json
    stored["added_tokens"] = sorted(added.values(), key=lambda entry: int(entry["id"]))
    return json.dumps(stored, ensure_ascii=False).encode()


class Encoded(NamedTuple):
    """Tokens of one string. ``ids`` int32[n]; ``offsets`` n pairs of code points into the string, half-open."""

    ids: IntArray
    offsets: list[tuple[int, int]]


class PromptTokenizer:
    """Encodes pieces of a prompt; never adds ``[CLS]`` or ``[SEP]`` itself.

    ``special=False`` takes marker literals in a text for ordinary characters, ``special=True`` turns them into marker
    tokens as the reference does. Safe to share between threads.
    """

    def __init__(self, tokenizer_json: bytes) -> None:
        """Raises ValueError when a special token is missing; ``with_markers`` adds the four markers."""
        self.json = tokenizer_json
        self._matching = _load(tokenizer_json)
        self._literal = _load(tokenizer_json)
        self._literal.encode_special_tokens = True
        self.cls = self._id("[CLS]")
        self.sep = self._id("[SEP]")
        self.pad = self._id("[PAD]")
        self.prefix = self._id(PREFIX)
        self.type = self._id(TYPE)
        self.classify = self._id(CLASSIFY)
        self.multiclassify = self._id(MULTICLASSIFY)

    def encode(self, text: str, *, special: bool = False) -> Encoded:
        """Tokens and offsets of a text that holds no lone surrogate (see ``encodable``)."""
        encoding = (self._matching if special else self._literal).encode(text, add_special_tokens=False)
        return Encoded(np.array(encoding.ids, dtype=np.int32), encoding.offsets)

    def ids(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Token ids only."""
        return tuple((self._matching if special else self._literal).encode(text, add_special_tokens=False).ids)

    def _id(self, token: str) -> int:
        found: int | None = self._matching.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no {token} token; pass its tokenizer.json through with_markers first")
        return found


def _load(tokenizer_json: bytes) -> Any:
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    except Exception as error:  # the binding raises bare Exception
        raise ValueError(f"not a tokenizer.json ({error}); take the file of a fast tokenizer") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


# Hints: the part of a prompt in front of the text. Packing types into them, and building each only once.

Prompt = tuple[str | int, ...]
"""What a prefix says: texts to be tokenised, and ids of tokens that the engine places itself."""

MAX_PROMPT_CHARS: Final = 2048
"""A prompt of more characters counts as over its limit of tokens. Only runs of spaces and unknown words of dozens of
letters say less in 2,048 characters than 125 tokens; without the bound a thousand of them take ten seconds."""
_CACHED_CHARS: Final = 256
"""Longer names and prompts are rare and would make the caches' memory unbounded in bytes."""
_CACHED_PIECES: Final = 16_384
_CACHED_HINTS: Final = 1024


class Found(NamedTuple):
    """A fact while its path is still growing."""

    type: str
    span: str
    """As the prompt of the next level says it."""
    start: int
    """Code point in the text, -1 for an implicit aspect."""
    end: int
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Parent:
    """Found facts (none on level 0) and the types to look for below them."""

    facts: tuple[Found, ...]
    prompt: Prompt
    branch: Branch


class Owner(NamedTuple):
    """Whose ``[TYPE]`` token it is: type ``number`` of ``parent``."""

    parent: Parent
    number: int

    @property
    def name(self) -> str:
        return self.parent.branch.names[self.number]

    @property
    def child(self) -> Branch | None:
        return self.parent.branch.child(self.number)


@dataclass(frozen=True, slots=True, eq=False)
class Hint:
    """``[CLS] hint [SEP]`` as arrays, int32[H] each. Shared by all events that ask the same: never write to them."""

    ids: IntArray
    positions: IntArray
    segments: IntArray
    text_position: int
    """Position id of the first token after ``[SEP]``."""
    slot_at: IntArray
    """Token index -> number of the type whose ``[TYPE]`` token it is, -1 for all other tokens."""
    types: int
    """T, types in this hint."""
    odd: bool
    """A name or prompt holds a marker of its own, so the layout has to be walked (compatibility mode only)."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A hint and the owner of each of its types, in hint order."""

    hint: Hint
    owners: tuple[Owner, ...]


class Packed(NamedTuple):
    """Groups of one hint before it is built. ``length`` is H in tokens, ``[CLS]`` and ``[SEP]`` included."""

    groups: list[tuple[Parent, list[int]]]
    length: int


class HintBuilder:
    """Packs and builds hints for one tokenizer. ``special`` as in PromptTokenizer."""

    def __init__(self, tokenizer: PromptTokenizer, limits: PromptLimits) -> None:
        self._tokenizer = tokenizer
        self._limits = limits
        self._piece = lru_cache(maxsize=_CACHED_PIECES)(self._encode)
        self._hint = lru_cache(maxsize=_CACHED_HINTS)(self._assemble)

    def pack(self, parents: Iterable[Parent], notes: Notes, *, special: bool) -> Iterator[Packed]:
        """Fill hints greedily (specification section 4), in the order of ``parents``; types by code point.

        Prefixes and types over their limit are skipped and noted.
        """
        limits = self._limits
        groups: list[tuple[Parent, list[int]]] = []
        running = 2
        for parent in parents:
            prefix = self._prefix_cost(parent.prompt, special=special)
            if prefix > limits.prefix_max_len:
                notes.skipped_parents += 1
                continue
            opened: list[int] = []
            for index, name in enumerate(parent.branch.names):
                cost = len(self._ids(name, special=special)) + 1
                if cost > limits.type_max_len:
                    notes.skipped_types[name] = None
                    continue
                fresh = not opened
                if groups and running + cost + (prefix if fresh else 0) > limits.hint_max_len:
                    yield Packed(groups, running)
                    groups, running, fresh = [], 2, True
                if fresh:
                    opened = []
                    groups.append((parent, opened))
                    running += prefix
                opened.append(index)
                running += cost
        if groups:
            yield Packed(groups, running)

    def build(self, packed: Packed, *, special: bool) -> Chunk:
        """The hint of ``packed``, from the cache where the same was asked before."""
        asked = tuple(
            (parent.prompt, tuple(parent.branch.names[index] for index in indexes)) for parent, indexes in packed.groups
        )
        short = all(_short(piece) for prompt, names in asked for piece in (*prompt, *names))
        hint = self._hint(asked, special) if short else self._assemble(asked, special)
        return Chunk(hint, tuple(Owner(parent, index) for parent, indexes in packed.groups for index in indexes))

    def _assemble(self, asked: tuple[tuple[Prompt, tuple[str, ...]], ...], special: bool) -> Hint:
        marks = self._tokenizer
        ids, positions, segments, type_tokens = [marks.cls], [0], [0], []
        odd = False
        last = 0
        for number, (prompt, names) in enumerate(asked, 1):
            prefix = (marks.prefix, *self._prompt(prompt, special=special))
            ids += prefix
            base = 1 + len(prefix)
            positions += range(1, base)
            segments += [number * 256] * len(prefix)
            odd = odd or self._is_odd(prefix)
            for kind, name in enumerate(names, 1):
                tokens = (marks.type, *self._ids(name, special=special))
                type_tokens.append(len(ids))
                ids += tokens
                positions += range(base, base + len(tokens))
                segments += [number * 256 + kind] * len(tokens)
                last = max(last, base + len(tokens) - 1)
                odd = odd or self._is_odd(tokens)
        slot_at = np.full(len(ids) + 1, -1, dtype=np.int32)
        slot_at[type_tokens] = np.arange(len(type_tokens), dtype=np.int32)
        return Hint(
            ids=np.array([*ids, marks.sep], dtype=np.int32),
            positions=np.array([*positions, last + 1], dtype=np.int32),
            segments=np.array([*segments, 0], dtype=np.int32),
            text_position=last + 2,
            slot_at=slot_at,
            types=len(type_tokens),
            odd=odd,
        )

    def _prefix_cost(self, prompt: Prompt, *, special: bool) -> int:
        if sum(len(piece) for piece in prompt if isinstance(piece, str)) > MAX_PROMPT_CHARS:
            return self._limits.prefix_max_len + 1
        return len(self._prompt(prompt, special=special)) + 1

    def _is_odd(self, tokens: tuple[int, ...]) -> bool:
        marks = self._tokenizer
        return any(token in (marks.prefix, marks.type, marks.sep) for token in tokens[1:])

    def _prompt(self, prompt: Prompt, *, special: bool) -> tuple[int, ...]:
        ids: list[int] = []
        for piece in prompt:
            if isinstance(piece, int):
                ids.append(piece)
            else:
                ids += self._ids(piece, special=special)
        return tuple(ids)

    def _ids(self, piece: str, *, special: bool) -> tuple[int, ...]:
        return self._piece(piece, special) if _short(piece) else self._encode(piece, special)

    def _encode(self, piece: str, special: bool) -> tuple[int, ...]:
        return self._tokenizer.ids(piece, special=special)


def _short(piece: str | int) -> bool:
    return isinstance(piece, int) or len(piece) <= _CACHED_CHARS
