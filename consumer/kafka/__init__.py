"""The only way to Kafka. ``runtime`` ties the threads together; ``consume`` reads, ``publish`` writes."""
