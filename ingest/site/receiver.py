"""Configuration of a receiver of alerts: its address, its secrets, and the connection to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ingest.contract.records.event import Severity
from ingest.runtime.url import checked_url
from ingest.site.camera import LOGIN, has_secret
from ingest.site.entry import Seconds, SharedEntry
from ingest.site.hours import TimeZone, WeeklyHours

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""Pattern of a placeholder for an environment variable of the dispatcher, such as ``${TOKEN}``."""
_SECRET_PARAMETER = re.compile(rf"[?&][^?&=]{{0,40}}?(?:{LOGIN})[^?&=]{{0,40}}=(?!\$\{{)[^&]", re.IGNORECASE)
"""Pattern of a parameter in a URL that holds a literal secret, such as ``?token=abc``."""


_SCHEMES = {"email": ("smtp", "smtps"), "mqtt": ("mqtt", "mqtts"), "": ("http", "https")}
"""Schemes of the addresses by the type of the receiver. The empty key has the schemes of all types that are not
listed."""


def _receiver_url(url: str) -> str:
    """Validate the address of a receiver. ``${NAME}`` stands for an environment variable of the dispatcher."""
    if not url:
        return url
    found = _SECRET_PARAMETER.search(url)
    if found:
        raise ValueError(
            f"expected no secret after {found[0].rpartition('=')[0]!r}, because every service can read the config "
            "topic. Write ${NAME} for an environment variable of the dispatcher, or use url_file"
        )
    checked_url(VARIABLE.sub("x", url), [scheme for schemes in _SCHEMES.values() for scheme in schemes])
    return url


def _proxy_url(url: str) -> str:
    if has_secret(url):
        raise ValueError(
            "expected a placeholder for the password, because every service can read the config topic: "
            "http://user:${PROXY_PASSWORD}@host:port"
        )
    checked_url(VARIABLE.sub("x", url), ("http",), login=True)
    return url


ReceiverType = Literal["webhook", "slack", "teams", "discord", "ntfy", "pagerduty", "alertmanager", "email", "mqtt"]
_SECRET_ADDRESSES = ("slack", "teams", "discord")
"""Types of receivers to which everybody who knows the address can send messages."""
ReceiverUrl = Annotated[str, AfterValidator(_receiver_url)]
ProxyUrl = Annotated[str, AfterValidator(_proxy_url)]


def _mail_address(address: str) -> str:
    if address and not re.fullmatch(r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,253}", address):
        raise ValueError("expected a mail address such as guard@example.org")
    return address


def _mqtt_topic(topic: str) -> str:
    if not re.fullmatch(r"[^+#\x00-\x1f$/][^+#\x00-\x1f]{0,199}|", topic) or topic.endswith("/"):
        raise ValueError("expected a topic such as home/sightline, without + and #, and without / at its ends")
    return topic


