"""What everything that takes alerts to a receiver does."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingest.contract.records import Alert, Event, EventData
from ingest.site import ReceiverConfig
from stream.alerts.alert import make_alert
from stream.alerts.receiver import Inbox, make_app
from stream.alerts.webhook import Deliverer, LogDeliverer, WebhookDeliverer

SECRET = "whsec_" + "a" * 32


def alert(number: int) -> Alert:
    data = EventData(incident=f"i{number}", rule="r", camera="road", summary="a car crossed", captured_ns=1)
    event = Event(
        id=f"e{number}",
        source="/here/road",
        type="sightline.line.crossed",
        subject="road",
        time="2026-01-02T03:04:05Z",
        data=data,
    )
    return make_alert(event, ())


class DelivererContract(ABC):
    """Inherited by one class per way of delivery. ``taken`` is what the receiver has, by id."""

    @pytest.fixture
    @abstractmethod
    def deliverer(self, tmp_path: Path) -> Deliverer:
        """A deliverer whose receiver takes everything."""

    @abstractmethod
    def taken(self) -> set[str]:
        """Return what the receiver has, by id."""

    async def test_what_is_answered_well_has_arrived(self, deliverer: Deliverer) -> None:
        answer = await deliverer.deliver(alert(0), time.time())
        assert answer.status is not None
        assert 200 <= answer.status < 300
        assert self.taken() == {alert(0).id}
        await deliverer.close()

    async def test_the_same_alert_may_come_again(self, deliverer: Deliverer) -> None:
        for _ in range(3):
            assert (await deliverer.deliver(alert(0), time.time())).status in range(200, 300)
        assert self.taken() == {alert(0).id}
        await deliverer.close()

    async def test_several_may_be_under_way_at_once(self, deliverer: Deliverer) -> None:
        answers = await asyncio.gather(*(deliverer.deliver(alert(n), time.time()) for n in range(20)))
        assert all(answer.status in range(200, 300) for answer in answers)
        assert self.taken() == {alert(n).id for n in range(20)}
        await deliverer.close()

    async def test_it_may_be_closed_twice(self, deliverer: Deliverer) -> None:
        await deliverer.close()
        await deliverer.close()


class TestLog(DelivererContract):
    @pytest.fixture
    def deliverer(self, tmp_path: Path) -> Deliverer:
        self.made = LogDeliverer()
        return self.made

    def taken(self) -> set[str]:
        return {each.id for each in self.made.alerts}


class TestWebhook(DelivererContract):
    @pytest.fixture
    def deliverer(self, tmp_path: Path) -> Deliverer:
        secret = tmp_path / "secret"
        secret.write_text(SECRET)
        self.seen: list[dict[str, Any]] = []
        app = make_app(SECRET, Inbox(None, self.seen.append))
        receiver = ReceiverConfig(name="r", url="http://receiver.test/", secret_file=secret, timeout_s=5.0)
        return WebhookDeliverer(receiver, httpx.ASGITransport(app))

    def taken(self) -> set[str]:
        return {entry["id"] for entry in self.seen}

    async def test_whatever_goes_wrong_is_an_answer(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text(SECRET)
        for url in ("http://127.0.0.1:9/", "http://no-such-host.invalid/", "http://[::1/"):
            receiver = ReceiverConfig.model_construct(name="r", url=url, secret_file=secret, timeout_s=2.0)
            deliverer = WebhookDeliverer(receiver)
            answer = await deliverer.deliver(alert(0), time.time())
            assert answer.status is None
            assert answer.reason
            await deliverer.close()
