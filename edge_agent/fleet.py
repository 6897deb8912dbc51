"""Fleet of an agent: the running cameras and sensors, which change while the agent runs."""

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
"""Camera or sensor feed that a ``Fleet`` runs. ``run`` returns when the member is stopped, when the member's source
ends, or when the spool fails."""


class Fleet:
    """Runner of cameras and sensor feeds. A new configuration restarts only the cameras and feeds that it changes.

    ``make_feeds`` returns the feeds for a list of sensors; one feed may serve several sensors of a connection.
    ``make_feeds`` raises SourceUnusable if the sensors of one connection configure that connection differently.
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
        """Set once the sources of all cameras have ended. Never set in a fleet without cameras."""

    @property
    def cameras(self) -> list[Camera]:
        """The cameras, sorted by name."""
        return sorted((x for x in self._members.values() if isinstance(x, Camera)), key=lambda c: c.config.name)

    @property
    def sensors(self) -> list[Sensor]:
        """The sensors of all feeds."""
        return [
            sensor for member in self._members.values() if isinstance(member, SensorFeed) for sensor in member.sensors
        ]

    async def apply(self, cameras: Iterable[CameraConfig], sensors: Sequence[SensorConfig]) -> None:
        """Run exactly these cameras and sensors.

        Return when the old members have ended and the new members have started.

        If the sensors cannot run together, raise SourceUnusable and change nothing.
        """
        async with self._changing:
            feeds = self._make_feeds(sensors)
            wanted: dict[str, CameraConfig | SensorFeed] = {_key(c): c for c in cameras}
            wanted |= {_key(*(s.config for s in feed.sensors)): feed for feed in feeds}
            await self._change(wanted)

    async def stop(self) -> None:
        """End all members cleanly. Raise the error of a failed member."""
        async with self._changing:
            await self._change({})

    async def failed(self) -> None:
        """Wait until a member fails. Raise the error of that member."""
        self._failure = asyncio.get_running_loop().create_future()
        for task in self._tasks.values():
            self._ended(task)
        await self._failure

    async def cancel(self) -> None:
        """Cancel all members."""
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
        """Stop members and wait until they have ended. Raise the error of a failed member.

        If this call is cancelled, the members still end cleanly, and another call may wait for their end.
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
    """Return the key of a camera or sensor feed: its configurations as JSON.

    A changed key restarts the member.
    """
    return "\n".join(config.model_dump_json() for config in configs)
