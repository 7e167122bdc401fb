"""Embedded defaults for one machine: a broker, a model server, and the demo that runs on them."""
