"""Events with their alerts, receipts and evidence, the newest of each in memory."""

from __future__ import annotations

import asyncio
import bisect
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Generic, Literal, TypeVar

from console.live.view import TopicView
from console.review.path import is_near
from ingest.contract.codec import decode_json
from ingest.contract.records import Alert, Delivery, Event, EvidenceRecord
from ingest.contract.topics import ALERTS, DELIVERIES, EVENTS
from ingest.kafka.log import LogRecord
from ingest.runtime.clock import unix_ns

MAX_EVENTS = 10_000
"""Maximum number in memory of events, of alerts, of alerts with receipts, and of events with records of evidence.
All these records take about 90 MB of memory. Older records are still in the log."""
MAX_NEWS = 1000
"""Maximum number of new events, alerts and receipts in memory, from which a stream can continue after an
interruption."""
MAX_TIME_NS = 2**63 - 1
"""Latest time of an event that the console can store, in Unix ns. If an event states a later time, which pages cannot
show, the console replaces it by ``MAX_TIME_NS``."""
YIELD_EVENTS = 50
"""Number of events after which a search lets other tasks run. Comparing 50 trails with a sketched path takes 5 ms."""
NewsKind = Literal["event", "alert", "delivery"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class News:
    """A new event, alert or receipt. ``number`` counts all new events, alerts and receipts since the console
    started."""

    number: int
    kind: NewsKind
    record: Event | Alert | Delivery


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Selects events. A field that is an empty text or a time of 0 selects all events. Times are in Unix ns;
    ``until_ns`` is exclusive."""

    camera: str = ""
    sensor: str = ""
    site: str = ""
    place: str = ""
    rule: str = ""
    label: str = ""
    severity: str = ""
    colour: str = ""
    path: tuple[tuple[float, float], ...] = ()
    """Path that a user has sketched on a camera's picture, in pixels of the frame. Only events are selected whose
    object's trail follows the sketched path within ``near`` pixels."""
    near: float = 0.0
    since_ns: int = 0
    until_ns: int = 0
    before: tuple[int, str] | None = None
    """Time in Unix ns and id of an event: select only older events, to continue a list after this event."""

    def matches(self, event: Event) -> bool:
        """Return whether the filter selects an event."""
        data = event.data
        wanted = (
            (self.camera, data.camera),
            (self.sensor, data.sensor),
            (self.site, data.site),
            (self.place, event.place),
            (self.rule, data.rule),
            (self.label, data.label),
            (self.severity, data.severity),
        )
        if not all(not value or value == found for value, found in wanted):
            return False
        return not self.path or is_near(self.path, event.data.overlay.trail, self.near)


@dataclass(slots=True)
class EventEvidence:
    """The records of an event on the topic ``evidence``.

    ``stored`` lists the files of the event's alert and the facts about its clip, None before the evidence worker has
    finished. ``deleted`` has the reason of each deleted file, by name.
    """

    stored: EvidenceRecord | None = None
    deleted: dict[str, str] = field(default_factory=dict)
    offset: int = -1
    """Offset of the newest record in the topic ``evidence``."""

    def add(self, record: EvidenceRecord, offset: int) -> None:
        """Add a record. A record that the reader gets again changes nothing."""
        if offset <= self.offset:
            return
        self.offset = offset
        if record.state == "stored":
            self.stored = record
            for file in record.files:  # stored again after its deletion
                self.deleted.pop(file.name, None)
        else:
            why = f"{record.reason}, by {record.by}" if record.by else record.reason
            self.deleted |= dict.fromkeys(record.deleted, why)


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """An event with its alerts, the last receipt of each alert and receiver, and its records of evidence."""

    event: Event
    at_ns: int
    alerts: tuple[Alert, ...]
    receipts: tuple[Delivery, ...]
    evidence: EventEvidence = field(default_factory=EventEvidence)


class NewestItems(Generic[T]):
    """The items with the latest times, up to ``MAX_EVENTS``.

    The choice does not depend on the order in which items are added, because topics are read partition by partition,
    and again after an outage. ``order`` has the time in ns and the id of each item, the oldest first.
    """

    def __init__(self) -> None:
        self.items: dict[str, T] = {}
        self.order: list[tuple[int, str]] = []

    def add(self, id_: str, at_ns: int, item: T) -> T | None:
        """Add an item with a new id. If the new item exceeds the limit, remove the oldest item, perhaps the new one,
        and return it; else return None."""
        self.items[id_] = item
        bisect.insort(self.order, (at_ns, id_))
        return self.items.pop(self.order.pop(0)[1]) if len(self.order) > MAX_EVENTS else None


class Happenings:
    """The newest events by time, their alerts, and the receipts of the alerts.

    ``on_news`` is called for each event, alert or receipt that is new. Records that are read while ``is_current``
    returns false do not count as new: the console has just started and reads the past.
    """

    def __init__(
        self, on_news: Callable[[], None] = lambda: None, is_current: Callable[[], bool] = lambda: True
    ) -> None:
        self._on_news, self._is_current = on_news, is_current
        self._events: NewestItems[Event] = NewestItems()
        self._alerts: NewestItems[Alert] = NewestItems()
        self._alerts_of: dict[str, list[str]] = {}
        self._receipts: NewestItems[dict[str, Delivery]] = NewestItems()
        self._evidence: NewestItems[EventEvidence] = NewestItems()
        self._news: deque[News] = deque(maxlen=MAX_NEWS)
        self.counted = 0
        """Number of new events, alerts and receipts since the console started."""
        self.run_id = secrets.token_hex(4)
        """Random name of this run of the console, because ``counted`` starts again with the next run."""

    def add_event(self, event: Event) -> None:
        """Add an event. An event that is in memory already, or too old for the memory, is ignored."""
        if event.id in self._events.items:
            return
        if self._events.add(event.id, time_of(event), event) is not event:
            self._tell("event", event)

    def add_alert(self, alert: Alert) -> None:
        """Add an alert. An alert that is in memory already, or too old for the memory, is ignored."""
        if alert.id in self._alerts.items:
            return
        old = self._alerts.add(alert.id, time_of(alert), alert)
        if old is alert:
            return
        self._alerts_of.setdefault(alert.data.event, []).append(alert.id)
        if old is not None:
            left = [one for one in self._alerts_of.pop(old.data.event) if one != old.id]
            if left:
                self._alerts_of[old.data.event] = left
        self._tell("alert", alert)

    def add_receipt(self, receipt: Delivery) -> None:
        """Add a receipt. Only the last receipt of each alert and receiver is kept."""
        receipts = self._receipts.items.get(receipt.alert)
        if receipts is None:
            receipts = {}
            if self._receipts.add(receipt.alert, receipt.attempted_ns, receipts) is receipts:
                return
        known = receipts.get(receipt.receiver)
        if known and (known.attempted_ns, known.attempt) >= (receipt.attempted_ns, receipt.attempt):
            return
        receipts[receipt.receiver] = receipt
        self._tell("delivery", receipt)

    def add_evidence(self, record: EvidenceRecord, offset: int) -> None:
        """Add a record of the topic ``evidence``. The record of an event that is too old for the memory is
        ignored."""
        found = self._evidence.items.get(record.event)
        if found is None and record.event:
            found = EventEvidence()
            if self._evidence.add(record.event, record.captured_ns, found) is found:
                return
        if found is not None:
            found.add(record, offset)

    def event(self, number: str) -> ReviewItem | None:
        """Return an event by id with its alerts, None if the event is not in memory."""
        event = self._events.items.get(number)
        return self._item(event) if event else None

    def alert(self, number: str) -> Alert | None:
        """Return an alert by id, None if the alert is not in memory."""
        return self._alerts.items.get(number)

    def alerts(self) -> Iterator[Alert]:
        """Yield all alerts in memory, the newest first."""
        for _, number in reversed(self._alerts.order):
            yield self._alerts.items[number]

    def of_incident(self, incident: str) -> list[str]:
        """Return the ids of the events whose alerts belong to an incident, the newest event first."""
        found = (alert.data for alert in self.alerts() if alert.data.incident == incident)
        return list(dict.fromkeys(data.event for data in found))

    def receipts(self, alert: str) -> tuple[Delivery, ...]:
        """Return the last receipt of each receiver of an alert, sorted by receiver."""
        return tuple(receipt for _, receipt in sorted(self._receipts.items.get(alert, {}).items()))

    async def newest(self, wanted: EventFilter, sees: Callable[[Event], bool], limit: int) -> list[ReviewItem]:
        """Return up to ``limit`` selected events that ``sees`` allows, the newest first.

        Let other tasks run after each ``YIELD_EVENTS`` events: comparing 10,000 trails with a sketched path takes a
        second.
        """
        found: list[ReviewItem] = []
        ends = [(wanted.until_ns, "")] if wanted.until_ns else []
        ends += [wanted.before] if wanted.before else []
        order = self._events.order
        stop = bisect.bisect_left(order, min(ends)) if ends else len(order)
        for count, (at_ns, number) in enumerate(reversed(order[:stop]), 1):
            if at_ns < wanted.since_ns or len(found) >= limit:
                break
            if count % YIELD_EVENTS == 0:
                await asyncio.sleep(0)
            event = self._events.items.get(number)
            if event is None or not self._has_colour(number, wanted.colour):
                continue
            if wanted.matches(event) and sees(event):
                found.append(self._item(event))
        return found

    def _has_colour(self, event: str, colour: str) -> bool:
        alerts = (self._alerts.items[one] for one in self._alerts_of.get(event, ()))
        return not colour or any(colour in alert.data.colours for alert in alerts)

    def labels(self, sees: Callable[[Event], bool]) -> list[str]:
        """Return the labels of all events in memory that ``sees`` allows, sorted."""
        found: set[str] = set()
        for event in self._events.items.values():
            if event.data.label and event.data.label not in found and sees(event):
                found.add(event.data.label)
        return sorted(found)

    def news_after(self, number: int) -> tuple[list[News], bool]:
        """Return the new events, alerts and receipts after a number, and whether some in between are no longer in
        memory."""
        found = [news for news in self._news if news.number > number]
        first = self._news[0].number if self._news else self.counted + 1
        return found, number + 1 < first

    def _item(self, event: Event) -> ReviewItem:
        alerts = tuple(self._alerts.items[one] for one in self._alerts_of.get(event.id, ()))
        receipts = tuple(receipt for alert in alerts for receipt in self.receipts(alert.id))
        evidence = self._evidence.items.get(event.id) or EventEvidence()
        return ReviewItem(event, time_of(event), alerts, receipts, evidence)

    def _tell(self, kind: NewsKind, record: Event | Alert | Delivery) -> None:
        if not self._is_current():
            return
        self.counted += 1
        self._news.append(News(self.counted, kind, record))
        self._on_news()


def time_of(event: Event | Alert) -> int:
    """Return the time of an event in Unix ns: the capture time, or the time of the event itself for a sensor."""
    if event.data.captured_ns:
        return event.data.captured_ns
    try:
        at_ns = unix_ns(datetime.fromisoformat(event.time))
    except ValueError:
        return 0  # the pattern of the field also allows days that do not exist
    return min(max(at_ns, 0), MAX_TIME_NS)


class EventView(TopicView):
    """Events."""

    topic: ClassVar[str] = EVENTS
    backlog: ClassVar[int] = MAX_EVENTS

    def __init__(self, happenings: Happenings) -> None:
        self._happenings = happenings

    def apply(self, record: LogRecord) -> None:
        """Add an event."""
        self._happenings.add_event(decode_json(Event, record.value))


class AlertView(TopicView):
    """Alerts."""

    topic: ClassVar[str] = ALERTS
    backlog: ClassVar[int] = MAX_EVENTS

    def __init__(self, happenings: Happenings) -> None:
        self._happenings = happenings

    def apply(self, record: LogRecord) -> None:
        """Add an alert."""
        self._happenings.add_alert(decode_json(Alert, record.value))


class DeliveryView(TopicView):
    """Receipts of alerts."""

    topic: ClassVar[str] = DELIVERIES
    backlog: ClassVar[int] = MAX_EVENTS

    def __init__(self, happenings: Happenings) -> None:
        self._happenings = happenings

    def apply(self, record: LogRecord) -> None:
        """Add a receipt."""
        self._happenings.add_receipt(decode_json(Delivery, record.value))
