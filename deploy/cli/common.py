"""Options, output and error handling that all commands share."""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer

from deploy.local.exceptions import DeployError
from edge_agent.exceptions import AgentError
from engines.exceptions import EngineError
from ingest.exceptions import ConfigError, IngestError
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.eventloop import run
from ingest.site.topic.signature import PUBLIC_KEY_FILE, SIGN_KEY_FILE, ConfigSigner
from stream.exceptions import StreamError

P = ParamSpec("P")
T = TypeVar("T")

LOOPBACK = "127.0.0.1"
USAGE_EXIT = 2
"""Exit code of a command that failed before it did anything: an argument is wrong, or Kafka cannot be reached."""

_ENVIRONMENT = {
    errno.EACCES: "a place that this user may write to",
    errno.EPERM: "a place that this user may write to",
    errno.EROFS: "a writable disk",
    errno.ENOSPC: "a disk with free space",
    errno.EDQUOT: "free space within this user's quota",
    errno.ENOENT: "an existing folder",
    errno.ENOTDIR: "a folder",
    errno.EISDIR: "a file",
    errno.EEXIST: "a folder",
    errno.EADDRINUSE: "a free port",
}
"""Expected value in the error message, by ``errno`` of an operating system error that is not a bug."""

Kafka = Annotated[
    str, typer.Option("--kafka", help="Kafka's address. Default: $SIGHTLINE_KAFKA.", show_default=False)
]
Prefix = Annotated[
    str,
    typer.Option("--prefix", help="Prefix of every topic. Default: $SIGHTLINE_KAFKA_PREFIX.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MetricsPort = Annotated[
    int, typer.Option("--metrics-port", min=0, max=65535, help="Port for Prometheus metrics. 0: serve none.")
]
MetricsHost = Annotated[
    str,
    typer.Option("--metrics-host", help="Address that serves the metrics. 0.0.0.0: all networks of this machine."),
]
SignKey = Annotated[
    Path | None,
    typer.Option("--sign-key", envvar=SIGN_KEY_FILE, help="Private key of `config keygen` that signs the entries."),
]


def kafka_settings(kafka: str = "", prefix: str = "") -> KafkaSettings:
    """Return Kafka's settings from environment variables; command line options override the variables.

    Raise ConfigError.
    """
    given = {key: value for key, value in (("SIGHTLINE_KAFKA", kafka), ("SIGHTLINE_KAFKA_PREFIX", prefix)) if value}
    return KafkaSettings.from_env({**os.environ, **given})


def on_log(client_id: str, kafka: str, prefix: str, work: Callable[[Log], Awaitable[T]]) -> T:
    """Connect to Kafka, call ``work`` with the log, and return the result. Raise ConfigError or LogUnavailable."""
    settings = kafka_settings(kafka, prefix)

    async def connected() -> T:
        async with KafkaLog(settings, client_id) as log:
            return await work(log)

    return run(connected())


def signer(sign_key: Path | None) -> ConfigSigner | None:
    """Return a signer with the private key, or None without a key.

    Raise ConfigError if there is no key and readers accept only signed entries.
    """
    if sign_key:
        return ConfigSigner.load(sign_key)
    if os.environ.get(PUBLIC_KEY_FILE):
        expected = f"the private key of `config keygen`, because with {PUBLIC_KEY_FILE} unsigned entries are refused"
        raise ConfigError("config", "--sign-key", "", expected)
    return None


def friendly(command: Callable[P, T]) -> Callable[P, T]:
    """Print Sightline's own errors as one line on stderr and exit with 2.

    Operating system errors about a folder, a disk or a port also print one line. All other errors are bugs and keep
    their traceback.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except (IngestError, AgentError, EngineError, StreamError, DeployError) as error:
            sys.stderr.write(f"error: {error}\n")
            raise typer.Exit(USAGE_EXIT) from None
        except OSError as error:
            if error.errno not in _ENVIRONMENT:
                raise
            place = f"{error.filename}: " if error.filename else ""
            sys.stderr.write(f"error: {place}{error.strerror}: expected {_ENVIRONMENT[error.errno]}\n")
            raise typer.Exit(USAGE_EXIT) from None

    return wrapped
