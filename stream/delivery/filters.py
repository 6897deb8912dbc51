"""Which alerts a receiver gets, and when: filters, hours and quiet hours. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ingest.contract.records import Alert
from ingest.contract.records.event import SEVERITIES
from ingest.site import ReceiverConfig
from ingest.site.hours import Schedule

MINUTE_NS = 60_000_000_000
MAX_QUIET_MINUTES = 8 * 24 * 60
"""Longest time that an alert waits for the end of quiet hours, in minutes: a week, and one more day because clocks
change for daylight saving time."""


class ReceiverFilter:
    """The filters of one receiver."""

    def __init__(self, config: ReceiverConfig) -> None:
        zone = config.time_zone or "UTC"
        self._config = config
        self._hours, self._quiet = Schedule(config.hours, zone), Schedule(config.quiet_hours, zone)
        self._quiet_until_ns = 0

    def refusal(self, alert: Alert) -> str:
        """Return why the receiver does not get an alert; empty if it gets the alert."""
        config, data = self._config, alert.data
        if SEVERITIES.index(data.severity) < SEVERITIES.index(config.min_severity):
            return f"severity {data.severity}: expected {config.min_severity} or higher"
        if config.rules and not _matches(config.rules, data.rule):
            return f"rule {data.rule}: expected one of {', '.join(config.rules)}"
        if config.labels and data.label not in config.labels:
            return f"label {data.label or 'none'}: expected one of {', '.join(config.labels)}"
        names = (alert.subject, data.place or "", f"{data.site}/{data.place}")
        if config.places and not any(_matches(config.places, name) for name in names):
            return f"place {data.place or alert.subject}: expected one of {', '.join(config.places)}"
        role = "event" if data.change == "update" and not data.reasons else data.change
        if role not in config.changes:
            return f"change {role}: expected one of {', '.join(config.changes)}"
        if not self._hours.contains(data.captured_ns):
            return "captured outside of the receiver's hours"
        return ""

    def quiet_until_ns(self, alert: Alert, now_ns: int) -> int:
        """Return the end of the quiet hours for which an alert waits, in Unix ns; 0 if it does not wait."""
        config = self._config
        loud = SEVERITIES.index(alert.data.severity) >= SEVERITIES.index(config.quiet_below)
        if not config.quiet_hours or loud or not self._quiet.contains(now_ns):
            return 0
        if self._quiet_until_ns <= now_ns:
            minute = now_ns // MINUTE_NS + 1
            minutes = range(minute, minute + MAX_QUIET_MINUTES)
            end = next((each for each in minutes if not self._quiet.contains(each * MINUTE_NS)), minutes[-1])
            self._quiet_until_ns = end * MINUTE_NS
        return self._quiet_until_ns


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
