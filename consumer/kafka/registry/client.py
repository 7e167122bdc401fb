"""The client of a Schema Registry: credentials, TLS, and the meaning of its errors and time-outs.

The resolver uses it and sees only two errors: RegistryUnavailable to wait out, and RegistryRefused to mend. Imported
only where a registry is configured, since Confluent's client loads an HTTP client and its certificates.
"""

from __future__ import annotations

import os
import ssl
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError

from consumer.config.credential_files import CredentialFileError, read_certificates, read_pair, read_password
from consumer.config.problems import without_login
from consumer.config.proxies import named_proxies, used_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.config.tree import RegistryConfig

_UNAUTHORIZED = frozenset({401, 403})

_REASON_CHARS = 300
"""Most characters of the registry's own error message that are passed on."""

AnswerT = TypeVar("AnswerT")


class RegistryUnavailable(Exception):  # noqa: N818 - the name says what it is
    """No answer, or an error that is transient: back off and repeat the request."""


class RegistryRefused(Exception):  # noqa: N818 - the name says what it is
    """The registry does not let this worker in, forbids its schema, or is no registry: a deployment fault."""


class RegistryConnection:
    """A client of the registry, made again with the files as they are then when its credentials were refused."""

    def __init__(self, config: RegistryConfig, connect: Callable[[RegistryConfig], SchemaRegistryClient]) -> None:
        """Raises what ``connect`` does."""
        self._config = config
        self._connect = connect
        self._where = f"schema registry {without_login(config.url or '')}"
        proxy = used_proxy(config.url or "", os.environ)
        self._proxy = f"; {proxy}" if proxy else ""
        self._client: SchemaRegistryClient | None = connect(config)

    def ask(
        self,
        request: Callable[[SchemaRegistryClient], AnswerT],
        absent: Mapping[int, AnswerT] = MappingProxyType({}),
    ) -> AnswerT:
        """The answer; waits up to the configured timeout. ``absent`` has the answer for a 404 with such an error code.

        Raises RegistryUnavailable and RegistryRefused.
        """
        client = self._client
        if client is None:
            client = self._client = self._connect(self._config)
        try:
            return request(client)
        except SchemaRegistryError as error:
            if error.http_status_code == 404 and error.error_code in absent:
                return absent[error.error_code]
            raise self._fault(error) from None
        except Exception as error:
            # Which HTTP library is underneath differs between releases of the client, and with it its errors. Taking
            # all of them for an outage loses nothing: the worker waits and says why.
            if (reason := _tls_reason(error)) is not None:
                self._client = None
                files = "kafka.registry's ca_file, certificate_file and key_file"
                what = f"TLS with {self._where} failed ({reason})"
                raise RegistryRefused(f"{what}; check its url and {files}{self._proxy}") from None
            what = f"{self._where} gives no usable answer ({type(error).__name__})"
            raise RegistryUnavailable(f"{what}; check its url and that it runs{self._proxy}") from None

    def renew(self) -> None:
        """Make the client again at the next request, with the files as they are then. From any thread."""
        self._client = None

    def _fault(self, error: SchemaRegistryError) -> RegistryUnavailable | RegistryRefused:
        code = error.http_status_code
        what = f"{self._where} answered {code}"
        if code in (408, 429) or code >= 500:
            return RegistryUnavailable(what + self._proxy)
        if code in _UNAUTHORIZED:
            # Made again at the next request, so that mended credentials need no restart of the worker.
            self._client = None
        # The registry's own words, not those of a proxy's page.
        words = " ".join(str(error.error_message or "").split())[:_REASON_CHARS]
        says = f": {words}" if words and error.error_code not in (None, -1) else ""
        fixes = {
            **dict.fromkeys(
                _UNAUTHORIZED, "check kafka.registry's username and password_file, and what that user may do"
            ),
            409: f"the subject's compatibility rule forbids this schema{says}; change the rule, or send the results to"
            " another topic",
            422: f"it takes no such schema there{says}; mend the subject or the registry's mode",
        }
        fix = fixes.get(code, "check kafka.registry.url")
        return RegistryRefused(f"{what} (code {error.error_code}); {fix}{self._proxy}")


def connect(config: RegistryConfig) -> SchemaRegistryClient:
    """A client for ``config.url``. Raises RegistryRefused for a credential file or a proxy that cannot be used."""
    settings: dict[str, Any] = {"url": config.url, "timeout": config.timeout_seconds, "max.retries": 0}
    try:
        if config.username is not None and config.password_file is not None:
            password = read_password("kafka.registry.password_file", config.password_file)
            settings["basic.auth.user.info"] = f"{config.username}:{password}"
        if config.ca_file is not None:
            read_certificates("kafka.registry.ca_file", config.ca_file)
            settings["ssl.ca.location"] = config.ca_file
        if config.certificate_file is not None and config.key_file is not None:
            certificate, key = "kafka.registry.certificate_file", "kafka.registry.key_file"
            read_pair(certificate, config.certificate_file, key, config.key_file)
            settings["ssl.certificate.location"] = config.certificate_file
            settings["ssl.key.location"] = config.key_file
    except CredentialFileError as error:
        raise RegistryRefused(str(error)) from None
    try:
        return SchemaRegistryClient.new_client(settings)
    except OSError as error:  # SSLError is one
        # The configured files were read above, so this is a file of authorities that the environment names.
        what = error.strerror or type(error).__name__
        raise RegistryRefused(f"the file of $SSL_CERT_FILE cannot be used: {what}; mend it or unset it") from None
    except Exception:
        # The HTTP client makes all proxies that the environment names, also those of other addresses. Its error quotes
        # the address, and so perhaps a password.
        if not (named := named_proxies(os.environ)):
            raise
        what = f"a proxy that the environment names cannot be used: {named}"
        fix = "write it as http://host:port, or set NO_PROXY to * for this process; SOCKS is not supported"
        raise RegistryRefused(f"{what}; {fix}") from None


def _tls_reason(error: BaseException | None) -> str | None:
    """TLS's own reason, anywhere in the chain of causes. A connection that breaks off is an outage, in TLS too."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return getattr(error, "verify_message", None) or error.reason or type(error).__name__
        error = error.__cause__ or error.__context__
    return None
