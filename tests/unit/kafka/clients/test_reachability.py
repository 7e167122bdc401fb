"""What a client's errors and statistics say about the addresses that brokers advertise."""

from __future__ import annotations

import pytest

from consumer.kafka.clients.reachability import BrokerTroubles, advertised_trouble, reason_of
from consumer.kafka.clients.settings import way_out

BOOTSTRAP = "Kafka-1:9092, kafka-2:9092"
REFUSED = "Connect to ipv4#10.9.9.9:9092 failed: Connection refused (after 0ms in state CONNECT)"


def statistics(address: str, state: str, *, source: str = "learned") -> str:
    """Cut from what librdkafka 2.16 gives."""
    return (
        f'{{ "name": "rdkafka#consumer-2", "brokers":{{ "{address}/3": {{ "name":"{address}/3", "nodeid":3, '
        f'"nodename":"{address}", "source":"{source}", "state":"{state}", "stateage":1998948, "outbuf_cnt":0, '
        f'"wakeups":1, "connects":0, "int_latency": {{ "min":0 }} }} }} }}'
    )


@pytest.mark.parametrize(
    "name",
    [
        "10.9.9.9:9092/1",
        "sasl_ssl://10.9.9.9:9092/1",
        "GroupCoordinator: 10.9.9.9:9092",
        "GroupCoordinator/1: 10.9.9.9:9092",
        "TxnCoordinator: ssl://10.9.9.9:9092",
    ],
)
def test_an_address_that_was_learned_and_is_not_reached_is_named(name: str) -> None:
    """With its reason, and what to set where; the names are those of librdkafka 2.16."""
    troubles = BrokerTroubles(BOOTSTRAP)
    troubles.error(f"{name}: {REFUSED}")
    assert f"10.9.9.9:9092 ({REFUSED})" in troubles.advertised()
    assert "set advertised.listeners" in troubles.advertised()
    assert reason_of(f"{name}: {REFUSED[:-1]}, 4 identical error(s) suppressed)") == REFUSED
    troubles.forget()
    assert troubles.advertised() == ""


def test_other_errors_say_nothing_of_what_is_advertised() -> None:
    """Those of configured brokers, whatever the case of their names, and of none at all."""
    troubles = BrokerTroubles(BOOTSTRAP)
    for text in (f"kafka-1:9092/bootstrap: {REFUSED}", f"KAFKA-2:9092/2: {REFUSED}", "1/1 brokers are down"):
        troubles.error(text)
    assert troubles.advertised() == ""
    assert reason_of("1/1 brokers are down") == "1/1 brokers are down"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("CONNECT", "no connection is made"),
        ("SSL_HANDSHAKE", "it does not answer the TLS handshake"),
        ("APIVERSION_QUERY", "it takes connections and does not answer"),
        ("AUTH_REQ", "it takes connections and does not answer"),
    ],
)
def test_a_silent_broker_is_known_by_its_state(state: str, words: str) -> None:
    """It gives no error for ten seconds."""
    troubles = BrokerTroubles(BOOTSTRAP)
    troubles.statistics(statistics("10.9.9.9:9092", state))
    assert f"10.9.9.9:9092 ({words})" in troubles.advertised()
    configured = BrokerTroubles(BOOTSTRAP)
    configured.statistics(statistics("kafka-1:9092", state, source="configured"))
    assert (configured.advertised(), configured.reason()) == ("", words)


def test_what_was_reached_once_is_no_wrong_address() -> None:
    """It is down, which is another matter."""
    troubles = BrokerTroubles(BOOTSTRAP)
    troubles.statistics(statistics("10.9.9.9:9092", "APIVERSION_QUERY"))
    assert troubles.advertised()
    troubles.statistics(statistics("10.9.9.9:9092", "UP"))
    assert troubles.advertised() == ""
    troubles.error(f"10.9.9.9:9092/1: {REFUSED}")
    troubles.error("1/1 brokers are down")
    troubles.statistics(statistics("10.9.9.9:9092", "TRY_CONNECT"))
    assert troubles.advertised() == ""


def test_connections_that_are_closed_give_no_error_of_their_own() -> None:
    """As a listener with TLS does when it is spoken to in plaintext: all are down, and nobody says why."""
    troubles = BrokerTroubles(BOOTSTRAP)
    troubles.statistics(statistics("kafka-1:9092", "INIT", source="configured"))
    assert troubles.reason() == ""
    troubles.error("1/1 brokers are down")
    assert troubles.reason() == "it closes connections before it answers"
    assert troubles.advertised() == ""
    troubles.statistics(statistics("10.9.9.9:9092", "INIT"))
    assert "10.9.9.9:9092 (it closes connections before it answers)" in troubles.advertised()
    assert "TLS or a login seems to be wanted there" in troubles.advertised()
    troubles.statistics(statistics("kafka-1:9092", "UP", source="configured"))
    assert troubles.advertised() == "", "a broker that nobody needed yet"


def test_why_no_configured_broker_is_reached() -> None:
    """Said only where nothing that is advertised explains it."""
    troubles = BrokerTroubles("kafka-1:9092")
    assert troubles.unreached() == ""
    troubles.error("1/1 brokers are down")
    assert "no Kafka broker answers at kafka-1:9092 (it closes connections" in troubles.unreached()
    troubles.error("kafka-1:9092/bootstrap: Failed to resolve 'kafka-1:9092'")
    assert "(Failed to resolve 'kafka-1:9092'); check kafka.bootstrap_servers" in troubles.unreached()
    troubles.error(f"10.9.9.9:9092/1: {REFUSED}")
    assert troubles.unreached() == troubles.advertised()


def test_many_addresses_are_counted() -> None:
    """Three are enough to see what they have in common."""
    text = advertised_trouble({f"k{number}:9092": "refused" for number in range(7)})
    assert "k0:9092 (refused); k1:9092 (refused); k2:9092 (refused) and 4 more" in text
    assert advertised_trouble({}) == ""


def test_a_connection_that_was_closed_is_not_one_that_is_not_made() -> None:
    """Statistics may catch the client while it tries again."""
    troubles = BrokerTroubles(BOOTSTRAP)
    for address, source in (("kafka-1:9092", "configured"), ("10.9.9.9:9092", "learned")):
        troubles.statistics(statistics(address, "DOWN", source=source))
        troubles.statistics(statistics(address, "CONNECT", source=source))
    assert troubles.reason() == "no connection is made"
    troubles.error("1/1 brokers are down")
    assert troubles.reason() == "it closes connections before it answers"
    assert "10.9.9.9:9092 (it closes connections before it answers)" in troubles.advertised()


@pytest.mark.parametrize("what", ["Send failed: Broken pipe", "Receive failed: Connection reset by peer"])
def test_a_connection_closed_under_the_first_request_has_the_same_way_out(what: str) -> None:
    """Which of the two ends was quicker is chance."""
    assert "a login seems to be wanted there" in (way_out(f"{what} (after 0ms in state UP)") or "")
