"""The edge agent of one site: its cameras and sensors, one spool, one sender, and one heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent.camera.camera import Camera
from edge_agent.desired import DesiredConfiguration, RunningConfiguration
from edge_agent.exceptions import SourceUnusable, SpoolUnavailable
from edge_agent.fleet import Fleet
from edge_agent.lastgood import LastGood
from edge_agent.metrics import AgentMetrics
from edge_agent.policy import AgentPolicy
from edge_agent.send.factory import make_link
from edge_agent.send.sender import Sender
from edge_agent.sensors.factory import make_sources
from edge_agent.sensors.feed import SensorFeed
from edge_agent.sensors.sensor import Sensor
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
from ingest.site.topic.signature import ConfigTrust
from ingest.site.topic.store import follow, read
from ingest.site.topic.view import ConfigView

_log = logs.get("edge_agent")

BEAT_S = 1.0
"""Pause between two heartbeats of the agent, in seconds."""
FLUSH_S = 20.0
"""Maximum time for sending the spooled rows at a clean stop of the agent, in seconds.

Rows that a stopping agent cannot send within ``FLUSH_S`` stay on disk until the agent starts again.
"""
_POLL_S = 0.1


class Agent:
    """Capture, spool and send the frames and readings of one site.

    ``folder`` contains the spool and the saved state of the agent.
    """

    def __init__(
        self,
        site: Site,
        settings: KafkaSettings,
        folder: Path,
        *,
        metrics: AgentMetrics,
        only: Collection[str] = (),
        pins: Mapping[str, int] | None = None,
        policy: AgentPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._metrics = metrics
        self._instance = f"{socket.gethostname()}-{site.name}"
        self._random = random.Random()
        self._settings, self._folder = settings, folder
        self._follows = site.link.kind == "kafka"
        self._desired = DesiredConfiguration(
            site, LastGood(folder / "config.json") if self._follows else None, only, policy
        )
        key_file, signed_at = (policy or AgentPolicy()).config_public_key_file, self._desired.signed_at
        self._trust = ConfigTrust.load(key_file, signed_at) if key_file else ConfigTrust.from_env(signed_at)
        self._pins: dict[str, int] = {**(pins or {}), **self._desired.pins}
        seal = load_seal(site.spool.key_file, site.spool.previous_key_files)
        store = SpoolStore(folder / "spool.db", self._instance, seal=seal, clock=self._clock)
        self._spool = Spool(store, site.spool, clock=self._clock, metrics=metrics)
        self._link = make_link(site.link, settings, f"agent-{self._instance}", self._pins, self._refresh_pins)
        self._sender = Sender(self._link, self._spool, site.link, clock=self._clock, metrics=metrics)
        self._fleet = Fleet(self._camera, self._feeds)
        self._view = self._new_view()
        self._check_sensors()

    def _check_sensors(self) -> None:
        """Check before the start whether the agent can use its sensors.

        Raise SourceUnusable if a sensor in the site file is unusable. If a sensor of the saved configuration is
        unusable, run the saved cameras without any sensors. A saved sensor is unusable when it needs hardware or
        software that the agent no longer has.
        """
        try:
            make_sources(self._desired.running.sensors, self._clock)
        except SourceUnusable as error:
            if not self._desired.topic_holds:
                raise
            self._desired.restore_sensors(RunningConfiguration(), str(error))
            _log.warning("last_good_sensors_unusable", error=str(error))

    async def run(self, stop: asyncio.Event, *, exit_at_end: bool = False) -> None:
        """Capture and send until ``stop`` is set, or with ``exit_at_end`` until the sources of all cameras end.

        Raise SpoolError if the spool cannot be used. Raise any error that ends the sending task or the heartbeat
        task, because an agent that sends nothing would only fill its spool.
        """
        await self._spool.open()
        self._set_bounds()  # before rows of the last run are sent, or expire
        working = [asyncio.create_task(work) for work in (self._sender.run(self._random.random), self._beat())]
        working.append(asyncio.create_task(self._fleet.failed()))
        following = asyncio.create_task(self._follow())
        ending: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
        if exit_at_end:
            ending.append(asyncio.create_task(self._fleet.over.wait()))
        try:
            done, _ = await asyncio.wait({*working, following, *ending}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            self._spool.give_up()
            await self._fleet.stop()
            await self._flush()
        finally:
            for task in (*working, following, *ending):
                task.cancel()
            await asyncio.gather(*working, following, *ending, return_exceptions=True)
            await self._fleet.cancel()
            await self._spool.close()

    async def _follow(self) -> None:
        """Write the end-of-capture records that a killed agent could not write, start the cameras and sensors, and
        follow the ``config`` topic."""
        await self._close_killed_epochs()
        await self._apply()
        if not self._follows:
            _log.warning(
                "config_topic_not_followed", link="https", running="the site file", fix="edit the file and restart"
            )
        else:
            self._view = self._new_view()
            log = partial(KafkaLog, self._settings, f"agent-config-{self._instance}")
            await follow(log, self._view, self._changed)
        await asyncio.Event().wait()

    async def _refresh_pins(self) -> None:
        """Read the partition of each pinned camera from the ``config`` topic. Raise LogUnavailable."""
        async with KafkaLog(self._settings, f"agent-pins-{self._instance}") as log:
            self._pins.update((await read(log, trust=self._trust)).pins)

    def _new_view(self) -> ConfigView:
        return ConfigView(self._desired.entries, self._desired.validate, self._trust)

    async def _apply(self) -> None:
        self._set_bounds()
        self._pins.update(self._desired.pins)
        await self._fleet.apply(self._desired.running.cameras, self._desired.running.sensors)

    def _set_bounds(self) -> None:
        running = self._desired.running
        self._spool.set_bounds({c.name: c.spool for c in running.cameras}, {s.name: s.spool for s in running.sensors})

    async def _changed(self, view: ConfigView) -> None:
        """Apply the changed configuration of the ``config`` topic to the running cameras and sensors.

        If the new sensors conflict with each other, keep the old sensors.
        """
        before = self._desired.running
        self._desired.apply(view)
        self._metrics.config.refused.set(len(view.config.refused))
        try:
            await self._apply()
        except SourceUnusable as error:
            self._desired.restore_sensors(before, str(error))
            _log.warning("sensors_refused", error=str(error))
            await self._apply()
        await asyncio.to_thread(self._desired.save)

    async def _close_killed_epochs(self) -> None:
        kinds: tuple[Kind, ...] = ("frame", "readings")
        for kind in kinds:
            for end in await self._spool.unfinished(kind):
                _log.warning(
                    "epoch_of_killed_process_closed",
                    kind=kind,
                    name=end.camera,
                    epoch=end.epoch,
                    last=end.last,
                    reported=end.reported,
                )
                await self._spool.end_epoch(kind, end)

    async def _beat(self) -> None:
        while True:
            await self._spool.maintain()
            with contextlib.suppress(SpoolUnavailable):  # the spool logs its own outage, and heartbeats continue
                running: list[Camera | Sensor] = [*self._fleet.cameras, *self._fleet.sensors]
                await self._spool.note_reported([(x.config.name, x.epoch, x.captured - 1) for x in running])
            beat = self._heartbeat()
            with contextlib.suppress(TimeoutError):  # a blocked link must not delay the spool's size check
                async with asyncio.timeout(BEAT_S):
                    await self._sender.publish(STATUS, encode(beat), self._instance)
            await asyncio.sleep(BEAT_S)

    def _heartbeat(self) -> Heartbeat:
        cameras = [c for c in self._fleet.cameras if c.epoch]  # a camera without an epoch has nothing to report
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
        return troubles + self._desired.refused

    def _clock_figures(self) -> dict[str, float]:
        estimate = self._link.clock.estimate
        if estimate is None:
            return {}
        self._metrics.clock_offset.set(estimate.offset_ms / 1e3)
        self._metrics.clock_error.set(estimate.error_ms / 1e3)
        return {"clock_offset_ms": round(estimate.offset_ms, 2), "clock_error_ms": round(estimate.error_ms, 2)}

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

    def _feeds(self, sensors: Sequence[SensorConfig]) -> list[SensorFeed]:
        clock, metrics = self._clock, self._metrics
        make = partial(Sensor, spool=self._spool, on_kept=self._sender.wake, clock=clock, metrics=metrics)
        return [
            SensorFeed(
                configs[0].source,
                source,
                [make(config) for config in configs],
                chance=self._random.random,
                clock=clock,
                metrics=metrics,
            )
            for source, configs in make_sources(sensors, clock)
        ]


def _waiting(depth: Sequence[Depth]) -> tuple[Waiting, ...]:
    return tuple(Waiting(camera=d.name, epoch=d.epoch, first=d.first, last=d.last) for d in depth)
