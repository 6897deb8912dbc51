"""What the commands share: where Kafka is, how errors are told, how a service runs to its end."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from deploy.local.exceptions import DeployError
from edge_agent.exceptions import AgentError
from engines.exceptions import EngineError
from ingest.exceptions import IngestError
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import eventloop
from stream.exceptions import StreamError

P = ParamSpec("P")
T = TypeVar("T")

USAGE_EXIT = 2
"""Nothing was done, because something was wrong with what was asked or Kafka could not be reached."""

Kafka = Annotated[
    str, typer.Option("--kafka", help="Kafka's address; $SIGHTLINE_KAFKA by default.", show_default=False)
]
Prefix = Annotated[
    str, typer.Option("--prefix", help="Before every topic; $SIGHTLINE_KAFKA_PREFIX by default.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

stdout = Console()
progress = Console(stderr=True)


def kafka_settings(kafka: str = "", prefix: str = "") -> KafkaSettings:
    """Return the environment's settings, with what the command line says instead. Raise ConfigError."""
    said = {key: value for key, value in (("SIGHTLINE_KAFKA", kafka), ("SIGHTLINE_KAFKA_PREFIX", prefix)) if value}
    return KafkaSettings.from_env({**os.environ, **said})


def friendly(command: Callable[P, T]) -> Callable[P, T]:
    """Turn our errors into one line on stderr and exit code 2. Others are bugs, and keep their traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except (IngestError, AgentError, EngineError, StreamError, DeployError) as error:
            sys.stderr.write(f"error: {error}\n")
            raise typer.Exit(USAGE_EXIT) from None

    return wrapped


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in an event loop of its own."""
    return eventloop.run(work)
