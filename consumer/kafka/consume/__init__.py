"""Reading: the poll thread and all that it owns, which are the consumer, assignments, pauses and commits."""
