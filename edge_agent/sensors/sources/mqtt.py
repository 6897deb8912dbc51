"""Source of readings from an MQTT broker."""

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
from paho.mqtt.client import ConnectFlags, MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.exceptions import SourceUnusable
from edge_agent.sensors.source import Reading, Sink
from edge_agent.sensors.sources.polling import heed_cancellation
from edge_agent.sensors.values import at_path, parse_json, parse_reading
from ingest.contract.records import STALE
from ingest.runtime.clock import Clock
from ingest.runtime.text import decode_text
from ingest.site import SensorConfig
from ingest.site.sensor import MqttOptions

TIMEOUT_S = 5.0
"""Maximum time to wait for an answer of the broker, in seconds."""
KEEP_ALIVE_S = 15
"""Keep-alive interval of the connection, in seconds. A broker that is silent for one and a half keep-alive intervals
counts as gone."""
SESSION_S = 300
"""Time for which the broker keeps messages for a disconnected client, in seconds."""
MAX_PAYLOAD_BYTES = 256 * 1024
"""Maximum size of a message's payload in bytes, enough for a thousand values as JSON. The limit is generous, because
a sensor's message needs only one value."""
IN_FLIGHT = 100
"""Maximum number of unacknowledged messages that the agent asks the broker for."""
REMEMBERED = 10 * IN_FLIGHT
"""Number of the last messages among which a repeated message is recognised. A broker may repeat only unacknowledged
messages. If connections break in quick succession, mosquitto 2.0 has more than ``IN_FLIGHT`` of them."""
ASK_AGAIN_S = 60.0
"""Interval between attempts to subscribe to refused topics, in seconds. The agent repeats the attempt because a
broker may allow a topic later without a message to the agent."""
OLD_VERSION = (
    "supports only MQTT 3.1.1: messages sent while the connection is lost do not arrive, and retained messages"
    " arrive again at each connection"
)
_REFUSED = 0x80
_UNSUPPORTED_VERSION = 0x84
_QOS: dict[aiomqtt.ProtocolVersion, dict[str, Any]] = {
    aiomqtt.ProtocolVersion.V311: {"qos": 1},
    # a new subscription receives retained messages, a reconnection does not receive them again
    aiomqtt.ProtocolVersion.V5: {
        "options": SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
    },
}
"""Arguments of ``subscribe`` for a subscription with QoS 1, by MQTT version."""
_PORT, _TLS_PORT = 1883, 8883

_quiet = logging.getLogger("sightline.mqtt")
_quiet.disabled = True  # the feed logs an outage once


