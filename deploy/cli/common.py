"""Options, output and error handling that all commands share."""

from __future__ import annotations

import errno
import functools
import getpass
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar
from zoneinfo import ZoneInfo

import typer

from console.exceptions import ConsoleError
from deploy.local.exceptions import DeployError
from edge_agent.exceptions import AgentError
from engines.exceptions import EngineError
from ingest.exceptions import ConfigError, IngestError
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import unix_ns
from ingest.runtime.eventloop import run
from ingest.site.topic.signature import PUBLIC_KEY_FILE, SIGN_KEY_FILE, ConfigSigner
from stream.exceptions import StreamError
from training.exceptions import TrainingError

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
"""Operating system errors that are not bugs: maps each ``errno`` to the expectation that the error message names."""

Kafka = Annotated[
    str, typer.Option("--kafka", help="Kafka's address. Default: $SIGHTLINE_KAFKA.", show_default=False)
]
Prefix = Annotated[
    str,
    typer.Option("--prefix", help="Prefix of every topic. Default: $SIGHTLINE_KAFKA_PREFIX.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Evidence = Annotated[
    str,
    typer.Option("--evidence", envvar="SIGHTLINE_EVIDENCE", help="Folder of the evidence, or s3://BUCKET/PREFIX."),
]
Instance = Annotated[
    str,
    typer.Option(
        "--instance",
        help="Lasting name of this worker in its consumer group. Restarted under it, the worker takes its partitions "
        "back at once. Two workers must not share a name.",
    ),
]
MODELS_VARIABLE = "SIGHTLINE_MODELS"
"""Environment variable that stands for ``--models``, the folder of the model repository."""
Last = Annotated[str, typer.Option(help="Period until now, such as 30m, 24h or 7d.")]
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
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


def user_name() -> str:
    """Return the name of this process's user, or the number of a user without a name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


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


def since_ms_of(command: str, last: str) -> int:
    """Return the Unix time in ms at which the period ``last``, such as ``24h``, began; the period ends now. Raise
    ConfigError for a text that is no period."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", last)
    if not found:
        raise ConfigError(command, "--last", last, "a number with s, m, h or d, such as 24h")
    return max(0, round(time.time() * 1000) - int(found[1]) * _UNITS_S[found[2]] * 1000)


def unix_ms_of(command: str, text: str, zone: str, option: str) -> int:
    """Return an ISO 8601 time as Unix time in ms, rounded down. See ``unix_ns_of``. Raise ConfigError."""
    return unix_ns_of(command, text, zone, option) // 1_000_000


def unix_ns_of(command: str, text: str, zone: str, option: str) -> int:
    """Return an ISO 8601 time as Unix time in ns, exact to the microsecond; 0 for a time before 1970. A time without
    an offset is in the time zone ``zone``.

    Raise ConfigError.
    """
    try:
        return max(0, unix_ns(datetime.fromisoformat(text), ZoneInfo(zone)))
    except (ValueError, OverflowError):
        expected = "a time such as 2026-11-30T02:00, 2026-11-30T02:00:00Z or 2026-11-30T02:00+01:00"
        raise ConfigError(command, option, text, expected) from None


def friendly(command: Callable[P, T]) -> Callable[P, T]:
    """Print Sightline's own errors as one line on stderr and exit with 2.

    Operating system errors about a folder, a disk or a port also print one line. Errors that are neither Sightline's
    own nor the operating system's are bugs, and keep their traceback.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except (IngestError, AgentError, EngineError, StreamError, ConsoleError, DeployError, TrainingError) as error:
            sys.stderr.write(f"error: {error}\n")
            raise typer.Exit(USAGE_EXIT) from None
        except OSError as error:
            if error.errno not in _ENVIRONMENT:
                raise
            place = f"{error.filename}: " if error.filename else ""
            sys.stderr.write(f"error: {place}{error.strerror}: expected {_ENVIRONMENT[error.errno]}\n")
            raise typer.Exit(USAGE_EXIT) from None

    return wrapped
