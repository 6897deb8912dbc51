"""The entries of the ``config`` topic as they hold, and those that were refused. Pure but for its log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ingest.exceptions import ConfigError
from ingest.runtime import logs
from ingest.site import (
    CameraConfig,
    ConfigEntry,
    PinConfig,
    PipelineConfig,
    ReceiverConfig,
    SensorConfig,
    parse_entry,
)

_log = logs.get("ingest.config")

E = TypeVar("E", bound=ConfigEntry)
Validate = Callable[[ConfigEntry], ConfigEntry]

_SHOWN_CHARS = 500
"""Of a refusal: it goes into a log line and into every heartbeat, and whoever wrote the entry chose its length."""
_MEND = "write it anew with `sightline config apply`, or take it out with `sightline config remove KEY`"


@dataclass(frozen=True, slots=True)
class Config:
    """All entries by key, as they stood when the topic was read, and why others were refused."""

    entries: dict[str, ConfigEntry]
    refused: Mapping[str, str] = field(default_factory=dict)

    def of(self, cls: type[E]) -> tuple[E, ...]:
        """Return the entries of one class, by name."""
        return tuple(e for _, e in sorted(self.entries.items()) if isinstance(e, cls))

    @property
    def cameras(self) -> tuple[CameraConfig, ...]:
        """The cameras, by name."""
        return self.of(CameraConfig)

    @property
    def sensors(self) -> tuple[SensorConfig, ...]:
        """The sensors, by name."""
        return self.of(SensorConfig)

    @property
    def pipelines(self) -> tuple[PipelineConfig, ...]:
        """The pipelines, by name."""
        return self.of(PipelineConfig)

    @property
    def receivers(self) -> tuple[ReceiverConfig, ...]:
        """The webhook receivers, by name."""
        return self.of(ReceiverConfig)

    @property
    def pins(self) -> dict[str, int]:
        """The cameras whose partition is pinned."""
        return {pin.name: pin.partition for pin in self.of(PinConfig)}


def accept(entry: ConfigEntry) -> ConfigEntry:
    """Return the entry as it was parsed."""
    return entry


class ConfigView:
    """The entries as they hold, one by one. It is fed with keys and values in the order of the topic.

    An entry that cannot be used is refused, and the last good one under its key goes on holding. ``begin`` and
    ``caught_up`` stand around a reading of the whole topic. ``validate`` may replace an entry by a stricter model of
    it, or refuse it with a ConfigError.
    """

    def __init__(self, entries: Mapping[str, ConfigEntry] | None = None, validate: Validate = accept) -> None:
        self._entries = dict(entries or {})
        self._validate = validate
        self._refused: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._removed: set[str] = set()
        self._seen: set[str] | None = None
        self.trouble = ""
        """Why the topic cannot be read just now; empty while it can."""

    @property
    def config(self) -> Config:
        """What holds now."""
        return Config(dict(self._entries), dict(self._refused))

    @property
    def refused(self) -> Mapping[str, str]:
        """Keys whose newest entry was refused, and why: file, key, value and what was expected."""
        return dict(self._refused)

    @property
    def removed(self) -> frozenset[str]:
        """Keys that the topic says are gone."""
        return frozenset(self._removed)

    def begin(self) -> None:
        """Begin a reading of the topic from its first record on."""
        self._seen = set()

    def take(self, key: str, value: bytes) -> None:
        """Take one record, a tombstone if it is empty."""
        if self._seen is not None:
            self._seen.add(key)
        self._refused.pop(key, None)
        self._removed.discard(key)
        if not value:
            self._removed.add(key)
            self._entries.pop(key, None)
            return
        try:
            self._entries[key] = self._validate(_parsed(key, value))
        except ConfigError as error:
            self._refused[key] = _short(str(error))

    def caught_up(self) -> None:
        """Say that everything has been read, and log once what is refused.

        After a whole reading, what the topic has no more is gone: compaction takes an entry that was removed, and in
        time its tombstone. Whether that is so, or the topic was lost, is for others to judge: see ``removed``.
        """
        seen, self._seen = self._seen, None
        if seen is not None:
            self._entries = {key: entry for key, entry in self._entries.items() if key in seen}
            self._refused = {key: why for key, why in self._refused.items() if key in seen}
        for key, why in self._refused.items():
            if self._told.get(key) != why:
                _log.warning("entry refused", key=_short(key), error=why, kept=key in self._entries, mend=_MEND)
        for key in self._told.keys() - self._refused.keys():
            _log.info("entry good again or gone", key=_short(key))
        self._told = dict(self._refused)


def _parsed(key: str, value: bytes) -> ConfigEntry:
    entry = parse_entry(key, value)
    if entry.key != key:
        raise ConfigError("config topic", key, entry.key, "an entry that goes by the name of its key")
    return entry


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
