"""The newest picture of a camera, from the log."""

from __future__ import annotations

from contextlib import aclosing

from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.records import Frame
from ingest.contract.topics import FRAMES, partition_for
from ingest.exceptions import CodecError
from ingest.kafka.log import Log
from ingest.site.topic.view import Config

STEP = 50
"""Number of records that are read at once, from the end of the partition backwards."""
MAX_RECORDS = 2000
"""Number of records after which the search for a picture ends. Many cameras may share a partition."""


async def newest_frame(log: Log, config: Config, camera: str) -> Frame | None:
    """Return the newest frame of a camera, None if none of the newest records is a frame of the camera.

    Raise LogUnavailable.
    """
    ends, begins = await log.ends(FRAMES), await log.beginnings(FRAMES)
    partition = partition_for(camera, len(ends), config.pins)
    stop, found = ends[partition], None
    limit = max(begins[partition], stop - MAX_RECORDS)
    while found is None and stop > limit:
        start = max(limit, stop - STEP)
        async with aclosing(log.read(FRAMES, partition, start, stop)) as records:
            async for record in records:
                if any(frame.camera == camera for frame in h.frames_of(record.headers)):
                    found = record.value
        stop = start
    try:
        return decode(Frame, found) if found else None
    except CodecError:
        return None
