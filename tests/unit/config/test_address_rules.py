"""Addresses that cannot be: refused at start with the key and the way out, from whatever source they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.config.address_rules import bootstrap_faults, registry_faults, target_faults
from consumer.config.loading import load, load_config
from consumer.config.problems import ConfigError
from consumer.config.task_files import load_tasks

if TYPE_CHECKING:
    from collections.abc import Iterable

TASKS = load_tasks()
SERVERS = {
    "kafka": "has no port",
    "kafka:": "no port behind its colon",
    ":9092": "has no host",
    "kafka:0": "port 0",
    "kafka:99999": "port 99999",
    "kafka:999999": "port 999999",
    "kafka:-1": "'-1', which is no number",
    "kafka:http": "'http', which is no number",
    "kafka:9092,": "comma without a broker",
    ",kafka:9092": "comma without a broker",
    "a:9092,,b:9092": "comma without a broker",
    "a:9092,b": "'b' has no port",
    "a:9092;b:9092": "more than one address",
    "a:9092 b:9092": "more than one address",
    "kafka: 9092": "white space",
    "kafka://kafka:9092": "kafka://kafka:9092 has a scheme",
    "PLAINTEXT://kafka:9092": "PLAINTEXT://kafka:9092 names a protocol",
    "SASL_SSL://kafka:9093": "names a protocol",
    "http://kafka:9092": "has a scheme",
    "kafka:9092/topic": "has a path",
    "::1:9092": "without the brackets",
    "fe80::1": "without the brackets",
    "[::1]": "has no port",
    "[::g]:9092": "no host is called",
    "300.1.1.1:9092": "no host is called",
    "-kafka:9092": "no host is called",
    "a..b:9092": "no host is called",
    "<broker>:9092": "no host is called",
    "kafka：9092": "'：' in it, which is not ASCII",
    "卡夫卡:9092": "not ASCII",
    "kafka:９０９２": "not ASCII",
    "user:hunter2@kafka:9092": "user name",
    '["a:9092","b:9092"]': "is a list in YAML or JSON",
    "[a:9092, b:9092]": "is a list in YAML or JSON",
}
"""A value of kafka.bootstrap_servers -> words of what is wrong with it."""

TARGETS = {
    "host": "has no port",
    "host:0": "port 0",
    "host:99999": "port 99999",
    "host:-1": "no number",
    "http://host:8501": "http://… is a URL",
    "https://host:8500/v1/models/x": "is a URL",
    "grpc://host:8500": "is a URL",
    "a:8500,b:8500": "is a list",
    "a:8500, b:8500": "is a list",
    "host:8500/": "has a path",
    "::1:8500": "without the brackets",
    "dns:///host": "has no port",
    "dns://host:8500": "names host:8500 as the DNS server",
    "dns:///a:8500,b:8500": "more than one address",
    "ipv4:host:8500": "is no ipv4 address",
    "ipv4:10.0.0.1:8500,10.0.0.2": "has no port",
    "ipv4:[::1]:8500": "is no ipv4 address",
    "ipv6:10.0.0.1:8500": "is no ipv6 address",
    "unix:": "nothing behind its scheme",
    "xds:///": "nothing behind its scheme",
}

URLS = {
    "registry:8081": "not an http or https address",
    "ftp://registry:8081": "not an http or https address",
    "http://": "has no host",
    "http://:8081": "has no host",
    "http://registry:0": "port 0",
    "http://registry:99999": "no host and port",
    "http://registry:-1": "no host and port",
    "http://registry:http": "no host and port",
    "http://[::1:8081": "no host and port",
    "http://re gistry:8081": "no host is called",
    "http://a:8081,b:8081": "not an http or https address",
    "http://a:8081,": "not an http or https address",
    "http://u:hunter2@a..b:8081": "no host is called",
}

COLLECTORS = {
    "collector:4317": "not an http or https address",
    "grpc://collector:4317": "not an http or https address",
    "http://collector": "has no port",
    "http://collector:0": "port 0",
    "http://collector:4317/v1/traces": "has a path",
    "http://:4317": "has no host",
    "https://u:hunter2@collector:4317": "credentials",
    "http://a:4317,b:4317": "more than one address",
}


@pytest.fixture(autouse=True)
def _tasks_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.config.loading.load_tasks", lambda _: TASKS)


def _fine(faults: Iterable[object]) -> bool:
    return not list(faults)


@pytest.mark.parametrize(("key", "value", "words"), [
    *(("kafka.bootstrap_servers", value, words) for value, words in SERVERS.items()),
    *(("model.target", value, words) for value, words in TARGETS.items()),
    *(("kafka.registry.url", value, words) for value, words in URLS.items()),
    *(("observability.tracing.endpoint", value, words) for value, words in COLLECTORS.items()),
    *(("observability.http", value, "127.0.0.1:9464") for value in
      ("9464", ":9464", "a,b:1", "http://0.0.0.0:9464", "h:65536", "::1:9464", "h:x")),
    *(("model.tls.server_name", value, "the name alone") for value in ("https://host", "host:8500", "a b", "*.x/")),
])  # fmt: skip
def test_an_address_that_cannot_be_is_refused(key: str, value: str, words: str) -> None:
    """By a flag and by a variable alike: the key, where it was set, what is wrong and the way out, no password."""
    variable = "REXSTREAM_" + key.upper().replace(".", "__")
    for environ, overrides, origin in (({variable: value}, [], variable), ({}, [f"{key}={value}"], f"--set {key}")):
        with pytest.raises(ConfigError) as caught:
            load_config(None, environ, overrides)
        problems = caught.value.problems
        assert {(problem.key, problem.origin) for problem in problems} == {(key, origin)}
        assert words in str(problems[0])
        assert problems[0].fix
        assert "hunter2" not in str(caught.value)


def test_what_can_be_is_taken() -> None:
    """Several brokers with spaces behind their commas, addresses in brackets, and gRPC's own targets."""
    for servers in ("kafka:9092", "a:1, b:65535", "[::1]:9092,10.0.0.1:9092", "[fe80::1%eth0]:9092", "a_b.c-d.:9092"):
        assert _fine(bootstrap_faults(servers)), servers
    for target in (
        "host:8500",
        "12:30",
        "[::1]:8500",
        "dns:///host:8500",
        "dns:host:8500",
        "dns://10.0.0.53/host:8500",
        "ipv4:10.0.0.1:8500,10.0.0.2:8500",
        "ipv6:[::1]:8500,[::2]:8500",
        "unix:/run/serving.sock",
        "unix:///run/serving.sock",
        "xds:///serving",
    ):
        assert _fine(target_faults(target)), target
    for url in ("http://registry", "https://u:p@registry:443/path", "http://a:8081, http://[::1]:8081", "mock://x"):
        assert _fine(registry_faults(url)), url
    load_config(None, {}, ["observability.http=[::1]:0", "model.tls.server_name=model.shop"])


