from __future__ import annotations

import pytest

from consumer.telemetry.http_access import HostCheck, Rate


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3:9464",
        "[::1]",
        "[fd00::7]:9464",
        "[fe80::1%eth0]:80",
        "localhost",
        "LocalHost.:9464",
        "0.0.0.0:1",
        "127.0.0.1.",
    ],
)
def test_addresses_and_localhost_name_the_worker(host: str) -> None:
    """What kubelet and Prometheus send."""
    assert HostCheck(())(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":80",
        "a",
        "127.1.shop.example",
        "[::1",
        "::1",
        "[shop.example]",
        "127.0.0.1:80:80",
        "1.2.3.4@a",
        "a b",
    ],
)
def test_everything_else_does_not(host: str) -> None:
    """Above all nothing that only looks like an address."""
    assert not HostCheck(())(host)


def test_a_rate_has_room_again_as_time_passes() -> None:
    """Two in ten seconds."""
    now = [0.0]
    rate = Rate(2, 10, lambda: now[0])
    assert [rate.wait(), rate.wait(), rate.wait()] == [0, 0, 10]
    now[0] = 9
    assert rate.wait() == 1
    now[0] = 10
    assert [rate.wait(), rate.wait(), rate.wait()] == [0, 0, 10]
