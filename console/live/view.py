"""A view of one topic, and the reader that keeps views up to date."""

from __future__ import annotations

import abc
import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import ClassVar

from ingest.exceptions import CodecError, ConfigError, LogUnavailable
from ingest.kafka.follow import Follower
from ingest.kafka.log import Log, LogRecord
from ingest.runtime import logs
from ingest.runtime.backoff import delay_s
from ingest.runtime.clock import Clock, SystemClock

_log = logs.get("console.live")

YIELD_RECORDS = 50
"""Number of records after which a reader lets other tasks run. Decoding 50 records takes about 10 ms."""


ANSWER_S = 5.0
"""Time in seconds without an answer from Kafka after which the topics count as unreadable. A healthy broker answers
within a second; a request to a broker that hangs fails only after 30 s."""


class TopicView(abc.ABC):
    """A bounded view of one topic.

    A reader calls ``apply`` for the records of each partition in order. After an outage the reader starts again at
    ``backlog``, so a view gets records again, and must recognise them by their ids.
    """

    topic: ClassVar[str]
    backlog: ClassVar[int] = 0
    """Number of records before the end of each partition that the view reads at its start."""

    def wanted(self) -> bool:
        """Return whether anyone needs this view now. The reader skips a view that nobody needs, and reads it again
        from its start when somebody needs it."""
        return True

    @abc.abstractmethod
    def apply(self, record: LogRecord) -> None:
        """Add one record. Raise CodecError for a record that cannot be decoded."""


class TopicReader:
    """Reads the topics of some views, one after the other, for ever.

    ``current`` is true once all views have been read up to the end of the log. ``unreadable`` counts records that
    could not be decoded.
    """

    def __init__(
        self,
        name: str,
        views: Sequence[TopicView],
        pause_s: float,
        on_change: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self._name, self._views, self._pause_s, self._on_change = name, views, pause_s, on_change
        self._clock = clock or SystemClock()
        self._error = ""
        self._asked_s: float | None = None
        """Time of the last answer before the request that waits now, on the monotonic clock; None while no request
        waits."""
        self.current = False
        self.unreadable = 0

    @property
    def outage(self) -> str:
        """The error that currently prevents reading, or that Kafka does not answer; empty while the topics can be
        read."""
        waited_s = 0.0 if self._asked_s is None else self._clock.monotonic() - self._asked_s
        if not self._error and waited_s > ANSWER_S:
            return f"it has not answered for {waited_s:.0f} s"
        return self._error

    async def run(self, make_log: Callable[[], Log]) -> None:
        """Read until cancelled. Each attempt after an outage makes a new connection with ``make_log``.

        An outage is logged once when it begins and once when it ends.
        """
        failures, since_s = 0, 0.0
        while True:
            log = make_log()
            try:
                followers: dict[str, Follower] = {}
                while True:
                    await self.read_once(log, followers)
                    if self._error:
                        _log.info(
                            "topics_readable_again", reader=self._name, outage_s=round(time.monotonic() - since_s)
                        )
                    failures, self._error = 0, ""
                    await asyncio.sleep(self._pause_s)
            except (LogUnavailable, ConfigError, OSError) as error:
                failures += 1
                if not self._error:
                    since_s = time.monotonic()
                    _log.warning("topics_unreadable", reader=self._name, error=str(error))
                self._error = str(error)
            finally:
                self._asked_s = None
                await log.close()
            await asyncio.sleep(delay_s(failures, random.random()))

    async def read_once(self, log: Log, followers: dict[str, Follower]) -> None:
        """Read all new records of the wanted views. ``followers`` keeps the positions between calls, by topic."""
        for view in self._views:
            if not view.wanted():
                followers.pop(view.topic, None)
                continue
            follower = followers.setdefault(view.topic, Follower(log, view.topic, backlog=view.backlog))
            self._asked_s = self._clock.monotonic()
            if await self._apply_new(view, follower):
                self._on_change()
        self._asked_s, self.current = None, True

    async def _apply_new(self, view: TopicView, follower: Follower) -> int:
        count = 0
        async with aclosing(follower.new()) as records:
            async for record in records:
                count, self._asked_s = count + 1, self._clock.monotonic()
                try:
                    view.apply(record)
                except CodecError as error:
                    self.unreadable += 1
                    place = f"{record.topic}[{record.partition}] {record.offset}"
                    _log.warning("record_unreadable", record=place, error=str(error))
                if count % YIELD_RECORDS == 0:
                    self._on_change()
                    await asyncio.sleep(0)
        return count
