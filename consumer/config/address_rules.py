"""Which network addresses can work: the brokers', the model server's, the registry's, the worker's own.

What is wrong with one is said by pairs of a fault and the way out. The configuration's rules and the options of the
command line ask the same functions; none looks a name up or connects.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from consumer.config.names import ADDRESS
from consumer.config.problems import Check, KeyPath, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.tree import Config

Fault = tuple[str, str]
"""What is wrong with an address, and the way out."""

_HOST = re.compile(r"(?=.{1,253}\Z)(?!.*\.\.)[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)://")
_LISTENER_PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_GRPC_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds|google-c2p):(.*)", re.DOTALL)
_MODEL = "host:8500"
_COLLECTOR = "http://otel-collector:4317"
_REST_PORT = re.compile(r"(?!unix).*:8501")


def address_checks(config: Config) -> Iterator[Check]:
    """The checks of every address in the configuration."""
    kafka, model, http = config.kafka, config.model, config.observability.http
    servers: KeyPath = ("kafka", "bootstrap_servers")
    yield from ((True, servers, *fault) for fault in bootstrap_faults(kafka.bootstrap_servers))
    yield from ((True, ("model", "target"), *fault) for fault in target_faults(model.target))
    if model.tls is not None and model.tls.server_name is not None:
        yield (
            not _is_host(model.tls.server_name),
            ("model", "tls", "server_name"),
            f"{model.tls.server_name!r} is not a host name",
            "write the name alone, as it stands in the server's certificate",
        )
    url: KeyPath = ("kafka", "registry", "url")
    if kafka.registry.url is not None:
        yield from ((True, url, *fault) for fault in registry_faults(kafka.registry.url))
    fault = endpoint_fault(http, "127.0.0.1:9464", least_port=0) if http else None
    if fault is not None:
        yield True, ("observability", "http"), fault[0], f"{fault[1]}, or an empty string for none"
    collector = config.observability.tracing.endpoint
    if collector is not None and (fault := collector_fault(collector)) is not None:
        yield True, ("observability", "tracing", "endpoint"), *fault


def address_warnings(config: Config) -> Iterator[Check]:
    """Addresses that may work but are probably a mistake."""
    yield (
        _REST_PORT.fullmatch(config.model.target) is not None,
        ("model", "target"),
        "has port 8501, by default the one of TensorFlow Serving's REST API",
        "write the gRPC port, by default 8500",
    )
    yield (
        (config.observability.tracing.endpoint or "").rstrip("/").endswith(":4318"),
        ("observability", "tracing", "endpoint"),
        "has port 4318, by default the one of OTLP over HTTP",
        "write the port of OTLP over gRPC, by default 4317",
    )


def bootstrap_faults(servers: str) -> Iterator[Fault]:
    """What is wrong with a list of brokers, ``host:port`` with commas between them."""
    if "'" in servers or '"' in servers or re.fullmatch(r"\[[^\[\]]*,[^\[\]]*\]", servers):
        yield "is a list in YAML or JSON", "write it without brackets and quotation marks: kafka-1:9092,kafka-2:9092"
        return
    for server in map(str.strip, servers.split(",")):
        if not server:
            yield "has a comma without a broker beside it", "remove the comma: kafka-1:9092,kafka-2:9092"
        elif (found := _SCHEME.match(server)) is not None:
            protocol, address = found[1].lower(), server[found.end() :].rpartition("@")[2]
            if protocol in _LISTENER_PROTOCOLS:
                what = f"{found[0]}{address} names a protocol, as listeners in a broker's own configuration do"
                yield what, f"write {address}, and the protocol as kafka.security.protocol: {protocol}"
            else:
                yield f"{found[0]}{address} has a scheme, and brokers have none", "write host:9092"
        elif (fault := endpoint_fault(server, "kafka:9092")) is not None:
            yield fault


def target_faults(target: str) -> Iterator[Fault]:
    """What is wrong with the model server's address: ``host:port``, or a target with one of gRPC's own schemes."""
    grpc = _GRPC_SCHEME.fullmatch(target)
    if grpc is None:
        if (found := _SCHEME.match(target)) is not None:
            fix = f"write {_MODEL}: the gRPC port, by default 8500, not the REST API's 8501"
            yield f"{found[0]}… is a URL, and a gRPC address has no such scheme", fix
        elif "," in target:
            several = "for several write ipv4:10.0.0.1:8500,10.0.0.2:8500, or dns:///NAME:8500 for all of a name's"
            yield f"{target!r} is a list, and one address is meant", f"name one; {several}"
        elif (fault := endpoint_fault(target, _MODEL)) is not None:
            yield fault
        return
    scheme, rest = grpc.groups()
    if scheme == "dns":
        if rest.startswith("//"):
            authority, slash, rest = rest[2:].partition("/")
            if not slash:
                what = f"{target!r} names {authority} as the DNS server to ask, and no host"
                yield what, f"write three slashes: dns:///{authority or _MODEL}"
                return
        if (fault := endpoint_fault(rest, f"dns:///{_MODEL}")) is not None:
            yield fault
    elif scheme in ("ipv4", "ipv6"):
        example = "ipv4:10.0.0.1:8500,10.0.0.2:8500" if scheme == "ipv4" else "ipv6:[::1]:8500"
        for address in rest.removeprefix("//").removeprefix("/").split(","):
            if (fault := endpoint_fault(address, example)) is not None:
                yield fault
            elif _version(address.rpartition(":")[0]) != scheme:
                yield f"{address!r} is no {scheme} address", f"write {example}, or dns:///{_MODEL} for a name"
    elif not rest.strip("/"):
        yield f"{target!r} has nothing behind its scheme", f"write {scheme}:NAME, or {_MODEL}"


def registry_faults(urls: str) -> Iterator[Fault]:
    """What is wrong with the registry's URL, or with one of several that have commas between them."""
    for url in map(str.strip, urls.split(",")):
        if not url.startswith(("http://", "https://", "mock://")):
            yield "is not an http or https address", "write it as http://host:8081"
            continue
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:  # a port that is no number or above 65535, brackets that do not match
            yield f"{_plain(url)} has no host and port that could be", "write it as http://host:8081, port 1 to 65535"
            continue
        if parts.scheme != "mock" and (not _is_host(host) or port == 0):
            what = "no host" if not host else "port 0" if port == 0 else f"the host {host!r}, which no host is called"
            yield f"{_plain(url)} has {what}", "write it as http://host:8081"


