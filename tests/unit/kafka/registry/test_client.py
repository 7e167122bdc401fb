"""What a registry's answers, its silence, its certificates and ours mean."""

from __future__ import annotations

import base64
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from certificates import Authority
from registry_double import RegistryDouble

from consumer.config.tree import RegistryConfig
from consumer.kafka.registry.client import RegistryConnection, RegistryRefused, RegistryUnavailable, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from confluent_kafka.schema_registry import SchemaRegistryClient

PASSWORD = "pa:ss wörd%40"


@pytest.fixture
def registry() -> Iterator[RegistryDouble]:
    double = RegistryDouble()
    yield double
    double.stop()


def connection(url: str, **settings: Any) -> RegistryConnection:
    return RegistryConnection(RegistryConfig(url=url, **settings), connect)


def subjects(client: SchemaRegistryClient) -> list[str]:
    return client.get_subjects()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_registry_in_trouble_is_unavailable(registry: RegistryDouble, status: int) -> None:
    """An answer that says to come back is transient, and asked once: the worker does the waiting."""
    registry.answers["/subjects"] = (status, {"error_code": 50001, "message": "x"})
    with pytest.raises(RegistryUnavailable, match=str(status)):
        connection(registry.url).ask(subjects)
    assert len(registry.requests) == 1


def test_no_registry_is_unavailable(registry: RegistryDouble) -> None:
    """A refused connection is transient, and what the url holds besides the address is not told."""
    registry.stop()
    with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1") as caught:
        connection(registry.url.replace("127.0.0.1", "user:hunter2@127.0.0.1")).ask(subjects)
    assert "hunter2" not in str(caught.value)


def test_a_silent_registry_times_out() -> None:
    """One that takes connections and never answers is unavailable after the configured time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RegistryUnavailable, match="Timeout"):
            connection(url, timeout_seconds=0.05).ask(subjects)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "password_file"),
        (403, "password_file"),
        (404, "url"),
        (410, "url"),
        (302, "url"),
        (409, "compatibility"),
        (422, "mode"),
    ],
)
def test_a_refusal_is_a_deployment_fault(registry: RegistryDouble, status: int, words: str) -> None:
    """Wrong credentials are for the operator, and so is any other web server."""
    registry.answers["/subjects"] = (status, b"<html>no</html>")
    with pytest.raises(RegistryRefused, match=words) as caught:
        connection(registry.url).ask(subjects)
    assert "html" not in str(caught.value)


def test_an_answer_of_another_kind_is_unavailable(registry: RegistryDouble) -> None:
    """A page of a proxy says nothing about the event."""
    registry.answers["/subjects"] = (200, b"<html>welcome</html>")
    with pytest.raises(RegistryUnavailable):
        connection(registry.url).ask(subjects)


def test_what_the_registry_says_of_a_schema_is_passed_on(registry: RegistryDouble) -> None:
    """On one line, and not more than one can read."""
    registry.answers["/subjects"] = (422, {"error_code": 42205, "message": "read\n  only " + "x" * 5000})
    with pytest.raises(RegistryRefused, match=r"\(code 42205\).*: read only x") as caught:
        connection(registry.url).ask(subjects)
    assert len(str(caught.value)) < 600


def test_the_password_comes_from_its_file(registry: RegistryDouble, tmp_path: Path) -> None:
    """Whatever it is made of; the last line break of the file is no part of it."""
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n", encoding="utf-8")
    connection(registry.url, username="reader", password_file=str(path)).ask(subjects)
    assert registry.authorization == "Basic " + base64.b64encode(f"reader:{PASSWORD}".encode()).decode()


def test_a_new_password_is_read_after_a_refusal(registry: RegistryDouble, tmp_path: Path) -> None:
    """Mended while the worker waits, it is enough, and no refusal tells the password."""
    path = tmp_path / "password"
    path.write_text("old-secret", encoding="utf-8")
    asking = connection(registry.url, username="reader", password_file=str(path))
    registry.answers["/subjects"] = (401, {"error_code": 40101, "message": "no"})
    with pytest.raises(RegistryRefused) as caught:
        asking.ask(subjects)
    assert "old-secret" not in str(caught.value)
    path.unlink()
    with pytest.raises(RegistryRefused, match="cannot be read"):
        asking.ask(subjects)
    path.write_text("new-secret", encoding="utf-8")
    del registry.answers["/subjects"]
    asking.ask(subjects)
    assert registry.authorization == "Basic " + base64.b64encode(b"reader:new-secret").decode()


def test_a_renewed_connection_reads_its_files_again(registry: RegistryDouble, tmp_path: Path) -> None:
    """Without a refusal first, which some registries answer by locking the user out."""
    path = tmp_path / "password"
    path.write_text("old-secret", encoding="utf-8")
    asking = connection(registry.url, username="reader", password_file=str(path))
    asking.ask(subjects)
    path.write_text("new-secret", encoding="utf-8")
    asking.renew()
    asking.ask(subjects)
    assert registry.authorization == "Basic " + base64.b64encode(b"reader:new-secret").decode()


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_password_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    """At once, before anything is asked, and without its bytes."""
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RegistryRefused, match=r"kafka\.registry\.password_file .*password") as caught:
        connection("http://registry.invalid", username="reader", password_file=str(path))
    assert "xff" not in str(caught.value)


class Secured:
    """Registries that speak TLS, and the PEM files of those who talk to them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = Authority("Ours")
        self.ca_file = self.file("ca.pem", self.authority.pem)
        self.running: list[RegistryDouble] = []

    def file(self, name: str, content: bytes) -> str:
        path = self._folder / name
        path.write_bytes(content)
        return str(path)

    def registry(self, *, asks: bool = False, name: str = "127.0.0.1") -> RegistryDouble:
        """One with a certificate for ``name``; ``asks`` for a certificate of its clients."""
        certificate, key = self.authority.issue("registry", (name,))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file("server.pem", certificate), self.file("server.key", key))
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca_file)
        self.running.append(RegistryDouble(context))
        return self.running[-1]


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    made = Secured(tmp_path)
    yield made
    for double in made.running:
        double.stop()


