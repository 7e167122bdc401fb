"""The configuration tree: every key with its type, its bounds, its default and what it does.

The text below a key is its description, also in ``docs/configuration.md`` (``make docs``). ``consumer.config.loading``
fills the tree from its sources.
"""

from __future__ import annotations

from dataclasses import fields
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeGuard, Union, get_args, get_origin

from pydantic import BeforeValidator, Field

from consumer.batching.policy import ASSUMED, CallCost
from consumer.config.canary import CanaryConfig  # noqa: TC001 - pydantic reads it
from consumer.config.route import RouteConfig
from consumer.config.section import Count, NotNegative, Seconds, Section, Text
from consumer.config.start import as_text
from consumer.config.tracing import TracingConfig
from consumer.extraction.task import ExtractionLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.problems import KeyPath


class RegistryConfig(Section):
    """A Confluent-compatible Schema Registry, for Avro values, whose schema's id is in front of them or in the header
    ``__value_schema_id``. Without ``url`` they are bare Avro data of the schema that ships with Rexstream. Files are
    PEM, and read again when they change.
    """

    url: Text | None = None
    """Address of the registry, ``http://…`` or ``https://…``."""
    username: Text | None = None
    """User name for HTTP's basic authentication; goes with ``password_file``."""
    password_file: Text | None = None
    """File with the password of ``username``. Line ends at its end do not count."""
    ca_file: Text | None = None
    """Certificates of the authorities that the registry's may come from; without it, the public ones of certifi."""
    certificate_file: Text | None = None
    """This client's certificate, for a registry that asks for one (mutual TLS); goes with ``key_file``."""
    key_file: Text | None = None
    """The private key of ``certificate_file``, not encrypted."""
    timeout_seconds: Seconds = 5.0
    """Longest wait for one answer of the registry, in seconds. A record that needs an answer waits and tries again."""
    auto_register: bool = True
    """Register the result schema as ``<topic>-value`` when a topic gets its first Avro result. If false, it must be
    there already, and results wait until it is."""


class SecurityConfig(Section):
    """How this client and the brokers prove themselves to each other. When a file's content changes, a worker drains
    and ends with exit code 5, to be started again with the new one.
    """

    protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] | None = None
    """TLS (``ssl``), a login (``sasl``), both or neither. Without it ``kafka.client`` decides, which also takes what
    this section has no keys for."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    """SASL mechanism of the login. OAUTHBEARER logs in with tokens of an OpenID Connect provider: the settings
    ``sasl.oauthbearer.…`` of ``kafka.client``, as docs/operations.md shows them, and no user name here."""
    username: Text | None = None
    """User name of the login."""
    password_file: Text | None = None
    """File with the password of the login, as UTF-8 text. Line ends at its end do not count."""
    password: Text | None = None
    """The password itself. Accepted only from the environment, ``REXSTREAM_KAFKA__SECURITY__PASSWORD``."""
    ca_file: Text | None = None
    """PEM certificates of the authorities that the brokers' may come from; without it, those of the system."""
    certificate_file: Text | None = None
    """This client's PEM certificate, with its chain, for brokers that ask for one (mutual TLS)."""
    key_file: Text | None = None
    """The PEM private key of ``certificate_file``."""
    key_password_file: Text | None = None
    """File with the password of ``key_file``, when that is encrypted."""


class KafkaConfig(Section):
    """The cluster and the consumer group."""

    bootstrap_servers: Text = "127.0.0.1:9092"
    """Brokers to ask for the rest of the cluster first: ``host:port`` (``[::1]:9092``), several with commas between
    them. What they advertise must be reachable from here, too."""
    group_id: Text = "rexstream"
    """Consumer group. Workers with the same one share the partitions of the input topics."""
    start: Annotated[Text, BeforeValidator(as_text)] = "earliest"
    """Where a group begins that has no offset of any input topic: ``earliest``, ``latest`` (what comes after its first
    worker started) or a time with its zone, such as ``2026-11-01T00:00:00Z``; one that is yet to come is ``latest``.
    Committed once, before the first record is read. Partitions and topics that are new to a group begin at their
    beginning."""
    client: dict[str, Any] = Field(default_factory=dict)
    """librdkafka settings passed through to consumer and producer, such as ``client.rack``. A setting that would break
    a delivery guarantee is refused with the reason."""
    security: SecurityConfig = SecurityConfig()
    registry: RegistryConfig = RegistryConfig()


