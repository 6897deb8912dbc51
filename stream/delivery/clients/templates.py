"""Messages for chat and incident services: the body and the headers of an alert's request. Pure.

Each function returns a message for one service, from its documentation:

- Slack: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
- Teams: https://learn.microsoft.com/power-automate/teams/send-a-message-in-teams (an Adaptive Card for a workflow)
- Discord: https://discord.com/developers/docs/resources/webhook#execute-webhook
- ntfy: https://docs.ntfy.sh/publish/#publish-as-json
- PagerDuty: https://developer.pagerduty.com/docs/send-alert-event
- Alertmanager: https://prometheus.io/docs/alerting/latest/alerts_api/
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from ingest.contract.records import Alert
from ingest.contract.records.event import Severity

_COLOURS: Mapping[Severity, int] = {"info": 0x3B82F6, "warning": 0xF59E0B, "critical": 0xDC2626}
_NTFY_PRIORITIES: Mapping[Severity, int] = {"info": 3, "warning": 4, "critical": 5}
_TEAMS_COLOURS: Mapping[Severity, str] = {"info": "Accent", "warning": "Warning", "critical": "Attention"}
MAX_SUMMARY_CHARS = 1000
"""Maximum length in characters of a summary in a message. PagerDuty allows 1,024 characters, and the other services
allow more."""
ALERTMANAGER_HOLD = timedelta(hours=24)
"""Time after which an alert of Alertmanager ends if no alert of the incident's end arrives."""


class ServiceMessage(NamedTuple):
    """The URL, headers and JSON body of a request."""

    url: str
    headers: dict[str, str]
    body: bytes


def slack(alert: Alert, url: str, _: str) -> ServiceMessage:
    """Return a message for an incoming webhook of Slack."""
    text = _escaped(title_of(alert))
    facts = "   ".join(f"*{name}:* {_escaped(value)}" for name, value in facts_of(alert).items())
    blocks = [
        {"type": "section", "text": {"type": "mrkdwn", "text": f"*{text}*"}},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": facts}]},
    ]
    colour = f"#{_COLOURS[alert.data.severity]:06x}"
    return _message(url, {"text": text, "attachments": [{"color": colour, "fallback": text, "blocks": blocks}]})


def teams(alert: Alert, url: str, _: str) -> ServiceMessage:
    """Return an Adaptive Card for a workflow of Microsoft Teams."""
    facts = [{"title": name, "value": value} for name, value in facts_of(alert).items()]
    title = {
        "type": "TextBlock",
        "text": title_of(alert),
        "weight": "Bolder",
        "wrap": True,
        "color": _TEAMS_COLOURS[alert.data.severity],
    }
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [title, {"type": "FactSet", "facts": facts}],
    }
    kind = "application/vnd.microsoft.card.adaptive"
    return _message(url, {"type": "message", "attachments": [{"contentType": kind, "content": card}]})


def discord(alert: Alert, url: str, _: str) -> ServiceMessage:
    """Return a message for a webhook of Discord, in which nobody is mentioned."""
    embed = {
        "title": title_of(alert)[:256],
        "color": _COLOURS[alert.data.severity],
        "timestamp": alert.time,
        "fields": [{"name": name, "value": value, "inline": True} for name, value in facts_of(alert).items()],
    }
    return _message(url, {"embeds": [embed], "allowed_mentions": {"parse": []}})


def ntfy(alert: Alert, url: str, token: str) -> ServiceMessage:
    """Return a message for an ntfy server. The last part of ``url`` is the topic."""
    parts = urlsplit(url)
    path, _, topic = parts.path.rstrip("/").rpartition("/")
    content = {
        "topic": topic,
        "title": f"{alert.data.severity}: {alert.data.rule}",
        "message": _summary(alert),
        "priority": _NTFY_PRIORITIES[alert.data.severity],
        "tags": [name for name in (alert.data.severity, alert.data.place, alert.data.label) if name],
    }
    return _message(urlunsplit(parts._replace(path=path + "/")), content, token)


def pagerduty(alert: Alert, url: str, routing_key: str) -> ServiceMessage:
    """Return an event for the Events API v2 of PagerDuty. The end of an incident resolves its alert."""
    data = alert.data
    payload = {
        "summary": title_of(alert),
        "source": alert.subject,
        "severity": data.severity,
        "timestamp": alert.time,
        "component": data.place or alert.subject,
        "group": data.site,
        "class": data.rule,
        "custom_details": {**facts_of(alert), **data.details},
    }
    action = "resolve" if data.change == "end" else "trigger"
    content = {"routing_key": routing_key, "event_action": action, "dedup_key": data.incident, "payload": payload}
    return _message(url, content)


def alertmanager(alert: Alert, url: str, token: str) -> ServiceMessage:
    """Return an alert for the API v2 of Alertmanager. The end of an incident ends its alert."""
    data = alert.data
    began = datetime.fromisoformat(alert.time).astimezone(UTC)
    ends = began if data.change == "end" else began + ALERTMANAGER_HOLD
    labels = {
        "alertname": data.rule,
        "severity": data.severity,
        "site": data.site,
        "place": data.place or alert.subject,
        "incident": data.incident,
    }
    content = {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {"summary": _summary(alert), **facts_of(alert)},
        "startsAt": began.isoformat(),
        "endsAt": ends.isoformat(),
    }
    return _message(url, [content], token)


Template = Callable[[Alert, str, str], ServiceMessage]
"""A function of the alert, the receiver's address, and its key or token (empty without one)."""
TEMPLATES: Mapping[str, Template] = {
    "slack": slack,
    "teams": teams,
    "discord": discord,
    "ntfy": ntfy,
    "pagerduty": pagerduty,
    "alertmanager": alertmanager,
}
"""The template of each ``type`` of a receiver."""


def _message(url: str, content: Any, token: str = "") -> ServiceMessage:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    return ServiceMessage(url, headers, json.dumps(content, ensure_ascii=False).encode())


def title_of(alert: Alert) -> str:
    """Return the severity and the summary of an alert, in one line."""
    again = {"begin": "", "update": " (update)", "end": " (ended)"}[alert.data.change]
    return f"{alert.data.severity}: {_summary(alert)}{again}"


def _summary(alert: Alert) -> str:
    return alert.data.summary[:MAX_SUMMARY_CHARS]


def facts_of(alert: Alert) -> dict[str, str]:
    """Return names and values of the facts that every message shows. None is empty."""
    data = alert.data
    pictures = [one.url for one in data.evidence if one.url.startswith("http")]
    facts = {
        "site": data.site,
        "place": data.place or "",
        "camera": data.camera or "",
        "sensor": data.sensor or "",
        "rule": data.rule,
        "time": alert.time,
        "incident": data.incident,
        "picture": pictures[-1] if pictures else "",
    }
    return {name: value for name, value in facts.items() if value}


def _escaped(text: str) -> str:
    """Escape the three characters that Slack interprets, so that text of a camera cannot mention or link anyone."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
