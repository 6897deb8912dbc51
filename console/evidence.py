"""Pictures and clips of events: from the evidence store, or from the log while it has the frame."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from console.exceptions import NotFound, Unavailable
from console.live.feed import Feed
from console.live.happenings import ReviewItem
from ingest.contract.identity import FrameId
from ingest.contract.records import Evidence
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock
from stream.evidence.store import EvidenceStore
from stream.exceptions import EvidenceChanged, NotStored, StoreFailed, StreamError

_log = logs.get("console.evidence")

CLIP_TYPE = "video/mp4"
MEDIA_TYPES = frozenset({"image/jpeg", "image/webp", CLIP_TYPE})
"""Media types that the console serves. An alert could name another type, which a browser might run as a page."""
MAX_FILE_BYTES = 64 * 1024 * 1024
"""Maximum size of a file that the console serves, in bytes: the maximum size of a clip."""
CLIPS_BYTES = MAX_FILE_BYTES
"""Maximum size of the clips in memory, in bytes. A player requests a clip in many parts."""
PROBE_S = 5.0
"""Interval in seconds at which the console looks whether the evidence store can be read."""
ANSWER_S = 5.0
"""Time in seconds after which a store that does not answer counts as not readable."""
_PROBE = "probe"
"""File name that no evidence store has, to find out whether the store can be read."""
CLIPS_S = 60.0
"""Time for which a clip stays in memory, in seconds, so that a deleted clip is soon gone from memory too."""


@dataclass(frozen=True, slots=True)
class ServedFile:
    """The bytes of a picture or clip, with the media type and the SHA-256 of the bytes."""

    data: bytes
    media_type: str
    sha256: str


def evidence_of(item: ReviewItem) -> list[Evidence]:
    """Return the evidence files of an event: the files of its alerts, in the order of the alerts, and then files that
    were stored later, such as clips."""
    found = [one for alert in item.alerts for one in alert.data.evidence]
    known = {one.name for one in found}
    stored = item.evidence.stored
    return found + [one for one in (stored.files if stored else ()) if one.name not in known]


class EvidenceFiles:
    """Reads evidence. Without a store, only frames in the log are available.

    Clips that were read in the last ``CLIPS_S`` seconds stay in memory, decrypted and with a proven hash. Clips are
    read one after the other, so that many players at once need no more memory than one player.
    """

    def __init__(self, store: EvidenceStore | None = None, clock: Clock | None = None) -> None:
        self._store, self._clock = store, clock or SystemClock()
        self._clips: OrderedDict[tuple[str, str], tuple[float, ServedFile]] = OrderedDict()
        self._one_clip = asyncio.Lock()
        self._since_s = 0.0
        self._probing: asyncio.Task[str] | None = None
        self._is_silent = False
        """Whether the store has not answered the last probe. Requests would then block all threads of the console."""
        self.outage = ""
        """The error that currently prevents reading the evidence store; empty while the store can be read."""

    async def watch(self) -> None:
        """Look every ``PROBE_S`` seconds whether the evidence store can be read, until cancelled."""
        while True:
            await self.probe()
            await asyncio.sleep(PROBE_S)

    async def probe(self) -> None:
        """Look whether the evidence store can be read. An outage of the store is logged once when it begins and once
        when it ends."""
        if self._store is None:
            return
        if self._probing is None:  # a store that does not answer gets no second request
            self._probing = asyncio.create_task(asyncio.to_thread(_probe_now, self._store))
        done, _ = await asyncio.wait({self._probing}, timeout=ANSWER_S)
        self._is_silent = not done
        if not done:
            self._note(f"the store has not answered within {ANSWER_S:.0f} s")
            return
        found, self._probing = self._probing.result(), None
        self._note(found)

    def _note(self, outage: str) -> None:
        now_s = self._clock.monotonic()
        if outage and not self.outage:
            self._since_s = now_s
            _log.warning("evidence_unreadable", error=outage)
        elif self.outage and not outage:
            _log.info("evidence_readable_again", outage_s=round(now_s - self._since_s))
        self.outage = outage

    async def read(self, item: ReviewItem, evidence: Evidence) -> ServedFile:
        """Return a file of an event's evidence.

        Raise NotFound if the store does not have the file, if a tombstone says that the file was deleted, if the name
        belongs to another camera or leads out of the store, or if the hash of the file is not the hash on the log.
        Raise Unavailable if the evidence store cannot be read now.
        """
        if self._store is None:
            raise NotFound("this console has no evidence folder: start it with --evidence FOLDER")
        _require_servable(item, evidence)
        if evidence.media_type != CLIP_TYPE:
            return await self._read(self._store, evidence)
        async with self._one_clip:
            self._forget_old_clips()
            key = evidence.name, evidence.sha256
            if key in self._clips:
                return self._clips[key][1]
            found = await self._read(self._store, evidence)
            self._clips[key] = self._clock.monotonic() + CLIPS_S, found
            self._forget_old_clips()
            return found

    def _forget_old_clips(self) -> None:
        """Forget clips that are too old, and then the oldest clips, until the clips in memory fit into
        ``CLIPS_BYTES``. A single clip always fits into ``CLIPS_BYTES``."""
        now_s = self._clock.monotonic()
        size = sum(len(found.data) for _, found in self._clips.values())
        for key, (until_s, found) in list(self._clips.items()):
            if until_s <= now_s or size > CLIPS_BYTES:
                del self._clips[key]
                size -= len(found.data)

    async def _read(self, store: EvidenceStore, evidence: Evidence) -> ServedFile:
        """Read a file from the evidence store and compare its hash with the hash on the log. Raise NotFound or
        Unavailable."""
        shown = repr(evidence.name[:200])
        if self._is_silent:
            raise Unavailable("the evidence store cannot be read: it does not answer")
        try:
            data, found = await asyncio.to_thread(_read_now, store, evidence.name)
        except EvidenceChanged:
            raise NotFound(f"evidence {shown} was changed: it cannot be decrypted") from None
        except StoreFailed as error:
            self._note(str(error))
            raise Unavailable(f"the evidence store cannot be read: {error}") from None
        except (StreamError, OSError, ValueError):
            raise NotFound(f"evidence {shown} is not in the store: it may have expired") from None
        self._note("")
        if len(data) > MAX_FILE_BYTES:
            raise NotFound(f"evidence {shown} has more than {MAX_FILE_BYTES} bytes")
        if found != evidence.sha256:
            raise NotFound(f"evidence {shown} was changed: its hash differs from that of the alert")
        return ServedFile(data, evidence.media_type, found)

    async def picture(self, feed: Feed, item: ReviewItem, *, plain: bool = False) -> ServedFile:
        """Return the picture of an event: the annotated picture of its evidence, another picture of its evidence, or
        the frame in the log if the evidence cannot be had. Raise NotFound."""
        pictures = [one for one in evidence_of(item) if one.media_type.startswith("image/")]
        pictures.sort(key=lambda one: ("-annotated." in one.name) is plain)
        for one in pictures:
            with contextlib.suppress(NotFound, Unavailable):
                return await self.read(item, one)
        data = item.event.data
        if data.frame is None or data.camera is None:
            raise NotFound("this event has no picture")
        frame = await feed.frame(data.frame, FrameId(data.camera, data.epoch, data.seq))
        return ServedFile(frame.image, f"image/{frame.encoding}", hashlib.sha256(frame.image).hexdigest())


def _require_servable(item: ReviewItem, evidence: Evidence) -> None:
    """Raise NotFound for a file that the console must not serve."""
    owner, shown = f"{item.event.subject}/", repr(evidence.name[:200])
    if not evidence.name.startswith(owner) or ".." in evidence.name.split("/"):
        raise NotFound(f"evidence {shown}: expected a name that begins with {owner!r}")
    if evidence.media_type not in MEDIA_TYPES:
        raise NotFound(f"evidence of type {evidence.media_type[:50]!r}: expected one of {sorted(MEDIA_TYPES)}")
    if why := item.evidence.deleted.get(evidence.name):
        raise NotFound(f"evidence {shown} was deleted: {why}")


def _probe_now(store: EvidenceStore) -> str:
    """Return the error that prevents reading a store; empty if the store can be read. This function runs in a
    thread."""
    try:
        store.open(_PROBE).close()
    except (NotStored, EvidenceChanged):
        return ""
    except (StreamError, OSError) as error:
        return str(error)
    return ""


def _read_now(store: EvidenceStore, name: str) -> tuple[bytes, str]:
    """Return the bytes of a file and their SHA-256. Reading and hashing take long for a clip, so this function runs
    in a thread."""
    with store.open(name) as file:
        data = file.read(MAX_FILE_BYTES + 1)
    return data, hashlib.sha256(data).hexdigest()
