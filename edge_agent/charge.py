"""What an agent is in charge of: the cameras and sensors of its site, as the file, the disk or the topic has them.

The site's file is where an agent begins. Once the ``config`` topic has anything of its site, the topic is what holds,
and the last of it that could be run is kept on disk for a start without Kafka.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edge_agent.lastgood import LastGood
from ingest import logs
from ingest.configview import Config, View
from ingest.site import UNNAMED, CameraConfig, Entry, PinConfig, SensorConfig, Site

__all__ = ["Charge", "Now"]

_log = logs.get("edge_agent.config")


@dataclass(frozen=True, slots=True)
class Now:
    """What an agent runs."""

    cameras: tuple[CameraConfig, ...] = ()
    sensors: tuple[SensorConfig, ...] = ()
    pins: tuple[PinConfig, ...] = ()


class Charge:
    """Decides what an agent runs. ``only`` names the cameras that are its own, all of its site if it is empty."""

    def __init__(self, site: Site, last_good: LastGood, only: Collection[str] = ()) -> None:
        self._site, self._last_good, self._only = site, last_good, frozenset(only)
        self.entries: dict[str, Entry] = last_good.load()
        self.now = self._of(Config(dict(self.entries)))
        self._refusals: dict[str, str] = {}
        if self.entries:
            _log.info("begins with the last good configuration", cameras=len(self.now.cameras))

    @property
    def cameras(self) -> tuple[CameraConfig, ...]:
        """The cameras to run."""
        return self.now.cameras

    @property
    def sensors(self) -> tuple[SensorConfig, ...]:
        """The sensors to run."""
        return self.now.sensors

    @property
    def pins(self) -> dict[str, int]:
        """The partitions that cameras are pinned to."""
        return {pin.name: pin.partition for pin in self.now.pins}

    @property
    def evidence(self) -> list[str]:
        """The cameras whose frames are the last to expire."""
        return [camera.name for camera in self.now.cameras if camera.spool.evidence]

    @property
    def refused(self) -> list[str]:
        """What of the topic is not run, and why."""
        return [why for _, why in sorted(self._refusals.items())]

    def take(self, view: View) -> None:
        """Take what the topic says now."""
        self.now = self._of(view.config)
        self._refusals = dict(view.refused)
        ours = [e for e in view.config.entries.values() if isinstance(e, PinConfig) or self._is_ours(e)]
        self.entries = {entry.key: entry for entry in ours}

    def back(self, to: Now, why: str) -> None:
        """Go back to what could be run."""
        self.now = to
        self._refusals["config"] = why

    def keep(self) -> None:
        """Keep what runs on disk, if it is the topic's. Blocks."""
        self._last_good.save(self.entries)

    def _of(self, config: Config) -> Now:
        """Return what of a configuration is this site's; the site's own file as long as that is nothing."""
        cameras = tuple(c for c in config.cameras if self._is_ours(c))
        sensors = tuple(s for s in config.sensors if self._is_ours(s))
        if not cameras and not sensors:
            cameras, sensors = self._site.cameras, self._site.sensors
        if self._only:
            cameras = tuple(c for c in cameras if c.name in self._only)
        return Now(cameras, sensors, config.of(PinConfig))

    def _is_ours(self, entry: Entry) -> bool:
        if not isinstance(entry, CameraConfig | SensorConfig):
            return False
        return entry.site == self._site.name or (not entry.site and self._site.name == UNNAMED)
