"""The cameras and sensors that run in an agent. They come, change and go while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from edge_agent.camera.camera import Camera
from edge_agent.sensors.feed import Feed
from edge_agent.sensors.sensor import Sensor
from ingest.runtime import logs
from ingest.site import CameraConfig, SensorConfig

_log = logs.get("edge_agent.fleet")


class FleetMember(Protocol):
    """A camera or a feed: it runs until it is told to stop, or is over, or nothing can be promised any more."""

    def stop(self) -> None:
        """Ask for a clean end."""
        ...

    async def run(self) -> None:
        """Live. Raise SpoolError."""
        ...


class Fleet:
    """Keeps lives going. What is not touched by a change goes on undisturbed; the rest ends cleanly, and begins anew.

    ``make_feeds`` returns what is to run for some sensors; one connection may feed several of them. Raise
    SourceUnusable when sensors do not agree on their connection.
    """

    def __init__(
        self,
        make_camera: Callable[[CameraConfig], Camera],
        make_feeds: Callable[[Sequence[SensorConfig]], Sequence[Feed]],
    ) -> None:
        self._make_camera, self._make_feeds = make_camera, make_feeds
        self._lives: dict[str, FleetMember] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[str] = set()
        self._changing = asyncio.Lock()
        self._failure: asyncio.Future[None] | None = None
        self._over = asyncio.Event()

    @property
    def cameras(self) -> list[Camera]:
        """The cameras, in the order of their names."""
        return sorted((x for x in self._lives.values() if isinstance(x, Camera)), key=lambda c: c.config.name)

    @property
    def sensors(self) -> list[Sensor]:
        """The sensors of all feeds."""
        return [sensor for life in self._lives.values() if isinstance(life, Feed) for sensor in life.sensors]

    async def apply(self, cameras: Iterable[CameraConfig], sensors: Sequence[SensorConfig]) -> None:
        """Run these cameras and sensors and no others. Returns when the old ones have ended and the new ones begun.

        Raise SourceUnusable, and then change nothing.
        """
        async with self._changing:
            feeds = self._make_feeds(sensors)
            wanted: dict[str, Callable[[], FleetMember]] = {_key(c): partial(self._make_camera, c) for c in cameras}
            wanted |= {_key(*(s.config for s in feed.sensors)): partial(_same, feed) for feed in feeds}
            await self._change(wanted)

    async def stop(self) -> None:
        """End all of them cleanly. Raise what one of them failed with."""
        async with self._changing:
            await self._change({})

    async def failed(self) -> None:
        """Wait for a life that fails, and raise its error."""
        self._failure = asyncio.get_running_loop().create_future()
        for task in self._tasks.values():
            self._ended(task)
        await self._failure

    async def over(self) -> None:
        """Wait until every camera's source is over; an agent without cameras never is."""
        await self._over.wait()

    async def cancel(self) -> None:
        """End all of them at once."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _change(self, wanted: Mapping[str, Callable[[], FleetMember]]) -> None:
        gone = [key for key in self._lives if key not in wanted]
        await self._end(gone)
        new = [key for key in wanted if key not in self._lives]
        for key in new:
            life = self._lives[key] = wanted[key]()
            task = self._tasks[key] = asyncio.create_task(life.run())
            task.add_done_callback(self._ended)
        if gone or new:
            _log.info("fleet", cameras=len(self.cameras), sensors=len(self.sensors), ended=len(gone), begun=len(new))

    async def _end(self, gone: Sequence[str]) -> None:
        """Stop lives and wait for their ends. Raise what one failed with.

        Whoever is cancelled meanwhile leaves them to end cleanly, and another call may wait for them.
        """
        self._ending.update(gone)
        for key in gone:
            self._lives[key].stop()
        if gone:
            await asyncio.wait([self._tasks[key] for key in gone])
        self._ending.difference_update(gone)
        for task in [(self._lives.pop(key), self._tasks.pop(key))[1] for key in gone]:
            task.result()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.done() or task.cancelled():
            return
        error = task.exception()
        if error and self._failure and not self._failure.done():
            self._failure.set_exception(error)
        staying = [(key, life) for key, life in self._lives.items() if key not in self._ending]
        cameras = [self._tasks[key] for key, life in staying if isinstance(life, Camera)]
        if cameras and all(each.done() for each in cameras):
            self._over.set()


def _key(*configs: CameraConfig | SensorConfig) -> str:
    """Return what tells one life from another: a configuration that says the same is the same life."""
    return "\n".join(config.model_dump_json() for config in configs)


def _same(feed: Feed) -> FleetMember:
    return feed
