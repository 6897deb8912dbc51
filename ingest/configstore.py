"""The compacted ``config`` topic: what a site is made of, as all services see it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing

from ingest.configview import Config, View
from ingest.log import Log, Outgoing
from ingest.metrics import ConfigMetrics
from ingest.site import Entry
from ingest.topics import CONFIG

__all__ = ["Config", "publish", "read"]


async def publish(log: Log, entries: Iterable[Entry], removed: Iterable[str] = ()) -> None:
    """Write entries, and take out those whose keys are in ``removed``."""
    for entry in entries:
        await log.produce(Outgoing(CONFIG, 0, entry.model_dump_json().encode(), key=entry.key.encode()))
    for key in removed:
        await log.produce(Outgoing(CONFIG, 0, b"", key=key.encode()))


async def read(log: Log, metrics: ConfigMetrics | None = None) -> Config:
    """Read the topic to its end. Raise LogUnavailable.

    An entry that cannot be used stops nobody: it is logged, counted and left out, and the last good one under its
    key, if the topic still has that, holds. ``Config.refused`` says which and why.
    """
    first = (await log.beginnings(CONFIG))[0]
    last = (await log.ends(CONFIG))[0]
    view = View()
    async with aclosing(log.read(CONFIG, 0, first, last)) as records:
        async for record in records:
            view.take((record.key or b"").decode(errors="replace"), record.value)
    view.caught_up()
    if metrics:
        metrics.refused.set(len(view.refused))
    return view.config
