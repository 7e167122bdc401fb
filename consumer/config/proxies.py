"""The proxy that the environment names for an address, as the HTTP client of the Schema Registry chooses it.

Errors of the registry and of the model server name it, since a proxy of an address outside is the usual reason why one
inside cannot be reached. Never its user and password.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from urllib.parse import SplitResult

_HOST = re.compile(r"[\w.\-\[\]:%]{1,260}")
_GRPC = ("grpc", "https", "http", "all")


def used_proxy(url: str, environ: Mapping[str, str]) -> str | None:
    """What to say of the proxy through which ``url`` is asked, and how to ask it directly; None where there is none."""
    split = _split(url)
    if split is None or split.hostname is None:
        return None
    name, value = next(_set(environ, (split.scheme, "all")), ("", ""))
    if not value or _exempt(split, environ):
        return None
    proxy = f"the proxy of ${name} ({shown_proxy(value)})"
    return f"it was asked through {proxy}; to ask it directly, add {split.hostname} to NO_PROXY"


def unused_proxy(environ: Mapping[str, str]) -> str | None:
    """What to say of a proxy of the environment to who cannot reach the model server; None where it names none."""
    name, value = next(_set(environ, _GRPC), ("", ""))
    return f"the proxy of ${name} ({shown_proxy(value)}) is not used for the model server" if value else None


def named_proxies(environ: Mapping[str, str]) -> str:
    """All variables that name a proxy, each with its host and port."""
    return ", ".join(f"${name} ({shown_proxy(value)})" for name, value in _set(environ, ("http", "https", "all")))


def shown_proxy(value: str) -> str:
    """Host and port of a proxy's address."""
    # At the last @: a password may hold anything, a slash too.
    host = value.rpartition("://")[2].rpartition("@")[2].partition("/")[0]
    return host if _HOST.fullmatch(host) else "(hidden)"


def _set(environ: Mapping[str, str], schemes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The variables for ``schemes`` that name a proxy. Of two that differ in case the lower one counts, also empty."""
    for scheme in schemes:
        lower = f"{scheme}_proxy"
        spelled = [lower] if lower in environ else [name for name in environ if name.lower() == lower]
        if scheme == "http" and "REQUEST_METHOD" in environ:
            spelled = [name for name in spelled if name == lower]  # of a CGI script, where a client may set HTTP_PROXY
        if spelled and environ[spelled[-1]]:
            yield spelled[-1], environ[spelled[-1]]


def _exempt(split: SplitResult, environ: Mapping[str, str]) -> bool:
    """Whether NO_PROXY names the host, alone or with the port, or a domain above it."""
    listed = environ["no_proxy"] if "no_proxy" in environ else environ.get("NO_PROXY", "")
    host, port = split.hostname or "", split.netloc.rpartition(":")[2]
    for entry in filter(None, (entry.strip().lower() for entry in listed.split(","))):
        name, _, wanted = entry.rpartition(":") if entry.count(":") == 1 else (entry.strip("[]"), "", "")
        if entry == "*" or (name == host and wanted in ("", port)):
            return True
        below = name.removeprefix("*") if name.startswith(("*.", ".")) else f".{name}"
        if host.endswith(below) and not name[:1].isdigit() and wanted in ("", port):
            return True
    return False


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
