"""From parents to chunks of types, within the number of windows an event may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.events import BadInput
from consumer.extraction.windows import capacity, window_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.contract import PromptLimits
    from consumer.extraction.hints import Chunk, HintBuilder, Parent, Prompt
    from consumer.extraction.notes import Notes


@dataclass(slots=True)
class Prompting:
    """Lays out the levels of one extraction. ``overlap`` is what neighbouring windows share, in tokens."""

    builder: HintBuilder
    prompt_limits: PromptLimits
    notes: Notes
    budget: int
    """Windows that may still be asked."""
    special: bool
    overlap: int

    def chunks(self, parents: Sequence[Parent]) -> list[Chunk]:
        """Pack and build the hints of a level."""
        packed = self.builder.pack(parents, self.notes, special=self.special)
        return [self.builder.build(one, special=self.special) for one in packed]

    def affordable(self, parents: Sequence[Parent], tokens: int) -> list[Chunk]:
        """As ``chunks``, but pays for the windows over ``tokens`` text tokens first. Stops packing when it cannot."""
        paid = []
        for one in self.builder.pack(parents, self.notes, special=self.special):
            self._pay(one.length, tokens)
            paid.append(one)
        return [self.builder.build(one, special=self.special) for one in paid]

    def afford(self, chunks: Sequence[Chunk], tokens: int) -> None:
        """Pay for chunks that are built already. Raises BadInput ``TooManyModelCalls``."""
        for chunk in chunks:
            self._pay(len(chunk.hint), tokens)

    def room(self, hint_length: int) -> int:
        """Text tokens beside a hint."""
        return capacity(hint_length, self.prompt_limits.max_len)

    def _pay(self, hint_length: int, tokens: int) -> None:
        room = self.room(hint_length)
        self.budget -= window_count(tokens, room, room - self.overlap)
        if self.budget < 0:
            raise BadInput(
                "extract",
                "TooManyModelCalls",
                f"a text of {tokens} tokens with this schema needs more model calls than limits.model_calls allows; "
                "shorten the text, split the schema or raise the limit",
            )


def spoken(parent: Parent, kind: str, span: str) -> Prompt:
    """Prompt of a fact below ``parent``: ``type: span``, facts joined by commas (specification section 4)."""
    above = f"{parent.prompt[0]}," if parent.prompt else ""
    return (f"{above}{kind}: {span}",)


def stamped(parent: Parent, kind: str, marker: int) -> Prompt:
    """As ``spoken`` where the span is a marker token, which is placed by its id: its literal would be plain text."""
    return (*parent.prompt, f"{',' if parent.prompt else ''}{kind}: ", marker)
