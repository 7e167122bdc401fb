"""What may be published and committed, and what a dead letter says. Pure; clocks are the caller's."""
