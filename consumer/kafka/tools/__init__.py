"""Kafka for the command line: reading, sending and replaying records. A worker imports none of it."""
