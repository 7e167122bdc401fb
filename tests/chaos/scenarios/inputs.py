"""Faults of the input: a flood of records that nobody can read, and a schema registry that goes away."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
from chaos.reviews import Review, plain, results, text, unreadable
from chaos.scenario import Scenario
from registry_double import RegistryDouble

if TYPE_CHECKING:
    from chaos.stage import Stage

_EVENT_SCHEMA = (Path(__file__).resolve().parents[3] / "schemas/avro/review_event.avsc").read_text("utf-8")
_NEWER_SCHEMA = json.dumps(
    {
        **json.loads(_EVENT_SCHEMA),
        "fields": [{"name": "stars", "type": "int", "default": 0}, *json.loads(_EVENT_SCHEMA)["fields"]],
    }
)
KNOWN, NEW = 7, 8
_SCHEMAS = {KNOWN: _EVENT_SCHEMA, NEW: _NEWER_SCHEMA}

FLOOD_RECORDS = 300
PAUSE_SECONDS = 0.5


def _flood(stage: Stage) -> None:
    stage.set_up()
    worker = stage.worker(delivery={"dead_letter_run": 20, "dead_letter_rate": 0.5, "dead_letter_pause": PAUSE_SECONDS})
    stage.begin(write=plain)
    stage.pause(3, 5)
    stage.fault(f"{FLOOD_RECORDS} records that are no JSON, at once")
    stage.load.send(unreadable, FLOOD_RECORDS)
    stage.wait(lambda: "flood" in worker.paused, "the worker pauses for the flood")
    stage.check(not worker.ready, "the worker is not ready")
    stage.wait(lambda: worker.paused == [], "it goes on by itself when the flood is over")
    stage.progress()
    stage.finish()


def _registry(stage: Stage) -> None:
    stage.set_up()
    registry = RegistryDouble()
    registry.schemas = dict(_SCHEMAS)
    try:
        worker = stage.worker(kafka={"registry": {"url": registry.url}}, route={"format": "avro"})
        stage.begin(write=lambda number: _avro(number, KNOWN))
        stage.progress()
        stage.fault("the registry is gone; events of a known schema")
        registry.stop()
        stage.progress(150)
        stage.check(worker.paused == [], "known schemas need no registry")
        stage.fault("events of a schema that was not asked for yet")
        stage.load.send(lambda number: _avro(number, NEW), 5)
        stage.wait(lambda: "registry" in worker.paused, "the worker pauses for the registry")
        stage.check(not worker.ready, "the worker is not ready")
        stage.pause(5, 8)
        registry.start()
        stage.fault("the registry is back")
        stage.progress()
        stage.wait(lambda: worker.ready, "the worker is ready again")
        stage.finish()
    finally:
        registry.stop()


def _avro(number: int, schema: int) -> Review:
    """A good review in Confluent's wire format."""
    fields: dict[str, Any] = {"event_id": f"avro-{schema}-{number}", "text": text(number)}
    if schema == NEW:
        fields["stars"] = number % 5
    out = io.BytesIO()
    fastavro.schemaless_writer(out, json.loads(_SCHEMAS[schema]), fields)
    value = struct.pack(">bI", 0, schema) + out.getvalue()
    return Review("avro", f"p{number % 17}".encode(), value, results(), fields["event_id"], fields["text"])


SCENARIOS = (
    Scenario(
        "flood",
        f"{FLOOD_RECORDS} unreadable records at once; limit 20 in a row, pauses from {PAUSE_SECONDS} s on",
        "paused (flood), not ready, then on by itself; every bad record has its dead letter; no copy in either mode",
        _flood,
    ),
    Scenario(
        "registry_gone",
        "the schema registry goes away; events of a known schema, then of a new one; it comes back",
        "known ids go on; the new one pauses (registry) and is no dead letter; no copy in either mode",
        _registry,
    ),
)
