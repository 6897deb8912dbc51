"""The agent: cameras and sensors, one spool, one sender, and a heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_agent.camera.camera import Camera
from edge_agent.desired import DesiredConfiguration, RunningConfiguration
from edge_agent.exceptions import SourceUnusable, SpoolUnavailable
from edge_agent.fleet import Fleet
from edge_agent.lastgood import LastGood
from edge_agent.metrics import AgentMetrics
from edge_agent.send.factory import make_link
from edge_agent.send.sender import Sender
from edge_agent.sensors.factory import make_sources
from edge_agent.sensors.feed import Feed
from edge_agent.sensors.sensor import Sensor
from edge_agent.sensors.source import SensorSource
from edge_agent.spool.schema import Depth, Kind
from edge_agent.spool.seal import load_seal
from edge_agent.spool.spool import Spool
from edge_agent.spool.store import SERVICE, SpoolStore
from ingest.contract.codec import encode
from ingest.contract.records import Heartbeat, SensorLedger, Waiting
from ingest.contract.topics import STATUS
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import logs
from ingest.runtime.clock import Clock, Deadline, SystemClock
from ingest.site import CameraConfig, SensorConfig, Site
from ingest.site.topic.follower import follow
from ingest.site.topic.view import ConfigView

_log = logs.get("edge_agent")

BEAT_S = 1.0
FLUSH_S = 20.0
"""For handing the spool to Kafka at a clean stop. What is left then waits on disk for the next start."""
_POLL_S = 0.1


class Agent:
    """Everything next to the cameras of one site. ``folder`` keeps the spool, and so the epochs."""

    def __init__(
        self,
        site: Site,
        settings: KafkaSettings,
        folder: Path,
        *,
        metrics: AgentMetrics,
        only: Collection[str] = (),
        pins: Mapping[str, int] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._metrics = metrics
        self._instance = f"{socket.gethostname()}-{site.name}"
        self._random = random.Random()
        self._settings, self._folder = settings, folder
        self._follows = site.link.kind == "kafka"
        self._charge = DesiredConfiguration(site, LastGood(folder / "config.json") if self._follows else None, only)
        self._pins: dict[str, int] = {**(pins or {}), **self._charge.pins}
        seal = load_seal(site.spool.key_file, site.spool.previous_key_files)
        store = SpoolStore(folder / "spool.db", self._instance, seal=seal, clock=self._clock)
        self._spool = Spool(store, site.spool, clock=self._clock, metrics=metrics)
        self._sender = Sender(
            make_link(site.link, settings, f"agent-{self._instance}", self._pins),
            self._spool,
            site.link,
            clock=self._clock,
            metrics=metrics,
        )
        self._fleet = Fleet(self._camera, self._feeds)
        self._view = ConfigView()
        self._try_sensors()

    def _try_sensors(self) -> None:
        """Say before anything begins what cannot be. Raise SourceUnusable if the file has it: it can be mended here.

        Where the topic had it, when this machine was another or had other software, cameras do not wait for that.
        """
        try:
            make_sources(self._charge.sensors, self._clock)
        except SourceUnusable as error:
            if not self._charge.topic_holds:
                raise
            self._charge.back(RunningConfiguration(), str(error))
            _log.warning("sensors of the last good configuration cannot be run", error=str(error))

    async def run(self, stop: asyncio.Event, *, exit_at_end: bool = False) -> None:
        """Capture and send until ``stop`` is set, or with ``exit_at_end`` until every camera is over.

        Raise SpoolError when nothing can be promised any more, and whatever else ends the sender or the heartbeat:
        an agent that goes on without them would promise frames that nobody sends, and its spool would grow for ever.
        """
        await self._spool.open()
        working = [asyncio.create_task(work) for work in (self._sender.run(self._random.random), self._beat())]
        working.append(asyncio.create_task(self._fleet.failed()))
        living = asyncio.create_task(self._live())
        ending: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
        if exit_at_end:
            ending.append(asyncio.create_task(self._fleet.over()))
        try:
            done, _ = await asyncio.wait({*working, living, *ending}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            self._spool.give_up()
            await self._fleet.stop()
            await self._flush()
        finally:
            for task in (*working, living, *ending):
                task.cancel()
            await asyncio.gather(*working, living, *ending, return_exceptions=True)
            await self._fleet.cancel()
            await self._spool.close()

    async def _live(self) -> None:
        """Close what a kill left open, begin, and follow the configuration for ever."""
        await self._close_killed_epochs()
        await self._begin()
        if not self._follows:
            _log.warning(
                "config topic not followed", link="https", runs="the site file", change="edit it and restart"
            )
        else:
            self._view = ConfigView(self._charge.entries)
            await follow(self._config_log, self._view, self._changed)
        await asyncio.Event().wait()

    def _config_log(self) -> KafkaLog:
        return KafkaLog(self._settings, f"agent-config-{self._instance}")

    async def _begin(self) -> None:
        charge = self._charge
        self._spool.set_bounds({c.name: c.spool for c in charge.cameras}, {s.name: s.spool for s in charge.sensors})
        self._pins.update(charge.pins)
        await self._fleet.apply(charge.cameras, charge.sensors)

    async def _changed(self, view: ConfigView) -> None:
        """Run what the topic says now. Sensors that cannot be run together are refused; the old ones stay."""
        before = self._charge.now
        self._charge.take(view)
        self._metrics.config.refused.set(len(view.refused))
        try:
            await self._begin()
        except SourceUnusable as error:
            self._charge.back(before, str(error))
            _log.warning("sensors refused", error=str(error))
            await self._begin()
        await asyncio.to_thread(self._charge.keep)

    async def _close_killed_epochs(self) -> None:
        kinds: tuple[Kind, ...] = ("frame", "readings")
        for kind in kinds:
            for end in await self._spool.unfinished(kind):
                _log.warning(
                    "killed_epoch_closed",
                    kind=kind,
                    name=end.camera,
                    epoch=end.epoch,
                    last=end.last,
                    reported=end.told,
                )
                await self._spool.end_epoch(kind, end)

    async def _beat(self) -> None:
        while True:
            await self._spool.maintain()
            with contextlib.suppress(SpoolUnavailable):  # the spool logs its outage; heartbeats continue
                running: list[Camera | Sensor] = [*self._fleet.cameras, *self._fleet.sensors]
                await self._spool.note_reported([(x.config.name, x.epoch, x.captured - 1) for x in running])
            beat = self._heartbeat()
            with contextlib.suppress(TimeoutError):  # a link that accepts nothing must not delay the spool's bounds
                async with asyncio.timeout(BEAT_S):
                    await self._sender.publish(STATUS, encode(beat), self._instance)
            await asyncio.sleep(BEAT_S)

    def _heartbeat(self) -> Heartbeat:
        cameras = [c for c in self._fleet.cameras if c.epoch]  # one that has not begun has nothing to tell
        sensors = [s for s in self._fleet.sensors if s.epoch]
        frames, readings = self._spool.backlog["frame"], self._spool.backlog["readings"]
        return Heartbeat(
            service=SERVICE,
            instance=self._instance,
            at_ns=self._clock.now_ns(),
            state="running",
            reason="; ".join(self._troubles()),
            cameras=tuple(c.status([d for d in frames if d.name == c.config.name]) for c in cameras),
            waiting=_waiting(frames),
            sensors=tuple(s.status([d for d in readings if d.name == s.config.name]) for s in sensors),
            readings=SensorLedger(waiting=_waiting(readings)),
            figures={"pid": float(os.getpid()), **self._clock_figures()},
        )

    def _troubles(self) -> list[str]:
        disk, config = self._spool.trouble, self._view.outage
        troubles = [f"disk {disk.why}"] if disk else []
        troubles += [f"config topic not read: {config}"] if config else []
        return troubles + self._charge.refused

    def _clock_figures(self) -> dict[str, float]:
        found = self._sender.clock
        if found is None:
            return {}
        self._metrics.clock_offset.set(found.offset_ms / 1e3)
        self._metrics.clock_error.set(found.error_ms / 1e3)
        return {"clock_offset_ms": round(found.offset_ms, 2), "clock_error_ms": round(found.error_ms, 2)}

    async def _flush(self) -> None:
        deadline = Deadline.after(FLUSH_S, self._clock)
        self._sender.wake()
        while not await self._spool.empty():
            if deadline.passed:
                _log.warning("frames_left_in_spool", frames=sum(d.frames for d in await self._spool.depth()))
                return
            await asyncio.sleep(_POLL_S)

    def _camera(self, config: CameraConfig) -> Camera:
        truth_folder = self._folder / "truth"
        return Camera(
            config,
            self._spool,
            truth_folder=truth_folder if config.source.startswith("simulated:") else None,
            state_folder=self._folder / "capture",
            on_kept=self._sender.wake,
            chance=self._random.random,
            clock=self._clock,
            metrics=self._metrics,
        )

    def _feeds(self, sensors: Sequence[SensorConfig]) -> list[Feed]:
        return [self._feed(source, configs) for source, configs in make_sources(sensors, self._clock)]

    def _feed(self, source: SensorSource, configs: Sequence[SensorConfig]) -> Feed:
        sensors = [
            Sensor(
                config,
                self._spool,
                on_kept=self._sender.wake,
                clock=self._clock,
                metrics=self._metrics,
            )
            for config in configs
        ]
        name = configs[0].source
        return Feed(name, source, sensors, chance=self._random.random, clock=self._clock, metrics=self._metrics)


def _waiting(depth: Sequence[Depth]) -> tuple[Waiting, ...]:
    return tuple(Waiting(camera=d.name, epoch=d.epoch, first=d.first, last=d.last) for d in depth)
