"""Real prompts for the self-check and the warm-up, made by the engine that will make them in production."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.extraction.engine import Engine
from consumer.extraction.limits import ExtractionLimits
from consumer.extraction.task import Task

if TYPE_CHECKING:
    from consumer.extraction.window import Window
    from consumer.serving.bundle import Bundle

_TEXT = "屏幕很清楚，充电也快，就是有点重，客服回复得慢。"
_ASPECTS = Task("aspects", "extract", {"属性词": None, "正向情感(情感词)": None, "负向情感(情感词)": None}, "#")
_SENTIMENT = Task("sentiment", "classify", {"正向情感": None, "负向情感": None})


def sample_windows(bundle: Bundle) -> tuple[Window, ...]:
    """An extraction and a classification window, of different lengths, well below 64 tokens."""
    engine = Engine(bundle.tokenizer, bundle.limits, ExtractionLimits())
    return tuple(engine.start(_TEXT, task).windows[0] for task in (_ASPECTS, _SENTIMENT))