class MqttSource:
    """Connection to an MQTT broker, with QoS 1 subscriptions for the topics of the sensors.

    The connection uses MQTT 5, or MQTT 3.1.1 if the broker does not support MQTT 5. With MQTT 5, the session survives
    a lost connection. After a reconnection, the broker sends the messages that it kept during the interruption.
    Repeated messages are dropped. Every acknowledged message reaches the sink, even if the connection breaks. The
    reading of a retained message, which the broker sends to each new subscriber, is flagged as stale.

    With MQTT 3.1.1, the session ends with the connection. A session of MQTT 3.1.1 that outlives the connection would
    never expire, and the broker would queue messages for ever for an agent that was removed.
    """

    def __init__(self, sensors: Sequence[SensorConfig], clock: Clock, *, ask_again_s: float = ASK_AGAIN_S) -> None:
        self._sensors, self._ask_again_s = sensors, ask_again_s
        self._options = cast(MqttOptions, sensors[0].parsed)
        self._topics = {sensor.name: sensor.address for sensor in sensors}
        self._fields = {sensor.name: cast(MqttOptions, sensor.parsed) for sensor in sensors}
        self._seen: deque[tuple[int, str, int]] = deque(maxlen=REMEMBERED)
        self._client_id = f"sightline-{socket.gethostname()[:30]}-{secrets.token_hex(6)}"

    async def run(self, sink: Sink) -> None:
        """Subscribe to the topics of all sensors, and pass readings to ``sink`` until cancelled.

        Raise SourceUnusable if the connection to the broker fails.
        """
        try:
            async with self._connected(sink) as client:
                if client.version is not aiomqtt.ProtocolVersion.V5:
                    sink.limited(f"{self._options.host} {OLD_VERSION}")
                refused = await self._subscribe(client, sink, widest(self._topics.values()))
                while True:
                    heed_cancellation()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._ask_again_s if refused else None):
                            async for _ in client.messages:  # always empty: _Client gives each message on arrival
                                pass
                    refused = await self._subscribe(client, sink, refused)
        except aiomqtt.MqttError as error:
            raise SourceUnusable(f"MQTT broker {self._options.host}: {error}") from None

    @contextlib.asynccontextmanager
    async def _connected(self, sink: Sink) -> AsyncIterator[_Client]:
        client = self._client(sink, aiomqtt.ProtocolVersion.V5)
        try:
            await _connect(client)
        except aiomqtt.MqttError as error:
            if not _is_other_version(error):
                raise
            client = self._client(sink, aiomqtt.ProtocolVersion.V311)
            with contextlib.suppress(aiomqtt.MqttError):
                await _connect(client)
            if client.over:
                raise
        try:
            yield client
        finally:
            with contextlib.suppress(aiomqtt.MqttError):
                await client.__aexit__(None, None, None)
            client.over = True

    def _client(self, sink: Sink, version: aiomqtt.ProtocolVersion) -> _Client:
        options, context = self._options, None
        try:
            if options.tls:
                context = ssl.create_default_context(cafile=options.ca_file)
                if options.cert_file:
                    context.load_cert_chain(options.cert_file, options.key_file)
        except (OSError, ValueError) as error:
            raise SourceUnusable(f"MQTT broker {options.host}: {error}") from None
        return _Client(
            functools.partial(self._give, sink),
            self._seen,
            version,
            options.host,
            options.port or (_TLS_PORT if options.tls else _PORT),
            identifier=self._client_id,
            username=options.username or None,
            password=_password(options),  # read for each connection, so that a rotated secret is used
            keepalive=KEEP_ALIVE_S,
            timeout=TIMEOUT_S,
            tls_context=context,
            logger=_quiet,
        )

    async def _subscribe(self, client: _Client, sink: Sink, topics: Sequence[str]) -> list[str]:
        """Subscribe to topics.

        Return the topics that the broker refuses; only the sensors of these topics count as silent.
        """
        refused = []
        for topic in topics:
            (answer,) = await client.subscribe(topic, **_QOS[client.version])
            if (answer.value if isinstance(answer, ReasonCode) else answer) < _REFUSED:
                continue
            refused.append(topic)
            for sensor in (name for name, wanted in self._topics.items() if _covers(topic, wanted)):
                sink.lost(sensor, f"MQTT broker {self._options.host} refuses {topic}: {answer}")
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


class _ClosedBeforeAnswer(aiomqtt.MqttError):
    """Raised when the broker closes the connection instead of answering the CONNECT packet."""


class _Client(aiomqtt.Client):
    """MQTT client that passes each message to the agent before it acknowledges the message to the broker.

    aiomqtt itself would acknowledge a message as soon as the message is queued, so a lost connection would lose the
    queued messages.

    If the broker repeats a message because no acknowledgement arrived, the repeated message is dropped (MQTT 5, 4.4).
    ``seen`` holds packet identifier, topic and payload hash of the last messages of a session, also from earlier
    connections. The packet identifier alone does not identify a message, because the broker reuses identifiers.
    """

    def __init__(
        self,
        give: Callable[[MQTTMessage], None],
        seen: deque[tuple[int, str, int]],
        version: aiomqtt.ProtocolVersion,
        *args: Any,
        **options: Any,
    ) -> None:
        super().__init__(*args, **(_session(version) | options))
        self._give, self._seen, self.version = give, seen, version
        self.over = False

    def _on_connect(
        self, client: PahoClient, userdata: Any, flags: ConnectFlags, reason_code: ReasonCode, *args: Any
    ) -> None:
        if not (flags.session_present or reason_code.is_failure):  # a new session repeats nothing of the last one
            self._seen.clear()
        super()._on_connect(client, userdata, flags, reason_code, *args)

    def _on_disconnect(self, *args: Any, **options: Any) -> None:
        if not self._connected.done():  # aiomqtt would wait for the answer until its timeout
            self._connected.set_exception(_ClosedBeforeAnswer("the broker closed the connection without an answer"))
        super()._on_disconnect(*args, **options)

    def _on_message(self, client: PahoClient, userdata: Any, message: MQTTMessage) -> None:
        if self.over:
            return
        identity = (message.mid, message.topic, hash(message.payload))
        repeated = message.dup and identity in self._seen
        if message.qos:  # a repeated message too: the broker may repeat it again
            self._seen.append(identity)
        if not repeated:
            self._give(message)


