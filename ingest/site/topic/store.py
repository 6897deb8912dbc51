"""The compacted ``config`` topic: what a site is made of, as all services see it."""

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
"""The transactional id of whoever reads the topic and writes what follows from it. Of two at once the later fences
the other, whose reading no longer holds."""


async def publish(log: Log, entries: Iterable[ConfigEntry], removed: Iterable[str] = ()) -> None:
    """Write entries, and take out those whose keys are in ``removed``, whatever the topic says."""
    for record in _records(entries, removed):
        await log.produce(record)


async def open_writer(log: Log) -> Writer:
    """Return what ``commit`` writes with. Read the topic only then, and close it after. Raise LogUnavailable."""
    return await log.writer(_WRITER)


async def commit(writer: Writer, entries: Iterable[ConfigEntry], removed: Iterable[str] = ()) -> None:
    """Write entries and take others out, all or nothing of it. Raise LogUnavailable.

    Raise Fenced when somebody else has opened a writer since this one was.
    """
    records = _records(entries, removed)
    try:
        if records:
            await writer.write(records, CONFIG, {})
    except Fenced:
        raise Fenced("somebody else changes the config topic just now: nothing was changed, try again") from None


def _records(entries: Iterable[ConfigEntry], removed: Iterable[str]) -> list[Outgoing]:
    written = [Outgoing(CONFIG, 0, entry.model_dump_json().encode(), key=entry.key.encode()) for entry in entries]
    return written + [Outgoing(CONFIG, 0, b"", key=key.encode()) for key in removed]


async def read(log: Log, metrics: ConfigMetrics | None = None, validate: Validate = accept) -> Config:
    """Read the topic to its end. Raise LogUnavailable.

    ``validate`` is for services that run rules: see ``stream.rules.validated``.

    An entry that cannot be used stops nobody: it is logged, counted and left out, and the last good one under its
    key, if the topic still has that, holds. ``Config.refused`` says which and why.
    """
    first = (await log.beginnings(CONFIG))[0]
    last = (await log.ends(CONFIG))[0]
    view = ConfigView(validate=validate)
    async with aclosing(log.read(CONFIG, 0, first, last)) as records:
        async for record in records:
            view.take((record.key or b"").decode(errors="replace"), record.value)
    view.caught_up()
    if metrics:
        metrics.refused.set(len(view.refused))
    return view.config
