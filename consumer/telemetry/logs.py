"""Logs: one JSON object a line on stderr, from every logger of the process.

structlog and the standard library's loggers (librdkafka's, grpc's, third parties') end in the same chain, and so do
warnings and exceptions that nobody caught, in the main thread, in others and in destructors. First come the fields
``timestamp, level, event, logger, worker``, then ``topic, partition, offset, event_id, task`` and what else is known.
Lines are ASCII (other characters as JSON escapes), so no terminal's encoding and no U+2028 can break them.

gRPC's C core writes to file descriptor 2 past Python. Its errors also arrive as the status of a call, so it is
silenced unless ``GRPC_VERBOSITY`` is set (``ERROR``, ``INFO``, ``DEBUG``; those lines are not JSON).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TextIO

if "rich" in sys.modules:
    import structlog
else:
    # What structlog has for consoles imports rich where that is installed, as tokenizers has it: 4 to 6 MB and 0.05 s
    # for what no line of JSON needs.
    sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails, which structlog is prepared for
    try:
        import structlog
    finally:
        del sys.modules["rich"]

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from structlog.typing import EventDict, Processor, WrappedLogger

LogLevel = Literal["debug", "info", "warning", "error"]

_CHATTY = ("httpx", "httpx2", "httpcore", "httpcore2", "urllib3")
"""Libraries that log every request at info, with its address: credentials in a registry's URL would show."""

_FIRST = ("timestamp", "level", "event", "logger", "worker")


logged_fields: ContextVar[Callable[[], dict[str, object]]] = ContextVar("logged_fields", default=dict)
"""Returns what every log line of this context says; called when there is one, which for nearly every event is never."""


def merge_logged_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A processor of structlog: the line has ``logged_fields``, too."""
    return {**logged_fields.get()(), **event}


def configure_logging(level: LogLevel, worker: str, stream: TextIO | None = None) -> None:
    """Send every log of this process through one chain to ``stream`` (default stderr); a later call starts anew.

    Call it before gRPC is imported, or its C core has already chosen its verbosity. ``worker`` is the name that every
    line carries. Raises ValueError for a level that is not debug, info, warning or error.
    """
    threshold = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
    if level not in threshold:
        raise ValueError(f"log level {level!r} is not one of {', '.join(threshold)}")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        merge_logged_fields,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )

    handler = _LineHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,  # a plain traceback: it shows code and messages, never locals
                lambda _, __, event: {**event, "worker": worker},
                _render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold[level])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, threshold[level]))
    logging.captureWarnings(True)
    _log_uncaught()


class _LineHandler(logging.StreamHandler[TextIO]):
    """Writes a line of JSON even about a log call that cannot be formatted, and never raises into the caller."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        kind, _, _ = sys.exc_info()
        line = {
            "level": "error",
            "event": "a log call failed",
            "logger": record.name,
            "exception": kind.__name__ if kind else None,
            "at": f"{record.filename}:{record.lineno}",
        }
        try:
            self.stream.write(json.dumps(line) + self.terminator)
            self.flush()
        except (OSError, ValueError):
            return  # stderr is closed


def _render(_: WrappedLogger, __: str, event: EventDict) -> str:
    ordered: dict[str, Any] = {key: event.pop(key) for key in _FIRST if key in event} | dict(event)
    if isinstance(ordered.get("event"), str):
        ordered["event"] = ordered["event"].rstrip("\n")
    try:
        return json.dumps(ordered, default=repr, allow_nan=False)
    except (TypeError, ValueError):
        # NaN, a value that holds itself, or a key that is no string: none of them may cost the line.
        return json.dumps(
            {str(key): value if isinstance(value, str) else repr(value) for key, value in ordered.items()}
        )


def _log_uncaught() -> None:
    log = structlog.stdlib.get_logger("consumer.uncaught")

    def in_main(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        log.critical("uncaught exception", exc_info=(kind, error, trace))

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is None or issubclass(args.exc_type, SystemExit):
            return
        log.critical(
            "uncaught exception in a thread",
            thread=args.thread.name if args.thread is not None else None,
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        error = args.exc_value
        log.error(
            "exception that nobody can catch",
            where=getattr(args.object, "__qualname__", None),
            exc_info=(args.exc_type, error, args.exc_traceback) if error is not None else None,
        )

    sys.excepthook = in_main
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable
