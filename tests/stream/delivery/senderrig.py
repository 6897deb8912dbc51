"""A sender of alerts to one receiver, with scripted results, for tests without Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.contract.codec import decode_json
from ingest.contract.records import Alert, Delivery
from ingest.kafka.log import Outgoing
from ingest.runtime.clock import ManualClock
from ingest.site import ReceiverConfig
from stream.alerts.alert import make_alert
from stream.delivery.clients.webhook import Deliverer
from stream.delivery.pending import AlertPosition
from stream.delivery.schedule import AttemptResult
from stream.delivery.sending import ReceiverSender
from tests.stream.alerts.test_alerts import event

NOW_S = 1_800_000_000.0
OK, BROKEN, GONE = AttemptResult(204), AttemptResult(500), AttemptResult(410)


class SenderRig:
    """A sender with scripted results, whose receipts are kept."""

    def __init__(self, react: Callable[[Alert], AttemptResult], **fields: object) -> None:
        self.posts: list[str] = []
        self.closed = 0
        self.receipts: list[Delivery] = []
        self.acknowledged: dict[str, str] = {}
        self.clock = ManualClock(started_ns=round(NOW_S * 1e9))
        self.react = react
        self._offset = 0
        usual = {"name": "r", "url": "http://receiver/", "secret_file": Path("s"), "retry_s": (0, 1, 1, 1)}
        self.config = ReceiverConfig.model_validate(usual | fields)
        self.written = asyncio.Event()
        self.sender = ReceiverSender(
            self.config,
            self._make,
            self._write,
            self._read_again,
            self._acknowledged_by,
            clock=self.clock,
            chance=lambda: 0.0,
            failed=lambda error: pytest.fail(repr(error)),
        )
        self.sender.pending.open(0, 0)

    def enter(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            self.add(make_alert(event(number), ()))

    def add(self, alert: Alert, replay: str = "") -> None:
        now_s = self.clock.now_ns() / 1e9
        pause_s = 0.0 if replay else self.sender.first_pause_s(0.0)
        position = AlertPosition(0, self._offset)
        expires_s = self.sender.expires_s(now_s)
        self.sender.pending.alert(alert, position, 0, pause_s, now_s, replay, expires_s)
        self._offset += 1
        self.sender.wake()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not done():
                self.written.clear()
                await self.written.wait()

    def _make(self, _: ReceiverConfig) -> Deliverer:
        rig = self

        class Scripted:
            async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
                rig.posts.append(alert.id)
                await asyncio.sleep(0)
                return rig.react(alert)

            async def close(self) -> None:
                rig.closed += 1

        return Scripted()

    async def _write(self, outgoing: Outgoing) -> None:
        self.receipts.append(decode_json(Delivery, outgoing.value))
        self.written.set()

    async def _acknowledged_by(self, alert: Alert) -> str:
        return self.acknowledged.get(alert.data.incident, "")

    async def _read_again(self, _: str, position: AlertPosition) -> Alert:
        return make_alert(event(position.offset), ())
