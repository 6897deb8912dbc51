"""The valid and the refused entries of the ``config`` topic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from ingest.exceptions import ConfigError
from ingest.runtime import logs
from ingest.site import (
    ConfigEntry,
    PinConfig,
    parse_entry,
)
from ingest.site.topic.signature import ConfigTrust

_log = logs.get("ingest.config")

E = TypeVar("E", bound=ConfigEntry)
Validate = Callable[[ConfigEntry], ConfigEntry]

_SHOWN_CHARS = 500
"""Maximum length in characters of the error text of a refused entry. The error text quotes the entry, which may have
any length, and is written to a log line and to every heartbeat."""
_UNSIGNED_REMOVAL = (
    "config topic, {key}: the topic no longer has it, and no signed removal. It stays in force. Apply the site file "
    "again, or run `sightline config remove {key} --sign-key FILE`"
)
_REMEDY = "write it again with `sightline config apply`, or remove it with `sightline config remove KEY`"


@dataclass(frozen=True, slots=True)
class Config:
    """Snapshot of the ``config`` topic: the valid entries by key, and the errors of the refused entries by key."""

    entries: dict[str, ConfigEntry]
    refused: Mapping[str, str] = field(default_factory=dict)
    signed_at: int = field(default=0, compare=False)
    """Latest time of signing on the topic, in ns; 0 if no entry is signed. The next signature must be later than
    ``signed_at``."""

    def of(self, cls: type[E]) -> tuple[E, ...]:
        """Return the entries of one class, sorted by key."""
        return tuple(e for _, e in sorted(self.entries.items()) if isinstance(e, cls))

    @property
    def pins(self) -> dict[str, int]:
        """The pinned partition number of each pinned camera, by the camera's name."""
        return {pin.name: pin.partition for pin in self.of(PinConfig)}


def accept(entry: ConfigEntry) -> ConfigEntry:
    """Accept every entry, and return it unchanged."""
    return entry


class ConfigView:
    """The current entries of the ``config`` topic, updated with each record in the order of the topic.

    An invalid entry is refused, and the last valid entry under the same key stays in force. A reading of the whole
    topic starts with ``begin_reading`` and ends with ``finish_reading``. ``validate`` may replace an entry by an
    instance of a stricter model, or refuse the entry with a ConfigError.

    If ``trust`` has a public key, an entry or tombstone without a valid signature is refused. By default, ``trust``
    comes from the environment, so that every reader checks signatures. Raise ConfigError if the public key cannot be
    used.
    """

    def __init__(
        self,
        entries: Mapping[str, ConfigEntry] | None = None,
        validate: Validate = accept,
        trust: ConfigTrust | None = None,
    ) -> None:
        self._entries = dict(entries or {})
        self._validate = validate
        self._trust = trust or ConfigTrust.from_env()
        self._refused: dict[str, str] = {}
        self._logged: dict[str, str] = {}
        self._removed: set[str] = set()
        self._seen: set[str] | None = None
        self.outage = ""
        """The error that currently prevents reading the topic; empty while the topic can be read."""

    @property
    def config(self) -> Config:
        """A snapshot of the entries in force and of the refused entries."""
        newest = max(self._trust.seen.values(), default=0) if self._trust else 0
        return Config(dict(self._entries), dict(self._refused), newest)

    @property
    def removed(self) -> frozenset[str]:
        """Keys whose last record on the topic is a tombstone."""
        return frozenset(self._removed)

    def begin_reading(self) -> None:
        """Begin a reading of the whole topic from its first record."""
        self._seen = set()

    def apply(self, key: str, value: bytes, headers: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Apply one record; an empty value is a tombstone."""
        if self._seen is not None:
            self._seen.add(key)
        self._refused.pop(key, None)
        if self._trust:
            try:
                self._trust.check(key, value, headers)
            except ConfigError as error:
                self._refused[key] = _short(str(error))
                return
        self._removed.discard(key)
        if not value:
            self._removed.add(key)
            self._entries.pop(key, None)
            return
        try:
            entry = parse_entry(key, value)
            if entry.key != key:
                raise ConfigError("config topic", key, entry.key, "an entry whose kind and name match its key")
            self._entries[key] = self._validate(entry)
        except ConfigError as error:
            self._refused[key] = _short(str(error))

    def finish_reading(self) -> None:
        """End a reading of the topic, and log each refusal once.

        After a reading of the whole topic, remove the entries that the topic no longer contains: compaction deletes a
        removed entry and later its tombstone. If the topic is empty, ``removed`` lets the caller distinguish removed
        entries from a lost topic. If signatures are required, an entry that the topic no longer contains stays in
        force and is reported as refused, because anyone may have written its tombstone.
        """
        seen, self._seen = self._seen, None
        if seen is not None and self._trust:
            self._refused |= {key: _UNSIGNED_REMOVAL.format(key=key) for key in self._entries.keys() - seen}
        elif seen is not None:
            self._entries = {key: entry for key, entry in self._entries.items() if key in seen}
            self._refused = {key: why for key, why in self._refused.items() if key in seen}
        for key, why in self._refused.items():
            if self._logged.get(key) != why:
                kept = key in self._entries
                _log.warning("config_entry_refused", key=_short(key), error=why, kept=kept, remedy=_REMEDY)
        for key in self._logged.keys() - self._refused.keys():
            _log.info("config_entry_no_longer_refused", key=_short(key))
        self._logged = dict(self._refused)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
