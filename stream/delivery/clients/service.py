"""Deliveries to chat and incident services, and the choice of a receiver's client."""

from __future__ import annotations

from collections.abc import Callable

from ingest.contract.records import Alert
from ingest.exceptions import ConfigError
from ingest.site import ReceiverConfig
from stream.delivery.clients.connect import Connector, address_of, secret_lines
from stream.delivery.clients.guard import DeliveryPolicy
from stream.delivery.clients.mail import MailDeliverer
from stream.delivery.clients.mqtt import MqttDeliverer
from stream.delivery.clients.post import MAX_REASON_CHARS, HttpPoster
from stream.delivery.clients.templates import TEMPLATES
from stream.delivery.clients.webhook import Deliverer, WebhookDeliverer
from stream.delivery.schedule import AttemptResult

PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
"""Address of the Events API of PagerDuty. Customers in Europe use another address."""


class ServiceDeliverer:
    """A client that posts alerts as messages for a chat or incident service.

    Each delivery reads the files of the address and the token, because they may be replaced at any time.
    """

    def __init__(self, receiver: ReceiverConfig, policy: DeliveryPolicy | None = None) -> None:
        self._receiver = receiver
        self._template = TEMPLATES[receiver.type]
        self._connector = Connector(receiver, policy or DeliveryPolicy())
        self._poster = HttpPoster(self._connector)

    async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
        """Post a message about an alert once."""
        receiver = self._receiver
        try:
            url = address_of(receiver) if receiver.url or receiver.url_file else PAGERDUTY_URL
            secret = secret_lines(receiver, "secret_file", receiver.secret_file)[0] if receiver.secret_file else ""
            message = self._template(alert, url, secret)
        except (ConfigError, ValueError) as error:
            return AttemptResult(None, f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS])
        headers = {**message.headers, "webhook-id": alert.id}
        return await self._poster.post(message.url, headers, message.body, receiver.timeout_s)

    async def close(self) -> None:
        """Release the threads that look up host names."""
        self._connector.close()


def make_deliverer(receiver: ReceiverConfig, policy: DeliveryPolicy | None = None) -> Deliverer:
    """Return the client of a receiver."""
    clients: dict[str, Callable[..., Deliverer]] = {
        "webhook": WebhookDeliverer,
        "email": MailDeliverer,
        "mqtt": MqttDeliverer,
    }
    return clients.get(receiver.type, ServiceDeliverer)(receiver, policy)
