"""The ids of events that are already written, so that a new owner of a partition does not write them again."""

from __future__ import annotations

from collections.abc import Iterable

from ingest.contract.codec import decode_json
from ingest.contract.records import Event
from ingest.contract.topics import EVENTS, partition_for
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, TopicPartition
from stream.readback import written_since

CLOCKS_MS = 60_000
"""Maximum difference in ms between the clock that stamps the input of a stage and the clock that stamps events."""


async def written_ids(log: Log, places: Iterable[str], partitions: int, since_ms: int) -> frozenset[str]:
    """Return the ids of the events of some places that were written since the Unix time ``since_ms``.

    Raise LogUnavailable.
    """
    tps = sorted({TopicPartition(EVENTS, partition_for(place, partitions)) for place in places})
    found = [_id_of(one.value) for tp in tps for one in await written_since(log, tp, since_ms - CLOCKS_MS)]
    return frozenset(filter(None, found))


def _id_of(event: bytes) -> str:
    """Return the id of an event record, or "" if the record is unreadable."""
    try:
        return decode_json(Event, event).id
    except CodecError:
        return ""
