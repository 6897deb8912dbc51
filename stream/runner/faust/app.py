"""A Faust app that loses nothing: the settings that matter, with their reasons, and no way for an error to pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faust
from mode import CrashingSupervisor

from ingest.kafka.log import LogRecord
from ingest.kafka.settings import SESSION_TIMEOUT_MS, KafkaSettings
from stream.runner.faust.driver import Transport

Event = Any
"""``faust.Event``: one record on its way through Faust, ``message`` is the record itself."""

COMMIT_INTERVAL_S = 0.3
"""What a killed process repeats at most, besides what it had in flight. A commit is one small request."""
BUFFER_RECORDS = 1024
"""Between the consumer and the partitions' own queues. These take every record at once, so this holds one hand-over
of all partitions; a full one would make Faust pause in steps of a second."""


class App(faust.App):  # type: ignore[misc]
    """Ends the process on any error, makes no folders, and reaches Kafka through our own driver."""

    kafka: KafkaSettings
    instance: str
    failed: Callable[[BaseException], None]

    def _new_transport(self) -> Transport:
        return Transport(self.kafka, self.instance, self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Transport:
        return Transport(self.kafka, self.instance, self.conf.broker_producer, self)

    async def _on_agent_error(self, agent: Any, exc: BaseException) -> None:
        self.failed(exc)

    def _create_directories(self) -> None:
        """Faust keeps tables in folders beside the process; we have none."""


def build(
    settings: KafkaSettings,
    group: str,
    client_id: str,
    instance: str,
    topics: tuple[str, ...],
    deliver: Callable[[Event], None],
    failed: Callable[[BaseException], None],
) -> App:
    """Make the app of one consumer group. ``deliver`` gets every event and must not raise."""
    app = App(
        settings.group(group),
        broker=";".join(f"kafka://{address}" for address in settings.bootstrap.split(",")),
        broker_client_id=client_id,
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_session_timeout=SESSION_TIMEOUT_MS / 1000,
        stream_buffer_maxsize=BUFFER_RECORDS,
        stream_wait_empty=False,  # we drain ourselves, and on a rebalance what is not done is read again
        agent_supervisor=CrashingSupervisor,
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        web_enabled=False,  # Faust's web server listens on every interface, without a password
    )
    app.kafka = settings
    app.instance = instance
    app.failed = failed
    channel = app.topic(
        *map(settings.topic, topics),
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
    )

    @app.agent(channel, name=group, concurrency=1)  # type: ignore[untyped-decorator]
    async def read(stream: Any) -> None:
        async for event in stream.noack().events():
            deliver(event)

    return app


def to_record(settings: KafkaSettings, event: Event) -> LogRecord:
    """Turn Faust's event into our record, with the topic's name in the contract. Missing values become empty ones."""
    message = event.message
    return LogRecord(
        topic=message.topic.removeprefix(settings.prefix),
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value or b"",
        headers={name: value or b"" for name, value in dict(message.headers or ()).items()},
        timestamp_ms=round((message.timestamp or 0.0) * 1000),
    )
