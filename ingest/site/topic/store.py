"""Reading and writing of the compacted ``config`` topic, which holds the entries of all sites."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing

from ingest.contract.topics import CONFIG
from ingest.exceptions import Fenced
from ingest.kafka.log import Log, Outgoing, Writer
from ingest.metrics import ConfigMetrics
from ingest.site import ConfigEntry
from ingest.site.topic.view import Config, ConfigView, Validate, accept

_WRITER = "config"
"""Transactional id of a process that reads the topic and then changes it. A later process fences an earlier one,
whose reading is outdated."""


async def publish(log: Log, entries: Iterable[ConfigEntry], removed: Iterable[str] = ()) -> None:
    """Write entries and remove keys without reading the topic."""
    for record in _records(entries, removed):
        await log.produce(record)


async def open_writer(log: Log) -> Writer:
    """Return the writer for ``commit``. Open it before reading the topic, and close it afterwards.

    Raise LogUnavailable.
    """
    return await log.writer(_WRITER)


async def commit(writer: Writer, entries: Iterable[ConfigEntry], removed: Iterable[str] = ()) -> None:
    """Write entries and remove keys in one transaction.

    Raise Fenced when another process has opened a writer later, and LogUnavailable.
    """
    records = _records(entries, removed)
    try:
        if records:
            await writer.write(records, CONFIG, {})
    except Fenced:
        raise Fenced("another process is changing the config topic: nothing was changed, try again") from None


def _records(entries: Iterable[ConfigEntry], removed: Iterable[str]) -> list[Outgoing]:
    written = [Outgoing(CONFIG, 0, entry.model_dump_json().encode(), key=entry.key.encode()) for entry in entries]
    return written + [Outgoing(CONFIG, 0, b"", key=key.encode()) for key in removed]


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
                    self._view.apply((record.key or b"").decode(errors="replace"), record.value)
        self._view.finish_reading()
        self._position = max(self._position, end)

    async def close(self) -> None:
        """Close the log."""
        await self._log.close()


async def read(log: Log, metrics: ConfigMetrics | None = None, validate: Validate = accept) -> Config:
    """Read the topic to its end. Raise LogUnavailable.

    An invalid entry is logged, counted and left out, and the last valid one under its key stays in force if the topic
    still has it. ``Config.refused`` lists the refused keys with their errors. ``validate`` is for services that run
    rules: see ``stream.rules.validated``.
    """
    view = ConfigView(validate=validate)
    await ConfigReader(log, view).catch_up()
    if metrics:
        metrics.refused.set(len(view.refused))
    return view.config
