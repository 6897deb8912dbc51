"""Structured logging for every process: key=value for people on a terminal, JSON lines otherwise."""

from __future__ import annotations

import logging
import sys

import structlog

__all__ = ["configure", "get", "quiet_clients"]

_CLIENTS = "aiokafka"


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
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("sightline").setLevel(level)
    logging.getLogger(_CLIENTS).setLevel(logging.NOTSET)
    structlog.contextvars.bind_contextvars(service=service)


def quiet_clients() -> None:
    """For commands: silence what Kafka's clients say beside the errors that they raise, and leave standard output to
    what was asked for."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    logging.getLogger(_CLIENTS).setLevel(logging.CRITICAL)


def get(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of one module, under ``sightline``."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(f"sightline.{name}")
    return logger
