"""``python -m consumer`` is ``rexstream``."""

from consumer.cli import main

main()
