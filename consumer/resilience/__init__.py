"""How a worker answers a failing model server: breaker, backoff, limits, evidence. Pure; clocks are the caller's."""
