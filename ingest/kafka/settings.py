"""Settings of Kafka clients, with the reason for each default, and the functions that create clients."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.producer import sender
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.contract.topics import TOPICS
from ingest.exceptions import ConfigError
from ingest.kafka import fetched
from ingest.runtime.text import decode_text
from ingest.site.entry import expectation

MAX_REQUEST_BYTES = MAX_RECORD_BYTES + 64 * 1024
"""Maximum size of a request in bytes: one record of the largest size with its headers."""
REQUEST_TIMEOUT_MS = 30_000
"""Time limit of a request, in ms. The limit is longer than a broker's restart, because a shorter limit would give up
requests that the broker accepts after the restart."""
SESSION_TIMEOUT_MS = 12_000
"""Time without a heartbeat after which the broker removes a member from its group, in ms. Pauses by the garbage
collector or the scheduler last seconds and must not end a session. A longer timeout would delay the takeover of a
dead node's partitions."""
HEARTBEAT_INTERVAL_MS = 3_000
"""Pause between the heartbeats of a group member, in ms. The pause is a quarter of the session timeout, so that a
member may lose three heartbeats in a row."""
MAX_POLL_INTERVAL_MS = 120_000
"""Longest time between two polls of a consumer, in ms. Even the slowest work between two polls (reading the end of a
partition again) takes only seconds, so a consumer that does not poll for two minutes must be hanging."""
RETRY_BACKOFF_MS = 50
"""Pause before a failed request is retried, in ms. A retry is necessary while a partition changes its leader, for
example."""
BETWEEN_TRANSACTIONS_S = 0.003
"""Pause in seconds before a transaction is retried while the markers of the previous transaction are still being
written.

Kafka at first refuses three of four transactions that begin right after the previous transaction. aiokafka's own
pause before a retry is 20 ms. The pause of 3 ms reduces the median duration of a transaction from 29 to 11 ms
(decision 0001).
"""
TRANSACTION_BATCH_BYTES = 1024 * 1024
"""Batch size of a transactional producer, in bytes: large enough that one request holds all results of a transaction
for one partition."""
LINGER_MS = 2
"""Time that a producer waits for more records to fill a request, in ms. Because frames are large, a longer wait would
only add latency. The writers with transactions and the producer of a stream stage do not wait, because each passes
all records of a request at once."""
FETCH_MAX_WAIT_MS = 100
"""Longest time that the broker waits for new records before it sends an empty response to a fetch, in ms. When
records arrive, the broker responds at once."""

MAX_POLL_RECORDS = 500
"""Maximum number of records that one poll returns. Without a limit, one poll could return millions of records,
because a compressed batch of 16 MiB may hold so many."""

sender.BACKOFF_OVERRIDE = BETWEEN_TRANSACTIONS_S  # aiokafka 0.14 has no setting for it
fetched.install()

CA_FILE, CERT_FILE = "SIGHTLINE_KAFKA_CA_FILE", "SIGHTLINE_KAFKA_CERT_FILE"
USERNAME, PASSWORD_FILE = "SIGHTLINE_KAFKA_USERNAME", "SIGHTLINE_KAFKA_PASSWORD_FILE"

PLAINTEXT_RISK = "anyone on the network can read pictures and change records"
PLAINTEXT_ADVICE = "set SIGHTLINE_KAFKA_SECURITY=SASL_SSL or SSL"

_BROKER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:,\[\]/]+)(?::(?P<port>[0-9]{1,5}))?")
_LAST_PORT = 65_535


def _addresses(bootstrap: str) -> str:
    """Check the text of bootstrap addresses, and return it unchanged.

    Raise ValueError if the text contains an address that a Kafka client would refuse when it connects.
    """
    for address in bootstrap.split(","):
        found = _BROKER.fullmatch(address.strip())
        if not found or not 0 < int(found["port"] or 1) <= _LAST_PORT:
            raise ValueError("expected one or more HOST[:PORT], separated by commas, with IPv6 addresses in brackets")
    return bootstrap


