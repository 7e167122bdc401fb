"""How a worker reacts to a failing model server: circuit breaker, backoff, limits, evidence. Pure, clocks injected."""