def test_a_list_where_one_text_is_meant_is_explained() -> None:
    """Brokers are one text with commas."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"REXSTREAM_KAFKA": '{"bootstrap_servers": ["a:9092", "b:9092"]}'})
    assert "is a list, but must be text; write one text" in str(caught.value)


def test_the_address_of_a_collector_and_the_share_that_is_recorded() -> None:
    """A share without a collector records nothing; the port of OTLP over HTTP is a warning."""
    key = "observability.tracing.endpoint"
    for url in ("http://collector:4317", "https://[::1]:4317/", "HTTP://collector.shop.svc:14317"):
        loaded = load(None, {}, [f"{key}={url}", "observability.tracing.sample_ratio=0.5"])
        assert (loaded.config.observability.tracing.endpoint, loaded.warnings) == (url, ())
    (warning,) = load(None, {}, [f"{key}=http://collector:4318"]).warnings
    assert (warning.key, "4317" in warning.fix) == (key, True)
    for setting in ("sample_ratio=0.5", "sample_ratio=1.5", "sample_ratio=-0.1", "sample_ratio=nan"):
        with pytest.raises(ConfigError) as caught:
            load_config(None, {}, [f"observability.tracing.{setting}"])
        assert [problem.key for problem in caught.value.problems] == ["observability.tracing.sample_ratio"]


def test_the_port_of_the_rest_api_is_a_warning() -> None:
    """It may have been given to gRPC, but by default it is not."""
    (warning,) = load(None, {}, ["model.target=tf-serving:8501"]).warnings
    assert (warning.key, "REST" in warning.what) == ("model.target", True)
    assert load(None, {}, ["model.target=unix:/run/a:8501"]).warnings == ()
