"""Asking a Schema Registry: what its answers and its silence mean, credentials, TLS."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from consumer.config.credential_files import CredentialFileError, read_certificates, read_pair, read_password
from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.config.tree import RegistryConfig

_RETRIABLE = frozenset({408, 429})
_UNAUTHORIZED = frozenset({401, 403})
_CONFLICT = 409
_INVALID = 422

_REASON_CHARS = 300
"""What is passed on of the registry's own words about a schema."""

AnswerT = TypeVar("AnswerT")


class RegistryUnavailable(Exception):  # noqa: N818 - the name says what it is
    """No answer, or one that says to come back: transient. Back off and ask again."""


class RegistryRefused(Exception):  # noqa: N818 - the name says what it is
    """The registry does not let this worker in, forbids its schema, or is no registry: a deployment fault."""


class RegistryClient(Protocol):
    """The part of confluent_kafka's SchemaRegistryClient that is used. Its errors: SchemaRegistryError, and httpx's."""

    def get_schema(self, schema_id: int) -> Any:
        """The schema of an id: ``schema_str``, ``schema_type``, ``references``."""
        ...

    def get_version(self, subject_name: str, version: int, deleted: bool = False) -> Any:
        """A version of a subject, for the references of schemas."""
        ...

    def register_schema(self, subject_name: str, schema: Any) -> int:
        """Register a schema, or find it registered; its id."""
        ...

    def lookup_schema(self, subject_name: str, schema: Any, normalize_schemas: bool = False) -> Any:
        """The version of a subject that has this schema: ``schema_id``."""
        ...

    def get_compatibility(self, subject_name: str | None = None) -> str:
        """Compatibility mode of a subject that has one of its own, or of all others."""
        ...

    def test_compatibility_all_versions(self, subject_name: str, schema: Any) -> bool:
        """Whether the mode of a subject would let this schema in."""
        ...

    def get_subjects(self) -> list[str]:
        """Names of all subjects."""
        ...


class RegistryConnection:
    """A client that is opened again, with the files as they are then, after the registry did not let it in."""

    def __init__(self, config: RegistryConfig, connect: Callable[[RegistryConfig], RegistryClient]) -> None:
        """Raises what ``connect`` does."""
        self._config = config
        self._connect = connect
        self._where = f"schema registry {_without_userinfo(config.url)}"
        self._client: RegistryClient | None = connect(config)

    def ask(self, request: Callable[[RegistryClient], AnswerT]) -> AnswerT:
        """The answer; waits up to the configured timeout.

        Raises RegistryUnavailable, RegistryRefused, and the BadInput that ``request`` raises.
        """
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        if self._client is None:
            self._client = self._connect(self._config)
        try:
            return request(self._client)
        except SchemaRegistryError as error:
            raise self._fault(error) from None
        except BadInput:
            raise
        except Exception as error:
            # Which HTTP library is underneath differs between releases of the client, and with it its errors. Taking
            # all of them for an outage loses nothing: the worker waits and says why.
            if (reason := _tls_reason(error)) is not None:
                self._client = None
                files = "kafka.registry's ca_file, certificate_file and key_file"
                raise RegistryRefused(f"TLS with {self._where} failed ({reason}); check its url and {files}") from None
            what = f"{self._where} gives no usable answer ({type(error).__name__})"
            raise RegistryUnavailable(f"{what}; check its url and that it runs") from None

    def _fault(self, error: Any) -> RegistryUnavailable | RegistryRefused:
        code = error.http_status_code
        what = f"{self._where} answered {code}"
        if code in _RETRIABLE or code >= 500:
            return RegistryUnavailable(what)
        fix = "check kafka.registry.url"
        if code in _UNAUTHORIZED:
            # Whoever mends the credentials, here or there, need not start the worker again.
            self._client = None
            fix = "check kafka.registry's username and password_file, and what that user may do"
        elif code == _CONFLICT:
            fix = (
                f"the subject's compatibility rule forbids this schema{_said(error)}; change the rule, or send the"
                " results to another topic"
            )
        elif code == _INVALID:
            fix = f"it takes no such schema there{_said(error)}; mend the subject or the registry's mode"
        return RegistryRefused(f"{what} (code {error.error_code}); {fix}")


def connect(config: RegistryConfig) -> RegistryClient:
    """A client for ``config.url``. Raises RegistryRefused for a password, certificate or key that cannot be used."""
    # Not at the top: it loads an HTTP client and its certificates, which a worker without a registry never needs.
    from confluent_kafka.schema_registry import SchemaRegistryClient

    settings: dict[str, Any] = {"url": config.url, "timeout": config.timeout_seconds, "max.retries": 0}
    try:
        settings.update(_credentials(config))
    except CredentialFileError as error:
        raise RegistryRefused(str(error)) from None
    try:
        client: RegistryClient = SchemaRegistryClient.new_client(settings)
    except OSError as error:  # SSLError is one
        # What is configured was read above: this is the environment's own choice of authorities.
        what = error.strerror or type(error).__name__
        raise RegistryRefused(f"the file of $SSL_CERT_FILE cannot be used: {what}; mend it or unset it") from None
    return client


def _credentials(config: RegistryConfig) -> dict[str, str]:
    settings: dict[str, str] = {}
    if config.username is not None and config.password_file is not None:
        password = read_password("kafka.registry.password_file", config.password_file)
        settings["basic.auth.user.info"] = f"{config.username}:{password}"
    if config.ca_file is not None:
        read_certificates("kafka.registry.ca_file", config.ca_file)
        settings["ssl.ca.location"] = config.ca_file
    if config.certificate_file is not None and config.key_file is not None:
        read_pair(
            "kafka.registry.certificate_file", config.certificate_file, "kafka.registry.key_file", config.key_file
        )
        settings["ssl.certificate.location"] = config.certificate_file
        settings["ssl.key.location"] = config.key_file
    return settings


def _tls_reason(error: BaseException | None) -> str | None:
    """What TLS says, wherever in the chain of causes. A connection that breaks off is an outage, in TLS too."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return getattr(error, "verify_message", None) or error.reason or type(error).__name__
        error = error.__cause__ or error.__context__
    return None


def _said(error: Any) -> str:
    """The registry's own words, when they are its own and not a proxy's page."""
    if error.error_code in (None, -1) or not error.error_message:
        return ""
    words = " ".join(str(error.error_message).split())
    return f": {words[:_REASON_CHARS]}"


def _without_userinfo(url: str | None) -> str:
    scheme, separator, rest = (url or "").partition("://")
    return scheme + separator + rest.rpartition("@")[2]
