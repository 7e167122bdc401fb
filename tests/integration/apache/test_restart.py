"""What outlives a broker that crashes and comes back."""

from __future__ import annotations

from typing import Any

from consumer.kafka.tools.reader import read_to_end
from consumer.kafka.tools.sender import NewRecord, Sender


def test_acknowledged_records_survive_a_crash_and_a_waiting_sender_goes_on(private_kafka: Any) -> None:
    """A killed broker has all that it acknowledged; what is sent while it is away arrives once, afterwards."""
    sender = Sender(private_kafka.bootstrap_servers, "reviews", timeout=60)
    sender.send(NewRecord(str(number), None, b"%d" % number) for number in range(50))
    assert sender.finish().acknowledged == 50
    private_kafka.kill()
    sender.send(NewRecord(str(number), None, b"%d" % number) for number in range(50, 100))
    private_kafka.start()
    assert sender.finish().acknowledged == 100
    values = [int(message.value() or b"-1") for message in read_to_end(private_kafka.bootstrap_servers, "reviews")]
    assert sorted(values) == list(range(100))
