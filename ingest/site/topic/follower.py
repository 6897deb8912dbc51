"""Following the ``config`` topic while running: what holds now, and what was refused and why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from ingest.contract.topics import CONFIG
from ingest.exceptions import ConfigError, LogUnavailable
from ingest.kafka.log import Log
from ingest.runtime import logs
from ingest.site.topic.view import ConfigView

_log = logs.get("ingest.config")

FOLLOW_S = 5.0
"""Between two looks at the topic's end: a change is made by a person, who waits so long without noticing."""


async def follow(
    make_log: Callable[[], Log], view: ConfigView, on_change: Callable[[ConfigView], Awaitable[None]]
) -> None:
    """Read the topic from its beginning, then go on for ever. ``on_change`` is called whenever it has been caught up
    with and something has changed or been refused, and once when it has been read for the first time.

    A log that does not answer, or whose secrets cannot be read just now, is asked again: what holds goes on holding.
    That is logged once when it begins and once when it ends, and ``view.trouble`` says it meanwhile. Each time a new
    log is made, with the secrets as they are by then, and read from its beginning: while nobody looked, the topic may
    have been made anew, or an entry and its tombstone been compacted away.
    """
    told, reader, outage = None, None, _Outage(view)
    try:
        while True:
            reader = reader or _ConfigReader(make_log(), view)
            try:
                await reader.catch_up()
            except (LogUnavailable, ConfigError, OSError) as error:
                outage.goes_on(str(error))
                await reader.close()
                reader = None
            else:
                outage.is_over()
                if told != (now := view.config):
                    told = now
                    await on_change(view)
            await asyncio.sleep(FOLLOW_S)
    finally:
        if reader:
            await reader.close()


class _Outage:
    """Logs once that the topic cannot be read, and once that it can."""

    def __init__(self, view: ConfigView) -> None:
        self._view = view
        self._since_s = 0.0

    def goes_on(self, error: str) -> None:
        if not self._view.trouble:
            self._since_s = time.monotonic()
            _log.warning("config topic not read", error=error, kept=len(self._view.config.entries))
        self._view.trouble = error

    def is_over(self) -> None:
        if self._view.trouble:
            _log.info("config topic read again", out_for_s=round(time.monotonic() - self._since_s, 1))
        self._view.trouble = ""


class _ConfigReader:
    """Reads a log's topic from its beginning to its end, then what has come since."""

    def __init__(self, log: Log, view: ConfigView) -> None:
        self._log, self._view = log, view
        self._position: int | None = None

    async def catch_up(self) -> None:
        """Read to the end. A topic that ends before what was read has been made anew. Raise LogUnavailable."""
        end = (await self._log.ends(CONFIG))[0]
        if self._position is None or end < self._position:
            self._position = (await self._log.beginnings(CONFIG))[0]
            self._view.begin()
        if self._position < end:
            async with aclosing(self._log.read(CONFIG, 0, self._position, end)) as records:
                async for record in records:
                    self._view.take((record.key or b"").decode(errors="replace"), record.value)
        self._view.caught_up()
        self._position = max(self._position, end)

    async def close(self) -> None:
        await self._log.close()
