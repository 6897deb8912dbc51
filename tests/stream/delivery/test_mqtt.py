"""Tests of deliveries to a real MQTT broker, and of the discovery by Home Assistant."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from ingest.contract.codec import decode_json
from ingest.contract.records import Alert
from ingest.site import ReceiverConfig
from stream.alerts.alert import make_alert
from stream.delivery.clients.guard import DeliveryPolicy
from stream.delivery.clients.service import make_deliverer
from stream.delivery.schedule import AttemptResult
from tests.peers.mosquitto import PASSWORD, USER, Mosquitto
from tests.stream.alerts.test_alerts import event


def alert(**data: Any) -> Alert:
    made = make_alert(event(), ())
    return made.model_copy(update={"data": made.data.model_copy(update=data)})


def config(url: str, **fields: Any) -> ReceiverConfig:
    usual = {"name": "r", "type": "mqtt", "url": url, "allow_private": True, "timeout_s": 20.0}
    return ReceiverConfig.model_validate(usual | fields)


async def attempt(receiver: ReceiverConfig, *alerts: Alert, policy: DeliveryPolicy | None = None) -> AttemptResult:
    deliverer = make_deliverer(receiver, policy)
    try:
        return [await deliverer.deliver(one, time.time()) for one in alerts or (alert(),)][-1]
    finally:
        await deliverer.close()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    made = Mosquitto(tmp_path)
    await made.start()
    yield made
    made.kill()


async def test_alerts_are_published_with_a_retained_discovery_message(broker: Mosquitto) -> None:
    url = f"mqtt://127.0.0.1:{broker.port}"
    found: list[aiomqtt.Message] = []
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe("#", qos=1)
        alerts = alert(place="yard"), alert(place="yard", change="end")
        assert (await attempt(config(url, topic="site/north"), *alerts)).is_success
        async with asyncio.timeout(60):
            async for message in client.messages:
                found.append(message)
                if len(found) == 5:
                    break
    topics = [str(message.topic) for message in found]
    state = "site/north/event/road/line"
    config_topic = "homeassistant/event/sightline_road_line/config"
    assert topics == [config_topic, state, "site/north/alerts", state, "site/north/alerts"]
    entity = json.loads(bytes(found[0].payload))
    assert (entity["state_topic"], entity["device"]["suggested_area"]) == (state, "yard")
    events = [json.loads(bytes(found[number].payload)) for number in (1, 3)]
    assert [one["event_type"] for one in events] == ["begin", "end"]
    assert set(entity["event_types"]) >= {one["event_type"] for one in events}
    assert decode_json(Alert, bytes(found[2].payload)) == alerts[0]
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:  # as Home Assistant after its restart
        await client.subscribe("#", qos=1)
        async with asyncio.timeout(60):
            async for message in client.messages:
                assert (str(message.topic), message.retain) == (config_topic, True)
                break


async def test_alerts_are_published_without_discovery_if_its_prefix_is_empty(broker: Mosquitto) -> None:
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe("#", qos=1)
        receiver = config(f"mqtt://127.0.0.1:{broker.port}", discovery="")
        assert (await attempt(receiver)).is_success
        async with asyncio.timeout(60):
            async for message in client.messages:
                assert str(message.topic) == "sightline/alerts"
                break


async def test_an_mqtt_broker_may_need_a_login_or_a_trusted_certificate_authority(tmp_path: Path) -> None:
    locked = Mosquitto(tmp_path, password=True)
    await locked.start()
    (tmp_path / "secret").write_text(PASSWORD)
    try:
        url = f"mqtt://127.0.0.1:{locked.port}"
        assert (await attempt(config(url, user=USER, secret_file=tmp_path / "secret"))).is_success
        refused = await attempt(config(url))
    finally:
        locked.kill()
    assert (refused.is_success, bool(refused.reason)) == (False, True)
    (tmp_path / "tls").mkdir()
    encrypted = Mosquitto(tmp_path / "tls", tls=True)
    await encrypted.start()
    try:
        url = f"mqtts://127.0.0.1:{encrypted.port}"
        assert (await attempt(config(url, ca_file=encrypted.ca_file))).is_success
        untrusted = await attempt(config(url))
    finally:
        encrypted.kill()
    assert "certificate" in untrusted.reason.lower()


async def test_refused_addresses_and_absent_brokers_give_a_failed_result() -> None:
    url = "mqtt://127.0.0.1:9"
    absent = await attempt(config(url))
    private = await attempt(config(url, allow_private=False))
    unencrypted = await attempt(config(url), policy=DeliveryPolicy.of([], https_only=True))
    assert [one.is_success for one in (absent, private, unencrypted)] == [False] * 3
    assert "private" in private.reason
    assert "--https-only" in unencrypted.reason


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"topic": "a/#"}, "a topic such as"),
        ({"topic": "/a"}, "a topic such as"),
        ({"url": "http://broker/"}, "mqtt:// or mqtts://"),
        ({"proxy": "http://proxy:3128"}, "no proxy"),
        ({"user": "u", "secret_file": "s", "allow_private": False}, "in clear"),
    ],
)
def test_an_incomplete_mqtt_receiver_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        config(fields.pop("url", "mqtt://broker"), **fields)
