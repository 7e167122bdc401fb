"""Everything that talks to Kafka. ``runtime`` starts a worker's threads; ``consume`` reads, ``publish`` writes."""
