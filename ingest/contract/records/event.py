"""Events and alerts, which are CloudEvents, and delivery receipts.

CloudEvents have version 1.0 and the structured JSON mode (https://github.com/cloudevents/spec).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ingest.contract.identity import place_key
from ingest.contract.records.base import Box, Count, FrameRef, Id, Many, Name, Point, Record, SmallMap
from ingest.contract.records.frame import Lane

DetailValue = str | bool | int | float
"""A JSON scalar other than ``null``. The map of details contains only details that have a value."""
Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""All severities, the lowest first."""
COLOURS = ("black", "grey", "white", "red", "orange", "brown", "yellow", "green", "blue", "purple", "pink")
"""All names of colours of objects in alerts. A silver object is grey."""
Text = Annotated[str, Field(max_length=2000)]
Time = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$")]
MAX_POINTS = 10_000
"""Maximum number of points of a rule's shape, or of an object's trail, in one event."""
MAX_CLIP_S = 60.0
"""Maximum length of a clip before the event, and after it, in seconds."""
Points = Annotated[Many[Point], Field(max_length=MAX_POINTS)]
MAX_GAP_S = 3600.0
"""Longest gap between two events of one incident that a site file may set (``incident_gap_s``), in seconds. A
restarted alerts worker reads back the incidents of this many seconds."""
GapSeconds = Annotated[float, Field(ge=0.0, le=MAX_GAP_S)]
DEFAULT_GAP_S = 120.0
"""Default gap between two events of one incident (``incident_gap_s``), in seconds: a person walks from one camera of
a place to the next in less time."""
Change = Literal["begin", "update", "end"]
"""Role of a record or an alert in its incident."""
Reason = Literal["severity", "camera", "events", "reopened"]
"""Why an update of an incident is of interest: the severity rose, a camera or sensor joined, the number of events
reached 10, 100, 1,000 and so on, or an event followed the end. An update for any other cause has no reason."""
Reasons = Annotated[Many[Reason], Field(max_length=4)]

DeliveryState = Literal["delivered", "retrying", "dead", "skipped"]
"""State of an alert at a receiver. ``skipped`` means that the receiver's filters exclude the alert, or that a person
acknowledged its incident before the escalation."""


class CloudEvent(Record):
    """The CloudEvents envelope of events and alerts. ``time`` is RFC 3339 in UTC."""

    specversion: Literal["1.0"] = "1.0"
    id: Id
    source: Text
    type: Text
    subject: Name
    time: Time
    datacontenttype: Literal["application/json"] = "application/json"


class Overlay(Record):
    """Shapes to draw on the evidence picture: a rule's line or polygon, a box and a trail, in pixels of the frame."""

    KIND: ClassVar[str] = "overlay"

    shape: Points = ()
    box: Box | None = None
    trail: Points = ()


class ClipRequest(Record):
    """The clip that a rule requests for its events: seconds before and after the event.

    With ``boxes``, a second clip has the boxes of the detected objects drawn.
    """

    KIND: ClassVar[str] = "clip-request"

    before_s: float = Field(ge=0.0, le=MAX_CLIP_S)
    after_s: float = Field(ge=0.0, le=MAX_CLIP_S)
    boxes: bool = False


class EventData(Record):
    """The body of an event. ``late`` marks an event that was detected in late or replayed frames.

    Late events never overtake or delay live events. ``incident`` is the same in all events of one track or occurrence
    that a rule reports. ``place`` is the place of the camera or sensor, empty if the site file sets none. The events
    of one type at one place become one incident while they follow each other within ``incident_gap_s`` seconds.
    ``clip`` requests a clip, which is made after the event's alert.
    """

    KIND: ClassVar[str] = "event-data"
    VERSION: ClassVar[tuple[int, int]] = (1, 1)

    incident: Id
    rule: Name
    severity: Severity = "warning"
    incident_gap_s: GapSeconds = DEFAULT_GAP_S
    site: str = ""
    place: Name | None = None
    camera: Name | None = None
    sensor: Name | None = None
    lane: Lane = "live"
    late: bool = False
    summary: Text
    label: Text = ""
    score: float = 0.0
    track: Text = ""
    details: Annotated[dict[str, DetailValue], SmallMap] = {}
    epoch: Count = 0
    seq: Count = 0
    captured_ns: Count = 0
    frame: FrameRef | None = None
    overlay: Overlay = Overlay()
    clip: ClipRequest | None = None


class Event(CloudEvent):
    """An event that a rule detected, e.g. of type ``sightline.line.crossed``.

    The event's id is derived from the event's cause, so that an event that is detected again has the same id.
    """

    KIND: ClassVar[str] = "event"
    VERSION: ClassVar[tuple[int, int]] = (1, 1)

    data: EventData

    @property
    def place(self) -> str:
        """Full name of the event's place, which determines the partition of the event."""
        return place_key(self.subject, self.data.site, self.data.place)


class Evidence(Record):
    """The address and hash of a stored picture or clip.

    ``sha256`` is the hash of the contents in hexadecimal digits, and ``size`` their number of bytes; 0 in records of
    version 1.0. The hash of an encrypted file is that of its decrypted contents.
    """

    KIND: ClassVar[str] = "evidence"
    VERSION: ClassVar[tuple[int, int]] = (1, 1)

    name: str
    url: str
    sha256: str
    media_type: str
    size: Count = 0


class AlertData(EventData):
    """The body of an alert: an event with the pictures that were stored before the alert was written.

    Alerts of sensors have no pictures. If the picture of a camera's event could not be stored in time,
    ``evidence_missing`` has the reason. ``incident`` is the id of the alert's incident on the topic ``incidents``.
    ``change`` and ``reasons`` are copied from the record on the topic ``incidents``. The alert of an incident's end
    names the incident's last event and has no evidence.
    """

    KIND: ClassVar[str] = "alert-data"
    VERSION: ClassVar[tuple[int, int]] = (1, 3)

    event: Id
    evidence: Many[Evidence] = ()
    evidence_missing: Text = ""
    change: Change = "begin"
    reasons: Reasons = ()
    colours: Annotated[Many[Annotated[str, Field(max_length=32)]], Field(max_length=4)] = ()


class Alert(CloudEvent):
    """An alert as receivers get it.

    ``id`` is the ``webhook-id`` of every delivery attempt, so that a receiver recognises a repeated alert.
    """

    KIND: ClassVar[str] = "alert"
    VERSION: ClassVar[tuple[int, int]] = (1, 1)

    data: AlertData


class Delivery(Record):
    """The receipt of one attempt to deliver an alert to a receiver, or the note that a receiver's filters skipped the
    alert.

    The state of an alert's last receipt is ``delivered``, ``dead`` or ``skipped``. ``replay`` is the id of a replay,
    and empty in receipts of an alert's first delivery.
    """

    KIND: ClassVar[str] = "delivery"

    alert: Id
    incident: Id
    receiver: Name
    state: DeliveryState
    attempt: int = Field(ge=1)
    status: int | None = None
    reason: str = ""
    captured_ns: Count = 0
    attempted_ns: Count
    next_attempt_ns: Count | None = None
    replay: Annotated[str, Field(max_length=100)] = ""

    @property
    def task(self) -> str:
        """Key of the delivery task: the alert's id, with the id of the replay if there is one."""
        return delivery_key(self.alert, self.replay)


def delivery_key(alert: str, replay: str = "") -> str:
    """Return the key of the delivery of an alert to a receiver, or of a replay of the delivery."""
    return f"{alert}/{replay}" if replay else alert
