"""How many model calls a task may need for the longest text: whether its limits agree with each other.

Only the model knows how many facts it finds, so the most that the limits let through are assumed, each of them short.
``rexstream check`` warns where a text that ``limits.text_chars`` lets in could exceed ``limits.model_calls``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from consumer.extraction.hint import Parent
from consumer.extraction.prompts import HintBuilder, HintCache
from consumer.extraction.task import Notes
from consumer.extraction.window import marker_prompt, text_prompt, window_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.prompts import PromptLimits, PromptTokenizer
    from consumer.extraction.task import Task

SPAN: Final = "很" * 8
"""A found fact, as it stands in prompts: most aspects and opinions have two to four characters."""


def longest_text_calls(
    tokenizer: PromptTokenizer, limits: PromptLimits, task: Task, text_chars: int, facts: int
) -> tuple[int, ...]:
    """Model calls of each level for a text of ``text_chars`` characters, taken for one token each.

    Every level finds ``facts`` facts, or all types side by side in the whole text below every fact of the level before:
    each taken for one of the type that has the most tokens below it. A classification finds every label in every
    window, up to ``facts``.
    """
    side_by_side = max(1, text_chars // len(SPAN))
    builder = HintBuilder(tokenizer, limits, HintCache(tokenizer, limits))
    extract = task.kind == "extract"
    marker = tokenizer.classify if task.kind == "classify" else tokenizer.multiclassify
    tokens = text_chars + (len(tokenizer.ids(task.implicit_aspect or "")) if extract else 1)
    parents: Sequence[Parent] = (Parent((), (), task.schema),)
    calls = []
    while parents:
        lengths = [packed.length for packed in builder.pack(parents, Notes(), special=False)]
        capacities = [limits.max_len - length - 1 for length in lengths]
        overlap = limits.stride_len if extract else 0
        calls.append(sum(window_count(tokens, capacity, capacity - overlap) for capacity in capacities))
        found = [
            Parent((), text_prompt(parent, name, SPAN) if extract else marker_prompt(parent, name, marker), children)
            for parent in (parents[:1] if extract else parents)
            for name, children in parent.children.items()
            if children
        ]
        found.sort(key=lambda parent: _tokens(builder, parent), reverse=True)
        if extract:
            parents = found[:1] * min(facts, len(parents) * len(found) * side_by_side)
        else:
            parents = (found * -(-calls[-1] // max(len(lengths), 1)))[:facts]
    return tuple(calls)


def _tokens(builder: HintBuilder, parent: Parent) -> int:
    return sum(packed.length for packed in builder.pack((parent,), Notes(), special=False))


def fitting_text_chars(
    tokenizer: PromptTokenizer, limits: PromptLimits, task: Task, facts: int, model_calls: int
) -> int:
    """The longest text, in characters, whose calls of all levels are at most ``model_calls``; 0 for none."""
    low, high = 0, 1
    while sum(longest_text_calls(tokenizer, limits, task, high, facts)) <= model_calls:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = sum(longest_text_calls(tokenizer, limits, task, middle, facts)) <= model_calls
        low, high = (middle, high) if fits else (low, middle)
    return low
