"""The section of a route: what an input topic's records hold, and what becomes of them.

The text below a key is its description, also in ``docs/configuration.md`` (``make docs``).
"""

from __future__ import annotations

from typing import Any, Literal

from consumer.batching.queue import LANE
from consumer.config.section import Section, Text

ValueFormat = Literal["json", "text", "avro"]
Compression = Literal["gzip"]
Preset = Literal["debezium", "connect", "cloudevents", "canal", "maxwell"]


class RouteConfig(Section):
    """What becomes of the records of one input topic, or of all topics that a pattern matches."""

    input: Text
    r"""Topic to read, or a pattern of topics, in quotes: ``'^shop\..*\.reviews$'``. Each input topic has one route: the
    one that names it, else the first whose pattern matches it. A pattern stands for whole names, and has letters,
    digits, ``\.`` for a dot, ``.``, ``[a-z]``, ``[^.]``, ``(a|b)`` and the repeats ``* + ? {1,3}``. Topics that appear
    later are found within ``topic.metadata.refresh.interval.ms`` (10 s; a setting of ``kafka.client``) and read from
    their beginning. The topics of a pattern are one input: they share its part of the limits, and pause together."""
    format: ValueFormat = "json"
    """What a record's value is: a JSON event, in Confluent's frame or bare, the text of a review, or an Avro event."""
    encoding: Text | None = None
    """Encoding of JSON and text values that are not UTF-8, by any name that Python has for it: ``gb18030``, ``utf-16``,
    ``windows-1252``. A byte order mark at their beginning is skipped, with this key or without; one of UTF-8 says that
    it is UTF-8. ``utf-16`` is for values with a mark, and JSON; for text without one write ``utf-16-le`` or
    ``utf-16-be``."""
    compression: Compression | None = None
    """How producers pack each JSON or text value by themselves: ``gzip``. At most ``limits.value_bytes`` may come out.
    What a producer's ``compression.type`` packs is unpacked in any case, and needs no key."""
    tasks: tuple[Text, ...] = ()
    """Tasks to run on an event that chooses none itself: names of shipped task files or of your own
    (``tasks_dirs``)."""
    event_tasks: Literal["route", "any"] = "route"
    """What an event's own ``tasks`` may name: some of the route's tasks, or any task that is loaded (``any``). The rest
    that it names is one dead letter. With ``any`` every loaded task's topic must be there."""
    inline_schemas: bool = True
    """Whether an event may bring a schema of its own; if not, that is a dead letter."""
    control_headers: bool = True
    """Whether headers that a replay sets are believed on these records: the event's id, the tasks to run, the group
    that a replay is for. Anyone who may write to the topic can set them; ``dead-letters replay`` needs them."""
    drop_headers: tuple[Text, ...] = ()
    """Headers of a review that its results do not carry, beside those that describe the review's own value
    (``docs/delivery.md``): names in any case, with ``*`` at the end for all that begin so."""
    output: Text = "reviews.extracted"
    """Topic of the results, or a template in which ``{task}`` stands for the task's name. Results of a schema that came
    with the event go to the template without it: ``reviews.{task}`` gives ``reviews``."""
    output_format: Literal["json", "avro"] = "json"
    """What a result's value is."""
    lane: Text = LANE
    """Lane of its windows, any name: while more of them wait than a model call holds, each lane gets its part of the
    model, ``batching.lanes``. A topic that is replayed or filled from a backlog goes into one of its own, ``replay``;
    docs/tuning.md shows it."""
    preset: Preset | None = None
    """What a producer puts around a row, to be taken off: the change events of Debezium, with or without their schema;
    Connect's ``{schema, payload}``; CloudEvents, structured or in headers; messages of Canal (each row an event) or of
    Maxwell. docs/mapping.md has an example of each."""
    fields: dict[str, Any] | None = None
    """Where the fields of an event come from, for values that are no events: ``{text: content, event_id: [id, $key],
    source: {value: shop-a}, created_at: {from: ts, unit: seconds}, attributes: {stars: rating.stars}}``. A path has
    dots; ``$key``, ``$headers.NAME`` and ``$timestamp`` are the record's. docs/mapping.md has all of it. With this or a
    preset ``tasks``, ``schema`` and ``kind`` are read only where they are named here."""
    on_delete: Literal["drop", "forward"] = "drop"
    """A null value, or a delete that a preset knows, is dropped and counted, or forwarded: as a null value under the
    same key on every topic of the route's results, so that a compacted one forgets the row."""

    @property
    def is_mapped(self) -> bool:
        """Whether its values are no events, but are made into some by ``fields`` or ``preset``."""
        return self.preset is not None or bool(self.fields)

    def may_name(self, field: Literal["tasks", "schema"]) -> bool:
        """Whether an event can have this field: a bare text has none, and a mapped value what ``fields`` names."""
        if self.format == "text":
            return False
        return not self.is_mapped or (self.fields or {}).get(field) is not None
