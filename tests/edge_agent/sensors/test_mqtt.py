"""Tests of readings from a real MQTT broker: outages, sessions, passwords, TLS and refused topics."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any, Literal

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from structlog.testing import capture_logs

import edge_agent.sensors.sources.mqtt
from edge_agent.exceptions import SourceUnusable
from edge_agent.sensors.factory import make_sources
from edge_agent.sensors.source import Reading
from edge_agent.sensors.sources.mqtt import IN_FLIGHT, MAX_PAYLOAD_BYTES, MqttSource, read_payload, widest
from ingest.contract.records import BY_SOURCE, GOOD, STALE, SUSPECT
from ingest.runtime.clock import SystemClock
from ingest.site import SensorConfig
from ingest.site.sensor import MqttOptions
from tests.edge_agent.sensors.feedbench import fed
from tests.edge_agent.sensors.listener import Listener, ended, running, sensor
from tests.peers.mosquitto import PASSWORD, USER, Mosquitto, serving
from tests.peers.network.proxy import Proxy
from tests.peers.oldmqtt import OldBroker
from tests.peers.repeatingmqtt import Connection, RepeatingBroker


def at(broker: Mosquitto, name: str, topic: str, **options: Any) -> SensorConfig:
    return sensor(name, f"mqtt:{topic}", options={"port": broker.port} | options, max_delay_s=0.02)


async def test_mqtt_topics_wildcards_and_json_paths_select_the_readings_of_each_sensor(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        sensors = (
            at(broker, "plain", "hall/temp"),
            at(broker, "any", "hall/+"),
            at(broker, "deep", "gate/#", field="data.levels.1", time_field="at"),
        )
        async with fed(tmp_path, *sensors) as bench:
            for name in ("plain", "any", "deep"):
                await bench.state(name, "running")
            own_ns = SystemClock().now_ns() - 3 * 10**9
            await broker.publish("hall/temp", "21.5", "warm")
            await broker.publish("hall/door", "true")
            await broker.publish("gate/a/b", json.dumps({"at": own_ns, "data": {"levels": [1, 2.5]}}))
            await bench.until(lambda: bench.sensors["any"].captured == 3 and bench.sensors["deep"].captured == 1)
            await bench.stop()
            assert (bench.values("plain"), bench.values("any"), bench.values("deep")) == ([21.5], [21.5, 1.0], [2.5])
            assert bench.withheld("plain") == bench.withheld("any") == {"unusable": 1}
            (deep,) = bench.kept("deep")
            assert (deep.times_ns, deep.timed_by) == ((own_ns,), (BY_SOURCE,))


async def test_a_killed_mqtt_broker_is_one_outage_and_readings_continue_after_its_restart(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with serving(tmp_path) as broker, fed(tmp_path, at(broker, "a", "hall/temp")) as bench:
            await bench.state("a", "running")
            await broker.publish("hall/temp", "1", "2")
            await bench.until(lambda: bench.sensors["a"].captured == 2)
            broker.kill()
            assert "127.0.0.1" in await bench.state("a", "down")
            restarts = bench.figure("sightline_agent_source_restarts_total", source="mqtt:hall/temp")
            await bench.until(
                lambda: (
                    (bench.figure("sightline_agent_source_restarts_total", source="mqtt:hall/temp") or 0)
                    > (restarts or 0)
                )
            )
            await broker.start()
            await bench.state("a", "running")
            await broker.publish("hall/temp", "3")
            await bench.until(lambda: bench.sensors["a"].captured == 4)
            await bench.stop()
            assert bench.values("a") == [1.0, 2.0, 3.0]
            assert bench.withheld("a") == {"outage": 1}
    events = [line["event"] for line in logs if line["event"].startswith("sensor_")]
    assert events == ["sensor_lost", "sensor_back"]


async def test_mqtt_messages_published_while_disconnected_arrive_after_the_reconnection(tmp_path: Path) -> None:
    """The broker keeps the session, and the client resumes it."""
    async with serving(tmp_path) as broker:
        ((source, _),) = make_sources([at(broker, "a", "hall/temp")], SystemClock())
        sink = Listener()
        async with running(source, sink):
            await sink.until(lambda: sink.opens)
            await broker.publish("hall/temp", "1")
            await sink.has("a", 1)
        await broker.publish("hall/temp", "2", "3")
        async with running(source, sink):
            await sink.has("a", 3)
    assert sink.values("a") == [1.0, 2.0, 3.0]


async def test_acknowledged_mqtt_messages_reach_the_sink_even_if_the_source_stops_early(
    tmp_path: Path,
) -> None:
    """A backlog arrives before the answer to the subscription, and the client acknowledges the backlog at once."""
    backlog = [float(number) for number in range(200)]
    async with serving(tmp_path) as broker:
        ((source, _),) = make_sources([at(broker, "a", "hall/temp")], SystemClock())
        sink = Listener()
        async with running(source, sink):
            await sink.until(lambda: sink.opens)
        await broker.publish("hall/temp", *map(str, backlog))
        async with running(source, sink):
            await sink.has("a")
        for _ in range(10):
            async with running(source, sink):
                await asyncio.sleep(0)
        async with running(source, sink):
            await sink.until(lambda: sink.values("a")[-1] == backlog[-1])
    assert sink.values("a") == backlog


async def test_mqtt_messages_repeated_on_several_connections_reach_the_sink_once() -> None:
    """The broker repeats more messages than it may leave unacknowledged, and repeats them again."""
    count = IN_FLIGHT + 30
    broker = RepeatingBroker(
        "hall/temp",
        Connection(kept=False, sends=range(1, count + 1)),
        Connection(kept=True, repeats=range(5, count + 1)),
        Connection(kept=True, repeats=range(5, count + 1), sends=(count + 1,)),
    )
    assert await _values(broker, connections=3) == [float(number) for number in range(1, count + 2)]


async def test_an_mqtt_message_of_a_new_session_that_looks_like_an_earlier_message_reaches_the_sink() -> None:
    """A broker without its stored sessions numbers messages from 1 again, and marks queued messages as repeated."""
    broker = RepeatingBroker(
        "hall/temp", Connection(kept=False, sends=(1, 2)), Connection(kept=False, repeats=(2,), sends=(3,))
    )
    assert await _values(broker, connections=2) == [1.0, 2.0, 2.0, 3.0]


async def _values(broker: RepeatingBroker, connections: int) -> list[float | None]:
    """Return the values that reach the sink if a source connects the given number of times."""
    sink = Listener()
    async with broker.serving():
        config = sensor("a", "mqtt:hall/temp", options={"port": broker.port})
        ((source, _),) = make_sources([config], SystemClock())
        for _ in range(connections - 1):
            async with running(source, sink) as task:
                assert isinstance(await ended(task), SourceUnusable)
        async with running(source, sink):
            await broker.acknowledged.wait()
    return sink.values("a")


async def test_mqtt_messages_repeated_by_the_broker_reach_the_sink_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker, Proxy(broker.port).running() as proxy:
        ((source, _),) = make_sources([at(broker, "a", "hall/temp", port=proxy.port)], SystemClock())
        sink = Listener()
        async with running(source, sink) as task:
            await sink.until(lambda: sink.opens)
            await broker.publish("hall/temp", "0")
            await sink.has("a", 1)
            proxy.deaf = True
            await broker.publish("hall/temp", "1", "1", "2")
            await sink.has("a", 4)
            proxy.cut()
            assert isinstance(await ended(task), SourceUnusable)
        proxy.deaf = False
        await broker.publish("hall/temp", "2", "3")
        async with running(source, sink):
            await sink.until(lambda: sink.values("a")[-1] == 3.0)
    assert sink.values("a") == [0.0, 1.0, 1.0, 2.0, 2.0, 3.0]


async def test_a_retained_mqtt_message_is_flagged_as_stale_and_reaches_the_sink_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        await broker.publish("hall/temp", "1", retain=True)
        ((source, _),) = make_sources([at(broker, "a", "hall/temp")], SystemClock())
        sink = Listener()
        for value in ("2", "3"):
            async with running(source, sink):
                await sink.until(lambda: sink.opens)
                await broker.publish("hall/temp", value)
                await sink.until(lambda value=value: float(value) in sink.values("a"))
    assert [(reading.value, reading.quality) for reading in sink.readings["a"]] == [(1, STALE), (2, GOOD), (3, GOOD)]


async def test_the_mqtt_password_is_read_from_its_file_and_a_wrong_password_is_reported(tmp_path: Path) -> None:
    async with serving(tmp_path, password=True) as broker:
        secret = tmp_path / "secret"
        secret.write_text("wrong\n")
        config = at(broker, "a", "hall/temp", username=USER, password_file=str(secret))
        async with fed(tmp_path, config) as bench:
            assert "uthori" in await bench.state("a", "down")
            secret.write_text(PASSWORD + "\n")
            async with running(bench.source, sink := Listener()):
                await sink.until(lambda: sink.opens)
        gone = at(broker, "a", "hall/temp", username=USER, password_file=str(tmp_path / "none"))
        ((source, _),) = make_sources([gone], SystemClock())
        async with running(source, Listener()) as task:
            error = await ended(task)
        assert isinstance(error, SourceUnusable)
        assert str(tmp_path / "none") in str(error)


@pytest.mark.parametrize("refuses", ["closes", "answers"])
async def test_an_mqtt_broker_without_version_5_is_read_with_version_3_1_1_and_logged_once(
    tmp_path: Path, refuses: Literal["closes", "answers"]
) -> None:
    with capture_logs() as logs:
        async with OldBroker(refuses).serving() as broker:
            config = sensor("a", "mqtt:hall/temp", options={"port": broker.port})
            async with fed(tmp_path, config) as bench:
                await bench.more("a", 1)
                await broker.drop()
                await bench.state("a", "down")
                await bench.more("a", 1)
                await bench.stop()
    assert broker.levels == [5, 4, 5, 4]
    assert broker.clean[1::2] == [True, True]  # 3.1.1 has no expiry: a kept session would queue messages for ever
    (line,) = [line for line in logs if line["event"] == "sensor_source_limited"]
    assert "MQTT 3.1.1" in line["limit"]


async def test_an_mqtt_broker_that_closes_every_connection_is_reported(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        ((source, _),) = make_sources([sensor("a", "mqtt:hall/temp", options={"port": port})], SystemClock())
        async with running(source, Listener()) as task:
            error = await ended(task)
    assert isinstance(error, SourceUnusable)
    assert "closed the connection" in str(error)


async def test_an_empty_mqtt_password_file_is_reported_and_no_password_is_sent(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("\n")
    options = {"port": 9, "username": USER, "password_file": str(secret)}
    ((source, _),) = make_sources([sensor("a", "mqtt:hall/temp", options=options)], SystemClock())
    async with running(source, Listener()) as task:
        error = await ended(task)
    assert isinstance(error, SourceUnusable)
    assert f"{secret} is empty" in str(error)


@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
async def test_the_tls_certificate_of_an_mqtt_broker_is_verified(tmp_path: Path) -> None:
    async with serving(tmp_path, tls=True) as broker:
        trusting = at(broker, "a", "hall/temp", tls=True, ca_file=str(broker.ca_file))
        ((source, _),) = make_sources([trusting], SystemClock())
        async with running(source, sink := Listener()):
            await sink.until(lambda: sink.opens)
        ((source, _),) = make_sources([at(broker, "a", "hall/temp", tls=True)], SystemClock())
        async with running(source, Listener()) as task:
            error = await ended(task)
        assert isinstance(error, SourceUnusable)
        assert "certificate" in str(error)
    del error, task
    gc.collect()  # paho leaves a socket with a failed handshake to the garbage collector, which warns


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "time", "a"]), inner),
    max_leaves=8,
)


@given(
    st.one_of(st.binary(max_size=200), JSON.map(lambda found: json.dumps(found).encode())),
    st.sampled_from(["", "a", "a.0", "value.value"]),
    st.booleans(),
)
def test_any_mqtt_payload_is_parsed_without_an_error(payload: bytes, field: str, retained: bool) -> None:
    found = read_payload(payload, MqttOptions(field=field), retained=retained)
    assert (found.value is None) == bool(found.problem)
    assert bool(found.quality & STALE) == retained


@pytest.mark.parametrize(
    ("payload", "field", "expected"),
    [
        (b"21.5", "", Reading(21.5)),
        (b" -1e2 \n", "", Reading(-100.0)),
        (b"true", "", Reading(1.0)),
        (b"21.5\x1c", "", Reading(21.5)),
        (b'{"value": 2, "quality": "uncertain"}', "", Reading(2.0, quality=SUSPECT)),
        (b"[1, 2]", "1", Reading(2.0)),
    ],
)
def test_an_mqtt_payload_may_be_a_number_or_json(payload: bytes, field: str, expected: Reading) -> None:
    assert read_payload(payload, MqttOptions(field=field)) == expected


@pytest.mark.parametrize("payload", [b"", b"on", b"21.5", b"{}", b"1" * (MAX_PAYLOAD_BYTES + 1), None])
def test_an_mqtt_payload_without_a_number_gives_an_unreadable_reading(payload: bytes | None) -> None:
    assert read_payload(payload, MqttOptions(field="data.temp")).problem


@pytest.mark.parametrize(
    ("topics", "expected"),
    [
        (["a/b", "a/+", "a/b"], ["a/+"]),
        (["a", "a/#", "a/b/c"], ["a/#"]),
        (["#", "a/b", "$SYS/load", "+/load"], ["#", "$SYS/load"]),
        (["a/+/c", "a/b/+"], ["a/+/c", "a/b/+"]),
        (["a/+", "a/b/c", "a/+/+"], ["a/+", "a/+/+"]),
        (["a/+", "a/#"], ["a/#"]),
    ],
)
def test_overlapping_mqtt_topics_are_subscribed_to_once(topics: list[str], expected: list[str]) -> None:
    assert widest(topics) == expected


LEVELS = st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=4).map("/".join)
FILTERS = st.one_of(LEVELS, LEVELS.map(lambda levels: f"{levels}/#"), st.just("#"))


@given(st.lists(FILTERS, max_size=6), st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=5).map("/".join))
def test_mqtt_subscriptions_without_overlaps_match_the_same_topics_as_the_original_subscriptions(
    filters: list[str], topic: str
) -> None:
    published = aiomqtt.Topic(topic)
    assert any(map(published.matches, widest(filters))) == any(map(published.matches, filters))


class Refusing:
    """Broker that accepts only topics below ``hall/``. Mosquitto accepts subscriptions to any topic."""

    version = aiomqtt.ProtocolVersion.V5

    async def subscribe(self, topic: str, **_: object) -> list[ReasonCode]:
        name = "Granted QoS 1" if topic.startswith("hall/") else "Not authorized"
        return [ReasonCode(PacketTypes.SUBACK, name)]


async def test_a_refused_mqtt_topic_silences_only_sensors_of_the_topic() -> None:
    sensors = [sensor("a", "mqtt:secret/#"), sensor("b", "mqtt:hall/temp"), sensor("c", "mqtt:secret/#")]
    sink = Listener()
    topics = ["secret/#", "hall/temp"]
    source = MqttSource(sensors, SystemClock())
    assert await source._subscribe(Refusing(), sink, topics) == ["secret/#"]  # type: ignore[arg-type]
    assert set(sink.silent) == {"a", "c"}
    assert "refuses secret/#: Not authorized" in sink.silent["a"]
    assert sink.opens == 1


async def test_a_refused_mqtt_topic_is_subscribed_to_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def subscribe(client: Any, topic: str, **how: Any) -> Any:
        asked.append(topic)
        if len(asked) == 1:
            return await Refusing().subscribe(topic)
        return await aiomqtt.Client.subscribe(client, topic, **how)

    monkeypatch.setattr(edge_agent.sensors.sources.mqtt._Client, "subscribe", subscribe)
    async with serving(tmp_path) as broker:
        source = MqttSource([at(broker, "a", "secret/temp")], SystemClock(), ask_again_s=0.02)
        async with running(source, sink := Listener()):
            await sink.until(lambda: sink.opens)
            assert "refuses secret/temp" in sink.silent["a"]
            await broker.publish("secret/temp", "7")
            await sink.has("a")
    assert (asked, sink.values("a")) == (["secret/temp"] * 2, [7.0])
