"""The configuration tree: every key, its type, its bounds and its default. Loading it is config_loading's part."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ValueFormat = Literal["json", "text", "avro"]


class Section(BaseModel):
    """A part of the tree: no key that is not named here, and no silent conversion of one kind of value to another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class RegistryConfig(Section):
    """Schema Registry. Without a url, Avro values are bare data against the shipped schema."""

    url: Text | None = None
    username: Text | None = None
    password_file: Text | None = None
    timeout_seconds: Seconds = 5.0


class KafkaConfig(Section):
    """The cluster and the consumer group."""

    bootstrap_servers: Text = "127.0.0.1:9092"
    group_id: Text = "rexstream"
    client: dict[str, Any] = Field(default_factory=dict)
    """librdkafka settings passed through to consumer and producer."""
    registry: RegistryConfig = RegistryConfig()


class RouteConfig(Section):
    """What becomes of the records of one input topic."""

    input: Text
    format: ValueFormat = "json"
    tasks: tuple[Text, ...] = ()
    output: Text = "reviews.extracted"
    """Topic, or a template with ``{task}``."""
    output_format: Literal["json", "avro"] = "json"


class ModelConfig(Section):
    """The model server, and which of its versions to ask."""

    target: Text = "127.0.0.1:8500"
    name: Text = "rexuninlu"
    version: Annotated[int, Field(ge=0)] | None = None
    label: Text | None = None
    bundle: Text | None = None
    """Folder with tokenizer.json and bundle.json that the export wrote (``<model>/<version>/bundle``)."""


class BatchingConfig(Section):
    """What the batching policy aims at."""

    latency_objective_ms: Count = 1000
    max_tokens: Annotated[int, Field(ge=512)] = 16_384
    """Padded tokens of one model call; 512 is one window of the largest size."""
    max_in_flight: Count = 2


class DeliveryConfig(Section):
    """How results and offsets leave."""

    mode: Literal["at_least_once"] = "at_least_once"
    order: Literal["partition", "key", "none"] = "key"
    dead_letter_topic: Text = "reviews.dead"
    commit_interval_ms: Count = 500
    grace_seconds: Seconds = 25.0
    """Time to finish what is in flight after SIGTERM."""


class LimitsConfig(Section):
    """What one event may cost. An event over a limit becomes a dead letter; the in-flight bounds pause instead."""

    text_chars: Count = 50_000
    types_per_level: Count = 512
    schema_depth: Count = 8
    facts: Count = 1000
    model_calls: Count = 4096
    """Windows one task of one event may need, over all levels."""
    value_bytes: Count = 1_048_576
    in_flight_events: Count = 2_000
    in_flight_bytes: Count = 67_108_864


class ObservabilityConfig(Section):
    """What a worker shows of itself."""

    http: str = "127.0.0.1:9464"
    """Address of /metrics, /livez, /readyz, /status; port 0 takes a free one; an empty string turns it off."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section):
    """Everything a worker is told."""

    kafka: KafkaConfig = KafkaConfig()
    routes: Annotated[tuple[RouteConfig, ...], Field(min_length=1)] = (
        RouteConfig(input="reviews.raw", tasks=("product_features",)),
    )
    tasks_dirs: tuple[Text, ...] = ()
    """Folders with task files beside the shipped ones."""
    model: ModelConfig = ModelConfig()
    batching: BatchingConfig = BatchingConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    limits: LimitsConfig = LimitsConfig()
    observability: ObservabilityConfig = ObservabilityConfig()
