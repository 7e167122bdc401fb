"""What every unit test shares."""

from uncached_loggers import loggers_are_not_cached

__all__ = ["loggers_are_not_cached"]
