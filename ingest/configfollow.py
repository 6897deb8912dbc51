"""Following the ``config`` topic while running: what holds now, and what was refused and why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing

from ingest import logs
from ingest.configstore import Config
from ingest.exceptions import ConfigError, LogUnavailable
from ingest.log import Log
from ingest.site import Entry, parse_entry
from ingest.topics import CONFIG

__all__ = ["FOLLOW_S", "View", "follow"]

_log = logs.get("ingest.config")

FOLLOW_S = 5.0
"""Between two looks at the topic's end: a change is made by a person, who waits so long without noticing."""


class View:
    """The entries as they hold, one by one. Pure: it is fed with keys and values in the order of the topic.

    An entry that cannot be used is refused, and the last good one under its key goes on holding.
    """

    def __init__(self, entries: Mapping[str, Entry] | None = None) -> None:
        self._entries = dict(entries or {})
        self._refused: dict[str, str] = {}

    @property
    def config(self) -> Config:
        """What holds now."""
        return Config(dict(self._entries))

    @property
    def refused(self) -> Mapping[str, str]:
        """Keys whose newest entry was refused, and why: file, key, value and what was expected."""
        return dict(self._refused)

    def take(self, key: str, value: bytes) -> bool:
        """Take one record, a tombstone if it is empty. Return whether anything holds that did not hold before."""
        self._refused.pop(key, None)
        if not value:
            return self._entries.pop(key, None) is not None
        try:
            entry = parse_entry(key, value)
        except ConfigError as error:
            self._refused[key] = str(error)
            _log.warning("entry refused", key=key, error=str(error), kept=key in self._entries)
            return False
        if entry.key != key:
            self._refused[key] = f"config topic, {key}: it names itself {entry.key}"
            return False
        changed = self._entries.get(key) != entry
        self._entries[key] = entry
        return changed


async def follow(log: Log, view: View, on_change: Callable[[View], Awaitable[None]]) -> None:
    """Read the topic from its beginning, then go on for ever. ``on_change`` is called whenever it has been caught up
    with and something has changed or been refused, and once when it has been read for the first time.

    A log that does not answer, or whose secrets cannot be read just now, is asked again: what holds goes on holding.
    """
    position, told = None, None
    while True:
        try:
            position, changed = await _catch_up(log, view, position)
            if changed or view.refused != told:
                told = view.refused
                await on_change(view)
        except (LogUnavailable, ConfigError) as error:
            _log.debug("config topic not read", error=str(error))
        await asyncio.sleep(FOLLOW_S)


async def _catch_up(log: Log, view: View, position: int | None) -> tuple[int, bool]:
    end, changed = (await log.ends(CONFIG))[0], position is None
    if position is None:
        position = (await log.beginnings(CONFIG))[0]
    if position < end:
        async with aclosing(log.read(CONFIG, 0, position, end)) as records:
            async for record in records:
                changed |= view.take((record.key or b"").decode(errors="replace"), record.value)
    return max(position, end), changed
