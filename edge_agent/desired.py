"""What an agent is in charge of: the cameras and sensors of its site, as the file, the disk or the topic has them.

The site's file is where an agent begins. Once the ``config`` topic has anything of its site, the topic is what holds,
and the last of it that could be run is kept on disk for a start without Kafka. It holds from then on, also when it
says that all is taken out: what an operator has removed does not come back with the next start.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from edge_agent.lastgood import LastGood, SavedConfiguration
from ingest.runtime import logs
from ingest.site import UNNAMED, CameraConfig, ConfigEntry, PinConfig, SensorConfig, Site
from ingest.site.topic.view import Config, ConfigView

_log = logs.get("edge_agent.config")


_KINDS = tuple(f"{cls.KIND}/" for cls in (CameraConfig, SensorConfig, PinConfig))
"""Of entries that an agent reads: what others cannot use is theirs to tell."""
_TOLD = 5
"""Refusals in a heartbeat, each a line: a topic full of them must not make it too large to send."""


@dataclass(frozen=True, slots=True)
class RunningConfiguration:
    """What an agent runs."""

    cameras: tuple[CameraConfig, ...] = ()
    sensors: tuple[SensorConfig, ...] = ()
    pins: tuple[PinConfig, ...] = ()


class DesiredConfiguration:
    """Decides what an agent runs. ``only`` names the cameras and sensors that are its own, all of its site if empty.

    Without a ``last_good``, as where no topic is followed, the file is in charge for good.
    """

    def __init__(self, site: Site, last_good: LastGood | None, only: Collection[str] = ()) -> None:
        self._site, self._last_good, self._only = site, last_good, frozenset(only)
        kept = last_good.load() if last_good else SavedConfiguration()
        self.entries: dict[str, ConfigEntry] = kept.entries
        run = [entry for entry in kept.entries.values() if not isinstance(entry, PinConfig)]
        # what was kept under another name of the site says nothing of this one
        self.topic_holds = kept.topic_holds and (not run or any(map(self._is_ours, run)))
        self.now = self._now()
        self._refusals: dict[str, str] = {}
        if self.topic_holds:
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
    def refused(self) -> list[str]:
        """What of the topic is not run, and why."""
        told = [why for _, why in sorted(self._refusals.items())]
        return told[:_TOLD] + ([f"and {len(told) - _TOLD} more"] if len(told) > _TOLD else [])

    def take(self, view: ConfigView) -> None:
        """Take what the topic says now.

        A topic that has nothing of the site, and does not say of all of it that it was taken out or moved, has lost
        the rest: that goes on holding, with the pins.
        """
        said = view.config.entries
        ours = {key: entry for key, entry in said.items() if self._is_ours(entry)}
        before = {key: entry for key, entry in self.entries.items() if self._is_ours(entry)}
        missing = {key: entry for key, entry in before.items() if key not in view.removed and key not in said}
        lost = bool(missing) and not ours
        self.topic_holds |= bool(ours)
        pinned = {key: entry for key, entry in self.entries.items() if lost and isinstance(entry, PinConfig)}
        pinned |= {key: entry for key, entry in said.items() if isinstance(entry, PinConfig)}
        self.entries = (missing if lost else ours) | pinned
        self.now = self._now()
        self._refusals = {key: why for key, why in view.refused.items() if key.startswith(_KINDS)}
        if lost:
            why = (
                f"config topic: nothing of site {self._site.name}: runs the last good one, apply the site file again"
            )
            self._refusals["config"] = why
            _log.warning("config topic has lost the site", runs=len(missing), mend="apply the site file again")

    def back(self, to: RunningConfiguration, why: str) -> None:
        """Go back to sensors that could be run: they share connections, and are refused together. Cameras stay."""
        self.now = replace(self.now, sensors=to.sensors)
        self.entries = {key: entry for key, entry in self.entries.items() if not isinstance(entry, SensorConfig)}
        self.entries |= {sensor.key: sensor for sensor in to.sensors}
        self._refusals["config"] = why

    def keep(self) -> None:
        """Keep what runs on disk, if it is the topic's. Blocks."""
        if self._last_good:
            self._last_good.save(SavedConfiguration(self.entries, self.topic_holds))

    def _now(self) -> RunningConfiguration:
        """Return what of the entries is this site's; the site's own file until the topic has had any."""
        config = Config(self.entries)
        cameras, sensors = self._site.cameras, self._site.sensors
        if self.topic_holds:
            cameras = tuple(c for c in config.cameras if self._is_ours(c))
            sensors = tuple(s for s in config.sensors if self._is_ours(s))
        if self._only:
            cameras = tuple(c for c in cameras if c.name in self._only)
            sensors = tuple(s for s in sensors if s.name in self._only)
        return RunningConfiguration(cameras, sensors, config.of(PinConfig))

    def _is_ours(self, entry: ConfigEntry) -> bool:
        if not isinstance(entry, CameraConfig | SensorConfig):
            return False
        return entry.site == self._site.name or (not entry.site and self._site.name == UNNAMED)
