"""The Schema Registry: its client, the schemas fetched from it, and waiting for it without blocking the event loop."""
