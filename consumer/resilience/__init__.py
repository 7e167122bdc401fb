"""How a worker answers a failing model server: circuit breaker, backoff, limits, evidence. Pure, clocks injected."""
