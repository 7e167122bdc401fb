"""Rexstream: a Kafka consumer that turns shop reviews into structured facts with RexUniNLU."""

__version__ = "0.1.0"
