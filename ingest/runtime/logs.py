"""Structured logging for all processes: key=value lines on a terminal, JSON lines in a file or pipe."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from ingest.runtime.imports import without

with without("rich"):  # structlog would use rich to show tracebacks, which ``configure`` formats before that
    import structlog

_CLIENTS = "aiokafka"
_OURS = "sightline"
REPEAT_INTERVAL_S = 60.0
"""Minimum time between two log lines with the same message from a library, in seconds. While Kafka is unreachable,
the Kafka client logs about twenty lines a second, which would wear out an SD card and hide important lines.
"""
_MAX_KINDS = 256
"""Maximum number of distinct library messages to remember. A library logs more distinct messages only if it puts
changing values into its message templates."""


class RepeatFilter(logging.Filter):
    """Log filter that passes each distinct message of a library once per ``REPEAT_INTERVAL_S``, and appends how often
    the message was suppressed since its last log line.

    Log records of Sightline itself always pass the filter.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a log record."""
        if record.name.split(".")[0] == _OURS:
            return True
        now_s, kind = self._now_s(), (record.name, str(record.msg))
        written_s, repeats = self._seen.get(kind, (now_s - REPEAT_INTERVAL_S, 0))
        if now_s - written_s < REPEAT_INTERVAL_S:
            self._seen[kind] = written_s, repeats + 1
            return False
        if len(self._seen) >= _MAX_KINDS:
            self._seen.clear()
        self._seen[kind] = now_s, 0
        if repeats:
            record.msg = f"{record.msg} (repeated {repeats} times since)"
        return True


def configure(service: str, level: str = "INFO") -> None:
    """Set up logging. Call this function once, at the start of a process. Log records of libraries are written from
    level WARNING on."""
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RepeatFilter())
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(level)
    logging.getLogger(_CLIENTS).propagate = True
    structlog.contextvars.bind_contextvars(service=service)


def quiet_clients() -> None:
    """Silence the loggers of the Kafka clients, and write Sightline's own log to stderr.

    Command-line tools call this function, because these tools write results to stdout and report errors by
    exceptions. A handler that is attached to the logger of the Kafka clients still receives the log records of the
    clients.
    """
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    clients = logging.getLogger(_CLIENTS)
    clients.propagate = False
    if not clients.handlers:
        clients.addHandler(logging.NullHandler())  # without a handler, Python itself writes warnings to stderr


def get(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger ``sightline.NAME`` of one module."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(f"{_OURS}.{name}")
    return logger
