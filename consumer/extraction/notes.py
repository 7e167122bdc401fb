"""What an extraction has to say about itself besides its facts."""

from __future__ import annotations

from dataclasses import dataclass, field

from consumer.extraction.schema import shown

_NAMED = 5
"""Skipped types that a warning lists by name."""


@dataclass(slots=True)
class Notes:
    """Collects what was skipped, dropped or capped. Never holds review text."""

    skipped_types: dict[str, None] = field(default_factory=dict)
    """Used as an ordered set."""
    skipped_parents: int = 0
    crossed_aspect: int = 0
    capped_at: int | None = None
    fallback: bool = False

    def warnings(self, type_limit: int, prefix_limit: int) -> tuple[str, ...]:
        """One line for each kind of event, starting with a stable slug. Limits in tokens."""
        lines = []
        if self.skipped_types:
            names = [shown(name) for name in list(self.skipped_types)[:_NAMED]]
            more = len(self.skipped_types) - len(names)
            listed = ", ".join(names) + (f" and {more} more" if more else "")
            lines.append(f"types-skipped: {len(self.skipped_types)} over {type_limit} tokens: {listed}")
        if self.skipped_parents:
            lines.append(
                f"children-skipped: {self.skipped_parents} found facts over {prefix_limit} tokens were not expanded"
            )
        if self.crossed_aspect:
            lines.append(f"aspect-crossed: {self.crossed_aspect} spans from the implicit aspect into the text dropped")
        if self.capped_at is not None:
            lines.append(f"facts-capped: more than {self.capped_at} facts on a level or paths; the rest was dropped")
        if self.fallback:
            lines.append("fallback: no type scored above 0.5; the best guess is reported")
        return tuple(lines)
