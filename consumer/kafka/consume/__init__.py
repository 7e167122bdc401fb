"""The poll thread and all that it owns: the consumer, assignments, pauses and commits."""
