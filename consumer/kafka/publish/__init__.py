"""The release thread and all that it owns: the ledger, the producer, and the two ways to publish."""
