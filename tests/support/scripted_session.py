"""A session of ``extract``, ``evaluate`` and ``compare`` whose model finds what a script says, without a model."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from consumer.codecs.outputs import ModelUsed
from consumer.events import BadInput
from consumer.extraction.task import Fact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from consumer.extraction.task import Path, Task


def found(*facts: tuple[str, str | None, int | None, float]) -> Path:
    """A path of (type, span, first character, score) as the engine gives it."""
    return tuple(
        Fact(kind, span, start, None if start is None else start + len(span or ""), score)
        for kind, span, start, score in facts
    )


@dataclass
class ScriptedSession:
    """Answers each text with its paths in ``script``; a text that is not in it fails as ``TextTooLong``."""

    script: Mapping[str, Sequence[Path]]
    asked: list[tuple[str, Task]] = field(default_factory=list)
    known_good: None = None
    """As a model's in this process."""

    @property
    def engine(self) -> ScriptedSession:
        return self

    def start(self, text: str, task: Task) -> Any:
        self.asked.append((text, task))
        return text

    def run(self, starts: Sequence[Callable[[], Any]]) -> list[Any]:
        return [self._done(start()) for start in starts]

    def _done(self, text: str) -> Any:
        if text not in self.script:
            failure = BadInput("validate", "TextTooLong", "too long")
            return SimpleNamespace(extraction=None, failure=failure, model=None)
        result = SimpleNamespace(paths=tuple(self.script[text]))
        model = ModelUsed("scripted", "7", "serving_default")
        return SimpleNamespace(extraction=SimpleNamespace(result=lambda: result), failure=None, model=model)

    @contextmanager
    def opened(self, *_: Any) -> Iterator[ScriptedSession]:
        """Stands for ``model_source.opened``."""
        yield self
