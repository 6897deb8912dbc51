"""All live data of the console, and the tasks that keep it up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from console.exceptions import NotFound
from console.live.deployment import Deployment
from console.live.evidence import EvidenceView
from console.live.happenings import AlertView, DeliveryView, EventView, Happenings
from console.live.incidents import LiveActionView, LiveIncidentView
from console.live.labelling import ComparisonView, LabelQueue, LabelResultView, LabelView
from console.live.pictures import Cameras, LiveFrameView, LiveResultView
from console.live.signals import Signal
from console.live.statuses import StatusView
from console.live.view import TopicReader
from console.numbers.forecasts import ForecastView
from console.numbers.measures import MeasureView
from ingest.contract.codec import decode
from ingest.contract.identity import FrameId
from ingest.contract.records import Frame, FrameRef
from ingest.exceptions import CodecError, LogUnavailable
from ingest.kafka.follow import Follower
from ingest.kafka.log import Log
from ingest.runtime.clock import Clock, SystemClock
from ingest.site.topic import store
from ingest.site.topic.view import ConfigView
from stream.incidents.view import IncidentView

LIVE_PAUSE_S = 0.05
"""Pause between two reads of live pictures, in seconds: half the interval of frames at ten frames per second."""
RECORDS_PAUSE_S = 0.25
CONFIG_PAUSE_S = 1.0

MakeLog = Callable[[str], Log]
"""Function that returns a new connection to the log, for the part of the console that its argument names."""


class Feed:
    """Live data of one deployment.

    ``pictures_changed`` wakes the viewers of live pictures, and ``news`` wakes the readers of new events, alerts and
    receipts. All attributes are read and written in one event loop.
    """

    def __init__(self, make_log: MakeLog, clock: Clock | None = None) -> None:
        self._make_log, clock = make_log, clock or SystemClock()
        self.deployment = Deployment()
        self.pictures_changed, self.news = Signal(), Signal()
        self.statuses = StatusView(clock)
        self.cameras = Cameras()
        self.measures, self.forecasts = MeasureView(), ForecastView()
        self.incidents = IncidentView()
        self.labelling = LabelQueue(clock)
        self.happenings = Happenings(self.news.notify, lambda: self._records.current)
        pictures = LiveFrameView(self.cameras), LiveResultView(self.cameras)
        self._live = TopicReader("live", pictures, LIVE_PAUSE_S, self.pictures_changed.notify, clock)
        records = (
            self.statuses,
            EventView(self.happenings),
            AlertView(self.happenings),
            DeliveryView(self.happenings),
            EvidenceView(self.happenings),
            self.measures,
            self.forecasts,
            LiveIncidentView(self.incidents),
            LiveActionView(self.incidents),
        )
        self._records = TopicReader("records", records, RECORDS_PAUSE_S, clock=clock)
        labels = LabelView(self.labelling), ComparisonView(self.labelling), LabelResultView(self.labelling)
        self._labels = TopicReader("labels", labels, RECORDS_PAUSE_S, clock=clock)
        self._config: ConfigView | None = None
        self._shared: Log | None = None
        self._positions: dict[str, dict[str, Follower]] = {"live": {}, "records": {}, "labels": {}}

    @property
    def readers(self) -> tuple[TopicReader, ...]:
        """The readers of all views."""
        return self._live, self._records, self._labels

    @property
    def labels_outage(self) -> str:
        """The error that currently prevents reading the labels that people gave; empty while the labels can be
        read."""
        return self._labels.outage

    @property
    def outage(self) -> str:
        """The error that currently prevents reading the log, empty while the log can be read."""
        return self._records.outage or (self._config.outage if self._config else "")

    async def run(self) -> None:
        """Keep all views up to date until cancelled. While the log cannot be read, the data stays as it is."""
        self._config = ConfigView()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_config(self._config))
                for reader, name in zip(self.readers, ("live", "records", "labels"), strict=True):
                    group.create_task(reader.run(lambda name=name: self._make_log(name)))  # type: ignore[misc]
        finally:
            if self._shared:
                await self._shared.close()

    async def catch_up(self, log: Log) -> None:
        """Read all topics of a log up to their ends, once, instead of ``run``. Tests use this method."""
        await self._configured(ConfigView((await store.read(log)).entries))
        await self._live.read_once(log, self._positions["live"])
        await self._records.read_once(log, self._positions["records"])
        await self._labels.read_once(log, self._positions["labels"])

    def log(self) -> Log:
        """Return the connection with which pages read the log. The connection is shared, and the feed closes it."""
        if self._shared is None:
            self._shared = self._make_log("pages")
        return self._shared

    async def frame(self, ref: FrameRef, frame: FrameId) -> Frame:
        """Read a frame from the log. Raise NotFound if retention has deleted the frame or if the record holds another
        frame."""
        gone = NotFound(f"frame {frame} is no longer in the log")
        log = self.log()
        try:
            if (await log.beginnings(ref.topic)).get(ref.partition, ref.offset + 1) > ref.offset:
                raise gone
            async with aclosing(log.read(ref.topic, ref.partition, ref.offset, ref.offset + 1)) as records:
                async for record in records:
                    found = decode(Frame, record.value)
                    if found.id == frame:
                        return found
        except (CodecError, LogUnavailable) as error:
            raise NotFound(f"frame {frame} cannot be read: {error}") from None
        raise gone

    async def _follow_config(self, view: ConfigView) -> None:
        await store.follow(lambda: self._make_log("config"), view, self._configured, CONFIG_PAUSE_S)

    async def _configured(self, view: ConfigView) -> None:
        self.deployment = Deployment(view.config)
        self.labelling.configure(view.config)
        self.pictures_changed.notify()
