"""Chunks: several records of one partition that are processed in one call to a worker thread.

For a small record, the switch to a worker thread and back costs ten times as much as the processing. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from ingest.kafka.log import LogRecord, Outgoing
from stream.runner.processor import Work

CHUNK_S = 0.005
"""Time in seconds after which a chunk takes no further record. Switching to a worker thread and back takes 0.1 ms,
one fiftieth of a chunk. A longer chunk would delay the output, which is written when the chunk ends. A processor that
collects records takes additional time at the end of the chunk to process them."""
CHUNK_RECORDS = 512
"""Maximum number of records in a chunk: the smallest records take 7 µs each."""
CHUNK_BYTES = 256 * 1024
"""Maximum bytes of output that are joined into one ``Work``. With a larger ``Work``, a partition would exceed its
limits of unacknowledged output."""


def first_of(queued: Iterable[LogRecord]) -> list[LogRecord]:
    """Return a copy of the first ``CHUNK_RECORDS`` records of a queue, to which another thread may append."""
    return list(islice(queued, CHUNK_RECORDS))


def without_gap(records: Iterable[LogRecord], max_gap: int) -> Iterator[LogRecord]:
    """Yield the records up to the first gap of more than ``max_gap`` offsets between two records."""
    last: LogRecord | None = None
    for record in records:
        if last and not 0 <= record.offset - last.offset - 1 <= max_gap:
            return
        yield record
        last = record


def joined(works: Sequence[Work]) -> list[Work]:
    """Join consecutive ``Work`` objects whose output has at most ``CHUNK_BYTES`` together.

    The order of the output and of the finished offsets stays the same.
    """
    found: list[Work] = []
    records: list[Outgoing] = []
    done: list[int] = []
    joined_bytes = 0
    for work in works:
        if work.records:
            size = sum([len(record.value) for record in work.records])
            if (records or done) and joined_bytes + size > CHUNK_BYTES:
                found.append(Work(tuple(records), tuple(done)))
                records, done, joined_bytes = [], [], 0
            records += work.records
            joined_bytes += size
        done += work.done
    if records or done:
        found.append(Work(tuple(records), tuple(done)))
    return found
