"""The interface between the logic of a stage and the loop that runs the stage.

A stage is pure logic that processes one partition. A stage receives records in offset order. For each record, a stage
returns records to write, and the offsets that are finished once those records are written. A stage imports neither
Faust nor a Kafka client.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from ingest.deadletter import parked
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.runtime import logs
from ingest.site.topic.view import Config

_log = logs.get("stream.processor")
Outcome = TypeVar("Outcome")

MAX_ERROR_CHARS = 500
"""Maximum length of an error message in the log, in characters. Some error messages quote a field of the record, and
a field may have megabytes."""


@dataclass(frozen=True, slots=True)
class Work:
    """Records to write, and the input offsets that may be committed once the broker has all of these records.

    The offset of every record that a processor receives appears in exactly one Work, which the processor may return
    later. A Work without records finishes offsets that have no output. A Work without offsets finishes no record.
    Works are written in the order in which they are returned.
    """

    records: tuple[Outgoing, ...] = ()
    done: tuple[int, ...] = ()


class Processor(abc.ABC):
    """The state of one partition. The methods are never called concurrently, but may run in a worker thread.

    A processor that holds records back overrides ``tick``, ``idle``, ``flush`` and ``deadline``, or only
    ``end_chunk``. An exception from any method ends the process.
    """

    ticks_in_silence: ClassVar[bool] = False
    """Whether this processor acts at ``deadline`` because no record has arrived. In that case, the processor gets
    every record of the partition before its ``tick``: a reading that waits in a backlog must not count as missing."""

    in_event_loop: ClassVar[bool] = False
    """Whether the runner may process records in the event loop's thread, which saves two thread switches. The runner
    does so while the records of the partition take little time. A processor that waits for the event loop must not
    allow it."""

    @abc.abstractmethod
    def process(self, record: LogRecord) -> Sequence[Work]:
        """Process one record and return the work that is ready to be written."""

    def end_chunk(self) -> Sequence[Work]:
        """Return the work of records that ``process`` has collected in order to process several records at once.

        The runner passes records to ``process`` in chunks, and calls this method after the last record of a chunk.
        """
        return ()

    def tick(self) -> Sequence[Work]:
        """Return the work that must be written at ``deadline``. This method is called when ``deadline`` has
        passed; with ``ticks_in_silence``, once no record waits either."""
        return ()

    def flush(self) -> Sequence[Work]:
        """Return all work that is held back. This method is called when the process stops."""
        return ()

    def idle(self) -> Sequence[Work]:
        """Return output that is complete but still waits for more output to be written together with it.

        This method is called in the event loop's thread, when no record waits, the broker has acknowledged all
        earlier output, and the readers of the output keep up. An implementation must be fast, because it runs in the
        event loop's thread.
        """
        return ()

    @property
    def deadline(self) -> float | None:
        """Time of the next ``tick``, on the monotonic clock in seconds; None when no record is held back."""
        return None


def park(record: LogRecord, stage: str, error: Exception) -> Work:
    """Log that the processing of a record failed, and return the work that turns the record into a dead letter."""
    fields = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    _log.warning("record_parked", stage=stage, **fields, error=repr(error)[:MAX_ERROR_CHARS])
    return Work((parked(record, stage, error),), (record.offset,))


class ParkingProcessor(Processor, Generic[Outcome]):
    """A processor that turns a record into a dead letter if the processing of the record fails, and goes on with the
    next record.

    The dead letter keeps the record's original bytes, is counted, and can be replayed. Without dead letters, a record
    that cannot be processed would end the process again after every restart. A MemoryError ends the process, because
    the process, not the record, has caused the error.
    """

    ends: ClassVar[tuple[type[Exception], ...]] = (MemoryError,)
    """Errors of ``_decide`` that end the process, because the record has not caused these errors. After an error of
    ``_decide`` that is not in ``ends``, the record becomes a dead letter."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def process(self, record: LogRecord) -> Sequence[Work]:
        """Process one record. If the processing fails, turn the record into a dead letter."""
        try:
            outcome = self._decide(record)
        except self.ends:
            raise
        except Exception as error:
            return (park(self._identified(record), self._stage, error),)
        return self._emit(record, outcome)

    @abc.abstractmethod
    def _decide(self, record: LogRecord) -> Outcome:
        """Decode one record and compute its outcome.

        If this method raises an error that is not in ``ends``, the record becomes a dead letter.
        """

    @abc.abstractmethod
    def _emit(self, record: LogRecord, outcome: Outcome) -> Sequence[Work]:
        """Turn the outcome of a record into work. An error in this method ends the process."""

    def _identified(self, record: LogRecord) -> LogRecord:
        """Return the record with the headers that its dead letter needs. Must not raise."""
        return record


class Stage(Protocol):
    """A stream processor: its name, its inputs, and a factory for the state of one partition."""

    @property
    def name(self) -> str:
        """Name of the consumer group, without the prefix of the deployment."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Names of the input topics, without the prefix of the deployment."""

    async def open(self, tp: TopicPartition, position: int, log: Log) -> Processor:
        """Create the state of a partition whose next record is at ``position``.

        Read back the records that the state needs, such as the last seconds of the partition's input or of the
        stage's output. Write no records while the state is created. Raise LogUnavailable.
        """


@runtime_checkable
class Configurable(Protocol):
    """A stage that follows the ``config`` topic while it runs."""

    config: Config

    def configure(self, config: Config) -> None:
        """Use another configuration from the next record on.

        To refuse the configuration and keep the previous configuration, raise ConfigError. This method is called in
        the event loop's thread, while processors may run in other threads.
        """
