"""A consumer group member, built on a Faust app with settings that prevent data loss.

Every error in the member ends the process.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import faust
from faust.tables import TableManager
from faust.types import TP
from mode import CrashingSupervisor

from ingest.kafka.kafkalog import from_consumer
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.settings import SESSION_TIMEOUT_MS, KafkaSettings
from stream.metrics import StreamMetrics
from stream.runner.acks import FetchNumber
from stream.runner.faust.driver import Transport, contract_tp
from stream.runner.faust.fetching import FetchedChunk

if TYPE_CHECKING:
    from stream.runner.loop import Runner

COMMIT_INTERVAL_S = 0.3
"""Time in seconds between two commits. If a process is killed, the records finished since its last commit are
processed again. Frequent commits are cheap, because a commit is one small request."""
BUFFER_CHUNKS = 1024
"""Maximum number of chunks in Faust's buffer, from which records go to the queues of the partitions. The partition
queues accept every record at once, so the buffer needs room only for the chunks of one fetch. If the buffer were
full, Faust would pause for a second at a time."""


class NoTables(TableManager):  # type: ignore[misc]
    """Replacement for Faust's table manager, because this project has no Faust tables.

    Faust's own manager waits for a second until all tables are declared, before the process joins its group.
    """

    async def on_start(self) -> None:
        """Finish the start at once."""
        self._tables_finalized.set()
        self._tables_registered.set()
        await self.recovery.start()


class App(faust.App):  # type: ignore[misc]
    """A Faust app that ends the process on any error, creates no folders, and reaches Kafka through this package's
    driver."""

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
        """Do nothing: Faust needs folders only for its tables, and this project has no Faust tables."""


class FaustMember:
    """One process as a member of the consumer group of its stage.

    The member learns which partitions belong to this process, fetches their records and writes the output. The
    member's ``owner`` decides which records are processed and which offsets are committed. All methods of the member
    and of the owner are called in the event loop's thread.

    ``instance`` is the lasting name of this member in the group (static membership, KIP-345), empty for a dynamic
    member.
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
        """Whether partitions were revoked and the next assignment has not arrived.

        Faust's own flag is wrong if a rebalance begins while the previous rebalance ends.
        """
        return self._revoking or bool(self._app.rebalancing)

    @property
    def crash_reason(self) -> BaseException | None:
        """The error that stopped the member; None if there was no error."""
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
        """Commit the safe positions of all partitions, after any running commit.

        If Faust returns False, commit a second time: Faust has only waited for a running commit, whose positions may
        be older.
        """
        if not await self._app.consumer.commit():
            await self._app.consumer.commit()

    async def begin(self, tp: TopicPartition, position: int, assignment: int) -> bool:
        """Begin to fetch a partition at ``position``. Each assignment of a partition numbers its fetched records from
        0.

        Return False if another member now owns the partition. No record of a partition is fetched before this call.
        """
        return bool(await self._app.consumer.begin(self._tp(tp), position, assignment))

    def pause(self, tp: TopicPartition) -> None:
        """Stop fetching a partition. Records that are already fetched are still delivered."""
        self._app.consumer.pause_fetching(self._tp(tp))

    def resume(self, tp: TopicPartition) -> None:
        """Fetch a paused partition again."""
        self._app.consumer.resume_fetching(self._tp(tp))

    def undelivered(self, tp: TopicPartition, due: FetchNumber) -> int:
        """Return how many records have not reached the partition's loop: records at the broker, and fetched records
        that are still inside Faust.

        ``due`` is the number of the next record that the loop expects. Offsets without a record, such as transaction
        markers, also count until a fetch has passed these offsets. Any thread may call this method.
        """
        return int(self._app.consumer.undelivered(self._tp(tp), due))

    async def send(self, record: Outgoing) -> Awaitable[Any]:
        """Pass a record to the producer.

        Return an awaitable that completes when the broker has acknowledged the record.
        """
        sent: Awaitable[Any] = await self._app.producer.send(
            self._settings.topic(record.topic),
            record.key,
            record.value,
            record.partition,
            None,
            dict(record.headers),
        )
        self._metrics.written.inc()
        self._metrics.written_bytes.inc(len(record.value))
        return sent

    def _make_app(self, group: str, topics: tuple[str, ...], client_id: str, instance: str) -> App:
        settings = self._settings
        app = App(
            settings.group(group),
            broker=";".join(f"kafka://{address}" for address in settings.bootstrap.split(",")),
            broker_client_id=client_id,
            broker_commit_interval=COMMIT_INTERVAL_S,
            broker_session_timeout=SESSION_TIMEOUT_MS / 1000,
            stream_buffer_maxsize=BUFFER_CHUNKS,
            stream_wait_empty=False,  # the runner drains by itself; the next owner reads unfinished records again
            agent_supervisor=CrashingSupervisor,
            topic_allow_declare=False,
            topic_disable_leader=True,
            store="memory://",
            TableManager=NoTables,
            HttpClient=object,  # the default imports aiohttp, which reads all certificates of the system
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

        async def read(stream: Any) -> None:
            async for event in stream.noack().events():
                chunk: FetchedChunk = event.message.chunk
                self._owner.deliver([from_consumer(settings, record) for record in chunk.records], chunk.first)

        # Faust's decorator `app.agent` would also search the source files of all modules, for a registry of agents.
        agent = app.conf.Agent(read, name=group, app=app, channel=channel, on_error=app._on_agent_error)
        app.agents[agent.name] = agent
        app.topics.beacon.add(agent)
        return app

    async def _assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        self._revoking = False
        await self._owner.assigned(sorted(contract_tp(self._settings, tp) for tp in assigned))

    async def _revoked(self, _app: Any, _revoked: set[TP], **_: Any) -> None:
        self._revoking = True
        await self._owner.revoked()

    def _tp(self, tp: TopicPartition) -> TP:
        return TP(self._settings.topic(tp.topic), tp.partition)
