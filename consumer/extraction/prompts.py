"""Prompts: the tokenizer, its limits, and hints, which are the part of a window in front of the text.

The engine packs the types of a level into as few hints as possible (docs/extraction.md, section 4) and builds each hint
once. The exporter and a model's bundle use the tokenizer, the limits and their hash, so that worker and graph agree.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from consumer.extraction import characters
from consumer.extraction.hint import Chunk, Hint, Packed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from consumer.extraction.hint import Parent, Prompt
    from consumer.extraction.task import Notes

IntArray = NDArray[np.int32]

MAX_CELLS_PER_WINDOW: Final = 256
"""K: cells returned per window by the compact signature. A 256-token hint has at most 126 types, so the 1 + 2T cells
that classification must always see fit."""


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """Token limits of one window (docs/extraction.md, section 1; the defaults are the reference's)."""

    max_len: int = 512
    stride_len: int = 32
    hint_max_len: int = 256
    prefix_max_len: int = 125
    type_max_len: int = 125


def contract_hash(tokenizer_json: bytes, limits: PromptLimits, cells_per_window: int = MAX_CELLS_PER_WINDOW) -> int:
    """Signed 32-bit hash of all that worker and graph must share: tokenizer, limits and K.

    The graph returns it with every answer, so a worker notices a model whose tokenizer it does not have.
    """
    digest = hashlib.sha256(hashlib.sha256(tokenizer_json).digest())
    digest.update(json.dumps({**asdict(limits), "k": cells_per_window}, sort_keys=True).encode())
    return int.from_bytes(digest.digest()[:4], "big", signed=True)


PREFIX: Final = "[PREFIX]"
TYPE: Final = "[TYPE]"
CLASSIFY: Final = "[CLASSIFY]"
MULTICLASSIFY: Final = "[MULTICLASSIFY]"
MARKERS: Final = (PREFIX, TYPE, CLASSIFY, MULTICLASSIFY)
"""Appended by the reference in this order to whatever the checkpoint's tokenizer holds."""

_CACHED_CHARS: Final = 256
"""Longer prompts are rare, and would make the caches' memory unbounded in bytes."""
_CACHED_HINT_CHARS: Final = 1024
"""The same for all prompts and names of a hint together."""
_CACHED: Final = 1024
MAX_PROMPT_CHARS: Final = 2048
"""A prompt of more characters counts as over its limit of tokens. Only runs of spaces and unknown words of dozens of
letters make less of 2,048 characters than 125 tokens; without the bound a thousand of them take ten seconds."""

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
    complete = dict(added)
    used = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for token in wanted:
        known = tokenizer.token_to_id(token)
        if known is None:
            known = used = used + 1
        complete[token] = {"id": known, "content": token, **flags}
    if complete == added:
        return tokenizer_json
    stored["added_tokens"] = sorted(complete.values(), key=lambda entry: int(entry["id"]))
    return json.dumps(stored, ensure_ascii=False).encode()


@dataclass(slots=True, eq=False)
class Encoded:
    """Tokens of one string. ``ids`` int32[n]; ``offsets`` int32[n, 2]: code points into ``text``, half-open."""

    text: str
    ids: IntArray
    offsets: IntArray


class PromptTokenizer:
    """Encodes pieces of a prompt; never adds ``[CLS]`` or ``[SEP]`` itself.

    ``special=False`` takes marker literals in a text for ordinary characters, ``special=True`` turns them into marker
    tokens as the reference does. Safe to share between threads.
    """

    def __init__(self, tokenizer_json: bytes) -> None:
        """Raises ValueError when a special token is missing; ``with_markers`` adds the four markers."""
        self.json = tokenizer_json
        self._literal = _load(tokenizer_json)
        self._literal.encode_special_tokens = True
        self._model = self._literal.model
        self._lowers = getattr(self._literal.normalizer, "lowercase", False)
        self._characters = characters.character_ids(self._literal)
        self._run = lru_cache(characters.CACHED_RUNS)(self._read_run)
        self.cls = self._id("[CLS]")
        self.sep = self._id("[SEP]")
        self.end = np.array([self.sep], dtype=np.int32)
        self.pad = self._id("[PAD]")
        self.prefix = self._id(PREFIX)
        self.type = self._id(TYPE)
        self.classify = self._id(CLASSIFY)
        self.multiclassify = self._id(MULTICLASSIFY)

    @cached_property
    def _matching(self) -> Any:
        """Made when it is first asked: only ``special`` needs it, and it takes as much memory as the other."""
        return _load(self.json)

    def encode(self, text: str, *, special: bool = False) -> Encoded:
        """Tokens and offsets of a text that holds no lone surrogate (see ``encodable``). The arrays may be shared."""
        if not special and (encoded := self._by_character(text)) is not None:
            return encoded
        encoding = (self._matching if special else self._literal).encode(text, add_special_tokens=False)
        ids = np.array(encoding.ids, dtype=np.int32)
        # Python's own pairs would take more than a hundred bytes a token.
        offsets = np.fromiter(chain.from_iterable(encoding.offsets), dtype=np.int32, count=2 * len(ids))
        return Encoded(text, ids, offsets.reshape(-1, 2))

    def ids(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Token ids only."""
        if not special and (encoded := self._by_character(text)) is not None:
            return tuple(encoded.ids.tolist())
        return tuple((self._matching if special else self._literal).encode(text, add_special_tokens=False).ids)

    def _by_character(self, text: str) -> Encoded | None:
        """As ``encode``, by the table of ``character_ids``; None for a text that the library has to encode."""
        table = self._characters
        if table is None or not text:
            return None
        ids = table.take(np.frombuffer(text.encode("utf-32-le"), characters.UTF_32), mode="clip")
        kinds = ids.tobytes()[characters.KINDS]
        if characters.LIBRARY_KIND in kinds:
            return None
        count = len(ids)
        offsets = characters.POSITIONS[:count] if count <= len(characters.POSITIONS) else characters.positions(count)
        has_gaps = characters.SPACE_KIND in kinds
        if characters.RUN_KIND in kinds:
            runs = [found.span() for found in characters.find_runs(kinds)]
            if len(runs) > 1 + count // characters.CHARACTERS_A_RUN:
                return None
            for start, end in runs:
                read = self._run if end - start <= characters.CACHED_RUN_CHARS else self._read_run
                if (run := read(text[start:end])) is None:
                    return None
                ids[start:end], longer = run
                has_gaps = has_gaps or characters.SPACE in run[0]
                if longer and not offsets.flags.writeable:
                    offsets = offsets.copy()
                for place, stop in longer:
                    offsets[start + place, 1] = start + stop
        if has_gaps:
            kept = (ids >= characters.FIRST_ID).nonzero()[0]
            ids, offsets = ids.take(kept), offsets.take(kept, 0)
        return Encoded(text, ids, offsets)

    def _read_run(self, run: str) -> characters.Run | None:
        """The tokens of a run. None where two begin at one place."""
        if run.isascii() and run.isalnum():
            pieces = self._model.tokenize(run.lower() if self._lowers else run)
            tokens = [(piece.id, piece.offsets) for piece in pieces]
        else:
            encoding = self._literal.encode(run, add_special_tokens=False)
            tokens = list(zip(encoding.ids, encoding.offsets, strict=True))
        ids, longer, last = [characters.SPACE] * len(run), [], -1
        for token, (start, end) in tokens:
            if start <= last:
                return None
            ids[start], last = token, start
            if end != start + 1:
                longer.append((start, end))
        return tuple(ids), tuple(longer)

    def _id(self, token: str) -> int:
        found: int | None = self._literal.token_to_id(token)
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


class HintCache:
    """Tokens of prompts, and built hints, that come back: an entry is at most some 20 KB, ``size`` of each are kept."""

    def __init__(self, tokenizer: PromptTokenizer, limits: PromptLimits, size: int = _CACHED) -> None:
        most = limits.prefix_max_len
        self.prompt_ids = lru_cache(size)(lambda text, special: tokenizer.ids(text, special=special)[:most])
        """``prompt_ids(text, special)``: the first tokens of a piece of a prompt, enough to see whether it is over its
        limit."""
        self.hints: dict[object, Hint] = {}
        self._size = size

    def keep(self, key: object, hint: Hint) -> None:
        """Keep a hint; the oldest goes."""
        if len(self.hints) >= self._size:
            del self.hints[next(iter(self.hints))]
        self.hints[key] = hint


class HintBuilder:
    """Packs and builds the hints of one schema. ``special`` as in PromptTokenizer.

    It remembers the tokens of every type name that it met: a name stands below many parents.
    """

    def __init__(self, tokenizer: PromptTokenizer, limits: PromptLimits, cache: HintCache | None = None) -> None:
        """``cache`` may be shared with builders for other schemas."""
        self.tokenizer = tokenizer
        self.limits = limits
        self._cache = cache or HintCache(tokenizer, limits)
        self._names: tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]] = ({}, {})

    def pack(self, parents: Iterable[Parent], notes: Notes, *, special: bool) -> Iterator[Packed]:
        """Fill hints greedily (docs/extraction.md, section 4), in the order of ``parents``; types by code point.

        Prefixes and types over their limit are skipped and noted.
        """
        limits, known = self.limits, self._names[special]
        groups: list[tuple[Parent, list[str]]] = []
        running = 2
        for parent in parents:
            prefix = self._prefix_length(parent.prompt, special)
            if prefix > limits.prefix_max_len:
                notes.skipped_parents += 1
                continue
            names: list[str] = []
            for name in sorted(parent.children):
                cost = len(known.get(name) or self._name_ids(name, special)) + 1
                if cost > limits.type_max_len:
                    notes.skipped_types[name] = None
                    continue
                if groups and running + cost + (0 if names else prefix) > limits.hint_max_len:
                    yield Packed(groups, running)
                    groups, running, names = [], 2, []
                if not names:
                    groups.append((parent, names))
                    running += prefix
                names.append(name)
                running += cost
        if groups:
            yield Packed(groups, running)

    def build(self, packed: Packed, *, special: bool) -> Chunk:
        """The hint of ``packed``, from the cache where the same was built before."""
        groups = tuple([(parent.prompt, tuple(names)) for parent, names in packed.groups])
        key = (groups, special)
        if (hint := self._cache.hints.get(key)) is None:
            hint = self._hint(groups, special)
            pieces = (piece for prompt, names in groups for piece in prompt + names)
            if sum(len(piece) for piece in pieces if isinstance(piece, str)) <= _CACHED_HINT_CHARS:
                self._cache.keep(key, hint)
        owners = [(parent, name, parent.children[name]) for parent, names in packed.groups for name in names]
        return Chunk(hint, tuple(owners))

    def chunks(self, parents: Iterable[Parent], notes: Notes, *, special: bool) -> list[Chunk]:
        """Pack and build all hints of a level."""
        return [self.build(packed, special=special) for packed in self.pack(parents, notes, special=special)]

    def _hint(self, groups: tuple[tuple[Prompt, tuple[str, ...]], ...], special: bool) -> Hint:
        """Ids, positions and segments of ``[CLS] hint [SEP]`` (docs/extraction.md, sections 6 and 7)."""
        marks = self.tokenizer
        ids, positions, segments, slot_at, types, last = [marks.cls], [0], [0], [-1], 0, 0
        for number, (prompt, names) in enumerate(groups, 1):
            prefix = (marks.prefix, *self._prompt_ids(prompt, special))
            ids += prefix
            base = 1 + len(prefix)
            positions += range(1, base)
            segments += [number * 256] * len(prefix)
            slot_at += [-1] * len(prefix)
            for kind, name in enumerate(names, 1):
                tokens = (marks.type, *self._name_ids(name, special))
                ids += tokens
                positions += range(base, base + len(tokens))
                segments += [number * 256 + kind] * len(tokens)
                slot_at += (types, *[-1] * (len(tokens) - 1))
                types += 1
                last = max(last, base + len(tokens) - 1)
        text = self.limits.max_len - len(ids)  # with the [SEP] in front of it
        hint = Hint(
            ids=np.array([*ids, marks.sep], dtype=np.int32),
            positions=np.array([*positions, *range(last + 1, last + 1 + text)], dtype=np.int32),
            segments=np.array([*segments, *[0] * text], dtype=np.int32),
            slot_at=(*slot_at, -1),
            types=types,
            has_markers=ids.count(marks.prefix) > len(groups) or ids.count(marks.type) > types or marks.sep in ids,
        )
        for array in hint.ids, hint.positions, hint.segments:
            array.flags.writeable = False
        return hint

    def _prefix_length(self, prompt: Prompt, special: bool) -> int:
        if sum([len(piece) for piece in prompt if isinstance(piece, str)]) > MAX_PROMPT_CHARS:
            return self.limits.prefix_max_len + 1
        return len(self._prompt_ids(prompt, special)) + 1

    def _prompt_ids(self, prompt: Prompt, special: bool) -> list[int]:
        ids: list[int] = []
        for piece in prompt:
            if isinstance(piece, int):
                ids.append(piece)
            elif len(piece) <= _CACHED_CHARS:
                ids += self._cache.prompt_ids(piece, special)
            else:
                ids += self.tokenizer.ids(piece, special=special)
        return ids

    def _name_ids(self, name: str, special: bool) -> tuple[int, ...]:
        """The first tokens of a type name, enough to see whether it is over its limit."""
        known = self._names[special]
        if (ids := known.get(name)) is None:
            ids = known[name] = self.tokenizer.ids(name, special=special)[: self.limits.type_max_len]
        return ids
