"""Tests of filters, quiet hours, escalation and replays of one receiver. Without Kafka."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import OffsetAndMetadata

from ingest.contract.codec import encode_json
from ingest.contract.records import Alert, Delivery, IncidentAction
from ingest.contract.topics import ALERTS, INCIDENT_ACTIONS
from ingest.kafka.log import LogRecord, Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import ManualClock
from ingest.site import ReceiverConfig, Site
from stream.alerts.alert import make_alert
from stream.delivery.acknowledgements import Acknowledgements
from stream.delivery.clients.webhook import LogDeliverer
from stream.delivery.dispatcher import Dispatcher
from stream.delivery.filters import ReceiverFilter
from stream.delivery.pending import AlertPosition, PendingDeliveries, ReceiverPosition
from stream.delivery.progress import OwnedAlerts
from stream.delivery.replay import make_replay, replay_of
from stream.delivery.throttle import FAILURES
from tests.stream.alerts.test_alerts import event
from tests.stream.delivery.senderrig import BROKEN, GONE, NOW_S, OK, SenderRig

NIGHT = {"start": "22:00", "end": "06:00"}


def config(**fields: Any) -> ReceiverConfig:
    usual = {"name": "r", "url": "http://receiver/", "secret_file": Path("s")}
    return ReceiverConfig.model_validate(usual | fields)


def alert(number: int = 0, **data: Any) -> Alert:
    made = make_alert(event(number), ())
    return made.model_copy(update={"data": made.data.model_copy(update=data)})


def at_ns(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e9)


class TestFilters:
    @pytest.mark.parametrize(
        ("fields", "data", "reason"),
        [
            ({"min_severity": "critical"}, {"severity": "warning"}, "severity warning: expected critical"),
            ({"min_severity": "warning"}, {"severity": "warning"}, ""),
            ({"rules": ["gate-*"]}, {"rule": "yard-in"}, "rule yard-in"),
            ({"rules": ["yard-*"]}, {"rule": "yard-in"}, ""),
            ({"labels": ["person"]}, {"label": "car"}, "label car"),
            ({"labels": ["person"]}, {"label": ""}, "label none"),
            ({"labels": ["person", "car"]}, {"label": "car"}, ""),
            ({"places": ["dock"]}, {"place": "yard"}, "place yard"),
            ({"places": ["yard"]}, {"place": "yard"}, ""),
            ({"places": ["north/*"]}, {"place": "yard", "site": "north"}, ""),
            ({"places": ["ro*"]}, {"place": None}, ""),
            ({}, {"change": "update"}, ""),
            ({}, {"change": "end"}, "change end"),
            ({"changes": ["begin"]}, {"change": "update"}, "change event"),
            ({"changes": ["begin", "update"]}, {"change": "update"}, "change event"),
            ({"changes": ["begin", "update"]}, {"change": "update", "reasons": ("severity",)}, ""),
            ({"changes": ["begin", "end"]}, {"change": "end"}, ""),
            ({"hours": [NIGHT]}, {"captured_ns": at_ns("2026-06-01T12:00:00")}, "hours"),
            ({"hours": [NIGHT]}, {"captured_ns": at_ns("2026-06-01T23:00:00")}, ""),
            ({"hours": [NIGHT], "time_zone": "Asia/Tokyo"}, {"captured_ns": at_ns("2026-06-01T14:00:00")}, ""),
        ],
    )
    def test_an_alert_that_a_filter_excludes_is_refused_with_the_reason(
        self, fields: dict[str, Any], data: dict[str, Any], reason: str
    ) -> None:
        refusal = ReceiverFilter(config(**fields)).refusal(alert(**data))
        assert (reason in refusal) if reason else not refusal

    def test_receivers_use_the_time_zone_of_their_site(self) -> None:
        receivers = (config(hours=[NIGHT]), config(name="s"), config(name="t", quiet_hours=[NIGHT], time_zone="UTC"))
        site = Site(time_zone="Asia/Tokyo", receivers=receivers)
        assert [one.time_zone for one in site.receivers] == ["Asia/Tokyo", None, "UTC"]

    def test_quiet_hours_end_at_their_minute_and_do_not_hold_back_severe_alerts(self) -> None:
        of = ReceiverFilter(config(quiet_hours=[NIGHT], quiet_below="critical"))
        night = at_ns("2026-06-01T23:12:34")
        assert of.quiet_until_ns(alert(severity="warning"), night) == at_ns("2026-06-02T06:00:00")
        assert of.quiet_until_ns(alert(severity="critical"), night) == 0
        assert of.quiet_until_ns(alert(severity="info"), at_ns("2026-06-02T06:00:00")) == 0
        assert of.quiet_until_ns(alert(severity="info"), at_ns("2026-06-02T22:00:00")) == at_ns("2026-06-03T06:00:00")


class TestSending:
    async def test_an_excluded_alert_has_a_receipt_and_is_not_posted(self) -> None:
        rig = SenderRig(lambda _: OK, min_severity="critical", max_per_minute=1)
        for number in range(3):
            rig.add(alert(number, severity="info"))
        rig.add(alert(3, severity="critical"))
        await rig.until(lambda: len(rig.receipts) == 4)
        await rig.sender.retire()
        assert rig.posts == [alert(3).id]
        skipped = [receipt for receipt in rig.receipts if receipt.state == "skipped"]
        assert {receipt.reason for receipt in skipped} == {"severity info: expected critical or higher"}
        assert len(skipped) == 3

    async def test_an_alert_in_quiet_hours_is_sent_when_they_end(self) -> None:
        now_ns = round(NOW_S * 1e9)
        minute = datetime.fromtimestamp(NOW_S, UTC)
        quiet = {"start": f"{minute:%H:%M}", "end": f"{minute.hour + 1:02}:{minute.minute:02}"}
        rig = SenderRig(lambda _: OK, quiet_hours=[quiet])
        rig.add(alert(0, severity="warning"))
        rig.add(alert(1, severity="critical"))
        await rig.until(lambda: len(rig.receipts) == 1)
        assert rig.posts == [alert(1).id]
        assert rig.sender.pending.next_s == (now_ns + 3600 * 10**9) / 1e9
        rig.clock.advance(3600.0)
        rig.sender.wake()
        await rig.until(lambda: len(rig.receipts) == 2)
        await rig.sender.retire()
        assert (rig.posts[1], rig.receipts[1].attempt) == (alert(0).id, 1)

    async def test_an_alert_in_quiet_hours_keeps_its_full_retry_time_while_its_receiver_is_down(
        self,
    ) -> None:
        minute = datetime.fromtimestamp(NOW_S, UTC)
        quiet = {"start": f"{minute:%H:%M}", "end": f"{minute.hour + 2:02}:{minute.minute:02}"}
        rig = SenderRig(lambda _: BROKEN, quiet_hours=[quiet], retry_s=(0, 60))
        for number in range(2 * FAILURES):
            rig.add(alert(number, severity="critical"))
        await rig.until(lambda: rig.sender.throttle.state == "open")
        late = alert(99, severity="warning")
        rig.add(late)  # waits for quiet hours, which nobody has checked yet
        rig.add(alert(98, severity="warning"), replay="again")
        rig.clock.advance(3600.0)
        rig.sender.wake()
        await rig.until(lambda: sum(one.state == "dead" for one in rig.receipts) == 2 * FAILURES + 1)
        rig.react = lambda _: OK
        rig.clock.advance(3600.0)
        rig.sender.wake()
        await rig.until(lambda: rig.receipts[-1].alert == late.id)
        await rig.sender.retire()
        assert (rig.receipts[-1].state, rig.receipts[-1].attempt) == ("delivered", 1)

    async def test_an_excluded_alert_is_skipped_and_not_dead_while_the_receiver_is_down(self) -> None:
        rig = SenderRig(lambda _: BROKEN, min_severity="critical", retry_s=(0, 60))
        for number in range(FAILURES):
            rig.add(alert(number, severity="critical"))
        await rig.until(lambda: rig.sender.throttle.state == "open")
        rig.add(alert(99, severity="info"))
        rig.clock.advance(3600.0)
        rig.sender.wake()
        await rig.until(lambda: any(one.alert == alert(99).id for one in rig.receipts))
        await rig.sender.retire()
        assert [one.state for one in rig.receipts if one.alert == alert(99).id] == ["skipped"]

    async def test_only_unacknowledged_alerts_are_escalated(self) -> None:
        rig = SenderRig(lambda _: OK, escalate_after_s=300)
        rig.add(alert(0, incident="seen"))
        rig.add(alert(1, incident="unseen"))
        rig.acknowledged["seen"] = "alice"
        assert rig.sender.pending.next_s == NOW_S + 300
        rig.clock.advance(300.0)
        rig.sender.wake()
        await rig.until(lambda: len(rig.receipts) == 2)
        await rig.sender.retire()
        assert rig.posts == [alert(1).id]
        states = {receipt.incident: (receipt.state, receipt.reason) for receipt in rig.receipts}
        assert states == {"seen": ("skipped", "acknowledged by alice"), "unseen": ("delivered", "")}

    async def test_the_time_until_escalation_counts_from_the_writing_of_the_alert(self) -> None:
        rig = SenderRig(lambda _: OK, escalate_after_s=300, retry_s=(2, 5))
        pauses = [rig.sender.first_pause_s(waited_s) for waited_s in (-5.0, 0.0, 100.0, 1000.0)]
        await rig.sender.retire()
        assert pauses == [302.0, 302.0, 202.0, 2.0]

    async def test_a_replay_is_sent_with_the_same_alert_id_to_a_receiver_that_answered_410_before(self) -> None:
        rig = SenderRig(lambda _: GONE)
        rig.add(alert(0))
        await rig.until(lambda: len(rig.receipts) == 1)
        rig.react = lambda _: OK
        rig.add(alert(0), replay="again")
        await rig.until(lambda: len(rig.receipts) == 2)
        rig.enter(1, first=1)
        await rig.until(lambda: len(rig.receipts) == 3)
        await rig.sender.retire()
        assert rig.posts == [alert(0).id, alert(0).id, alert(1).id]
        assert [(one.alert, one.replay, one.state) for one in rig.receipts[:2]] == [
            (alert(0).id, "", "dead"),
            (alert(0).id, "again", "delivered"),
        ]


async def test_only_the_named_receiver_gets_a_replay() -> None:
    dispatcher = Dispatcher(KafkaSettings(), [], lambda _: LogDeliverer())
    dispatcher._owned[0] = OwnedAlerts(0, 0)
    for name in ("ops", "other"):
        dispatcher._senders[name] = dispatcher._sender(config(name=name, retry_s=(3600,)))
        dispatcher._senders[name].pending.open(0, 0)
    record = LogRecord(ALERTS, 0, 0, b"key", encode_json(alert()))
    await dispatcher._take(record)
    replay = make_replay(record, "ops")
    await dispatcher._take(LogRecord(ALERTS, 0, 1, b"key", replay.value, replay.headers))
    waiting = {name: len(sender.pending) for name, sender in dispatcher._senders.items()}
    nexts = {name: sender.pending.position(0) for name, sender in dispatcher._senders.items()}
    await dispatcher._close([])
    assert waiting == {"ops": 2, "other": 1}
    assert set(nexts.values()) == {ReceiverPosition(0, 0)}


async def test_the_first_offset_of_a_new_receiver_is_committed_before_any_alert_is_delivered_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dispatcher, committed = Dispatcher(KafkaSettings(), [], lambda _: LogDeliverer()), list[str]()

    async def commit(offsets: dict[object, OffsetAndMetadata]) -> None:
        committed.extend(one.metadata for one in offsets.values())

    dispatcher._log = MemoryLog(partitions=1)  # type: ignore[assignment]
    monkeypatch.setattr(dispatcher._consumer, "commit", commit)
    dispatcher._owned[0] = OwnedAlerts(0, 0)
    await dispatcher.apply([config(name="ops")])
    await dispatcher._close([])
    assert committed == ['{"receipts":0,"receivers":{"ops":0}}']


def test_the_receipt_of_a_replay_does_not_count_as_the_receipt_of_the_first_delivery() -> None:
    pending = PendingDeliveries()
    pending.open(0, 0)
    dead = Delivery(alert=alert().id, incident="i", receiver="r", state="dead", attempt=1, attempted_ns=1)
    pending.receipt(0, 0, dead)
    pending.receipts_read(0, 2)
    pending.alert(alert(), AlertPosition(0, 0), 1, 0.0, NOW_S)
    assert pending.due(NOW_S) is None
    pending.alert(alert(), AlertPosition(0, 1), 1, 0.0, NOW_S, "again")
    task = pending.due(NOW_S)
    assert task is not None
    assert (task.replay, task.attempt) == ("again", 1)


def test_a_replay_names_its_receiver_in_the_headers_of_the_record() -> None:
    record = LogRecord(ALERTS, 1, 7, b"key", b"value", {"sightline-alert": b"a"})
    replay = make_replay(record, "ops")
    assert (replay.topic, replay.partition, replay.key, replay.value) == (ALERTS, 1, b"key", b"value")
    assert replay_of(replay.headers)[1] == "ops"
    assert replay_of(record.headers) == ("", "")
    assert replay_of(make_replay(record, "ops").headers)[0] != replay_of(replay.headers)[0]


async def test_the_latest_acknowledgement_of_an_incident_acknowledges_all_its_earlier_alerts() -> None:
    log, clock = MemoryLog(partitions=1), ManualClock()

    async def act(action: str, by: str, at: int) -> None:
        fields = {"id": f"{by}{at}", "incident": "i", "action": action, "by": by, "at_ns": at, "comment": "text"}
        record = encode_json(IncidentAction.model_validate(fields))
        await log.produce(Outgoing(INCIDENT_ACTIONS, 0, record, key=b"i"))

    acknowledged = Acknowledgements(log, clock)
    mine, worse = alert(incident="i"), alert(incident="i", reasons=("severity",), captured_ns=100)
    assert await acknowledged.by(mine) == ""
    await act("comment", "carol", 1)
    await act("acknowledge", "alice", 50)
    await act("acknowledge", "dave", 40)
    await log.produce(Outgoing(INCIDENT_ACTIONS, 0, b"{"))
    assert await acknowledged.by(mine) == ""  # read a moment ago
    clock.advance(1.0)
    assert (await acknowledged.by(mine), await acknowledged.by(worse)) == ("alice", "")
    await act("acknowledge", "erin", 150)
    clock.advance(1.0)
    assert (await acknowledged.by(mine), await acknowledged.by(worse)) == ("erin", "erin")
    assert await acknowledged.by(alert(incident="other")) == ""
