"""The interface ``Deliverer``, which sends alerts to a receiver, and its implementation by signed webhooks."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from standardwebhooks.webhooks import Webhook

from ingest.contract.codec import encode_json
from ingest.contract.records import Alert
from ingest.exceptions import ConfigError
from ingest.runtime.text import decode_text
from ingest.site import ReceiverConfig
from stream.delivery.post import HttpPoster
from stream.delivery.schedule import AttemptResult


class Deliverer(Protocol):
    """A client of one receiver. Methods are asynchronous, and calls may run concurrently."""

    async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
        """Try once to deliver an alert, and return the result. A failure is returned as a result, never raised."""

    async def close(self) -> None:
        """Close the connections."""


class WebhookDeliverer:
    """A client that posts alerts, signed as Standard Webhooks specifies.

    Each delivery reads the secret file, because the secret may be rotated at any time.
    """

    def __init__(self, receiver: ReceiverConfig) -> None:
        self._receiver = receiver
        self._poster: HttpPoster | None = None

    async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
        """Post an alert once.

        A redirect counts as a failure, because the operator must enter the receiver's new address in the site file.
        """
        body = encode_json(alert)
        try:
            headers = signed_headers(alert.id, body, now_s, self._receiver)
            self._poster = self._poster or HttpPoster(self._receiver.url)
        except (ConfigError, ValueError) as error:
            return AttemptResult(None, f"{type(error).__name__}: {error}"[:300])
        return await self._poster.post(headers, body, self._receiver.timeout_s)

    async def close(self) -> None:
        """Release the threads that look up host names."""
        if self._poster:
            self._poster.close()


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
    moment = datetime.fromtimestamp(now_s, UTC)
    secrets = _secrets(receiver.secret_file, receiver)
    try:
        signatures = [Webhook(secret).sign(message_id, moment, body.decode()) for secret in secrets]
    except Exception as error:  # the package standardwebhooks raises its own errors and those of base64
        raise ConfigError(
            receiver.key,
            "secret_file",
            str(receiver.secret_file),
            f"one base64 secret on each line, such as `whsec_…` ({error})",
        ) from None
    return {
        "content-type": "application/cloudevents+json; charset=utf-8",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _secrets(file: Path, receiver: ReceiverConfig) -> list[str]:
    try:
        secrets = [line.strip() for line in decode_text(file.read_bytes()).splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(receiver.key, "secret_file", str(file), f"a readable file ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(receiver.key, "secret_file", str(file), f"a text file ({error})") from None
    if not secrets:
        raise ConfigError(receiver.key, "secret_file", str(file), "a file with a secret on its first line")
    return secrets
