"""The interface ``Deliverer``, which sends alerts to a receiver, and its implementation by signed webhooks."""

from __future__ import annotations

from typing import Protocol

from ingest.contract.codec import encode_json
from ingest.contract.records import Alert
from ingest.exceptions import ConfigError
from ingest.site import ReceiverConfig
from stream.delivery.clients.connect import Connector, address_of, secret_lines
from stream.delivery.clients.guard import DeliveryPolicy
from stream.delivery.clients.post import MAX_REASON_CHARS, HttpPoster
from stream.delivery.clients.signature import sign
from stream.delivery.schedule import AttemptResult


class Deliverer(Protocol):
    """A client of one receiver. Methods are asynchronous, and calls may run concurrently."""

    async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
        """Try once to deliver an alert, and return the result. A failure is returned as a result, never raised."""

    async def close(self) -> None:
        """Close the connections."""


class WebhookDeliverer:
    """A client that posts alerts, signed as Standard Webhooks specifies.

    Each delivery reads the files of the address and the secrets, because they may be replaced at any time.
    """

    def __init__(self, receiver: ReceiverConfig, policy: DeliveryPolicy | None = None) -> None:
        self._receiver = receiver
        self._connector = Connector(receiver, policy or DeliveryPolicy())
        self._poster = HttpPoster(self._connector)

    async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
        """Post an alert once.

        A redirect counts as a failure, because the operator must enter the receiver's new address in the site file.
        """
        body = encode_json(alert)
        try:
            url = address_of(self._receiver)
            headers = signed_headers(alert.id, body, now_s, self._receiver)
        except ConfigError as error:
            return AttemptResult(None, f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS])
        return await self._poster.post(url, headers, body, self._receiver.timeout_s)

    async def close(self) -> None:
        """Release the threads that look up host names."""
        self._connector.close()


class LogDeliverer:
    """A deliverer that stores alerts instead of sending them, for dry runs."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
        """Store an alert."""
        self.alerts.append(alert)
        return AttemptResult(200)

    async def close(self) -> None:
        """Do nothing, because there is no connection to close."""


def signed_headers(message_id: str, body: bytes, now_s: float, receiver: ReceiverConfig) -> dict[str, str]:
    """Return the HTTP headers of a signed alert. Raise ConfigError if the secret file holds no usable secret.

    A secret file may have several lines, with the new secret first and old secrets below. Each post is signed with
    all secrets, so that a receiver can change to the new secret at any time.
    """
    secrets = secret_lines(receiver, "secret_file", receiver.secret_file)
    seconds = int(now_s)
    try:
        signatures = [sign(secret, message_id, seconds, body) for secret in secrets]
    except ValueError as error:
        expected = f"one base64 secret on each line, such as `whsec_…` ({error})"
        raise ConfigError(receiver.key, "secret_file", str(receiver.secret_file), expected) from None
    return {
        "content-type": "application/cloudevents+json; charset=utf-8",
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(signatures),
    }
