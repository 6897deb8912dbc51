"""Make the alert and the evidence pictures of an event.

The functions have no side effects, except that they write to the evidence store.
"""

from __future__ import annotations

from typing import NamedTuple

from ingest import picture
from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.identity import FrameId
from ingest.contract.records import Alert, AlertData, Event, Evidence, Frame
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord
from stream.alerts.colour import colours_of
from stream.alerts.pictures import annotated, decoded
from stream.events import event_id
from stream.evidence import names
from stream.evidence.store import EvidenceStore
from stream.exceptions import EvidenceMissing

MAX_MISSING_CHARS = 500
"""Maximum length in characters of the reason why an alert has no pictures."""
_MEDIA_TYPE = {"jpeg": "image/jpeg", "webp": "image/webp"}


def alert_id(event: Event) -> str:
    """Return the id of an event's alert, which depends only on the event's id.

    Every delivery attempt sends the alert's id in the header ``webhook-id``.
    """
    return f"msg_{event_id('alert', event.id)}"


class StoredPictures(NamedTuple):
    """References to the stored pictures of an event, and the names of the colours of its object."""

    evidence: tuple[Evidence, ...] = ()
    colours: tuple[str, ...] = ()


def evidence_of(event: Event, record: LogRecord | None, store: EvidenceStore) -> StoredPictures:
    """Store the original picture of an event and a copy with drawings.

    Return no pictures for a sensor's event, which has no picture. Raise EvidenceMissing if ``record`` is None or
    is not the event's frame, PictureError if the picture is damaged or too large, StoreFailed if the store cannot
    write.
    """
    if event.data.frame is None:
        return StoredPictures()
    frame = _frame(event, record)
    stem = names.stem(event.subject, event.time, event.id)
    media_type = _MEDIA_TYPE[frame.encoding]
    original = store.put(f"{stem}-original.{frame.encoding.replace('jpeg', 'jpg')}", frame.image, media_type)
    image, box = decoded(frame.image, event), event.data.overlay.box
    colours = colours_of(image, box) if box else ()
    drawn = store.put(f"{stem}-annotated.jpg", annotated(image, event), "image/jpeg")
    return StoredPictures((original, drawn), colours)


def make_alert(
    event: Event, evidence: tuple[Evidence, ...], missing: str = "", colours: tuple[str, ...] = ()
) -> Alert:
    """Return the alert for an event, with references to the stored evidence pictures.

    ``missing`` is the reason why a camera's event has no pictures.
    """
    fields = {name: getattr(event.data, name) for name in type(event.data).model_fields}
    return Alert(
        id=alert_id(event),
        source=event.source,
        type="sightline.alert",
        subject=event.subject,
        time=event.time,
        data=AlertData(
            **fields,
            event=event.id,
            evidence=evidence,
            evidence_missing=missing[:MAX_MISSING_CHARS],
            colours=colours,
        ),
    )


def _frame(event: Event, record: LogRecord | None) -> Frame:
    wanted = FrameId(event.data.camera or "", event.data.epoch, event.data.seq)
    if record is None:
        raise EvidenceMissing(f"frame {wanted} at {event.data.frame} is no longer in the Kafka topic")
    if h.frames_of(record.headers) not in ((wanted,), ()):
        raise EvidenceMissing(f"the record at {event.data.frame} is not frame {wanted}")
    try:
        frame = decode(Frame, record.value)
    except CodecError as error:
        raise EvidenceMissing(f"frame {wanted} cannot be read: {error}") from None
    if frame.id != wanted:
        raise EvidenceMissing(f"the record at {event.data.frame} is frame {frame.id}: expected {wanted}")
    picture.check(frame.image, frame.encoding, (frame.width, frame.height))
    return frame
