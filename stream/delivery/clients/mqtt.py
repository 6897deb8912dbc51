"""Deliveries to an MQTT broker, with discovery by Home Assistant.

Each alert is published as a CloudEvent on ``TOPIC/alerts``, and as an event of Home Assistant on
``TOPIC/event/SUBJECT/RULE``. The discovery message of a camera's rule is retained, so Home Assistant has an event
entity for each rule under the device of the camera (https://www.home-assistant.io/integrations/event.mqtt/).
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ingest.contract.codec import encode_json
from ingest.contract.records import Alert
from ingest.exceptions import ConfigError
from ingest.site import ReceiverConfig
from stream.delivery.clients.connect import Connector, secret_lines
from stream.delivery.clients.guard import DeliveryPolicy
from stream.delivery.clients.post import MAX_REASON_CHARS
from stream.delivery.clients.templates import facts_of
from stream.delivery.schedule import AttemptResult

if TYPE_CHECKING:
    import aiomqtt

PORT, TLS_PORT = 1883, 8883
AT_LEAST_ONCE = 1
"""Quality of service: the broker acknowledges each message."""
CHANGES = ["begin", "update", "end"]
"""Types of the events of an entity."""


class MqttDeliverer:
    """A client that publishes alerts. Each delivery opens its own connection.

    A delivery succeeds when the broker has acknowledged all messages.
    """

    def __init__(self, receiver: ReceiverConfig, policy: DeliveryPolicy | None = None) -> None:
        self._receiver = receiver
        self._connector = Connector(receiver, policy or DeliveryPolicy())
        self._announced: set[tuple[str, str]] = set()

    async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
        """Publish an alert once."""
        timeout_s = self._receiver.timeout_s
        try:
            import aiomqtt
        except ImportError:
            return AttemptResult(None, "the package aiomqtt is missing: install sightline[mqtt] for `dispatch`")
        try:
            async with asyncio.timeout(timeout_s), await self._client() as client:
                await self._publish(client, alert)
            return AttemptResult(None, accepted=True)
        except TimeoutError:
            return AttemptResult(None, f"no acknowledgement of the MQTT broker within {timeout_s:g} s")
        except (aiomqtt.MqttError, OSError, ValueError, ConfigError) as error:
            return AttemptResult(None, f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS])

    async def close(self) -> None:
        """Release the threads that look up host names."""
        self._connector.close()

    async def _client(self) -> aiomqtt.Client:
        import aiomqtt

        receiver, url = self._receiver, urlsplit(self._receiver.url)
        host, tls = url.hostname or "", url.scheme == "mqtts"
        port = url.port or (TLS_PORT if tls else PORT)
        address = (await self._connector.resolve(host, port, tls=tls))[0]
        password = secret_lines(receiver, "secret_file", receiver.secret_file)[0] if receiver.user else None
        context: ssl.SSLContext | None = self._connector.tls_context() if tls else None
        client = aiomqtt.Client(
            host,
            port,
            username=receiver.user or None,
            password=password,
            identifier=f"sightline-{receiver.name[:40]}-{secrets.token_hex(4)}",
            timeout=receiver.timeout_s,
        )

        def connect() -> socket.socket:
            plain = socket.create_connection((address, port), receiver.timeout_s)
            try:
                return context.wrap_socket(plain, server_hostname=host) if context else plain
            except BaseException:
                plain.close()
                raise

        # paho has no setting for a checked address beside the name that the certificate must have
        client._client._create_socket_connection = connect  # type: ignore[method-assign]
        return client

    async def _publish(self, client: aiomqtt.Client, alert: Alert) -> None:
        topic, prefix, entity = self._receiver.topic, self._receiver.discovery, (alert.subject, alert.data.rule)
        if prefix and entity not in self._announced:
            place, content = discovery(alert, topic, prefix)
            await client.publish(place, json.dumps(content), AT_LEAST_ONCE, retain=True)
        if prefix:
            await client.publish(_state_topic(alert, topic), json.dumps(event_of(alert)), AT_LEAST_ONCE)
        await client.publish(f"{topic}/alerts", encode_json(alert), AT_LEAST_ONCE)
        self._announced.add(entity)


def discovery(alert: Alert, topic: str, prefix: str) -> tuple[str, dict[str, Any]]:
    """Return the topic and the content of the discovery message of a rule's event entity."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"sightline_{alert.subject}_{alert.data.rule}")
    content = {
        "unique_id": name,
        "name": alert.data.rule,
        "state_topic": _state_topic(alert, topic),
        "event_types": CHANGES,
        "qos": AT_LEAST_ONCE,
        "device": {
            "identifiers": [f"sightline_{alert.subject}"],
            "name": alert.subject,
            "manufacturer": "Sightline",
            **({"suggested_area": alert.data.place} if alert.data.place else {}),
        },
        "origin": {"name": "Sightline"},
    }
    return f"{prefix}/event/{name}/config", content


def event_of(alert: Alert) -> dict[str, Any]:
    """Return an alert as an event of Home Assistant, whose other keys become attributes."""
    data = alert.data
    return {
        "event_type": data.change,
        "id": alert.id,
        "severity": data.severity,
        "summary": data.summary,
        "label": data.label,
        **facts_of(alert),
    }


def _state_topic(alert: Alert, topic: str) -> str:
    return f"{topic}/event/{alert.subject}/{alert.data.rule}"
