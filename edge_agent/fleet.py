"""Runner of an agent's cameras and sensors, which can change while the agent runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from edge_agent.camera.camera import Camera
from edge_agent.sensors.feed import SensorFeed
from edge_agent.sensors.sensor import Sensor
from ingest.runtime import logs
from ingest.site import CameraConfig, SensorConfig

_log = logs.get("edge_agent.fleet")


FleetMember = Camera | SensorFeed
"""Camera or sensor feed, which a ``Fleet`` runs. The method ``run`` returns when the camera or feed is stopped or its
source ends, and raises an error when the spool fails."""


class Fleet:
    """Runner of cameras and sensor feeds.

    When the configuration changes, only the changed cameras and sensor feeds are restarted. ``make_feeds`` returns
    the feeds for a list of sensors; one feed serves all sensors of one connection. ``make_feeds`` raises
    SourceUnusable if two sensors configure their shared connection differently.
    """

    def __init__(
        self,
        make_camera: Callable[[CameraConfig], Camera],
        make_feeds: Callable[[Sequence[SensorConfig]], Sequence[SensorFeed]],
    ) -> None:
        self._make_camera, self._make_feeds = make_camera, make_feeds
        self._members: dict[str, FleetMember] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[str] = set()
        self._changing = asyncio.Lock()
        self._failure: asyncio.Future[None] | None = None
        self.over = asyncio.Event()
        """Event that is set when the sources of all cameras have ended. In a fleet without cameras, this event is
        never set."""

    @property
    def cameras(self) -> list[Camera]:
        """The running cameras, sorted by name."""
        return sorted((x for x in self._members.values() if isinstance(x, Camera)), key=lambda c: c.config.name)

    @property
    def sensors(self) -> list[Sensor]:
        """The sensors of all running feeds."""
        return [
            sensor for member in self._members.values() if isinstance(member, SensorFeed) for sensor in member.sensors
        ]

    async def apply(self, cameras: Iterable[CameraConfig], sensors: Sequence[SensorConfig]) -> None:
        """Run the given cameras and sensors, and stop all others.

        Return when the stopped cameras and feeds have ended and the new ones have started.

        If the sensors conflict with each other, raise SourceUnusable and change nothing.
        """
        async with self._changing:
            feeds = self._make_feeds(sensors)
            wanted: dict[str, CameraConfig | SensorFeed] = {_key(c): c for c in cameras}
            wanted |= {_key(*(s.config for s in feed.sensors)): feed for feed in feeds}
            await self._change(wanted)

    async def stop(self) -> None:
        """Stop all cameras and feeds, and wait until they have ended.

        Raise the error of a camera or feed that failed.
        """
        async with self._changing:
            await self._change({})

    async def failed(self) -> None:
        """Wait until a camera or feed fails. Raise the error of the failed camera or feed."""
        self._failure = asyncio.get_running_loop().create_future()
        for task in self._tasks.values():
            self._ended(task)
        await self._failure

    async def cancel(self) -> None:
        """Cancel the tasks of all cameras and feeds."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _change(self, wanted: Mapping[str, CameraConfig | SensorFeed]) -> None:
        gone = [key for key in self._members if key not in wanted]
        await self._end(gone)
        new = [key for key in wanted if key not in self._members]
        for key in new:
            found = wanted[key]
            member = self._members[key] = found if isinstance(found, SensorFeed) else self._make_camera(found)
            task = self._tasks[key] = asyncio.create_task(member.run())
            task.add_done_callback(self._ended)
        if gone or new:
            cameras, sensors = len(self.cameras), len(self.sensors)
            _log.info("fleet_changed", cameras=cameras, sensors=sensors, ended=len(gone), started=len(new))

    async def _end(self, gone: Sequence[str]) -> None:
        """Stop the given cameras and feeds, and wait until they have ended.

        Raise the error of a camera or feed that failed. If this call is cancelled, the cameras and feeds still end,
        and another call may wait for their end.
        """
        self._ending.update(gone)
        for key in gone:
            self._members[key].stop()
        if gone:
            await asyncio.wait([self._tasks[key] for key in gone])
        self._ending.difference_update(gone)
        for task in [(self._members.pop(key), self._tasks.pop(key))[1] for key in gone]:
            task.result()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.done() or task.cancelled():
            return
        error = task.exception()
        if error and self._failure and not self._failure.done():
            self._failure.set_exception(error)
        staying = [(key, member) for key, member in self._members.items() if key not in self._ending]
        cameras = [self._tasks[key] for key, member in staying if isinstance(member, Camera)]
        if cameras and all(each.done() for each in cameras):
            self.over.set()


def _key(*configs: CameraConfig | SensorConfig) -> str:
    """Return the key of a camera or sensor feed: its configuration as JSON.

    A camera or feed is restarted when its key changes.
    """
    return "\n".join(config.model_dump_json() for config in configs)
