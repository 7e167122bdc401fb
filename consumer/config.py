"""The configuration tree: YAML, environment and flags. Unknown keys fail with the key and the fix."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of the tree: no key that is not named here."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


ValueFormat = Literal["json", "text", "avro"]


class RegistryConfig(Section):
    """Schema Registry. Without a url, Avro values are bare data against the shipped schema."""

    url: str | None = None
    username: str | None = None
    password_file: str | None = None
    timeout_seconds: float = 5.0


class KafkaConfig(Section):
    bootstrap_servers: str = "127.0.0.1:9092"
    group_id: str = "rexstream"
    client: dict[str, Any] = Field(default_factory=dict)
    """librdkafka settings passed through to consumer and producer."""
    registry: RegistryConfig = RegistryConfig()


class RouteConfig(Section):
    input: str
    format: ValueFormat = "json"
    tasks: tuple[str, ...] = ()
    output: str = "reviews.extracted"
    """Topic, or a template with ``{task}``."""
    output_format: Literal["json", "avro"] = "json"


class ModelConfig(Section):
    target: str = "127.0.0.1:8500"
    name: str = "rexuninlu"
    version: int | None = None
    label: str | None = None
    bundle: str | None = None
    """Folder with tokenizer.json and bundle.json that the export wrote (``<model>/<version>/bundle``)."""


class BatchingConfig(Section):
    latency_objective_ms: Annotated[int, Field(gt=0)] = 1000
    max_tokens: Annotated[int, Field(ge=512)] = 16_384
    max_in_flight: Annotated[int, Field(ge=1)] = 2


class DeliveryConfig(Section):
    mode: Literal["at_least_once"] = "at_least_once"
    order: Literal["partition", "key", "none"] = "key"
    dead_letter_topic: str = "reviews.dead"
    commit_interval_ms: int = 500
    grace_seconds: float = 25.0


class LimitsConfig(Section):
    text_chars: int = 50_000
    types_per_level: int = 512
    schema_depth: int = 8
    facts: int = 1000
    model_calls: int = 4096
    """Windows one task of one event may need, over all levels."""
    value_bytes: int = 1_048_576
    in_flight_events: int = 2_000
    in_flight_bytes: int = 67_108_864


class ObservabilityConfig(Section):
    http: str = "127.0.0.1:9464"
    """Address of /metrics, /livez, /readyz, /status; port 0 takes a free one; an empty string turns it off."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section):
    kafka: KafkaConfig = KafkaConfig()
    routes: tuple[RouteConfig, ...] = (RouteConfig(input="reviews.raw", tasks=("product_features",)),)
    tasks_dirs: tuple[str, ...] = ()
    """Folders with task files beside the shipped ones."""
    model: ModelConfig = ModelConfig()
    batching: BatchingConfig = BatchingConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    limits: LimitsConfig = LimitsConfig()
    observability: ObservabilityConfig = ObservabilityConfig()
