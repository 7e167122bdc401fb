"""Whether the limits on texts and on model calls agree, for each task of each route: a check of ``rexstream check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.cli.dependencies import Finding
from consumer.config.names import runnable
from consumer.extraction.longest import SPAN, fitting_text_chars, longest_text_calls
from consumer.extraction.task import INLINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from consumer.config.tree import Config
    from consumer.extraction.task import Task
    from consumer.serving.bundle import Bundle


def model_call_findings(config: Config, bundle: Bundle, tasks: Mapping[str, Task]) -> Iterator[Finding]:
    """A warning for each task that a text within ``limits.text_chars`` may ask more of than ``limits.model_calls``.

    The bundle's tokenizer says how long prompts are.
    """
    limits = config.limits
    for name in sorted({name for route in config.routes for name in runnable(route, tasks)} - {INLINE}):
        calls = longest_text_calls(bundle.tokenizer, bundle.limits, tasks[name], limits.text_chars, limits.facts)
        if (needed := sum(calls)) > limits.model_calls:
            fits = fitting_text_chars(bundle.tokenizer, bundle.limits, tasks[name], limits.facts, limits.model_calls)
            yield Finding(
                "limits.model_calls",
                "warn",
                f"a text of {limits.text_chars} characters (limits.text_chars), full of facts (of {len(SPAN)} "
                f"characters, limits.facts {limits.facts} a level), needs some {needed} model calls for task {name}, "
                f"and {limits.model_calls} are allowed: it would be a dead letter (TooManyModelCalls); raise this, "
                f"or lower limits.text_chars to {fits}",
            )
