"""Structured logging for every process: key=value for people on a terminal, JSON lines otherwise."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

import structlog

_CLIENTS = "aiokafka"
_OURS = "sightline"
REPEAT_INTERVAL_S = 60.0
"""A library may say the same thing so often. Kafka's client says some twenty lines a second that it cannot connect,
which would wear a card and bury what matters."""
_KINDS = 256
"""Of things said: more than any library has, unless it writes numbers into them."""


class RepeatFilter(logging.Filter):
    """Lets each thing that a library says through once in ``REPEAT_INTERVAL_S``, with how often it was said in between."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be written. What this project says itself always is."""
        if record.name.split(".")[0] == _OURS:
            return True
        now_s, kind = self._now_s(), (record.name, str(record.msg))
        from_s, left_out = self._said.get(kind, (now_s - REPEAT_INTERVAL_S, 0))
        if now_s - from_s < REPEAT_INTERVAL_S:
            self._said[kind] = from_s, left_out + 1
            return False
        if len(self._said) >= _KINDS:
            self._said.clear()
        self._said[kind] = now_s, 0
        if left_out:
            record.msg = f"{record.msg} (said {left_out} times more since)"
        return True


def configure(service: str, level: str = "INFO") -> None:
    """Set logging up once, at the start of a process. Libraries' own records go the same way, from WARNING on."""
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
    """For commands: write nothing of what Kafka's clients say beside the errors that they raise, and leave standard
    output to what was asked for. Whoever listens to the clients still hears them."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    clients = logging.getLogger(_CLIENTS)
    clients.propagate = False
    if not clients.handlers:
        clients.addHandler(logging.NullHandler())  # with none at all, Python writes what it deems urgent itself


def get(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of one module, under ``sightline``."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(f"{_OURS}.{name}")
    return logger
