"""A consumer group member on a Faust app: the settings that prevent loss, and every error ends the process."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import faust
from faust.types import TP
from mode import CrashingSupervisor

from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.settings import SESSION_TIMEOUT_MS, KafkaSettings
from stream.metrics import StreamMetrics
from stream.runner.acks import FetchNumber
from stream.runner.faust.driver import Transport, contract_tp

if TYPE_CHECKING:
    from stream.runner.loop import Runner

Event = Any
"""``faust.Event``: one record on its way through Faust; ``message`` is the record itself."""

COMMIT_INTERVAL_S = 0.3
"""Maximum age of finished records that a killed process repeats, besides those in flight. A commit is one small
request."""
BUFFER_RECORDS = 1024
"""Records between the consumer and the queues of the partitions. These queues take every record at once, so the
buffer holds one hand-over of all partitions. A full buffer would make Faust pause in steps of a second."""


class App(faust.App):  # type: ignore[misc]
    """Ends the process on any error, creates no folders, and reaches Kafka through the driver of this package."""

    settings: KafkaSettings
    instance: str
    owner: Runner

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Transport:
        return Transport(self.conf.broker_producer, self)

    async def _on_agent_error(self, agent: Any, exc: BaseException) -> None:
        self.owner.failed(exc)

    def _create_directories(self) -> None:
        """Do nothing: Faust keeps tables in folders beside the process, and there are no tables."""


class FaustMember:
    """One process as a member of the consumer group of its stage.

    The member finds out which partitions belong to this process, fetches their records and writes the output. Its
    ``owner`` decides which records are fed and which offsets are committed. All methods on both sides are called in
    the thread of the event loop.

    ``instance`` is the lasting name of this member in the group (static membership, KIP-345), empty for none.
    """

    def __init__(
        self,
        owner: Runner,
        settings: KafkaSettings,
        metrics: StreamMetrics,
        *,
        group: str,
        topics: tuple[str, ...],
        client_id: str,
        instance: str = "",
    ) -> None:
        self._owner = owner
        self._settings = settings
        self._metrics = metrics
        self._revoking = False
        self._app = self._make_app(group, topics, client_id, instance)
        self._app.on_partitions_revoked.connect(self._revoked)
        self._app.on_partitions_assigned.connect(self._assigned)

    @property
    def rebalancing(self) -> bool:
        """Whether partitions were revoked and the next assignment has not come yet.

        Faust alone forgets it when a rebalance begins while another ends.
        """
        return self._revoking or bool(self._app.rebalancing)

    @property
    def crash_reason(self) -> BaseException | None:
        """The error that stopped the member, None without one."""
        reason: BaseException | None = self._app.crash_reason
        return reason

    async def run(self) -> None:
        """Join the group and return when the member has stopped, for whatever reason."""
        await self._app.start()
        await self._app.wait_until_stopped()

    async def stop(self) -> None:
        """Leave the group and close the connections."""
        await self._app.stop()

    async def commit(self) -> None:
        """Commit the safe positions of all partitions, after any commit that is under way.

        Faust returns False when it only waited for another commit, whose positions may be older.
        """
        if not await self._app.consumer.commit():
            await self._app.consumer.commit()

    async def begin(self, tp: TopicPartition, position: int, assignment: int) -> bool:
        """Fetch a partition from ``position`` on, and number its records from 0 under this assignment.

        Return False when another member owns the partition by now. Nothing is fetched of a partition before.
        """
        return bool(await self._app.consumer.begin(self._tp(tp), position, assignment))

    def pause(self, tp: TopicPartition) -> None:
        """Fetch no more of a partition. Records that are fetched already still come."""
        self._app.consumer.pause_fetching(self._tp(tp))

    def resume(self, tp: TopicPartition) -> None:
        """Fetch a paused partition again."""
        self._app.consumer.resume_fetching(self._tp(tp))

    def undelivered(self, tp: TopicPartition, due: FetchNumber) -> int:
        """Return how many records of a partition are at the broker or on their way, when ``due`` comes next.

        Offsets without a record count too, until the fetch has passed them. Safe in any thread.
        """
        return int(self._app.consumer.undelivered(self._tp(tp), due))

    async def send(self, record: Outgoing) -> Awaitable[Any]:
        """Hand a record to the producer. The result is awaited for the acknowledgement of the broker."""
        self._metrics.written.inc()
        self._metrics.written_bytes.inc(len(record.value))
        sent: Awaitable[Any] = await self._app.producer.send(
            self._settings.topic(record.topic),
            record.key,
            record.value,
            record.partition,
            None,
            dict(record.headers),
        )
        return sent

    def _make_app(self, group: str, topics: tuple[str, ...], client_id: str, instance: str) -> App:
        settings = self._settings
        app = App(
            settings.group(group),
            broker=";".join(f"kafka://{address}" for address in settings.bootstrap.split(",")),
            broker_client_id=client_id,
            broker_commit_interval=COMMIT_INTERVAL_S,
            broker_session_timeout=SESSION_TIMEOUT_MS / 1000,
            stream_buffer_maxsize=BUFFER_RECORDS,
            stream_wait_empty=False,  # the runner drains itself; after a rebalance, unfinished records are read again
            agent_supervisor=CrashingSupervisor,
            topic_allow_declare=False,
            topic_disable_leader=True,
            store="memory://",
            web_enabled=False,  # Faust's web server listens on every interface, without a password
        )
        app.settings, app.instance, app.owner = settings, instance, self._owner
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
                self._owner.deliver(to_record(settings, event), event.message.fetch_number)

        return app

    async def _assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        self._revoking = False
        await self._owner.assigned(sorted(contract_tp(self._settings, tp) for tp in assigned))

    async def _revoked(self, _app: Any, _revoked: set[TP], **_: Any) -> None:
        self._revoking = True
        await self._owner.revoked()

    def _tp(self, tp: TopicPartition) -> TP:
        return TP(self._settings.topic(tp.topic), tp.partition)


def to_record(settings: KafkaSettings, event: Event) -> LogRecord:
    """Convert a Faust event to a record with its contract topic name. Missing values become empty values."""
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
