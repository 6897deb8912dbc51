"""Desired configuration of an agent: the cameras and sensors of the site file, the ``config`` topic or the saved
configuration.

A new agent runs the cameras and sensors of the site file. As soon as the ``config`` topic contains a camera or sensor
of this site, the topic replaces the site file. The agent saves to disk the last configuration that it could run, and
starts with the saved configuration when Kafka is unreachable. The topic keeps replacing the site file even after all
entries have been removed from the topic, so a removed camera does not return at the next start.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from edge_agent.lastgood import LastGood, SavedConfiguration
from edge_agent.policy import AgentPolicy, E, Rights
from ingest.exceptions import ConfigError
from ingest.runtime import logs
from ingest.site import UNNAMED, CameraConfig, ConfigEntry, PinConfig, SensorConfig, Site
from ingest.site.topic.view import Config, ConfigView

_log = logs.get("edge_agent.config")

_KINDS = tuple(f"{cls.KIND}/" for cls in (CameraConfig, SensorConfig, PinConfig))
"""Key prefixes of the entries that an agent reads. Entries with other key prefixes belong to other services, which
report them if they are unusable."""
_MAX_REFUSALS = 5
"""Maximum number of refused entries that a heartbeat lists. Without a limit, many unusable entries would make the
heartbeat too large to send."""


@dataclass(frozen=True, slots=True)
class RunningConfiguration:
    """Cameras and sensors that an agent runs, and the partitions to which cameras are pinned."""

    cameras: tuple[CameraConfig, ...] = ()
    sensors: tuple[SensorConfig, ...] = ()
    pins: tuple[PinConfig, ...] = ()
    own_sensors: tuple[SensorConfig, ...] = ()
    """The sensors as written in the ``config`` topic or the site file, before the agent replaces the names of secrets
    with local paths."""


class DesiredConfiguration:
    """Component that selects the cameras and sensors that an agent runs.

    ``only`` lists the names of the cameras and sensors to run; an empty list means all. An entry is refused if it
    needs a right that neither the policy nor the site file grants. Without ``last_good``, the agent does not follow
    the ``config`` topic and always runs the site file.
    """

    def __init__(
        self,
        site: Site,
        last_good: LastGood | None,
        only: Collection[str] = (),
        policy: AgentPolicy | None = None,
    ) -> None:
        self._site, self._last_good, self._only = site, last_good, frozenset(only)
        saved = last_good.load() if last_good else SavedConfiguration()
        self._rights = Rights(policy or AgentPolicy(), site)
        self._denied: dict[str, str] = {}
        self.signed_at = saved.signed_at
        """Time of the newest signature of each ``config`` entry, by the entry's key. The reader of the ``config``
        topic updates this dictionary."""
        self.entries: dict[str, ConfigEntry] = saved.entries
        members = [entry for entry in saved.entries.values() if not isinstance(entry, PinConfig)]
        # a configuration that was saved before the site was renamed does not apply
        self.topic_holds = saved.topic_holds and (not members or any(map(self._is_ours, members)))
        self.running = self._permitted(self._chosen())
        self._refusals: dict[str, str] = {}
        if self.topic_holds:
            _log.info("starting_with_last_good_configuration", cameras=len(self.running.cameras))

    @property
    def pins(self) -> dict[str, int]:
        """Partition to which a camera is pinned, by camera name."""
        return {pin.name: pin.partition for pin in self.running.pins}

    @property
    def refused(self) -> list[str]:
        """Reasons why entries were refused: at most ``_MAX_REFUSALS`` reasons, followed by the number of further
        reasons."""
        reasons = [reason for _, reason in sorted((self._denied | self._refusals).items())]
        more = len(reasons) - _MAX_REFUSALS
        return reasons[:_MAX_REFUSALS] + ([f"and {more} more"] if more > 0 else [])

    def validate(self, entry: ConfigEntry) -> ConfigEntry:
        """Check an entry of the ``config`` topic against the rights of the agent, and return it unchanged.

        Raise ConfigError if the entry belongs to this agent and needs a right that the agent does not grant.
        """
        if self._is_ours(entry) and (not self._only or entry.name in self._only):
            self._rights.local(entry)
        return entry

    def apply(self, view: ConfigView) -> None:
        """Apply the entries that the ``config`` topic contains now.

        If somebody deleted the ``config`` topic and created it again, the topic has no entry of this site, and the
        previous entries and pins stay in force. Entries that were removed from the topic or moved to another site do
        not stay in force.
        """
        current = view.config.entries
        ours = {key: entry for key, entry in current.items() if self._is_ours(entry)}
        before = {key: entry for key, entry in self.entries.items() if self._is_ours(entry)}
        missing = {key: entry for key, entry in before.items() if key not in view.removed and key not in current}
        lost = bool(missing) and not ours
        self.topic_holds |= bool(ours)
        pinned = {key: entry for key, entry in self.entries.items() if lost and isinstance(entry, PinConfig)}
        pinned |= {key: entry for key, entry in current.items() if isinstance(entry, PinConfig)}
        self.entries = (missing if lost else ours) | pinned
        self.running = self._permitted(self._chosen())
        self._refusals = {key: reason for key, reason in view.config.refused.items() if key.startswith(_KINDS)}
        if lost:
            self._refusals["config"] = (
                f"config topic: no entries of site {self._site.name}: the last good configuration stays in force. "
                "Apply the site file again"
            )
            _log.warning("site_missing_in_config_topic", running=len(missing), fix="apply the site file again")

    def restore_sensors(self, before: RunningConfiguration, reason: str) -> None:
        """Run the sensors of the earlier configuration ``before`` again.

        All new sensors are refused together, because several sensors that share one connection may conflict.
        """
        self.running = replace(self.running, sensors=before.sensors, own_sensors=before.own_sensors)
        self.entries = {key: entry for key, entry in self.entries.items() if not isinstance(entry, SensorConfig)}
        self.entries |= {sensor.key: sensor for sensor in before.own_sensors}
        self._refusals["config"] = reason

    def save(self) -> None:
        """Save the entries to disk, so that the agent can start without Kafka.

        Block until the entries are written to the disk. Do nothing if the agent does not follow the ``config`` topic.
        """
        if self._last_good:
            self._last_good.save(SavedConfiguration(self.entries, self.topic_holds, dict(self.signed_at)))

    def _permitted(self, wanted: RunningConfiguration) -> RunningConfiguration:
        """Return the entries that the rights permit, with command names replaced by programs and secret names
        replaced by local paths."""
        self._denied = {}
        return replace(
            wanted,
            cameras=tuple(filter(None, map(self._local, wanted.cameras))),
            sensors=tuple(filter(None, map(self._local, wanted.sensors))),
            own_sensors=wanted.sensors,
        )

    def _local(self, entry: E) -> E | None:
        try:
            return self._rights.local(entry)
        except ConfigError as error:
            self._denied[entry.key] = str(error)
            _log.warning("config_entry_not_permitted", key=entry.key, error=str(error))
            return None

    def _chosen(self) -> RunningConfiguration:
        """Return this site's entries from the ``config`` topic, or from the site file if the topic never had an entry
        of this site."""
        config = Config(self.entries)
        cameras, sensors = self._site.cameras, self._site.sensors
        if self.topic_holds:
            cameras = tuple(c for c in config.of(CameraConfig) if self._is_ours(c))
            sensors = tuple(s for s in config.of(SensorConfig) if self._is_ours(s))
        if self._only:
            cameras = tuple(c for c in cameras if c.name in self._only)
            sensors = tuple(s for s in sensors if s.name in self._only)
        return RunningConfiguration(cameras, sensors, config.of(PinConfig))

    def _is_ours(self, entry: ConfigEntry) -> bool:
        if not isinstance(entry, CameraConfig | SensorConfig):
            return False
        return entry.site == self._site.name or (not entry.site and self._site.name == UNNAMED)