class ModelTlsConfig(Section):
    """TLS to the model server; without the section the connection is plaintext. PEM files, read again when they
    change.
    """

    ca_file: Text | None = None
    """Certificates of the authorities that the server's may come from; without it, the public ones that gRPC brings."""
    certificate_file: Text | None = None
    """This client's certificate, for a server that asks for one (mutual TLS)."""
    key_file: Text | None = None
    """The private key of ``certificate_file``, not encrypted."""
    server_name: Text | None = None
    """Name that the server's certificate must have, if it is not the host of ``target``."""


class ModelConfig(Section):
    """The model server (TensorFlow Serving, over gRPC), and which version of the model to ask."""

    target: Text = "127.0.0.1:8500"
    """Address of the server's gRPC port: ``host:port``, or a target such as ``dns:///host:8500``,
    ``ipv4:10.0.0.1:8500,10.0.0.2:8500`` or ``unix:/run/serving.sock``. Each address of a list, or of a name that has
    several, is an endpoint with a connection, limits and evidence of its own; a name is looked up every 15 s. A proxy
    is one endpoint."""
    name: Text = "rexuninlu"
    """Name of the model on the server."""
    version: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Version to ask, and no other. Without ``version`` and ``label`` the newest that the server has."""
    label: Text | None = None
    """Version label to ask, such as ``stable``; excludes ``version``."""
    bundle: Text | None = None
    """Folder with tokenizer.json and bundle.json that the export wrote (``<model>/<version>/bundle``). A worker needs
    it: it is the part of the model that runs in the worker."""
    bundles: tuple[Text, ...] = ()
    """Further bundles, of versions with another tokenizer or other limits that are, or will be, served under the same
    name. The worker uses those that belong to what answers. With ``*`` an entry names all folders that match, such as
    ``/models/rexuninlu/*/bundle``: also those that come while a worker runs, which it looks for every two seconds."""
    canary: CanaryConfig | None = None
    tls: ModelTlsConfig | None = None


class CallCostConfig(Section):
    """How long a model call of B windows padded to L tokens takes: ``max(floor_seconds, fixed_seconds +
    linear_seconds * B * L + square_seconds * B * L * L)``. What waits is divided into the calls that take least time in
    all, so only the proportions matter. ``rexstream tune`` measures them. Without this section a worker makes a few
    calls itself before it consumes, for two seconds at most; where that tells nothing, it takes the defaults, which are
    an accelerator's.
    """

    floor_seconds: NotNegative = ASSUMED.floor
    """What no call is faster than."""
    fixed_seconds: NotNegative = ASSUMED.fixed
    """What every call costs."""
    linear_seconds: NotNegative = ASSUMED.per_token
    """What a padded token costs."""
    square_seconds: NotNegative = ASSUMED.per_pair
    """What a pair of padded tokens of one window costs."""

    def of_calls(self) -> CallCost:
        """As the batching policy takes it."""
        return CallCost(self.floor_seconds, self.fixed_seconds, self.linear_seconds, self.square_seconds)


class BatchingConfig(Section):
    """How windows of many events are put together into model calls."""

    latency_objective_ms: Count = 1000
    """Orders the work, in milliseconds: windows of the event whose timestamp plus this comes first are sent first. It
    bounds nothing, and does not change how long a window waits for others to share its call."""
    max_tokens: Annotated[int, Field(ge=512)] = 16_384
    """Padded tokens of one model call; 512 is one window of the largest size."""
    max_in_flight: Count = 2
    """Model calls of one worker that may be under way at once to each endpoint of ``model.target``: two for each model
    server behind its address, one that it computes and one that is on its way."""
    lanes: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """Weights of lanes (``routes[].lane``), such as ``{live: 4, replay: 1}``; one that is not listed has 1. While more
    waits than a call holds, padded tokens are divided by them; what a lane does not use goes to the others, and it
    saves up nothing. With one lane it changes nothing."""
    cost: CallCostConfig = CallCostConfig()


class DeliveryConfig(Section):
    """How results, dead letters and offsets are written to Kafka."""

    mode: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """``exactly_once``: results, dead letters and offsets in Kafka transactions, for readers with read_committed."""
    order: Literal["partition", "key", "none"] | None = None
    """Order of results: that of their input partition, that of the records with the same key, or none. By default
    ``key``, and in exactly_once ``partition``, the only one it can have."""
    dead_letter_topic: Text = "reviews.dead"
    """Topic for events that can never give a result, each with the reason in its headers."""
    dead_letter_run: Count | None = 50
    """More events of an input topic in a row with a dead letter pause this topic; null: never. One bad record in a
    hundred makes no row of five; a shop's spoilt import does make one of some dozens, and is no reason to stop for the
    others. A producer that breaks passes 50 at once."""
    dead_letter_rate: Annotated[float, Field(ge=0.01, lt=1, allow_inf_nan=False)] | None = 0.2
    """A larger share than this of its last 1,000 events, and of at least 100, pauses it too; null: never. Shops are
    known to send 0.1 to 1 % of bad records, and a fifth is no accident; a lower one sees one bad producer among
    many."""
    dead_letter_pause: Seconds = 60.0
    """Pause in seconds before a few records are tried again; doubled while they fail, up to 16 times as long. Long
    enough for monitoring to see it and an alert to go out, short enough to cost little where the flood was a single bad
    import."""
    commit_interval_ms: Count = 100
    """at_least_once: shortest time between two commits of offsets, in milliseconds. After a crash what became durable
    since the last one is processed again. A commit is one request to the group's coordinator. It takes a worker 0.2 ms
    of CPU; with 2,000 events in flight 0.5 ms, and 1 ms where they are of 100 partitions."""
    commit_pause_seconds: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 30.0
    """at_least_once: after so many seconds of commits that fail, the input topics pause until one succeeds. A crash
    repeats what they delivered in that time and what was in flight. Longer than a coordinator takes to move, so that
    brokers may be restarted one by one."""
    transaction_interval_ms: Count = 100
    """exactly_once: longest wait of a processed record for others to share its transaction, in milliseconds."""
    transaction_records: Count = 1000
    """exactly_once: most input records of one transaction. Fewer go into one while the brokers take long."""
    transaction_bytes: Count = 8_388_608
    """exactly_once: most bytes of the results and dead letters of one transaction, unless a single record has more. A
    broker that writes 2 MB a second needs a third of the default timeout for it."""
    transaction_timeout_ms: Annotated[int, Field(ge=1000)] = 15_000
    """exactly_once: after this many milliseconds the brokers abort what a dead worker left open; until then
    read_committed readers of its output partitions, and its successor, wait. At most the brokers'
    transaction.max.timeout.ms (15 minutes)."""
    grace_seconds: Seconds = 25.0
    """Time to finish what is in flight after SIGTERM, in seconds. Keep it below the time after which the process is
    killed (Kubernetes: 30 s)."""

    @property
    def release_order(self) -> Literal["partition", "key", "none"]:
        """The order of results in effect."""
        return self.order or ("partition" if self.mode == "exactly_once" else "key")


class DeadLetterConfig(Section):
    """What dead letters carry beside the project's own headers and those of KIP-1191."""

    headers: Literal["connect", "spring", "none"] = "none"
    """Adds the headers of Kafka Connect (``__connect.errors.*``) or of Spring (``kafka_dlt-*``)."""
    stack_trace: bool = False
    """Adds where in the code it failed, the last 4 KiB of it."""


class LimitsConfig(Section):
    """What one event may cost. An event over a limit becomes a dead letter; the in-flight bounds pause instead."""

    text_chars: Count = 10_000
    """Longest text of an event, in characters (Unicode code points). The longest of 52,000 shop reviews has 2,876. Goes
    with ``model_calls``: ``rexstream check`` warns where a text that this lets in could exceed that."""
    types_per_level: Count = 512
    """Most types under one parent in a schema; the whole schema may have ``schema_depth`` times as many."""
    schema_depth: Count = 8
    """Most levels of a schema."""
    facts: Count = 1000
    """Most facts of one level, and most paths of a result. What exceeds it is left out, and the result has a warning:
    this limit makes no dead letter."""
    model_calls: Count = 8192
    """Most windows that one task of one event may need, over all levels. Enough for the shipped tasks on a text of
    ``text_chars`` characters that is full of facts (``facts``)."""
    inline_model_calls: Count = 256
    """The same for a schema that came with its event, whose size nobody here has chosen. Three levels over a review of
    3,000 characters take about 100. At most ``model_calls``, which bounds it, too."""
    result_bytes: Count = 524_288
    """Most bytes of facts in one result, as JSON. What exceeds it is left out, and the result has a warning: this limit
    makes no dead letter."""
    value_bytes: Count = 1_048_576
    """Largest value of a record, in bytes."""
    in_flight_events: Count = 2_000
    """Records in one worker that are delivered and not yet durable; at the bound it pauses fetching. Half of it is
    divided among the input topics, the rest is for whoever comes first."""
    in_flight_bytes: Count = 67_108_864
    """Bytes of those records, with 150 for each header, divided in the same way. Not less than ``value_bytes``."""
    work_bytes: Count = 201_326_592
    """Memory that is made of those records: events under extraction, and results until they are durable. Each input
    topic has an equal part. At the bound further events wait, undecoded, in order of arrival; the oldest one goes on in
    any case. docs/operations.md has the worker's memory as a formula of this and others."""

    def of_extraction(self) -> ExtractionLimits:
        """Those that the engine keeps."""
        return ExtractionLimits(**{each.name: getattr(self, each.name) for each in fields(ExtractionLimits)})


class ObservabilityConfig(Section):
    """What a worker shows of itself."""

    http: str = "127.0.0.1:9464"
    """Address of /metrics, /livez, /readyz, /status; port 0 takes a free one; an empty string turns it off. Its port is
    in the ``client.id`` of the consumer, by which ``rexstream status`` and ``resume`` find the workers of a group."""
    http_hosts: tuple[Text, ...] = ()
    """Names, without port, under which clients reach that address, such as a Service's ``rexstream.shop.svc``; ``*.``
    before a name stands for all below it. A request for any other host gets 403, so that no web page can read a worker
    by giving its own name this address (DNS rebinding). Addresses and ``localhost`` need not be named: kubelet and
    Prometheus use those."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log lines that are written."""
    tracing: TracingConfig = TracingConfig()


class Config(Section):
    """Everything that can be set."""

    kafka: KafkaConfig = KafkaConfig()
    routes: Annotated[tuple[RouteConfig, ...], Field(min_length=1)] = (
        RouteConfig(input="reviews.raw", tasks=("product_features",)),
    )
    tasks_dirs: tuple[Text, ...] = ()
    """Folders with task files of your own, beside the shipped ones. A task name is used once."""
    model: ModelConfig = ModelConfig()
    batching: BatchingConfig = BatchingConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    dead_letter: DeadLetterConfig = DeadLetterConfig()
    limits: LimitsConfig = LimitsConfig()
    observability: ObservabilityConfig = ObservabilityConfig()

    def lanes(self) -> dict[str, float]:
        """The weights of all lanes that routes name, in their order."""
        return {route.lane: self.batching.lanes.get(route.lane, 1.0) for route in self.routes}


class Key(NamedTuple):
    """A key of the tree, or what an element of its list is."""

    type: Any
    """Without ``Annotated`` and ``| None``; None where there is no such key."""
    optional: bool


def key_at(path: KeyPath) -> Key:
    """The key at ``path``, in which a list's elements go by their numbers."""
    return KEYS.get(tuple(0 if isinstance(part, int) else part for part in path), Key(None, optional=False))


def is_section(kind: Any) -> TypeGuard[type[Section]]:
    """Whether a key's type is a section of the tree."""
    return isinstance(kind, type) and issubclass(kind, Section)


def _keys(path: KeyPath, kind: Any) -> Iterator[tuple[KeyPath, Key]]:
    optional = False
    while get_origin(kind) in (Annotated, Union, UnionType):
        optional = optional or NoneType in get_args(kind)
        kind = next(part for part in get_args(kind) if part is not NoneType)
    yield path, Key(kind, optional)
    if is_section(kind):
        for name, field in kind.model_fields.items():
            yield from _keys((*path, name), field.annotation)
    elif get_origin(kind) is tuple:
        yield from _keys((*path, 0), get_args(kind)[0])


KEYS: dict[KeyPath, Key] = dict(_keys((), Config))
"""Every key of the tree by its path, sections and the whole tree among them; elements of lists have the number 0."""
