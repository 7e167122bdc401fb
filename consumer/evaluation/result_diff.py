"""Two sets of results of the same events, such as live ones and those of a shadow run: what changed, task by task.

Results are paired by event and task; where the schema is the same they have the same result_id. Of several results of
a pair the last one counts, as for whoever reads them. Of each only hashes are kept, in one value: of a result with five
paths some 300 bytes with its event's id, without any text.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from consumer.extraction.task import INLINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HASH_BYTES = 8

_TYPES = 65_536
"""Types that are told apart."""
_TYPE_BYTES = 2

Side: TypeAlias = Literal["old", "new"]


class Change(NamedTuple):
    """An event whose results of one task differ."""

    event_id: str
    only_old: int
    only_new: int
    """Paths that one side alone has."""


@dataclass(slots=True)
class TaskDiff:
    """What changed for one task. ``old_paths``, ``new_paths`` and ``both`` are of events that both sides have."""

    same: int = 0
    changed: int = 0
    only_old: int = 0
    only_new: int = 0
    """Events that one side alone has a result for."""
    same_id: int = 0
    """Pairs with the same result_id; where there are fewer than pairs, the schema is another."""
    old_paths: int = 0
    new_paths: int = 0
    both: int = 0
    types: dict[str, list[int]] = field(default_factory=dict)
    """Type of a path's last fact -> paths that the old side alone has, and the new one; without those of inline tasks,
    whose types are anybody's words."""
    examples: list[Change] = field(default_factory=list)
    """The worst first."""

    @property
    def share_changed(self) -> float:
        """The share of all events that either side has a result for and that are not the same, in 0 .. 1."""
        every = self.same + self.changed + self.only_old + self.only_new
        return 1 - self.same / every if every else 0.0

    @property
    def agreement(self) -> float:
        """2 both / (old + new), as ``agreement`` has it, in 0 .. 1."""
        paths = self.old_paths + self.new_paths
        return 2 * self.both / paths if paths else 1.0


class ResultDiff:
    """Add every result of both sides, in their order; then ``tasks``."""

    def __init__(self, examples: int = 0) -> None:
        """``examples``: how many changed events of each task are kept."""
        self._examples = examples
        self._sides: dict[Side, dict[str, dict[str, bytes]]] = {"old": {}, "new": {}}
        """By task and event: the hash of result_id, and behind it of each path the number of its type and the hash."""
        self._types: dict[str, int] = {"": 0}

    def add(self, side: Side, result: Mapping[str, Any]) -> None:
        """``result`` as its topic has it. Raises KeyError and TypeError for what is no result."""
        named = result["task"] != INLINE
        paths = {
            self._type(path[-1]["type"] if named and path else "")
            + _hashed([[fact["type"], fact["span"], fact["start"], fact["end"]] for fact in path])
            for path in result["extractions"]
        }
        kept = b"".join((_hashed(result["result_id"]), *sorted(paths)))
        self._sides[side].setdefault(str(result["task"]), {})[str(result["event_id"])] = kept

    def tasks(self) -> dict[str, TaskDiff]:
        """By task, in order of names."""
        names = {number.to_bytes(_TYPE_BYTES, "big"): name for name, number in self._types.items()}
        old, new = self._sides["old"], self._sides["new"]
        found: dict[str, TaskDiff] = {}
        for name in sorted(old.keys() | new.keys()):
            task = found[name] = TaskDiff()
            olds, news = old.get(name, {}), new.get(name, {})
            for event_id, before in olds.items():
                if (after := news.get(event_id)) is None:
                    task.only_old += 1
                else:
                    self._pair(task, event_id, before, after, names)
            task.only_new = len(news.keys() - olds.keys())
        return found

    def _type(self, name: str) -> bytes:
        if name not in self._types and len(self._types) == _TYPES:
            name = ""
        return self._types.setdefault(name, len(self._types)).to_bytes(_TYPE_BYTES, "big")

    def _pair(self, task: TaskDiff, event_id: str, before: bytes, after: bytes, names: Mapping[bytes, str]) -> None:
        olds, news = _paths(before), _paths(after)
        both = len(olds & news)
        task.same_id += before[:_HASH_BYTES] == after[:_HASH_BYTES]
        task.old_paths += len(olds)
        task.new_paths += len(news)
        task.both += both
        for side, moved in enumerate((olds - news, news - olds)):
            for path in moved:
                if name := names[path[:_TYPE_BYTES]]:
                    task.types.setdefault(name, [0, 0])[side] += 1
        if olds == news:
            task.same += 1
            return
        task.changed += 1
        task.examples.append(Change(event_id, len(olds) - both, len(news) - both))
        task.examples.sort(key=lambda each: (-each.only_old - each.only_new, each.event_id))
        del task.examples[self._examples :]


def _hashed(value: Any) -> bytes:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=_HASH_BYTES).digest()


def _paths(kept: bytes) -> set[bytes]:
    size = _TYPE_BYTES + _HASH_BYTES
    return {kept[at : at + size] for at in range(_HASH_BYTES, len(kept), size)}


def crossed(found: Mapping[str, TaskDiff], most: float | None) -> Iterator[str]:
    """In sentences, the tasks of which a larger share than ``most`` changed."""
    for name, each in found.items():
        if most is not None and each.share_changed > most + 1e-9:
            yield f"{each.share_changed:.4f} of task {name} changed, and at most {most:g} is allowed"
