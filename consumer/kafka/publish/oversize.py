"""What takes the place of an output that its topic refuses for its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.delivery.dead_letters import without_carried_headers, without_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.delivery.outcome import Output
    from consumer.events import SourceRecord
    from consumer.kafka.observer import EdgeObserver

NOTHING_LEFT = "a dead letter's key and what is said of the failure alone exceed its limit"


@dataclass(frozen=True, slots=True)
class Oversize:
    """``make(record, output)`` builds the dead letter of a refused result."""

    dead_letter_topic: str
    make: Callable[[SourceRecord, Output], Output]
    observer: EdgeObserver

    def instead(self, record: SourceRecord, output: Output) -> Output | None:
        """A dead letter for a result; for a dead letter one without its value, then without the headers it carries.

        None when nothing is left that could be omitted.
        """
        self.observer.produce_refused(output.topic, "MSG_SIZE_TOO_LARGE")
        if output.topic != self.dead_letter_topic:
            return self.make(record, output)
        return without_value(output) or without_carried_headers(output)