MqttTopic = Annotated[str, AfterValidator(_mqtt_topic)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
AlertRole = Literal["begin", "update", "event", "end"]
"""Role of an alert in its incident: the ``begin``, an ``update`` with a reason, another ``event``, or the ``end``."""


class ReceiverConfig(SharedEntry):
    """A webhook, chat or incident service that receives alerts. The secrets of a receiver are read from files."""

    KIND: ClassVar[str] = "receiver"

    type: ReceiverType = "webhook"
    """Kind of the receiver: a signed webhook with the whole alert, or a message for a service."""
    url: ReceiverUrl = ""
    url_file: Path | None = None
    """A file whose first line is the address, for an address that is itself a secret."""
    secret_file: Path | None = None
    """For ``pagerduty`` the routing key, for ``ntfy`` and ``alertmanager`` an access token. For ``webhook`` a file
    with one signing secret on each line: ``whsec_…`` signs with HMAC-SHA256, ``whsk_…`` with
    Ed25519. Every secret of the file signs each post, so that a secret can be replaced without a gap."""
    user: str = ""
    """For ``email`` and ``mqtt`` the user of the server, whose password is in ``secret_file``."""
    sender: MailAddress = ""
    """For ``email`` the address of the sender."""
    to: tuple[MailAddress, ...] = ()
    """For ``email`` the addresses of the recipients."""
    topic: MqttTopic = "sightline"
    """For ``mqtt`` the first part of the topics."""
    discovery: MqttTopic = "homeassistant"
    """For ``mqtt`` the discovery prefix of Home Assistant; empty for no discovery."""
    allow_private: bool = False
    """If true, alerts may be sent to an address in a private network or on this machine. If false, such an address is
    refused, so that a receiver cannot make the dispatcher post into the internal network."""
    ca_file: Path | None = None
    """Trusted certificate authorities for ``https``, as PEM; by default the authorities of the package certifi."""
    cert_file: Path | None = None
    """A client certificate, as PEM, that the dispatcher shows to the receiver."""
    key_file: Path | None = None
    """Private key of ``cert_file``; by default the key is in ``cert_file``."""
    proxy: ProxyUrl | None = None
    """An HTTP proxy, through which the dispatcher connects with the method CONNECT."""
    min_severity: Severity = "info"
    """Lowest severity of the alerts that the receiver gets."""
    rules: tuple[str, ...] = ()
    """The receiver gets only alerts of these rules; empty for all alerts. The name of a rule may contain ``*``."""
    labels: tuple[str, ...] = ()
    """The receiver gets only alerts about objects with these labels; empty for all alerts. Alerts of sensors have no
    label."""
    places: tuple[str, ...] = ()
    """The receiver gets only alerts of these places, cameras and sensors; empty for all alerts. The name of a place
    may contain ``*``."""
    changes: tuple[AlertRole, ...] = Field(default=("begin", "update", "event"), min_length=1)
    """The receiver gets only alerts that have one of these roles in their incidents; by default all roles except the
    end of an incident."""
    hours: tuple[WeeklyHours, ...] = ()
    """Hours of the capture time in which the receiver gets alerts; empty for always."""
    quiet_hours: tuple[WeeklyHours, ...] = ()
    """Hours in which alerts wait until the hours end."""
    quiet_below: Severity = "critical"
    """Alerts of this severity or a higher one do not wait for the end of quiet hours."""
    time_zone: TimeZone | None = None
    """Time zone of ``hours`` and ``quiet_hours``; by default the time zone of the site."""
    escalate_after_s: Seconds = 0.0
    """If not 0, the receiver gets an alert only if nobody has acknowledged its incident for ``escalate_after_s``
    seconds."""
    max_per_minute: float = Field(default=0.0, ge=0.0, le=60_000.0)
    """Maximum number of attempts of one dispatcher in a minute; 0 for no limit."""
    history: bool = False
    """If true, a new receiver gets all alerts that the topic ``alerts`` still has. If false, a new receiver gets only
    alerts that are written after the receiver was added."""
    timeout_s: float = Field(default=10.0, gt=0.0, le=60.0)
    retry_s: tuple[Seconds, ...] = (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    """Pauses before the attempts to deliver an alert, in seconds. The default is the schedule of Standard Webhooks,
    which takes 75 hours in all."""

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        schemes = _SCHEMES.get(self.type, _SCHEMES[""])
        if bool(self.url) == bool(self.url_file) and (self.url or self.type != "pagerduty"):
            raise ValueError("expected either url or url_file")
        if self.url and self.url.partition(":")[0] not in schemes:
            raise ValueError(f"expected {schemes[0]}:// or {schemes[1]}:// in url for the type {self.type}")
        if self.type in ("email", "mqtt") and (not self.url or self.proxy):
            raise ValueError(f"expected url, and no proxy, for a receiver of the type {self.type}")
        if self.type == "email" and not (self.sender and self.to):
            raise ValueError("expected sender and to for a receiver of the type email")
        return self

    @model_validator(mode="after")
    def _keeps_its_secrets(self) -> Self:
        secret = f"because the address of a {self.type} webhook is a secret"
        is_secret = self.type in _SECRET_ADDRESSES
        if is_secret and self.url and not VARIABLE.search(self.url):
            raise ValueError(f"expected url_file, or a ${{NAME}} in url, {secret}")
        if is_secret and self.secret_file:
            raise ValueError(f"expected no secret_file, {secret} and this type needs no second one")
        if self.user and self.url.startswith("mqtt:") and not self.allow_private:
            raise ValueError("expected mqtts:// or allow_private = true, because a password would be sent in clear")
        return self

    @model_validator(mode="after")
    def _has_its_files(self) -> Self:
        if self.key_file and not self.cert_file:
            raise ValueError("expected cert_file as well, because key_file is set")
        if self.user and not self.secret_file:
            raise ValueError("expected secret_file as well, because user is set")
        if self.type in ("webhook", "pagerduty") and self.secret_file is None:
            raise ValueError(f"expected secret_file for a receiver of the type {self.type}")
        return self
