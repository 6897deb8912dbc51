"""Following of the ``config`` topic by a running service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from ingest.exceptions import ConfigError, LogUnavailable
from ingest.kafka.log import Log
from ingest.runtime import logs
from ingest.site.topic.store import ConfigReader
from ingest.site.topic.view import ConfigView

_log = logs.get("ingest.config")

FOLLOW_S = 5.0
"""Pause between two looks at the topic's end. A person makes the changes, and does not notice such a delay."""


async def follow(
    make_log: Callable[[], Log],
    view: ConfigView,
    on_change: Callable[[ConfigView], Awaitable[None]],
    pause_s: float = FOLLOW_S,
) -> None:
    """Read the topic from its beginning, then follow it for ever.

    ``on_change`` is called after the first reading, and after each reading that changed or refused an entry.

    When the log does not answer, or its secrets cannot be read, it is tried again, and the entries stay in force. An
    outage is logged once when it begins and once when it ends, and ``view.outage`` holds the error meanwhile. Each
    try makes a new log, with the current secrets, and reads the topic from its beginning. During the outage, the
    topic may have been created again, or compaction may have deleted an entry and its tombstone.
    """
    reported, reader, outage_since_s = None, None, 0.0
    try:
        while True:
            reader = reader or ConfigReader(make_log(), view)
            try:
                await reader.catch_up()
            except (LogUnavailable, ConfigError, OSError) as error:
                if not view.outage:
                    outage_since_s = time.monotonic()
                    _log.warning("config_topic_unavailable", error=str(error), kept=len(view.config.entries))
                view.outage = str(error)
                await reader.close()
                reader = None
            else:
                if view.outage:
                    _log.info("config_topic_available", out_for_s=round(time.monotonic() - outage_since_s, 1))
                view.outage = ""
                if reported != (now := view.config):
                    reported = now
                    await on_change(view)
            await asyncio.sleep(pause_s)
    finally:
        if reader:
            await reader.close()