def _password(options: MqttOptions) -> str | None:
    file = options.password_file
    if file is None:
        return None
    try:
        password = decode_text(file.read_bytes()).strip()
    except (OSError, ValueError) as error:
        raise SourceUnusable(f"MQTT broker {options.host}: password_file {file}: {error}") from None
    if not password:
        raise SourceUnusable(f"MQTT broker {options.host}: password_file {file} is empty")
    return password


async def _connect(client: _Client) -> None:
    """Connect.

    Raise MqttError. If connecting fails or is cancelled, set ``client.over``, so that the client drops all messages.
    """
    connecting = asyncio.ensure_future(client.__aenter__())
    try:
        await asyncio.shield(connecting)
    except asyncio.CancelledError:
        with contextlib.suppress(aiomqtt.MqttError):  # the connecting thread cannot be cancelled
            await connecting
            await client.__aexit__(None, None, None)
        client.over = True
        raise
    except aiomqtt.MqttError:
        client.over = True
        raise


def _is_other_version(error: aiomqtt.MqttError) -> bool:
    """Return whether an error means that the broker supports only MQTT 3.1.1 (section 3.1.2.2 of MQTT 3.1.1)."""
    code = getattr(getattr(error, "rc", None), "value", None)
    return isinstance(error, _ClosedBeforeAnswer) or code == _UNSUPPORTED_VERSION


def _session(version: aiomqtt.ProtocolVersion) -> dict[str, Any]:
    """Return the session options for an MQTT version.

    The session expires after ``SESSION_S`` with MQTT 5, and ends with the connection with MQTT 3.1.1.
    """
    if version is not aiomqtt.ProtocolVersion.V5:
        return {"protocol": version, "clean_session": True}
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval, properties.ReceiveMaximum = SESSION_S, IN_FLIGHT
    return {"protocol": version, "clean_start": False, "properties": properties}


def widest(topics: Iterable[str]) -> list[str]:
    """Return the topic filters that no other filter in the list covers.

    With overlapping filters, a broker would send a message once for each matching subscription.
    """
    unique = list(dict.fromkeys(topics))
    return [each for each in unique if not any(_covers(other, each) for other in unique if other != each)]


def _covers(wide: str, narrow: str) -> bool:
    """Return whether every topic that matches ``narrow`` also matches ``wide`` (MQTT 5, 4.7)."""
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
    """Return the reading in a payload. The payload is a number, or JSON with a number at the path ``options.field``.

    A payload without a number gives a reading without a value. This function raises no error, whatever the payload.
    """
    data = payload if isinstance(payload, bytes | bytearray) else b""
    if len(data) > MAX_PAYLOAD_BYTES:
        return Reading(None, problem=f"payload of {len(data)} bytes, expected at most {MAX_PAYLOAD_BYTES}")
    text = data.decode(errors="replace")
    found = parse_json(text)
    if isinstance(found, Mapping | list):
        quality = found.get("quality", 0) if isinstance(found, Mapping) else 0
        read = parse_reading(at_path(found, options.field or "value"), at_path(found, options.time_field), quality)
    elif options.field:
        read = parse_reading(f"no JSON: {text}")
    else:
        read = parse_reading(found if isinstance(found, bool) else text)
    return Reading(read.value, read.at_ns, read.quality | STALE, read.problem) if retained else read