def _is_loopback(address: str) -> bool:
    host = address[1:].partition("]")[0] if address.startswith("[") else address.partition(":")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class KafkaSettings(BaseModel):
    """Address and security settings of a Kafka cluster.

    The names of all topics, groups and transactional ids begin with ``prefix``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap: Annotated[str, AfterValidator(_addresses)] = "127.0.0.1:9092"
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$")] = "sightline."
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str = ""
    password_file: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> KafkaSettings:
        """Read ``SIGHTLINE_KAFKA`` (the bootstrap address) and ``SIGHTLINE_KAFKA_*``. Raise ConfigError."""
        env = os.environ if env is None else env
        names = {name: f"SIGHTLINE_KAFKA_{name.upper()}" for name in cls.model_fields}
        names["bootstrap"] = "SIGHTLINE_KAFKA"
        try:
            return cls(**{name: env[variable] for name, variable in names.items() if variable in env})
        except ValidationError as error:
            first = error.errors()[0]
            variable = names[str(first["loc"][0])]
            raise ConfigError("environment", variable, env[variable], expectation(first)) from None

    def to_env(self) -> dict[str, str]:
        """Return the environment variables from which a child process reads the same settings with ``from_env``."""
        values = self.model_dump(exclude_none=True, exclude_defaults=True, mode="json")
        env = {f"SIGHTLINE_KAFKA_{name.upper()}": str(value) for name, value in values.items() if name != "bootstrap"}
        return env | {"SIGHTLINE_KAFKA": self.bootstrap}

    @property
    def plaintext_hosts(self) -> list[str]:
        """The bootstrap addresses on other machines that clients reach without TLS."""
        if "SSL" in self.security.split("_"):
            return []
        return [a.strip() for a in self.bootstrap.split(",") if not _is_loopback(a.strip())]

    def topic(self, name: str) -> str:
        """Return a topic's full name on the broker."""
        return self.prefix + name

    def group(self, name: str) -> str:
        """Return the full name of a consumer group or transactional id."""
        return self.prefix + name

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context, None if TLS is off.

        Read the certificates from ``ca_file`` and ``cert_file``. Raise ConfigError.
        """
        if "SSL" not in self.security.split("_"):
            return None
        with _readable(CA_FILE, self.ca_file, "a PEM file of certificates"):
            context = ssl.create_default_context(cafile=self.ca_file)
        with _readable(CERT_FILE, self.cert_file, "a PEM certificate, with its key or SIGHTLINE_KAFKA_KEY_FILE"):
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        return context

    def password(self) -> str:
        """Return the SASL password.

        Each call reads the password file, so that a new password takes effect. Raise ConfigError. Raise ConfigError
        also for an empty password file, because the broker may count a login with an empty password as a failed
        attempt.
        """
        with _readable(PASSWORD_FILE, self.password_file, "a text file with the password"):
            password = decode_text(self.password_file.read_bytes()).strip() if self.password_file else ""
            if not password:
                raise ValueError("the file is empty" if self.password_file else f"{self.security} needs one")
            return password

    def client(self, client_id: str) -> dict[str, Any]:
        """Return the constructor arguments that all aiokafka clients have in common.

        Raise ConfigError for an unusable certificate or password file.
        """
        args: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            "client_id": client_id,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "retry_backoff_ms": RETRY_BACKOFF_MS,
            "security_protocol": self.security,
            "ssl_context": self.ssl_context(),
        }
        if self.security.startswith("SASL"):
            password = self.password()
            if not self.username:
                raise ConfigError("environment", USERNAME, "", f"a user name, which {self.security} needs")
            args |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": password,
            }
        return args


@contextlib.contextmanager
def _readable(variable: str, file: Path | None, expected: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError("environment", variable, str(file), f"{expected} ({error})") from None


def producer(
    settings: KafkaSettings, client_id: str, *, transactional_id: str | None = None, **overrides: Any
) -> AIOKafkaProducer:
    """Make an idempotent producer that waits for all replicas. Start the producer before use, and stop it afterwards.

    The producer compresses each topic as ``TOPICS`` says: topics with JSON and small records are compressed, topics
    with JPEG and pixels are not.
    """
    args: dict[str, Any] = {
        **settings.client(client_id),
        "acks": "all",
        "enable_idempotence": True,
        "transactional_id": transactional_id,
        "max_request_size": MAX_REQUEST_BYTES,
        "linger_ms": LINGER_MS,
    }
    if transactional_id:
        args |= {"max_batch_size": TRANSACTION_BATCH_BYTES, "linger_ms": 0}
    made = AIOKafkaProducer(**{**args, **overrides})
    accumulator = made._message_accumulator
    accumulator._append_batch = functools.partial(_append_compressed, accumulator, settings.prefix)
    return made


def set_batch_bytes(producer: AIOKafkaProducer, max_bytes: int) -> None:
    """Set the maximum size of the producer's next batches. A record above the maximum gets a batch of its own."""
    producer._message_accumulator._batch_size = max_bytes  # aiokafka sets it only when a producer is made


def _append_compressed(accumulator: MessageAccumulator, prefix: str, builder: BatchBuilder, tp: Any) -> Any:
    """Append an empty batch that uses its topic's compression.

    By default, aiokafka uses one compression for all topics of a producer.
    """
    topic = TOPICS.get(tp.topic.removeprefix(prefix))
    codec = topic.compression if topic else None
    accumulator._compression_type = AIOKafkaProducer._COMPRESSORS[codec][1] if codec else 0
    return MessageAccumulator._append_batch(accumulator, accumulator.create_builder(), tp)


def consumer(
    settings: KafkaSettings, client_id: str, *, group: str | None = None, **overrides: Any
) -> AIOKafkaConsumer:
    """Make a consumer that reads committed records only and never commits by itself.

    ``group`` is the group's name without the deployment's prefix. Start the consumer before use, and stop it
    afterwards.
    """
    args: dict[str, Any] = {
        **settings.client(client_id),
        "group_id": settings.group(group) if group else None,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        "session_timeout_ms": SESSION_TIMEOUT_MS,
        "heartbeat_interval_ms": HEARTBEAT_INTERVAL_MS,
        "max_poll_interval_ms": MAX_POLL_INTERVAL_MS,
        "fetch_max_wait_ms": FETCH_MAX_WAIT_MS,
        "max_partition_fetch_bytes": MAX_REQUEST_BYTES,
        "max_poll_records": MAX_POLL_RECORDS,
        "partition_assignment_strategy": (RoundRobinPartitionAssignor,),
    }
    return AIOKafkaConsumer(**{**args, **overrides})


def admin(settings: KafkaSettings, client_id: str = "sightline-admin") -> AIOKafkaAdminClient:
    """Make an admin client. Start the client before use, and close it afterwards."""
    return AIOKafkaAdminClient(**settings.client(client_id))
