"""Channels to the model server, plaintext or TLS, and what to do when a connection fails for its TLS settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from consumer.config.credential_files import read_certificates, read_pair
from consumer.config.proxies import unused_proxy
from consumer.serving.resolution import name_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.config.tree import ModelConfig, ModelTlsConfig


def open_channel(model: ModelConfig, options: Sequence[tuple[str, int | str]] = (), address: str | None = None) -> Any:
    """A grpc.aio channel to ``model.target``, for the event loop that runs. Raises CredentialFileError.

    To ``address`` if that is given, ``host:port``, one of the target's; the host that the server is called by, and that
    its certificate is for, stays the target's.
    """
    credentials = read_credentials(model.tls)
    # The model server is inside the cluster, and the environment's HTTP proxies are for addresses outside.
    settings = [("grpc.enable_http_proxy", 0), *options]
    name = None if address in (None, model.target) else name_in(model.target)
    if name is not None:
        settings.append(("grpc.default_authority", f"{name.host}:{name.port}"))
    if credentials is None or model.tls is None:
        return grpc.aio.insecure_channel(address or model.target, options=settings)
    server_name = model.tls.server_name or (name and name.host)
    if server_name is not None:
        settings.append(("grpc.ssl_target_name_override", server_name))
    return grpc.aio.secure_channel(address or model.target, credentials, options=settings)


def read_credentials(tls: ModelTlsConfig | None) -> grpc.ChannelCredentials | None:
    """Credentials from the configured files; None for plaintext. Raises CredentialFileError."""
    if tls is None:
        return None
    roots = None if tls.ca_file is None else read_certificates("model.tls.ca_file", tls.ca_file)
    certificate = key = None
    if tls.certificate_file is not None and tls.key_file is not None:
        certificate, key = read_pair(
            "model.tls.certificate_file", tls.certificate_file, "model.tls.key_file", tls.key_file
        )
    return grpc.ssl_channel_credentials(roots, key, certificate)


def connection_hint(message: str, tls: ModelTlsConfig | None) -> str | None:
    """What to do about a call that found no server: about TLS, or where the environment names a proxy."""
    hints = (tls_hint(message, tls), unused_proxy(os.environ))
    return "; ".join(hint for hint in hints if hint) or None


def tls_hint(message: str, tls: ModelTlsConfig | None) -> str | None:
    """What to do about a failed call whose ``message`` is about TLS; None for any other.

    The texts are those of gRPC 1.85, and of older ones where they differ. A server that wants a client certificate
    closes the connection without an alert (with TLS 1.3 the client has finished its handshake by then), and so does one
    that is spoken to in plaintext.
    """
    if "CERTIFICATE_VERIFY_FAILED" in message:
        return "the server's certificate is not trusted: model.tls.ca_file must hold the authority that issued it"
    if "Hostname Verification" in message or "not in peer certificate" in message:
        return "the server's certificate is for another name than model.target: set model.tls.server_name to one it has"
    if "WRONG_VERSION_NUMBER" in message:
        return "the server does not speak TLS: remove model.tls, or check the port in model.target"
    if "handshake" in message.lower():
        return "the TLS handshake failed: compare model.tls with the server's TLS settings"
    if "failed to connect" in message and ("Socket closed" in message or "Connection reset" in message):
        if tls is None:
            return "if the server speaks TLS, set model.tls"
        if tls.certificate_file is None:
            return "if the server asks for a client certificate, set model.tls.certificate_file and model.tls.key_file"
        return "if the server asks for a client certificate, it may not trust model.tls.certificate_file"
    return None
