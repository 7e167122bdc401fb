"""``rexstream run``."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress

import click

from consumer.cli.options import ConfigFailure, config_options, loaded
from consumer.exit_codes import EXIT_FAILED, EXIT_FENCED

_ARENA_MAX = -8
"""M_ARENA_MAX of glibc's malloc.h."""


@click.command(name="run", short_help="Run a worker.")
@config_options
def command(config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Run one worker: consume reviews, extract, publish results and dead letters.

    SIGTERM drains: no new records, what is in flight is finished and committed within delivery.grace_seconds, exit
    code 0; 1 when something was left, which the successor reads again; 4 when Kafka has fenced this worker, or its
    client failed for good, and 5 when files of Kafka's credentials have changed: start it again. Logs are JSON
    lines on standard error.

    \b
    Examples:
      rexstream run --config worker.yaml
      REXSTREAM_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 rexstream run --set model.target=serving:8500
    """  # noqa: D301 - click wants the backspace character itself
    share_arenas()
    configuration = loaded(config_file, overrides)
    # Before gRPC is imported: its core chooses its verbosity then.
    from consumer.telemetry.logs import configure_logging
    from consumer.worker.health import worker_name

    name = worker_name()
    configure_logging(configuration.config.observability.log_level, name)

    import structlog

    from consumer.config.loading import load_config
    from consumer.worker.lifecycle import Worker
    from consumer.worker.start_checks import StartChecks

    log = structlog.stdlib.get_logger("consumer.cli.run")
    for warning in configuration.warnings:
        log.warning("configuration", problem=str(warning))
    # Kafka's clients are made when the model is there: what they would refuse is reported before that wait.
    checks = StartChecks(configuration.config)
    if checks.refused():
        raise ConfigFailure("\n".join(map(str, checks.refused())))
    named = dict.fromkeys(name for route in configuration.config.routes for name in route.tasks)
    log.info("tasks", fingerprints={name: configuration.tasks[name].fingerprint for name in named})
    watch = None
    if configuration.config.model.canary is not None and config_file is not None:
        # Not at the top: without a canary nothing of the file can change in a running worker.
        from consumer.worker.config_watch import ConfigWatch

        file = config_file
        watch = ConfigWatch(configuration.config, lambda: load_config(file, os.environ, overrides), file)
    worker = Worker(configuration.config, configuration.tasks, name, checks.bundles, watch)
    try:
        code = asyncio.run(worker.run())
    except OSError as error:
        raise ConfigFailure(f"observability.http {configuration.config.observability.http}: {error.strerror}") from None
    if code in (EXIT_FAILED, EXIT_FENCED):
        # A client that hangs in C would hold the interpreter's own way out, and its logs are what explains it.
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


def share_arenas() -> None:
    """Have all threads that start from now on allocate from two of glibc's arenas. Without glibc nothing is done.

    It would make one for each, up to eight for each CPU, and what one holds in reserve serves no other.
    ``MALLOC_ARENA_MAX`` or glibc's tunable of that name, where it is set, counts instead.
    """
    if "MALLOC_ARENA_MAX" not in os.environ and "glibc.malloc.arena_max" not in os.environ.get("GLIBC_TUNABLES", ""):
        with suppress(ImportError, AttributeError, OSError):
            import ctypes  # which a Python that was built without libffi does not have

            ctypes.CDLL(None).mallopt(_ARENA_MAX, 2)
