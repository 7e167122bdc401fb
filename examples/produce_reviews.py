"""Reviews into an input topic, from Python: nothing lost, nothing twice, in order per product.

    python examples/produce_reviews.py localhost:9092 reviews.raw < schemas/samples/reviews.jsonl

Each line is a review: JSON with at least ``text``. What matters to a subscriber of the results:

- ``event_id`` names the review in every result. A producer that sends a review again uses the same one; without it
  results are named after the record's topic, partition and offset, and a second sending is a second review.
- The key decides the partition, and results keep it: with the product as key, a product's reviews stay in order.
- ``tasks`` (optional) chooses among the worker's tasks; ``schema`` (optional) asks for something of its own.
"""

from __future__ import annotations

import json
import sys

from confluent_kafka import KafkaError, Message, Producer


def main() -> int:
    """Send standard input. Exit code 1 when a review was not acknowledged: run it again, ids stay the same."""
    bootstrap_servers, topic = sys.argv[1:3]
    # Idempotence: a retry inside the client neither doubles nor reorders. acks=all is part of it.
    producer = Producer({"bootstrap.servers": bootstrap_servers, "enable.idempotence": True, "linger.ms": 20})
    failed = 0

    def report(error: KafkaError | None, message: Message) -> None:
        nonlocal failed
        if error is not None:
            failed += 1
            print(f"not sent: {error.str()} (key {message.key()!r})", file=sys.stderr)

    sent = 0
    for number, line in enumerate(filter(str.strip, sys.stdin), 1):
        review = json.loads(line)
        event = {
            "event_id": str(review.get("review_id", f"review-{number}")),
            "text": review["text"],
            "source": "example",
            "attributes": {"category": str(review.get("category", ""))},
        }
        key = str(review.get("product_id", event["event_id"]))
        while True:
            try:
                producer.produce(topic, json.dumps(event, ensure_ascii=False).encode(), key=key, on_delivery=report)
                break
            except BufferError:  # the client's queue is full: let it send, then go on
                producer.poll(1.0)
        producer.poll(0)
        sent += 1
    left = producer.flush(60)
    print(f"{sent - failed - left} of {sent} reviews are acknowledged")
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
