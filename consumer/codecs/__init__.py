"""Bytes to events and results to bytes. Pure: nothing here waits, reads a clock or draws a random number."""
