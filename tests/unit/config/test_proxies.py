"""Which proxy of the environment is used for an address, and what is shown of it."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import pytest
from confluent_kafka.schema_registry.common._httpx_compat import httpx

from consumer.config.proxies import named_proxies, shown_proxy, unused_proxy, used_proxy

URL = "http://registry.shop.svc:8081"


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://p:1"}, "$HTTP_PROXY (p:1)"),
        ({"http_proxy": "p:1"}, "$http_proxy (p:1)"),
        ({"Http_Proxy": "http://p:1"}, "$Http_Proxy (p:1)"),
        ({"HTTP_PROXY": "http://q:2", "http_proxy": "http://p:1"}, "$http_proxy (p:1)"),
        ({"HTTP_PROXY": "http://q:2", "http_proxy": ""}, None),
        ({"HTTPS_PROXY": "http://p:1"}, None),
        ({"ALL_PROXY": "http://p:1", "HTTPS_PROXY": "http://q:2"}, "$ALL_PROXY (p:1)"),
        ({"all_proxy": "http://p:1/"}, "$all_proxy (p:1)"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost, registry.shop.svc"}, None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "shop.svc"}, None),
        ({"HTTP_PROXY": "http://p:1", "no_proxy": ".svc"}, None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "registry.shop.svc:8081"}, None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "registry.shop.svc:8082"}, "$HTTP_PROXY (p:1)"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": ".registry.shop.svc"}, "$HTTP_PROXY (p:1)"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*.shop.svc"}, None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "hop.svc, 10.0.0.0/8, ::1"}, "$HTTP_PROXY (p:1)"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "Registry.Shop.SVC"}, None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "registry"}, "$HTTP_PROXY (p:1)"),
        ({"HTTP_PROXY": "http://p:1", "no_proxy": "", "NO_PROXY": "*"}, "$HTTP_PROXY (p:1)"),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None),
        ({"NO_PROXY": "registry.shop.svc"}, None),
    ],
)
def test_it_is_the_one_that_the_client_takes(environ: dict[str, str], name: str | None) -> None:
    """Asked of that client, too, by what it makes of the same environment."""
    said = used_proxy(URL, environ)
    assert (said is None) == (name is None)
    if said is not None and name is not None:
        assert name in said
        assert "add registry.shop.svc to NO_PROXY" in said
    with mock.patch.dict(os.environ, environ, clear=True), httpx.Client() as client:
        transport: Any = client._transport_for_url(httpx.URL(URL))
        assert (transport is client._transport) == (name is None)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://user:hunter2@proxy.corp:3128", "proxy.corp:3128"),
        ("user:hunter2@proxy.corp:3128/", "proxy.corp:3128"),
        ("http://user:p/w@x@proxy.corp:3128", "proxy.corp:3128"),
        ("http://[::1]:3128", "[::1]:3128"),
        ("http://user:hunter2 proxy.corp", "(hidden)"),
        ("hunter2!", "(hidden)"),
    ],
)
def test_nothing_but_its_host_and_port_is_shown(value: str, shown: str) -> None:
    assert shown_proxy(value) == shown
    said = f"the proxy of $HTTP_PROXY ({shown}); to ask it directly, add registry.shop.svc to NO_PROXY"
    assert used_proxy(URL, {"HTTP_PROXY": value}) == f"it was asked through {said}"
    environ = {"ALL_PROXY": value, "HTTPS_PROXY": "http://q:2"}
    assert named_proxies(environ) == f"$HTTPS_PROXY (q:2), $ALL_PROXY ({shown})"


def test_what_is_no_address_has_none() -> None:
    for url in ("", "registry", "http://", "http://[::1"):
        assert used_proxy(url, {"HTTP_PROXY": "http://p:1"}) is None


def test_the_model_server_is_asked_directly() -> None:
    assert unused_proxy({"NO_PROXY": "x"}) is None
    said = "the proxy of $HTTPS_PROXY (p:1) is not used for the model server"
    assert unused_proxy({"HTTPS_PROXY": "http://u:w@p:1"}) == said