def test_tls_with_an_authority_of_ones_own(secured: Secured) -> None:
    """The registry is trusted for its authority's certificate."""
    assert connection(secured.registry().url, ca_file=secured.ca_file).ask(subjects) == []


@pytest.mark.parametrize("ca", ["public", "stranger", "name"])
def test_a_certificate_that_is_not_trusted_is_a_deployment_fault(secured: Secured, ca: str) -> None:
    """Not of the public authorities, not of the given one, or for another name: never taken, and said."""
    double = secured.registry(name="elsewhere.invalid" if ca == "name" else "127.0.0.1")
    files = {"public": None, "stranger": secured.file("other.pem", Authority("Other").pem), "name": secured.ca_file}
    with pytest.raises(RegistryRefused, match=r"TLS .*(certificate|IP address).*ca_file"):
        connection(double.url, ca_file=files[ca]).ask(subjects)
    assert double.requests == []


def test_mutual_tls(secured: Secured) -> None:
    """With its certificate the worker is let in, and without it the refusal names the keys."""
    double = secured.registry(asks=True)
    certificate, key = secured.authority.issue("worker", ("worker",))
    files = {"certificate_file": secured.file("w.pem", certificate), "key_file": secured.file("w.key", key)}
    assert connection(double.url, ca_file=secured.ca_file, **files).ask(subjects) == []
    with pytest.raises(RegistryRefused, match=r"TLS .*certificate_file"):
        connection(double.url, ca_file=secured.ca_file).ask(subjects)


def test_a_renewed_certificate_is_read_after_a_refusal(secured: Secured) -> None:
    """As with passwords: files that are mended are enough."""
    ca_file = secured.file("given.pem", Authority("Yesterday").pem)
    asking = connection(secured.registry().url, ca_file=ca_file)
    with pytest.raises(RegistryRefused):
        asking.ask(subjects)
    secured.file("given.pem", secured.authority.pem)
    assert asking.ask(subjects) == []


def _missing(secured: Secured) -> dict[str, str]:
    return {"ca_file": secured.ca_file + ".gone"}


def _no_pem(secured: Secured) -> dict[str, str]:
    return {"ca_file": secured.file("ca.txt", b"nothing of the kind")}


def _encrypted(secured: Secured) -> dict[str, str]:
    certificate, key = secured.authority.issue("worker", password=b"hunter2")
    return {"certificate_file": secured.file("e.pem", certificate), "key_file": secured.file("e.key", key)}


def _another_key(secured: Secured) -> dict[str, str]:
    (certificate, _), (_, key) = secured.authority.issue("worker"), secured.authority.issue("other")
    return {"certificate_file": secured.file("a.pem", certificate), "key_file": secured.file("a.key", key)}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (_missing, r"ca_file .*cannot be read"),
        (_no_pem, r"ca_file .*PEM"),
        (_encrypted, r"key_file .*encrypted"),
        (_another_key, r"key_file .*is not the key of the certificate"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    secured: Secured, files: Callable[[Secured], dict[str, str]], words: str
) -> None:
    """At once, before anything is asked."""
    with pytest.raises(RegistryRefused, match=words):
        connection("https://registry.invalid", **files(secured))


@pytest.fixture
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize(("name", "status"), [("HTTP_PROXY", None), ("http_proxy", 503), ("ALL_PROXY", 403)])
def test_a_proxy_of_the_environment_is_named(
    registry: RegistryDouble, monkeypatch: pytest.MonkeyPatch, name: str, status: int | None
) -> None:
    """Whether it is not there, or answers in the registry's place; never with its password. NO_PROXY is the way out."""
    proxy = RegistryDouble()
    proxy.answers["http://registry.example:8081/subjects"] = (status or 0, b"<html>no route</html>")
    monkeypatch.setenv(name, proxy.url.replace("127.0.0.1", "user:hunter2@127.0.0.1"))
    if status is None:
        proxy.stop()
    with pytest.raises(RegistryRefused if status == 403 else RegistryUnavailable) as caught:
        connection("http://registry.example:8081").ask(subjects)
    said = (
        f"through the proxy of ${name} (127.0.0.1:{proxy.port}); to ask it directly, add registry.example to NO_PROXY"
    )
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert connection(registry.url).ask(subjects) == []
    registry.answers["/subjects"] = (503, b"")
    with pytest.raises(RegistryUnavailable) as caught_directly:
        connection(registry.url).ask(subjects)
    assert "proxy" not in str(caught_directly.value)
    proxy.stop()


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize(
    "value", ["socks5://user:hunter2@p:1080", "http://u:hunter2/w@p:1", "foo://p", "http://p:port"]
)
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The HTTP client makes it even where the registry is exempt, and its own error would end the worker."""
    monkeypatch.setenv("ALL_PROXY", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(RegistryRefused, match=r"\$ALL_PROXY \(p[:0-9a-z]*\).* NO_PROXY to \*") as caught:
        connection("http://127.0.0.1:1")
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("NO_PROXY", "*")
    connection("http://127.0.0.1:1")
