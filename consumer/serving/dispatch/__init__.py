"""Batches windows into model calls, and isolates the cause when calls fail: bad input, poison or an outage."""
