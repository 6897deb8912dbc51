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
"""Pause between two checks for new records, in seconds. People who change the topic do not notice a delay of
``FOLLOW_S``."""
WRITER = "config"
"""Kafka transactional id of every process that changes the ``config`` topic. Open the writer before reading the
topic, and close the writer after ``commit``. If a second process opens a writer before the first process commits,
Kafka fences the first process, whose view of the topic may be outdated."""


async def publish(
    log: Log, entries: Iterable[ConfigEntry], removed: Iterable[str] = (), signer: ConfigSigner | None = None
) -> None:
    """Write entries and remove keys without a transaction and without reading the topic. If ``signer`` is given, sign
    all records."""
    for record in _records(entries, removed, signer):
        await log.produce(record)


async def commit(
    writer: Writer,
    entries: Iterable[ConfigEntry],
    removed: Iterable[str] = (),
    signer: ConfigSigner | None = None,
) -> None:
    """Write entries and remove keys in one transaction. If ``signer`` is given, sign all records.

    Raise Fenced if another process has opened a writer since ``writer`` was opened. Raise LogUnavailable if Kafka
    cannot be reached.
    """
    records = _records(entries, removed, signer)
    try:
        if records:
            await writer.write(records, CONFIG, {})
    except Fenced:
        raise Fenced(
            "nothing was changed, because another process writes to the config topic at the same time. Try again"
        ) from None


def _records(entries: Iterable[ConfigEntry], removed: Iterable[str], signer: ConfigSigner | None) -> list[Outgoing]:
    values = [(entry.key, entry.model_dump_json().encode()) for entry in entries] + [(key, b"") for key in removed]
    return [
        Outgoing(CONFIG, 0, value, key=key.encode(), headers=signer.headers(key, value) if signer else {})
        for key, value in values
    ]


class ConfigReader:
    """Reads the ``config`` topic into a ConfigView. The first call of ``catch_up`` reads the whole topic, and each
    further call reads the records since the previous call."""

    def __init__(self, log: Log, view: ConfigView) -> None:
        self._log, self._view = log, view
        self._position: int | None = None

    async def catch_up(self) -> None:
        """Read the topic from the last position to the end. Raise LogUnavailable.

        If the topic ends before the last position, the topic was created again, and is therefore read from its
        beginning.
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
    """Read the ``config`` topic to its end, and return its entries. Raise LogUnavailable.

    An invalid entry is logged, counted and ignored. The last valid entry with the same key stays in force if the
    topic still has the valid entry. ``Config.refused`` maps the key of each refused entry to its error. Services that
    run rules pass ``stream.rules.validated`` as ``validate``. If given, ``trust`` is used in place of the ConfigTrust
    from the environment.
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
    outage_logged: Callable[[], bool] = lambda: False,
) -> None:
    """Read the ``config`` topic from its beginning, and follow its changes for ever.

    ``on_change`` is called after the first reading, and after each reading that changed or refused an entry.

    If Kafka does not answer, or the secrets for Kafka cannot be read, the entries stay in force and the read is
    tried again. ``view.outage`` holds the error until the outage ends. An outage is logged once when it begins and
    once when it ends, at the level debug if ``outage_logged`` says that the service has logged it already. Each
    attempt after a failed read opens a new connection with the current secrets. The new connection reads the topic
    from its beginning, because the topic may have been created again during the outage. Reading from the beginning
    also shows that an entry was removed while Kafka was away, even if compaction has deleted the tombstone.
    """
    reported, reader, outage_since_s, quiet = None, None, 0.0, False
    try:
        while True:
            reader = reader or ConfigReader(make_log(), view)
            try:
                await reader.catch_up()
            except (LogUnavailable, ConfigError, OSError) as error:
                if not view.outage:
                    outage_since_s, quiet = time.monotonic(), outage_logged()
                    report = _log.debug if quiet else _log.warning
                    report("config_topic_unavailable", error=str(error), kept_entries=len(view.config.entries))
                view.outage = str(error)
                await reader.close()
                reader = None
            else:
                if view.outage:
                    report = _log.debug if quiet else _log.info
                    report("config_topic_available_again", outage_s=round(time.monotonic() - outage_since_s, 1))
                view.outage = ""
                if reported != (now := view.config):
                    reported = now
                    await on_change(view)
            await asyncio.sleep(pause_s)
    finally:
        if reader:
            await reader.close()