def collector_fault(url: str) -> Fault | None:
    """What is wrong with the URL of an OpenTelemetry collector that takes OTLP over gRPC; None when it can be one."""
    found = _SCHEME.match(url)
    if found is None or found[1].lower() not in ("http", "https"):
        return "is not an http or https address", f"write it as {_COLLECTOR}"
    address = url[found.end() :].removesuffix("/")
    if "@" in address:
        return "holds credentials", "remove them; the variable OTEL_EXPORTER_OTLP_HEADERS takes a token"
    if "/" in address or "?" in address:
        return f"{url!r} has a path, and OTLP over gRPC has none", f"write it as {_COLLECTOR}"
    return endpoint_fault(address, _COLLECTOR)


def endpoint_fault(text: str, example: str, *, least_port: int = 1) -> Fault | None:
    """What is wrong with one ``host:port`` or ``[v6]:port``; None when it can be one. ``example``: for the way out."""
    found = ADDRESS.fullmatch(text)
    if found is not None and text.isascii():
        port = int(found["port"])
        if not least_port <= port <= 65_535:
            return f"{text!r} has port {port}", f"write a port from {least_port} to 65535: {example}"
        if _is_host(found["v6"] or found["host"]):
            return None
    return f"{_plain(text)} {_lacking(text)}", f"write it as {example}"


def _lacking(text: str) -> str:
    """What keeps ``text`` from being ``host:port``."""
    host, colon, port = text.rpartition(":")
    strange = next((character for character in text if not character.isascii()), None)
    if "@" in text:
        return "has a user name in front of its host"
    if strange is not None:
        return f"has {strange!r} in it, which is not ASCII"
    if any(character in text for character in " ,;|"):
        return "is more than one address, or has white space in it"
    if "/" in text:
        return "has a path or a scheme"
    if not text.startswith("[") and "ipv6" in (_version(text), _version(host)):
        return "is an IPv6 address without the brackets of [::1]:8080, so nobody knows where its port begins"
    if not colon or text.endswith("]"):
        return "has no port"
    if not host:
        return "has no host"
    if not port.isdecimal():
        return f"has the port {port!r}, which is no number" if port else "has no port behind its colon"
    return f"has port {port}" if len(port) > 5 else f"has the host {host!r}, which no host is called"


def _is_host(host: str) -> bool:
    if _version(host) is not None:
        return True
    numbers = re.fullmatch(r"[0-9]+(\.[0-9]+){3}", host) is not None  # four numbers, and no IPv4 address
    return not numbers and _HOST.fullmatch(host) is not None


def _version(address: str) -> str | None:
    """``ipv4`` or ``ipv6`` for an address of this kind, in brackets or not; None for anything else."""
    try:
        return f"ipv{ip_address(address.removeprefix('[').removesuffix(']')).version}"
    except ValueError:
        return None


def _plain(text: str) -> str:
    """``text`` in quotation marks, without what may be a password."""
    kept = text.rpartition("@")[2] if "@" in text and "://" not in text else str(shown((), text))
    return repr(kept)
