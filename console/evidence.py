"""Pictures and clips of events: from the evidence store, or from the log while it has the frame."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass

from console.exceptions import NotFound
from console.live.feed import Feed
from console.live.happenings import ReviewItem
from ingest.contract.identity import FrameId
from ingest.contract.records import Evidence
from stream.evidence.store import EvidenceStore
from stream.exceptions import StreamError

MEDIA_TYPES = frozenset({"image/jpeg", "image/webp", "video/mp4"})
"""Media types that the console serves. An alert could name another type, which a browser might run as a page."""
MAX_FILE_BYTES = 64 * 1024 * 1024
"""Maximum size of a file that the console serves, in bytes: a clip of half a minute at 16 Mbit/s."""


@dataclass(frozen=True, slots=True)
class ServedFile:
    """The bytes of a picture or clip, with the media type and the SHA-256 of the bytes."""

    data: bytes
    media_type: str
    sha256: str


def evidence_of(item: ReviewItem) -> list[Evidence]:
    """Return the evidence of all alerts of an event, in the order of the alerts."""
    return [one for alert in item.alerts for one in alert.data.evidence]


class EvidenceFiles:
    """Reads evidence. Without a store, only frames in the log are available."""

    def __init__(self, store: EvidenceStore | None = None) -> None:
        self._store = store

    async def read(self, item: ReviewItem, evidence: Evidence) -> ServedFile:
        """Return a file of an event's evidence.

        Raise NotFound if the store does not have the file, if the name belongs to another camera or leads out of the
        store, or if the hash of the file is not the hash in the alert.
        """
        owner = f"{item.event.subject}/"
        if self._store is None:
            raise NotFound("this console has no evidence folder: start it with --evidence FOLDER")
        if not evidence.name.startswith(owner) or ".." in evidence.name.split("/"):
            raise NotFound(f"evidence {evidence.name[:200]!r}: expected a name that begins with {owner!r}")
        if evidence.media_type not in MEDIA_TYPES:
            raise NotFound(f"evidence of type {evidence.media_type[:50]!r}: expected one of {sorted(MEDIA_TYPES)}")
        try:
            data, found = await asyncio.to_thread(_read, self._store, evidence.name)
        except (StreamError, OSError, ValueError):
            raise NotFound(f"evidence {evidence.name[:200]!r} is not in the store: it may have expired") from None
        if len(data) > MAX_FILE_BYTES:
            raise NotFound(f"evidence {evidence.name[:200]!r} has more than {MAX_FILE_BYTES} bytes")
        if found != evidence.sha256:
            raise NotFound(f"evidence {evidence.name[:200]!r} was changed: its hash differs from that of the alert")
        return ServedFile(data, evidence.media_type, found)

    async def picture(self, feed: Feed, item: ReviewItem) -> ServedFile:
        """Return the picture of an event: the annotated picture of its evidence, another picture of its evidence, or
        the frame in the log if the evidence cannot be had. Raise NotFound."""
        pictures = [one for one in evidence_of(item) if one.media_type.startswith("image/")]
        pictures.sort(key=lambda one: "-annotated." not in one.name)
        for one in pictures:
            with contextlib.suppress(NotFound):
                return await self.read(item, one)
        data = item.event.data
        if data.frame is None or data.camera is None:
            raise NotFound("this event has no picture")
        frame = await feed.frame(data.frame, FrameId(data.camera, data.epoch, data.seq))
        return ServedFile(frame.image, f"image/{frame.encoding}", hashlib.sha256(frame.image).hexdigest())


def _read(store: EvidenceStore, name: str) -> tuple[bytes, str]:
    """Return the bytes of a file and their SHA-256. Reading and hashing take long for a clip, so this function runs
    in a thread."""
    with store.open(name) as file:
        data = file.read(MAX_FILE_BYTES + 1)
    return data, hashlib.sha256(data).hexdigest()
