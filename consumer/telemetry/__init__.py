"""Metrics, logs and the worker's HTTP endpoint."""
