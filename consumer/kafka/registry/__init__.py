"""The Schema Registry: asking it, resolving schemas, and waiting for it without blocking the event loop."""
