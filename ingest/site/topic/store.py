"""Reading, following and writing of the compacted ``config`` topic, which holds the entries of all sites."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing

from ingest.contract.topics import CONFIG
from ingest.exceptions import ConfigError, Fenced, LogUnavailable
from ingest.kafka.log import Log, Outgoing, Writer
from ingest.metrics import ConfigMetrics
from ingest.runtime import logs
from ingest.site import ConfigEntry
from ingest.site.topic.signature import ConfigSigner, ConfigTrust
from ingest.site.topic.view import Config, ConfigView, Validate, accept

_log = logs.get("ingest.config")

FOLLOW_S = 5.0
"""Pause between two checks for new records, in seconds. A person makes the changes and does not notice this delay."""
WRITER = "config"
"""Transactional id of a process that changes the topic. Open the writer before reading the topic, and close it after
``commit``. A later process fences an earlier process, whose view of the topic is outdated."""


async def publish(
    log: Log, entries: Iterable[ConfigEntry], removed: Iterable[str] = (), signer: ConfigSigner | None = None
) -> None:
    """Write entries and remove keys without reading the topic. Sign all records if there is a signer."""
    for record in _records(entries, removed, signer):
        await log.produce(record)


async def commit(
    writer: Writer,
    entries: Iterable[ConfigEntry],
    removed: Iterable[str] = (),
    signer: ConfigSigner | None = None,
) -> None:
    """Write entries and remove keys in one transaction. Sign all records if there is a signer.

    Raise Fenced if another process has opened its writer after this one, or LogUnavailable.
    """
    records = _records(entries, removed, signer)
    try:
        if records:
            await writer.write(records, CONFIG, {})
    except Fenced:
        raise Fenced("another process is changing the config topic: nothing was changed, try again") from None


def _records(entries: Iterable[ConfigEntry], removed: Iterable[str], signer: ConfigSigner | None) -> list[Outgoing]:
    values = [(entry.key, entry.model_dump_json().encode()) for entry in entries] + [(key, b"") for key in removed]
    return [
        Outgoing(CONFIG, 0, value, key=key.encode(), headers=signer.headers(key, value) if signer else {})
        for key, value in values
    ]


class ConfigReader:
    """A reader of the ``config`` topic into a view: first the whole topic, then the records since the last call."""

    def __init__(self, log: Log, view: ConfigView) -> None:
        self._log, self._view = log, view
        self._position: int | None = None

    async def catch_up(self) -> None:
        """Read to the end of the topic. Raise LogUnavailable.

        A topic that ends before the last position was created again, so it is read from its beginning.
        """
        end = (await self._log.ends(CONFIG))[0]
        if self._position is None or end < self._position:
            self._position = (await self._log.beginnings(CONFIG))[0]
            self._view.begin_reading()
        if self._position < end:
            async with aclosing(self._log.read(CONFIG, 0, self._position, end)) as records:
                async for record in records:
                    self._view.apply((record.key or b"").decode(errors="replace"), record.value, record.headers)
        self._view.finish_reading()
        self._position = max(self._position, end)

    async def close(self) -> None:
        """Close the log."""
        await self._log.close()


async def read(
    log: Log, metrics: ConfigMetrics | None = None, validate: Validate = accept, trust: ConfigTrust | None = None
) -> Config:
    """Read the topic to its end. Raise LogUnavailable.

    An invalid entry is logged, counted and left out, and the last valid entry under the same key stays in force if
    the topic still has it. ``Config.refused`` lists the refused keys with their errors. Services that run rules pass
    ``stream.rules.validated`` as ``validate``. ``trust`` replaces the ConfigTrust of the environment.
    """
    view = ConfigView(validate=validate, trust=trust)
    await ConfigReader(log, view).catch_up()
    if metrics:
        metrics.refused.set(len(view.config.refused))
    return view.config


async def follow(
    make_log: Callable[[], Log],
    view: ConfigView,
    on_change: Callable[[ConfigView], Awaitable[None]],
    pause_s: float = FOLLOW_S,
) -> None:
    """Read the topic from its beginning, then follow it for ever.

    ``on_change`` is called after the first reading, and after each reading that changed or refused an entry.

    When Kafka does not answer, or the secrets for Kafka cannot be read, the entries stay in force and the read is
    tried again. An outage is logged once when it begins and once when it ends, and ``view.outage`` holds the error
    until the outage ends. Each attempt opens a new connection with the current secrets, and reads the topic from its
    beginning. During the outage, the topic may have been created again, or compaction may have deleted an entry and
    its tombstone.
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
