"""Models of the API's responses."""

from __future__ import annotations

from pydantic import BaseModel

from console.evidence import evidence_of
from console.live.happenings import ReviewItem
from ingest.contract.records import Alert, Delivery, Event, Evidence


class CameraItem(BaseModel):
    """A camera with its state. ``place`` is empty for a camera without a place."""

    name: str
    site: str
    place: str
    state: str
    reason: str


class EventItem(BaseModel):
    """An event with its alerts, and the last receipt of each alert and receiver.

    ``files`` is the number of pictures and clips in ``evidence``, whose addresses are `/api/events/ID/evidence/0`,
    `/api/events/ID/evidence/1` and so on.
    """

    event: Event
    at_ns: int
    alerts: list[Alert]
    receipts: list[Delivery]
    files: int
    evidence: list[Evidence]

    @classmethod
    def of(cls, item: ReviewItem) -> EventItem:
        """Return the response for an event."""
        found = evidence_of(item)
        return cls(
            event=item.event,
            at_ns=item.at_ns,
            alerts=list(item.alerts),
            receipts=list(item.receipts),
            files=len(found),
            evidence=found,
        )


class EventPage(BaseModel):
    """Events, the newest first. ``before`` is the value to pass as the query parameter ``before`` for the next page;
    empty on the last page."""

    items: list[EventItem]
    before: str


class AlertItem(BaseModel):
    """An alert with the last receipt of each receiver."""

    alert: Alert
    receipts: list[Delivery]


class Problem(BaseModel):
    """The body of a response with an error status."""

    detail: str
