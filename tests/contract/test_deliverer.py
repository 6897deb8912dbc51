"""The contract of every deliverer of alerts."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingest.contract.records import Alert, Event, EventData
from ingest.site import ReceiverConfig
from stream.alerts.alert import make_alert
from stream.delivery.clients.receiver import Inbox, make_app
from stream.delivery.clients.webhook import Deliverer, LogDeliverer, WebhookDeliverer
from tests.peers.receiver import application, receiving

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
    """Tests that every deliverer passes."""

    @pytest.fixture
    @abstractmethod
    def deliverer(self, tmp_path: Path) -> Deliverer:
        """A deliverer whose receiver accepts every alert."""

    @abstractmethod
    def received_ids(self) -> set[str]:
        """Return the ids of the alerts that the receiver has."""

    async def test_an_alert_delivered_with_success_has_reached_the_receiver(self, deliverer: Deliverer) -> None:
        result = await deliverer.deliver(alert(0), time.time())
        assert result.status is not None
        assert 200 <= result.status < 300
        assert self.received_ids() == {alert(0).id}
        await deliverer.close()

    async def test_an_alert_may_be_delivered_repeatedly(self, deliverer: Deliverer) -> None:
        for _ in range(3):
            assert (await deliverer.deliver(alert(0), time.time())).status in range(200, 300)
        assert self.received_ids() == {alert(0).id}
        await deliverer.close()

    async def test_alerts_may_be_delivered_concurrently(self, deliverer: Deliverer) -> None:
        results = await asyncio.gather(*(deliverer.deliver(alert(n), time.time()) for n in range(20)))
        assert all(result.status in range(200, 300) for result in results)
        assert self.received_ids() == {alert(n).id for n in range(20)}
        await deliverer.close()

    async def test_a_deliverer_may_be_closed_twice(self, deliverer: Deliverer) -> None:
        await deliverer.close()
        await deliverer.close()


class TestLogDeliverer(DelivererContract):
    @pytest.fixture
    def deliverer(self, tmp_path: Path) -> Deliverer:
        self.made = LogDeliverer()
        return self.made

    def received_ids(self) -> set[str]:
        return {each.id for each in self.made.alerts}


class TestWebhookDeliverer(DelivererContract):
    @pytest.fixture
    async def deliverer(self, tmp_path: Path) -> AsyncIterator[Deliverer]:
        secret = tmp_path / "secret"
        secret.write_text(SECRET)
        self.seen: list[dict[str, Any]] = []
        app = make_app(SECRET, Inbox(None, self.seen.append))
        async with receiving(application(app)) as receiver:
            yield WebhookDeliverer(
                ReceiverConfig(name="r", url=receiver.url, secret_file=secret, timeout_s=5.0, allow_private=True)
            )

    def received_ids(self) -> set[str]:
        return {entry["id"] for entry in self.seen}

    async def test_every_connection_failure_gives_a_delivery_result_with_a_reason(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text(SECRET)
        for url in ("http://127.0.0.1:9/", "http://no-such-host.invalid/", "http://[::1/"):
            receiver = ReceiverConfig.model_construct(
                name="r", url=url, secret_file=secret, timeout_s=2.0, allow_private=True
            )
            deliverer = WebhookDeliverer(receiver)
            result = await deliverer.deliver(alert(0), time.time())
            assert result.status is None
            assert result.reason
            await deliverer.close()
