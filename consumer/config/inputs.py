"""Which of the routes' inputs a topic belongs to: its own name, or the first pattern that matches it.

All that a worker keeps for each input topic (its route, its shares, its dead letters, its pauses) it keeps for each
input: the topics of a pattern share it. Names that an input has itself are known at once; the input of another topic is
looked up once, when it first comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from consumer.config.topic_patterns import TopicPattern, is_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_TOPICS = 10_000
"""Most topics of patterns whose input is remembered; topics may come and go for as long as a worker runs."""

_Value = TypeVar("_Value")


class Inputs:
    """The inputs of the routes, in their order, with what their patterns match. Raises PatternRefused."""

    def __init__(self, inputs: Iterable[str]) -> None:
        self.names = tuple(dict.fromkeys(inputs))
        self._known = frozenset(self.names)
        self.patterns = tuple(TopicPattern(name) for name in self.names if is_pattern(name))

    def find(self, topic: str) -> str | None:
        """The input that reads ``topic``: an equal name, else the first pattern that matches; None for none.

        Remembers nothing, so names that others choose may be asked for. An input is its own.
        """
        if topic in self._known:
            return topic
        return next((pattern.text for pattern in self.patterns if pattern.matches(topic)), None)

    def __contains__(self, topic: object) -> bool:
        return isinstance(topic, str) and self.find(topic) is not None

    def all_of(self, topic: str) -> list[str]:
        """Every pattern that matches ``topic``, in order; the first one reads it, unless an input has its name."""
        return [pattern.text for pattern in self.patterns if pattern.matches(topic)]


def subscriptions(inputs: Iterable[str]) -> list[str]:
    """What the client subscribes to: names, and patterns in its own form."""
    return [TopicPattern(name).subscription if is_pattern(name) else name for name in inputs]


class ByInput(dict[str, _Value], Generic[_Value]):
    """A value for each input, to be had by the name of a topic (``values[topic]``); ``of`` has them by input.

    Raises KeyError for a topic that no input reads. From any thread; only ``of`` may be iterated over.
    """

    def __init__(self, inputs: Iterable[str], make: Callable[[str], _Value]) -> None:
        self.inputs = Inputs(inputs)
        self.of = {name: make(name) for name in self.inputs.names}
        super().__init__(self.of)

    def __missing__(self, topic: str) -> _Value:
        name = self.inputs.find(topic)
        if name is None:
            raise KeyError(topic)
        if len(self) >= MOST_TOPICS + len(self.of):
            self.clear()
            self.update(self.of)
        value = self[topic] = self.of[name]
        return value


class InputOf(ByInput[str]):
    """The input of a topic, ``input_of[topic]``; the topic itself where no input reads it."""

    def __init__(self, inputs: Iterable[str]) -> None:
        super().__init__(inputs, str)

    def __missing__(self, topic: str) -> str:
        return super().__missing__(topic) if topic in self.inputs else topic
