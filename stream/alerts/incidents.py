"""Assign the events of one partition to incidents, and make the records of the incidents and the alerts of their
ends."""

from __future__ import annotations

from pydantic import ValidationError

from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records import Alert, AlertData, Event, Incident
from ingest.contract.records.event import MAX_GAP_S
from ingest.contract.topics import ALERTS, EVENTS, INCIDENTS, partition_for
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.runtime import logs
from ingest.runtime.clock import Clock
from stream.events import event_id, rfc3339
from stream.incidents.grouping import IncidentGrouper
from stream.readback import written_since

_log = logs.get("stream.incidents")

ID = "sightline-alert"
"""Kafka header with the alert's id, so that a reader gets the id without decoding the record."""
MARGIN_MS = 60_000
"""Maximum difference in ms between the clocks of two brokers, and between the times at which the records of one event
are written."""


def end_alert(incident: Incident) -> Alert:
    """Return the alert of an incident's end, which has no evidence. The alert's id depends only on the incident's
    version."""
    subject, count = incident.subjects[0], len(incident.subjects)
    places = "1 camera or sensor" if count == 1 else f"{count} cameras and sensors"
    events = "1 event" if incident.events == 1 else f"{incident.events} events"
    own = incident.place.rpartition("/")[2]
    return Alert(
        id=f"msg_{event_id('end', incident.id, incident.events)}",
        source=(f"/{incident.site}/{subject}" if incident.site else f"/{subject}")[:2000],
        type="sightline.incident.ended",
        subject=subject,
        time=rfc3339(incident.last_ns),
        data=AlertData(
            incident=incident.id,
            rule=incident.rules[0],
            severity=incident.severity,
            incident_gap_s=incident.gap_s,
            site=incident.site,
            place=None if incident.place in incident.subjects else own,
            camera=incident.cameras[0] if incident.cameras else None,
            sensor=incident.sensors[0] if incident.sensors and not incident.cameras else None,
            lane=incident.lane,
            late=incident.lane != "live",
            summary=f"ended after {events} of {places}: {incident.summary}"[:2000],
            captured_ns=incident.last_ns,
            event=incident.event,
            change="end",
        ),
    )


class PartitionIncidents:
    """The incidents of one partition of events, with the records to write.

    ``partitions`` is the number of partitions of ``incidents``, and ``alert_partitions`` is the number of partitions
    of ``alerts``.
    """

    def __init__(self, partitions: int, alert_partitions: int, clock: Clock) -> None:
        self._partitions, self._alert_partitions, self._clock = partitions, alert_partitions, clock
        self._grouper = IncidentGrouper()
        self.since_ms = 0
        """Time since which the records of incidents were read back, in Unix ms by the broker's clock."""
        self._recent: set[str] = set()
        """Ids of the alerts that an earlier owner of the partition wrote so lately that the records of their
        incidents were read back."""
        self._ends: dict[str, Incident] = {}
        """Incidents whose end is on the log, but perhaps not the alert of the end, because a killed owner may have
        written only the record. The key is the alert's id."""

    @classmethod
    async def open(
        cls, tp: TopicPartition, position: int, log: Log, alert_partitions: int, clock: Clock
    ) -> PartitionIncidents:
        """Create the state of a partition of events from the records that an earlier owner wrote. Raise
        LogUnavailable."""
        partitions, events = len(await log.ends(INCIDENTS)), len(await log.ends(EVENTS))
        made = cls(partitions, alert_partitions, clock)
        since_ms = await _written_ms(log, tp, position - 1) or clock.now_ns() // 1_000_000
        made.since_ms = max(0, since_ms - round(MAX_GAP_S * 1000) - MARGIN_MS)
        found: list[Incident] = []
        for partition in [tp.partition] if partitions == events else range(partitions):
            for record in await written_since(log, TopicPartition(INCIDENTS, partition), made.since_ms):
                incident = _decoded(record)
                if incident and partition_for(incident.place, events) == tp.partition:
                    found.append(incident)
        made._grouper.restore(found, clock.monotonic())
        made._ends = {end_alert(one).id: one for one in found if one.ended}
        return made

    def written(self, alert: str, at_ms: int) -> None:
        """Note an alert that an earlier owner wrote at the broker's time ``at_ms``, in Unix ms."""
        self._ends.pop(alert, None)
        if at_ms >= self.since_ms + MARGIN_MS:
            self._recent.add(alert)

    def add(self, event: Event, record: LogRecord) -> tuple[Outgoing, ...]:
        """Assign an event to its incident, and return the records of the incidents that change."""
        changes = self._grouper.add(event, max(0, record.timestamp_ms) * 1_000_000, self._clock.monotonic())
        return self._outgoing(changes)

    def complete(self, event: Event, alert: str, record: LogRecord) -> tuple[Outgoing, ...]:
        """Return the records on ``incidents`` that are still missing for an event whose alert is already written."""
        known = self._grouper.incident_of(event.id) is not None
        return self.add(event, record) if known or alert in self._recent else ()

    def assigned(self, alert: Alert) -> Alert:
        """Return an alert with its incident. The alert's event must have been added."""
        incident = self._grouper.incident_of(alert.data.event)
        if incident is None:
            return alert
        own = {"incident": incident.id, "change": incident.change, "reasons": incident.reasons}
        return alert.model_copy(update={"data": alert.data.model_copy(update=own)})

    @property
    def deadline(self) -> float | None:
        """Time of the next call of ``ends``, on the monotonic clock in seconds; None if no incident is open."""
        return 0.0 if self._ends else self._grouper.deadline_s

    def ends(self) -> tuple[Outgoing, ...]:
        """Return the records of the incidents that have ended by now, and the alerts of their ends."""
        lost, self._ends = self._ends, {}
        alerts = tuple(self.outgoing(end_alert(one), one.place) for one in lost.values())
        return (*alerts, *self._outgoing(self._grouper.ends_due(self._clock.monotonic())))

    def outgoing(self, alert: Alert, place: str) -> Outgoing:
        """Return the record of an alert. All alerts of one place are in one partition."""
        headers = {**h.CLOUD_EVENT, ID: alert.id.encode()}
        partition, key = partition_for(place, self._alert_partitions), alert.data.incident.encode()
        return Outgoing(ALERTS, partition, encode_json(alert), key=key, headers=headers)

    def _outgoing(self, changes: list[Incident]) -> tuple[Outgoing, ...]:
        records = []
        for one in changes:
            partition = partition_for(one.place, self._partitions)
            records.append(Outgoing(INCIDENTS, partition, encode_json(one), key=one.id.encode()))
            if one.ended:
                records.append(self.outgoing(end_alert(one), one.place))
        return tuple(records)


async def _written_ms(log: Log, tp: TopicPartition, offset: int) -> int | None:
    """Return the broker's time of a record in Unix ms; None if retention has deleted the record."""
    if (await log.beginnings(tp.topic))[tp.partition] <= offset < (await log.ends(tp.topic))[tp.partition]:
        async for record in log.read(*tp, offset, offset + 1):
            return record.timestamp_ms
    return None


def _decoded(record: LogRecord) -> Incident | None:
    try:
        incident = decode_json(Incident, record.value)
        end_alert(incident)  # must be possible later
    except (CodecError, ValidationError) as error:
        place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        _log.warning("incident_record_unreadable", **place, error=str(error))
        return None
    return incident
