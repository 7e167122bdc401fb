"""Writing: the release thread and all that it owns, which are the ledger, the producer and one of two publishers."""
