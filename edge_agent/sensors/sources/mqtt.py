"""Readings that are published on an MQTT broker."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.exceptions import SourceUnusable
from edge_agent.sensors.source import Reading, Sink
from edge_agent.sensors.sources.polling import heed_cancellation
from edge_agent.sensors.values import at_path, read_json, reading
from ingest.contract.records import STALE
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig
from ingest.site.sensoroptions import MqttOptions

TIMEOUT_S = 5.0
"""For each answer of the broker."""
KEEP_ALIVE_S = 15
"""A broker that is silent for half as long again is gone."""
SESSION_S = 300
"""The broker keeps what is published meanwhile for so long; then it forgets a client that does not come back."""
MAX_PAYLOAD_BYTES = 256 * 1024
"""A thousand values as JSON. One reading is wanted of it."""
IN_FLIGHT = 100
"""So many messages a broker sends before it has heard that they came, and so many it may repeat."""
ASK_AGAIN_S = 60.0
"""A topic that is refused may be allowed later, and the broker does not say when."""
_REFUSED = 0x80
_PORT, _TLS_PORT = 1883, 8883

_quiet = logging.getLogger("sightline.mqtt")
_quiet.disabled = True  # an outage is told once, by the feed


class MqttSource:
    """One connection to a broker (MQTT 5), with subscriptions at QoS 1 for the topics of its sensors.

    The session outlives a lost connection: what was published meanwhile comes afterwards, where the broker has kept
    it, and what it repeats is dropped. What has been acknowledged to it is given, however the connection ends. What a
    broker retains of the past, and hands out to each new subscriber, is flagged as stale.
    """

    def __init__(self, sensors: Sequence[SensorConfig], clock: Clock) -> None:
        self._sensors = sensors
        self._options = cast(MqttOptions, sensors[0].parsed)
        self._topics = {sensor.name: sensor.address for sensor in sensors}
        self._fields = {sensor.name: cast(MqttOptions, sensor.parsed) for sensor in sensors}
        self._seen: deque[tuple[int, str, int]] = deque(maxlen=IN_FLIGHT)
        self._client_id = f"sightline-{socket.gethostname()[:30]}-{secrets.token_hex(6)}"

    async def run(self, sink: Sink) -> None:
        """Subscribe and give what is published until cancelled. Raise SourceUnusable when the broker is gone."""
        try:
            async with self._connected(sink) as client:
                refused = await self._subscribe(client, sink, widest(self._topics.values()))
                while True:
                    heed_cancellation()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(ASK_AGAIN_S if refused else None):
                            async for _ in client.messages:  # there are none: they are given as they come
                                pass
                    refused = await self._subscribe(client, sink, refused)
        except aiomqtt.MqttError as error:
            raise SourceUnusable(f"{self._options.host}: {error}") from None

    @contextlib.asynccontextmanager
    async def _connected(self, sink: Sink) -> AsyncIterator[aiomqtt.Client]:
        client = self._client(sink)
        connecting = asyncio.ensure_future(client.__aenter__())
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            with contextlib.suppress(aiomqtt.MqttError):  # it connects in a thread, which cannot be cancelled
                await connecting
                await client.__aexit__(None, None, None)
            client.over = True
            raise
        try:
            yield client
        finally:
            with contextlib.suppress(aiomqtt.MqttError):
                await client.__aexit__(None, None, None)
            client.over = True

    def _client(self, sink: Sink) -> _Client:
        options, properties = self._options, Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval, properties.ReceiveMaximum = SESSION_S, IN_FLIGHT
        try:
            context = self._tls() if options.tls else None
            password = options.password_file.read_text().strip() if options.password_file else None
        except (OSError, ValueError) as error:  # read now, so that a rotated secret is taken up
            raise SourceUnusable(f"{options.host}: {error}") from None
        return _Client(
            functools.partial(self._give, sink),
            self._seen,
            options.host,
            options.port or (_TLS_PORT if options.tls else _PORT),
            identifier=self._client_id,
            username=options.username or None,
            password=password,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=properties,
            keepalive=KEEP_ALIVE_S,
            timeout=TIMEOUT_S,
            tls_context=context,
            logger=_quiet,
        )

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._options.ca_file)
        if self._options.cert_file:
            context.load_cert_chain(self._options.cert_file, self._options.key_file)
        return context

    async def _subscribe(self, client: aiomqtt.Client, sink: Sink, topics: Sequence[str]) -> list[str]:
        """Subscribe to topics, and return those that are refused: that makes their sensors silent, and no others."""
        # what is retained comes with a new subscription, and not again when the connection is made anew
        how, refused = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB), []
        for topic in topics:
            (answer,) = await client.subscribe(topic, options=how)
            if (answer.value if isinstance(answer, ReasonCode) else answer) < _REFUSED:
                continue
            refused.append(topic)
            for sensor in (name for name, wanted in self._topics.items() if _covers(topic, wanted)):
                sink.lost(sensor, f"{self._options.host} refuses {topic}: {answer}")
        if len(refused) < len(topics):
            sink.opened()
        return refused

    def _give(self, sink: Sink, message: MQTTMessage) -> None:
        topic = aiomqtt.Topic(message.topic)
        wanted = [name for name, filters in self._topics.items() if topic.matches(filters)]
        for sensor in wanted:
            sink.take(sensor, read_payload(message.payload, self._fields[sensor], retained=message.retain))
        if not wanted:
            sink.unclaimed(message.topic)


class _Client(aiomqtt.Client):
    """A client that gives each message as it comes, before it is acknowledged to the broker.

    aiomqtt's own queue would keep what was acknowledged and not yet looked at, and lose it with the connection.

    What a broker repeats, since it has not heard that it came, is dropped (MQTT 5, 4.4). ``seen`` are number, topic
    and hash of the last messages, also of connections before: a number alone comes again with another message.
    """

    def __init__(
        self, give: Callable[[MQTTMessage], None], seen: deque[tuple[int, str, int]], *args: Any, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._give, self._seen = give, seen
        self.over = False

    def _on_message(self, client: PahoClient, userdata: Any, message: MQTTMessage) -> None:
        what = (message.mid, message.topic, hash(message.payload))
        if self.over or (message.dup and what in self._seen):
            return
        if message.qos:
            self._seen.append(what)
        self._give(message)


def widest(topics: Iterable[str]) -> list[str]:
    """Return those topics that no other one covers: brokers send a message once for each that matches it."""
    unique = list(dict.fromkeys(topics))
    return [each for each in unique if not any(_covers(other, each) for other in unique if other != each)]


def _covers(wide: str, narrow: str) -> bool:
    """Tell whether all that matches the one matches the other too (MQTT 5, 4.7)."""
    levels, others = wide.split("/"), narrow.split("/")
    if others[0].startswith("$") and levels[0] in ("+", "#"):
        return False
    for position, level in enumerate(levels):
        if level == "#":
            return True
        if position >= len(others) or others[position] == "#" or level not in ("+", others[position]):
            return False
    return len(levels) == len(others)


def read_payload(payload: object, options: MqttOptions, *, retained: bool = False) -> Reading:
    """Return the reading that a payload has: a number, or JSON with a number in its ``field``.

    Never raises: what has none is a reading without a value.
    """
    data = payload if isinstance(payload, bytes | bytearray) else b""
    if len(data) > MAX_PAYLOAD_BYTES:
        return Reading(None, problem=f"a payload of {len(data)} bytes")
    text = data.decode(errors="replace")
    found = read_json(text)
    if isinstance(found, Mapping | list):
        quality = found.get("quality", 0) if isinstance(found, Mapping) else 0
        read = reading(at_path(found, options.field or "value"), at_path(found, options.time_field), quality)
    elif options.field:
        read = reading(f"no JSON: {text}")
    else:
        read = reading(found if isinstance(found, bool) else text)
    return Reading(read.value, read.at_ns, read.quality | STALE, read.problem) if retained else read
