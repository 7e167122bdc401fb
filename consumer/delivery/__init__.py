"""Which outcomes may be published and which offsets committed, and dead letters. No IO; clocks are the caller's."""
