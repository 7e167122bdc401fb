"""Which outcomes may be published and which offsets committed, and dead letters. Pure; clocks are the caller's."""
